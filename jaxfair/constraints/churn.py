r"""Bounds the share of every group's people whose prediction changes, against what the dense model predicts.

.. math::

   \min_\theta L(\theta) \quad \text{subject to} \quad
   \kappa_g = \frac{1}{n_g} \sum_{i \in g} [\hat c_i(\theta) \ne \hat c_i(d)] \le \kappa \quad \text{for every } g

with :math:`\hat c_i` the predicted class of person i and d the dense model. It is the accuracy gap of a world in which
the dense model is always right: its classes stand for the true ones, in the constraint alone. So the multipliers see
:math:`\kappa_g`, counted on the last prediction of every person, and the weights see the cross entropy to the dense
model's class,

.. math::

   \tilde\kappa_g = \frac{1}{n_g} \sum_{i \in g} -\log p_\theta(\hat c_i(d) \mid x_i)

It is differentiable, and 0 only where everybody is predicted the same class for certain. Whoever is predicted another
class gives at most half of the probability to the dense model's, so :math:`\kappa_g \le \tilde\kappa_g / \log 2`: a
proxy that goes to 0 takes the share with it. It needs one integer a person, no logits; whoever wants to follow the
dense model's probabilities as well has :func:`distillation` as ``loss=``.

==========================  ==========================================================
here                        what it is
==========================  ==========================================================
``limit``                   :math:`\kappa`; the multipliers see ``margin * limit``
``Evaluation.strict``       :math:`\kappa_g - \kappa`
``Evaluation.proxy``        :math:`\tilde\kappa_g - \kappa`
``Aux.estimate``            :math:`1 - \kappa_g`, the share that agrees
==========================  ==========================================================

**What it is and is not.** The constraint needs no labels: it can be kept on people whose class nobody knows (a class
that is none of the C has no loss, and its person still counts here). No group loses more accuracy than the share of its
people whose prediction changed, so it implies a bound on each group's loss. It does not ask who is right: where the
dense model was wrong, it holds the sparse one to the same mistake.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair import metrics
from jaxfair.constraints._groups import GroupOptions, group_problem
from jaxfair.constraints._numbers import check_number
from jaxfair.constraints._objective import Forward
from jaxfair.constraints._people import as_float, check_weights, ids, labelled
from jaxfair.constraints.example_memory import example_memory
from jaxfair.constraints.losses import cross_entropy
from jaxfair.constraints.problem import Carry, Outcomes, Problem, reference
from jaxfair.tree import copied
from jaxfair.typing import Batch, ModelState


class Followed(NamedTuple):
    """What the dense model predicts on the training split; constants of the constraints.

    Attributes:
      label: ``[N]`` int32, its classes.
      prevalence: ``[G]``, each group's share of the split.
    """

    label: jax.Array
    prevalence: jax.Array


def churn(
    apply: Callable[..., Any],
    *,
    num_groups: int,
    limit: ArrayLike,
    margin: ArrayLike = 0.5,
    **options: Unpack[GroupOptions],
) -> Problem:
    r"""The problem that bounds every group's share of changed predictions.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      limit: :math:`\kappa` in ``[0, 1]``, a share of the group's people.
      margin: the multipliers see the limit times this: what they see lags, and is measured in train mode.
      **options: ``loss``, ``memory``, ``proxy``, ``constrained``, ``start``, ``weight_decay`` and ``decayed``, see
        :func:`group_problem`. ``loss`` is the objective; the proxies are cross entropies whatever it is.

    Returns:
      A :class:`Problem` with G constraints. It recommends the plain :func:`lagrangian`. ``init(model_state, outcomes,
      batch, prediction=)`` takes the dense model's classes on the training split ``batch``, ``[N]``; ``outcomes`` is
      not looked at, and may be None.

    Raises:
      ValueError: for an unknown word, or a limit, margin or start out of range; at ``init`` for no classes, or classes
        that are not one integer per person.

    Example:
      Of the three people in group 0 one is predicted another class than before, of the one in group 1 nobody is. Their
      true classes are not known:

      >>> import jax.numpy as jnp
      >>> from jaxfair import constraints
      >>> from jaxfair.typing import Batch
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x * params, state
      >>> x = jnp.array([[0.0, 2.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
      >>> batch = Batch(x, jnp.full(4, -1), jnp.array([0, 0, 0, 1]), jnp.arange(4), jnp.ones(4))
      >>> problem = constraints.churn(apply, num_groups=2, limit=0.1, margin=1.0)
      >>> carry = problem.init({}, None, batch, prediction=jnp.array([0, 0, 0, 1]))
      >>> [round(float(value), 3) for value in problem.evaluate(jnp.ones(()), carry, batch, None).strict]
      [0.233, -0.1]

    References:
      Cotter et al., `Optimization with Non-Differentiable Constraints with Applications to Fairness, Recall, Churn, and
      Other Goals <https://arxiv.org/abs/1809.04198>`_, 2019, bound the churn of everybody; by group, and with this
      proxy, ours.
    """
    check_number(
        limit,
        lambda k: (k >= 0) & (k <= 1) & (k.dtype != bool),
        f"limit={limit}: it bounds a share of a group's people, so give a number between 0 and 1, such as 0.05.",
    )
    check_number(margin, lambda m: (m >= 0) & np.isfinite(m), f"margin={margin}: give a number of at least 0.")
    memory = options["memory"] = options.get("memory") or example_memory(num_groups)

    def strict(agree: Float[Array, " G"], observed: Bool[Array, " G"], ref: Any) -> Float[Array, " G"]:
        del ref
        return jnp.where(observed, 1.0 - agree, 0.0)

    def surrogate(group_loss: Float[Array, " G"], mean_loss: Float[Array, ""], ref: Any) -> Float[Array, " G"]:
        del mean_loss, ref
        return group_loss

    def init(
        model_state: ModelState, outcomes: Outcomes | None, batch: Batch, prediction: ArrayLike | None = None
    ) -> Carry:
        del outcomes
        check_weights(batch.weight)
        weight = as_float(batch.weight)
        label = _classes(prediction, weight.shape)
        same = jnp.ones(weight.shape, jnp.float32)  # nobody has changed yet
        share = reference(Outcomes(same, same), batch.group, weight, num_groups).prevalence
        remembered = memory.init(batch.group, same, batch.weight)
        return copied(Carry(model_state, remembered, Followed(label, share), jnp.zeros((), jnp.int32)))

    problem = group_problem(
        apply,
        num_groups=num_groups,
        strict=strict,
        surrogate=surrogate,
        remember=_against,
        bound=jnp.asarray(margin) * jnp.asarray(limit),
        **options,
    )
    return problem._replace(init=init)


def _against(
    found: Forward, batch: Batch, ref: Followed
) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, ""]]:
    """Who is predicted as the dense model does, and the cross entropy to that, 0 for who is not known; and a mean."""
    people = ref.label.shape[0]
    label = ref.label.at[ids("index", batch.index, people)].get(mode="fill", fill_value=-1)
    known = (as_float(batch.weight) > 0) & labelled(label, found.logits.shape[1])
    far = cross_entropy(found.logits, batch._replace(y=jnp.maximum(label, 0)))
    agree = metrics.correct(found.logits, label).astype(jnp.float32)
    return jnp.where(known, agree, 0.0), jnp.where(known, far, 0.0), found.mean


def _classes(prediction: Any, shape: tuple[int, ...]) -> jax.Array:
    """``[N]`` int32: what the dense model predicts."""
    if prediction is None:
        raise ValueError(
            "prediction=None: this problem compares with what a reference model predicts; give its classes on the "
            "training split, [N]."
        )
    given = prediction if isinstance(prediction, np.ndarray) else jnp.asarray(prediction)
    if given.shape != shape or not jnp.issubdtype(given.dtype, jnp.integer):
        raise ValueError(
            f"prediction has dtype {given.dtype} and shape {given.shape} beside weights of shape {shape}: give one "
            "class, an integer, per person."
        )
    return jnp.asarray(given.astype(np.int32))
