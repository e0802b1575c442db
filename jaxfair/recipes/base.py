"""A split with its dense networks: what every comparison of pruned networks begins with, and is measured against."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import constraints, metrics, train
from jaxfair.data import Dataset
from jaxfair.recipes._batches import BATCHES
from jaxfair.recipes.check_model import check_model
from jaxfair.typing import Batch, Key, Model


@dataclasses.dataclass(frozen=True, eq=False)
class Base:
    """A split and its S dense networks; made by :func:`base`.

    Attributes:
      model: the network.
      dataset: the data.
      splits: train, validation and test, on the device; those that have somebody.
      share: ``[G]``, of the groups in the training split.
      keys: ``[S]``.
      networks: ``[S, ...]``.
      logits: of each split, ``[S, N, C]``.
      outcomes: of each split, ``[S, N]`` each.
      batch_size: B.
      steps: T, of an epoch.
      batches: for each of :data:`BATCHES` ``order(key, epoch) -> [T, B]``, and the weights ``[N]`` of the examples.

    Example:
      What the retraining of a network from another seed alone takes from the worst group, in points:

      >>> from jaxfair import data, models
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> found = base(models.mlp(10, hidden=(8,)), data.load("digits"), keys=keys, batch_size=126, epochs=2)
      >>> found.judged(0, found.labels(1), 0.01)["test"]["gap"] > 0
      True
    """

    model: Model
    dataset: Dataset
    splits: dict[str, Batch]
    share: np.ndarray
    keys: jax.Array
    networks: train.Networks
    logits: dict[str, jax.Array]
    outcomes: dict[str, constraints.Outcomes]
    batch_size: int
    steps: int
    batches: dict[str, tuple[Callable[[Key, Any], jax.Array], jax.Array]]

    def labels(self, seed: int) -> dict[str, np.ndarray]:
        """What a dense network predicts on each split."""
        return {which: np.asarray(z[seed]).argmax(-1) for which, z in self.logits.items()}

    def thresholded(
        self,
        seed: int,
        logits: Mapping[str, np.ndarray],
        known: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Predictions of a binary network with one threshold per group, chosen on validation.

        Args:
          seed: of the dense network, whose accuracies are to be met.
          logits: of each split, ``[N, 2]``.
          known: of each split ``[N]``, the groups that are known at test time.

        Returns:
          Labels of each split; see :func:`jaxfair.metrics.cell_thresholds`.
        """
        which, batch = "validation", self.dataset.validation
        if not len(batch.y):
            raise ValueError(f"{self.dataset.name} has no validation split, on which thresholds are chosen: add one")
        margins = {w: z[:, 1] - z[:, 0] for w, z in logits.items()}
        dense = np.asarray(self.outcomes[which].correct[seed]) > 0
        threshold = metrics.cell_thresholds(
            margins[which], np.asarray(batch.y), dense, np.asarray(batch.group), np.asarray(known[which]),
            max(int(np.max(g)) for g in known.values()) + 1,
        )  # fmt: skip
        return {w: (m > threshold[np.asarray(known[w])]).astype(np.int64) for w, m in margins.items()}

    def judged(
        self, seed: int, labels: Mapping[str, np.ndarray], tolerance: float, *, ok: bool = True
    ) -> dict[str, dict[str, Any]]:
        """What a network did on each split, beside the dense one that it was made from.

        Args:
          seed: of the dense network.
          labels: of each split ``[N]`` classes.
          tolerance: on the excess accuracy gap.
          ok: whether its training came to an end; otherwise its numbers are nan.

        Returns:
          For each split ``accuracy``, the largest excess gap ``gap`` (``gap_large``: over groups of at least 200),
          the ``violation``; on train what the gap would be ``by_chance``, if everybody who changed had flipped a coin;
          ``both``: whether every group of 100 has more than one prediction; and of at most 12 groups all gaps, ``psi``.
          Groups are weighed by their share of the training split everywhere.
        """
        result, num_groups = {}, self.dataset.num_groups
        for which, predicted in labels.items():
            batch = getattr(self.dataset, which)
            group, right = np.asarray(batch.group), predicted == np.asarray(batch.y)
            dense = np.asarray(self.outcomes[which].correct[seed]) > 0
            sizes = np.bincount(group, minlength=num_groups)
            gaps = metrics.accuracy_gaps(dense, right, group, num_groups, share=self.share).excess
            some, large = sizes > 0, np.asarray(gaps)[sizes >= 200]
            among = self.share[some] / self.share[some].sum()
            numbers = {
                "accuracy": among @ (np.bincount(group, right, num_groups)[some] / sizes[some]),
                "gap": metrics.max_excess_accuracy_gap(gaps),
                "violation": metrics.violation(gaps, tolerance, sizes),
                "gap_large": large.max() if len(large) else math.nan,
            }
            if which == "train":
                key, null = self.keys[seed], metrics.sign_flip_null
                flipped = null(dense, right, group, num_groups, key=key, permutations=200)
                numbers["by_chance"] = flipped.mean
            found: dict[str, Any] = {k: float(v) if ok else math.nan for k, v in numbers.items()}
            many = np.flatnonzero(sizes >= 100)
            found["both"] = all(len({*predicted[group == g]}) > 1 for g in many)
            if num_groups <= 12:
                found["psi"] = np.round(np.asarray(gaps, np.float64), 6).tolist()
            result[which] = found
        return result


