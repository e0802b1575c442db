"""Networks that a recipe takes and gives: a row of them, one for each seed, and how they came about."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import __version__, quant, sparsity, train
from jaxfair.data import Dataset
from jaxfair.typing import Batch, Model, ModelState, Params


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Networks:
    """A row of networks, one for each seed; made by the recipes, and by :func:`networks`.

    Attributes:
      params: parameters, every leaf ``[S, ...]``.
      model_state: model states, likewise; ``{}`` where there is none.
      masks: ``[S, ...]``, True = kept; None for networks that were not pruned.
      grids: ``[S, ...]``, a `jaxfair.quant.Grid` for each leaf of networks that are quantised (:func:`quantize`), on
        whose levels their parameters are; None for others.
      model: behind which they run; None of :func:`networks` without one.
      seeds: which; the key of a seed is folded from the recipe's by its number.
      epoch: ``[S]``, after which each was taken; -1 for a network of your own.
      averaged: ``[S]`` bool, whether it is a moving average of iterates.
      failed_at: ``[S]``, the step whose loss was not finite, at which training stopped; -1 where there was none.
      naive: ``[S]`` bool, in whose place the network of naive fine-tuning is delivered, since what training under the
        bound would have delivered is worse (:func:`no_worse`).
      iterates: other choices from the same training, by name: ``last`` is the last iterate, ``stopped`` the one with
        the best accuracy on the split that was selected on (the last, where that has nobody), ``bounded`` what training
        under the bound would have delivered, where naive networks were given.
      history: a dict for each epoch and seed: loss, gaps, multipliers, ...; of training under the bound, also where a
        naive network is delivered.
      seconds: of training, all seeds together.

    Example:
      >>> mine = networks({"kernel": np.ones((3, 2))})
      >>> mine
      Networks(1 network of 6 parameters)
      >>> mine.params["kernel"].shape
      (1, 3, 2)
    """

    params: Params
    model_state: ModelState
    masks: Any = None
    grids: Any = None
    model: Model | None = None
    seeds: tuple[int, ...] = (0,)
    epoch: np.ndarray = dataclasses.field(default_factory=lambda: np.full(1, -1))
    averaged: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1, bool))
    failed_at: np.ndarray = dataclasses.field(default_factory=lambda: np.full(1, -1))
    naive: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))
    iterates: Mapping[str, "Networks"] = dataclasses.field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.naive):  # of those that nobody replaced
            object.__setattr__(self, "naive", np.zeros(len(self.seeds), bool))

    def __len__(self) -> int:
        return len(self.seeds)

    def __repr__(self) -> str:
        one = sum(leaf[0].size for leaf in jax.tree.leaves(self.params))
        kind = f"network{'' if len(self) == 1 else 's'} of {one:,} parameters"
        if self.masks is None:
            return f"Networks({len(self)} {kind})"
        zeros = sum(int((np.asarray(leaf[0]) == 0).sum()) for leaf in jax.tree.leaves(self.params))
        naive = f"; {self.naive.sum()} by naive fine-tuning" if self.naive.any() else ""
        return f"Networks({len(self)} {kind}, {zeros:,} of them 0{naive})"

    def take(self, seeds: Sequence[int]) -> "Networks":
        """Some of the networks, by their places.

        Args:
          seeds: places in the row.
        """
        at = np.asarray(seeds, int)

        def some(tree: Any) -> Any:
            return jax.tree.map(lambda a: a[at], tree)

        return dataclasses.replace(
            self,
            params=some(self.params),
            model_state=some(self.model_state),
            masks=None if self.masks is None else some(self.masks),
            grids=None if self.grids is None else some(self.grids),
            seeds=tuple(self.seeds[i] for i in at),
            epoch=self.epoch[at],
            averaged=self.averaged[at],
            failed_at=self.failed_at[at],
            naive=self.naive[at],
            iterates={name: other.take(seeds) for name, other in self.iterates.items()},
            history=[row for row in self.history if row["seed"] in {self.seeds[i] for i in at}],
        )

    def predict(self, split: Batch, *, model: Model | None = None, batch_size: int = 2048) -> np.ndarray:
        """``[S, N]`` predicted classes of a split, -1 of a network that has diverged.

        Args:
          split: such as ``dataset.test``.
          model: where the networks know none.
          batch_size: examples per forward pass.
        """
        model = self.model if model is None else model
        if model is None:
            raise ValueError("these networks know no model: give model=.")
        predict = _predictor(model.apply, train.plan(model, split), batch_size)
        return np.asarray(predict(self.params, self.model_state, split).label)

    def predictions(self, dataset: Dataset, **options: Any) -> dict[str, np.ndarray]:
        """Split -> ``[S, N]``, as :meth:`predict`, of the splits that have somebody."""
        return {name: self.predict(split, **options) for name, split in dataset.splits.items() if len(split.y)}

    def save(
        self,
        folder: str | os.PathLike[str],
        name: str = "network",
        *,
        facts: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    ) -> list[pathlib.Path]:
        """Writes ``<name>_seed<number>.safetensors`` for each seed, for `jaxfair.sparsity.load`.

        Networks with ``grids`` are written as their levels, packed to bits, for `jaxfair.quant.load`.

        Args:
          folder: is made where it is missing.
          name: how the files begin.
          facts: what is to be known of the networks, for all of them or one mapping each: it stands as strings in the
            file's metadata, beside ``method``, ``seed``, ``epoch``, ``averaged``, ``naive`` and the version of
            ``jaxfair``.

        Returns:
          The paths.

        Raises:
          ValueError: for another number of facts than of networks.
        """
        folder, paths = pathlib.Path(folder), []
        masks = self.masks
        if masks is None:
            masks = jax.tree.map(lambda leaf: np.ones(len(self), bool), self.params)
        known = [facts] * len(self) if isinstance(facts, Mapping) else list(facts) or [{}] * len(self)
        if len(known) != len(self):
            raise ValueError(f"facts of {len(known)} networks for {len(self)}: give one mapping each, or one for all.")
        for i, seed in enumerate(self.seeds):
            paths.append(folder / file_of(name, seed))
            one = [
                jax.tree.map(lambda a, i=i: np.asarray(a[i]), tree) for tree in (self.params, self.model_state, masks)
            ]
            own = {"method": name, "seed": seed, "epoch": self.epoch[i], "averaged": self.averaged[i]}
            told = {**own, "naive": self.naive[i], "jaxfair": __version__, **known[i]}
            known_of_it = {k: "" if v is None else str(v) for k, v in told.items()}
            if self.grids is None:
                sparsity.save(paths[-1], *one, metadata=known_of_it)
            else:
                grids = jax.tree.map(lambda a, i=i: np.asarray(a[i]), self.grids)
                quant.save(paths[-1], one[0], grids, state=one[1], metadata=known_of_it)
        return paths

    def digest(self) -> str:
        """A hash of all weights and masks: two rows with one hash are the same networks."""
        content = hashlib.sha256()
        for leaf in jax.tree.leaves((self.params, self.model_state, self.masks)):
            content.update(np.ascontiguousarray(leaf).tobytes())
        return content.hexdigest()[:16]


def file_of(name: str, seed: int) -> str:
    """The file of a network."""
    return f"{name}_seed{seed}.safetensors"


@functools.lru_cache(maxsize=16)
def _predictor(apply: Any, plan: train.Plan, batch_size: int) -> Any:
    """Compiled once for networks of a model, dense and pruned, and for splits of a size."""
    return train.predictor(apply, plan, batch_size=batch_size)


def networks(
    params: Params,
    state: ModelState | None = None,
    *,
    masks: Any = None,
    model: Model | None = None,
    several: bool = False,
) -> Networks:
    """Networks of your own, for :func:`prune` and :func:`jaxfair.audit.compare`, however they were trained.

    Args:
      params: parameters, as ``model.apply`` takes them.
      state: the model's state, such as BatchNorm statistics.
      masks: True = kept, of networks that are pruned already, as `jaxfair.sparsity.load` gives them; they stay so.
      model: behind which they run.
      several: whether there are several networks side by side, so that every leaf is ``[S, ...]``.

    Raises:
      ValueError: without a parameter, for several networks whose leaves differ in their number, or for masks of others.

    Example:
      >>> networks({"w": np.ones((4, 3))}, several=True)
      Networks(4 networks of 3 parameters)
    """
    both = params, {} if state is None else state
    leaves = jax.tree.leaves(both)
    if not jax.tree.leaves(params):
        raise ValueError("these networks have no parameters: give a tree of arrays.")
    if not several:
        both = jax.tree.map(lambda a: jnp.asarray(a)[None], both)
        count = 1
    else:
        counts = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in leaves}
        if len(counts) > 1 or counts == {0}:
            raise ValueError(
                f"several=True with leaves of {', '.join(map(str, sorted(counts)))} networks: the first axis of every "
                "leaf is that of the networks, so its length is one and the same."
            )
        count = counts.pop()
        both = jax.tree.map(jnp.asarray, both)
    if masks is not None:
        masks = jax.tree.map(lambda m: jnp.asarray(m, bool) if several else jnp.asarray(m, bool)[None], masks)
        jax.vmap(sparsity.apply_masks)(both[0], masks)  # says whether they fit
    return Networks(
        params=both[0],
        model_state=both[1],
        masks=masks,
        model=model,
        seeds=tuple(range(count)),
        epoch=np.full(count, -1),
        averaged=np.zeros(count, bool),
        failed_at=np.full(count, -1),
    )
