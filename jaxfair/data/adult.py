"""UCI Adult: the task is to tell whether a person earned more than $50,000 a year.

32,561 people, 14 attributes, shipped with the package (CC BY 4.0).

**Features.** With the default options ``x`` has 107 columns: 5 numbers (age, education-num,
capital-gain, capital-loss, hours-per-week), standardised with the mean and the deviation of the
training split, and 102 indicators, one for each value of the 8 categorical attributes, where the
unknown value ``?`` is a category of its own. ``fnlwgt`` is left out: it is the census's sampling
weight, and says how many people a row stands for, not what they earn.

**Splits.** 70 / 10 / 20 per cent, stratified by sex x race x label, the same for a seed on every
machine, and the same whatever the groups: an audit by race and one by sex look at the same test
people.

Reference: Becker and Kohavi (1996), https://doi.org/10.24432/C5XW20. What it should not be used
for: Ding, Hardt, Miller and Schmidt (2021), "Retiring Adult: New Datasets for Fair Machine
Learning", NeurIPS.
"""

import functools
import lzma
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np

from jaxfair.data._dataset import Dataset, Part, assemble
from jaxfair.data._errors import DataError, listed, warn_of_harms
from jaxfair.data._splits import SPLITS, cells, stratified

COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation",
    "relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week",
    "native-country",
)  # fmt: skip
NUMERIC = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
CATEGORICAL = (
    "workclass", "education", "marital-status", "occupation", "relationship", "race", "sex",
    "native-country",
)  # fmt: skip
CLASSES = ("<=50K", ">50K")
AGE_BANDS = ("17-24", "25-34", "35-44", "45-54", "55+")
AGE_EDGES = (25, 35, 45, 55)
#: By education-num: 9 is a high school diploma, 13 a bachelor's degree.
EDUCATION_BANDS = ("no diploma", "high school", "some college", "degree")
EDUCATION_EDGES = (9, 10, 13)
#: What must leave the features with an attribute, because it says the same.
TWINS = {
    "education": ("education", "education-num"),
    "education-num": ("education", "education-num"),
}

HARMS = (
    "made of the 1994 United States census. Its $50,000 threshold is arbitrary and high (9 of 10 "
    "women lie below it), race and sex are coarse, and results on it do not carry over to people "
    "today. Use it to compare methods, not to support a claim or a decision about people (Ding et "
    "al. 2021, 'Retiring Adult', https://arxiv.org/abs/2108.04884)"
)


class Table(NamedTuple):
    """The file as columns.

    Attributes:
      numeric: column -> ``[N]`` int64.
      codes: categorical column -> ``[N]`` int64.
      values: categorical column -> the names of its codes, sorted.
      y: ``[N]`` int64, 1 for more than $50,000.
    """

    numeric: dict[str, np.ndarray]
    codes: dict[str, np.ndarray]
    values: dict[str, tuple[str, ...]]
    y: np.ndarray


@functools.cache
def read() -> Table:
    """The shipped file as columns, in its own order; parsed once per process."""
    packed = resources.files("jaxfair.data").joinpath("files/adult.data.xz").read_bytes()
    try:
        text = lzma.decompress(packed).decode("ascii")
    except (lzma.LZMAError, EOFError, UnicodeDecodeError):
        raise DataError("jaxfair/data/files/adult.data.xz is damaged: reinstall jaxfair") from None
    lines = [line.split(", ") for line in text.splitlines() if line]
    columns = dict(zip((*COLUMNS, "label"), zip(*lines, strict=True), strict=True))
    codes, values = {}, {}
    for name in CATEGORICAL:
        found, code = np.unique(columns[name], return_inverse=True)
        codes[name], values[name] = code, tuple(found.tolist())
    return Table(
        numeric={name: np.array(columns[name], np.int64) for name in (*NUMERIC, "fnlwgt")},
        codes=codes,
        values=values,
        y=np.array([CLASSES.index(label) for label in columns["label"]], np.int64),
    )


def attributes(table: Table) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """Attribute -> (code of each row, names): what groups can be made of, next to the label."""
    age = np.searchsorted(AGE_EDGES, table.numeric["age"], side="right")
    education = np.searchsorted(EDUCATION_EDGES, table.numeric["education-num"], side="right")
    return {
        "sex": (table.codes["sex"], table.values["sex"]),
        "race": (table.codes["race"], table.values["race"]),
        "age": (age, AGE_BANDS),
        "education": (education, EDUCATION_BANDS),
    }


