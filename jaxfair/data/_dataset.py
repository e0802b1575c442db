"""A dataset: three splits of arrays, what their numbers mean, and where each row came from."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data import _groups as grouping_lib
from jaxfair.data._errors import DataError, listed, shown
from jaxfair.data._splits import SPLITS
from jaxfair.files import visible
from jaxfair.typing import Batch


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dataset:
    """Examples with their groups, in three splits.

    Attributes:
      name: what it was loaded as.
      train: the whole training split: ``x`` ``[N, ...]`` float32, ``y`` and ``group`` ``[N]``
        int32, ``index`` ``[N]`` int32 (0 to N-1), ``weight`` ``[N]`` float32 ones. ``x`` of a split
        that is streamed is a :class:`~jaxfair.data.Source`.
      validation: likewise. It may have no rows.
      test: likewise.
      num_classes: C.
      num_groups: G.
      class_names: ``C`` names. In all names, what would not be seen is written out, as its escape.
      group_names: ``G`` names. Every group has at least one example in the training split.
      constrained: ``[G]`` bool, whether the group is to be constrained.
      merged: name of a merged group -> {name of a cell in it: the cell's size in the training
        split}.
      rows: split -> ``[N]`` int64, the number of the row in the source (0 is the first).
      group_attributes: the attributes that the groups were made of.
      feature_names: the names of the columns of ``x``; empty for images.
      source: where the data is from.
      licence: under which terms.
      citation: how to cite it.
      notes: what was done to it, and what harm it is known to do.
      read: sentences on what was read and what was dropped, in plain words.
      positive: the class that is the good outcome for a person, such as a loan that is granted; None
        where that is not known. A number that indexes ``class_names``.
      scaling: the mean and the deviation, each of the shape of a row of ``x``, by which the numbers were
        standardised; None where they were not, or not by one rule.

    Example:
      >>> from jaxfair import data
      >>> digits = data.load("digits")
      >>> digits
      Dataset('digits': 1260 train, 179 validation, 358 test, x [8, 8, 1], 10 classes, 10 groups)
      >>> digits.group_sizes()["train"][:3].tolist()
      [125, 128, 124]
    """

    name: str
    train: Batch
    validation: Batch
    test: Batch
    num_classes: int
    num_groups: int
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    constrained: np.ndarray
    merged: dict[str, dict[str, int]]
    rows: dict[str, np.ndarray]
    group_attributes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""
    citation: str = ""
    notes: str = ""
    read: tuple[str, ...] = ()
    positive: int | None = None
    scaling: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def splits(self) -> dict[str, Batch]:
        """The three splits by name."""
        return {split: getattr(self, split) for split in SPLITS}

    def group_sizes(self) -> dict[str, np.ndarray]:
        """Split -> ``[G]`` int64, the number of examples of each group."""
        return {split: np.bincount(batch.group, minlength=self.num_groups) for split, batch in self.splits.items()}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(batch.y)} {split}" for split, batch in self.splits.items())
        return (
            f"Dataset({self.name!r}: {sizes}, x {list(self.train.x.shape[1:])}, "
            f"{self.num_classes} classes, {self.num_groups} groups)"
        )


def _nobody_to_learn_from(name: str, grouping: grouping_lib.Grouping, sizes: np.ndarray) -> str:
    """What to do about a group that is in no training example: the remedy is one that works."""
    empty = int(sizes.argmin())
    group = grouping.names[empty]
    cells = listed(map(repr, grouping.merged.get(group, ())), limit=5)
    who = f"{group!r} ({cells})" if cells != "none" else repr(group)
    seen = ", ".join(f"{n} in {split}" for split, of in grouping.group.items() if (n := int((of == empty).sum())))
    smallest = int(sizes[sizes > 0].min())
    together = [other for other, size in zip(grouping.names, sizes, strict=True) if 0 < size <= smallest]
    merge = f"min_group_size={smallest + 1}, which puts it together with {listed(map(repr, together), limit=5)}"
    if np.count_nonzero(sizes > smallest) == 0:  # all would be one group
        merge = "choose other groups by groups="
    return (
        f"group {who} of {name} has no example in the training split ({seen}): put some there by a column split, leave "
        f"these people out, or {merge}"
    )


def good_outcome(positive: Any, class_names: Sequence[str], *, dataset: str) -> int | None:
    """The number of the class of that name; None stays None.

    Raises:
      DataError: no class has that name.
    """
    if positive is None:
        return None
    # Truth values are the classes 0 and 1, and 1.0 is 1.
    truth = {"true": "1", "false": "0"}
    words = [visible(str(positive)), truth.get(str(positive).lower(), ""), str(positive).removesuffix(".0")]
    found = next((word for word in words if word in class_names), None)
    if found is None:
        raise DataError(f"positive={positive!r} is no class of {dataset}: choose from {listed(class_names)}")
    return [*class_names].index(found)


class Part(NamedTuple):
    """The raw material of one split.

    Attributes:
      x: ``[N, ...]`` array, or a lazy source of that shape.
      y: ``[N]`` integers that index the class names.
      attributes: name -> ``[N]`` integers that index the attribute's names.
      rows: ``[N]`` row numbers in the source.
    """

    x: Any
    y: np.ndarray
    attributes: Mapping[str, np.ndarray]
    rows: np.ndarray


def assemble(
    name: str,
    parts: Mapping[str, Part],
    *,
    class_names: Sequence[str],
    vocabularies: Mapping[str, Sequence[str]],
    groups: grouping_lib.Names,
    min_group_size: int,
    unconstrained: grouping_lib.Names,
    positive: Any = None,
    read: Sequence[str] = (),
    **metadata: Any,
) -> Dataset:
    """A :class:`Dataset` from the raw material of its splits; every loader ends here.

    Args:
      name: of the dataset.
      parts: ``train``, ``validation`` and ``test``.
      class_names: ``C`` names.
      vocabularies: attribute -> the names of its values. ``label`` is added.
      groups: attributes whose intersection makes the groups.
      min_group_size: see :func:`~jaxfair.data._groups.intersect`.
      unconstrained: names of groups that are not to be constrained.
      positive: the name of the class that is the good outcome for a person; None: not known.
      read: sentences on what was read; each becomes one line.
      **metadata: further fields of :class:`Dataset`.

    Raises:
      DataError: an unknown group attribute or positive class, a group without an example in the training split,
        arrays of unequal lengths, NaN or infinity in ``x``.
    """
    classes = shown(class_names)
    known = {name: shown(values) for name, values in vocabularies.items()} | {"label": classes}
    metadata["feature_names"] = shown(metadata.get("feature_names", ()))
    chosen = grouping_lib.attribute_names(groups, sorted(known), dataset=name)
    if isinstance(min_group_size, bool) or not isinstance(min_group_size, (int, np.integer)):
        raise DataError(f"min_group_size={min_group_size!r} is not a whole number: give one, or 0")
    if len(parts["train"].y) == 0:
        raise DataError(f"{name} has no training example: check the file and its split column")
    attributes = {}
    for split, part in parts.items():
        _check(name, split, part)
        columns = {**part.attributes, "label": part.y}
        attributes[split] = [grouping_lib.Attribute(np.asarray(columns[a]), known[a]) for a in chosen]
    grouping = grouping_lib.intersect(attributes, min_group_size=min_group_size)
    sizes = np.bincount(grouping.group["train"], minlength=len(grouping.names))
    if not sizes.all():
        raise DataError(_nobody_to_learn_from(name, grouping, sizes))
    batches = {
        split: Batch(
            x=part.x,
            y=np.asarray(part.y, np.int32),
            group=grouping.group[split],
            index=np.arange(len(part.y), dtype=np.int32),
            weight=np.ones(len(part.y), np.float32),
        )
        for split, part in parts.items()
    }
    return Dataset(
        name=name,
        num_classes=len(classes),
        num_groups=len(grouping.names),
        class_names=classes,
        group_names=grouping.names,
        constrained=grouping_lib.constrained(grouping.names, unconstrained),
        merged=grouping.merged,
        rows={split: np.asarray(part.rows, np.int64) for split, part in parts.items()},
        group_attributes=chosen,
        positive=good_outcome(positive, classes, dataset=name),
        read=tuple(visible(sentence) for sentence in read),
        **batches,
        **metadata,
    )


def _check(name: str, split: str, part: Part) -> None:
    lengths = {"x": len(part.x), "y": len(part.y)} | {k: len(v) for k, v in part.attributes.items()}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{k} {n}" for k, n in lengths.items())
        raise DataError(f"{name} {split}: lengths differ ({given}): give one value per example")
    if isinstance(part.x, np.ndarray) and part.x.dtype.kind == "f":
        finite = np.isfinite(part.x.reshape(len(part.x), -1)).all(axis=1) if len(part.x) else None
        if finite is not None and not finite.all():
            bad = ~finite
            raise DataError(
                f"{name} {split}: x of row {int(part.rows[bad.argmax()])} is not finite "
                f"({int(bad.sum())} rows in all): fill or remove missing values first"
            )
