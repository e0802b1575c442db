"""Models by name, for flags."""

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


def build(name: str, num_classes: int, **options: Any) -> Model:
    """The model of that name.

    Args:
      name: a key of `REGISTRY`.
      num_classes: C.
      **options: keyword arguments of the model's own function.

    Returns:
      The `Model`.

    Raises:
      ValueError: for a name that is not known.

    Example:
      >>> build("mlp", 10, hidden=(32,)).prunable("Dense_0/kernel")
      True
    """
    if name not in REGISTRY:
        raise ValueError(f"there is no model {name!r}; the known ones are {', '.join(REGISTRY)}")
    return REGISTRY[name](num_classes, **options)


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
