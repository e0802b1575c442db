"""Among equals: how methods differ from one peer in a number, where another number cannot be told apart.

A pruner that harms groups less and is less accurate has bought the one with the other. What is asked is whether of two
that are equally accurate, as far as the seeds tell, one is kinder.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.metrics import Interval
from jaxfair.study.claims import percent
from jaxfair.study.compare import Records, chosen, paired, values


class Beside(NamedTuple):
    """One method beside its peer at one level; made by :func:`beside`.

    Attributes:
      cell: the names and values of the method's records, without the seed.
      difference: the paired interval of method - peer, in the number that is asked for.
      other: the same in the other number.
    """

    cell: Mapping[str, Any]
    difference: Interval
    other: Interval

    @property
    def side(self) -> int | None:
        """0 where the other number cannot be told apart, 1 where it is larger, -1 where smaller, None where nan."""
        if not _known(self.other):
            return None
        return int(self.other.low > 0) - int(self.other.high < 0)


def _known(interval: Interval) -> bool:
    return bool(np.isfinite(interval.low) and np.isfinite(interval.high))


def beside(
    records: Records,
    peer: str,
    column: str,
    other: str,
    *,
    at: Sequence[str] = ("sparsity",),
    of: str = "method",
    over: Sequence[str] = ("seed",),
) -> list[Beside]:
    """Every method beside one peer, at every level that both have.

    Args:
      records: of a run.
      peer: a method.
      column: the number that is asked for.
      other: the number in which they may or may not be alike.
      at: the fields whose values are the levels; records that lack one (a dense network's sparsity) are left out.
      of: the field that holds the method.
      over: the fields that make a seed.

    Returns:
      The comparisons of which there are two seeds or more, in the order of the records.

    Raises:
      ValueError: where a record of a comparison lacks one of the numbers.

    Example:
      >>> records = [
      ...     {"method": m, "sparsity": 0.9, "seed": s, "accuracy": a + 0.01 * (-1) ** s * (m == "ceag"), "gap": g}
      ...     for m, a, g in (("nft", 0.8, 0.04), ("ceag", 0.8, 0.02), ("set", 0.7, 0.01)) for s in range(4)]
      >>> [(b.cell["method"], b.side) for b in beside(records, "nft", "gap", "accuracy")]
      [('ceag', 0), ('set', -1)]
    """
    found = []
    there = [r for r in records if all(name in r for name in at)]
    for level in dict.fromkeys(tuple(r[name] for name in at) for r in there):
        names = dict(zip(at, level, strict=True))
        here = chosen(there, **names)
        for method in values(here, of):
            if method == peer:
                continue
            _need(here, (column, other), [{**names, of: m} for m in (method, peer)])
            both = [paired(here, name, {of: method}, {of: peer}, over=over) for name in (column, other)]
            if both[0] is not None and both[1] is not None:
                found.append(Beside({**names, of: method}, both[0], both[1]))
    return found


def _need(records: Records, columns: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> None:
    for cell in cells:
        for record in chosen(records, **cell):
            for column in columns:
                if column not in record:
                    said = ", ".join(f"{name}={value!r}" for name, value in cell.items())
                    raise ValueError(f"a record of {said} has no {column!r}; it has: {', '.join(map(str, record))}")


def among_equals(
    found: Iterable[Beside],
    peer: str,
    *,
    alike: str = "accurate",
    number: str = "gap",
    of: str = "method",
    at: str = "sparsity",
) -> str:
    """What was found among equals, in a sentence: every difference that is beyond its interval, and what chance gives.

    Args:
      found: of :func:`beside`. Where either number is nan, nothing was compared.
      peer: the peer.
      alike: what the two are alike in.
      number: what is compared.
      of: the field that holds the method.
      at: the field of the level that is said beside it.

    Returns:
      The sentence; empty where nothing is alike.

    Example:
      >>> gap, same = Interval(-0.02, 0.01, -0.03, -0.01, 5), Interval(0.0, 0.01, -0.01, 0.01, 5)
      >>> print(among_equals([Beside({"method": "ceag", "sparsity": 0.9}, gap, same)], "nft"))
      Of 1 comparisons in which a method is as accurate as nft, as far as these seeds tell, the gap is smaller beyond
      the 95 % interval in 1 (ceag at 90 %: -2.0 ± 1.0) and larger in 0; in points. Chance alone would give about 0.05.
    """
    equal = [b for b in found if b.side == 0 and _known(b.difference)]
    if not equal:
        return ""

    def listed(some: Sequence[Beside]) -> str:
        said = [
            f"{b.cell[of]} at {percent(b.cell[at])}: {100 * float(b.difference.mean):+.1f} ± "
            f"{100 * float(b.difference.half_width):.1f}"
            for b in some
        ]
        return f"{len(some)}" + (f" ({'; '.join(said)})" if said else "")

    smaller = [b for b in equal if b.difference.high < 0]
    larger = [b for b in equal if b.difference.low > 0]
    return (
        f"Of {len(equal)} comparisons in which a method is as {alike} as {peer}, as far as these seeds tell, the "
        f"{number} is smaller beyond the 95 % interval in {listed(smaller)} and larger in {listed(larger)}; in points. "
        f"Chance alone would give about {0.05 * len(equal):.2g}."
    )
