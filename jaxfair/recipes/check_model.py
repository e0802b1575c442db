"""Whether a network fits data, found by its shapes: in a moment, and before anything is trained."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import tree
from jaxfair.data import Dataset
from jaxfair.typing import Model

#: Examples of the batch that shapes are tried on: no number of classes by accident, and no broadcast.
_BATCH = 3
_GREY = "convolutions take images [N, H, W, C]: a grey one is x[..., None]"


class ModelError(ValueError):
    """A network that cannot be trained on these data: one line says what is wrong and what to do.

    Example:
      >>> from jaxfair import data, models
      >>> try:
      ...     check_model(models.mlp(1), data.load("digits"))
      ... except ModelError as error:
      ...     print(error)
      the network gives logits [3, 1] of 3 examples: make it [3, 10], a logit for each of the 10 classes
    """


def check_model(
    model: Model | Any, dataset: Dataset, *, pruned: bool = False, saved: bool = False, networks: Any = None
) -> None:
    """Raises where a network cannot be trained on these data; by shapes alone but for examples ``[H, W]``.

    Args:
      model: the network.
      dataset: the data.
      pruned: whether weights are to be removed from it: then some must be prunable.
      saved: whether it is to be written by :meth:`Networks.save`: then its parameters and its state are nested dicts.
      networks: ``(params, model_state)`` of one that is there already, maybe abstract; else of ``model.init``.

    Raises:
      ModelError: for logits that are no ``[B, C]`` of floats, parameters that have no gradient, a state that changes
        its shape, examples that the network does not take, or nothing that may be pruned.

    Example:
      >>> from jaxfair import data, models
      >>> check_model(models.mlp(10), data.load("digits"), pruned=True)     # all is well
      >>> check_model(models.mlp(10, hidden=()), data.load("digits"), pruned=True)
      Traceback (most recent call last):
        ...
      jaxfair.recipes.check_model.ModelError: nothing of the network may be pruned: prunable() says no to all of
      Dense_0/bias, Dense_0/kernel; ...
    """
    if not all(callable(getattr(model, name, None)) for name in ("init", "apply", "prunable")):
        raise ModelError(
            f"a {type(model).__name__} is no Model: put it behind jaxfair.models.linen, .nnx, or a Model of functions"
        )
    shape, classes = dataset.train.x.shape[1:], dataset.num_classes
    x, one = (jax.ShapeDtypeStruct((size, *shape), jnp.float32) for size in (_BATCH, 1))
    key = jax.eval_shape(lambda: jax.random.key(0))
    if networks is None:
        networks = _pair(_tried(model.init, shape, "init", key, one), "init", "(params, state)")
    params, state = networks
    _check_params(params)
    for train in (False, True):
        keys = {"key": key} if train else {}

        def apply(params: Any, state: Any, x: Any, keys: Any, train: bool = train) -> Any:
            return model.apply(params, state, x, train=train, **keys)

        named = f"apply(..., train={train})"
        logits, after = _pair(_tried(apply, shape, named, params, state, x, keys), named, "(logits, state)")
        _check_logits(logits, classes)
        if _shapes(after) != _shapes(state):
            raise ModelError(
                f"{named} gives a state of another structure or shape than init: give back all of what it was given"
            )
    if len(shape) == 2:
        _check_apart(model, params, state, shape)
    if pruned:
        _check_prunable(model.prunable, params)
    if saved:
        _check_names({"params": params, "state": state})


def check_finite(params: Any, seeds: Sequence[int], sound: Any = True) -> None:
    """Raises where parameters ``[S, ...]`` that training begins with are nan or infinite.

    Example:
      >>> check_finite({"kernel": jnp.array([[0.0, jnp.nan]])}, [3])
      Traceback (most recent call last):
        ...
      jaxfair.recipes.check_model.ModelError: kernel of seed 3 has nan or infinity before the first step: ...
    """
    asked = np.broadcast_to(sound, len(seeds))
    for path, leaf in zip(tree.paths(params), jax.tree.leaves(params), strict=True):
        finite = np.isfinite(np.asarray(leaf)).reshape(len(seeds), -1).all(axis=1)
        for seed in np.asarray(seeds)[asked & ~finite].tolist():
            raise ModelError(
                f"{path} of seed {seed} has nan or infinity before the first step: see how it is initialised or read"
            )


def _tried(function: Callable[..., Any], shape: tuple[int, ...], named: str, *args: Any) -> Any:
    try:
        return jax.eval_shape(function, *args)
    except Exception as error:
        said = " ".join(str(error).split())
        said = said[:200] + ("..." if len(said) > 200 else "")
        grey = len(shape) == 2
        hint = f"; {_GREY}" if grey else ""
        raise ModelError(
            f"the network's {named} fails on examples of shape {list(shape)}{hint} ({type(error).__name__}: {said})"
        ) from error


def _pair(found: Any, named: str, what: str) -> tuple[Any, Any]:
    if not isinstance(found, tuple) or len(found) != 2 or hasattr(found, "_fields"):
        raise ModelError(f"the network's {named} gives a {type(found).__name__}, not the pair {what}: see Model")
    return found


def _check_params(params: Any) -> None:
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ModelError("the network has no parameters: init gives (params, state), and params is a tree of arrays")
    for path, leaf in zip(tree.paths(params), leaves, strict=True):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ModelError(
                f"{path} is {jnp.result_type(leaf)}, which has no gradient: keep in params what is trained, as floats, "
                "and the rest in the state"
            )


def _check_logits(logits: Any, classes: int) -> None:
    wanted = f"[{_BATCH}, {classes}], a logit for each of the {classes} classes"
    if not hasattr(logits, "shape"):
        raise ModelError(f"the network gives a {type(logits).__name__} in place of logits: make it {wanted}")
    if logits.shape != (_BATCH, classes):
        raise ModelError(f"the network gives logits {list(logits.shape)} of {_BATCH} examples: make it {wanted}")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ModelError(f"the network gives logits of {logits.dtype}: make them floats, before any argmax")


def _check_apart(model: Model, params: Any, state: Any, shape: tuple[int, ...]) -> None:
    """A convolution takes a batch of grey images for one image, and no shape tells: its logits do."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params)
    state = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), state)
    x = jnp.asarray(rng.normal(size=(_BATCH, *shape)), jnp.float32)
    forward = jax.jit(lambda x: model.apply(params, state, x, train=False)[0][0])
    both = [np.asarray(forward(of), np.float64) for of in (x, x.at[1:].set(0))]
    if not np.allclose(*both, rtol=1e-2, equal_nan=True):
        raise ModelError(
            f"the network mixes examples of shape {list(shape)}, as the logits of one change with the others: {_GREY}"
        )


def _check_prunable(prunable: Callable[[str], bool], params: Any) -> None:
    paths = tree.paths(params)
    try:
        chosen = [path for path in paths if prunable(path)]
    except Exception as error:
        raise ModelError(
            f"prunable({paths[0]!r}) fails ({type(error).__name__}: {error}): it is given a path"
        ) from error
    sizes = dict(zip(paths, (int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)), strict=True))
    if not any(sizes[path] > 1 for path in chosen):
        some = ", ".join(paths[:8]) + (", ..." if len(paths) > 8 else "")
        raise ModelError(
            f"nothing of the network may be pruned: prunable() says no to all of {some}; let it say yes to the kernels "
            "of hidden layers"
        )


def _check_names(trees: Any) -> None:
    for keys, _ in jax.tree_util.tree_leaves_with_path(trees):
        for key in keys:
            name = getattr(key, "key", None)
            if not isinstance(name, str) or not name or "/" in name:
                raise ModelError(
                    f"{jax.tree_util.keystr(keys)} cannot be written to a file, which has nested dicts with names "
                    "without '/': name the parameters so"
                )


def _shapes(state: Any) -> Any:
    leaves, structure = jax.tree.flatten(state)
    return structure, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
