"""Counts and schedules: integers that must be exact."""

import math
from fractions import Fraction

import jax
import numpy as np
import pytest

from jaxfair import sparsity
from jaxfair.sparsity import _counts as counts

pytestmark = pytest.mark.usefixtures("strict_dtype")


def test_the_published_sixteen_epochs():
    # Zhu and Gupta's cubic from 0 to 0.90 over epochs 0 to 15, to the digits that a paper prints.
    epochs = sparsity.polynomial(0.90, begin=0, end=15, every=1)
    printed = [0, 0.168, 0.314, 0.439, 0.545, 0.633, 0.706, 0.763, 0.809, 0.842, 0.867, 0.883]
    printed += [0.893, 0.898, 0.8997, 0.90]
    digits = [3] * 14 + [4, 2]
    for value, wanted, d in zip(epochs.sparsities, printed, digits, strict=True):
        assert abs(float(value) - wanted) <= 0.5001 * 10**-d
    assert epochs.sparsities[0] == 0
    assert epochs.sparsities[15] == Fraction(9, 10)


def test_our_step_counts_updates_done():
    # JaxPruner's example: update number 9 (from 0), start 0, end 20, target 0.5 -> 0.4375.
    schedule = sparsity.polynomial(0.5, begin=0, end=20, every=1)
    assert float(schedule(9 + 1)) == 0.4375


@pytest.mark.parametrize(
    ("begin", "end", "every", "steps"),
    [
        (0, 15, 5, [0, 5, 10, 15]),
        (0, 10, 4, [0, 4, 8, 10]),  # `every` does not divide
        (3, 10, 100, [3, 10]),
        (7, 9, 1, [7, 8, 9]),
    ],
)
def test_masks_change_at_these_steps_and_at_the_end(begin, end, every, steps):
    schedule = sparsity.polynomial(0.9, begin=begin, end=end, every=every, initial=0.1)
    span = range(end + 20)
    assert [t for t in span if schedule.is_update(t)] == steps
    values = [float(schedule(t)) for t in span]
    assert values == sorted(values)
    assert set(values[:begin]) <= {0.0}
    assert values[begin] == np.float32(0.1)
    assert set(values[end:]) == {float(np.float32(0.9))}
    changes = [t for t in span[1:] if values[t] != values[t - 1]]
    assert set(changes) <= set(steps)


def test_power_and_initial():
    linear = sparsity.polynomial("1/2", begin=0, end=4, every=1, initial="1/4", power=1)
    assert [str(s) for s in linear.sparsities] == ["1/4", "5/16", "3/8", "7/16", "1/2"]


def test_a_schedule_may_be_traced_and_vmapped():
    schedule = sparsity.polynomial(0.8, begin=2, end=6, every=2)
    steps = np.arange(9)
    got = jax.jit(jax.vmap(schedule))(steps)
    assert got.tolist() == [float(schedule(t)) for t in steps]


def test_one_shot():
    assert sparsity.constant(0.5) == sparsity.Schedule((0,), (Fraction(1, 2),))
    assert [bool(sparsity.constant(0.5, begin=3).is_update(t)) for t in range(5)] == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("value", [0.9, 0.55, 0.07, 0.29, 0.57, 0.999, 0.0])
def test_counts_are_those_of_decimal_arithmetic(value):
    thousandths = round(value * 1000)
    for size in [*range(1, 3000), 10**6, 2**24 + 1, 10**9 + 7]:
        wanted = min(-(-thousandths * size // 1000), size - 1)
        assert counts.num_zeros(value, size) == wanted


def test_where_floats_go_wrong():
    """The traps are real: otherwise the rational arithmetic could go."""
    sizes = np.arange(1, 20_001)
    exact = -(-6 * sizes // 10)
    single = np.ceil(np.float32(0.6) * sizes.astype(np.float32)).astype(int)
    assert (single != exact).sum() > 1000
    double = np.ceil(0.55 * sizes).astype(int)
    assert (double != -(-55 * sizes // 100)).sum() > 100
    assert counts.num_zeros(0.6, 25) == 15 != math.ceil(np.float32(0.6) * np.float32(25))
    assert counts.num_zeros(0.55, 100) == 55 != math.ceil(0.55 * 100)
    large = range(2**22, 2**22 + 100)
    wrong = [n for n in large if counts.num_zeros(0.9, n) != math.ceil(np.float32(0.9) * np.float32(n))]
    assert len(wrong) >= 10


@pytest.mark.parametrize("number", [np.float32(0.9), np.float64(0.9), Fraction(9, 10), "0.9", "9/10"])
def test_all_numbers_mean_what_they_say(number):
    assert counts.exact_sparsity(number) == Fraction(9, 10)


@pytest.mark.parametrize("bad", [1.2, 1, 1.0, -0.1, float("nan"), float("inf"), "most", None, "1/0"])
def test_a_wrong_sparsity_is_named(bad):
    for make in (
        lambda: counts.num_zeros(bad, 10),
        lambda: sparsity.constant(bad),
        lambda: sparsity.polynomial(bad, begin=0, end=1, every=1),
    ):
        with pytest.raises(ValueError, match=r"sparsity .* in \[0, 1\).*write 0.9") as error:
            make()
        assert str(bad) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"begin": 5, "end": 5}, "begin < end.*use constant"),
        ({"begin": -1, "end": 5}, "begin=-1"),
        ({"begin": 0, "end": 5, "every": 0}, "every=0"),
        ({"begin": 0, "end": 5, "power": 0}, "power must be a positive integer"),
        ({"begin": 0, "end": 5, "initial": 0.95}, "must not fall"),
    ],
)
def test_wrong_steps_are_named(wrong, match):
    with pytest.raises(ValueError, match=match):
        sparsity.polynomial(0.9, **{"every": 1, **wrong})
    with pytest.raises(ValueError, match="begin is a step"):
        sparsity.constant(0.9, begin=-2)