def base(
    model: Model,
    dataset: Dataset,
    *,
    keys: Key,
    batch_size: int,
    epochs: int = 20,
    patience: int = 2,
    tx: optax.GradientTransformation | None = None,
    file: str | os.PathLike[str] | None = None,
) -> Base:
    """Trains a dense network per key, or reads them, and looks at what they do.

    Args:
      model: the network.
      dataset: the data. Without a validation split, the last networks are kept.
      keys: ``[S]``.
      batch_size: B, at most the training split.
      epochs: at most, of the dense networks.
      patience: as of :func:`jaxfair.train.dense`.
      tx: their optimizer; Adam by default.
      file: as of :func:`jaxfair.train.dense`.

    Example:
      >>> from jaxfair import data, models
      >>> found = base(models.mlp(10, hidden=(16,)), data.load("digits"), keys=jax.random.split(jax.random.key(0), 2),
      ...              batch_size=126, epochs=2)
      >>> found.logits["test"].shape, found.judged(0, found.labels(0), 0.01)["test"]["gap"]
      ((2, 358, 10), 0.0)
    """
    check_model(model, dataset)
    group = np.asarray(dataset.train.group)
    size, num_groups = min(batch_size, len(group)), dataset.num_groups
    steps = train.steps_per_epoch(len(group), size)
    found = train.dense(
        model, dataset.train, dataset.validation if len(dataset.validation.y) else None, tx, keys=keys, epochs=epochs,
        patience=patience, batch_size=size, file=file,
    )  # fmt: skip
    splits = {which: jax.tree.map(jnp.asarray, b) for which, b in dataset.splits.items() if len(b.y)}
    forward = jax.jit(jax.vmap(train.make_logits(model.apply), (0, 0, None)))
    logits = {w: forward(found.params, found.model_state, b.x) for w, b in splits.items()}
    outcomes = jax.vmap(constraints.outcomes, (0, None))

    def order(key: Key, epoch: Any, *, power: float | None) -> jax.Array:
        if power is None:
            key = jax.random.fold_in(key, 1)
            return train.epoch_order(key, epoch, num_examples=len(group), batch_size=size, num_steps=steps)
        return train.balanced_order(
            jax.random.fold_in(key, 2), epoch, group=group, num_groups=num_groups, batch_size=size,
            num_steps=steps, power=power,
        )  # fmt: skip

    def weight(power: float | None) -> jax.Array:
        own = jnp.asarray(dataset.train.weight, jnp.float32)
        if power is None:
            return own
        return own * jnp.asarray(train.balanced_weights(group, num_groups, size, power=power))

    return Base(
        model=model, dataset=dataset, splits=splits, keys=keys, batch_size=size, steps=steps, logits=logits,
        networks=train.Networks(found.params, found.model_state),
        share=np.bincount(group, minlength=num_groups) / len(group),
        outcomes={which: outcomes(z, splits[which].y) for which, z in logits.items()},
        batches={kind: (partial(order, power=power), weight(power)) for kind, power in BATCHES.items()},
    )  # fmt: skip
