"""Networks as training hands them on: parameters and model state, one network or a row of them; and their files."""

import io
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import files, tree
from jaxfair.typing import ModelState, Params


class Networks(NamedTuple):
    """A network, or a row of networks side by side.

    Attributes:
      params: parameters; every leaf has a leading axis ``[S, ...]`` where there are several.
      model_state: BatchNorm statistics and the like, likewise; ``{}`` where there is none.
    """

    params: Params
    model_state: ModelState


def network_of(state: Any) -> Networks:
    """The network in a solver's state: its ``params``, and the model state where there is one.

    Args:
      state: of any :class:`jaxfair.typing.Solver`. The model state is ``state.model_state`` or
        ``state.carry.model_state``, and ``{}`` if it has neither.

    Example:
      >>> import collections
      >>> State = collections.namedtuple("State", ["params", "step"])
      >>> network_of(State(params={"w": 1.0}, step=0))
      Networks(params={'w': 1.0}, model_state={})
    """
    carry = getattr(state, "carry", None)
    model_state = getattr(state, "model_state", getattr(carry, "model_state", {}))
    return Networks(state.params, model_state)


def spoilt(params: Params, failed: Any, masks: Any = None) -> Params:
    """Parameters that are nan where training failed: such a network is right about nobody, whoever looks at it.

    A lane that fails goes back to where a call began, which may be its start: a network that nobody asked for.

    Args:
      params: ``[S, ...]``.
      failed: ``[S]`` bool.
      masks: ``[S, ...]``, True = kept; what is pruned stays 0.

    Example:
      >>> spoilt({"w": jnp.ones((2, 2))}, jnp.array([False, True]))["w"].tolist()
      [[1.0, 1.0], [nan, nan]]
    """
    return _spoilt(params, failed, masks)


@jax.jit  # so that all leaves are one program
def _spoilt(params: Params, failed: Any, masks: Any) -> Params:
    def leaf(values: Any, mask: Any) -> Any:
        def wide(flags: Any) -> Any:
            return jnp.asarray(flags).reshape(*np.shape(flags), *[1] * (values.ndim - np.ndim(flags)))

        return jnp.where(wide(failed) & (wide(mask) != 0), jnp.nan, values)

    every = jax.tree.map(lambda values: np.ones(len(values), bool), params) if masks is None else masks
    return jax.tree.map(leaf, params, every)


def save(path: str | os.PathLike[str], networks: Any) -> None:
    """Writes networks to a ``.npz`` file, an array for each leaf by its path; the file is whole or not there.

    Args:
      path: of the file; missing folders are made.
      networks: :class:`Networks`, or any pytree of arrays.

    Example:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "dense.npz"
      >>> save(path, Networks({"w": jnp.arange(2.0)}, {}))
      >>> load(path, Networks({"w": jnp.zeros(2)}, {}))
      Networks(params={'w': Array([0., 1.], dtype=float32)}, model_state={})
    """
    leaves = zip(tree.names(networks), jax.tree.leaves(networks), strict=True)
    content = io.BytesIO()
    arrays: dict[str, Any] = {path: np.asarray(leaf) for path, leaf in leaves}
    np.savez(content, **arrays)
    files.atomic_write(path, content.getvalue())


def load(path: str | os.PathLike[str], like: Any) -> Any:
    """Reads what :func:`save` wrote.

    Args:
      path: of the file.
      like: a pytree of the same structure, shapes and dtypes (``jax.eval_shape`` gives one); its values do not matter.

    Returns:
      The tree, its leaves `jax.Array`.

    Raises:
      DamagedError: for a file that is not whole.
      ValueError: where the file holds another network, naming the first leaf that differs.

    Example:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "dense.npz"
      >>> save(path, {"w": jnp.zeros(2)})
      >>> load(path, {"w": jnp.zeros(3)})
      Traceback (most recent call last):
        ...
      ValueError: .../dense.npz holds another network (w is float32[2] there and float32[3] here): remove it or ...
    """
    leaves, treedef = jax.tree.flatten(like)
    found, arrays = [], files.arrays(path, "remove it, and the networks are trained again")
    for name, leaf in zip(tree.names(like), leaves, strict=True):
        dtype = np.dtype(leaf.dtype)
        array = arrays.get(name)
        if array is not None and array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
            array = array.view(dtype)  # NumPy does not know bfloat16 by its name
        here = f"{dtype}{list(leaf.shape)}"
        there = "missing" if array is None else f"{array.dtype}{[*array.shape]}"
        if there != here:
            raise ValueError(
                f"{path} holds another network ({name} is {there} there and {here} here): "
                "remove it or give another file."
            )
        found.append(jnp.asarray(array))
    return jax.tree.unflatten(treedef, found)


def from_files(files: Sequence[str | os.PathLike[str]], like: Any, make: Callable[[list[int]], Any]) -> Any:
    """Networks side by side, each read from its file where that is there, else made now and written.

    Args:
      files: S paths, a network each: asked for another seed, those of the others are read.
      like: one network, as of :func:`load`.
      make: ``make(lanes) -> networks [L, ...]``, of those of the S that have no file, in their order.

    Returns:
      The networks, ``[S, ...]``.

    Example:
      >>> import pathlib, tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> make = lambda lanes: print("made:", lanes) or {"w": jnp.float32(lanes)}
      >>> for seeds in (2, 3):
      ...     files = [folder / f"dense_{seed}.npz" for seed in range(seeds)]
      ...     found = from_files(files, {"w": jnp.float32(0)}, make)
      made: [0, 1]
      made: [2]
      >>> found["w"].tolist()
      [0.0, 1.0, 2.0]
    """
    lanes = [i for i, file in enumerate(files) if not os.path.exists(file)]
    made = make(lanes) if lanes else None
    for number, i in enumerate(lanes):
        save(files[i], jax.tree.map(lambda a, n=number: a[n], made))
    return jax.tree.map(lambda *a: jnp.stack(a), *(load(file, like) for file in files))
