r"""Rounding that is chosen, for whole networks: kernels of dense layers by second order, and under a bound on groups.

Of each layer the Gram matrices of its inputs are taken over the training split, group by group, in the network as it
was. Candidates are the nearest levels, GPTQ for everybody, and with a bound GPTQ under which the outputs of no group
that is bounded lose more a person than so many times what everybody's do. They are judged as iterates are: the most
accurate that meets the bound on the training split is taken, else the one that exceeds it least.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import quant, sparsity, tree
from jaxfair.data import Dataset
from jaxfair.recipes._delivery import How
from jaxfair.recipes._judged import judge
from jaxfair.recipes._networks import Networks
from jaxfair.typing import Model, Params

#: How many times everybody's loss a person, at the outputs of a layer, a bounded group may have.
SHARES = (2.0, 1.0)


def check_dense(params: Params, quantized: Callable[[str], bool]) -> None:
    """Raises for what is no kernel of a dense layer, from shapes alone.

    Example:
      >>> check_dense({"Conv_0": {"kernel": np.zeros((3, 3, 1, 4))}}, lambda path: True)
      Traceback (most recent call last):
      ...
      ValueError: Conv_0/kernel of shape (3, 3, 1, 4): method='rounding' is for kernels [n, out] of dense layers; choose
      'ptq' or 'qat', or leave it out (quantized=).
    """
    for path, leaf in zip(tree.paths(params), jax.tree.leaves(params), strict=True):
        if quantized(path) and len(leaf.shape) != 2:
            raise ValueError(
                f"{path} of shape {leaf.shape}: method='rounding' is for kernels [n, out] of dense layers; choose "
                "'ptq' or 'qat', or leave it out (quantized=)."
            )


def rounded(
    model: Model, dataset: Dataset, begun: Networks, networks: Networks, how: How, *, grids: Callable[[Params], Any],
    quantized: Callable[[str], bool], predict: Callable[[Networks], Any], batch_size: int,
) -> Networks:  # fmt: skip
    """The networks with every layer rounded; ``iterates`` has each candidate.

    Args:
      model: the network.
      dataset: whose training split the inputs, and the bound, are of.
      begun: the networks, with zeros where they are pruned.
      networks: those that what a group loses is counted from.
      how: the bound, and by which tolerance it is judged.
      grids: of one network.
      quantized: which leaves.
      predict: ``[S, N]``, of the training split.
      batch_size: examples per forward pass.
    """
    bounded = how.tolerance is not None or how.bound.violation is not None
    # A tolerance alone says which is delivered; what is rounded as usual has no candidates under a bound.
    shares = () if how.bound.tolerance is None and how.bound.violation is None else SHARES
    gram_of, round_of = _compiled(model, dataset, grids, quantized, shares)
    found = []
    for place in range(len(begun)):
        params, state = jax.tree.map(lambda a, i=place: jnp.asarray(a)[i], (begun.params, begun.model_state))
        grams, people = _summed(gram_of, params, state, dataset, batch_size)
        found.append(round_of(params, grams, people))
    lanes = {
        name: dataclasses.replace(begun, params=params, grids=of)
        for name, (params, of) in jax.tree.map(lambda *a: jnp.stack(a), *found).items()
    }
    if not bounded:
        return dataclasses.replace(lanes["gptq"], iterates=lanes)
    before = np.asarray(predict(networks))
    labels = {name: np.asarray(predict(one)) for name, one in lanes.items()}

    def best(place: int) -> int:
        judged = [judge(dataset, before[place], of[place], how.bound, how.tolerance) for of in labels.values()]
        over = np.nan_to_num(np.array([one.over for one in judged], float), nan=np.inf)
        met = np.flatnonzero(over <= 0)
        return int(met[np.argmax([judged[i].accuracy for i in met])] if len(met) else np.argmin(over))

    which, rows = np.array([best(place) for place in range(len(begun))]), [*lanes.values()]
    params, of = jax.tree.map(
        lambda *leaves: jnp.stack([leaves[which[i]][i] for i in range(len(begun))]),
        *[(one.params, one.grids) for one in rows],
    )
    return dataclasses.replace(begun, params=params, grids=of, iterates=lanes)


def _compiled(
    model: Model, dataset: Dataset, grids: Any, quantized: Callable[[str], bool], shares: tuple[float, ...]
) -> tuple[Any, Any]:
    """The Gram matrices of a batch, and the candidates from those of all; of one network."""
    constrained, num_groups = jnp.asarray(dataset.constrained), dataset.num_groups

    @jax.jit
    def gram_of(params: Params, state: Any, x: Any, group: Any) -> dict[str, Any]:
        def forward(p: Params) -> Any:
            return model.apply(p, state, x, train=False)[0]

        return sparsity.input_grams(forward, params, prunable=quantized, group=group, num_groups=num_groups)

    @jax.jit
    def round_of(params: Params, grams: dict[str, Any], people: Any) -> dict[str, Any]:
        own, share = grids(params), people / jnp.sum(people)
        nearest = quant.quantize_params(params, own)
        made = {name: [*jax.tree.leaves(nearest)] for name in ("nearest", "gptq", *map(_named, shares))}
        flat = jax.tree.leaves(own, is_leaf=lambda node: isinstance(node, quant.Grid))
        for place, (path, leaf) in enumerate(zip(tree.paths(params), jax.tree.leaves(params), strict=True)):
            if path not in grams:
                continue
            gram = grams[path] / jnp.sum(people)  # of a person
            made["gptq"][place] = quant.round_layer(leaf, gram.sum(0), flat[place])
            all_lose = quant.layer_loss(leaf, made["gptq"][place], gram).sum()
            for times in shares:
                # Of a group's sum: its share of the people, times what a person may lose.
                limit = jnp.where(constrained & (share > 0), times * share * jnp.maximum(all_lose, 1e-30), jnp.inf)
                made[_named(times)][place] = quant.round_groups(leaf, gram, flat[place], limit).weights
        treedef = jax.tree.structure(params)
        return {name: (jax.tree.unflatten(treedef, leaves), own) for name, leaves in made.items()}

    return gram_of, round_of


def _named(times: float) -> str:
    return f"groups at most {times:g} times everybody"


def _summed(gram_of: Any, params: Params, state: Any, dataset: Dataset, batch_size: int) -> tuple[Any, Any]:
    """Gram matrices of the whole training split, and the people of each group in them."""
    split = dataset.train
    num = len(split.y)
    # Who counts nothing is of no group, as is what fills up the last batch.
    group = np.where(np.asarray(split.weight) > 0, np.asarray(split.group), -1)
    size, total = min(batch_size, num), None
    for start in range(0, num, size):
        x, of = np.asarray(split.x[start : start + size]), group[start : start + size]
        short = size - len(of)
        x = np.pad(x, [(0, short), *[(0, 0)] * (x.ndim - 1)])
        found = gram_of(params, state, x, np.pad(of, (0, short), constant_values=-1))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    return total, jnp.bincount(jnp.asarray(group[group >= 0]), length=dataset.num_groups).astype(jnp.float32)
