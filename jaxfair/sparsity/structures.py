"""What is pruned as a whole: single weights, or blocks and channels of them."""

from collections.abc import Callable
from typing import NamedTuple

from jaxfair.typing import Array


class Structure(NamedTuple):
    """The units that live or die together.

    Attributes:
      pool: from the scores of the weights to the scores of the units, an array of any shape.
        Weights that are pruned already have the score -inf, and a unit of such weights must get
        it, too (a sum, a mean and a maximum do).
      expand: ``expand(unit_mask, shape)``, from the mask of the units to the mask of the weights.
    """

    pool: Callable[[Array], Array]
    expand: Callable[[Array, tuple[int, ...]], Array]


#: Every weight is a unit.
unstructured = Structure(pool=lambda scores: scores, expand=lambda mask, shape: mask.reshape(shape))
