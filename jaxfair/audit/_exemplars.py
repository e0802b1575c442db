"""People to look at: those whose prediction changed, how it changed, and how many networks agree on that.

Of several networks a person has the class that most of them predict. Where classes tie, and one of them has most votes
on the other side too, nothing has moved; so it does not matter how classes are numbered. Who has another class after
than before is an exemplar (a *modal CIE* where the networks before and after are populations). The score is the share
of the networks after that differ from the class before; of one network each it is 1.

References:
  Hooker, Courville, Clark, Dauphin, Frome, `What do compressed deep neural networks forget?
  <https://arxiv.org/abs/1911.05248>`_, 2019; Hooker, Moorosi, Clark, Bengio, Denton, `Characterising bias in compressed
  models <https://arxiv.org/abs/2010.03058>`_, 2020.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair import report
from jaxfair.audit._findings import Findings
from jaxfair.audit._groups import LONG
from jaxfair.files import visible
from jaxfair.report.tables import cell

NEWLY_WRONG = "newly wrong"
NEWLY_RIGHT = "newly right"
STILL_WRONG = "wrong both times"
#: The kinds of change, the one that harms first.
KINDS = (NEWLY_WRONG, NEWLY_RIGHT, STILL_WRONG)
#: What stands for a group that nobody knows, and for a prediction that is missing.
UNKNOWN, MISSING = "unknown", "–"
#: How many cards a page has, and how many columns of a table a card.
CARDS, VALUES = 300, 24
#: How long a value of a card may be: a sentence or two of what a classifier of texts has read.
TEXT = 600


class Exemplar(NamedTuple):
    """A person whose prediction changed.

    Attributes:
      row: of the person in the source.
      group: whom the person belongs to.
      label: the true class.
      before: the class predicted by most networks before.
      after: and after.
      kind: "newly wrong", "newly right", or "wrong both times".
      score: the share of the networks after that differ from ``before``.
      agreed: the share of the networks before that predict ``before``.
      place: of the person among those of the split.
    """

    row: Any
    group: str
    label: str
    before: str
    after: str
    kind: str
    score: float
    agreed: float
    place: int


class Seen(NamedTuple):
    """What is shown of people beside their predictions.

    Attributes:
      images: ``[N, H, W]`` or ``[N, H, W, C]`` of the people that verdicts are about, in their order; or None.
      table: name of a column -> ``[N]`` values.
      marks: row -> what somebody said of the person there.
    """

    images: Any = None
    table: Mapping[Any, Any] = {}
    marks: Mapping[str, str] = {}


def commonest(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes that most networks before and after predict.

    Args:
      before: ``[S, N]``; -1 is a prediction that is missing, and the last to be chosen in a tie.
      after: ``[S', N]``.

    Returns:
      ``[N]`` before, and ``[N]`` after. Of classes that tie, one that most predict on the other side too, or else the
      smallest.

    Example:
      >>> before, after = np.array([[0, 1, 2], [1, 1, 0]]), np.array([[1, 2, -1], [2, 1, -1]])
      >>> [side.tolist() for side in commonest(before, after)]
      [[1, 1, 0], [1, 1, -1]]
    """
    there = [*np.unique(before[before >= 0]), *np.unique(after[after >= 0])]
    order = [-1, *sorted(set(there), reverse=True)]  # what is chosen in a tie comes last
    most = [np.max([(side == c).sum(0) for c in order], axis=0) for side in (before, after)]
    chosen = [np.full(before.shape[1], -1) for _ in most]
    both = np.zeros(before.shape[1], bool)
    for c in order:
        tops = [(side == c).sum(0) == top for side, top in zip((before, after), most, strict=True)]
        alike = tops[0] & tops[1]
        for side, top in zip(chosen, tops, strict=True):
            side[alike | (top & ~both)] = c
        both |= alike
    return chosen[0], chosen[1]


