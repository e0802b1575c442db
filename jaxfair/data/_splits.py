"""Fixed, stratified splits.

The random numbers are the raw words of the PCG64 bit generator, whose stream NumPy promises to
keep; what ``Generator.permutation`` makes of them it does not promise. So a seed means the same
split for ever.
"""

from collections.abc import Sequence

import numpy as np

from jaxfair.data._errors import DataError
from jaxfair.typing import Batch

SPLITS = ("train", "validation", "test")
#: Per cent of the rows in the train, validation and test split.
PERCENT = (70, 10, 20)


def apportion(total: int, percent: Sequence[int]) -> list[int]:
    """Whole numbers that sum to ``total``, each within one of its share (largest remainders).

    Example:
      >>> apportion(109, (70, 10, 20))
      [76, 11, 22]
    """
    exact = [total * p for p in percent]
    count = [e // 100 for e in exact]
    by_remainder = sorted(range(len(percent)), key=lambda i: (-(exact[i] % 100), i))
    for i in by_remainder[: total - sum(count)]:
        count[i] += 1
    return count


def stratified(strata: np.ndarray, *, seed: int, percent: Sequence[int] = PERCENT) -> tuple[np.ndarray, ...]:
    """Part the rows so that every stratum is parted alike.

    Args:
      strata: ``[N]`` integers, the stratum of each row.
      seed: which of the possible splits; the same seed gives the same split on every machine.
      percent: whole per cents that sum to 100, one per part.

    Returns:
      For each part the sorted row numbers, int64. Every row is in exactly one part, and a stratum
      of ``n`` rows gives each part ``n * percent / 100`` rows, rounded up or down.

    Raises:
      DataError: the per cents are negative or do not sum to 100, or the seed is negative.

    Example:
      >>> train, validation, test = stratified(np.arange(100) % 2, seed=0)
      >>> len(train), len(validation), len(test), int((train % 2 == 0).sum())
      (70, 10, 20, 35)
    """
    if sum(percent) != 100 or min(percent) < 0:
        raise DataError(f"per cents {tuple(percent)} do not sum to 100: give shares such as {PERCENT}")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise DataError(f"split_seed={seed!r} is not a number of 0 or more: give an integer such as 0")
    strata = np.asarray(strata)
    shuffled = np.argsort(np.random.PCG64(int(seed)).random_raw(len(strata)), kind="stable")
    # Rows by stratum, and in random order inside it.
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    sizes = np.unique(strata, return_counts=True)[1]
    parts: list[list[np.ndarray]] = [[] for _ in percent]
    start = 0
    for size in sizes:
        for part, count in zip(parts, apportion(int(size), percent), strict=True):
            part.append(order[start : start + count])
            start += count
    return tuple(np.sort(np.concatenate(part)).astype(np.int64) if part else np.zeros(0, np.int64) for part in parts)


def sample(split: Batch, number: int, *, seed: int) -> Batch:
    """Some examples of a split, drawn at random without replacement: the first ones of a file may be all of one class.

    Args:
      split: a `Batch` of a `Dataset`.
      number: how many; a split of fewer is returned whole.
      seed: which; the same seed gives the same examples on every machine.

    Returns:
      The examples in the order of the split, ``index`` numbered anew from 0.

    Raises:
      DataError: ``number`` is below 1.

    Example:
      >>> split = Batch(*[np.arange(100)] * 4, np.ones(100, np.float32))
      >>> drawn = sample(split, 3, seed=0)
      >>> drawn.x.tolist(), drawn.index.tolist()
      ([3, 11, 92], [0, 1, 2])
    """
    if number < 1:
        raise DataError(f"{number} examples asked for: give a number of at least 1")
    words = np.random.PCG64(int(seed)).random_raw(len(split.y))
    kept = np.sort(np.argsort(words, kind="stable")[:number])
    drawn = Batch(*(np.asarray(field[kept]) for field in split))
    return drawn._replace(index=np.arange(len(kept), dtype=np.int32))


def of_each_class(split: Batch, number: int) -> Batch:
    """The first examples of every class, class after class: a batch for scores that are taken once.

    Args:
      split: a `Batch` of a `Dataset`.
      number: of each class; a class of fewer gives all that it has.

    Returns:
      The examples, with the ``index`` that they have in the split.

    Example:
      >>> split = Batch(np.arange(6), np.array([1, 0, 0, 1, 0, 1]), *[np.arange(6)] * 2, np.ones(6, np.float32))
      >>> of_each_class(split, 2).x.tolist()
      [1, 2, 0, 3]
    """
    y = np.asarray(split.y)
    kept = np.concatenate([np.flatnonzero(y == c)[:number] for c in np.unique(y)])
    return Batch(*(np.asarray(field[kept]) for field in split))


def cells(*columns: np.ndarray) -> np.ndarray:
    """The number of the combination of values that each row has: strata from several columns.

    Args:
      *columns: ``[N]`` integers of 0 or more each.

    Returns:
      ``[N]`` int64, equal for two rows exactly if all their columns are equal.
    """
    shape = [int(column.max(initial=0)) + 1 for column in columns]
    return np.ravel_multi_index([np.asarray(c, np.int64) for c in columns], shape)
