"""``jaxfair audit``: what compression, or a new version, did to each group, from predictions of any framework.

    jaxfair audit --before dense.npz --after sparse.npz --labels y.npy --groups groups.csv --out report/
    jaxfair audit --table predictions.parquet --before p0 --after p1 --label y --groups sex,age --out report/

prints the answer and, with ``jaxfair[report]``, writes the page (``report.html``), its tables and figures, and who
changed (``people.csv``). What a source may be, and how files are joined, stands in :mod:`jaxfair.cli.sources`; in which
forms a model may predict, in :mod:`jaxfair.audit.predicted`.
"""

import dataclasses
import pathlib

import numpy as np

from jaxfair import audit, metrics, report, study
from jaxfair.cli import flags, predictions, sources
from jaxfair.cli.dataset import check_apart, in_flags
from jaxfair.cli.failures import one_line
from jaxfair.cli.job import NO_PAGE


@dataclasses.dataclass(frozen=True)
class Config:
    """Audit what compression, or a new version, did to each group."""

    # predictions before: FILE or FILE:COLUMN, of one network or several; with --table columns of it
    before: tuple[str, ...] = flags.several((), none=True)
    # predictions after, of as many networks, or of one; of several kinds as pruned=FILE,int8=FILE
    after: tuple[str, ...] = flags.several((), none=True)
    # the true classes: FILE or FILE:COLUMN
    labels: str = ""
    # columns of a FILE whose intersection makes the groups, as people.csv:sex,age; by default all that it has
    groups: tuple[str, ...] = flags.several((), none=True)
    # one table that holds everything: the others name its columns then
    table: str = ""
    # the column of the true classes in --table
    label: str = ""
    # column that says who is who in all files, by which they are joined; without it all have the same order
    id: str = ""
    # folder of what is written
    out: str = ""
    # on what a group may lose beyond what all lose, as a share of 1: 0.02 is two points
    tolerance: float = flags.one(0.01, low=0, below=1)
    # names of all classes, in the order of columns of probabilities, where the labels do not say it
    classes: tuple[str, ...] = flags.several((), none=True)
    # the class that is the good outcome for a person; who is selected is shown then
    positive: str = ""
    # from which score on the second of two classes is predicted
    threshold: float = flags.one(0.5, low=0, high=1)
    # numbers of several classes are logits, also where all lie between 0 and 1
    logits: bool = False
    # groups with fewer people are merged into "other"
    min_group_size: int = flags.one(0, low=0)
    # names of groups that are not to be bound; separated by semicolons, since names may have commas
    unconstrained: tuple[str, ...] = flags.several((), none=True, separator=";")
    # columns that the cards of people show, as --groups; with --table by default all that nothing else names
    show: tuple[str, ...] = flags.several((), none=True)
    # pictures of the people, FILE or FILE:ARRAY of .npz or .npy: [N, H, W] or [N, H, W, C]
    images: str = ""
    # a CSV that such a page saved: what somebody marked stands on the next one
    marks: str = ""
    # what the networks before are called
    name_before: str = "before"
    # exit with 1 where a group violates the bound: for a pipeline that must stop then
    fail_if_violated: bool = False

    def check(self) -> None:
        """What no flag can say by itself."""
        if self.table and self.labels:
            raise flags.UsageError("--labels: with --table, name the column of the classes by --label")
        if self.label and not self.table:
            raise flags.UsageError("--label: a column of --table; without one, give --labels=FILE:COLUMN")
        for name in ("before", "after", "label" if self.table else "labels", "groups", "out"):
            if not getattr(self, name):
                raise flags.UsageError(f"--{name}: give one; --help lists the flags")
        if not self.name_before.strip():
            raise flags.UsageError("--name_before: give a name")


