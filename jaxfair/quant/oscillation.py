r"""Oscillation as a help: a regulariser that pushes weights away from their level, as quantisation-aware training does.

In a linear model with the squared error :math:`L(w) = E[(w x - y)^2]` and :math:`S = E[x^2]`, the straight-through
gradient is

.. math:: \nabla L(q(w)) = \nabla L(w) + 2 S\, (q(w) - w),

the gradient of the float loss and a term that takes a step of descent *away* from the nearest level, until the weight
crosses a threshold and the term changes its sign. The regulariser is that term alone, and the forward pass is a float
one:

.. math::

   R(W) = \lambda \sum_l \frac{1}{N_l} \sum_i \big( q(W_l)_i^2 - W_{l,i}^2 \big), \qquad
   \frac{\partial R}{\partial W_{l,i}} = \frac{2 \lambda}{N_l}\, (q_i - W_{l,i})

with the mean over the :math:`N_l` weights of a layer, the sum over layers, and rounding counted as the identity. With
:math:`\lambda = S` the model of one weight *is* quantisation-aware training, step for step.

The step s of the quantiser is that of its largest weight. In the authors' code it is no constant, and that weight gets

.. math:: \frac{\partial s}{\partial W_k} \cdot \frac{2 \lambda}{N_l} \sum_i q_i\, \frac{q_i - W_{l,i}}{s}

on top. ``scale_gradient=True`` is their regulariser, False (the default) is the equation above.

How this differs from the authors' code: a transformation of gradients, not a loss, so that it costs no pass through the
network; norms and biases are left out unless they are asked for (there, every module with a ``weight``, BatchNorm
included, unless its name is excluded); any quantiser.

`add_dampening` is the contrary remedy, against oscillation: it draws weights to their levels,

.. math:: \lambda \sum_l \sum_i (q_i - W_{l,i})^2, \qquad \text{gradient } 2 \lambda (W_{l,i} - q_i)

with the levels as constants, a sum over all weights, and nothing for a weight that is clipped.

References:
  Wenshøj, Pepin, Selvan, `Oscillations Make Neural Networks Robust to Quantization
  <https://arxiv.org/abs/2502.00490>`_, 2025. Nagel, Fournarakis, Bondarenko, Blankevoort, `Overcoming Oscillations in
  Quantization-Aware Training <https://arxiv.org/abs/2203.11086>`_, 2022, for dampening.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from jaxfair.quant import _numbers
from jaxfair.quant._quantizer import Quantizer, calibrate, fake_quantize, inside, quantize
from jaxfair.quant._trees import bits_of, chosen, quantizable
from jaxfair.typing import Array, Params


def add_oscillation(
    strength: ArrayLike | Callable[[Any], Any],
    bits: Any,
    *,
    quantizer: Quantizer = Quantizer(),  # noqa: B008, a constant
    quantized: Callable[[str], bool] = quantizable,
    scale_gradient: bool = False,
) -> optax.GradientTransformation:
    r"""Adds the gradient of the oscillation regulariser, as `optax.add_decayed_weights` adds that of weight decay.

    Args:
      strength: :math:`\lambda`, at least 0; a number, which may be traced, or a schedule of the step.
      bits: b that the network is to be robust for, for all leaves or by path; may be traced.
      quantizer: how; the authors' is the default.
      quantized: which leaves, from a path; by default weights, but no norms and biases.
      scale_gradient: whether the largest weight of each scale gets the gradient of the step, too.

    Returns:
      The transformation; it stands before the optimizer: ``optax.chain(add_oscillation(1.0, 3), optax.adam(1e-3))``.
      ``update`` needs the parameters.

    Raises:
      ValueError: for a strength below 0, bits that are none, no leaf; in ``update`` without parameters.
      TypeError: as `grids`.

    Example:
      The level of 0.6 is 1, and a step of descent takes it down, away from there:

      >>> tx = add_oscillation(1.0, 2)
      >>> params = {"kernel": jnp.array([1.0, 0.6])}
      >>> updates, _ = tx.update({"kernel": jnp.zeros(2)}, tx.init(params), params)
      >>> updates["kernel"].round(3).tolist()
      [0.0, 0.4000000...]
    """

    def pull(w: Array, width: Any) -> Array:
        if not scale_gradient:
            return 2 * (quantize(w, calibrate(w, width, quantizer)) - w) / w.size
        return jax.grad(_penalty)(w, width, quantizer)

    return _added("strength", strength, bits, quantizer, quantized, pull)


def _penalty(w: Array, bits: Any, quantizer: Quantizer) -> Array:
    """The mean of q(w)² - w², whose derivative goes through the step as well."""
    level = fake_quantize(w, calibrate(w, bits, quantizer), scale_gradient=True)
    return jnp.mean(jnp.square(level) - jnp.square(w))


def oscillation(
    params: Params,
    bits: Any,
    *,
    quantizer: Quantizer = Quantizer(),  # noqa: B008, a constant
    quantized: Callable[[str], bool] = quantizable,
) -> Array:
    r"""The regulariser itself, with :math:`\lambda = 1`: the sum over layers of the mean of :math:`q^2 - w^2`.

    Args:
      params: the parameters.
      bits: as in `add_oscillation`.
      quantizer: as there.
      quantized: as there.

    Returns:
      ``[]``. Its gradient is what `add_oscillation` adds with ``scale_gradient=True``.

    Raises:
      ValueError: as `grids`.

    Example:
      >>> params = {"kernel": jnp.array([1.0, 0.5]), "bias": jnp.ones(1)}
      >>> oscillation(params, 3), jax.grad(oscillation)(params, 3)["bias"]
      (Array(0.09722..., dtype=float32), Array([0.], dtype=float32))
    """
    places = chosen(params, quantized)
    leaves, widths = jax.tree.leaves(params), bits_of(bits, list(places))
    return sum((_penalty(leaves[i], widths[path], quantizer) for path, i in places.items()), jnp.zeros(()))


def add_dampening(
    strength: ArrayLike | Callable[[Any], Any],
    bits: Any,
    *,
    quantizer: Quantizer = Quantizer(),  # noqa: B008, a constant
    quantized: Callable[[str], bool] = quantizable,
) -> optax.GradientTransformation:
    r"""Adds the gradient that draws weights to their levels, against oscillation.

    Args:
      strength: :math:`\lambda`, at least 0; a number or a schedule of the step. The authors let it grow.
      bits: b; may be traced.
      quantizer: how.
      quantized: which leaves, from a path.

    Returns:
      The transformation; it stands before the optimizer, and goes with `quantized`.

    Raises:
      ValueError: as `add_oscillation`.
      TypeError: as `grids`.

    Example:
      >>> tx = add_dampening(1.0, 2)
      >>> params = {"kernel": jnp.array([1.0, 0.75])}
      >>> tx.update({"kernel": jnp.zeros(2)}, tx.init(params), params)[0]["kernel"].tolist()
      [0.0, -0.5]
    """

    def pull(w: Array, width: Any) -> Array:
        grid = calibrate(w, width, quantizer)
        return jnp.where(inside(w, grid), 2 * (w - quantize(w, grid)), jnp.zeros_like(w))

    return _added("strength", strength, bits, quantizer, quantized, pull)


def _added(
    name: str,
    strength: Any,
    bits: Any,
    quantizer: Quantizer,
    quantized: Callable[[str], bool],
    pull: Callable[[Array, Any], Array],
) -> optax.GradientTransformation:
    """A transformation that adds ``strength * pull(weights, bits)`` to the gradients of the chosen leaves."""
    quantizer.checked()
    if not callable(strength):
        _numbers.within(name, strength, 0)

    def init_fn(params):
        bits_of(bits, list(chosen(params, quantized)))
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError("this transformation needs the parameters; call update(grads, state, params)")
        now = strength(state.count) if callable(strength) else strength
        places = chosen(params, quantized)
        widths, leaves = bits_of(bits, list(places)), jax.tree.leaves(params)
        gradients, treedef = jax.tree.flatten(updates)
        for path, i in places.items():
            more = pull(leaves[i], widths[path])
            gradients[i] = gradients[i] + (jnp.asarray(now, more.dtype) * more).astype(gradients[i].dtype)
        count = jnp.asarray(optax.safe_increment(state.count))
        return jax.tree.unflatten(treedef, gradients), optax.ScaleByScheduleState(count=count)

    return optax.GradientTransformation(init_fn, update_fn)
