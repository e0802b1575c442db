"""What a job is a function of, as text: by it a folder knows whether it holds this very job."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import tree
from jaxfair.typing import Key, Model, Params


def digest(parts: Iterable[str | np.ndarray]) -> str:
    """16 digits that differ where the parts do."""
    content = hashlib.sha256()
    for part in parts:
        content.update(len(part).to_bytes(8, "little"))
        content.update(part.encode() if isinstance(part, str) else part.data)
    return content.hexdigest()[:16]


def of_array(array: Any) -> list[str | np.ndarray]:
    """An array's parts for :func:`digest`, without a copy."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    return [str(array.dtype), str(array.shape), np.ascontiguousarray(array).reshape(-1).view(np.uint8)]


def of_key(key: Key) -> list[str | int]:
    """A key as a folder's settings know it."""
    return [str(jax.random.key_impl(key)), *jax.random.key_data(key).tolist()]


def of_function(function: Callable[..., Any], *args: Any) -> str:
    """A hash of what a function computes on arguments of these shapes, with the constants that it closes over."""
    found = jax.make_jaxpr(function)(*args)
    # Functions are printed with where they lie in memory.
    text = re.sub(r" at 0x[0-9a-f]+", "", str(found))
    return digest([text, *(part for const in _constants(found) for part in of_array(const))])


def _constants(found: Any) -> Iterator[Any]:
    """What a traced function closes over, and what the functions that it calls do, such as jitted ones."""
    yield from getattr(found, "consts", ())  # an open one, as of `jax.checkpoint`, has none, and may call others
    for equation in getattr(found, "jaxpr", found).eqns:
        for inner in jax.tree.leaves(list(equation.params.values())):
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                yield from _constants(inner)


def abstract_lane(networks: Any) -> Any:
    """Shapes and types of one of the networks ``[S, ...]``."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a)[1:], jnp.result_type(a)), networks)


def model_facts(model: Model, network: Any, x: Any) -> dict[str, Any]:
    """What a model is known by: what it computes, and what may be pruned.

    Args:
      model: the network.
      network: ``(params, model_state)`` of one, may be abstract.
      x: features of which one example is like ``x[0]``.
    """
    example = jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32)

    def forward(params: Any, state: Any, x: Any) -> Any:
        return model.apply(params, state, x, train=False)

    return {"model": of_function(forward, *network, example), "prunable": paths(network[0], model.prunable)}


def paths(params: Params, chosen: Callable[[str], bool]) -> list[str]:
    """Of the parameters those that are chosen."""
    return [path for path in tree.paths(params) if chosen(path)]


def of_optimizer(optimizer: optax.GradientTransformation, params: Params) -> str:
    """A hash of an optimizer: its numbers and schedules are literals in what it computes."""
    state = jax.eval_shape(optimizer.init, params)

    def update(gradient: Any, state: Any, params: Any) -> Any:
        return tree.updated(optimizer, gradient, state, params, operator_fn=lambda params: params)

    return digest([of_function(optimizer.init, params), of_function(update, params, state, params)])


def plain(value: Any) -> Any:
    """Settings as JSON can say them; a schedule is a hash of it."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if callable(value):
        return f"schedule {of_function(value, jax.ShapeDtypeStruct((), jnp.int32))}"
    if hasattr(value, "tolist"):
        return np.asarray(value).tolist()
    return value if isinstance(value, str | int | float | list | tuple | type(None)) else str(value)
