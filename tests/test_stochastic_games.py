"""The games experiment as a user runs it, and the formulas that its figures stand on."""

import math
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import stochastic_games, stochastic_games_report
from jaxfair import games
from jaxfair.report import records

ROOT = pathlib.Path(__file__).parent.parent
TINY = ("--dim=4", "--samples=6", "--budget=60", "--seeds=3", "--tuning_seeds=2", "--map_size=3",
        "--rates=0.01,0.05,0.2", "--optimism=0.1,1,10", "--batches=1")  # fmt: skip


def start(folder, *flags):
    command = [sys.executable, "-m", "experiments.stochastic_games", f"--runs_dir={folder}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The runs of this file are processes of their own: let them share what XLA compiled."""
    shared = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    flags = ("--games=bilinear", "--optimizers=optimistic_gradient,omega", *TINY)
    code, out, err = start(folder, *flags)
    assert code == 0, err
    (path,) = folder.iterdir()
    return path, out, flags


def test_it_writes_what_it_says(finished):
    folder, out, _ = finished
    assert {
        "config.json", "records.jsonl", "tuned.md", "tuned.csv", "published.csv", "paired.csv", "figures",
        "report.html",
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


def test_all_methods_make_the_same_number_of_oracle_calls(finished):
    folder, _, _ = finished
    found = {r["of"][2]: r["value"] for r in records.read(folder / "records.jsonl")
             if r["of"][0] == "compare"}  # fmt: skip
    assert {name: run["calls"][-1] for name, run in found.items()} == dict.fromkeys(found, 60)
    assert all(np.shape(run["distance"])[0] == 3 for run in found.values())
    config = stochastic_games.Config(budget=1000)
    (one, every), (two, twice) = (stochastic_games.length(config, calls, 100) for calls in (1, 2))
    assert (one, every) == (2 * two, 2 * twice) == (1000, 10)


def test_a_second_run_plays_nothing_and_says_the_same(finished):
    folder, _, flags = finished
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, _, err = start(folder.parent, *flags)
    assert code == 0
    assert " s\n" not in err  # no line of a computation with its time
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


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
        ("--rates=0.1,0.01", "rising numbers"),
        ("--rates=fast", "rates"),
        ("--no_such_flag=1", "no_such_flag"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_code_2(capsys, flag, says):
    from experiments import flags

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["x"])
        parse = flags.parser(stochastic_games.Config, prog="stochastic_games")
        try:
            code = stochastic_games.main(parse(["stochastic_games", flag]))
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


@pytest.mark.parametrize("name", list(stochastic_games.METHODS))
def test_the_cost_of_a_step_is_what_the_method_counts(name):
    method = stochastic_games.METHODS[name]
    game = games.bilinear(jax.random.key(0), dim=3, num_samples=2)
    setting = {"lr": 0.01} | ({method.second: 0.5} if method.second else {})
    seen = games.play(game, method.make(**setting), num_steps=2, key=jax.random.key(0))
    assert seen.oracle_calls.tolist() == [method.calls, 2 * method.calls]


@pytest.mark.parametrize("name", list(stochastic_games.GAMES))
def test_every_game_of_the_suites_is_built_in_its_size_and_has_a_solution(name):
    config = stochastic_games.Config(dim=6, samples=3)

    def shapes():
        game = stochastic_games.build(config, name)
        return game.saddle, game.jacobian

    saddle, jacobian = jax.eval_shape(shapes)
    assert jacobian.shape == (saddle["x"].size + saddle["y"].size,) * 2
    if name != "complex_spectrum":
        assert saddle["x"].shape == (6,)


def test_the_start_is_about_as_far_as_players_are_large():
    game = stochastic_games.build(stochastic_games.Config(dim=50, samples=3), "bilinear")
    assert 8 < stochastic_games.start_distance(game) < 14  # the square root of 2 * 50 is 10


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
        "start": dict.fromkeys(ratios, 1e6),
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
        np.testing.assert_allclose(numbers["tuned"], list(ratios.values()))
