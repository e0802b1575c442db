"""Factorial designs: what the tests of terms do not depend on, and designs from files."""

import numpy as np
import pytest

from jaxfair import study
from jaxfair.study import factorial

LEVELS = {"a": (0, 1), "b": (0, 1, 2, 3)}


def ratios(response):
    found = factorial.fit(study.grid(**LEVELS), response, LEVELS)
    return np.array([(term.ratio, term.p) for term in factorial.f_tests(found)])


@pytest.mark.parametrize("unit", [1e-30, 1e-7, 1e7])
def test_the_unit_of_the_response_is_no_evidence(unit):
    response = np.array([s["a"] for s in study.grid(**LEVELS)]) + np.random.default_rng(0).normal(0, 0.2, 8)
    np.testing.assert_allclose(ratios(unit * response), ratios(response), rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-9, 1e9])
def test_a_response_that_is_the_same_everywhere_has_no_effects(value):
    np.testing.assert_allclose(ratios(np.full(8, value)), [[0, 1], [0, 1]], atol=1e-3)


def test_an_effect_without_noise_is_certain():
    found = ratios(np.array([1e-9 * s["a"] for s in study.grid(**LEVELS)]))
    assert found[0, 1] < 1e-6
    assert found[1, 1] > 0.999


def test_a_design_is_read_with_its_numbers_however_they_are_written(tmp_path):
    path = tmp_path / "design.csv"
    path.write_text("mean,rate,on\nuniform,0.10,True\n1,1e-2,False\n")
    levels = {"mean": ("uniform", "1"), "rate": (0.01, 0.1), "on": (True, False)}
    assert factorial.read(path, levels) == [
        {"mean": "uniform", "rate": 0.1, "on": True},
        {"mean": "1", "rate": 0.01, "on": False},
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mean,rate\nuniform,0.1\nuniform,0.2\n", ["row 2", "'rate'", "'0.2'", "0.01, 0.1"]),
        ("mean,rate\nunifrom,0.1\n", ["row 1", "'mean'", "'unifrom'", "'uniform', '1'"]),
        ("mean,rate\n1.0,0.1\n", ["row 1", "'mean'", "'1.0'"]),  # a word is compared as a word
        ("mean,rate\nuniform\n", ["row 1", "'rate'", "nothing"]),
        ("mean\nuniform\n", ["row 1", "'rate'", "nothing"]),
    ],
)
def test_what_is_no_level_is_named_with_its_place(tmp_path, text, words):
    path = tmp_path / "design.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="levels") as error:
        factorial.read(path, {"mean": ("uniform", "1"), "rate": (0.01, 0.1)})
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)
