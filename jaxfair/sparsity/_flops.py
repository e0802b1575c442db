r"""What a network costs, dense and sparse: multiply-adds, bytes, and the arithmetic of its training.

Counted are matrix products and convolutions, one multiplication with its addition as one: the "FLOPs" of most papers
on pruning; a hardware counter shows twice as many. Products with the zeros of a padding count, as they do in those
papers; norms, activations and additions do not.

.. code-block:: text

    product        size of the output x size of the summed axes
    convolution    size of the output x window x input channels / groups
    transposed     size of the input in place of that of the output (zeros between the pixels do not count)

The program is read, not run (`jax.make_jaxpr` on shapes). Every product goes to the leaf of the parameters that its
kernel comes from, through reshapes, casts, masks and calls (the largest of several). Every weight of a kernel is used
equally often: :math:`f_S = f_{activations} + \sum_l d_l f_l` with densities d. Products of activations stay dense.

References:
  Evci, Gale, Menick, Castro, Elsen, *Rigging the lottery: making all tickets winners*, 2020, appendix on FLOPs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from jaxfair import tree
from jaxfair.typing import Model, Params

_ACTIVATIONS = "(activations)"  # the row of products that have no weights
_DATA = "data"  # marks what depends on the inputs
_HEAD = ("layer", "shape", "density", "dense", "sparse", "bytes dense", "bitmask", "CSR", "least")


class LayerCost(NamedTuple):
    """One leaf of the parameters; Python numbers only.

    Attributes:
      path: such as ``"Conv_0/kernel"``; ``"(activations)"`` for products without weights, ``"total"`` for the sum.
      shape: the shape of the leaf, ``()`` for the sum.
      prunable: whether the model says that the leaf may be pruned.
      density: the share of weights that live.
      multiply_adds: of the whole batch, dense.
      sparse_multiply_adds: those with weights that live.
      dense_bytes: all weights.
      bitmask_bytes: the living weights and one bit for every weight.
      csr_bytes: the living weights, one index each, and one index per row (the last axis) and one more.
      smallest_bytes: the least of the three; dense for a leaf without a mask of its own.
    """

    path: str
    shape: tuple[int, ...]
    prunable: bool
    density: float
    multiply_adds: int
    sparse_multiply_adds: int
    dense_bytes: int
    bitmask_bytes: int
    csr_bytes: int
    smallest_bytes: int


class CostReport(NamedTuple):
    """What `cost_report` returns; ``print`` shows a table.

    Attributes:
      layers: one row per leaf, in the order of `jax.tree.leaves`, then one for products without weights.
      total: the sum.
    """

    layers: tuple[LayerCost, ...]
    total: LayerCost

    def __str__(self):
        """The table; leaves that no product reads (norms, biases) only count in the total."""
        rows: list[tuple[str, ...]] = [_HEAD]
        for row in (*(r for r in self.layers if r.multiply_adds), self.total):
            cells = (row.path, "x".join(map(str, row.shape)), f"{row.density:.4f}")
            rows.append((*cells, *(f"{number:,}" for number in row[4:])))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for path, shape, *numbers in rows:
            cells = [path.ljust(widths[0]), shape.ljust(widths[1])]
            cells += [n.rjust(w) for n, w in zip(numbers, widths[2:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def cost_report(model: Model, x: Any, masks: Any = None, *, index_bytes: int = 4) -> CostReport:
    """Counts multiply-adds and bytes of every leaf, without computing anything.

    Args:
      model: any `Model`; it is asked with ``train=False``.
      x: a batch of inputs, or its `jax.ShapeDtypeStruct`. A batch of one gives the cost of an example.
      masks: True = kept, of the leaf's shape or ``[]``, in the structure of the parameters; None for the dense network.
      index_bytes: of one index of the CSR format.

    Returns:
      The `CostReport`.

    Raises:
      ValueError: for masks of another network; see also `multiply_adds`.

    Example:
      >>> import jax.numpy as jnp
      >>> def init(key, x):
      ...     return {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}, {}
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x @ params["kernel"] + params["bias"][None], state
      >>> linear = Model(init, apply, prunable=lambda path: path == "kernel")
      >>> masks = {"kernel": jnp.arange(6).reshape(3, 2) < 2, "bias": jnp.array(True)}
      >>> print(cost_report(linear, jax.ShapeDtypeStruct((1, 3), jnp.float32), masks))
      layer   shape  density  dense  sparse  bytes dense  bitmask  CSR  least
      kernel  3x2     0.3333      6       2           24        9   28      9
      total           0.5000      6       2           32       17   36     17
    """
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    counts = multiply_adds(lambda *args: model.apply(*args, train=False)[0], params, state, x)
    leaves = jax.tree.leaves(params)
    masked = [np.True_] * len(leaves) if masks is None else jax.tree.leaves(masks)
    rows, kept = [], 0
    for path, leaf, mask in zip(tree.paths(params), leaves, masked, strict=True):
        mask, size = np.asarray(mask), int(leaf.size)
        if mask.shape not in ((), leaf.shape):
            raise ValueError(
                f"the mask of {path} has the shape {mask.shape}, its weights have {leaf.shape}; "
                "pass masks of one network, not of a vmapped batch"
            )
        living = int(np.broadcast_to(mask, leaf.shape).sum())
        kept += living
        dense, values = (number * leaf.dtype.itemsize for number in (size, living))
        least = bitmask = csr = dense
        if mask.shape:
            bitmask = values + -(-size // 8)
            csr = values + (living + leaf.shape[-1] + 1) * index_bytes
            least = min(dense, bitmask, csr)
        share, count = living / max(size, 1), counts[path]
        cost = (count, count * living // max(size, 1), dense, bitmask, csr, least)
        rows.append(LayerCost(path, leaf.shape, model.prunable(path), share, *cost))
    free = counts[_ACTIVATIONS]
    rows.append(LayerCost(_ACTIVATIONS, (), False, 1.0, free, free, 0, 0, 0, 0))
    sums = [sum(row[i] for row in rows) for i in range(4, 10)]
    share = kept / max(tree.size(params), 1)
    return CostReport(tuple(rows), LayerCost("total", (), False, share, *sums))


def training_cost(report: CostReport, densities: Any, *, dense_gradient: Any = False) -> float:
    r"""Multiply-adds of a whole training run.

    A step is a forward pass and a backward pass of twice its cost (gradients of the activations, and of the weights),
    :math:`3 f_S(t)`; where the gradient of pruned weights is needed, too, :math:`2 f_S(t) + f_D`.

    Args:
      report: of the batch that a step sees; its own masks do not matter.
      densities: ``[T]``, the density of all prunable leaves at each step, such as ``1 - sparsity``; or ``[T, L]``, of
        every row of ``report.layers`` for itself.
      dense_gradient: ``[]`` or ``[T]`` bool, at which steps the gradient of the weights is dense.

    Returns:
      The number.

    Raises:
      ValueError: for densities that fit neither shape, or that are not in [0, 1].

    Example:
      >>> layer = LayerCost("kernel", (3, 2), True, 1.0, 6, 6, 24, 24, 24, 24)
      >>> report = CostReport((layer,), layer._replace(path="total"))
      >>> training_cost(report, [1, 0.75, 0.5])
      40.5
      >>> training_cost(report, [0.5, 0.5, 0.5], dense_gradient=[True, False, False])
      30.0
    """
    densities = np.asarray(densities, float)
    counts = np.array([row.multiply_adds for row in report.layers], float)
    if densities.ndim == 1:
        prunable = np.array([row.prunable for row in report.layers])
        densities = np.where(prunable, densities[:, None], 1.0)
    if densities.ndim != 2 or densities.shape[1] != len(counts):
        raise ValueError(
            f"densities must be [T] or, for this report, [T, {len(counts)}], but have the shape {densities.shape}"
        )
    if not ((densities >= 0) & (densities <= 1)).all():
        raise ValueError("densities must lie in [0, 1]: pass 1 - sparsity, not percent")
    sparse, dense = densities @ counts, counts.sum()
    extra = np.where(np.broadcast_to(np.asarray(dense_gradient), sparse.shape), dense - sparse, 0)
    return float(np.sum(3 * sparse + extra))


def multiply_adds(apply: Callable[..., Any], params: Params, *args: Any) -> dict[str, int]:
    """The multiply-adds of any function, by the leaf of the parameters whose weights they use.

    Args:
      apply: ``apply(params, *args)``. The last argument is the data; what comes before it (model state) is not.
      params: a tree of arrays or of `jax.ShapeDtypeStruct`, as are `args`.
      *args: what else it takes.

    Returns:
      A number for every path, 0 where no product reads the leaf, and ``"(activations)"``: products without weights.

    Raises:
      ValueError: for a loop with products whose number of turns the program does not say.

    Example:
      >>> params = {"scale": np.ones((1, 4)), "w": np.ones((5, 4))}
      >>> multiply_adds(lambda p, x: x @ (p["w"] * p["scale"]).T, params, np.ones((7, 4)))
      {'scale': 0, 'w': 140, '(activations)': 0}
    """
    jaxpr, paths = jax.make_jaxpr(apply)(params, *args).jaxpr, tree.paths(params)
    leaves = [(math.prod(p.shape), path) for p, path in zip(jax.tree.leaves(params), paths, strict=True)]
    totals, data = dict.fromkeys([*paths, _ACTIVATIONS], 0), len(jax.tree.leaves(args[-1]))
    rest = len(jaxpr.invars) - len(leaves) - data
    _walk(jaxpr, [*leaves, *[None] * rest, *[_DATA] * data], totals, 1)
    return totals


def _join(sources: Sequence[Any]) -> Any:
    """Data if any of them is; else the largest leaf; else None, a constant."""
    if _DATA in sources:
        return _DATA
    return max((source for source in sources if source), default=None)


def _walk(jaxpr: Any, sources: Sequence[Any], totals: dict[str, int], times: int) -> list[Any]:
    """Adds the products of a program to the totals; gives back where its results come from."""
    known = dict(zip(jaxpr.invars, sources, strict=True))

    def source(var):
        return None if isinstance(var, core.Literal) else known.get(var)

    for eqn in jaxpr.eqns:
        name, inputs = eqn.primitive.name, [source(var) for var in eqn.invars]
        if name in ("dot_general", "conv_general_dilated"):
            count = (_product if name == "dot_general" else _convolution)(eqn)
            leaf = _join([s for s in inputs if s is not _DATA])
            totals[leaf[1] if leaf else _ACTIVATIONS] += times * count
            outputs = [_join(inputs)]
        elif name in ("scan", "cond"):
            outputs = (_scan if name == "scan" else _cond)(eqn, inputs, totals, times)
        elif name.startswith(("ragged_dot", "bcoo_dot", "bcsr_dot")):
            raise ValueError(f"cannot count products by {name!r}; use dense kernels")
        else:
            outputs = _call(eqn, inputs, totals, times)
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [source(var) for var in jaxpr.outvars]


def _program(value: Any) -> Any:
    """Without its constants, where it comes with them: in some versions of JAX, and for some operations."""
    return getattr(value, "jaxpr", value)


def _product(eqn) -> int:
    (summed, _), _ = eqn.params["dimension_numbers"]
    sizes = eqn.invars[0].aval.shape
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(sizes[axis] for axis in summed)


def _convolution(eqn) -> int:
    lhs, rhs, out = (var.aval.shape for var in (*eqn.invars, *eqn.outvars))
    axes = eqn.params["dimension_numbers"]
    count = math.prod(rhs) // rhs[axes.rhs_spec[0]]  # per output: the window and its channels
    count *= out[axes.out_spec[0]] * out[axes.out_spec[1]]
    places = zip(axes.lhs_spec[2:], axes.out_spec[2:], eqn.params["lhs_dilation"], strict=True)
    return count * math.prod(out[o] if step == 1 else lhs[i] for i, o, step in places)


def _scan(eqn, inputs, totals, times) -> list[Any]:
    body = _program(eqn.params["jaxpr"])
    # Constants, carry and slices, in this order. Versions of JAX write down differently how many there are of each, so
    # it is read off the shapes: what is sliced or stacked has one axis more outside than inside.
    sliced = [outer.aval.ndim > inner.aval.ndim for outer, inner in zip(eqn.invars, body.invars, strict=True)]
    stacked = [outer.aval.ndim > inner.aval.ndim for outer, inner in zip(eqn.outvars, body.outvars, strict=True)]
    last = len(sliced) - sum(sliced)
    first = last - (len(stacked) - sum(stacked))
    while True:  # until the carry comes from where it came from in the turn before
        outputs = _walk(body, inputs, dict.fromkeys(totals, 0), 1)
        carry = [_join(pair) for pair in zip(inputs[first:last], outputs, strict=False)]
        if carry == inputs[first:last]:
            return _walk(body, inputs, totals, times * eqn.params["length"])
        inputs = [*inputs[:first], *carry, *inputs[last:]]


def _cond(eqn, inputs, totals, times) -> list[Any]:
    """The dearest branch."""
    tried = []
    for branch in eqn.params["branches"]:
        counts = dict.fromkeys(totals, 0)
        tried.append((_walk(_program(branch), inputs[1:], counts, times), counts))
    dearest = max((counts for _, counts in tried), key=lambda counts: sum(counts.values()))
    for path, count in dearest.items():
        totals[path] += count
    return [_join(sources) for sources in zip(*(out for out, _ in tried), strict=True)]


def _call(eqn, inputs, totals, times) -> list[Any]:
    # Any other operation; into one that calls a program on its inputs we follow.
    inner = [_program(value) for value in eqn.params.values() if hasattr(_program(value), "eqns")]
    plain = len(inner) == 1 and len(inner[0].invars) == len(inputs)
    if plain and eqn.primitive.name not in ("while", "shard_map"):
        return _walk(inner[0], inputs, totals, times)
    for jaxpr in inner:
        counts = dict.fromkeys(totals, 0)
        _walk(jaxpr, [_DATA] * len(jaxpr.invars), counts, 1)
        if any(counts.values()):
            name = eqn.primitive.name
            raise ValueError(f"cannot count the products inside {name!r}: nobody says how often they run; use lax.scan")
    return [_join(inputs)] * len(eqn.outvars)
