"""A quantised network that holds nothing but the packed codes of its weights: to be exported, or kept in memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.quant._files import pack, width
from jaxfair.quant._quantizer import Grid, codes, values
from jaxfair.quant._trees import mapped
from jaxfair.typing import Array, Model, Params


def packed(model: Model, params: Params, grids: Any) -> tuple[Model, Params]:
    """The same network on the packed codes of its weights, of b bits each.

    What it computes is ``model.apply`` of :func:`jaxfair.quant.quantize_params`, bit for bit: the program unpacks and
    scales the codes. So whatever writes a network as a program, such as :func:`jaxfair.sparsity.export_network`, writes
    it with codes for constants, at 4 bits an eighth of its size.

    Args:
      model: any `Model`.
      params: its parameters, of one network and outside of ``jit``.
      grids: of :func:`jaxfair.quant.grids`, or of :func:`jaxfair.quant.load`.

    Returns:
      The `Model` and its parameters: uint8 bits where there is a grid, a row of bytes as :func:`jaxfair.quant.pack`
      makes it, and the leaf itself elsewhere. It is not trained, and nothing of it is prunable.

    Raises:
      ValueError: for the grids of another network, several networks side by side, and more than 16 bits.

    Example:
      >>> from jaxfair import quant
      >>> apply = lambda params, state, x, *, train, key=None: (x @ params["w"], state)
      >>> plain = Model(lambda key, x: ({"w": jnp.array([[1.0], [0.4]])}, {}), apply, lambda path: True)
      >>> params, state = plain.init(jax.random.key(0), jnp.ones((1, 2)))
      >>> small, bits = packed(plain, params, quant.grids(params, 4))
      >>> bits["w"].nbytes, params["w"].nbytes
      (1, 8)
      >>> small.apply(bits, state, jnp.ones((1, 2)), train=False)[0].item()
      1.428571...
    """
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)), params)
    grids = jax.tree.map(np.asarray, grids)
    if any(grid.low.ndim for grid in jax.tree.leaves(grids, is_leaf=lambda node: isinstance(node, Grid))):
        raise ValueError(
            "these are several networks side by side: take one, jax.tree.map(lambda leaf: leaf[0], (params, grids))"
        )

    def bits(leaf: Any, grid: Grid) -> np.ndarray:
        return pack(codes(leaf, grid), width(grid), int(grid.low))

    def weights(given: Params) -> Params:
        return mapped(_values, given, grids, like)

    def apply(params: Params, state: Any, x: Any, *, train: bool, key: Any = None) -> tuple[Any, Any]:
        return model.apply(weights(params), state, x, train=train, key=key)

    held = mapped(bits, params, grids)
    return Model(lambda key, x: (held, model.init(key, x)[1]), apply, lambda path: False), held


def _values(bits: Any, grid: Grid, like: Any) -> Array:
    """The first bit of a code is its highest."""
    count, size = width(grid), int(np.prod(like.shape))
    each = jnp.unpackbits(jnp.asarray(bits), count=size * count).reshape(size, count).astype(jnp.int32)
    places = jnp.asarray(2 ** np.arange(count)[::-1], jnp.int32)
    found = (each * places[None]).sum(1) + int(grid.low)
    return values(found.reshape(like.shape), grid, dtype=like.dtype)
