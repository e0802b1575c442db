"""A Flax NNX module as a `Model`.

An NNX module holds its own parameters; a `Model` is pure functions of them. The module is made once, abstractly, and
split into its graph, its parameters and the rest; ``apply`` merges them again inside, so that nothing is shared between
two calls, and whatever jits, vmaps or masks a tree of parameters works.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.typing import Model, Split

#: Words by which a module may be told whether it trains, and what they are in training.
MODES = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}


def nnx(make: Callable[..., Any], *, prunable: Callable[[str], bool], head: str | None = None) -> Model:
    """Puts an NNX module behind the seam that the library sees.

    Args:
      make: ``make(rngs=nnx.Rngs(...)) -> module``, such as the module's class; ``functools.partial`` sets the rest. The
        module's ``__call__(x)``, or one with a word of :data:`MODES` such as ``train=``, gives the logits ``[B, C]``.
        In training ``BatchNorm`` takes the statistics of the batch and ``Dropout`` drops; otherwise neither does.
      prunable: which leaves of the parameters may be pruned, from a path such as ``"hidden/kernel"``: the names are
        those of the module's attributes.
      head: the path of the last layer, such as ``"last"`` or ``"net/last"``, whose output, as float32, is the logits.
        The model is then cut before it (``split``).

    Returns:
      The `Model`. Its params are a plain dict of the module's ``nnx.Param``; its state is one of its other variables,
      such as ``{"norm": {"mean": ..., "var": ...}}``, or ``{}``. Keys of random streams are in neither: they are made
      from the ``key`` of each call.

    Raises:
      ValueError: in ``apply`` with ``train=True`` and no key, if the module draws random numbers; in ``init``, for an
        array of the module that is no ``nnx.Variable``; and for a ``head`` that is no layer, or is not called once.

    Example:
      >>> from flax import nnx as flax_nnx
      >>> class Net(flax_nnx.Module):
      ...     def __init__(self, num_features, num_classes, *, rngs):
      ...         self.hidden = flax_nnx.Linear(num_features, 16, rngs=rngs)
      ...         self.norm = flax_nnx.BatchNorm(16, rngs=rngs)
      ...         self.drop = flax_nnx.Dropout(0.1, rngs=rngs)
      ...         self.last = flax_nnx.Linear(16, num_classes, rngs=rngs)
      ...     def __call__(self, x):
      ...         return self.last(self.drop(jax.nn.relu(self.norm(self.hidden(x)))))
      >>> import functools
      >>> model = nnx(functools.partial(Net, 3, 2), prunable=lambda path: path == "hidden/kernel")
      >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
      >>> jax.tree.map(jnp.shape, params["last"]), sorted(state["norm"])
      ({'bias': (2,), 'kernel': (16, 2)}, ['mean', 'var'])
      >>> logits, new = model.apply(params, state, jnp.ones((5, 3)), train=True, key=jax.random.key(1))
      >>> logits.shape, bool((new["norm"]["mean"] != state["norm"]["mean"]).any())
      ((5, 2), True)
    """
    from flax import nnx as flax_nnx  # half a second, which users of other modules need not wait

    abstract = flax_nnx.eval_shape(lambda: make(rngs=flax_nnx.Rngs(0)))
    graph, of_params, of_keys, of_rest = _split(abstract)
    words = [name for name in inspect.signature(type(abstract).__call__).parameters if name in MODES]

    def init(key: jax.Array, x: Any) -> tuple[Any, Any]:
        del x  # an NNX module knows its shapes
        _, params, _, rest = _split(make(rngs=flax_nnx.Rngs(key)))
        return _dict_of(params), _dict_of(rest)

    def keys_from(key: jax.Array | None) -> Any:
        """A key of its own for every stream of the module, and its counters at 0."""
        leaves, treedef = jax.tree.flatten(of_keys)
        base = jax.random.key(0) if key is None else key

        def fresh(number: int, leaf: Any) -> jax.Array:
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                made = jax.random.fold_in(base, number)
                return made if not leaf.shape else jax.random.split(made, leaf.shape)
            return jnp.zeros(leaf.shape, leaf.dtype)

        return jax.tree.unflatten(treedef, [fresh(i, leaf) for i, leaf in enumerate(leaves)])

    def run(params: Any, state: Any, x: Any, train: bool, key: jax.Array | None, cut: Any = None) -> tuple[Any, Any]:
        if train and key is None and jax.tree.leaves(of_keys):
            raise ValueError("the module draws random numbers in training: give apply(..., key=jax.random.key(...))")
        module = flax_nnx.merge(graph, _filled(of_params, params), keys_from(key), _filled(of_rest, state))
        module.set_attributes(deterministic=not train, use_running_average=not train, raise_if_not_found=False)
        # What the call is told overrules the attributes, defaults included.
        told = {word: train == MODES[word] for word in words}
        given = module(x, **told) if cut is None else cut(module, lambda: module(x, **told))
        if not (train and jax.tree.leaves(state)):
            return given, state
        return given, _dict_of(_split(module)[3])

    def apply(params: Any, state: Any, x: Any, *, train: bool, key: jax.Array | None = None) -> tuple[jax.Array, Any]:
        return run(params, state, x, train, key)

    if head is None:
        return Model(init, apply, prunable)
    names = head.split("/")
    _layer(abstract, names)  # is it there?

    def features(
        params: Any, state: Any, x: Any, *, train: bool, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        return run(params, state, x, train, key, functools.partial(_read_by, names))

    def last(params: Any, z: jax.Array) -> jax.Array:
        # Of the rest the layer reads nothing: its shapes will do.
        module = flax_nnx.merge(graph, _filled(of_params, params), of_keys, of_rest)
        return _layer(module, names)(z)

    return Model(init, apply, prunable, Split(features, last, lambda path: path.startswith(f"{head}/")))


def _step(place: Any, name: str) -> Any:
    """What a module has under a name, or under a number where it is a list."""
    return getattr(place, name, None) if not name.isdigit() else place[int(name)] if int(name) < len(place) else None


def _layer(module: Any, names: Sequence[str]) -> Any:
    """The layer of a path; raises where there is none."""
    found = functools.reduce(_step, names, module)
    if not callable(found):
        own = ", ".join(name for name, value in vars(module).items() if callable(value)) or "none"
        raise ValueError(f"head={'/'.join(names)!r} is no layer of the module: choose from {own}, or a path in these.")
    return found


def _read_by(names: Sequence[str], module: Any, call: Callable[[], Any]) -> Any:
    """What a layer is called with during the call of its module, in which a watcher stands in its place."""
    place, layer, read = functools.reduce(_step, names[:-1], module), _layer(module, names), []

    def watcher(z: Any) -> Any:
        read.append(z)
        return layer(z)

    def put(value: Any) -> None:
        if names[-1].isdigit():
            place[int(names[-1])] = value
        else:
            setattr(place, names[-1], value)

    put(watcher)
    try:
        call()
    finally:
        put(layer)
    if len(read) != 1:
        raise ValueError(f"head={'/'.join(names)!r} is called {len(read)} times: the last layer is called once.")
    return read[0]


def _split(module: Any) -> Any:
    """The module's graph, its parameters, its random streams, and all else."""
    from flax import nnx as flax_nnx

    return flax_nnx.split(module, flax_nnx.Param, flax_nnx.RngState, ...)


def _names(path: Any) -> list[str]:
    """The names to a leaf of a state; the last step, into the variable, has none."""
    if not isinstance(path[-1], jax.tree_util.GetAttrKey):
        where = jax.tree_util.keystr(tuple(path), simple=True, separator=".")
        raise ValueError(f"{where} of the module is an array and no nnx.Variable: wrap it, as nnx.Variable(...)")
    return [str(getattr(step, "key", step)) for step in path[:-1]]


def _dict_of(part: Any) -> dict[str, Any]:
    """A state of NNX as nested dicts of arrays; the numbers in a list become names, as files need them."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(part):
        *folders, name = _names(path)
        place = nested
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = leaf
    return nested


def _filled(part: Any, values: dict[str, Any]) -> Any:
    """A state of the module's own structure with these values; ``part`` stays as it is."""

    def at(path: Any, leaf: Any) -> Any:
        del leaf
        return functools.reduce(lambda place, name: place[name], _names(path), values)

    return jax.tree_util.tree_map_with_path(at, part)
