"""What may be compared, and that the verdict follows from the numbers."""

import numpy as np
import pytest

from experiments import game_studies, omega_gain
from jaxfair import games, study


def made_up(ratios):
    """Records in which Omega's distance is that of the optimistic gradient times a number, game by game."""
    rng = np.random.default_rng(0)
    return [
        {"kind": "compared", "game": game, "method": method, "seed": seed}
        | games.outcome(1e6, final * (factor if method == "omega" else 1))
        for game, factor in ratios.items()
        for seed, final in enumerate(np.exp(rng.normal(size=10)))
        for method in ("optimistic_gradient", "omega")
    ]


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ({"a": 0.8, "b": 0.9}, "holds"),
        ({"a": 1.2, "b": 1.1}, "violated"),
        ({"a": 0.8, "b": 1.1}, "violated"),
        ({"a": 0.8, "b": 0.99}, "violated"),  # less than two percent: no gain
        ({"a": 0.8, "b": np.inf}, "cannot tell"),  # of one that is not compared
        ({"a": 1.2, "b": np.inf}, "violated"),
    ],
)
def test_the_verdict_follows_from_the_numbers(ratios, verdict):
    records = made_up(ratios)
    (claim,) = omega_gain.claims(records)
    found = study.judge(omega_gain.solved(records), claim)
    assert found.state == verdict
    assert list(found.left_out) == [game for game, ratio in ratios.items() if ratio == np.inf]
    assert list(found.differences) == [game for game, ratio in ratios.items() if ratio < np.inf]


def at_equal(level, finals):
    """Records of a game at equal effective optimism, from a distance of 1."""
    cell = {"kind": "equal", "game": "a", "level": level}
    return [
        {**cell, "method": method, "seed": seed} | games.outcome(1.0, final)
        for method, ends in finals.items()
        for seed, final in enumerate(ends)
    ]


def test_at_equal_optimism_both_must_have_come_nearer():
    records = at_equal(10.0, {"omega": (0.1, 0.11), "optimistic_gradient": (0.2, 1.5)})
    records += at_equal(30.0, {"omega": (0.1, 0.11), "optimistic_gradient": (0.2, 0.9)})
    records += at_equal(0.5, {"omega": (0.1, 0.11), "optimistic_gradient": (0.2, 0.9)})
    claims = omega_gain.claims(records)
    assert [claim.among for claim in claims] == [
        {"kind": "compared"},
        {"kind": "equal", "level": 10.0},
        {"kind": "equal", "level": 30.0},
    ]
    _, lost, fine = (study.judge(omega_gain.solved(records), claim) for claim in claims)
    assert (list(lost.left_out), lost.compared) == (["a"], 0)
    assert (list(fine.left_out), fine.compared) == ([], 1)
    (table,) = [one for one in omega_gain.shown([*records, *settled()]) if one.name == "equal"]
    assert table.frame["10"].tolist() == ["–"]
    assert table.frame["30"].tolist() != ["–"]


def settled():
    """What the tables want besides: both methods, tuned."""
    return [r | {"setting": {"optimism": 1.0}, "words": "rate 1"} for r in made_up({"a": np.inf})]


def test_the_authors_settings_are_judged_on_every_game():
    records = [
        {"kind": "published", "game": game, "label": label, "seed": seed} | games.outcome(1.0, final + 0.01 * seed)
        for game, finals in {
            "a": (0.1, 0.5, 0.1),
            "b": (0.1, 0.5, np.inf),
        }.items()
        for label, final in zip(("omega 1", "optimistic_gradient 1", "optimistic_gradient 10"), finals, strict=True)
        for seed in range(3)
    ]
    equal, effective = (study.judge(records, claim) for claim in game_studies.claims(records))
    assert (equal.state, list(equal.left_out)) == ("holds", [])
    assert (effective.state, list(effective.left_out)) == ("cannot tell", ["b"])
    assert "b" in effective.sentence().split("Not compared")[1]


@pytest.mark.slow
def test_what_diverges_or_has_no_known_solution_is_shown(tmp_path, capsys):
    words = ["--games=dirac_gan,gaussian_mixture_gan", "--optimizers=sgd_averaged", "--budget=40",
             "--samples=6", "--seeds=2", "--tuning_seeds=1", "--rates=1e6", "--studies=",
             f"--runs_dir={tmp_path}", "--id=wild", "--workers=1"]  # fmt: skip
    assert game_studies.main(words) == 0
    seen = study.read(tmp_path / "wild" / "records.jsonl")
    (far,) = {r["final"] > 1e5 for r in study.chosen(seen, kind="compared", game="dirac_gan")}
    assert far
    page = (tmp_path / "wild" / "report.html").read_text()
    assert "The solution of gaussian_mixture_gan is not known" in page
    assert "the average of all its iterates" in page
    assert "rate 1e+06†" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--rates=0.1,0.01", "--rates=0.1,0.01: give rising numbers"),
        ("--optimism=0", "--optimism=0: give rising numbers"),
        ("--rates=inf", "below inf"),
    ],
)
def test_grids_rise(capsys, flag, says):
    for module in (omega_gain, game_studies):
        assert module.main([flag]) == 2
        assert says in capsys.readouterr().err
