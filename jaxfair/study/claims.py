r"""A claim that is stated before it is looked at, and what the records say of it.

A claim says that one method's numbers are better than its peer's, beyond a margin, at *every* level that was compared
(of sparsity, say). With n comparisons, each an interval of paired differences over seeds,

- it **holds** if the 95 % interval lies beyond the margin at every level that there is. All have to be won, so no
  correction is due: the chance that a false claim passes is at most that of its falsest part;
- it is **violated** if at some level the interval lies on the other side, at the level :math:`1 - 0.05 / n` of each
  (Bonferroni): of many comparisons some are lost by chance;
- else one **cannot tell**, as also where a level could not be compared (a method that diverged there, a seed that
  lacks).

Sources: Berger, Technometrics 24, 1982 (the intersection-union test); Dunn, JASA 56, 1961.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxfair.metrics import CANNOT_TELL, HOLDS, VIOLATED, Interval
from jaxfair.study.compare import chosen, paired, values


def percent(share: Any) -> str:
    """A share as a reader sees it.

    Example:
      >>> percent(0.9), percent(0.001)
      ('90 %', '0.1 %')
    """
    return f"{100 * share:g} %"


class Claim(NamedTuple):
    """What would have to be seen.

    Attributes:
      method: whose numbers are said to be better.
      peer: than whose.
      column: the number.
      words: how it is said if they are, and if the peer's are: ``("more accurate", "less accurate")``.
      good: 1 where more is better, -1 where less is.
      at: the fields whose values are the levels.
      among: names and values that all records of the comparison have.
      margin: how much better, in units of the column; a negative one claims "hardly worse", and the words say so:
        ``("no less accurate", "less accurate")``.
      of: the field that holds ``method`` and ``peer``.
      over: the fields that make a seed.
      scale: of the numbers in the sentence: 100 shows shares as points.
      unit: of the numbers in the sentence.
      level: how the value of a level is said.

    Example:
      >>> claim = Claim("chita", "magnitude", "accuracy", ("more accurate", "less accurate"))
      >>> records = [
      ...     {"method": method, "sparsity": 0.9, "seed": seed, "accuracy": accuracy + 0.01 * seed}
      ...     for method, accuracy in (("magnitude", 0.8), ("chita", 0.7)) for seed in range(3)]
      >>> judge(records, claim).state
      'violated'
    """

    method: str
    peer: str
    column: str
    words: tuple[str, str]
    good: int = 1
    at: Sequence[str] = ("sparsity",)
    among: Mapping[str, Any] = {}
    margin: float = 0.0
    of: str = "method"
    over: Sequence[str] = ("seed",)
    scale: float = 100.0
    unit: str = "points"
    level: Callable[[Any], str] = percent


class Found(NamedTuple):
    """What was seen of a claim; made by :func:`judge`.

    Attributes:
      claim: which.
      differences: the interval of method - peer at each level, by the level's words.
      better: the levels at which the method is better beyond its interval.
      worse: those at which it is worse.
      left_out: those that could not be compared: less than two seeds of both, or a number that is not finite.
      state: "holds", "violated" or "cannot tell".
    """

    claim: Claim
    differences: Mapping[str, Interval]
    better: Sequence[str]
    worse: Sequence[str]
    left_out: Sequence[str]
    state: str

    @property
    def compared(self) -> int:
        """How many levels were compared."""
        return len(self.differences)

    def sentence(self) -> str:
        """The answer, every number that it rests on, and how many of the comparisons chance alone would give."""
        claim, several = self.claim, self.compared + len(self.left_out) > 1
        margin = claim.scale * claim.margin
        beyond = f" by more than {margin:g} {claim.unit}" if margin > 0 else ""
        if margin < 0:
            beyond = f", give or take {-margin:g} {claim.unit}" + ("," if several else "")
        where = f" at all of {self.compared + len(self.left_out)} levels" if several else ""
        if claim.among:
            where += f" ({', '.join(map(str, claim.among.values()))})"
        answer = f"That {claim.method} is {claim.words[0]} than {claim.peer}{beyond}{where}: {self.state}."
        return " ".join([answer, *self._compared(), *self._left_out()])

    def _compared(self) -> list[str]:
        claim = self.claim
        if not self.compared:
            return []
        seeds = sorted({interval.seeds for interval in self.differences.values()})
        over = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
        # Of what chance alone would give one can only speak where the claim is false by a hair.
        chance = "" if not claim.margin else " if the true difference were the margin"
        if self.compared == 1:
            ((level, interval),) = self.differences.items()
            return [
                f"The difference, paired over {over}, is {_signed(interval, claim.scale)} {claim.unit} at {level}, "
                f"with its 95 % interval; chance alone would put it beyond on either side once in 40{chance}."
            ]

        def listed(levels: Iterable[str]) -> str:
            found = [f"{_signed(self.differences[at], claim.scale)} at {at}" for at in levels]
            return f"{len(found)}" + (f" ({'; '.join(found)})" if found else "")

        neither = [at for at in self.differences if at not in (*self.better, *self.worse)]
        worse = f"not {claim.words[0]} by that much" if claim.margin > 0 else claim.words[1]
        return [
            f"Beyond the 95 % interval over {over} it is {claim.words[0]} at {listed(self.better)}, {worse} at "
            f"{listed(self.worse)}, not told apart at {listed(neither)}, in {claim.unit}; chance alone would give "
            f"about {0.025 * self.compared:.2g} either way{chance}."
        ]

    def _left_out(self) -> list[str]:
        if not self.left_out:
            return [] if self.compared else ["There is nothing to compare, which takes two seeds of both."]
        return [f"Not compared, for want of two seeds of both or of finite numbers: {', '.join(self.left_out)}."]


def _signed(interval: Interval, scale: float) -> str:
    return f"{scale * float(interval.mean):+.2f} ± {scale * float(interval.half_width):.2f}"


def judge(records: Iterable[Mapping[str, Any]], claim: Claim) -> Found:
    """What the records say of a claim.

    Args:
      records: of a run.
      claim: what would have to be seen.

    Returns:
      The verdict with what it rests on. A level at which the two have less than two seeds in common, or a number that
      is not finite, is not compared, and is named.

    Example:
      A method that is better at one level and worse at another is not better at every one:

      >>> records = [
      ...     {"method": m, "sparsity": s, "seed": seed, "gap": gap + 0.001 * seed}
      ...     for m, s, gap in (("nft", 0.9, 0.04), ("nft", 0.98, 0.05), ("ceag", 0.9, 0.01), ("ceag", 0.98, 0.06))
      ...     for seed in range(5)]
      >>> found = judge(records, Claim("ceag", "nft", "gap", ("fairer", "less fair"), good=-1))
      >>> list(found.better), list(found.worse), found.state
      (['90 %'], ['98 %'], 'violated')
    """
    there = [r for r in chosen(records, **claim.among) if all(name in r for name in claim.at)]
    there = [r for r in there if r.get(claim.of) in (claim.method, claim.peer)]
    levels = _in_words(claim, _levels(there, claim.at))

    def differences(confidence: float) -> dict[str, Interval]:
        found = {}
        for words, level in levels.items():
            at = dict(zip(claim.at, level, strict=True))
            ours, theirs = ({**at, claim.of: name} for name in (claim.method, claim.peer))
            interval = paired(there, claim.column, ours, theirs, over=claim.over, level=confidence)
            if interval is not None and math.isfinite(interval.mean) and math.isfinite(interval.half_width):
                found[words] = interval
        return found

    seen = differences(0.95)
    left_out = [words for words in levels if words not in seen]
    margin = claim.good * claim.margin

    def side(interval: Interval) -> int:
        """1 where the whole interval is beyond the margin on the good side, -1 on the other."""
        above = bool(interval.low > margin) - bool(interval.high < margin)
        return claim.good * above

    better = [at for at, interval in seen.items() if side(interval) > 0]
    worse = [at for at, interval in seen.items() if side(interval) < 0]
    corrected = differences(1 - 0.05 / len(seen)) if seen else {}
    if seen and len(better) == len(seen) and not left_out:
        state = HOLDS
    elif any(side(interval) < 0 for interval in corrected.values()):
        state = VIOLATED
    else:
        state = CANNOT_TELL
    return Found(claim, seen, better, worse, left_out, state)


def _in_words(claim: Claim, levels: Sequence[tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Levels by their words; those of which two would read alike are said in full."""
    said = [", ".join(claim.level(value) for value in level) for level in levels]
    return {
        words if said.count(words) == 1 else ", ".join(map(repr, level)): level
        for words, level in zip(said, levels, strict=True)
    }


def _levels(records: Sequence[Mapping[str, Any]], at: Sequence[str]) -> list[tuple[Any, ...]]:
    """The combinations of levels that there are, each field from small to large where it is a number."""
    found = dict.fromkeys(tuple(r[name] for name in at) for r in records)
    places = []
    for name in at:
        order = values(records, name)
        if all(isinstance(v, int | float) for v in order):
            order = sorted(order)
        places.append({value: place for place, value in enumerate(order)})
    return sorted(found, key=lambda level: [p[v] for p, v in zip(places, level, strict=True)])
