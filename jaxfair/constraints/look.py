"""One look at a constrained problem, and what the step functions of the solver make of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.formulations import Formulation
from jaxfair.constraints.multipliers import Multipliers
from jaxfair.typing import Params


class KKT(NamedTuple):
    r"""How far a point is from the conditions of Karush, Kuhn and Tucker; all three are 0 at a solution.

    Attributes:
      stationarity: scalar, the norm of the weights' gradient :math:`\nabla L + \sum_k w_k \nabla \mathrm{proxy}_k`,
        with the multipliers that the step used. On a minibatch it has the minibatch's noise.
      feasibility: scalar, the largest observed violation, :math:`\max(g, 0)` or :math:`|h|`.
      complementarity: scalar, the largest :math:`|w_k\, \mathrm{strict}_k|` among the observed.

    Example:
      >>> KKT._fields
      ('stationarity', 'feasibility', 'complementarity')
    """

    stationarity: jax.Array
    feasibility: jax.Array
    complementarity: jax.Array


class Look(NamedTuple):
    """The problem at some parameters.

    Attributes:
      evaluation: what the user's function gave.
      loss: scalar.
      proxy: ``[R]``.
      seen: ``[R]`` bool, which proxies were observed.
      known: ``[R]`` bool, which strict values were.
      pull_back: ``(loss cotangent, proxy cotangent [R]) -> gradient`` by the parameters.
    """

    evaluation: Evaluation
    loss: jax.Array
    proxy: jax.Array
    seen: jax.Array
    known: jax.Array
    pull_back: Callable[[tuple[jax.Array, jax.Array]], tuple[Any]]


class Game(NamedTuple):
    """A problem, the multipliers' space and a formulation: what the orders of a step have in common.

    Attributes:
      evaluate: the user's function.
      multipliers: the dual player's space.
      formulation: the weights of the proxies.
    """

    evaluate: Callable[[Params, Any, Any, Any], Evaluation]
    multipliers: Multipliers
    formulation: Formulation

    def look(self, params: Params, carry: Any, batch: Any, key: Any) -> Look:
        """Evaluates the problem, checks the shapes, and keeps the way back.

        Raises:
          ValueError: for constraints that are not ``[R]``.
        """

        def value(params: Params) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
            evaluation, seen, known = self._checked(self.evaluate(params, carry, batch, key))
            return (evaluation.loss, evaluation.proxy), (evaluation, seen, known)

        (loss, proxy), pull_back, (evaluation, seen, known) = jax.vjp(value, params, has_aux=True)
        return Look(evaluation, loss, proxy, seen, known, pull_back)

    def _checked(self, evaluation: Evaluation) -> tuple[Evaluation, Array, Array]:
        """The evaluation, and its two masks with shape [R]: of the proxies, and of the strict values."""
        num = self.multipliers.rows(evaluation)
        for name in ("proxy", "strict"):
            shape = jnp.shape(getattr(evaluation, name))
            if shape != (num,):
                raise ValueError(
                    f"Evaluation.{name} has shape {shape}, but there are {num} multipliers: "
                    "give one value per constraint."
                )
        seen, known = (
            jnp.broadcast_to(jnp.asarray(mask, bool), (num,))
            for mask in (evaluation.proxy_observed, evaluation.strict_observed)
        )
        return evaluation, seen, known

    def gradient(
        self, look: Look, rows: Float[Array, " R"], penalties: Any
    ) -> tuple[Any, Float[Array, " R"]]:
        """The field of the weights at these multipliers, and how much each proxy counted."""
        # No stop_gradient anywhere: the weights enter as the cotangent, and a joint optimizer may differentiate them.
        weights = self.formulation.weights(
            rows,
            look.evaluation.strict,
            penalties,
            lambda r: self.multipliers.project(r, look.evaluation),
        )
        weights = jnp.where(look.seen, weights, 0.0).astype(look.proxy.dtype)
        (gradient,) = look.pull_back((jnp.ones_like(look.loss), weights))
        return gradient, weights

    def read_penalties(self, penalties: Any, evaluation: Evaluation) -> Any:
        """The penalties of the rows of an evaluation."""
        if self.formulation.per_constraint and self.multipliers.gather is not None:
            return self.multipliers.gather(penalties, evaluation)
        return penalties

    def update_penalties(
        self,
        penalties: Any,
        strict: Float[Array, " R"],
        observed: Bool[Array, " R"],
        evaluation: Evaluation,
    ) -> Any:
        """The penalties after a step that saw these violations."""
        rows = self.formulation.update(
            self.read_penalties(penalties, evaluation),
            strict,
            observed,
            lambda r: self.multipliers.project(r, evaluation),
        )
        if self.formulation.per_constraint and self.multipliers.scatter is not None:
            return self.multipliers.scatter(penalties, rows, evaluation)
        return rows


def kkt(
    gradient: Any,
    weights: Float[Array, " R"],
    look: Look,
    project: Callable[[jax.Array], jax.Array],
) -> KKT:
    """The residuals of a step."""
    strict = jnp.where(look.known, look.evaluation.strict, 0.0)
    return KKT(
        stationarity=optax.tree.norm(gradient),
        feasibility=jnp.max(jnp.abs(project(strict)), initial=0.0),
        complementarity=jnp.max(jnp.abs(weights * strict), initial=0.0),
    )
