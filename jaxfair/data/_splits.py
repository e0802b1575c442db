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
      of ``n`` rows gives each part ``n * percent / 100`` rows, rounded up or down. With many small
      strata the totals are therefore not the per cents: :func:`drawn` is for data of which nothing
      is known; this is for those whose few strata are large, and whose splits are published.

    Raises:
      DataError: the per cents are negative or do not sum to 100, or the seed is negative.

    Example:
      >>> train, validation, test = stratified(np.arange(100) % 2, seed=0)
      >>> len(train), len(validation), len(test), int((train % 2 == 0).sum())
      (70, 10, 20, 35)
    """
    _check(percent, seed)
    sizes = np.unique(np.asarray(strata), return_counts=True)[1]
    return _dealt(strata, [apportion(int(size), percent) for size in sizes], seed=seed, parts=len(percent))


def drawn(y: np.ndarray, group: np.ndarray, *, seed: int, percent: Sequence[int] = PERCENT) -> tuple[np.ndarray, ...]:
    """Part the rows into splits of the right size, with people of every class and group in each as far as it can be.

    A cell is a class in a group. It gives each part its share rounded down; the rows that are left over go where the
    class, the group and the whole lack most. So the totals are right whatever the cells, and what is too small to be
    in every split is in the first one: nobody can be learned from who is not there.

    Args:
      y: ``[N]`` integers, the class.
      group: ``[N]`` integers.
      seed: which of the possible splits; the same seed gives the same split on every machine.
      percent: whole per cents that sum to 100, one per part.

    Returns:
      For each part the sorted row numbers, int64: ``N * percent / 100`` of them within one row, and never none.

    Raises:
      DataError: fewer rows than parts, and as :func:`stratified`.

    Example:
      Two hundred cells of two people, of whom none could be parted alone:

      >>> train, validation, test = drawn(np.arange(400) % 2, np.arange(400) // 4, seed=0)
      >>> len(train), len(validation), len(test), len(np.unique(train // 4))
      (280, 40, 80, 100)
    """
    _check(percent, seed)
    totals = np.array(apportion(len(y), percent))
    if len(y) < len(percent):
        raise DataError(f"{len(y)} rows are too few for {len(percent)} splits: give at least {len(percent)}")
    for part in np.flatnonzero((totals == 0) & (np.array(percent) > 0)):
        totals[totals.argmax()] -= 1
        totals[part] = 1
    strata = cells(group, y)  # of one group side by side, so that a group's rows are dealt together
    _, first, sizes = np.unique(strata, return_index=True, return_counts=True)
    share = np.array(percent)
    counts = sizes[:, None] * share // 100
    of_group, of_class = np.asarray(group)[first], np.asarray(y)[first]
    counts += _leftovers(counts, sizes, of_group, of_class, share)
    _repair(counts, sizes, (of_group, of_class), share, totals)
    return _dealt(strata, counts.tolist(), seed=seed, parts=len(percent))


def _leftovers(base: np.ndarray, sizes: np.ndarray, group: np.ndarray, y: np.ndarray, share: np.ndarray) -> np.ndarray:
    """``[cells, parts]`` of 0 and 1: who gets the rows that rounding down left over."""
    extra = np.zeros_like(base)
    rest = sizes[:, None] * share - 100 * base
    # How many hundredths of a row each part still lacks: of the whole, of each group and of each class.
    whole = np.zeros(len(share), np.int64)
    of_group = np.zeros((int(group.max()) + 1, len(share)), np.int64)
    of_class = np.zeros((int(y.max()) + 1, len(share)), np.int64)
    # Rows in the first part, and rows that are still to be dealt.
    learned = [np.bincount(by, weights=base[:, 0]) for by in (group, y)]
    coming = [np.bincount(by, weights=rest.sum(axis=1) // 100) for by in (group, y)]
    for cell in np.flatnonzero(rest.any(axis=1)):
        of = group[cell], y[cell]
        lacks = [whole, of_group[of[0]], of_class[of[1]]]
        for lack in lacks:
            lack += rest[cell]
        open_to = rest[cell] > 0
        for _ in range(int(rest[cell].sum()) // 100):
            last = any(know[i] == 0 and more[i] == 1 for know, more, i in zip(learned, coming, of, strict=True))
            part = int(np.where(open_to, sum(lacks), np.iinfo(np.int64).min).argmax())
            part = 0 if last and open_to[0] else part
            open_to[part] = False
            extra[cell, part] = 1
            for lack in lacks:
                lack[part] -= 100
            for know, more, i in zip(learned, coming, of, strict=True):
                know[i] += part == 0
                more[i] -= 1
    return extra


def _repair(
    counts: np.ndarray, sizes: np.ndarray, kinds: Sequence[np.ndarray], share: np.ndarray, totals: np.ndarray
) -> None:
    """Moves the few rows that totals lack, from where there are most too many; changes ``counts``."""
    while (over := counts.sum(axis=0) - totals).any():
        source, target = int(over.argmax()), int(over.argmin())
        more = 100 * (counts[:, source] - counts[:, target]) - sizes * (share[source] - share[target])
        surplus = more.astype(np.float64)
        for kind in kinds:
            surplus += np.bincount(kind, weights=more)[kind]
            if source == 0:  # not the only one to learn from
                surplus -= 1e9 * (np.bincount(kind, weights=counts[:, 0])[kind] < 2)
        cell = int(np.where(counts[:, source] > 0, surplus, -np.inf).argmax())
        counts[cell, source] -= 1
        counts[cell, target] += 1


def _check(percent: Sequence[int], seed: int) -> None:
    if sum(percent) != 100 or min(percent) < 0:
        raise DataError(f"per cents {tuple(percent)} do not sum to 100: give shares such as {PERCENT}")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise DataError(f"split_seed={seed!r} is not a number of 0 or more: give an integer such as 0")


def _dealt(strata: np.ndarray, counts: Sequence[Sequence[int]], *, seed: int, parts: int) -> tuple[np.ndarray, ...]:
    """The rows of each part, sorted: of each stratum, in order, as many as ``counts`` says, at random."""
    strata = np.asarray(strata)
    shuffled = np.argsort(np.random.PCG64(int(seed)).random_raw(len(strata)), kind="stable")
    # Rows by stratum, and in random order inside it.
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    of_part = np.repeat(np.tile(np.arange(parts), len(counts)), np.array(counts, np.int64).reshape(-1))
    return tuple(np.sort(order[of_part == part]).astype(np.int64) for part in range(parts))


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
      ``[N]`` int64, equal for two rows exactly if all their columns are equal; in the order of the values, of which the
      last varies fastest.
    """
    found = np.asarray(columns[0], np.int64)
    for column in columns[1:]:
        # Numbered anew each time: the product of all their numbers may be more than there are integers.
        found = np.unique(found, return_inverse=True)[1] * (int(np.max(column, initial=0)) + 1) + np.asarray(column)
    return found.astype(np.int64)
