"""Two levels as a Solver: weights below, masks above, each on minibatches of its own; what BiP and BiFP share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from jaxfair import constraints, implicit
from jaxfair.bilevel._masks import Masks, masked
from jaxfair.bilevel._state import Bilevel, BilevelAux, BilevelInfo, BilevelState
from jaxfair.tree import copied
from jaxfair.typing import Params


class Level(NamedTuple):
    r"""The field of one level on one minibatch.

    Attributes:
      look: the problem there, of `constraints`.
      gradient: :math:`g = \partial \ell / \partial (m \odot \theta)`, the constraints included where they are this
        level's.
      weights: ``[K]``, how much each proxy counted in it.
      rows: ``[K]``, the multipliers it was taken with.
    """

    look: constraints.Look
    gradient: Any
    weights: jax.Array
    rows: jax.Array


class Players(NamedTuple):
    """The game of two levels: the problem with its multipliers, the masks, and the numbers of the derivation."""

    game: constraints.Game
    masks: Masks
    tx: tuple[optax.GradientTransformation, optax.GradientTransformation | None]
    gamma: ArrayLike
    weight_decay: ArrayLike
    solve: implicit.Solve | None
    fair: frozenset[str]
    parts: tuple[int, int]

    def level(self, state: BilevelState, z: Params, part: Any, key: Any, *, fair: bool, move: bool = False) -> Any:
        """One level's field, and the state after it: its memories, and its multipliers where they move."""
        look = self.game.look(z, state.carry, part, key)
        penalties = self.game.read_penalties(state.penalties, look.evaluation)
        if move:
            values, dual_state = self.game.move_dual(state, look)
            state = state._replace(multipliers=values, dual_state=dual_state)
        rows = self.game.multipliers.read(state.multipliers, look.evaluation)
        if fair:
            gradient, weights = self.game.gradient(look, rows, penalties)
        else:
            weights = jnp.zeros_like(look.proxy)
            (gradient,) = look.pull_back((jnp.ones_like(look.loss), weights))
        if move:
            state = state._replace(penalties=self.game.update_penalties(state.penalties, look))
        return Level(look, gradient, weights, rows), state._replace(carry=look.evaluation.carry)

    def down(self, state: BilevelState, level: Level) -> Params:
        r"""The field of the weights, :math:`m \odot g + \gamma \theta`."""
        decay = self.weight_decay

        def leaf(m, g, w):
            shrunk = jnp.asarray(decay, w.dtype) * w
            return (jnp.where(m, g, jnp.zeros_like(g)) if m.dtype == jnp.bool_ else m.astype(g.dtype) * g) + shrunk

        return jax.tree.map(leaf, state.masks, level.gradient, state.params)

    def up(self, state: BilevelState, level: Level, part: Any, key: Any) -> list[jax.Array]:
        r"""The field of the scores: :math:`d \ell / d m`, through the weights as well."""
        if self.solve is not None:
            return self._up_implicitly(self.solve, state, level, part, key)
        lower = level.gradient
        if ("weights" in self.fair) != ("masks" in self.fair):
            # The weights answer to their own objective: with the constraints, or without.
            penalties = self.game.read_penalties(state.penalties, level.look.evaluation)
            if "weights" in self.fair:
                lower, _ = self.game.gradient(level.look, level.rows, penalties)
            else:
                (lower,) = level.look.pull_back((jnp.ones_like(level.look.loss), jnp.zeros_like(level.look.proxy)))
        field = jax.tree.map(
            lambda w, m, g, h: closed_form(w, m, g, h, self.gamma), state.params, state.masks, level.gradient, lower
        )
        return self.masks.gather(field, state.scores, state.params)

    def _up_implicitly(
        self, solve: implicit.Solve, state: BilevelState, level: Level, part: Any, key: Any
    ) -> list[jax.Array]:
        """The same without leaving the Hessian out, by a linear solve."""

        def network(theta, scores):
            soft = self.masks.spread(scores, theta)
            now = jax.lax.stop_gradient(soft)
            # Straight through: the value is what is seen, the derivative that of the scores.
            m = jax.tree.map(lambda seen, s, n: seen.astype(s.dtype) + (s - n), state.masks, soft, now)
            return masked(m, theta)

        def objective(z, weights):
            found = self.game.evaluate(z, state.carry, part, key)
            return found.loss + jnp.sum(jax.lax.stop_gradient(weights) * found.proxy)

        penalties = self.game.read_penalties(state.penalties, level.look.evaluation)
        _, shared = self.game.gradient(level.look, level.rows, penalties)
        weighed = {name: shared if name in self.fair else jnp.zeros_like(shared) for name in ("weights", "masks")}

        def inner(theta, scores):
            decay = 0.5 * jnp.asarray(self.weight_decay) * optax.tree.norm(theta, squared=True)
            return objective(network(theta, scores), weighed["weights"]) + decay

        def outer(theta, scores):
            return objective(network(theta, scores), weighed["masks"])

        return implicit.hypergradient(outer, inner, state.params, state.scores, solve=solve).gradient

    def move_weights(self, state: BilevelState, field: Params) -> BilevelState:
        """One step of the weights' optimizer."""
        updates, weights_state = self.tx[0].update(field, state.weights_state, state.params)
        return state._replace(params=optax.apply_updates(state.params, updates), weights_state=weights_state)

    def move_masks(self, state: BilevelState, field: list[jax.Array]) -> BilevelState:
        """One step of the masks' optimizer, and the masks that it gives."""
        assert self.tx[1] is not None
        updates, masks_state = self.tx[1].update(field, state.masks_state, state.scores)
        return self.settle(state._replace(scores=optax.apply_updates(state.scores, updates), masks_state=masks_state))

    def settle(self, state: BilevelState) -> BilevelState:
        """The scores on their set, and the masks they give, under the budget of the next step."""
        scores = self.masks.project(list(state.scores), state.params, state.step + 1)
        masks = self.masks.next(scores, state.masks, state.params, state.step + 1)
        return state._replace(scores=scores, masks=masks)

    def joint(self, state: BilevelState, pieces: list[Any], keys: Any) -> tuple[BilevelState, Level, Level]:
        """Both players by one optimizer: the field at both minibatches, which it may ask for again."""
        lower, after = self.level(
            state, masked(state.masks, state.params), pieces[0], keys[0], fair="weights" in self.fair, move=True
        )
        upper, after = self.level(
            after, masked(after.masks, after.params), pieces[1], keys[1], fair="masks" in self.fair
        )

        def field_of(at: BilevelState, low: Level, high: Level) -> dict[str, Any]:
            return {"weights": self.down(at, low), "masks": self.up(at, high, pieces[1], keys[1])}

        def operator(players: dict[str, Any]) -> dict[str, Any]:
            at = self.settle(after._replace(params=players["weights"], scores=players["masks"], carry=state.carry))
            z = masked(at.masks, at.params)
            low, _ = self.level(at, z, pieces[0], keys[0], fair="weights" in self.fair)
            high, _ = self.level(at, z, pieces[1], keys[1], fair="masks" in self.fair)
            return field_of(at, low, high)

        players = {"weights": state.params, "masks": state.scores}
        field = field_of(after, lower, upper)
        updates, joint_state = optax.with_extra_args_support(self.tx[0]).update(
            field, state.weights_state, players, operator_fn=operator, field=field
        )
        moved: Any = optax.apply_updates(players, updates)
        after = after._replace(params=moved["weights"], scores=moved["masks"], weights_state=joint_state)
        return self.settle(after), lower, upper