def exemplars(found: Findings, name: str) -> list[Exemplar]:
    """Those whose prediction a variant changed, newly wrong ones first, then by score, then as they stand.

    Args:
      found: of an audit.
      name: of a variant; of its seeds those count that did not fail.

    Example:
      >>> from jaxfair.audit import compare
      >>> y, before, after = [0, 0, 1, 1], [[0, 1, 1, 1]] * 3, [[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 1, 0]]
      >>> one = compare(before, after, y, ["a", "a", "b", "b"], rows=[10, 11, 12, 13])
      >>> for person in exemplars(one.found, "after"):
      ...     print(person.row, person.group, person.before, person.after, person.kind, round(person.score, 2))
      10 a 0 1 newly wrong 0.67
      13 b 1 0 newly wrong 0.67
      11 a 1 0 newly right 0.67
    """
    people, ok = found.people[found.judged], found.ok(name)
    first, then = (np.asarray(found.of(v).labels[found.judged])[ok] for v in (found.name_before, name))
    if not len(first):
        return []
    y, (before, after) = np.asarray(people.y), commonest(first, then)
    score, agreed = (then != before).mean(0), (first == before).mean(0)
    wrong = before == y
    kind = np.where(wrong, 0, np.where(after == y, 1, 2))
    who = np.flatnonzero(before != after)
    who = who[np.lexsort((who, -score[who], kind[who] > 0))]
    classes = [*map(visible, found.class_names), MISSING]
    groups = named(found)
    return [
        Exemplar(
            people.rows[i].item() if hasattr(people.rows[i], "item") else people.rows[i], groups[i], classes[y[i]],
            classes[before[i]], classes[after[i]], KINDS[kind[i]], float(score[i]), float(agreed[i]), int(i),
        )
        for i in who
    ]  # fmt: skip


def named(found: Findings) -> list[str]:
    """``[N]`` the group of everybody in words."""
    group, names = np.asarray(found.people[found.judged].group), [*found.group_names, UNKNOWN]
    return [names[g] for g in np.where((group >= 0) & (group < found.num_groups), group, -1)]


def chosen(people: Sequence[Exemplar], marks: Mapping[str, str], most: int = CARDS) -> list[Exemplar]:
    """Those who have a card: whoever is marked, then the largest scores; where they tie, groups and kinds take turns.

    Args:
      people: in any order.
      marks: row -> mark.
      most: how many.

    Returns:
      In the order of ``people``.

    Example:
      >>> of = lambda row, group, score: Exemplar(row, group, "0", "0", "1", "newly wrong", score, 1.0, row)
      >>> people = [of(0, "a", 1.0), of(1, "a", 1.0), of(2, "b", 1.0), of(3, "b", 0.5), of(4, "b", 0.6)]
      >>> [person.row for person in chosen(people, {"3": "fine"}, most=3)]
      [0, 2, 3]
    """
    turns: dict[tuple[float, str, str], int] = {}
    keys = []
    for i, one in enumerate(people):
        turn = turns[one.score, one.group, one.kind] = turns.get((one.score, one.group, one.kind), 0) + 1
        keys.append((visible(one.row) not in marks, -one.score, turn, KINDS.index(one.kind), i))
    return [people[key[-1]] for key in sorted(sorted(keys)[:most], key=lambda key: key[-1])]


def cards(people: Sequence[Exemplar], seen: Seen, *, networks: int) -> list[report.Card]:
    """A card for each person.

    Args:
      people: who has one.
      seen: what is shown of them.
      networks: how many there are on each side.
    """
    places = [one.place for one in people]
    images = [None] * len(places) if seen.images is None else pictures(seen.images, places)
    columns = {report.shorten(name, LONG): np.asarray(values) for name, values in [*seen.table.items()][:VALUES]}
    return [
        report.Card(
            row=one.row, kind=one.kind, score=one.score, image=image,
            group=report.shorten(one.group, LONG), label=report.shorten(one.label, LONG),
            before=report.shorten(one.before, LONG), after=report.shorten(one.after, LONG),
            words=f"{one.score:.2f} ({count(one.score, networks)} differ)", agreed=count(one.agreed, networks),
            values={name: report.shorten(in_words(values[one.place]), TEXT) for name, values in columns.items()},
            mark=seen.marks.get(visible(one.row), ""),
        )
        for one, image in zip(people, images, strict=True)
    ]  # fmt: skip


