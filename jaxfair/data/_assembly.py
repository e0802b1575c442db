"""From what was read of the user's own data to a dataset: codes, splits, and what has to be said."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair.data import _codes, _features
from jaxfair.data._dataset import Dataset, Part, assemble, good_outcome
from jaxfair.data._errors import DataError, DataWarning, listed, shown
from jaxfair.data._groups import Names, named
from jaxfair.data._raw import Raw
from jaxfair.data._splits import PERCENT, SPLITS, cells, drawn
from jaxfair.files import visible

#: Per cent of a training split that stay in it where validation is drawn from it: as in 70 and 10.
WITHOUT_VALIDATION = (88, 12)


def assembled(
    raw: Raw,
    groups: Names,
    min_group_size: int,
    unconstrained: Names,
    split_seed: int,
    positive: Any,
    standardize: bool | None,
    *,
    source: str,
) -> Dataset:
    """A dataset from what was read; the arguments are those of :func:`~jaxfair.data.own`."""
    where, x, label = raw.where, raw.x, raw.label
    chosen = tuple("label" if name == label else name for name in named(groups))
    y = _codes.classes(where, label, raw.y, raw.names.get("class_names"))
    good = good_outcome(positive, shown(y.names), dataset=where)
    names = raw.names.get("group_names")
    if names is not None and len(raw.groups) > 1:
        raise DataError(f"group_names of {where} name one group, and there are {listed(raw.groups)}: use words in each")
    coded = {name: _codes.groups(where, name, values, names) for name, values in raw.groups.items()}
    lengths = {"x": len(x), label: len(y.codes)} | {name: len(group.codes) for name, group in coded.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"{where}: lengths differ ({listed(f'{k} {n}' for k, n in lengths.items())}): give one value each"
        )
    for name, group in coded.items() if names is not None and not min_group_size else ():
        unused = set(range(len(group.names))) - set(group.codes.tolist())
        if unused:
            raise DataError(
                f"{name} {group.names[min(unused)]!r} of {where} has no example in the training split, nor in any "
                "other: take it out of group_names"
            )
    rows, how = _rows(where, raw.split, y.codes, [group.codes for group in coded.values()], split_seed)
    learned = np.unique(y.codes[rows["train"]])
    if len(learned) < 2:
        raise DataError(f"{where} has one class in train, {y.names[learned[0]]!r}: give rows of another one")
    raw, nobody = _seen(raw, rows["train"])
    x, scaling = _features.as_float32(where, raw.x, raw.feature_names), None
    if raw.by_columns if standardize is None else standardize:
        scaled, scaling = _features.standardized(np.asarray(raw.x, np.float64), rows["train"])
        x = _features.as_float32(where, scaled, raw.feature_names)
    odd, warned = _features.remarks(x[rows["train"]], raw.feature_names)
    known = {name: listed(group.names, limit=20) for name, group in coded.items()}
    told = [f"{name} ({known[name]})" if name in known else "class" for name in chosen]
    missing = [sentence for name in chosen if name in coded for sentence in coded[name].sentences]
    made = assemble(
        where,
        {split: Part(x[r], y.codes[r], {n: g.codes[r] for n, g in coded.items()}, r) for split, r in rows.items()},
        class_names=y.names,
        vocabularies={name: group.names for name, group in coded.items()},
        groups=chosen,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        positive=positive,
        feature_names=raw.feature_names,
        source=source,
        scaling=scaling,
        read=(
            *raw.sentences,
            *(["standardised: less the mean of the training split, by its deviation"] if scaling is not None else []),
            f"class: {label} ({listed(y.names, limit=20)})"
            + ("" if good is None else f", of which {shown(y.names)[good]} is the good outcome"),
            f"groups: {' x '.join(told)}",
            how, *missing, *nobody, *odd,
        ),
    )  # fmt: skip
    if made.num_groups == 1:
        warned.append(
            f"there is one group, {made.group_names[0]!r}: it cannot lose more than all do; name others by groups="
        )
    absent = sorted(set(range(len(y.names))) - set(learned.tolist()))
    if absent:
        warned.append(f"nobody in train has the class {listed(y.names[c] for c in absent)}: it cannot be learned")
    for sentence in warned:
        warnings.warn(visible(f"{where}: {sentence}"), DataWarning, stacklevel=4)
    return made


def _seen(raw: Raw, train: np.ndarray) -> tuple[Raw, list[str]]:
    """Without values of categories that nobody in train has, whose weights would not be trained; and a sentence."""
    if not raw.kinds:
        return raw, []
    kept = np.ones(len(raw.feature_names), bool)
    kept[-raw.kinds :] = np.asarray(raw.x)[train, -raw.kinds :].any(axis=0)
    names = [name for name, of in zip(raw.feature_names, kept, strict=True) if of]
    lost = [name for name, of in zip(raw.feature_names, kept, strict=True) if not of]
    told = [f"no feature, since nobody in train has it: {listed(lost)}"] if lost else []
    return raw._replace(x=np.asarray(raw.x)[:, kept], feature_names=tuple(names)), told


def _rows(
    where: str, split: Any, y: np.ndarray, groups: Sequence[np.ndarray], seed: int
) -> tuple[dict[str, np.ndarray], str]:
    """The rows of each split, and how they were found, in a sentence."""
    group = np.unique(cells(*groups), return_inverse=True)[1] if groups else np.zeros_like(y)
    by = f"stratified by class{' and group' if groups else ''}"
    if split is None:
        if len(y) < len(SPLITS):
            raise DataError(
                f"{where} has {len(y)} rows, which are too few for three splits: give at least {len(SPLITS)}"
            )
        rows: dict[str, np.ndarray] = dict(zip(SPLITS, drawn(y, group, seed=seed, percent=PERCENT), strict=True))
        return rows, f"split: drawn, {_sizes(rows)}, {by}"
    values = _codes.split_names(where, split)
    if len(values) != len(y):
        raise DataError(f"split of {where} has shape {np.shape(split)}: give one value per example")
    for row, value in enumerate(values):
        if value not in SPLITS:
            what = f"has the value {value!r}" if value else "is missing"
            raise DataError(f"split of {where} {what} in row {row}: use {listed(SPLITS)}")
    rows = {name: np.flatnonzero([value == name for value in values]).astype(np.int64) for name in SPLITS}
    train, words = rows["train"], ""
    if not len(train):
        raise DataError(
            f"split of {where} has no example in train: there is nothing to learn from; use {listed(SPLITS)}"
        )
    if not len(rows["validation"]):
        if len(train) < 2:
            raise DataError(f"split of {where} has no validation, and one row in train to draw it from: add rows")
        parts = drawn(y[train], group[train], seed=seed, percent=WITHOUT_VALIDATION)
        rows |= {"train": train[parts[0]], "validation": train[parts[1]]}
        words = f"; it has no validation, which was drawn from its {len(train)} rows of train, {by}"
    return rows, f"split: as the column says, {_sizes(rows)}{words}"


def _sizes(rows: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{len(rows[name])} {name}" for name in SPLITS)