def features(table: Table, train: np.ndarray, exclude: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The feature matrix of all rows and the names of its columns.

    Args:
      table: the file.
      train: rows whose mean and deviation standardise the numbers.
      exclude: columns to leave out.

    Returns:
      ``[N, D]`` float32 and ``D`` names.
    """
    columns, names = [], []
    for name in NUMERIC:
        if name not in exclude:
            value = table.numeric[name].astype(np.float64)
            columns.append(((value - value[train].mean()) / value[train].std())[:, None])
            names.append(name)
    for name in CATEGORICAL:
        if name not in exclude:
            columns.append(np.eye(len(table.values[name]))[table.codes[name]])
            names += [f"{name}={value}" for value in table.values[name]]
    return np.concatenate(columns, axis=1).astype(np.float32), tuple(names)


def _read(names: Sequence[str], dropped: set[str]) -> tuple[str, ...]:
    """What was read and what was left out, in sentences."""
    used = [name for name in NUMERIC + CATEGORICAL if name not in dropped]
    left_out = [f"{name} (excluded)" for name in COLUMNS if name in dropped and name != "fnlwgt"]
    return (
        f"features: {listed(used)} ({len(used)} of {len(COLUMNS)} columns, {len(names)} numbers a person)",
        f"dropped: {listed(['fnlwgt (sampling weight)', *left_out])}",
    )


def adult(
    *,
    groups: str | Sequence[str] = ("sex", "label"),
    exclude: str | Sequence[str] = (),
    min_group_size: int = 50,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
) -> Dataset:
    """UCI Adult; see the head of this file for features and splits. Warns of its known harms.

    Args:
      groups: ``sex``, ``race``, ``age`` (five bands), ``education`` (four bands), ``label``, or
        several of them, whose intersection is meant.
      exclude: columns left out of the features: any of :data:`COLUMNS`. ``education`` takes
        ``education-num`` with it. Other columns still tell of an excluded one: ``relationship`` has
        the values Husband and Wife.
      min_group_size: groups with fewer people in the training split are merged into ``other``.
      unconstrained: names of groups that are not to be constrained.
      split_seed: which of the possible splits.

    Returns:
      A :class:`Dataset` of 22,795 training, 3,254 validation and 6,512 test people.

    Raises:
      DataError: an unknown attribute or column.

    Example:
      >>> import warnings
      >>> from jaxfair import data
      >>> with warnings.catch_warnings():
      ...     warnings.simplefilter("ignore", data.DataWarning)
      ...     adult = data.load("adult")
      >>> adult.train.x.shape[1], adult.group_names
      (107, ('Female, <=50K', 'Female, >50K', 'Male, <=50K', 'Male, >50K'))
    """
    dropped: set[str] = set()
    for name in (exclude,) if isinstance(exclude, str) else exclude:
        if name not in COLUMNS:
            raise DataError(f"exclude={name!r} is no column of adult: choose from {listed(COLUMNS)}")
        dropped.update(TWINS.get(name, (name,)))
    table = read()
    known = attributes(table)
    strata = cells(table.codes["sex"], table.codes["race"], table.y)
    rows = dict(zip(SPLITS, stratified(strata, seed=split_seed), strict=True))
    if not set(NUMERIC + CATEGORICAL) - dropped:
        raise DataError("exclude leaves no feature of adult: leave at least one column")
    x, names = features(table, rows["train"], sorted(dropped))
    parts = {
        split: Part(x[r], table.y[r], {a: code[r] for a, (code, _) in known.items()}, r) for split, r in rows.items()
    }
    dataset = assemble(
        "adult",
        parts,
        class_names=CLASSES,
        vocabularies={a: values for a, (_, values) in known.items()},
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        positive=CLASSES[1],
        read=_read(names, dropped),
        feature_names=names,
        source="https://doi.org/10.24432/C5XW20",
        licence="CC BY 4.0",
        citation="Becker, B. and Kohavi, R. (1996). Adult. UCI Machine Learning Repository.",
        notes=f"Known harms: {HARMS}. Numbers are standardised with the training split.",
    )
    warn_of_harms("adult", HARMS)
    return dataset
