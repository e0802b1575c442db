"""The game that a step plays: one look at the problem, the field of the weights, and a move of each player."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxfair.constraints._people import as_float
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.formulations import Formulation
from jaxfair.constraints.multipliers import Multipliers
from jaxfair.typing import Params


class SolverState(NamedTuple):
    """What a run carries from step to step.

    Attributes:
      params: the primal player.
      multipliers: ``[K]`` float32, at least 0 for inequalities; of `constraints.implicit` the network's parameters.
      penalties: the formulation's state; ``()`` where it has none.
      primal_state: the state of the primal optimizer, or of the joint one.
      dual_state: the state of the dual optimizer, every leaf with a leading axis of K; ``()`` beside a joint one.
      carry: what ``evaluate`` carries: model state, memories, constants.
      step: scalar int32, the number of steps taken.
    """

    params: Params
    multipliers: Any
    penalties: Any
    primal_state: Any
    dual_state: Any
    carry: Any
    step: jax.Array


class KKT(NamedTuple):
    r"""How far a point is from the conditions of Karush, Kuhn and Tucker; all three are 0 at a solution.

    Attributes:
      stationarity: scalar, the norm of the weights' gradient :math:`\nabla L + \sum_k w_k \nabla \mathrm{proxy}_k`,
        with the multipliers that the step used. On a minibatch it has the minibatch's noise.
      feasibility: scalar, the largest observed violation, :math:`\max(g, 0)` or :math:`|h|`.
      complementarity: scalar, the largest :math:`|w_k\, \mathrm{strict}_k|` among the observed.
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

    @property
    def strict(self) -> Float[Array, " R"]:
        """The strict values, 0 where they are not known: what is not known steers nobody."""
        return jnp.where(self.known, self.evaluation.strict, 0.0)


class Game(NamedTuple):
    """A problem, the multipliers' space, a formulation and the players' optimizers.

    Attributes:
      evaluate: the user's function.
      multipliers: the dual player's space.
      formulation: the weights of the proxies.
      primal: the optimizer of the weights, or of both players.
      dual: the optimizer of the multipliers; not looked at where ``primal`` plays both.
    """

    evaluate: Callable[[Params, Any, Any, Any], Evaluation]
    multipliers: Multipliers
    formulation: Formulation
    primal: optax.GradientTransformation
    dual: optax.GradientTransformation

    def look(self, params: Params, carry: Any, batch: Any, key: Any) -> Look:
        """Evaluates the problem, checks the shapes, and keeps the way back.

        Raises:
          ValueError: for a loss that is no number, and for constraints that are not ``[R]``.
        """

        def value(params: Params) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
            evaluation, seen, known = self._checked(self.evaluate(params, carry, batch, key))
            return (evaluation.loss, evaluation.proxy), (evaluation, seen, known)

        (loss, proxy), pull_back, (evaluation, seen, known) = jax.vjp(value, params, has_aux=True)
        return Look(evaluation, loss, proxy, seen, known, pull_back)

    def _checked(self, evaluation: Evaluation) -> tuple[Evaluation, Array, Array]:
        """The evaluation, and its two masks with shape [R]: of the proxies, and of the strict values."""
        num = self.multipliers.rows(evaluation)
        loss = jnp.asarray(evaluation.loss)
        if loss.shape != ():
            raise ValueError(f"Evaluation.loss has shape {loss.shape}: give one number, such as a mean.")
        # A loss of 0 where only feasibility is asked for is an integer, and has no gradient.
        evaluation = evaluation._replace(loss=loss if jnp.issubdtype(loss.dtype, jnp.floating) else as_float(loss))
        for name in ("proxy", "strict"):
            values = jnp.asarray(getattr(evaluation, name))
            if values.shape != (num,):
                raise ValueError(
                    f"Evaluation.{name} has shape {values.shape}, but there are {num} multipliers: "
                    "give one value per constraint."
                )
            if not jnp.issubdtype(values.dtype, jnp.floating):
                # Minus an unsigned count would be a large number.
                values = values.astype(jnp.float32)
            evaluation = evaluation._replace(**{name: values})
        masks = []
        for name in ("proxy_observed", "strict_observed"):
            mask = jnp.asarray(getattr(evaluation, name))
            if mask.dtype != jnp.bool_ or mask.shape not in ((), (num,)):
                raise ValueError(
                    f"Evaluation.{name} has dtype {mask.dtype} and shape {mask.shape}: "
                    f"give one bool, or one for each of the {num} constraints."
                )
            masks.append(jnp.broadcast_to(mask, (num,)))
        seen, known = masks
        # In a mean over a group nan says that there was nobody: nothing is known, whatever the mask says.
        known = known & ~jnp.isnan(evaluation.strict)
        if self.multipliers.present is not None:
            present = self.multipliers.present(evaluation)
            seen, known = seen & present, known & present
        return evaluation, seen, known

    def gradient(self, look: Look, rows: Float[Array, " R"], penalties: Any) -> tuple[Any, Float[Array, " R"]]:
        """The field of the weights at these multipliers, and how much each proxy counted."""
        space = self.multipliers
        project = space.violation if self.formulation.of_violation else space.project
        # No stop_gradient anywhere: the weights enter as the cotangent, and a joint optimizer may differentiate them.
        weights = self.formulation.weights(rows, look.strict, penalties, lambda r: project(r, look.evaluation))
        weights = jnp.where(look.seen, weights, 0.0).astype(look.proxy.dtype)
        (gradient,) = look.pull_back((jnp.ones_like(look.loss), weights))
        return gradient, weights

    def move_primal(self, state: SolverState, gradient: Any) -> tuple[Params, Any]:
        """The weights and the state of their optimizer, one step down the gradient."""
        updates, primal_state = self.primal.update(gradient, state.primal_state, state.params)
        return optax.apply_updates(state.params, updates), primal_state

    def move_dual(self, state: Any, look: Look) -> tuple[Any, Any]:
        """The multipliers and the state of their optimizer, one step up what is seen there.

        Of a state that has ``multipliers``, ``penalties`` and ``dual_state``, whosever it is.
        """
        penalties = self.read_penalties(state.penalties, look.evaluation)
        field = -self.formulation.ascent(look.evaluation.strict, penalties)
        return self.multipliers.move(self.dual, state.multipliers, state.dual_state, field, look.known, look.evaluation)

    def read_penalties(self, penalties: Any, evaluation: Evaluation) -> Any:
        """The penalties of the rows of an evaluation."""
        if self.formulation.per_constraint and self.multipliers.gather is not None:
            return self.multipliers.gather(penalties, evaluation)
        return penalties

    def update_penalties(self, penalties: Any, look: Look) -> Any:
        """The penalties after a step that saw these violations."""
        rows = self.formulation.update(
            self.read_penalties(penalties, look.evaluation),
            look.strict,
            look.known,
            lambda r: self.multipliers.violation(r, look.evaluation),
        )
        if self.formulation.per_constraint and self.multipliers.scatter is not None:
            return self.multipliers.scatter(penalties, rows, look.evaluation)
        return rows

    def kkt(self, look: Look, gradient: Any, weights: Float[Array, " R"]) -> KKT:
        """The residuals of a step."""
        violation = self.multipliers.violation(look.strict, look.evaluation)
        return KKT(
            stationarity=optax.tree.norm(gradient),
            feasibility=jnp.max(jnp.abs(violation), initial=0.0),
            complementarity=jnp.max(jnp.abs(weights * look.strict), initial=0.0),
        )
