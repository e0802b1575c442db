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
        ({"a": 0.8, "b": np.inf}, "holds"),  # of the games that can be compared
    ],
)
def test_the_verdict_follows_from_the_numbers(ratios, verdict):
    records = made_up(ratios)
    (claim,) = omega_gain.claims(records)
    found = study.judge(omega_gain.comparable(records, "compared"), claim)
    assert found.state == verdict
    assert found.compared == np.isfinite(list(ratios.values())).sum()


def test_at_equal_optimism_both_must_have_come_nearer():
    cell = {"kind": "equal", "game": "a", "level": 10.0}
    records = [
        {**cell, "method": method, "seed": seed} | games.outcome(1.0, final)
        for method, finals in (("omega", (0.1, 0.1)), ("optimistic_gradient", (0.2, 1.5)))
        for seed, final in enumerate(finals)
    ]
    assert omega_gain.comparable(records, "equal") == []
    records[-1] |= games.outcome(1.0, 0.9)
    assert omega_gain.comparable(records, "equal") == records
    assert [claim.among for claim in omega_gain.claims(records)] == [
        {"kind": "compared"},
        {"kind": "equal", "level": 10.0},
    ]


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
