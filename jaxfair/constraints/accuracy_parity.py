r"""Bounds how far each group's accuracy is below everybody's: performance fairness.

.. math::

   \min_\theta L(\theta) \quad \text{subject to} \quad
   A(\theta) - A_g(\theta) \le \epsilon \quad \text{for every } g

There is no dense model in it: what was unequal before is to be mended as well. Both sides,
:math:`|A_g - A| \le \epsilon`, are ``two_sided(accuracy_parity(...))``. The proxy is :math:`L_g - L`, of the loss or of
what ``proxy_loss`` says: with :func:`soft_error` it is the smooth gap of Wu et al., corrected and for many groups.

With two groups and ``against="others"`` it is the gap between them, :math:`A_0 - A_1` and its negative.
"""

from collections.abc import Callable
from typing import Any, Unpack

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair.constraints._groups import GroupOptions, check_tolerance, group_problem
from jaxfair.constraints._numbers import check_word
from jaxfair.constraints._people import check_weights
from jaxfair.constraints.problem import Carry, Outcomes, Problem, Reference
from jaxfair.typing import Batch, ModelState


def accuracy_parity(
    apply: Callable[..., Any],
    *,
    num_groups: int,
    tolerance: ArrayLike,
    margin: ArrayLike = 0.5,
    against: str = "everybody",
    **options: Unpack[GroupOptions],
) -> Problem:
    r"""The problem that bounds how far a group's accuracy is below that of everybody, or of the others.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      tolerance: :math:`\epsilon` in ``[0, 1]``, as a share of 1.
      margin: the multipliers see the tolerance times this.
      against: ``"everybody"`` or ``"others"``, whose accuracy a group's is compared with.
      **options: ``loss``, ``memory``, ``proxy``, ``proxy_loss``, ``constrained``, ``start``, ``weight_decay`` and
        ``decayed``, see :func:`group_problem`.

    Returns:
      A :class:`Problem` with G constraints. Its ``init(model_state, outcomes=None, batch)`` needs no reference model:
      the memory begins with nobody right where ``outcomes`` is None.

    Raises:
      ValueError: for an unknown word, another proxy than ``"prevalence"`` beside ``"others"``, or a tolerance, margin
        or start out of range.

    Example:
      Group 0 has three right of three, group 1 none of one: everybody's accuracy is 0.75.

      >>> from jaxfair import constraints
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x * params, state
      >>> x = jnp.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
      >>> batch = Batch(x, jnp.zeros(4, jnp.int32), jnp.array([0, 0, 0, 1]), jnp.arange(4), jnp.ones(4))
      >>> for against in ("everybody", "others"):
      ...     problem = constraints.accuracy_parity(apply, num_groups=2, tolerance=0.0, against=against)
      ...     print(problem.evaluate(jnp.ones(()), problem.init({}, None, batch), batch, None).strict)
      [-0.25  0.75]
      [-1.  1.]

    References:
      Wu, Zhang, Wu, `On convexity and bounds of fairness-aware classification <https://dl.acm.org/doi/10.1145/3308558.3313723>`_,
      2019; Dai et al., `Coupling fairness and pruning in a single run <https://arxiv.org/abs/2312.10181>`_, 2023,
      definition 1.
    """
    check_tolerance(tolerance, margin)
    check_word("against", against, ("everybody", "others"))
    if against == "others" and options.get("proxy", "prevalence") != "prevalence":
        # The mean over the others follows from the mean over all by the split's shares, which a batch has not.
        raise ValueError("against='others' goes with proxy='prevalence' only.")

    def below(values: Float[Array, " G"], mean: Float[Array, ""], share: Float[Array, " G"]) -> Float[Array, " G"]:
        # The others' mean is (mean - s v) / (1 - s), so the difference to it is that to everybody's over 1 - s.
        gap = mean - values
        rest = 1.0 - share
        return gap / jnp.where(rest > 0, rest, 1.0) if against == "others" else gap

    def strict(accuracy: Float[Array, " G"], observed: Bool[Array, " G"], ref: Reference) -> Float[Array, " G"]:
        share = jnp.where(observed, ref.prevalence, 0.0)
        share = share / jnp.maximum(jnp.sum(share), 1e-12)
        return jnp.where(observed, below(accuracy, jnp.sum(share * accuracy), share), 0.0)

    def surrogate(group_loss: Float[Array, " G"], mean_loss: Float[Array, ""], ref: Reference) -> Float[Array, " G"]:
        return -below(group_loss, mean_loss, ref.prevalence)

    problem = group_problem(
        apply,
        num_groups=num_groups,
        strict=strict,
        surrogate=surrogate,
        bound=jnp.asarray(margin) * jnp.asarray(tolerance),
        **options,
    )

    def init(model_state: ModelState, outcomes: Outcomes | None, batch: Batch) -> Carry:
        if outcomes is None:
            check_weights(batch.weight)
            nobody = jnp.zeros(jnp.shape(batch.weight))
            outcomes = Outcomes(nobody, nobody)
        return problem.init(model_state, outcomes, batch)

    return problem._replace(init=init)
