"""Weights between Flax's layout and PyTorch's: arrays and names only, neither of the two is imported.

=======================  ================================  =====================================================
layer                    Flax                              PyTorch
=======================  ================================  =====================================================
dense                    ``kernel [in, out]``              ``weight [out, in]``
convolution              ``kernel [*window, in, out]``     ``weight [out, in, *window]``
norms                    ``scale``, ``bias``               ``weight``, ``bias``
running statistics       ``mean``, ``var`` of the state    ``running_mean``, ``running_var``, and a count of 0
embedding                ``embedding [number, width]``     ``weight``
attention                ``query``, ``key``, ``value``,    ``in_proj_weight [3 D, D]``, ``in_proj_bias``,
                         ``out``, by heads                 ``out_proj`` (``torch.nn.MultiheadAttention``)
anything else            as it is                          as it is
=======================  ================================  =====================================================

What no array says, the module in PyTorch has to do likewise. Flax has channels last: a dense layer behind a
convolution reads ``x.permute(0, 2, 3, 1).flatten(1)``. With ``padding="SAME"`` and a stride Flax pads the far side
more. `BatchNorm` adds 1e-5 to the variance in both; `LayerNorm` and `GroupNorm` 1e-6 in Flax and 1e-5 in PyTorch.
Flax's ``gelu`` is an approximation unless told otherwise, PyTorch's is not.

Transposed convolutions, whose windows Flax and PyTorch have the other way round, and `DenseGeneral` do not come over:
their kernels cannot be told from those of convolutions.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import tree
from jaxfair.typing import ModelState, Params

_RENAMED = {"kernel": "weight", "scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}
#: Of attention, in the order in which PyTorch stacks them.
_STACKED = ("query", "key", "value")
_COUNT = "num_batches_tracked"


class _Part(NamedTuple):
    """A leaf, and what of PyTorch's it is: an array of that name, or of attention the rows that come next in it."""

    name: str
    path: str
    leaf: Any
    shape: tuple[int, ...]  # with the heads of attention in one axis

    def to(self, leaf: Any) -> np.ndarray:
        return np.transpose(np.reshape(leaf, self.shape), self._axes)

    def back(self, theirs: np.ndarray) -> np.ndarray:
        return np.transpose(theirs, np.argsort(self._axes)).reshape(np.shape(self.leaf))

    @property
    def _axes(self) -> tuple[int, ...]:
        axes = range(len(self.shape))
        if self.path.rpartition("/")[2] != "kernel" or len(axes) < 2:
            return tuple(axes)
        *window, inputs, outputs = axes
        return (outputs, inputs, *window)


