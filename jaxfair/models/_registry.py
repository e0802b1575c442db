"""Models by name, for flags."""

import difflib
import pathlib
import runpy
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxfair.models._mobilenet import mobilenet_v2
from jaxfair.models.cifar_resnet import cifar_resnet20, cifar_resnet32, cifar_resnet56
from jaxfair.models.mlp import mlp
from jaxfair.models.resnet import resnet18, resnet34, resnet50
from jaxfair.models.vit import vit_tiny
from jaxfair.typing import Model

#: ``name -> make(num_classes, **options)``. Add your own.
REGISTRY: dict[str, Callable[..., Model]] = {
    "mlp": mlp,
    "cifar_resnet20": cifar_resnet20,
    "cifar_resnet32": cifar_resnet32,
    "cifar_resnet56": cifar_resnet56,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "vit_tiny": vit_tiny,
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
      UnknownModel: for a name that is not known, a file that is not there or that cannot be run, or a function that is
        not in it, that fails, or that gives no `Model`.

    Example:
      >>> build("mlp", 10, hidden=(32,)).prunable("Dense_0/kernel")
      True
    """
    file, _, function = name.rpartition(":")
    if file.endswith(".py"):
        return _of_file(pathlib.Path(file), function, num_classes, **options)
    if name not in REGISTRY:
        raise UnknownModel(f"there is no model {name!r}; choose from {', '.join(REGISTRY)}, or give FILE.py:FUNCTION")
    return REGISTRY[name](num_classes, **options)


def _of_file(file: pathlib.Path, function: str, num_classes: int, **options: Any) -> Model:
    if not file.is_file():
        raise UnknownModel(f"there is no file {str(file)!r} to take the model {function!r} from")
    try:
        found = runpy.run_path(str(file))
    except (Exception, SystemExit) as error:
        raise UnknownModel(f"{str(file)!r} cannot be run: {_said(error)}") from error
    if not callable(found.get(function)):
        near = difflib.get_close_matches(function, [name for name, value in found.items() if callable(value)], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownModel(f"{str(file)!r} has no function {function!r} that makes a model{hint}")
    try:
        model = found[function](num_classes, **options)
    except (Exception, SystemExit) as error:
        raise UnknownModel(
            f"{function!r} of {str(file)!r} fails when it is called with {num_classes}, the number of classes: "
            f"{_said(error)}"
        ) from error
    if not isinstance(model, Model):
        raise UnknownModel(
            f"{function!r} of {str(file)!r} gives a {type(model).__name__}, not a Model: put a module behind "
            "jaxfair.models.linen or .nnx, or functions behind jaxfair.typing.Model"
        )
    return model


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def resized(model: Model) -> Model:
    """The same network with as many channels, hidden units and heads as its parameters have.

    Flax fixes the widths of a module when it is built and refuses other parameters. This takes them from the kernels
    instead, layer by layer, so that a network from which `jaxfair.sparsity.remove_channels` took channels runs with
    the smaller products.

    Args:
      model: a `Model` of a Linen module: its dense layers, convolutions and attention are resized, and what follows
        the size of its input (norms) follows.

    Returns:
      The `Model`; its ``init`` is unchanged, and makes the full size.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = build("mlp", 2, hidden=(8,))
      >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 5)))
      >>> first, last = params["Dense_0"], params["Dense_1"]
      >>> params["Dense_0"] = {"bias": first["bias"][:3], "kernel": first["kernel"][:, :3]}
      >>> params["Dense_1"] = {"bias": last["bias"], "kernel": last["kernel"][:3]}
      >>> resized(model).apply(params, state, jnp.zeros((4, 5)), train=False)[0].shape
      (4, 2)
    """

    def fitted(function):
        def called(*args, **kwargs):
            with nn.intercept_methods(_fit):
                return function(*args, **kwargs)

        return called

    split = model.split and model.split._replace(features=fitted(model.split.features))
    return model._replace(apply=fitted(model.apply), split=split)


def _fit(call, args, kwargs, context):
    """Calls a layer as if it had been built with the widths of its parameters."""
    module = context.module
    has = context.method_name == "__call__" and module.has_variable("params", "kernel")
    if has and isinstance(module, nn.Conv):
        per_group, features = module.get_variable("params", "kernel").shape[-2:]
        widths = {
            "features": features,
            "feature_group_count": args[0].shape[-1] // per_group,
        }
    elif has and isinstance(module, nn.Dense):
        widths = {"features": module.get_variable("params", "kernel").shape[-1]}
    elif isinstance(module, nn.MultiHeadDotProductAttention) and context.method_name == "__call__":
        _, heads, size = module.get_variable("params", "query")["kernel"].shape
        # `out_features` is that of the input, also where a head less makes the products smaller.
        widths = {"num_heads": heads, "qkv_features": heads * size}
    else:
        return call(*args, **kwargs)
    if all(getattr(module, name) == value for name, value in widths.items()):
        return call(*args, **kwargs)
    return module.clone(parent=module.scope, **widths)(*args, **kwargs)
