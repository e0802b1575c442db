r"""A shortcut: a feature that agrees with the class for most people and causes nothing, beside one that carries it.

.. math:: x_0 = s + \sigma\, \epsilon_0, \qquad x_1 = a + 0.1\, \epsilon_1, \qquad s = 2 y - 1, \quad
   a = \pm s \text{ with } P(a = s) = r

and columns that say nothing. Groups are the four cells of class and attribute, as large in every draw. The first
feature alone is right about :math:`\Phi(1/\sigma)` of every group. A network that goes by the second is right about a
share r of people who are like those of training, and about nobody in the two small cells: the task of Waterbirds and
CelebA, in numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.data._dataset import Dataset, Part, assemble
from jaxfair.data._errors import DataError
from jaxfair.data._splits import SPLITS
from jaxfair.data.planted import bayes_accuracy
from jaxfair.typing import Key


def spurious(
    *,
    key: Key,
    num_train: int = 4_000,
    num_validation: int = 2_000,
    num_test: int = 8_000,
    agreement: float = 0.95,
    noise: float = 0.6,
    columns: int = 20,
    split_seed: int = 0,
) -> Dataset:
    r"""Two classes, a feature that carries them, and a shortcut that agrees with them for most.

    Args:
      key: everything is drawn from it.
      num_train: people in the training split.
      num_validation: in the validation split, drawn alike.
      num_test: in the test split, where the shortcut is right for half of the people, so that all groups are large.
      agreement: r, above 0 and below 1.
      noise: :math:`\sigma` of the feature that carries the class, above 0.
      columns: how many say nothing.
      split_seed: folded into the key: another draw of all three splits.

    Returns:
      A :class:`Dataset`; ``notes`` says what the best accuracy is.

    Raises:
      DataError: for numbers out of range, or a group without anybody.

    Example:
      >>> people = spurious(key=jax.random.key(0))
      >>> people.group_names
      ('0, apart', '0, together', '1, apart', '1, together')
      >>> people.notes
      'The feature that carries the class is right about 0.9522 of every group, the shortcut about 0.95 of training.'

    References:
      Sagawa et al., `An investigation of why overparameterization exacerbates spurious correlations
      <https://arxiv.org/abs/2005.04345>`_, 2020, for such tasks.
    """
    if not 0 < agreement < 1:
        raise DataError(f"agreement={agreement}: give a share above 0 and below 1")
    if not noise > 0:
        raise DataError(f"noise={noise}: give a number above 0")
    key, parts, begin = jax.random.fold_in(key, split_seed), {}, 0
    for number, (split, people) in enumerate(zip(SPLITS, (num_train, num_validation, num_test), strict=True)):
        of_order, of_columns = jax.random.split(jax.random.fold_in(key, number))
        share = 0.5 if split == "test" else agreement
        half = people // 2
        apart = [round((1.0 - share) * size) for size in (people - half, half)]
        sizes = (apart[0], people - half - apart[0], apart[1], half - apart[1])
        if min(sizes) < 1:
            raise DataError(f"{split}: of {people} people nobody is in some group: draw more, or another agreement")
        group = np.asarray(jax.random.permutation(of_order, jnp.asarray(np.repeat(np.arange(4), sizes))))
        y, together = (group // 2).astype(np.int64), group % 2
        sign = 2.0 * y - 1.0
        drawn = np.array(jax.random.normal(of_columns, (people, 2 + columns), jnp.float32))
        drawn[:, 0] = sign + noise * drawn[:, 0]
        drawn[:, 1] = np.where(together, sign, -sign) + 0.1 * drawn[:, 1]
        parts[split] = Part(drawn.astype(np.float32), y, {"group": group}, np.arange(begin, begin + people))
        begin += people
    return assemble(
        "spurious",
        parts,
        class_names=("0", "1"),
        vocabularies={"group": ("0, apart", "0, together", "1, apart", "1, together")},
        groups="group",
        min_group_size=0,
        unconstrained=(),
        source="drawn by jaxfair.data.spurious from a key",
        notes=f"The feature that carries the class is right about {bayes_accuracy(1 / noise):.4f} of every group, "
        f"the shortcut about {agreement:g} of training.",
    )
