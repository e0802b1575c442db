r"""What a weight is worth: a score per weight, of which the largest are kept.

A score is a plain function ``score(weights, gradients)`` of two arrays of one shape, or a `Score`, where it also
remembers something from step to step. ``gradients`` is None where there are none: in ``init``, that is where a
schedule is above 0 at step 0, and in `one_shot` without ``gradients=``. Where the sparsity is 0 nothing is ranked and
no score is asked. Scores are floats of the weights' shape; a nan ranks above every number.

==============  ===========================================  ==============================================
score           of a weight w with the gradient g            what it needs
==============  ===========================================  ==============================================
`magnitude`     :math:`|w|`                                  nothing
`random`        a number drawn once                          a key
`saliency`      :math:`|w g|`                                gradients of this step
`movement`      :math:`-\sum_t w_t g_t`                      every step's gradients; it remembers the sum
`fisher`        :math:`w^2 \bar{g^2}`                        every step's gradients; it remembers the mean
`adam_fisher`   :math:`w^2 \nu`                              an inner optimizer of Adam's kind
==============  ===========================================  ==============================================

Scores that look at the whole network at once stand in files of their own and are trees, for `one_shot` or for
``score_grads=``: `snip`, `grasp`, `synflow`, `wanda`, `fairgrape`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import ArrayLike, Float

from jaxfair.sparsity import _axes
from jaxfair.typing import Array, Key


class Score(NamedTuple):
    """A score that remembers, or that looks at something else than the gradient.

    Attributes:
      value: ``value(weights, gradients, memory)``, an array of the weights' shape; the largest are kept.
      init: ``init(weights, position)``, what it remembers of a leaf at first, any pytree of arrays; `position` is
        the leaf's number among the prunable ones, to draw other numbers for each.
      observe: ``observe(memory, weights, gradients)``, the new memory, at every step; None where it is not asked.
      signal: ``signal(gradients, inner_state)``, the tree that `value` and `observe` get as ``gradients``; None for
        the gradients themselves.

    Example:
      The variance of a weight over time, of which the smallest are pruned:

      >>> variance = Score(
      ...     value=lambda w, g, m: m[1] - m[0] ** 2,
      ...     init=lambda w, position: (w, w**2),
      ...     observe=lambda m, w, g: (0.9 * m[0] + 0.1 * w, 0.9 * m[1] + 0.1 * w**2))
      >>> memory = variance.observe(variance.init(jnp.array([1.0, 1.0]), 0), jnp.array([1.0, 2.0]), None)
      >>> print(variance.value(None, None, memory).round(2))
      [0.   0.09]
    """

    value: Callable[[Array, Array | None, Any], Array]
    init: Callable[[Array, int], Any] = lambda weights, position: ()
    observe: Callable[[Any, Array, Array], Any] | None = None
    signal: Callable[[Any, Any], Any] | None = None


def as_score(score: "Score | Callable[[Array, Array | None], Array]") -> Score:
    """A plain function as a `Score`; a `Score` as it is.

    Example:
      >>> as_score(magnitude).value(jnp.array([-2.0]), None, ()).tolist()
      [2.0]
    """
    if isinstance(score, Score):
        return score
    _axes.refuse_factory("score", score, Score)
    if isinstance(score, tuple) or not callable(score):  # a member of another axis, or none
        return _axes.member("score", score, Score)
    return Score(value=lambda weights, gradients, memory: score(weights, gradients))


@_axes.value("score")
def magnitude(weights: Float[Array, "..."], gradients: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
    """The absolute value of the weight.

    Args:
      weights: ``[...]``.
      gradients: not used.

    Returns:
      ``[...]``, in the weights' dtype.

    Example:
      >>> magnitude(jnp.array([-2.0, 1.0])).tolist()
      [2.0, 1.0]
    """
    del gradients
    return jnp.abs(weights)


@_axes.value("score")
def saliency(weights: Float[Array, "..."], gradients: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
    """To first order, how much the loss changes when the weight is removed: ``|weight * gradient|``.

    Args:
      weights: ``[...]``.
      gradients: ``[...]``, of the loss by the weights, as they came from the loss and before any
        optimizer.

    Returns:
      ``[...]``, in the weights' dtype.

    Raises:
      ValueError: without gradients, that is at step 0.

    Example:
      >>> saliency(jnp.array([-2.0, 1.0]), jnp.array([0.5, 3.0])).tolist()
      [1.0, 3.0]

    References:
      Molchanov et al., *Pruning convolutional neural networks for resource efficient inference*,
      2017.
    """
    return jnp.abs(weights * _needed(gradients, "saliency").astype(weights.dtype))


def random(key: Key) -> Score:
    """A number per weight, uniform in [0, 1), drawn once in ``init``.

    As the numbers stay, masks at rising sparsities are nested, and each is a uniformly random choice. With
    `constant` at step 0 this is static sparse training: a random mask that never changes.

    Args:
      key: of ``jax.random.key``. The numbers live in the state, so that seeds may be vmapped over ``init``.

    Returns:
      The `Score`.

    Example:
      >>> import optax
      >>> from jaxfair import sparsity
      >>> static = sparsity.prune(
      ...     optax.sgd(0.1), sparsity.constant(0.75), score=random(jax.random.key(1)), prunable=lambda path: True)
      >>> int(sparsity.get_masks(static.init({"w": jnp.ones((4, 4))}))["w"].sum())
      4
    """

    def init(weights, position):
        return jax.random.uniform(jax.random.fold_in(key, position), weights.shape)

    return Score(value=lambda weights, gradients, memory: memory, init=init)


def movement() -> Score:
    r"""How far a weight has moved away from zero: :math:`-\sum_t w_t g_t`, over all steps.

    Weights that training shrinks are pruned, whatever their size; made for fine-tuning, where the
    sizes come from another task. The learning rate is left out: a constant one does not change the order, and a
    falling one would weigh the first steps more.

    Returns:
      The `Score`.

    Example:
      The second weight is larger, but it shrinks:

      >>> score, w = movement(), jnp.array([0.5, 2.0])
      >>> memory = score.observe(score.init(w, 0), w, jnp.array([-1.0, 1.0]))
      >>> score.value(w, None, memory).tolist()
      [0.5, -2.0]

    References:
      Sanh, Wolf, Rush, *Movement pruning: adaptive sparsity by fine-tuning*, 2020. There the masked weights are
      trained straight through; see `straight_through` for that.
    """
    return Score(
        value=lambda weights, gradients, memory: memory,
        init=lambda weights, position: _sums(weights),
        observe=lambda memory, weights, gradients: (
            memory - weights.astype(memory.dtype) * gradients.astype(memory.dtype)
        ),
    )


def _sums(weights: Array) -> Array:
    """Zeros of at least 32 bits: a sum of 16 bits stands still at 256 times what is added."""
    return jnp.zeros_like(weights, jnp.promote_types(weights.dtype, jnp.float32))


def fisher(decay: ArrayLike = 0.99) -> Score:
    r"""The diagonal of the empirical Fisher matrix: :math:`w^2 \bar{g^2}`, to second order the loss of its removal.

    The mean of squares runs over minibatch gradients: it is not the Fisher of single examples, but B times smaller
    plus the square of the mean, as in all work that takes it from training.

    Args:
      decay: of the exponential mean, in [0, 1). Its start at 0 scales all scores alike.

    Returns:
      The `Score`.

    Raises:
      ValueError: for a decay outside of [0, 1).

    Example:
      >>> score, w = fisher(0.5), jnp.array([1.0, 2.0])
      >>> memory = score.observe(score.init(w, 0), w, jnp.array([4.0, 1.0]))
      >>> score.value(w, None, memory).tolist()
      [8.0, 2.0]

    References:
      Theis et al., *Faster gaze prediction with dense networks and Fisher pruning*, 2018.
    """
    number: Any = decay
    if not isinstance(number, Tracer) and not 0 <= number < 1:
        raise ValueError(f"decay must be in [0, 1), but it is {decay}; 0.99 remembers 100 steps")

    def observe(memory, weights, gradients):
        share = decay if type(decay) in (int, float) else jnp.asarray(decay, memory.dtype)
        return share * memory + (1 - share) * jnp.square(gradients.astype(memory.dtype))

    return Score(
        value=lambda weights, gradients, memory: jnp.square(weights.astype(memory.dtype)) * memory,
        init=lambda weights, position: _sums(weights),
        observe=observe,
    )


def adam_fisher() -> Score:
    r"""`fisher` for nothing: :math:`w^2 \nu` with the second moment that Adam keeps anyway.

    Returns:
      The `Score`. The inner optimizer must have one moment called ``nu`` in its state (adam, adamw, lamb, ...).

    Example:
      >>> import optax
      >>> from jaxfair import sparsity
      >>> tx = sparsity.prune(
      ...     optax.adam(0.1), sparsity.constant(0.5, begin=1), score=adam_fisher(), prunable=lambda path: True)
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> _, state = tx.update({"w": jnp.array([9.0, 1.0])}, tx.init(params), params)
      >>> sparsity.get_masks(state)["w"].tolist()
      [True, False]
    """

    def signal(gradients, inner_state):
        nu = optax.tree.get_all_with_path(inner_state, "nu")
        if len(nu) != 1:
            raise ValueError(
                f"adam_fisher needs an inner optimizer with one second moment, but its state has {len(nu)} called nu; "
                "use fisher(), which keeps its own"
            )
        return nu[0][1]

    def value(weights, gradients, memory):
        return jnp.square(weights) * _needed(gradients, "adam_fisher").astype(weights.dtype)

    return Score(value=value, signal=signal)


def _needed(gradients: Array | None, name: str) -> Array:
    if gradients is None:
        raise ValueError(
            f"{name} needs gradients and there are none: in init there are none yet, so begin the schedule at step 1 "
            "or later; one_shot takes gradients="
        )
    return gradients
