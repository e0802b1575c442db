"""The audit in a call: from predictions, or networks, to verdicts on every group and a page."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxfair import files, report, sparsity
from jaxfair.audit import _sections
from jaxfair.audit._figures import draw
from jaxfair.audit._findings import Findings, People, Variant
from jaxfair.audit._tables import changed_people
from jaxfair.data import Dataset
from jaxfair.report import figures


class Comparison:
    """What compression did to each group; made by :func:`compare`.

    Attributes:
      found: all numbers, from which tables, figures and words are made.

    Example:
      See :func:`compare`. Its parts may stand on any page:

      >>> rng = np.random.default_rng(0)
      >>> y, group = rng.integers(0, 2, 4000), rng.integers(0, 2, 4000)
      >>> after = np.where((group == 1) & (rng.random(4000) < 0.2), 1 - y, y)
      >>> one = compare(y, after, y, group, tolerance=0.01)
      >>> [section.title for section in one.sections()]
      ['Who is harmed', 'People whose outcome changed', 'The data']
    """

    def __init__(self, found: Findings) -> None:
        self.found = found

    @property
    def verdicts(self) -> list[report.Verdict]:
        """Whether the bound holds for every group, a line for each variant that the details show."""
        return _sections.verdicts(self.found)

    def summary(self) -> list[str]:
        """What was compared, in sentences."""
        return _sections.summary(self.found)

    def remarks(self) -> list[str]:
        """What has to be said before anything else: a bound that nobody violates, training that failed."""
        return [*_sections.idle(self.found), *_sections.failures(self.found)]

    def differences(self, name: str, peer: str) -> list[str]:
        """A sentence that compares two variants on the same seeds; none where it cannot."""
        return _sections.differences(self.found, name, peer)

    def drawn(self) -> list[report.Drawn]:
        """The figures."""
        return draw(self.found)

    def shown(self, *, note: str = "") -> list[report.Shown]:
        """The tables; ``note`` is added to what is said below the first."""
        return _sections.shown(self.found, note=note)

    def sections(self) -> list[report.Section]:
        """Who is harmed, layers, people, data."""
        return _sections.sections(self.found)

    def write_details(self, folder: str | os.PathLike[str]) -> None:
        """Writes ``groups/<variant>.csv`` and ``.md``, what is known of each group, and ``people.csv``."""
        folder, found = pathlib.Path(folder), self.found
        for name, (frame, _) in found.frames.items():
            if not name.endswith("(last)") or name in found.detailed:
                report.write_table(frame, folder / "groups", name.replace(" (last)", "_last"), digits=4)  # fmt: skip
        files.atomic_write(folder / "people.csv", changed_people(found).to_csv(index=False))

    def write(
        self,
        folder: str | os.PathLike[str],
        *,
        title: str = "What compression did to each group",
        subtitle: str = "",
    ) -> pathlib.Path:
        """Writes the page, ``report.html``, and everything that it shows as files beside it.

        Args:
          folder: is made where it is missing.
          title: of the page.
          subtitle: a line under it.

        Returns:
          The path of the page.
        """
        folder, tables, drawn = pathlib.Path(folder), self.shown(), self.drawn()
        for one in tables:
            report.write_table(one.frame, folder, one.name, numbers=one.numbers)
        for one in drawn:
            figures.save(one.figure, folder / "figures", one.name)
        self.write_details(folder)
        pictures = [
            report.Picture.from_figure(one.figure, caption=one.caption, alt=one.alt) for one in drawn
        ]  # fmt: skip
        blocks = [report.Table.from_frame(one.frame, caption=one.caption, note=one.note) for one in tables]
        page = report.Page(
            title=title,
            subtitle=subtitle or f"tolerance {100 * self.found.tolerance:g} points",
            summary=self.summary(),
            verdicts=self.verdicts,
            sections=[
                *([report.Section(title="Figures", blocks=pictures)] if pictures else []),
                report.Section(title="Numbers", blocks=blocks),
                *self.sections(),
                report.Section(title="Versions", blocks=[_versions()], folded=True),
            ],
            footer="Written by jaxfair.",
        )
        return report.write_page(page, folder / "report.html")


def _versions() -> report.Facts:
    facts = {"date": datetime.date.today().isoformat(), "python": platform.python_version()}
    for name in ("jaxfair", "jax", "jaxlib", "numpy"):
        facts[name] = importlib.metadata.version(name)
    return report.Facts(items=facts)


def compare(
    before: Any,
    after: Any,
    y: Any,
    group: Any = None,
    *,
    tolerance: Any = 0.01,
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    constrained: Any = None,
    rows: Any = None,
    split: str = "test",
    **roles: Any,
) -> Comparison:
    """What compression did to each group, of predictions of any framework or of networks of `jaxfair.recipes`.

    Args:
      before: predicted classes of the networks before, ``[N]``, or ``[S, N]`` of several seeds; or networks: anything
        with ``predictions(dataset)`` and ``failed_at``; or a :class:`Variant`.
      after: likewise, of the same seeds; or a dict of several by their names.
      y: ``[N]`` the true classes; or, for networks, the dataset.
      group: ``[N]`` integers or names.
      tolerance: the bound on the excess accuracy gap, a share: 0.01 is one point.
      names: ``[G]`` of the groups, of which ``group`` holds integers then.
      class_names: ``[C]``.
      constrained: ``[G]`` bool, which groups have a bound; all by default.
      rows: ``[N]`` of the people in their source; 0 to N - 1 by default.
      split: what these people are called.
      **roles: further fields of the findings: ``naive``, the variant that does nothing about groups, ``peers`` to
        compare with on the same seeds, ``controls`` that are no method, ``shown``, ``focus``, ``pruned_at``,
        ``name_before``.

    Returns:
      The :class:`Comparison`: ``.verdicts``, ``.write(folder)``.

    Raises:
      ValueError: for predictions, classes and groups of unequal lengths, numbers of seeds that differ, or a name that
        is no variant.

    Example:
      A network that got a fifth of one group wrong:

      >>> rng = np.random.default_rng(0)
      >>> y, group = rng.integers(0, 2, 4000), rng.choice(["men", "women"], 4000)
      >>> after = np.where((group == "women") & (rng.random(4000) < 0.2), 1 - y, y)
      >>> print(*compare(y, after, y, group, tolerance=0.01).verdicts)
      after, test: the bound of 1 point is violated for 1 of 2 groups and holds for 1. Worst: women (... people), ...
    """
    if isinstance(y, Dataset):
        if group is not None:
            raise ValueError("group= is the dataset's own: leave it out.")
        data, of = _of_dataset(y), lambda one: _variant_of(one, y)
    else:
        if group is None:
            raise ValueError("group is missing: give the group of everyone, [N].")
        data = _of_arrays(y, group, names, class_names, rows, split)
        of = lambda one: _variant_of_labels(one, split, len(data["people"][split].y))  # noqa: E731
    groups = len(data["group_names"])
    data["constrained"] = np.asarray(
        data.pop("constrained", np.ones(groups, bool)) if constrained is None else constrained, bool
    )
    given = after if isinstance(after, Mapping) else {"after": after}
    found = Findings(
        before=of(before),
        after={name: of(one) for name, one in given.items()},
        tolerance=float(tolerance),
        **data,
        **roles,
    )
    _check(found)
    return Comparison(found)


def _check(found: Findings) -> None:
    if found.constrained.shape != (found.num_groups,):
        raise ValueError(
            f"constrained has shape {found.constrained.shape} and there are {found.num_groups} groups: give one truth "
            "value per group."
        )
    seeds = len(found.before.ok)
    for name, variant in found.after.items():
        if len(variant.ok) != seeds:
            raise ValueError(
                f"{name} has {len(variant.ok)} seeds and there are {seeds} networks before: compare the same seeds."
            )
    if not found.after:
        raise ValueError("after is empty: give predictions, or networks, by their names.")
    for role in ("focus", "shown", "peers", "controls"):
        for name in getattr(found, role):
            if name not in found.after and role == "focus":
                raise ValueError(f"{role}={name!r}: choose from {', '.join(found.after)}.")


def _of_dataset(dataset: Dataset) -> dict[str, Any]:
    people = {
        name: People(np.asarray(split.y), np.asarray(split.group), np.asarray(dataset.rows[name]))
        for name, split in dataset.splits.items()
        if len(split.y)
    }
    source = [t for t in (dataset.notes, dataset.citation and f"Source: {dataset.citation}") if t]
    return {
        "people": people, "group_names": dataset.group_names, "class_names": dataset.class_names,
        "constrained": dataset.constrained, "merged": dataset.merged, "source": source,
    }  # fmt: skip


def _of_arrays(
    y: Any,
    group: Any,
    names: Sequence[str] | None,
    class_names: Sequence[str] | None,
    rows: Any,
    split: str,
) -> dict[str, Any]:
    y, group = np.asarray(y), np.asarray(group)
    rows = np.arange(len(y)) if rows is None else np.asarray(rows)
    if not len(y) == len(group) == len(rows):
        raise ValueError(f"y has {len(y)}, group {len(group)} and rows {len(rows)} people: give one value per person.")
    if names is None:
        names = [str(name) for name in np.unique(group)]
        group = np.unique(group, return_inverse=True)[1]
    classes = class_names or [str(c) for c in range(int(y.max(initial=0)) + 1)]
    return {
        "people": {split: People(y, group, rows)},
        "group_names": list(names),
        "class_names": list(classes),
    }


def _variant_of_labels(one: Any, split: str, people: int) -> Variant:
    if isinstance(one, Variant):
        return one
    labels = np.atleast_2d(np.asarray(one))
    if labels.ndim != 2 or labels.shape[1] != people:
        raise ValueError(f"predictions of shape {np.shape(one)} for {people} people: give classes, [N] or [S, N].")
    return Variant({split: labels}, np.ones(len(labels), bool))


def _variant_of(networks: Any, dataset: Dataset) -> Variant:
    """Of networks that predict by themselves."""
    if isinstance(networks, Variant):
        return networks
    layers = None
    if networks.masks is not None:
        one = [jax.tree.map(lambda a: a[0], tree) for tree in (networks.params, networks.masks)]
        layers = sparsity.sparsity_report(*one)
    # Without the seconds: another run of the same job writes the same page.
    return Variant(
        labels=networks.predictions(dataset),
        ok=np.asarray(networks.failed_at) < 0,
        history=networks.history,
        layers=layers,
    )
