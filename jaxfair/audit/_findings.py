"""What an audit knows and measures: predictions of networks before and after, of the same people, seed by seed.

Two kinds of uncertainty are kept apart: *seeds* (another training would give another network; t intervals over seeds)
and *people* (another sample of people would give other gaps; paired bootstrap within groups). One method is compared
with another by the paired differences of the same seeds.
"""

import dataclasses
import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair import metrics
from jaxfair.audit._measures import Measured, infer, measure, of_groups
from jaxfair.audit._moved import moved
from jaxfair.files import visible
from jaxfair.report import need

#: Of how many seeds naive fine-tuning must violate the bound for it to be worth constraining.
ACTIVE = 0.8


class People(NamedTuple):
    """Those whom the networks speak of.

    Attributes:
      y: ``[N]`` classes.
      group: ``[N]`` groups in ``[0, G)``; outside of it, unknown.
      rows: ``[N]`` their rows in the source.
      images: ``[N, H, W, C]`` pictures of them; None where there are none.
    """

    y: np.ndarray
    group: np.ndarray
    rows: np.ndarray
    images: Any = None


class Variant(NamedTuple):
    """What networks of one kind predict, and what is known of how they were made.

    Attributes:
      labels: split -> ``[S, N]`` predicted classes.
      ok: ``[S]`` bool, whether training was finite; seeds that were not are left out.
      seconds: of training; nan if nobody measured it.
      history: a dict for each epoch and seed, with ``gaps`` and ``multipliers``.
      layers: a `jaxfair.sparsity.SparsityReport`; None if unknown.
      confidence: split -> ``[S, N]`` probabilities of what is predicted; empty if unknown.
    """

    labels: Mapping[str, np.ndarray]
    ok: np.ndarray
    seconds: float = float("nan")
    history: Sequence[Mapping[str, Any]] = ()
    layers: Any = None
    confidence: Mapping[str, np.ndarray] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Findings:
    """Everything that tables, figures and the page are made from.

    Attributes:
      people: split -> who; the last one is whom verdicts are about.
      before: the networks that all others are compared with.
      after: name -> networks.
      group_names: ``[G]``.
      class_names: ``[C]``.
      constrained: ``[G]`` bool, which groups have a bound.
      tolerance: the bound on the excess accuracy gap.
      name_before: of the networks before.
      naive: the variant that stands for doing nothing about groups; empty if there is none.
      peers: with which the others are compared on the same seeds.
      controls: variants that are no method: their gaps are noise.
      shown: the variants that figures and the page compare; all by default.
      focus: those that the details show; the first and the last by default.
      pruned_at: the epoch at which pruning ended.
      source: what the data are: a line each.
      weighted: splits whose people have weights, which an audit does not count by.
      merged: name of a merged group -> {name of a cell in it: size}.
      labels: what variants are called in plain words; the answer is about those that are named here, in this order.
      on_loss: variants whose bound is on what a group itself loses, not on the excess.
      positive: the class that is the good outcome for a person; None where nobody said.
      attributes: of which the groups are the intersection: name -> ``[N]`` places among its values (-1 unknown), of
        the judged split, and the values; empty where there is one only.

    Example:
      Ten of a hundred women are lost, and no man:

      >>> y, group, rows = np.zeros(200, int), np.repeat([0, 1], 100), np.arange(200)
      >>> after = np.where(rows < 190, 0, 1)
      >>> of = lambda label: Variant({"test": label[None]}, np.ones(1, bool))
      >>> found = Findings(people={"test": People(y, group, rows)}, before=of(y), after={"pruned": of(after)},
      ...                  group_names=("men", "women"), class_names=("no", "yes"), constrained=np.ones(2, bool),
      ...                  tolerance=0.01)
      >>> round(float(found.largest("pruned", "test")[0]), 3)
      0.05
    """

    people: Mapping[str, People]
    before: Variant
    after: Mapping[str, Variant]
    group_names: Sequence[str]
    class_names: Sequence[str]
    constrained: np.ndarray
    tolerance: float
    name_before: str = "before"
    naive: str = ""
    peers: Sequence[str] = ()
    controls: Sequence[str] = ()
    shown: Sequence[str] = ()
    focus: Sequence[str] = ()
    pruned_at: int | None = None
    source: Sequence[str] = ()
    weighted: Sequence[str] = ()
    merged: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    on_loss: Sequence[str] = ()
    positive: int | None = None
    attributes: Mapping[str, tuple[np.ndarray, Sequence[str]]] = dataclasses.field(default_factory=dict)

    @property
    def num_groups(self) -> int:
        """G."""
        return len(self.group_names)

    @property
    def bounded(self) -> int:
        """How many groups have a bound."""
        return int(np.sum(self.constrained))

    @property
    def first(self) -> str:
        """The first split: the one that the bound was trained for."""
        return next(iter(self.people))

    @property
    def judged(self) -> str:
        """The split that verdicts are about: test, or the last there is."""
        return "test" if "test" in self.people else [*self.people][-1]

    @property
    def names(self) -> list[str]:
        """Before and after."""
        return [self.name_before, *self.after]

    @property
    def compared(self) -> list[str]:
        """What figures and the page compare; those of the details first, whose looks differ most."""
        order = [*self.detailed, *self.after]
        return [name for name in dict.fromkeys(order) if name in (self.shown or self.after)]

    @property
    def detailed(self) -> list[str]:
        """What the details show, of variants with a seed that did not fail."""
        chosen = self.focus or dict.fromkeys([*self.after][:1] + [*self.after][-1:])
        return [name for name in chosen if name in self.after and self.ok(name).any()]

    def titled(self, name: str) -> str:
        """What a variant is called."""
        return visible(self.labels.get(name, name))

    def is_last(self, name: str) -> bool:
        """Whether this is the last iterate of a variant that is here as well, which alone is then listed."""
        return name.endswith(" (last)") and name.removesuffix(" (last)") in self.after

    def of(self, name: str) -> Variant:
        """A variant by its name."""
        return self.before if name == self.name_before else self.after[name]

    def ok(self, name: str) -> np.ndarray:
        """``[S]``, whether the networks before and after were finite."""
        return self.before.ok & self.of(name).ok

    def correct(self, name: str, split: str) -> np.ndarray:
        """``[S, N]`` booleans; a network that has diverged is right about nobody."""
        return self.of(name).labels[split] == self.people[split].y

    @functools.cached_property
    def measured(self) -> dict[tuple[str, str], Measured]:
        """(variant, split) -> numbers."""
        return {(name, split): measure(self, name, split) for name in self.names for split in self.people}  # fmt: skip

    @functools.cached_property
    def moved(self) -> dict[tuple[str, str], metrics.PredictionChanges]:
        """(variant, split) -> whose predictions changed against those before, ``[S, G]``, and ``[S]`` of everybody."""
        return {
            (name, split): moved(self.before.labels[split], one.labels[split], who.y, who.group, self.num_groups)
            for name, one in {self.name_before: self.before, **self.after}.items()
            for split, who in self.people.items()
        }

    @functools.cached_property
    def inferred(self) -> dict[str, metrics.GapInference]:
        """For every variant its gaps on the judged split, averaged over seeds, with intervals over people."""
        return {name: infer(self, name) for name in self.after if self.ok(name).any()}

    @functools.cached_property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """For every variant what is known of each group, a dict per group, the most harmed first."""
        return {name: of_groups(self, name, inference) for name, inference in self.inferred.items()}

    @functools.cached_property
    def frames(self) -> dict[str, tuple[Any, metrics.GapInference]]:
        """The rows as DataFrames, and what they rest on."""
        return {name: (need("pandas").DataFrame(rows), self.inferred[name]) for name, rows in self.rows.items()}

    def met(self, name: str) -> np.ndarray:
        """``[S]`` bool, whether the bound of a variant is met on the first split; seeds that failed are left out.

        By the rule of training (:func:`jaxfair.metrics.violation`): the largest gap is at most the tolerance, where a
        group of which one person is more than that is allowed one person.
        """
        found, ok = self.measured[name, self.first], self.ok(name)
        gaps = np.where(self.constrained, found.loss if name in self.on_loss else found.psi, np.float32(np.nan))[ok]
        sizes = self.sizes(self.first)
        return np.array([bool(metrics.violation(gap, self.tolerance, sizes) <= 0) for gap in gaps], bool)

    def sizes(self, split: str) -> np.ndarray:
        """``[G]`` how many people of a split each group has."""
        return np.asarray(metrics.group_counts(np.asarray(self.people[split].group), self.num_groups))

    def largest(self, name: str, split: str) -> np.ndarray:
        """``[S]`` the largest gap over the groups that have a bound."""
        return self.measured[name, split].largest(np.asarray(self.constrained))

    @property
    def active(self) -> bool | None:
        """Whether doing nothing violates the bound: there is work to do; None if nobody tried or no group is bound."""
        if self.naive not in self.after or not self.ok(self.naive).any():
            return None
        if np.isnan(self.largest(self.naive, self.first)[self.ok(self.naive)]).any():
            return None  # no group has a bound
        return bool(np.mean(~self.met(self.naive)) >= ACTIVE)
