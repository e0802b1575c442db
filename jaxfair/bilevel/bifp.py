r"""BiFP: masks and weights found together, in one run, under fairness constraints at both levels.

.. math::

   \min_m \; \ell(m \odot \theta^*(m)) \quad &\text{s.t.} \quad |F_k(m \odot \theta^*(m))| \le \tau, \quad
   \mathbf 1^\top m \le k \\
   \theta^*(m) = \arg\min_\theta \; \ell(m \odot \theta) + \tfrac{\gamma}{2} |\theta|^2
   \quad &\text{s.t.} \quad |F_k(m \odot \theta)| \le \tau

A constraint that holds both players breaks the derivation of the hypergradient, so it goes into the objective of both
levels, with the same multipliers (or the same penalty), and each level is `bip`'s with a longer loss:

.. code-block:: text

    lambda  <- ascent on what the constraint says at the lower level's minibatch (the truth, not the surrogate)
    theta   <- theta - alpha (m * h + gamma theta)             h = d (loss + w(lambda) F) / dz on minibatch A
    m       <- P(m - beta (theta - m * h' / gamma) * g)        g, h' likewise on minibatch B, at the new theta

with z = m * theta, and g = h' unless only one level is constrained.

===========================  ==================================================================================
paper                        here
===========================  ==================================================================================
F, performance               :func:`jaxfair.constraints.accuracy_parity`, two-sided
F, degradation of one        :func:`jaxfair.constraints.accuracy_gap`
F, degradation fairness      :func:`jaxfair.constraints.excess_accuracy_gap`, two-sided
u                            the loss that proxies are made of: :func:`jaxfair.constraints.soft_error`
without m, without w         ``fair=("weights",)``, ``fair=("masks",)``
===========================  ==================================================================================

How this differs from the paper, of which no code is public:

- Its surrogate (equation 8) loses the sign of s; without it, it is not the gap (0.374 where the gap is 0.132 on 20,000
  points). Here it is a mean by group of a smooth error, which is the gap in the limit of a steep u.
- It adds the signed F to the loss, which pushes a negative gap further down. Here both sides are bounded, by
  multipliers that see the true gap, or by a penalty.
- It leaves open how the hypergradient is approximated, when the budget is imposed and how the masks are projected: see
  `bip`.

References:
  Dai, Li, Luo, Ma, Wu, `Coupling fairness and pruning in a single run <https://arxiv.org/abs/2312.10181>`_, 2023.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair import constraints, implicit, sparsity
from jaxfair.bilevel._levels import Players, make
from jaxfair.bilevel._masks import Masks
from jaxfair.bilevel._state import Bilevel

LEVELS = ("weights", "masks")


def bifp(
    problem: constraints.Problem,
    schedule: sparsity.Schedule,
    *,
    prunable: Callable[[str], bool],
    weights: optax.GradientTransformation | None = None,
    masks: optax.GradientTransformation | None = None,
    joint: optax.GradientTransformation | None = None,
    dual: optax.GradientTransformation | None = None,
    multipliers: constraints.Multipliers | None = None,
    formulation: constraints.Formulation | None = None,
    fair: Collection[str] = LEVELS,
    gamma: ArrayLike = 1.0,
    weight_decay: ArrayLike | None = None,
    hypergradient: implicit.Solve | None = None,
    relaxed: bool = False,
    renew: int = 10,
    weight_steps: int = 1,
    mask_steps: int = 1,
    distribution: sparsity.Distribution = sparsity.global_,
    structure: sparsity.Structure = sparsity.unstructured,
) -> Bilevel:
    """Makes the solver that finds masks and weights together, under constraints.

    Args:
      problem: of `jaxfair.constraints`, on whatever the network is to keep.
      schedule: the sparsity per step: ``sparsity.constant(0.9)``, or a rising one such as `sparsity.polynomial`.
      prunable: which leaves may be pruned, by path; a `Model` has it.
      weights: the optimizer of the weights, descending.
      masks: the optimizer of the scores, descending.
      joint: in place of both, one optimizer of the game ``{"weights": ..., "masks": [...]}``, such as those of
        `jaxfair.optim`; one step of each then.
      dual: the optimizer of the multipliers; not needed where the formulation is a penalty or nothing is constrained.
      multipliers: as of `constraints.solver`.
      formulation: as of `constraints.solver`; `constraints.quadratic_penalty` is the paper's penalty with p = 2.
      fair: the levels that are constrained, of ``"weights"`` and ``"masks"``. None of them is `bip`, bit for bit.
      gamma: of the closed form: the curvature that the lower level is taken to have.
      weight_decay: of the lower level; `gamma` by default, as the derivation has it. In practice the curvature comes
        from the loss as well, and a small decay goes with a large gamma.
      hypergradient: None for the closed form, which leaves the Hessian of the loss out; else a solve of
        `jaxfair.implicit`, with which it is there.
      relaxed: whether the network is multiplied by the scores themselves, which then lie in [0, 1] and sum to at most
        the budget. Otherwise by the best of them as zeros and ones, through which gradients pass straight.
      renew: binary masks are taken anew every so many steps of the solver, and where the schedule changes; the scores
        move at all of them. The best of ten million scores cost about a plain step, so that 1 makes a step of two cost
        three.
      weight_steps: of the lower level, a step of the solver.
      mask_steps: of the upper level after them.
      distribution: who competes with whom, as of `sparsity.prune`.
      structure: what lives and dies together, as of `sparsity.prune`.

    Returns:
      The :class:`Bilevel`. ``init(params, carry)`` takes what ``problem.init`` gives.

    Raises:
      TypeError: for a member of an axis that is none.
      ValueError: for players too few or too many, another level, steps below 1, a gamma that is not above 0; when
        traced, for a batch that cannot be cut into the parts.

    Example:
      Four weights, two of which may live, that fit y = x: the groups are the people with a first and with a second
      feature, and both must be right.

      >>> import jax, jax.numpy as jnp
      >>> from jaxfair.typing import Batch
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x @ params["kernel"], state
      >>> y = jnp.array([0, 1] * 4)
      >>> batch = Batch(jax.nn.one_hot(y, 2), y, y, jnp.arange(8), jnp.ones(8))
      >>> problem = constraints.accuracy_parity(apply, num_groups=2, tolerance=0.0)
      >>> solver = bifp(problem, sparsity.constant(0.5), prunable=lambda path: True, weights=optax.sgd(0.5),
      ...               masks=optax.sgd(0.5), dual=optax.sgd(0.1), gamma=10.0, weight_decay=0.01, renew=1)
      >>> start = jnp.array([[0.2, 0.3], [0.1, 0.1]])
      >>> state = solver.init({"kernel": start}, problem.init({}, None, batch))
      >>> step = jax.jit(solver.step)
      >>> for _ in range(60):
      ...     state, info = step(state, batch, None)
      >>> params, masks = solver.network(state)
      >>> masks["kernel"].sum().item(), bool((jnp.argmax(batch.x @ params["kernel"], axis=1) == y).all())
      (2, True)
    """
    if unknown := [level for level in fair if level not in LEVELS]:
        raise ValueError(f"fair={tuple(fair)}: {unknown[0]!r} is no level; give 'weights', 'masks', both or none.")
    for name, number in (("weight_steps", weight_steps), ("mask_steps", mask_steps), ("renew", renew)):
        if number < 1:
            raise ValueError(f"{name}={number}: give at least 1.")
    decay = gamma if weight_decay is None else weight_decay
    _number("gamma", gamma, lambda c: c > 0, "give a curvature above 0.")
    _number("weight_decay", decay, lambda d: (d >= 0) & np.isfinite(d), "give a number of at least 0.")
    first, second = _players(weights, masks, joint, weight_steps, mask_steps)
    space = multipliers or problem.multipliers
    space = space or constraints.dense(problem.num_constraints, equality=problem.equality)
    rule = problem.formulation if formulation is None else formulation
    constrained = problem.num_constraints != 0 and bool(fair)
    if dual is None:
        if constrained and not rule.of_violation:
            raise ValueError("give dual=, the optimizer of the multipliers, or a formulation that is a penalty.")
        dual = optax.sgd(0.0)
    game = constraints.Game(problem.evaluate, space, rule, first, dual)
    axes = {"prunable": prunable, "distribution": distribution, "structure": structure}
    chosen = Masks.of(schedule, relaxed=relaxed, renew=renew, **axes)
    return make(
        Players(game, chosen, (first, second), gamma, decay, hypergradient, frozenset(fair), (weight_steps, mask_steps))
    )


def _players(weights: Any, masks: Any, joint: Any, weight_steps: int, mask_steps: int) -> tuple[Any, Any]:
    """The optimizers of the two levels, or the one of both and None."""
    if joint is not None:
        if weights is not None or masks is not None or (weight_steps, mask_steps) != (1, 1):
            raise ValueError("joint= plays both levels at once: give neither weights=, masks= nor steps of theirs.")
        return joint, None
    if weights is None or masks is None:
        raise ValueError("give weights= and masks=, one optimizer for each level, or joint= for both.")
    return weights, masks


def _number(name: str, number: ArrayLike, holds: Callable[[np.ndarray], Any], allowed: str) -> None:
    """Raises for a number that cannot be; what is traced is not looked at."""
    if not isinstance(number, Tracer) and not np.all(holds(np.asarray(number))):
        raise ValueError(f"{name}={number}: {allowed}")
