"""A whole number is one everywhere: the rooms ask the same question, and each says in its own words what to give."""

import fractions

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.constraints._numbers import check_count
from jaxfair.games._numbers import sizes
from jaxfair.metrics._rows import check_whole
from jaxfair.sparsity import _numbers
from jaxfair.typing import whole

WHOLE = [3, 3.0, np.int8(3), np.uint64(3), np.float16(3), jnp.int32(3), jnp.bfloat16(3), fractions.Fraction(3)]
OTHERS = [2.5, float("nan"), float("inf"), -float("inf"), True, np.bool_(True), "3", None, 3 + 0j, [3], np.ones(1)]
ASKED = {
    "constraints": lambda number: check_count("size", number),
    "games": lambda number: sizes(dim=number),
    "metrics": lambda number: check_whole("groups", number, 1),
    "sparsity": lambda number: _numbers.whole("begin", number),
}


@pytest.mark.parametrize("number", WHOLE, ids=repr)
def test_a_whole_number_of_any_kind_is_that_integer(number):
    assert whole(number) == 3
    assert type(whole(number)) is int


@pytest.mark.parametrize("number", OTHERS, ids=repr)
def test_what_is_no_whole_number_is_none(number):
    assert whole(number) is None


@pytest.mark.parametrize("room", ASKED)
@pytest.mark.parametrize("number", [2.5, np.float32("nan"), float("inf"), np.float64("-inf")], ids=repr)
def test_every_room_refuses_in_one_line_what_is_none(room, number):
    ASKED[room](3)
    with pytest.raises(ValueError, match="whole number") as caught:
        ASKED[room](number)
    assert "\n" not in str(caught.value)
