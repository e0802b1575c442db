"""Quantisers of whole networks: which leaves, a grid for each, and the levels that they are at."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair import tree
from jaxfair.quant._quantizer import Grid, Quantizer, calibrate, fake_quantize
from jaxfair.quant._quantizer import quantize as quantize_array
from jaxfair.typing import Params

#: Last names of a path that are no weights of a product.
_NAMES = {"bias", "scale", "b", "beta", "gamma", "mean", "var", "offset"}


def quantizable(path: str) -> bool:
    """Whether a leaf is quantised by default, from its path: weights are, norms and biases are not.

    Args:
      path: such as ``"Conv_1/kernel"``.

    Returns:
      False for what is called ``bias``, ``scale``, ``b``, ``beta``, ``gamma``, ``mean``, ``var`` or ``offset``, and for
      everything of a layer with ``norm`` in its name, or that begins with ``bn``.

    Example:
      >>> [quantizable(path) for path in ("Dense_0/kernel", "Dense_0/bias", "BatchNorm_0/scale", "w")]
      [True, False, False, True]
    """
    *layers, last = path.lower().split("/")
    return last not in _NAMES and not any("norm" in name or name.startswith("bn") for name in layers)


def chosen(params: Params, quantized: Callable[[str], bool]) -> dict[str, int]:
    """The leaves that are quantised: their places among all leaves, by their paths.

    A scalar and a leaf without entries never are, whatever `quantized` says.

    Raises:
      ValueError: where none is left.
      TypeError: for a `quantized` that is no function, and for a leaf that has no floats.

    Example:
      >>> chosen({"a": jnp.ones(2), "bias": jnp.ones(2), "t": jnp.ones(())}, quantizable)
      {'a': 0}
    """
    if not callable(quantized):
        raise TypeError(f"quantized={quantized!r}: give a function of a leaf's path, such as quant.quantizable")
    paths, leaves = tree.paths(params), jax.tree.leaves(params)
    found = {p: i for i, p in enumerate(paths) if jnp.ndim(leaves[i]) and jnp.size(leaves[i]) and quantized(p)}
    if not found:
        raise ValueError(f"no leaf is quantised: quantized(path) is False, or there is no entry, for each of {paths}")
    for path, i in found.items():
        if not jnp.issubdtype(leaves[i].dtype, jnp.floating):
            raise TypeError(f"{path} is {leaves[i].dtype}: only floats are quantised; leave it out (quantized=)")
    return found


def bits_of(bits: Any, paths: Any) -> dict[str, Any]:
    """A number of bits for each path, from one for all, or from a mapping.

    Raises:
      ValueError: for a mapping that lacks one, or has too many.

    Example:
      >>> bits_of({"a": 4}, ["a", "b"])
      Traceback (most recent call last):
      ...
      ValueError: bits= has no number for b: give one for each leaf that is quantised, or one number for all
    """
    if not isinstance(bits, Mapping):
        return dict.fromkeys(paths, bits)
    if missing := [path for path in paths if path not in bits]:
        raise ValueError(
            f"bits= has no number for {', '.join(missing[:3])}: give one for each leaf that is quantised, or one "
            "number for all"
        )
    if more := [path for path in bits if path not in paths]:
        raise ValueError(f"bits= has a number for {', '.join(more[:3])}, which is not quantised: see quantized=")
    return dict(bits)


def whole() -> Grid:
    """The grid of a leaf that is not quantised.

    Example:
      >>> whole().scale.shape
      ()
    """
    return Grid(*(jnp.zeros((), jnp.float32) for _ in Grid._fields))


def grids(
    params: Params,
    bits: Any,
    *,
    quantizer: Quantizer = Quantizer(),  # noqa: B008, a constant
    quantized: Callable[[str], bool] = quantizable,
) -> Any:
    """The grid of every leaf.

    Args:
      params: the parameters.
      bits: b for all of them, or by path: ``{"Dense_0/kernel": 4, "Dense_1/kernel": 8}``. Each may be traced.
      quantizer: how.
      quantized: which leaves, from a path; by default weights, but no norms and biases. A `Model` has ``prunable``.

    Returns:
      The structure of `params` with a `Grid` for each leaf; that of a leaf that is not quantised has a scale ``[]``.

    Raises:
      ValueError: as `calibrate`, with the path; where no leaf is quantised; for bits of other leaves.
      TypeError: as `calibrate`.

    Example:
      >>> params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.ones(2)}
      >>> found = grids(params, 2)
      >>> found["kernel"].scale.tolist(), found["bias"].scale.shape
      ([[2.0]], ())
    """
    leaves, treedef = jax.tree.flatten(params)
    places = chosen(params, quantized)
    widths = bits_of(bits, list(places))
    found = [whole() for _ in leaves]
    for path, i in places.items():
        try:
            found[i] = calibrate(leaves[i], widths[path], quantizer)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return jax.tree.unflatten(treedef, found)


def quantize_params(params: Params, grids: Any) -> Params:
    """The network at its levels.

    Args:
      params: the parameters.
      grids: of `grids`, or of a state.

    Returns:
      The parameters, quantised where there is a grid, else as they are. Gradients do not go through; see
      `fake_quantize_params`.

    Raises:
      ValueError: for the grids of another network.

    Example:
      >>> params = {"kernel": jnp.array([[0.4, -2.0]]), "bias": jnp.full(2, 0.3)}
      >>> jax.tree.map(lambda w: w.round(1).tolist(), quantize_params(params, grids(params, 2)))
      {'bias': [0.3..., 0.3...], 'kernel': [[0.0, -2.0]]}
    """
    return mapped(lambda w, grid: quantize_array(w, grid), params, grids)


def fake_quantize_params(params: Params, grids: Any, *, scale_gradient: bool = False) -> Params:
    """`quantize_params` with the straight-through derivative.

    Args:
      params: the parameters.
      grids: of `grids`.
      scale_gradient: as in `fake_quantize`.

    Returns:
      The values of `quantize_params`.

    Raises:
      ValueError: for the grids of another network.

    Example:
      >>> params = {"kernel": jnp.array([0.4, -2.0])}
      >>> loss = lambda p: (3 * fake_quantize_params(p, grids(p, 2))["kernel"]).sum()
      >>> jax.grad(loss)(params)["kernel"].tolist()
      [3.0, 3.0]
    """
    return mapped(lambda w, grid: fake_quantize(w, grid, scale_gradient=scale_gradient), params, grids)


def mapped(of: Callable[..., Any], params: Params, grids: Any, *rest: Any) -> Any:
    """``of(leaf, grid, ...)`` of every leaf that is quantised; the others stay.

    Example:
      >>> params = {"kernel": jnp.array([0.4, -2.0]), "bias": jnp.ones(1)}
      >>> mapped(lambda w, grid: w.size, params, grids(params, 2))["kernel"]
      2
    """
    leaves, treedef = jax.tree.flatten(params)
    flat, like = jax.tree.flatten(grids, is_leaf=lambda node: isinstance(node, Grid))
    if like != treedef:
        raise ValueError("these grids are of another network: take those of quant.grids(params, bits)")
    others = [jax.tree.leaves(other) for other in rest]
    found = []
    for place, (leaf, grid) in enumerate(zip(leaves, flat, strict=True)):
        left = jnp.ndim(grid.scale) == 0
        found.append(leaf if left else of(leaf, grid, *(other[place] for other in others)))
    return jax.tree.unflatten(treedef, found)


def get_grids(opt_state: Any) -> Any:
    """The grids in the state of an optimizer, however deep they lie.

    Args:
      opt_state: the state of `quantized`, or of a wrapper around it.

    Returns:
      The tree of grids.

    Raises:
      ValueError: where there is none, or more than one.

    Example:
      >>> import optax
      >>> from jaxfair import quant
      >>> tx = optax.chain(optax.clip(1.0), quant.quantized(optax.sgd(0.1), bits=2))
      >>> get_grids(tx.init({"w": jnp.array([1.0, -3.0])}))["w"].scale.tolist()
      [3.0]
    """
    found = tree.named("grids", opt_state)
    if len(found) != 1:
        raise ValueError(
            f"get_grids needs the state of one quant.quantized, but it found {len(found)} in this "
            f"{type(opt_state).__name__}; pass what tx.init or tx.update returned"
        )
    return found[0]


def quantized_params(params: Params, opt_state: Any) -> Params:
    """The weights that the loss is taken at in quantisation-aware training, and that are delivered at its end.

    Args:
      params: the float ones.
      opt_state: of an optimizer with `quantized` in it.

    Returns:
      The parameters at their levels; a pruned weight, which is zero, stays zero.

    Raises:
      ValueError: for a state without grids, or with several.

    Example:
      >>> import optax
      >>> from jaxfair import quant
      >>> params, tx = {"w": jnp.array([0.9, -3.0])}, quant.quantized(optax.sgd(0.1), bits=2)
      >>> quantized_params(params, tx.init(params))["w"].tolist()
      [0.0, -3.0]
    """
    return quantize_params(params, get_grids(opt_state))
