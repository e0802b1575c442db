"""Models by name, for flags."""

import pathlib
import runpy
from collections.abc import Callable
from typing import Any

import jax

from jaxfair import tree
from jaxfair.models.cifar_resnet import cifar_resnet20, cifar_resnet32, cifar_resnet56
from jaxfair.models.mlp import mlp
from jaxfair.typing import Model

#: ``name -> make(num_classes, **options)``. Add your own.
REGISTRY: dict[str, Callable[..., Model]] = {
    "mlp": mlp,
    "cifar_resnet20": cifar_resnet20,
    "cifar_resnet32": cifar_resnet32,
    "cifar_resnet56": cifar_resnet56,
}


class UnknownModel(ValueError):
    """A name that leads to no model; the message is one line that says which do.

    Example:
      >>> try:
      ...     build("resnet", 10)
      ... except UnknownModel as error:
      ...     print(str(error)[:28])
      there is no model 'resnet';
    """


def build(name: str, num_classes: int, **options: Any) -> Model:
    """The model of that name, or the one that a file of the user's makes.

    Args:
      name: a key of `REGISTRY`, or ``"path/to/file.py:function"``. The file is run, so that it may import what it
        likes, and ``function(num_classes, **options)`` gives the `Model`.
      num_classes: C.
      **options: keyword arguments of the model's own function.

    Returns:
      The `Model`.

    Raises:
      UnknownModel: for a name that is not known, a file that is not there, or a function that is not in it.

    Example:
      >>> build("mlp", 10, hidden=(32,)).prunable("Dense_0/kernel")
      True
    """
    file, _, function = name.rpartition(":")
    if file.endswith(".py"):
        return _in_file(pathlib.Path(file), function)(num_classes, **options)
    if name not in REGISTRY:
        raise UnknownModel(
            f"there is no model {name!r}; choose from {', '.join(REGISTRY)}, or give FILE.py:FUNCTION"
        )
    return REGISTRY[name](num_classes, **options)


def _in_file(file: pathlib.Path, function: str) -> Callable[..., Model]:
    if not file.is_file():
        raise UnknownModel(f"there is no file {str(file)!r} to take the model {function!r} from")
    found = runpy.run_path(str(file))
    if not callable(found.get(function)):
        raise UnknownModel(f"{str(file)!r} has no function {function!r} that makes a model")
    return found[function]


def num_parameters(model: Model, x: Any) -> int:
    """The number of parameters, without computing any of them.

    Args:
      model: any `Model`.
      x: one batch of inputs, or its `jax.ShapeDtypeStruct`.

    Returns:
      A Python integer; model state (BatchNorm statistics) is not counted.

    Example:
      >>> import jax.numpy as jnp
      >>> num_parameters(build("mlp", 2, hidden=(8,)), jax.ShapeDtypeStruct((1, 5), jnp.float32))
      66
    """
    params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    return tree.size(params)
