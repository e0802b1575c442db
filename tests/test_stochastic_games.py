"""The games experiment as a user runs it, and the formulas that its figures stand on."""

import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import flags, stochastic_games, stochastic_games_report
from jaxfair import games
from jaxfair.study import records

ROOT = pathlib.Path(__file__).parent.parent
TINY = ("--dim=4", "--samples=6", "--budget=60", "--seeds=3", "--tuning_seeds=2", "--map_size=3",
        "--rates=0.01,0.05,0.2", "--optimism=0,1,10", "--batches=1,3")  # fmt: skip


def parsed(*words):
    return flags.parser(stochastic_games.Config, prog="stochastic_games")(["x", *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run as a user starts it: its folder, what it printed, and its flags."""
    folder = tmp_path_factory.mktemp("runs")
    words = (
        f"--runs_dir={folder}",
        "--games=bilinear",
        "--optimizers=optimistic_gradient,omega",
        *TINY,
    )
    done = subprocess.run(
        [sys.executable, "-m", "experiments.stochastic_games", *words], cwd=ROOT, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return path, done.stdout, words


def test_it_writes_what_it_says(finished):
    folder, out, _ = finished
    assert {
        "config.json", "records.jsonl", "tuned.md", "tuned.csv", "published.csv", "paired.csv", "equal.csv",
        "figures", "report.html",
    } <= {p.name for p in folder.iterdir()}  # fmt: skip
    assert {p.stem for p in (folder / "figures").iterdir()} == {
        "distance", "effective_optimism", "paths", "stability", "decay", "batch",
    }  # fmt: skip
    assert "report.html" in out
    page = (folder / "report.html").read_text()
    assert "Is Omega&#39;s gain more than a larger effective optimism?" in page
    table = pd.read_csv(folder / "tuned.csv")
    assert sorted(table["rank"]) == [1, 2]
    assert (table["lower quartile"] <= table["median"]).all()
    assert stochastic_games_report.RULE in page


def test_all_methods_make_the_same_number_of_oracle_calls(finished):
    folder, _, _ = finished
    found = {r["of"][2]: r["value"] for r in records.read(folder / "records.jsonl")
             if r["of"][0] == "compare"}  # fmt: skip
    assert {name: run["calls"][-1] for name, run in found.items()} == dict.fromkeys(found, 60)
    assert all(np.shape(run["distance"])[0] == 3 for run in found.values())
    config = stochastic_games.Config(budget=1000)
    (one, every), (two, twice) = (stochastic_games.length(config, calls, 100) for calls in (1, 2))
    assert (one, every) == (2 * two, 2 * twice) == (1000, 10)


def test_a_second_run_builds_and_plays_nothing_and_says_the_same(finished, monkeypatch, capsys):
    folder, _, words = finished
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(stochastic_games, "build", None)  # a call would be an error
    assert stochastic_games.main(parsed(*words)) == 0
    assert " s\n" not in capsys.readouterr().err  # no line of a computation with its time
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_run_that_was_cut_off_plays_what_is_missing_and_ends_with_the_same_numbers(
    finished, tmp_path, monkeypatch
):
    folder, _, words = finished
    lines = (folder / "records.jsonl").read_text().splitlines()
    lost = [i for i, line in enumerate(lines) if '"compare", "bilinear", "omega"' in line]
    assert len(lost) == 1
    file = tmp_path / "records.jsonl"
    file.write_text("".join(f"{line}\n" for i, line in enumerate(lines) if i not in lost))
    # Compiled as the whole run was, whose flag this process has too.
    stochastic_games.play_all(parsed(*words), stochastic_games.Log(file))
    assert sorted(file.read_text().splitlines()) == sorted(lines)


def test_what_diverges_or_has_no_known_solution_is_shown(tmp_path, capsys):
    words = ("--games=dirac_gan,gaussian_mixture_gan", "--optimizers=sgd_averaged",
             "--budget=40", "--samples=6", "--seeds=2", "--tuning_seeds=1", "--rates=1e6",
             "--studies=", f"--runs_dir={tmp_path}", "--id=wild", "--workers=1")  # fmt: skip
    config = parsed(*words)
    assert stochastic_games.main(config) == 0
    table = pd.read_csv(tmp_path / "wild" / "tuned.csv").set_index(["game", "method"])
    assert table.loc[("dirac_gan", "sgd_averaged"), "diverged"] == 1
    assert table.loc[("dirac_gan", "sgd_averaged"), "median"] > 1e5
    page = (tmp_path / "wild" / "report.html").read_text()
    assert "The solution of gaussian_mixture_gan is not known" in page
    assert "the average of all its iterates" in page
    assert "rate 1e+06†" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--suite=everything", "choose from omega, beyond, all"),
        ("--games=chess", "there is no 'chess'"),
        ("--optimizers=omega,adam", "there is no 'adam'"),
        ("--studies=weather", "there is no 'weather'"),
        ("--optimizers=omega,omega", "name each once"),
        ("--budget=3", "at least 40"),
        ("--dim=0", "at least 2"),
        ("--seeds=0", "at least 1"),
        ("--rates=0.1,0.01", "--rates=0.1,0.01: give rising numbers above 0"),
        ("--rates=0,0.1", "above 0"),
        ("--rates=inf", "rising numbers"),
        ("--optimism=0", "of at least 0"),
        ("--optimism=-1,1", "of at least 0"),
        ("--batches=100,1", "rising numbers"),
        ("--workers=0", "at least 1"),
        ("--rates=fast", "rates"),
        ("--no_such_flag=1", "no_such_flag"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_code_2(capsys, flag, says):
    try:
        code = stochastic_games.main(parsed(flag))
    except SystemExit as left:
        code = left.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1
    assert says in lines[0]


def test_the_radius_is_the_published_boundary_and_table():
    def qmax(o, b):
        x = (1 + 2 * o * b + b * b) / (2 * (o + b))
        low = (1 + o) ** 2 + (o + b) ** 2 - 2 * (1 + o) * (o + b) * x
        return math.sqrt((2 - 2 * x) * (1 + b * b - 2 * b * x) / low)

    eigenvalues = np.array([1j, -1j])
    for o, b in ((1.0, 0.0), (10.0, 0.0), (1.0, 0.9), (3.0, 0.9), (1.0, 0.5)):
        rates = qmax(o, b) * np.array([0.999, 1.001])
        below, above = stochastic_games.radius(eigenvalues, rates, np.full(2, o), b)
        assert below < 1 < above
    got = stochastic_games.radius(eigenvalues, np.array([0.01, 0.1]), np.ones(2), 0.9)
    np.testing.assert_allclose(got, [0.99903984, 0.96815314], atol=5e-9)


NOT_AVERAGED = [n for n, method in stochastic_games.METHODS.items() if method.measure is None]


@pytest.mark.parametrize("name", NOT_AVERAGED)
def test_the_cost_of_a_step_is_what_the_method_counts(name):
    method = stochastic_games.METHODS[name]
    game = games.bilinear(jax.random.key(0), dim=3, num_samples=2)
    setting = {"lr": 0.01} | ({method.second: 0.5} if method.second else {})
    seen = games.play(game, method.make(**setting), num_steps=2, key=jax.random.key(0))
    assert seen.oracle_calls.tolist() == [method.calls, 2 * method.calls]


@pytest.mark.parametrize("name", [n for n, s in stochastic_games.GAMES.items() if s.linear])
def test_every_linear_game_is_built_in_its_size_and_has_a_solution(name):
    config = stochastic_games.Config(dim=6, samples=3)

    def shapes():
        game = stochastic_games.build(config, name)
        return game.saddle, game.jacobian

    saddle, jacobian = jax.eval_shape(shapes)
    assert jacobian.shape == (saddle["x"].size + saddle["y"].size,) * 2
    if stochastic_games.GAMES[name].sized:
        assert saddle["x"].shape == (6,)


def test_every_game_of_the_library_can_be_chosen():
    assert set(games.SUITE) <= set(stochastic_games.SUITES["all"])


def turning():
    """The game x y, without noise."""
    return games.finite_sum("xy", B=jnp.ones((1, 1, 1)))


def test_lookahead_contracts_as_its_formula_says():
    make = stochastic_games.METHODS["lookahead"].make
    seen = games.play(
        turning(), make(0.1, 0.5), num_steps=40, record_every=10, key=jax.random.key(0)
    )
    factor = abs(1 - 0.5 + 0.5 * (1 - 0.1j) ** 10)
    np.testing.assert_allclose(seen.distance[1:] / seen.distance[:-1], factor, rtol=1e-5)


def test_an_averaged_method_moves_alike_and_is_looked_at_through_its_average():
    plain, averaged = (stochastic_games.METHODS[n] for n in ("sgd", "sgd_averaged"))
    key = jax.random.key(0)
    once, seen = (
        games.play(turning(), m.make(lr=0.1), num_steps=30, key=key, measure=m.measure)
        for m in (plain, averaged)
    )
    first = turning().init(jax.random.split(key, 3)[0])
    z = complex(first["x"].item(), first["y"].item())
    path = z * (1 + 0.1j) ** np.arange(1, 31)  # x' = x - 0.1 y, y' = y + 0.1 x
    np.testing.assert_allclose(once.distance, abs(path), rtol=1e-5)
    average = np.cumsum(path) / np.arange(1, 31)
    np.testing.assert_allclose(seen.distance, abs(average), rtol=1e-5)
    np.testing.assert_allclose(seen.players["x"], once.players["x"])


def test_starts_are_those_of_the_runs():
    config = stochastic_games.Config(dim=3, samples=2, tuning_seeds=2)
    game = stochastic_games.build(config, "bilinear")
    still = games.sweep(
        game, stochastic_games.METHODS["sgd"].make, {"lr": np.zeros(1)}, num_steps=1,
        keys=stochastic_games.keys(config, "tuning"),
    )  # fmt: skip
    found = stochastic_games.starts(config, game, "tuning")
    np.testing.assert_allclose(found, still.distance[0, :, 0], rtol=1e-6)


def test_a_large_minibatch_is_the_mean_of_its_samples():
    game = stochastic_games.build(stochastic_games.Config(dim=3, samples=5), "quadratic_0.1")
    key, players = jax.random.key(1), game.init(jax.random.key(2))
    parts = stochastic_games.matrices(game)
    for size in (1, 4):
        batches = stochastic_games.in_minibatches(game, parts, size, 4)
        got = batches.operator(players, batches.sample(key, 1))
        drawn = jax.random.randint(key, (4,), 0, 5)[:size]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            got, game.operator(players, drawn),
        )  # fmt: skip


def test_a_seed_that_diverges_is_infinitely_far_and_never_chosen():
    distance = np.ones((2, 2, 20))
    distance[0, 1, 18:] = [np.inf, np.nan]
    final = stochastic_games.tail(distance)
    np.testing.assert_array_equal(final, [[1.0, np.inf], [1.0, 1.0]])
    assert stochastic_games.choose(final) == 1


def test_seeds_of_the_tuning_are_no_seeds_of_the_comparison():
    config = stochastic_games.Config()
    data = [jax.random.key_data(stochastic_games.keys(config, r)) for r in ("tuning", "comparison")]
    assert not {tuple(k) for k in data[0].tolist()} & {tuple(k) for k in data[1].tolist()}


def tuned_where(monkeypatch, distance, name="optimistic_gradient", start=1.0):
    """What tuning finds if the distance at the end is a function of the settings; and the grids that it played."""
    grids = []

    def played(config, game, method, settings, seeds, *, records):
        grids.append(settings)
        final = distance(*settings.values())[:, None] * np.ones((1, 2))
        return stochastic_games.Played(final[..., None], final, np.array([1]))

    monkeypatch.setattr(stochastic_games, "played", played)
    monkeypatch.setattr(stochastic_games, "starts", lambda *_: np.full(2, start))
    config = stochastic_games.Config(rates=(0.01, 0.1), optimism=(0.0, 1.0, 10.0), tuning_seeds=2)
    return stochastic_games.tune(config, None, name), grids


def bowl(lr, optimism):
    """Of settings: the distance is smallest there."""

    def distance(rates, optimisms):
        return 0.01 * np.exp(np.log(rates / lr) ** 2 + np.log((optimisms + 1e-9) / optimism) ** 2)

    return distance


def test_a_grid_grows_where_its_end_is_best_and_is_refined_around_the_best(monkeypatch):
    inside, grids = tuned_where(monkeypatch, bowl(0.08, 1.2), start=np.inf)
    assert inside["extended"] == 1  # of two rates both are ends
    outside, grids = tuned_where(monkeypatch, bowl(0.5, 90.0), start=np.inf)
    assert outside["ends"] == {"lr": "", "optimism": ""}
    assert len(grids) == outside["extended"] + 2
    assert {len(grid["lr"]) for grid in grids} == {6}  # so one compiled program plays all of them
    assert 0.5 / 3 < outside["chosen"]["lr"] < 3 * 0.5
    assert 90 / 3 < outside["chosen"]["optimism"] < 3 * 90
    unrefined = outside["final"][: 6 * (len(grids) - 1)]
    assert outside["final"].min() < unrefined.min()


def test_a_setting_at_an_end_is_marked_with_its_reason(monkeypatch):
    falling = lambda lr, optimism: 0.5 / (1 + lr)
    found, grids = tuned_where(monkeypatch, falling)
    assert found["extended"] == stochastic_games.EXTENSIONS
    assert found["ends"]["lr"] == "upper"
    assert len(grids) == stochastic_games.EXTENSIONS + 2

    least, _ = tuned_where(
        monkeypatch, lambda lr, o: 0.1 + o + np.log(lr / 0.03) ** 2, start=np.inf
    )
    assert least["chosen"]["optimism"] == 0
    assert least["ends"]["optimism"] == "bound"

    away, grids = tuned_where(monkeypatch, lambda lr, o: np.exp(lr))
    assert away["still"]
    assert len(grids) == 1

    result = {"tuned": {("a", "x"): found, ("a", "y"): least, ("a", "z"): away}}
    signs = stochastic_games_report.marks(result)
    assert [signs["a", m].get(k) for m, k in (("x", "lr"), ("y", "optimism"), ("z", "lr"))] == [
        "*", "°", "†",
    ]  # fmt: skip
    assert [line[0] for line in stochastic_games_report.say_marks(result)] == ["†", "°", "*"]


def test_grids_stay_within_the_bounds_of_their_parameter():
    axis = stochastic_games.Axis((0.0, 0.5, 0.9), high=1.0)
    assert axis.beyond("upper", axis.values) == (0.95, 0.975, 0.9875)
    assert all(0.5 < v < 1 for v in axis.around(0.9, axis.values))
    assert axis.around(0.0, axis.values) == (0.0, 0.1667, 0.3333)
    assert axis.end(0.0, axis.values) == "bound"
    share = stochastic_games.Axis((0.1, 0.5, 1.0), high=1.0)
    assert share.around(1.0, share.values) == (0.6667, 0.8333, 1.0)
    rates = stochastic_games.Axis((0.01, 0.1))
    assert rates.beyond("upper", rates.values) == (1.0, 10.0)
    assert rates.beyond("lower", rates.values) == (0.0001, 0.001)
    assert rates.around(0.1, rates.values) == (0.04642, 0.2154)


@pytest.mark.parametrize(
    ("found", "word"),
    [
        ((0.5, 0.4, 0.6), "nearer"),
        ((1.5, 1.4, 1.6), "farther"),
        ((0.9, 0.7, 1.1), "about the same"),  # the interval contains 1
        ((1.001, 1.0005, 1.0015), "about the same"),  # less than two percent
        ((0.985, 0.98, 0.99), "about the same"),
        (None, "cannot tell"),
    ],
)
def test_what_counts_as_a_difference(found, word):
    assert stochastic_games_report.judge(found) == word


def made_up(ratios):
    """A result in which Omega's distance is that of the optimistic gradient times a number, game by game."""
    rng, seen = np.random.default_rng(0), {}
    grid = games.grid(lr=[0.1], optimism=[1.0, 10.0])
    for game, factor in ratios.items():
        og = np.exp(rng.normal(size=10))
        for name, final in (("optimistic_gradient", og), ("omega", factor * og)):
            tuned = {"settings": grid, "final": np.full((2, 2), 0.1),
                     "chosen": {"lr": 0.1, "optimism": 1.0}}  # fmt: skip
            seen[game, name] = {"final": final, "tuned": tuned}
    return {
        "start": {game: np.full(10, 1e6) for game in ratios},
        "compared": seen,
        "published": {},
        "tuned": {at: value["tuned"] for at, value in seen.items()},
    }


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ({"a": 0.8, "b": 0.9}, "Yes"),
        ({"a": 1.2, "b": 1.1}, "No"),
        ({"a": 0.8, "b": 1.1}, "In part"),
        ({"a": 0.8, "b": 1.001}, "In part"),
        ({"a": 0.99, "b": 1.001}, "No"),
        ({"a": np.inf}, "cannot tell"),
    ],
)
def test_the_verdict_follows_from_the_numbers(ratios, verdict):
    result = made_up(ratios)
    _, numbers = stochastic_games_report.paired_table(result)
    got, sentences = stochastic_games_report.answer(result, numbers)
    assert got == verdict
    assert sentences
    if np.isfinite(list(ratios.values())).all():
        np.testing.assert_allclose(numbers["ratio"], list(ratios.values()))