def to_torch(
    params: Params, state: ModelState | None = None, *, names: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """A network's weights as PyTorch wants them, for ``module.load_state_dict``.

    Args:
      params: parameters of one network in Flax's layout, such as those of `jaxfair.models`; of a pruned one with zeros
        (:func:`jaxfair.sparsity.apply_masks`), of a quantised one at its levels.
      state: its state, such as ``{"batch_stats": ...}``.
      names: what a layer is called in PyTorch, by its path here: ``{"Dense_0": "net.0"}``. Others keep their path, with
        dots.

    Returns:
      Arrays by their names in a ``state_dict``, in the order of the tree: ``{k: torch.from_numpy(a) for k, a in
      found.items()}`` is one. bfloat16, which numpy has not, becomes float32.

    Raises:
      ValueError: for names of layers that are not there, two arrays of one name, several networks side by side, and
        attention whose inputs differ in width from its heads.

    Example:
      >>> params = {"Dense_0": {"kernel": np.arange(6.0).reshape(3, 2), "bias": np.ones(2)}}
      >>> {name: array.tolist() for name, array in to_torch(params, names={"Dense_0": "fc"}).items()}
      {'fc.bias': [1.0, 1.0], 'fc.weight': [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]}
    """
    found: dict[str, np.ndarray] = {}
    for name, parts in _parts(params, state, names).items():
        arrays = [part.to(_plain(part.path, part.leaf)) for part in parts]
        found[name] = np.array(np.concatenate(arrays) if len(arrays) > 1 else arrays[0], order="C")
        if name.endswith("running_var"):
            found[name.removesuffix("running_var") + _COUNT] = np.zeros((), np.int64)
    return found


def from_torch(
    state_dict: Mapping[str, Any],
    params: Params,
    state: ModelState | None = None,
    *,
    names: Mapping[str, str] | None = None,
) -> tuple[Params, ModelState]:
    """A network of the shape of one here, with the weights of a PyTorch module.

    Args:
      state_dict: arrays or tensors by name, as :func:`to_torch` gives them and ``module.state_dict()`` has them.
      params: of ``model.init`` or of ``jax.eval_shape`` of it: structure, shapes and dtypes are kept.
      state: likewise.
      names: as in :func:`to_torch`.

    Returns:
      ``params, state``.

    Raises:
      ValueError: for an array that is missing, has another shape or is of no layer; for names as in :func:`to_torch`.

    Example:
      >>> params = {"hidden": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}}
      >>> theirs = {"0.weight": np.arange(6.0).reshape(2, 3), "0.bias": np.ones(2)}
      >>> found, _ = from_torch(theirs, params, names={"hidden": "0"})
      >>> found["hidden"]["kernel"].tolist()
      [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    found, known = {}, {name: array for name, array in state_dict.items() if not name.endswith(_COUNT)}
    for name, parts in _parts(params, state, names).items():
        if name not in known:
            left = ", ".join(sorted(known)) or "nothing more"
            raise ValueError(f"the module has no {name!r} for {parts[0].path}: it has {left}; names= says what is what")
        theirs = _theirs(known.pop(name))
        rows = [part.to(np.empty(np.shape(part.leaf), bool)).shape for part in parts]
        shape = (sum(row[0] for row in rows), *rows[0][1:]) if rows[0] else ()
        if theirs.shape != shape:
            raise ValueError(f"{name!r} is {list(theirs.shape)}, where {parts[0].path} makes it {list(shape)}")
        ends = np.cumsum([row[0] for row in rows])[:-1] if rows[0] else ()
        for part, own in zip(parts, np.split(theirs, ends) if len(parts) > 1 else [theirs], strict=True):
            found[part.path] = jnp.asarray(part.back(own).astype(jnp.result_type(part.leaf)))
    if known:
        raise ValueError(f"no layer here takes {min(known)!r} of the module: names= says which does")
    state = {} if state is None else state
    return (
        tree.map_with_path(lambda path, _: found[path], params),
        tree.map_with_path(lambda path, _: found[_without(path)], state),
    )


def _plain(path: str, leaf: Any) -> np.ndarray:
    """As numpy has it, and PyTorch reads it."""
    found = np.asarray(leaf)
    if found.dtype == object:
        raise ValueError(f"{path} is no array, but {type(leaf).__name__}")
    return found.astype(np.float32) if found.dtype == jnp.bfloat16 else found


def _theirs(array: Any) -> np.ndarray:
    """A tensor may have gradients, lie on a device, or have a dtype that numpy has not."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if str(array.dtype).endswith("bfloat16") else array
    return np.asarray(array)


def _without(path: str) -> str:
    """Linen keeps statistics in a collection of their own, under the paths of the parameters' layers."""
    return path.removeprefix("batch_stats/")


def _parts(params: Params, state: Any, names: Mapping[str, str] | None) -> dict[str, list[_Part]]:
    """What each array of PyTorch is put together from."""
    leaves = dict(zip(tree.paths(params), jax.tree.leaves(params), strict=True))
    statistics = dict(zip(map(_without, tree.paths(state or {})), jax.tree.leaves(state or {}), strict=True))
    if both := sorted(leaves.keys() & statistics.keys()):
        raise ValueError(f"{both[0]} is in the parameters and in the state: leave one of them out")
    leaves |= statistics
    layers = {path.rpartition("/")[0] for path in leaves}
    roles = {layer: layer.rpartition("/")[2] for layer in layers if layer.rpartition("/")[2] in (*_STACKED, "out")}
    above = [layer.rpartition("/")[0] for layer in roles]
    attention = {layer for layer in above if above.count(layer) == len(_STACKED) + 1}
    roles = {layer: role for layer, role in roles.items() if layer.rpartition("/")[0] in attention}
    layers = (layers - roles.keys()) | attention
    for layer, called in (names or {}).items():
        if layer not in layers:
            raise ValueError(f"names= has {layer!r}, which is no layer here: there are {', '.join(sorted(layers))}")
        if not (isinstance(called, str) and called):
            raise ValueError(f"names= has {called!r} for {layer!r}: give a name, such as 'net.0'")
    known = {layer: layer.replace("/", ".") for layer in layers} | dict(names or {})
    found: dict[str, list[_Part]] = {}
    for path, leaf in leaves.items():
        layer, _, last = path.rpartition("/")
        name, shape = _RENAMED.get(last, last), np.shape(leaf)
        if role := roles.get(layer):
            layer, name = layer.rpartition("/")[0], f"in_proj_{name}" if role in _STACKED else f"{role}_proj.{name}"
            shape = _joined(path, role, shape)
        elif last == "bias" and len(shape) > 1:
            raise ValueError(
                f"{path} is {list(shape)}: of several networks side by side take one, jax.tree.map(lambda leaf: "
                "leaf[0], params); and a DenseGeneral is no layer of PyTorch"
            )
        part = _Part(".".join(filter(None, (known[layer], name))), path, leaf, shape)
        found.setdefault(part.name, []).append(part)
    for name, parts in found.items():
        stacked = name.rpartition(".")[2].startswith("in_proj_")
        if stacked and len(parts) < len(_STACKED):
            raise ValueError(
                f"{name!r} in PyTorch is of {', '.join(_STACKED)} together, and here is {parts[0].path} alone"
            )
        if stacked:
            parts.sort(key=lambda part: _STACKED.index(part.path.split("/")[-2]))
        elif len(parts) > 1:
            raise ValueError(
                f"{parts[0].path} and {parts[1].path} are both {name!r} in PyTorch: tell them apart (names=)"
            )
    return found


def _joined(path: str, role: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the axis of heads."""
    if path.endswith("bias"):
        return (math.prod(shape),)
    joined = (shape[0], math.prod(shape[1:])) if role in _STACKED else (math.prod(shape[:-1]), shape[-1])
    if joined[0] != joined[1]:
        raise ValueError(f"{path} is {list(shape)}: attention of PyTorch has as many inputs as its heads have together")
    return joined
