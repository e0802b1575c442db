r"""Planted data: who can be told from what is known by formula, and a network that forgets is caught.

Two tasks with two classes y = 0, 1, equally likely in every group. A person has d features that carry the class, some
that say which group they are of, without an error, and some that say nothing:

.. math:: x_k = f_{gk}\,(2 y - 1)\, s / \sqrt d + \text{noise of } N(0, 1), \qquad f_{gk} = \pm 1

The signs f are the group's own. Who knows the group undoes its signs, so the best possible accuracy is the same in
every group; who ignores the group and takes all features as they are gains by the features with f = 1 and loses by the
others. With r the share of the features whose sign is turned and :math:`\Phi` the normal distribution function,

=======================  =====================
classifier               accuracy in the group
=======================  =====================
Bayes                    :math:`\Phi(s)`
ignores the group        :math:`\Phi((1-2r)s)`
=======================  =====================

- :func:`planted`: a minority that shares most of its features with the wrong class. To serve it, a network must spend
  weights on the interaction of group and features. There are few of these people in the training split, as in the
  world, and many in the test split, so that what happened to them can be seen.
- :func:`planted_many`: hundreds of groups, each with a code of bits. Bit k turns feature k, and groups differ in how
  many bits they have set.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from jaxfair.data._dataset import Dataset, Part, assemble
from jaxfair.data._errors import DataError
from jaxfair.data._splits import SPLITS
from jaxfair.typing import Key

_SOURCE = "drawn by jaxfair.data.planted from a key"


def bayes_accuracy(separation: float, turned: float = 0.0) -> float:
    r"""The accuracy of a classifier that is wrong about the signs of a share of the features.

    Args:
      separation: s.
      turned: r. With 0 it is the Bayes classifier's.

    Returns:
      :math:`\Phi((1 - 2 r) s)`.

    Example:
      >>> round(bayes_accuracy(2.0), 4), round(bayes_accuracy(2.0, turned=0.75), 4)
      (0.9772, 0.1587)
    """
    return float(norm.cdf((1.0 - 2.0 * turned) * separation))


def planted(
    *,
    key: Key,
    num_train: int = 20_000,
    num_validation: int = 4_000,
    num_test: int = 8_000,
    minority: float = 0.01,
    minority_test: int = 2_000,
    features: int = 10,
    turned: int = 8,
    separation: float = 2.0,
    noise: int = 10,
    split_seed: int = 0,
) -> Dataset:
    r"""Two populations, of which the small one looks like the wrong class of the large one in most features.

    The columns of ``x`` are the features, a 1 or -1 for the minority and the majority, and the noise.

    Args:
      key: everything is drawn from it.
      num_train: people in the training split.
      num_validation: in the validation split.
      num_test: in the test split.
      minority: the minority's share of training and validation split; rounded to whole people.
      minority_test: its number in the test split.
      features: d, how many features carry the class.
      turned: how many of them have the other sign in the minority.
      separation: s; the best accuracy is :math:`\Phi(s)` in both populations.
      noise: how many columns say nothing.
      split_seed: folded into the key: another draw of all three splits.

    Returns:
      A :class:`Dataset` with the groups ``majority`` and ``minority``. The average over the test split is not that of
      the population: weigh groups by their share of the training split.

    Raises:
      DataError: numbers that leave a population without people, or more turned features than there are.

    Example:
      >>> import jax
      >>> from jaxfair import data
      >>> people = data.planted(key=jax.random.key(0))
      >>> people
      Dataset('planted': 20000 train, 4000 validation, 8000 test, x [21], 2 classes, 2 groups)
      >>> people.group_sizes()["train"].tolist(), people.group_sizes()["test"].tolist()
      ([19800, 200], [6000, 2000])
    """
    if not 0 <= turned <= features:
        raise DataError(f"turned={turned}: give a number from 0 to features={features}")
    sizes = {}
    for split, num in zip(SPLITS, (num_train, num_validation, num_test), strict=True):
        small = minority_test if split == "test" else round(minority * num)
        if not 0 < small < num:
            raise DataError(f"{split}: {small} of {num} people in the minority: both populations need some")
        sizes[split] = (num - small, small)
    signs = np.ones((2, features), np.float32)
    signs[1, :turned] = -1.0
    return _draw(
        "planted",
        jax.random.fold_in(key, split_seed),
        sizes,
        signs,
        np.array([[-1.0], [1.0]], np.float32),
        separation,
        noise,
        ("majority", "minority"),
        f"Bayes accuracy {bayes_accuracy(separation):.4f} in both populations; a classifier that ignores them "
        f"reaches {bayes_accuracy(separation, turned / features):.4f} in the minority.",
    )


def planted_many(
    *,
    key: Key,
    num_groups: int = 300,
    group_size: int = 500,
    validation_size: int = 40,
    test_size: int = 200,
    bits: int = 12,
    separation: float = 2.0,
    noise: int = 4,
    split_seed: int = 0,
) -> Dataset:
    r"""Many groups of one size, each with a code: bit k turns the sign of feature k.

    The codes are those with the fewest bits set, in the order of their number, so group 0 turns nothing. The columns of
    ``x`` are the features (one per bit), the code as 1 and -1, and the noise.

    Args:
      key: everything is drawn from it.
      num_groups: G, at most ``2 ** bits``.
      group_size: people of each group in the training split.
      validation_size: in the validation split.
      test_size: in the test split.
      bits: d, of the code, and so the number of features that carry the class.
      separation: s; the best accuracy is :math:`\Phi(s)` in every group.
      noise: how many columns say nothing.
      split_seed: folded into the key: another draw of all three splits.

    Returns:
      A :class:`Dataset`; a group is named by its code.

    Raises:
      DataError: more groups than codes, or a split without people.

    Example:
      >>> import jax
      >>> from jaxfair import data
      >>> people = data.planted_many(key=jax.random.key(0), num_groups=5, group_size=20, bits=3)
      >>> people.group_names, people.train.x.shape
      (('000', '100', '010', '001', '110'), (100, 10))
    """
    if not 0 < num_groups <= 2**bits:
        raise DataError(f"num_groups={num_groups}: give 1 to {2**bits}, the codes of bits={bits}")
    numbers = dict(zip(SPLITS, (group_size, validation_size, test_size), strict=True))
    for split, num in numbers.items():
        if num < 1:
            raise DataError(f"{split}: {num} people in each group: give at least 1")
    codes = np.zeros((num_groups, bits), bool)
    chosen = (c for count in range(bits + 1) for c in itertools.combinations(range(bits), count))
    for code, ones in zip(codes, chosen, strict=False):
        code[list(ones)] = True
    signs = np.where(codes, -1.0, 1.0).astype(np.float32)
    return _draw(
        "planted_many",
        jax.random.fold_in(key, split_seed),
        {split: (num,) * num_groups for split, num in numbers.items()},
        signs,
        -signs,
        separation,
        noise,
        tuple("".join("01"[int(b)] for b in code) for code in codes),
        f"Bayes accuracy {bayes_accuracy(separation):.4f} in every group.",
    )


def _draw(
    name: str,
    key: Key,
    sizes: dict[str, tuple[int, ...]],
    signs: np.ndarray,
    marks: np.ndarray,
    separation: float,
    noise: int,
    group_names: tuple[str, ...],
    notes: str,
) -> Dataset:
    """The splits, from the number of people of each group, its signs ``[G, d]`` and its marks ``[G, m]``."""
    parts, begin = {}, 0
    strength = separation / np.sqrt(signs.shape[1])
    for number, (split, counts) in enumerate(sizes.items()):
        of_class, of_noise, of_order = jax.random.split(jax.random.fold_in(key, number), 3)
        group = np.repeat(np.arange(len(counts)), counts)
        group = np.asarray(jax.random.permutation(of_order, jnp.asarray(group)))
        y = np.asarray(jax.random.bernoulli(of_class, 0.5, (len(group),))).astype(np.int64)
        columns = signs.shape[1] + noise
        drawn = np.array(jax.random.normal(of_noise, (len(group), columns), jnp.float32))
        drawn[:, : signs.shape[1]] += signs[group] * ((2 * y - 1) * strength)[:, None]
        x = np.concatenate([drawn[:, : signs.shape[1]], marks[group], drawn[:, signs.shape[1] :]], axis=1)
        rows = np.arange(begin, begin + len(group))
        parts[split] = Part(x.astype(np.float32), y, {"group": group}, rows)
        begin += len(group)
    return assemble(
        name,
        parts,
        class_names=("0", "1"),
        vocabularies={"group": group_names},
        groups="group",
        min_group_size=0,
        unconstrained=(),
        source=_SOURCE,
        notes=notes,
    )
