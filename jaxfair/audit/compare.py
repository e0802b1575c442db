"""The audit in a call: from predictions, or networks, to verdicts on every group and a page."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxfair import files, metrics, report, sparsity
from jaxfair.audit import _attributes, _checks, _coding, _page, _sections
from jaxfair.audit._answer import Answer, answer
from jaxfair.audit._exemplars import Exemplar, exemplars, images_of
from jaxfair.audit._figures import draw
from jaxfair.audit._findings import Findings, People, Variant
from jaxfair.audit._looked_at import seen
from jaxfair.audit._measures import certify
from jaxfair.audit.predicted import in_classes
from jaxfair.data import Dataset


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
      ['Who is harmed', 'People to look at', 'The data']
    """

    def __init__(self, found: Findings) -> None:
        self.found = found

    def answer(self, labels: Mapping[str, str] | None = None) -> Answer:
        """The short answer: accuracy, the worst group and its gap, bound met in how many seeds, verdict in words.

        It needs no optional package; ``print`` shows it in 80 columns.

        Args:
          labels: what variants are called, those before too: ``{"before": "dense", "nft": "pruned as usual"}``. The
            answer is about those that are named, in this order; by default those of ``compare(labels=)``, or those
            that the details show.
        """
        return answer(self.found, self.found.labels if labels is None else labels)._replace(remarks=self.remarks())

    @property
    def verdicts(self) -> list[report.Verdict]:
        """Whether the bound holds for every group, a line for each variant that the details show."""
        return _sections.verdicts(self.found)

    def met(self) -> dict[str, tuple[int, int]]:
        """Variant -> in how many seeds its bound is met on the split that it is trained for, and of how many."""
        there = [name for name in self.found.after if self.found.ok(name).any()]
        return {name: (int(seeds.sum()), len(seeds)) for name in there if len(seeds := self.found.met(name))}

    def certificate(self, name: str = "") -> metrics.Certificate:
        """The limit that no group with a bound exceeds on people like those of the judged split, with 95 % confidence.

        Args:
          name: of a variant; the last of the details by default.

        Returns:
          A :class:`jaxfair.metrics.Certificate`: ``.limit``, ``.group``, ``.people_for(y)``.

        Example:
          >>> y, group = np.zeros(4000, int), np.repeat([0, 1], 2000)
          >>> after = np.where((group == 1) & (np.arange(4000) % 50 == 0), 1, y)
          >>> found = compare(y, after, y, group).certificate()
          >>> found.group, bool(0.01 < found.limit < 0.02)
          (1, True)
        """
        name = name or [*self.found.after, *self.found.detailed][-1]
        if name not in self.found.inferred:
            raise ValueError(
                f"{name} is no variant with a sound network: choose from {', '.join(self.found.inferred)}."
            )
        return certify(self.found, name, np.asarray(self.found.constrained, bool))

    def summary(self) -> list[str]:
        """What was compared, in sentences."""
        return _sections.summary(self.found)

    def remarks(self) -> list[str]:
        """What has to be said before anything else: a bound that nobody violates, what failed or is unknown."""
        return _sections.remarks(self.found)

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
        """Who is harmed, people to look at, layers, data."""
        return _sections.sections(self.found)

    def people(self, name: str = "") -> list[Exemplar]:
        """Whose prediction a variant changed, by default the last of the details, newly wrong ones first."""
        return exemplars(self.found, name or [*self.found.after, *self.found.detailed][-1])

    def write_details(self, folder: str | os.PathLike[str], marks: Mapping[str, str] = {}) -> None:
        """Writes ``groups/<variant>.csv`` and ``.md``, ``people.csv``, and ``exemplars.csv`` with its marks."""
        _page.write_details(self.found, pathlib.Path(folder), marks)

    def write(
        self,
        folder: str | os.PathLike[str],
        *,
        title: str = "What compression did to each group",
        subtitle: str = "",
        images: Any = None,
        table: Any = None,
        marks: Any = None,
    ) -> pathlib.Path:
        """Writes the page, ``report.html``, and everything that it shows as files beside it.

        Args:
          folder: is made where it is missing.
          title: of the page.
          subtitle: a line under it.
          images: ``[N, H, W]`` or ``[N, H, W, C]``, of the people that verdicts are about, in their order.
          table: name -> ``[N]``, what else is known of them.
          marks: the path of a CSV that such a page saved: what it says of people stands on this one.

        Returns:
          The path of the page.
        """
        return _page.write(self, folder, title=title, subtitle=subtitle, seen=seen(self.found, images, table, marks))


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
    positive: Any = None,
    min_group_size: int = 0,
    unconstrained: Sequence[str] = (),
    **roles: Any,
) -> Comparison:
    """What compression did to each group, of predictions of any framework or of networks of `jaxfair.recipes`.

    Args:
      before: predicted classes of the networks before, ``[N]``, or ``[S, N]`` of several seeds, or their probabilities
        or logits, ``[N, C]`` or ``[S, N, C]``; or what :func:`predicted` made; or networks: anything with
        ``predictions(dataset)`` and ``failed_at``; or a :class:`Variant`.
      after: likewise, of the same seeds; or a dict of several by their names.
      y: ``[N]`` the true classes, integers, words or truth values, as the predictions are; or, for networks, the
        dataset, of which everybody counts the same: where it has weights, that is said. A prediction that is missing
        (NaN, or -1 where that is no class) is wrong, and a network that makes no other has failed.
      group: ``[N]`` integers or names. People of whom it is None, NaN, empty or -1 are in no gap, which is said. Of
        several attributes, in a dict or a frame, the groups are the intersection; the page has each by itself as well.
      tolerance: the bound on the excess accuracy gap, a share: 0.01 is one point.
      names: ``[G]`` of the groups, of which ``group`` holds integers then.
      class_names: ``[C]``, of which y and the predictions hold integers then; by default the classes that occur.
      constrained: ``[G]`` bool, which groups have a bound; all by default.
      rows: ``[N]`` of the people in their source; 0 to N - 1 by default.
      split: what these people are called.
      positive: the class that is the good outcome for a person, as y holds it or by its name; who is selected is shown
        then. The dataset's own by default; without one, no class is taken for the good one.
      min_group_size: groups with fewer people are merged into ``other``; of arrays.
      unconstrained: names of groups that have no bound; in place of ``constrained``.
      **roles: further fields of the findings: ``labels``, what variants are called in plain words, ``naive``, the
        variant that does nothing about groups, ``peers`` to compare with on the same seeds, ``controls`` that are no
        method, ``on_loss``, whose bound is on a group's own loss, ``shown``, ``focus``, ``pruned_at``,
        ``name_before``.

    Returns:
      The :class:`Comparison`: ``.verdicts``, ``.write(folder)``.

    Raises:
      ValueError: for predictions, classes and groups of unequal lengths, predictions that are no classes, groups or
        classes without a name, seeds that differ, a tolerance that is no share, or a name that is no variant.

    Example:
      A network that got a fifth of one group wrong:

      >>> rng = np.random.default_rng(0)
      >>> y, group = rng.integers(0, 2, 4000), rng.choice(["men", "women"], 4000)
      >>> after = np.where((group == "women") & (rng.random(4000) < 0.2), 1 - y, y)
      >>> print(*compare(y, after, y, group, tolerance=0.01).verdicts)
      after, test: the bound of 1 point is violated for 1 of 2 groups and holds for 1. Violated: women (... people), ...
    """
    given = {files.visible(n): one for n, one in after.items()} if isinstance(after, Mapping) else {"after": after}
    name_before = roles["name_before"] = files.visible(roles.get("name_before", Findings.name_before))
    _checks.names(given, name_before)
    _checks.seeds(before, given)
    if isinstance(y, Dataset):
        if group is not None:
            raise ValueError("group= is the dataset's own: leave it out.")
        data = _of_dataset(y)
        data["before"] = _variant_of(before, y, data["people"], name_before)
        data["after"] = {name: _variant_of(one, y, data["people"], name) for name, one in given.items()}
    else:
        if group is None:
            raise ValueError("group is missing: give the group of everyone, [N].")
        cells = _attributes.cells(group, names, min_group_size)
        data = _of_arrays(before, given, y, cells, class_names, rows, split, name_before)
    if positive is not None:
        data["positive"] = _coding.class_of(positive, data["class_names"])
    for role in ("group_names", "class_names"):
        data[role] = [files.visible(name) for name in data[role]]
    if constrained is not None:
        data["constrained"] = constrained
    elif unconstrained:
        data["constrained"] = _attributes.bounded(data["group_names"], [*map(files.visible, unconstrained)])
    data["constrained"] = np.asarray(data.get("constrained", np.ones(len(data["group_names"]), bool)), bool)
    found = Findings(tolerance=_checks.share(tolerance), **data, **_checks.roles(roles, given))
    _checks.fits(found)
    return Comparison(found)


