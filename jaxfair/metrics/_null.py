"""How large the largest gap would be if compression harmed nobody in particular.

The maximum over groups of noisy gaps is positive even where no group is harmed. The noise floor:
keep who changed, but give each change a random sign. Under this null the dense and the sparse
network are exchangeable for every person, and the number of people lost among the m_g changed ones
of a group is Binomial(m_g, 1/2), which is drawn exactly, without touching people::

    Delta*_g = (2 Binomial(m_g, 1/2) - m_g) / n_g,   psi*_g = Delta*_g - sum_h p_h Delta*_h

For outcomes that are means over seeds, one binomial is drawn per size of change.

The null says that *nothing* was lost. A network that is worse for all groups alike breaks it too,
but moves ``max psi`` little, since the overall gap is subtracted.

Source: the sign-flipping test; Fisher, The Design of Experiments, 1935.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike

from jaxfair.metrics._changes import count_changes, generator
from jaxfair.metrics._rows import Rows, check_level, check_whole
from jaxfair.typing import Key

_BLOCK = 1000


class NullGap(NamedTuple):
    """The largest excess gap under random signs, next to the observed one.

    Attributes:
      observed: max_g psi_g of the data.
      mean: its mean under the null: the noise floor.
      quantile: its quantile at ``level`` under the null.
      p_value: share of the null at or above the observed, with the observed counted in; never 0.
      draws: ``[permutations]`` the null itself, for a histogram.
    """

    observed: float
    mean: float
    quantile: float
    p_value: float
    draws: np.ndarray


def sign_flip_null(
    dense_correct: Rows,
    sparse_correct: Rows,
    group: Rows,
    num_groups: int,
    *,
    key: Key,
    weight: Rows | None = None,
    permutations: int = 10_000,
    level: ArrayLike = 0.95,
) -> NullGap:
    """The distribution of max_g psi_g when every person's change is given a random sign.

    Args:
      dense_correct: ``[N]`` booleans, or means over seeds.
      sparse_correct: ``[N]`` the same people in the same order.
      group: ``[N]`` integers; a person outside ``[0, num_groups)`` is left out.
      num_groups: G.
      key: of the signs.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.
      permutations: number of draws.
      level: of the reported quantile.

    Returns:
      :class:`NullGap`; all nan if there are no people.

    Raises:
      ValueError: as :func:`count_changes`, for a level outside (0, 1), and for less than one permutation.

    Example:
      Nobody is harmed, and yet the largest of ten gaps is more than a point:

      >>> import jax
      >>> rng = np.random.default_rng(0)
      >>> group = np.repeat(np.arange(10), 300)
      >>> dense, sparse = rng.random((2, 3000)) < 0.98
      >>> null = sign_flip_null(dense, sparse, group, 10, key=jax.random.key(0))
      >>> bool(0.01 < null.mean < 0.03), bool(null.p_value > 0.05)
      (True, True)
    """
    at = check_level(level)
    check_whole("permutations", permutations, 1)
    values, counts = count_changes(dense_correct, sparse_correct, group, num_groups, weight=weight)
    size = counts.sum(1)
    seen = size > 0
    if not seen.any():
        return NullGap(np.nan, np.nan, np.nan, np.nan, np.full(permutations, np.nan))
    counts, size = counts[seen], size[seen]
    share = size / size.sum()

    def largest(total):  # [..., G] sums of differences -> [...]
        gap = total / size
        return (gap - (gap @ share)[..., None]).max(-1)

    magnitudes = np.unique(np.abs(values))
    magnitudes = magnitudes[magnitudes > 0]
    changed = (
        np.stack([counts[:, np.abs(values) == m].sum(1) for m in magnitudes], -1)
        if magnitudes.size
        else np.zeros((len(size), 0), np.int64)
    )
    rng = generator(key)
    blocks = []
    for start in range(0, permutations, _BLOCK):
        rows = min(_BLOCK, permutations - start)
        lost = rng.binomial(changed, 0.5, size=(rows, *changed.shape))
        blocks.append(largest((2 * lost - changed) @ magnitudes))
    draws = np.concatenate(blocks)
    observed = float(largest(counts @ values))
    # The draws are discrete: ties with the observed must count, in spite of rounding.
    reached = int((draws >= observed - 1e-12).sum())
    return NullGap(
        observed=observed,
        mean=float(draws.mean()),
        quantile=float(np.quantile(draws, at)),
        p_value=(1 + reached) / (1 + permutations),
        draws=draws,
    )
