"""A Flax Linen module as a `Model`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxfair.typing import Model, Split


def linen(module: nn.Module, *, prunable: Callable[[str], bool], head: str | None = None) -> Model:
    """Puts a Linen module behind the seam that the library sees.

    Args:
      module: its ``__call__(x, *, train)`` gives the logits ``[B, C]``. Dropout and the like draw
        from the stream called ``"dropout"``.
      prunable: which leaves of the parameters may be pruned, from a path such as
        ``"Conv_0/kernel"``.
      head: the path of the last layer, such as ``"Dense_2"``: an ``nn.Dense`` whose output is the logits. The model is
        then cut before it (``split``); what the features are is seen, not guessed: whatever the layer is called with.

    Returns:
      The `Model`. Its state is the dict of the module's other collections, such as
      ``{"batch_stats": ...}``, or ``{}``.

    Raises:
      ValueError: in ``init``, for a ``head`` that is no such layer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> class Linear(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x, *, train):
      ...         return nn.Dense(2)(x)
      >>> model = linen(Linear(), prunable=lambda path: path.endswith("kernel"))
      >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
      >>> jax.tree.map(jnp.shape, params), state
      ({'Dense_0': {'bias': (2,), 'kernel': (3, 2)}}, {})
    """

    def init(key, x):
        if head is None:
            state = dict(module.init({"params": key}, x, train=False))
        else:
            watch = _Watch(head)
            with nn.intercept_methods(watch):
                logits, state = module.init_with_output({"params": key}, x, train=False)
            watch.check(logits)
            state = dict(state)
        params = state.pop("params")
        return params, state

    def apply(params, state, x, *, train, key=None) -> tuple[Any, Any]:
        variables = {"params": params, **state}
        rngs = None if key is None else {"dropout": key}
        if not (train and state):
            return module.apply(variables, x, train=train, rngs=rngs), state
        logits, new_state = module.apply(variables, x, train=train, rngs=rngs, mutable=list(state))
        return logits, dict(new_state)

    return Model(init, apply, prunable, None if head is None else _split(apply, head))


def _split(apply: Callable[..., Any], head: str) -> Split:
    """The network in two: what the last layer reads in a run of the whole, and that layer alone."""

    def features(params, state, x, *, train, key=None):
        watch = _Watch(head)
        with nn.intercept_methods(watch):
            _, state = apply(params, state, x, train=train, key=key)
        return watch.read(), state

    def last(params, z):
        for name in head.split("/"):
            params = params[name]
        layer = nn.Dense(params["kernel"].shape[-1], use_bias="bias" in params, dtype=z.dtype)
        out: Any = layer.apply({"params": params}, z)
        return out.astype(jnp.float32)

    return Split(features, last, lambda path: path.startswith(f"{head}/"))


class _Watch:
    """An interceptor that sees what the last layer is called with, and what it gives."""

    def __init__(self, head: str) -> None:
        self.head, self.names, self.calls, self.layer = head, [], [], None

    def __call__(self, call, args, kwargs, context):
        out = call(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__" and module.path:
            path = "/".join(module.path)
            self.names.append(path)
            if path == self.head:
                self.layer = module
                self.calls.append(((args or tuple(kwargs.values()))[0], out))
        return out

    def read(self) -> Any:
        """``z`` in the dtype that the layer computes in, to which it would bring it itself."""
        self.check()
        z, out = self.calls[0]
        return z.astype(out.dtype)

    def check(self, logits: Any = None) -> None:
        """Raises where the layer is not there, is no plain dense one, or is not the last."""
        if not self.calls:
            names = ", ".join(dict.fromkeys(self.names)) or "none"
            raise ValueError(f"head={self.head!r} is no layer of the module: choose from {names}.")
        layer = self.layer
        plain = isinstance(layer, nn.Dense) and layer.precision is layer.dot_general is None
        # A layer that is resized is called once more, with the same input.
        once = all(z is self.calls[0][0] for z, _ in self.calls)
        # In float32 nothing is done to the output of the last layer: it is the very array.
        last = logits is None or logits is self.calls[-1][1] or logits.dtype != self.calls[-1][1].dtype
        if not (plain and once and last and self.calls[0][0].ndim == 2):
            raise ValueError(
                f"head={self.head!r} must be an nn.Dense that is called once, on [B, F], and gives the logits: give "
                "another layer, or _replace(split=typing.Split(features, head, in_head)) of your own."
            )