def _of_dataset(dataset: Dataset) -> dict[str, Any]:
    people = {
        name: People(np.asarray(split.y), np.asarray(split.group), np.asarray(dataset.rows[name]), images_of(split.x))
        for name, split in dataset.splits.items()
        if len(split.y)
    }
    read = dataset.read
    source = [t for t in (*read, dataset.notes, dataset.citation and f"Source: {dataset.citation}") if t]
    return {
        "people": people, "group_names": dataset.group_names, "class_names": dataset.class_names,
        "constrained": dataset.constrained, "merged": dataset.merged, "source": source,
        "positive": dataset.positive,
        "weighted": [name for name in people if not (np.asarray(dataset.splits[name].weight) == 1).all()],
    }  # fmt: skip


def _of_arrays(
    before: Any,
    after: Mapping[str, Any],
    y: Any,
    cells: _attributes.Cells,
    class_names: Sequence[str] | None,
    rows: Any,
    split: str,
    name_before: str,
) -> dict[str, Any]:
    rows = np.arange(len(y)) if rows is None else np.asarray(rows)
    if not len(y) == len(cells.group) == len(rows):
        raise ValueError(
            f"y has {len(y)}, group {len(cells.group)} and rows {len(rows)} people: give one value per person."
        )
    given = {name_before: before, **after}
    told = {name: in_classes(one, y, class_names, where=name, split=split) for name, one in given.items()}
    others = {name: told[name] for name in after}
    true, named, first, others = _coding.classes(y, told[name_before], others, name_before, class_names, split)
    return {
        "people": {split: People(true, cells.group, rows)}, "group_names": cells.names, "class_names": named,
        "before": first, "after": others, "merged": cells.merged, "attributes": cells.attributes,
    }  # fmt: skip


def _variant_of(networks: Any, dataset: Dataset, people: Mapping[str, People], name: str) -> Variant:
    """Of networks that predict by themselves."""
    if isinstance(networks, Variant):
        return _coding.known(networks, people, dataset.num_classes, name)
    if not hasattr(networks, "predictions"):
        raise ValueError(
            f"{name} are no networks but {type(networks).__name__}: give their y and group for y and group."
        )
    layers = None
    if networks.masks is not None:
        one = [jax.tree.map(lambda a: a[0], tree) for tree in (networks.params, networks.masks)]
        layers = sparsity.sparsity_report(*one)
    # Without the seconds: another run of the same job writes the same page.
    made = Variant(
        labels=networks.predictions(dataset),
        ok=np.asarray(networks.failed_at) < 0,
        history=networks.history,
        layers=layers,
    )
    return _coding.known(made, people, dataset.num_classes, name)
