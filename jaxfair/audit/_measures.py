"""What an audit measures of one variant: gaps seed by seed, intervals over people, and the rows of its groups."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfair import metrics
from jaxfair.audit._groups import group_rows
from jaxfair.audit._moved import most


class Measured(NamedTuple):
    """One variant on one split, seed by seed.

    Attributes:
      accuracy: ``[S]``.
      psi: ``[S, G]`` excess accuracy gaps; nan for a group that the split lacks.
      loss: ``[S, G]`` each group's own loss of accuracy.
      chance: ``[S]`` the largest gap to be expected if every change were a coin flip.
    """

    accuracy: np.ndarray
    psi: np.ndarray
    loss: np.ndarray
    chance: np.ndarray

    def largest(self, constrained: np.ndarray) -> np.ndarray:
        """``[S]`` the largest gap over the groups that have a bound; nan where none of them has people."""
        return most(self.psi, constrained)


def measure(found: Any, name: str, split: str) -> Measured:
    """Gaps of one variant on one split, against the networks before, seed by seed.

    People whose group is not known are in no gap: neither in a group's loss nor in the average that it is compared
    with, as in the intervals. The accuracy is that of everybody.
    """
    dense, sparse = found.correct(found.name_before, split), found.correct(name, split)
    group, rows = np.asarray(found.people[split].group), []
    of_the_groups = metrics.group_counts(group, found.num_groups)
    for seed in range(len(dense)):
        those = dense[seed], sparse[seed], group, found.num_groups
        gaps = metrics.accuracy_gaps(*those, share=of_the_groups)
        null = metrics.sign_flip_null(*those, key=jax.random.key(seed), permutations=2000)
        rows.append((sparse[seed].mean(), np.asarray(gaps.excess), np.asarray(gaps.gap), null.mean))
    return Measured(*(np.stack(column) for column in zip(*rows, strict=True)))


def _changes(found: Any, name: str) -> metrics.Changes:
    split, ok = found.judged, found.ok(name)
    dense, sparse = (found.correct(v, split)[ok].mean(0) for v in (found.name_before, name))
    return metrics.count_changes(dense, sparse, np.asarray(found.people[split].group), found.num_groups)


def infer(found: Any, name: str) -> metrics.GapInference:
    """Gaps of a variant on the judged split, averaged over seeds, with intervals over people."""
    return metrics.infer(_changes(found, name), key=jax.random.key(0), resamples=5000)


def certify(found: Any, name: str, groups: np.ndarray) -> metrics.Certificate:
    """Of the people and resamples that verdicts are from, for these groups ``[G]`` bool."""
    return metrics.certificate(_changes(found, name), key=jax.random.key(0), resamples=5000, constrained=groups)


def of_groups(found: Any, name: str, inference: metrics.GapInference) -> list[dict[str, Any]]:
    """What is known of each group of the judged split, a dict per group, the most harmed first."""
    split, ok, num_groups = found.judged, found.ok(name), found.num_groups
    people = found.people[split]
    group = np.asarray(people.group)
    known = (group >= 0) & (group < num_groups)
    right = [
        np.bincount(group[known], found.correct(v, split)[ok].mean(0)[known], minlength=num_groups)
        for v in (found.name_before, name)
    ]
    changes = None
    if found.positive is not None:
        pairs = zip(found.before.labels[split][ok], found.of(name).labels[split][ok], strict=True)
        by_seed = [metrics.rate_changes(d, s, people.y, group, num_groups, positive=found.positive) for d, s in pairs]
        means: list[Any] = [np.mean(rate, axis=0) for rate in zip(*by_seed, strict=True)]
        changes = metrics.Rates(*means)
    return group_rows(
        found.group_names, inference, bound=found.tolerance, changes=changes, constrained=found.constrained,
        right=right, predictions=jax.tree.map(lambda a: a[ok].mean(0), found.moved[name, split]),
    )  # fmt: skip


def selected(found: Any, name: str) -> list[dict[str, Any]]:
    """Who is predicted the good outcome, before and after: a dict per group, those who lost most first.

    The gap is the rate of selection that a group lost beyond what all lost, judged as accuracy is.
    """
    split, ok = found.judged, found.ok(name)
    group = np.asarray(found.people[split].group)
    known = (group >= 0) & (group < found.num_groups)
    before, after = ((found.of(v).labels[split][ok] == found.positive).mean(0) for v in (found.name_before, name))
    inference = metrics.paired_bootstrap(
        before, after, group, found.num_groups, key=jax.random.key(0), resamples=5000
    )  # fmt: skip
    counts = [np.bincount(group[known], chosen[known], minlength=found.num_groups) for chosen in (before, after)]
    return group_rows(
        found.group_names, inference, bound=found.tolerance, constrained=found.constrained, right=counts
    )  # fmt: skip
