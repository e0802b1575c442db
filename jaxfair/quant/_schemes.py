r"""Which levels there are: a scheme gives the codes of b bits, and how many steps the largest value is away from zero.

=============  =======================================  ==================  ==========================================
scheme         codes of b bits                          steps to the edge   levels
=============  =======================================  ==================  ==========================================
`symmetric`    :math:`-n \dots n,\ n = 2^{b-1} - 1`     n                   an odd number, the same on both sides
`signed`       :math:`-2^{b-1} \dots 2^{b-1} - 1`       n + 1/2             all of the integer; one more below zero
`affine`       :math:`0 \dots 2^b - 1`                  :math:`2^b - 1`     from the least to the largest value
=============  =======================================  ==================  ==========================================

Zero is a level of each of them. A value is :math:`s\,(c - z)` for its code c, the step s and the code z of zero, which
is 0 but for `affine`. `symmetric` is the quantiser of the oscillation papers: 2 bits are ternary. `signed` is that of
qwix, whose last bucket is as wide as the others.

>>> [int(level) for level in symmetric.levels(3)[:2]], [int(level) for level in affine.levels(3)[:2]]
([-3, 3], [0, 7])
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxfair.quant import _numbers
from jaxfair.typing import Array


class Scheme(NamedTuple):
    """The codes that a number of bits has.

    Attributes:
      of_half: from :math:`2^{b-1}` to the lowest code, the highest one, and the steps from zero (symmetric schemes) or
        from the lowest level (affine) to the edge.
      affine: whether zero may have any code.
      least: the fewest bits.
    """

    of_half: Callable[[Any], tuple[Any, Any, Any]]
    affine: bool = False
    least: int = 1

    def levels(self, bits: Any) -> tuple[Array, Array, Array]:
        """The lowest code, the highest, and the steps to the edge: scalars float32, exact.

        Args:
          bits: b, a whole number or a traced one.

        Raises:
          ValueError: for a number of bits that is none, or too small.
        """
        half = jnp.ldexp(jnp.ones((), jnp.float32), _numbers.bits(bits, least=self.least) - 1)
        low, high, span = self.of_half(half)
        return low, high, span


#: As many levels below zero as above: an odd number.
symmetric = Scheme(lambda half: (1 - half, half - 1, half - 1), least=2)
#: All codes of a signed integer: one more level below zero than above.
signed = Scheme(lambda half: (-half, half - 1, half - 0.5))
#: From the least to the largest value, with a code of its own for zero.
affine = Scheme(lambda half: (jnp.zeros_like(half), 2 * half - 1, 2 * half - 1), affine=True)
CHOICES = "quant.symmetric, quant.signed, quant.affine"
