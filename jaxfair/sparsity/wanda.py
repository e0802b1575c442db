r"""Weights times activations: :math:`|w_{ij}| \cdot \|x_i\|_2`, the norm of input i over a calibration batch.

A small weight on a large input matters more than a large one on nothing. One forward pass, no gradient:
`input_norms` walks the program of the network and looks at what every kernel is multiplied with, so that it works for
any model whose kernels reach a product or a convolution unchanged.

How this differs from the authors' code: any network in place of a list of layers with hooks; convolutions too.

References:
  Sun, Liu, Bair, Kolter, *A simple and effective pruning approach for large language models*, 2024.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxfair import tree
from jaxfair.sparsity._prunable import positions
from jaxfair.typing import Array, Params

#: What leaves a kernel recognisable: its dtype changes, or it is multiplied with a mask of its own shape.
_KEEPS = (
    "convert_element_type",
    "copy",
    "mul",
    "select_n",
    "stop_gradient",
    "optimization_barrier",
)
_CALLS = dict.fromkeys(("jit", "pjit", "remat2", "checkpoint"), "jaxpr") | dict.fromkeys(
    ("closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr"
)


def wanda(forward: Callable[[Params], Any], params: Params, *, prunable: Callable[[str], bool]) -> Params:
    """The scores of all weights from one calibration batch.

    Args:
      forward: ``forward(params)``, the network on the batch: ``lambda p: model.apply(p, state, x, train=False)[0]``.
      params: the weights.
      prunable: which leaves get their activations; each must reach a product or a convolution.

    Returns:
      The tree of scores; of other leaves the magnitude. With ``one_shot(params, s, scores=...,
      structure=sparsity.balanced())`` weights compete within an output, as the authors have it.

    Raises:
      ValueError: for a prunable leaf that reaches neither.

    Example:
      >>> x = jnp.array([[3.0, 0.5], [4.0, 0.0]])
      >>> scores = wanda(lambda p: x @ p["w"], {"w": jnp.array([[1.0], [2.0]])}, prunable=lambda path: True)
      >>> scores["w"].tolist()
      [[5.0], [1.0]]
    """
    norms = input_norms(forward, params, prunable=prunable)
    return jax.tree.map(lambda w, n: jnp.abs(w) * n.astype(w.dtype), params, norms)


def input_norms(forward: Callable[[Params], Any], params: Params, *, prunable: Callable[[str], bool]) -> Params:
    """L2 norms of the inputs of every kernel, over examples and places.

    Args:
      forward: ``forward(params)``.
      params: the weights.
      prunable: which leaves.

    Returns:
      The structure of `params`; for prunable leaves an array that broadcasts against the leaf, for others ``1``.

    Raises:
      ValueError: for a prunable leaf that reaches no product.

    Example:
      >>> x = jnp.ones((4, 2))
      >>> input_norms(lambda p: x @ p["w"], {"w": jnp.ones((2, 3))}, prunable=lambda path: True)["w"].tolist()
      [[2.0], [2.0]]
    """
    chosen = positions(params, prunable)
    closed = jax.make_jaxpr(forward)(params)
    paths, leaves = tree.paths(params), jax.tree.leaves(params)
    squares: dict[int, Array] = {}

    def record(leaf: int, side: int, kernel: Any, x: Any, options: Any) -> None:
        if side == -1:
            value = _of_convolution(x, kernel, options)
        else:
            (contract, batch) = options["dimension_numbers"]
            value = _of_product(x, contract[1 - side], contract[side], batch, kernel.ndim)
        squares[leaf] = squares[leaf] + value if leaf in squares else value

    walk(closed.jaxpr, closed.consts, leaves, list(range(len(leaves))), record)
    found = []
    for i, path in enumerate(paths):
        if i in chosen and i not in squares:
            raise ValueError(
                f"{path} reaches no product or convolution as it is, so that it has no input to measure; "
                "leave it out (prunable=)"
            )
        ones = jnp.ones((1,) * jnp.ndim(leaves[i]), jnp.float32)
        found.append(jnp.sqrt(squares[i]) if i in chosen else ones)
    return jax.tree.unflatten(jax.tree.structure(params), found)


def walk(
    jaxpr: Any,
    consts: Sequence[Any],
    args: Sequence[Any],
    leaves: Sequence[int | None],
    record: Any,
) -> tuple[list[Any], list[int | None]]:
    """Runs a program, and remembers of every value which leaf it is; -> its results and their leaves.

    ``record(leaf, side, kernel, x, options)`` is told of every product of a leaf: which side of it the leaf is, 0 or 1,
    or -1 for a convolution, what the leaf has become, what it is multiplied with, and the options of the primitive.

    Example:
      >>> of = jax.make_jaxpr(lambda w: jnp.ones((5, 2)) @ w)(jnp.ones((2, 3)))
      >>> said = lambda leaf, side, kernel, x, options: print(leaf, side, kernel.shape, x.shape)
      >>> _ = walk(of.jaxpr, of.consts, [jnp.ones((2, 3))], [0], said)
      0 1 (2, 3) (5, 2)
    """
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, args, strict=True))
    whose: dict[Any, int | None] = dict(zip(jaxpr.invars, leaves, strict=True))

    def read(var):
        return var.val if isinstance(var, core.Literal) else values[var]

    def leaf_of(var):
        return None if isinstance(var, core.Literal) else whose.get(var)

    for eqn in jaxpr.eqns:
        ins, tags = [read(v) for v in eqn.invars], [leaf_of(v) for v in eqn.invars]
        name = eqn.primitive.name
        if name in _CALLS:
            inside = eqn.params[_CALLS[name]]
            inner, held = (inside.jaxpr, inside.consts) if hasattr(inside, "consts") else (inside, [])
            outs, out_tags = walk(inner, held, ins, tags, record)
        else:
            if name == "dot_general":
                for side in (0, 1):
                    if tags[side] is not None and tags[1 - side] is None:
                        record(tags[side], side, ins[side], ins[1 - side], eqn.params)
            elif name == "conv_general_dilated" and tags[1] is not None:
                record(tags[1], -1, ins[1], ins[0], eqn.params)
            result = eqn.primitive.bind(*ins, **eqn.params)
            outs = list(result) if eqn.primitive.multiple_results else [result]
            tag = next((t for t in tags if t is not None), None)
            same = name in _KEEPS and tag is not None and len(outs) == 1
            out_tags = [tag if same and jnp.shape(o) == jnp.shape(ins[tags.index(tag)]) else None for o in outs]
        values |= dict(zip(eqn.outvars, outs, strict=True))
        whose |= dict(zip(eqn.outvars, out_tags, strict=True))
    return [read(v) for v in jaxpr.outvars], [leaf_of(v) for v in jaxpr.outvars]


def _of_product(x: Array, of_x: Any, of_kernel: Any, batch: Any, ndim: int) -> Array:
    """Squared norms of what a kernel is multiplied with, in the kernel's dimensions."""
    if batch[0]:
        raise ValueError("a kernel with a batch dimension has inputs of its own for each; not supported")
    rest = tuple(i for i in range(x.ndim) if i not in of_x)
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=rest)
    # What is left is ordered as in x; the kernel may have its dimensions in another order.
    order = sorted(range(len(of_x)), key=lambda i: of_x[i])
    target = [of_kernel[i] for i in order]
    squares = jnp.transpose(squares, sorted(range(len(target)), key=lambda i: target[i]))
    shape = [1] * ndim
    for at, size in zip(sorted(target), squares.shape, strict=True):
        shape[at] = size
    return squares.reshape(shape)


def _of_convolution(x: Array, kernel: Array, options: Any) -> Array:
    """Squared norms of the input channels, in the kernel's dimensions."""
    numbers, groups = options["dimension_numbers"], options["feature_group_count"]
    feature = numbers.lhs_spec[1]
    rest = tuple(i for i in range(x.ndim) if i != feature)
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=rest)
    out_at, in_at = numbers.rhs_spec[:2]
    shape = [1] * kernel.ndim
    shape[in_at] = kernel.shape[in_at]
    if groups == 1:
        return squares.reshape(shape)
    shape[out_at] = kernel.shape[out_at]
    by_group = squares.reshape(groups, -1)  # [groups, in]
    by_output = jnp.repeat(by_group, kernel.shape[out_at] // groups, axis=0)  # [out, in]
    return (by_output if out_at < in_at else by_output.T).reshape(shape)