def in_words(value: Any) -> str:
    r"""A value of a table, as it is read.

    Example:
      >>> in_words(np.float32(38.5)), in_words(40.0), in_words(float("nan")), in_words("a\x07")
      ('38.5', '40', '–', 'a\\x07')
    """
    if isinstance(value, float | np.floating):
        return MISSING if np.isnan(value) else f"{value:.6g}"
    return cell(value)


def count(share: float, networks: int) -> str:
    """A share of networks as a count; nothing where there is one.

    Example:
      >>> count(0.8, 5), count(1.0, 1)
      ('4 of 5', '')
    """
    return f"{round(share * networks)} of {networks}" if networks > 1 else ""


def check(seen: Seen, num: int, split: str) -> Seen:
    """The same, of which everything has a value for each person, and images are pictures.

    Args:
      seen: what is shown.
      num: how many people there are.
      split: what they are called.

    Raises:
      ValueError: if not.

    Example:
      >>> check(Seen(table={"age": [39, 50]}), 2, "test").table["age"]
      [39, 50]
    """
    for what, values in [("images", seen.images), *seen.table.items()]:
        if values is not None and (not np.ndim(values) or len(values) != num):
            many = f"{len(values):,}" if np.ndim(values) else "one value"
            raise ValueError(
                f"{visible(what)} has {many} and {split} has {report.who(num)}: give one for each of them, in their "
                "order."
            )
    if seen.images is not None:
        _channels_first(np.shape(seen.images))
    return seen


def _channels_first(shape: tuple[int, ...]) -> bool:
    if len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4)):
        return False
    if len(shape) == 4 and shape[1] in (1, 3, 4):
        return True
    raise ValueError(f"images has shape {shape}: give [N, H, W], or [N, H, W, C] of 1, 3 or 4 channels.")


def pictures(images: Any, places: Sequence[int]) -> list[np.ndarray]:
    """The pictures of some people as bytes.

    Args:
      images: ``[N, H, W]`` or ``[N, H, W, C]``, or, with 1, 3 or 4 channels, ``[N, C, H, W]``: bytes; numbers from 0 to
        1; or others, of which the smallest (0 at most) is black then and the largest white.
      places: of the people.

    Raises:
      ValueError: for another shape.

    Example:
      >>> images = np.linspace(0, 1, 8).reshape(2, 2, 2)
      >>> pictures(images, [1])[0].tolist(), pictures(2 * images - 1, [1])[0].tolist()
      ([[146, 182], [219, 255]], [[146, 182], [219, 255]])
    """
    shape = np.shape(images)
    first = _channels_first(shape)
    some = np.stack([np.asarray(images[i]) for i in places]) if len(places) else np.zeros((0, *shape[1:]))
    some = np.moveaxis(some, 1, -1) if first else some
    if some.dtype != np.uint8:
        values = np.asarray(images, np.float32)
        low, high = (float(end.reduce(values, axis=None, initial=0.0)) for end in (np.fmin, np.fmax))
        if not (np.isfinite(low + high) and (low < 0 or high > 1)):
            low, high = 0.0, 1.0
        share = (np.nan_to_num(some.astype(np.float64)) - low) / (high - low)
        some = np.round(255 * np.clip(share, 0.0, 1.0)).astype(np.uint8)
    return [some[i] for i in range(len(some))]


def images_of(x: Any) -> Any:
    """What networks see, where that is pictures; None where it is not, or is read from files as it is needed.

    Example:
      >>> images_of(np.zeros((5, 8, 8, 3))).shape, images_of(np.zeros((5, 8)))
      ((5, 8, 8, 3), None)
    """
    return x if getattr(x, "shape", ())[3:] in ((1,), (3,), (4,)) else None