def closed_form(theta: jax.Array, m: jax.Array, g: jax.Array, h: jax.Array, gamma: ArrayLike) -> jax.Array:
    r"""BiP's :math:`(\theta - m \odot h / \gamma) \odot g` of one leaf, h the gradient of the lower level.

    Example:
      >>> closed_form(jnp.array([2.0]), jnp.array([1.0]), jnp.array([0.5]), jnp.array([0.5]), 1.0).tolist()
      [0.75]
    """
    return (theta - m.astype(theta.dtype) * h / jnp.asarray(gamma, theta.dtype)) * g


def make(players: Players) -> Bilevel:
    """The three functions of a bilevel solver."""
    is_joint, (down, up) = players.tx[1] is None, players.parts

    def init(params: Params, carry: Any = (), scores: Any = None) -> BilevelState:
        begun = players.masks.project(players.masks.given(scores, params), params, jnp.zeros((), jnp.int32))
        values = players.game.multipliers.init()
        first, second = players.tx
        state = BilevelState(
            params=params,
            scores=begun,
            masks=players.masks.seen(begun, params, jnp.zeros((), jnp.int32)),
            multipliers=values,
            penalties=players.game.formulation.init(players.game.multipliers.num_constraints),
            weights_state=first.init({"weights": params, "masks": begun} if is_joint else params),
            masks_state=() if second is None else second.init(begun),
            dual_state=players.game.multipliers.init_dual(players.game.dual, values),
            carry=carry,
            step=jnp.zeros((), jnp.int32),
        )
        # Optimizers may begin with the very parameters: no two places of the state share memory.
        return copied(state)

    def step(state: BilevelState, batch: Any, key: Any) -> tuple[BilevelState, BilevelInfo]:
        pieces = cut(batch, down + up)
        keys = [None] * len(pieces) if key is None else list(jax.random.split(key, len(pieces)))
        before, lows, highs = state.multipliers, [], []
        if is_joint:
            state, low, high = players.joint(state, pieces, keys)
            lows, highs = [low], [high]
        else:
            for part, k in zip(pieces[:down], keys[:down], strict=True):
                z = masked(state.masks, state.params)
                low, state = players.level(state, z, part, k, fair="weights" in players.fair, move=True)
                state = players.move_weights(state, players.down(state, low))
                lows.append(low)
            for part, k in zip(pieces[down:], keys[down:], strict=True):
                z = masked(state.masks, state.params)
                high, state = players.level(state, z, part, k, fair="masks" in players.fair)
                state = players.move_masks(state, players.up(state, high, part, k))
                highs.append(high)
        first = lows[0]
        auxes = [level.look.evaluation.aux for level in (*lows, *highs)]
        info = BilevelInfo(
            loss=first.look.loss,
            upper_loss=highs[0].look.loss,
            strict=first.look.evaluation.strict,
            strict_observed=first.look.known,
            multipliers=before,
            weights=first.weights,
            aux=BilevelAux(jnp.concatenate([aux.correct for aux in auxes]), auxes[-1].estimate),
        )
        return state._replace(step=state.step + 1), info

    def network(state: BilevelState) -> tuple[Params, Params]:
        # Of the scores as they are: what the network saw last may be up to `renew` steps old, or no zeros and ones.
        masks = players.masks.hard(list(state.scores), state.params, state.step)
        return masked(masks, state.params), masks

    return Bilevel(init, step, network)


def cut(batch: Any, parts: int) -> list[Any]:
    """A batch in equal parts, along the first axis of every array.

    Raises:
      ValueError: where the examples do not divide.

    Example:
      >>> cut(jnp.arange(6), 3)[1].tolist()
      [2, 3]
    """
    number = jax.tree.leaves(batch)[0].shape[0]
    if number % parts:
        raise ValueError(
            f"a batch of {number} examples cannot be cut into the {parts} parts of a step: give a multiple."
        )
    size = number // parts
    return [jax.tree.map(lambda a, i=i: a[i * size : (i + 1) * size], batch) for i in range(parts)]