def run(config: Config) -> int:
    """From the flags to the page."""
    read = sources.Files(config.id)
    truth = sources.named_sources("labels", [config.label or config.labels], config.table)[0]
    raw = read.start(truth)
    names = config.classes or _names(read, truth, raw)
    y, class_names, order = predictions.classes_of(raw, truth, names)
    options = {"named": bool(names), "threshold": config.threshold, "logits": config.logits}
    given = {
        flag: predictions.said(
            read, sources.named_sources(flag, getattr(config, flag), config.table, named=flag == "after"), len(y),
            class_names, order, **options,
        )
        for flag in ("before", "after")
    }  # fmt: skip
    attributes = predictions.attributes(read, sources.named_sources("groups", config.groups, config.table), len(y))
    before = {config.name_before: given["before"][""]}
    after = {name or "after": one for name, one in given["after"].items()}
    networks = max(len(one.classes) for one in (*before.values(), *after.values()))
    before, after = (predictions.of_networks(side, networks) for side in (before, after))
    try:
        found = audit.compare(
            before[config.name_before], after, y, attributes, tolerance=config.tolerance, class_names=class_names,
            positive=config.positive or None, name_before=config.name_before, rows=read.ids,
            min_group_size=config.min_group_size, unconstrained=config.unconstrained,
        )  # fmt: skip
    except ValueError as error:
        raise flags.UsageError(in_flags(str(error)).removesuffix(".")) from None
    alone = _alone(found)
    if alone:
        raise flags.UsageError(alone)
    out = pathlib.Path(config.out)
    if any((out / name).exists() for name in ("config.json", "records.jsonl")):
        raise study.FolderError(f"{out} holds a run of another program: choose another folder (--out)")
    shown = {
        "images": _images(read, config, len(y)),
        "table": _table(read, config, len(y)),
        "marks": config.marks or None,
    }
    try:
        audit.seen(found.found, **shown)
    except ValueError as error:
        raise flags.UsageError(in_flags(str(error)).removesuffix(".")) from None
    check_apart(out, read.paths, [".csv"])
    written = report.can_write()
    if written:
        study.check_folder(out, needed_bytes=20_000_000)
    for line in (*read.left_out, *found.answer().lines()):
        print(one_line(line))
    files = [pathlib.PurePath(part.partition("=")[2] or part).name for part in (*config.before, *config.after)]
    if written:
        page = found.write(out, title="What changed for each group", subtitle=", ".join(files), **shown)
    print(f"\npage: {one_line(page)}" if written else f"\n{NO_PAGE}")
    violated = any(row["verdict"] == metrics.VIOLATED for rows in found.found.rows.values() for row in rows)
    return 1 if violated and config.fail_if_violated else 0


def _names(read: sources.Files, source: sources.Source, raw: np.ndarray) -> tuple[str, ...]:
    """The names that a file of ours has of its classes."""
    there = read.columns(source.path).get("class_names")
    return tuple(map(str, there.tolist())) if there is not None and raw.dtype.kind in "iu" else ()


def _images(read: sources.Files, config: Config, people: int) -> np.ndarray | None:
    """The pictures, in the order of the labels."""
    if not config.images:
        return None
    (source,) = sources.named_sources("images", [config.images], "")
    return read.aligned(read.columns(source.path)[read.chosen(source)], source, 0, people)


def _table(read: sources.Files, config: Config, people: int) -> dict[str, np.ndarray]:
    """What the cards say of a person: the columns that are named, or all of the table that nothing else names."""
    words = config.show
    if config.table and not words:
        said = {part.partition("=")[2] or part for part in (*config.before, *config.after)}
        used = {config.label, config.id} | said
        columns = read.columns(config.table)
        apart = tuple(f"{name}_" for name in said - set(columns))  # of which there is one for each class
        words = [name for name in columns if name not in used and not (apart and name.startswith(apart))]
    given = sources.named_sources("show", words, config.table)
    return predictions.attributes(read, given, people, whole=False) if given else {}


def _alone(found: audit.Comparison) -> str:
    """Which group is one person, whom a report about groups would be about; empty if none is."""
    sizes = found.found.sizes(found.found.judged)
    for name, size in zip(found.found.group_names, sizes, strict=True):
        if size == 1:
            return (
                f"--groups: {name!r} is one person, and nothing can be said of a group of one: merge small groups by "
                "--min_group_size=10, or name fewer columns"
            )
    return ""


main = flags.entry(run, Config, prog="jaxfair audit")
