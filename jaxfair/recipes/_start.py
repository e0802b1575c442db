"""Where a run of pruning starts: the dense networks, what they are right about, and who is a teacher."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import constraints, train
from jaxfair.data import Dataset
from jaxfair.recipes._bounds import Bound, Bounded, Facts
from jaxfair.recipes._delivery import How, Kept
from jaxfair.recipes._frame import Frame
from jaxfair.recipes._networks import Networks
from jaxfair.typing import Batch, Model


class Lane(NamedTuple):
    """What a run is told of the dense network that it starts from.

    Attributes:
      correct: ``[N]`` float32, whom it is right about on the training split.
      label: ``[N]``, what it predicts there.
      teacher: itself, where it is followed.
    """

    correct: jax.Array
    label: jax.Array
    teacher: train.Networks | None = None


def facts_of(model: Model, dataset: Dataset, here: Frame, how: How, **descent: Any) -> Facts:
    """What a bound is told of this job."""
    return Facts(
        apply=model.apply, group=np.asarray(dataset.train.group), constrained=dataset.constrained,
        num_groups=dataset.num_groups, num_classes=dataset.num_classes, batch_size=here.batch_size, steps=here.steps,
        epochs=how.epochs, pruned=how.prune_epochs * here.steps, weight=np.asarray(dataset.train.weight),
        shared={"num_groups": dataset.num_groups, **descent},
    )  # fmt: skip


def game(
    bound: Bound, facts: Facts, primal: Any, *, order: str, share: Any, temperature: Any
) -> tuple[Bounded, Callable[[Lane], Any]]:
    """The bound of these facts, and the solver of a lane: of a loss that follows its dense network, if there is one."""
    for name, given, well in (("distill", share, lambda d: d <= 1), ("temperature", temperature, lambda t: t > 0)):
        number = np.asarray(given)
        if not np.all(np.isfinite(number) & (number >= 0) & well(number)):
            allowed = "a share of the loss from 0 to 1" if name == "distill" else "a number above 0"
            raise ValueError(f"{name}={given}: give {allowed}.")
    bounded = bound.make(facts)

    def solver(lane: Lane) -> Any:
        made = bounded if lane.teacher is None else bound.make(_taught(facts, lane.teacher, temperature, share))
        return constraints.solver(made.problem, primal=primal, dual=made.dual, order=order)

    return bounded, solver


def _taught(facts: Facts, teacher: train.Networks, temperature: Any, share: Any) -> Facts:
    """The same with a loss that follows a network."""

    def said(batch: Batch) -> jax.Array:
        return facts.apply(teacher.params, teacher.model_state, batch.x, train=False)[0]

    loss = constraints.distillation(said, temperature=temperature, share=share)
    return facts._replace(shared=facts.shared | {"loss": loss})


def begin(
    here: Frame, bounded: Bounded, solver: Any, dense: Networks, *, teach: Any, first: Networks | None = None
) -> tuple[Any, Kept, Lane]:
    """The solver's state, what is kept, and what a lane is told of its dense network; ``[S, ...]`` each.

    Training begins with the dense networks, or with those in ``first``; what they have pruned stays so.
    """
    first = dense if first is None else first
    predicted = here.predict(dense.params, dense.model_state, here.train)
    truth = jnp.broadcast_to(jnp.asarray(here.train.y), predicted.label.shape)
    correct = (predicted.label == truth).astype(jnp.float32)
    outcomes = constraints.Outcomes(correct, predicted.loss)
    labels = Batch(*(jnp.asarray(f) for f in here.train._replace(x=np.zeros(0, np.float32))))

    def started(params: Any, state: Any, outcomes: Any, label: Any, split: Batch) -> tuple[Any, Kept]:
        if bounded.begin is None:
            carry = bounded.problem.init(state, outcomes, split)
        else:
            carry = bounded.begin(state, outcomes, split, label)
        empty = train.empty_snapshot(params, state)
        return solver(Lane(outcomes.correct, label)).init(params, carry), Kept(empty, empty)

    lifted = here.plan.lift(started, (0, 0, 0, 0, None))
    start, kept = lifted(first.params, first.model_state, outcomes, predicted.label, labels)
    if first.masks is not None:
        primal = start.primal_state
        masks = jax.tree.map(_both, primal.masks, first.masks)
        start = start._replace(primal_state=primal._replace(masks=masks))
    teacher = train.Networks(dense.params, dense.model_state) if teach else None
    return start, kept, Lane(correct, predicted.label, teacher)


def _both(mine: jax.Array, given: Any) -> jax.Array:
    """``[S, ...]``: what lives under both masks, in the shape of the first; either may be one flag for a whole leaf."""
    given = jnp.asarray(given, bool)
    if given.ndim > mine.ndim:  # a leaf that is not prunable
        return mine
    return mine & given.reshape(*given.shape, *[1] * (mine.ndim - given.ndim))
