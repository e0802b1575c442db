"""A bound does no harm: where naive fine-tuning of the same seed is better in everything, its network is delivered.

Training under a bound may fail at it, and cost accuracy all the same: multipliers of a small group pull the weights to
where nobody is served. Of a seed, let ``v`` be by how much a network exceeds the bound on the training split (the
number by which the bound's own delivery chooses: the largest gap less what is allowed), and ``a`` its accuracy there.
With b the network of training under the bound and n that of naive fine-tuning, n is delivered in the place of b where::

    v(n) < v(b)  and  a(n) > a(b)                or b failed and n did not

Both are strict: equal is not worse. So what is delivered is never worse than n in both, and a bound that b meets is met
by what is delivered.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import tree
from jaxfair.data import Dataset
from jaxfair.recipes._bounds import Bound
from jaxfair.recipes._judged import judge
from jaxfair.recipes._networks import Networks


def no_worse(
    bounded: Networks,
    naive: Networks,
    dense: Networks,
    dataset: Dataset,
    *,
    bound: Bound,
    tolerance: Any = None,
    predict: Callable[[Networks], Any] | None = None,
) -> Networks:
    """Networks of which none is worse than that of naive fine-tuning in both gap and accuracy on the training split.

    :func:`prune` does this by itself where it is given ``naive=``. Nothing is trained here, and nobody but the training
    split is looked at.

    Args:
      bounded: trained under the bound.
      naive: of the same seeds, trained without, and delivered by the same rule: :func:`prune` of the same call without
        the bound, with its ``tolerance``.
      dense: that both came from.
      dataset: whose training split they are compared on.
      bound: that was trained for; it says which number is compared.
      tolerance: on the gap that the bound is on; the bound's own by default.
      predict: ``predict(networks) -> [S, N]`` classes of the training split; the networks' own by default.

    Returns:
      ``bounded``, where it is worse with weights, masks, ``epoch``, ``averaged`` and ``failed_at`` of ``naive``.
      ``.naive`` says where, and ``.iterates["bounded"]`` is what was given.

    Raises:
      ValueError: for networks of other seeds or shapes, and for a bound without a tolerance.

    Example:
      A network that answers 1 to everybody, where naive fine-tuning is right about everybody:

      >>> from jaxfair import data, models, recipes
      >>> mine = data.dataset(np.eye(2)[[0, 1] * 10], [0, 1] * 10, ["a", "b"] * 10, split=["train"] * 20)
      >>> model = models.mlp(2, hidden=())
      >>> def answers(kernel):
      ...     return recipes.networks({"Dense_0": {"kernel": np.array(kernel), "bias": np.zeros(2)}}, model=model)
      >>> right, one = answers([[1.0, 0.0], [0.0, 1.0]]), answers([[0.0, 1.0], [0.0, 1.0]])
      >>> found = no_worse(one, right, right, mine, bound=recipes.ceag(0.01))
      >>> found.naive, found.params["Dense_0"]["kernel"][0].tolist()
      (array([ True]), [[1.0, 0.0], [0.0, 1.0]])
      >>> no_worse(right, one, right, mine, bound=recipes.ceag(0.01)).naive
      array([False])
    """
    check_naive(naive, bounded)
    check_naive(dense, bounded, what="dense")
    limit = bound.tolerance if tolerance is None else tolerance
    if limit is None and bound.violation is None:
        raise ValueError(f"{bound.name} has no tolerance, so neither network is worse: give tolerance=.")
    ask = predict or (lambda networks: networks.predict(dataset.train))
    before, ours, theirs = (np.asarray(ask(networks)) for networks in (dense, bounded, naive))

    def worse(place: int) -> bool:
        if naive.failed_at[place] >= 0 or dense.failed_at[place] >= 0:
            return False
        if bounded.failed_at[place] >= 0:
            return True
        b, n = (judge(dataset, before[place], label[place], bound, limit) for label in (ours, theirs))
        return bool(b.over is not None and n.over is not None and n.over < b.over and n.accuracy > b.accuracy)

    instead = np.array([worse(place) for place in range(len(bounded))], bool)
    kept = bounded.iterates.get("bounded", dataclasses.replace(bounded, iterates={}, history=(), seconds=0.0))
    found = dataclasses.replace(
        bounded, naive=bounded.naive | instead, iterates={**bounded.iterates, "bounded": kept}
    )  # fmt: skip
    return _with(found, naive, instead) if instead.any() else found


def check_naive(naive: Networks, others: Networks, *, what: str = "naive") -> None:
    """Raises for networks that are not of the seeds and shapes of others."""
    if tuple(naive.seeds) != tuple(others.seeds):
        raise ValueError(f"{what} has the seeds {[*naive.seeds]} and not {[*others.seeds]}: give networks of the same.")
    shapes = [jax.tree.map(jnp.shape, (of.params, of.model_state)) for of in (naive, others)]
    if jax.tree.structure(naive.params) != jax.tree.structure(others.params) or shapes[0] != shapes[1]:
        raise ValueError(f"{what} has parameters of other names or shapes: give networks of the same model.")


def _with(bounded: Networks, naive: Networks, instead: np.ndarray) -> Networks:
    """The networks, with those of naive fine-tuning in these places."""

    def masks(of: Networks) -> Any:
        return jax.tree.map(lambda leaf: np.ones(len(of), bool), of.params) if of.masks is None else of.masks

    return dataclasses.replace(
        bounded,
        params=tree.by_lane(instead, naive.params, bounded.params),
        model_state=tree.by_lane(instead, naive.model_state, bounded.model_state),
        masks=tree.by_lane(instead, masks(naive), masks(bounded)),
        grids=None if bounded.grids is None else tree.by_lane(instead, naive.grids, bounded.grids),
        epoch=np.where(instead, naive.epoch, bounded.epoch),
        averaged=np.where(instead, naive.averaged, bounded.averaged),
        failed_at=np.where(instead, naive.failed_at, bounded.failed_at),
    )


def said_naive(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each method of whose networks some are those of naive fine-tuning; none where there is none.

    Args:
      rows: of :func:`worth`.

    Example:
      >>> row = {"method": "ceag", "seed": 0, "naive": False}
      >>> said_naive([row])
      []
      >>> print(*said_naive([row, row | {"seed": 3, "naive": True}]))
      ceag: in 1 of 2 seeds (3) the network pruned as usual is delivered, since training under the bound made it worse
      on train in both the largest gap and accuracy, or failed
    """
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of = [row for row in rows if row["method"] == method]
        instead = [str(row["seed"]) for row in of if row.get("naive")]
        if instead:
            lines.append(
                f"{method}: in {len(instead)} of {len(of)} seeds ({', '.join(instead)}) the network pruned as usual is "
                "delivered, since training under the bound made it worse on train in both the largest gap and "
                "accuracy, or failed"
            )
    return lines
