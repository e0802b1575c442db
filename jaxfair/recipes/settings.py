"""CEAG with every choice a switch: settings that differ in numbers only are lanes of one compiled program.

What a group may lose is bounded by multipliers, and there are many ways to move them. :class:`Setting` has a switch for
each of them; :func:`sweep_settings` prunes a network under each setting. The dual optimizers are one family,
`jaxfair.optim.nupi`, whose gain and decay are data.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import constraints, optim, sparsity, train
from jaxfair.recipes._ascent import MARGIN, TRAVEL, aims, noise_unit
from jaxfair.recipes.base import Base
from jaxfair.recipes.sweep import Swept, sweep
from jaxfair.typing import Batch, Model

#: Of distillation: the share of the teacher's part of the loss, and its temperature.
DISTILLED, TEMPERATURE = 0.5, 2.0
#: A published replay buffer has so many places.
RING = 40


class Setting(NamedTuple):
    """How multipliers see and move; by default the recipe of `experiments.dual_dynamics`. ``RULE`` is that of `ceag`.

    Attributes:
      estimate: ``"memory"``, the last outcome of every example; ``"epoch"``, the same, filled from the whole split at
        the start of every epoch; ``"exact"``, several times an epoch; ``"ring"``, published replay buffers.
      weights: ``"normalized"``, or ``"published"``: the plain Lagrangian and each batch's own means in the proxies.
      mean: ``"prevalence"`` or ``"uniform"``, of the average accuracy.
      start: constraints act ``"before"`` pruning ends, or ``"after"`` only.
      margin: the multipliers see the tolerance times this.
      batches: of :data:`BATCHES`.
      optimizer: of the multipliers; see :func:`gains`.
      rate: of the multipliers.
      per: ``"step"``, ``"epoch"`` or ``"run"``: the rate is divided by the steps of one.
      loss: ``"plain"``; ``"balanced"``, in which every group counts the same, with batches that are balanced; or
        ``"distilled"`` from the dense network, with proxies in cross entropy.
      tolerance: the bound.
      unit: what violations are measured by: ``"share"`` of people, or ``"noise"``, by :func:`noise_unit`.
    """

    estimate: str = "memory"
    weights: str = "normalized"
    mean: str = "prevalence"
    start: str = "before"
    margin: float = 0.5
    batches: str = "plain"
    optimizer: str = "ascent"
    rate: float = 0.01
    per: str = "step"
    loss: str = "plain"
    tolerance: float = 0.01
    unit: str = "share"

    @property
    def words(self) -> tuple[str, ...]:
        """What makes another program: settings with the same words may be lanes."""
        return (self.estimate, self.weights, self.mean, self.loss, self.batches)


#: The rule of :func:`jaxfair.recipes.ceag`, as keyword arguments of :class:`Setting`.
RULE: dict[str, Any] = {
    "estimate": "epoch", "batches": "root", "unit": "noise", "rate": TRAVEL, "per": "run", "margin": MARGIN,
}  # fmt: skip


class Lane(NamedTuple):
    """The numbers of a setting.

    Attributes:
      start: the first step with constraints.
      margin: see :class:`Setting`.
      tolerance: the bound by which networks are delivered.
      aim: ``[G]``, that the multipliers see: the same, or one person of the group where that is more.
      rate: of the multipliers, a step.
      proportional: gain of their optimizer.
      decay: of its average of violations.
      unit: ``[G]``, of violations.
      limit: of violations, in units.
      teacher: ``[N, C]`` logits on the training split; ``()`` where nothing is distilled.
    """

    start: jax.Array
    margin: jax.Array
    tolerance: jax.Array
    aim: jax.Array
    rate: jax.Array
    proportional: jax.Array
    decay: jax.Array
    unit: jax.Array
    limit: jax.Array
    teacher: Any


def gains(optimizer: str, steps: int) -> tuple[float, float]:
    r"""Proportional gain and decay of a dual optimizer, for a signal that lags by half an epoch.

    An example's outcome was seen up to an epoch ago: :math:`\tau = T / 2` steps on average. To first order the
    multipliers see :math:`v / (1 + \tau s)` of the violation v (s of the Laplace transform, in steps). Ascent
    integrates, :math:`\eta / s`; with a proportional term it is :math:`\eta (1 + K_P s) / s`, and :math:`K_P = \tau`
    cancels the lag. The usual defaults (optimism 1 or, of Omega, effectively 10 steps) are an order of magnitude below.

    ==========  ========  =========================  =============================================
    optimizer   gain      decay of the average       as it is known
    ==========  ========  =========================  =============================================
    ascent      0         0                          gradient ascent
    optimistic  tau       0                          the optimistic gradient, optimism tau
    omega       tau       1 - 1 / tau                Omega with optimism 1
    nupi        tau       1 - 10 / tau               a PI controller with a filtered slope
    ==========  ========  =========================  =============================================

    Args:
      optimizer: its name.
      steps: T, of an epoch.

    Example:
      >>> gains("omega", 200), gains("ascent", 200)
      ((100.0, 0.99), (0.0, 0.0))
    """
    tau = max(steps / 2, 1.0)
    filters = {"optimistic": 0.0, "omega": 1 - 1 / tau, "nupi": max(0.0, 1 - 10 / tau)}
    return (0.0, 0.0) if optimizer == "ascent" else (tau, filters[optimizer])


def sweep_settings(
    base: Base,
    settings: Sequence[Setting],
    *,
    seeds: Sequence[int],
    sparsity: float,
    learning_rate: float,
    epochs: int,
    prune_epochs: int,
    refreshes: int = 4,
) -> Swept:
    """Prunes a network under each setting; one compiled call.

    Args:
      base: the split and the dense networks.
      settings: L of them, with the same words.
      seeds: L, the dense network that each starts from.
      sparsity: share of the prunable weights that is removed.
      learning_rate: of SGD; it falls to a tenth after seven tenths of the epochs.
      epochs: how many.
      prune_epochs: the sparsity rises over these.
      refreshes: how often an epoch the exact estimate goes through the training split.

    Returns:
      The :class:`Swept`.

    Raises:
      ValueError: for settings with different words.

    Example:
      Two tolerances:

      >>> from jaxfair import data, models, recipes
      >>> keys = jax.random.split(jax.random.key(0), 1)
      >>> base = recipes.base(models.mlp(10, hidden=(16,)), data.load("digits"), keys=keys, batch_size=500, epochs=1)
      >>> found = sweep_settings(base, [Setting(tolerance=0.01), Setting(tolerance=0.1)], seeds=[0, 0], sparsity=0.5,
      ...                        learning_rate=0.05, epochs=4, prune_epochs=1)
      >>> [float((a == 0).mean()) for a in found.last.params["Dense_0"]["kernel"]]
      [0.5, 0.5]
    """
    words, steps = settings[0].words, base.steps
    other = [s for s in settings if s.words != words]
    if other:
        raise ValueError(f"settings of {words} and of {other[0].words}: give those of one program.")

    people = base.share * len(base.dataset.train.y)

    def lane(setting: Setting, seed: int) -> Lane:
        start = prune_epochs * steps if setting.start == "after" else 0
        rate = setting.rate / {"step": 1, "epoch": steps, "run": steps * epochs}[setting.per]
        aim, unit, limit = np.full(len(people), setting.tolerance), np.ones(len(people)), np.inf
        if setting.unit == "noise":
            aim, unit, limit = aims(aim, people, setting.margin), noise_unit(aim, people), 1.0
        gain = gains(setting.optimizer, steps)
        values = (start, setting.margin, setting.tolerance, aim, rate, *gain, unit, limit)
        teacher = base.logits["train"][seed] if setting.loss == "distilled" else ()
        return Lane(*map(jnp.float32, values), teacher=teacher)

    schedule = (epochs, prune_epochs, steps, sparsity, learning_rate)
    # A balanced loss is another weight of the examples, not another program.
    made = _program(
        (*words[:3], words[3].replace("balanced", "plain")), base.model, base.dataset.num_groups, schedule,
        steps if words[0] == "epoch" else -(-steps // refreshes), base if words[0] in ("epoch", "exact") else None,
    )  # fmt: skip
    lanes = train.stack([lane(s, seed) for s, seed in zip(settings, seeds, strict=True)])
    # With as many places for each group, a loss in which every group counts the same is the plain one.
    return sweep(
        base, *made, lanes, seeds=np.asarray(seeds), epochs=epochs, prune_epochs=prune_epochs,
        batches=words[4], weighted=words[3] != "balanced",
    )  # fmt: skip


@functools.lru_cache(maxsize=32)
def _program(
    words: tuple[str, ...],
    model: Model,
    num_groups: int,
    schedule: tuple[Any, ...],
    every: int,
    base: Base | None,
) -> tuple[Callable[[Lane], Any], Callable[..., Any]]:
    """The solver of a lane, and its first state: the same functions for the same words, so that they compile once.

    Only the exact estimate is told its split (``base``), and is another program on each.
    """
    estimate, weights, mean, loss = words
    epochs, prune_epochs, steps, share, rate = schedule
    # A memory counts people, whatever the weights of balanced batches are.
    places = constraints.replay_buffer(num_groups, RING)
    memory = constraints.unweighted(places if estimate == "ring" else constraints.example_memory(num_groups))
    falls = optax.piecewise_constant_schedule(rate, {round(0.7 * epochs) * steps: 0.1})
    rises = sparsity.polynomial(share, begin=0, end=prune_epochs * steps, every=steps)
    primal = sparsity.prune(optax.sgd(falls, momentum=0.9), rises, prunable=model.prunable)
    plain = weights == "published"
    formulation = constraints.lagrangian() if plain else constraints.normalized_lagrangian()
    logits = train.make_logits(model.apply)

    def problem(lane: Lane) -> constraints.Problem:
        of: Any = constraints.cross_entropy
        if loss == "distilled":
            of = constraints.distillation(lane.teacher, temperature=TEMPERATURE, share=DISTILLED)
        return constraints.excess_accuracy_gap(
            model.apply, num_groups=num_groups, tolerance=lane.aim, margin=lane.margin, start=lane.start,
            mean=mean, proxy="batch" if plain else "prevalence", memory=memory, loss=of,
            proxy_loss=constraints.cross_entropy if loss == "distilled" else None,
        )  # fmt: skip

    def solver(lane: Lane) -> Any:
        ascent = optim.nupi(lane.rate, lane.proportional, 1.0, lane.decay)
        dual = optax.chain(optax.scale(1 / lane.unit), optax.clip(lane.limit), ascent)
        game = constraints.solver(problem(lane), primal=primal, dual=dual, formulation=formulation)
        if base is None:
            return game
        split = base.splits["train"]

        def correct(params: Any, model_state: Any) -> jax.Array:
            said = logits(params, model_state, split.x)
            return constraints.outcomes(said, jnp.asarray(split.y)).correct

        return constraints.refreshed(game, memory, correct, split, every=every)

    def start(lane: Lane, network: train.Networks, outcomes: constraints.Outcomes, split: Batch) -> Any:
        carry = problem(lane).init(network.model_state, outcomes, split)
        return solver(lane).init(network.params, carry)

    return solver, start
