r"""A coreset: the smallest subset of the training set on which a network becomes as good as on other ones.

Two levels. Below, a network is trained on the subset; above, the subset is chosen, by two objectives in order of
priority:

.. math::

   \min_{m \in \{0, 1\}^N} \big( f_1(m),\ f_2(m) \big), \qquad
   f_1(m) = L\big(\theta(m)\big) \text{ on all examples}, \quad
   f_2(m) = \textstyle\sum_i m_i, \quad
   \theta(m) = \operatorname{argmin}_\theta \sum_i m_i\, \ell_i(\theta)

A larger size is never worth a loss within ``tolerance`` of the smallest seen, and no size is worth a larger one; see
:func:`lexicographic_better`. The search is random and direct: a move proposes another subset, it is trained on and
compared, and kept or not. What is handed out (:func:`coreset_of`) is the choice among all that was seen.

============  =====================================  ============
the paper     meaning                                here
============  =====================================  ============
m             mask of the members                    ``state.mask``
f_1, f_2      loss on all, size                      ``state.loss``, ``state.size``
F_1^*         smallest loss seen                     ``state.best``
epsilon       tolerance                              ``tolerance``
k             size of the start                      ``start``
============  =====================================  ============

Nothing is promised: a local search reached the optimum of ten examples in 2 to 45 of 100 problems. That it is better
than chance is for an experiment to say (``experiments/coresets.py``).

Differs from the authors' code: the start is evaluated and may be chosen (there, the first move is always accepted);
equal size and smaller loss is an improvement (``ties=False`` for theirs); what is empty, too large or has diverged has
the loss inf, and not 1,000 + 1,000 (size - limit)^2; the moves are ours, and theirs is :func:`flow`; several candidates
may be trained side by side.

Source: Xia, Liu, Zhang, Wu, Wei and Liu, `Refined Coreset Selection: Towards Minimal Coreset Size under Model
Performance Constraints <https://arxiv.org/abs/2311.08675>`_, ICML 2024.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import ArrayLike, Bool

from jaxfair.bilevel import _history
from jaxfair.bilevel._history import History
from jaxfair.bilevel._lexicographic import lexicographic_better
from jaxfair.bilevel._proposals import Proposal, swap
from jaxfair.sparsity import top_k
from jaxfair.tree import copied
from jaxfair.typing import Array, Key, Params, Solver, whole


class CoresetState(NamedTuple):
    """What the search carries from step to step.

    Attributes:
      params: trained on the incumbent.
      step: scalar int32, the number of steps taken.
      mask: ``[N]`` bool, the incumbent.
      loss: scalar float32, its loss on all examples.
      size: scalar int32, its members.
      best: scalar float32, the smallest loss of all evaluations.
      memory: what the proposal remembers.
      history: all evaluations, see :class:`History`; their choice is read by :func:`coreset_of`.
    """

    params: Params
    step: Array
    mask: Array
    loss: Array
    size: Array
    best: Array
    memory: Any
    history: History


class CoresetInfo(NamedTuple):
    """What a step lets you look at.

    Attributes:
      loss: scalar, the incumbent's before the step.
      losses: ``[b]`` of the candidates; inf for one that is empty, too large, or has diverged.
      sizes: ``[b]`` int32.
      accepted: ``[b]`` bool, which of them became the incumbent, one after the other.
    """

    loss: Array
    losses: Array
    sizes: Array
    accepted: Array


def coreset(
    inner: Callable[[Array, Key], Params],
    outer: Callable[[Params], Array],
    *,
    num_examples: int,
    start: ArrayLike,
    evaluations: int = 500,
    limit: ArrayLike | None = None,
    tolerance: ArrayLike = 0.15,
    target: ArrayLike | None = None,
    ties: bool = True,
    proposal: Proposal | None = None,
    num_candidates: int = 1,
) -> Solver:
    """Makes the search for a small coreset.

    Args:
      inner: ``inner(weight, key) -> params``, a training from its beginning. ``weight`` is ``[N]`` float32, 1 for
        members and 0 for the others, as the weight of a `Batch`: shapes stay the same. :func:`members` gives the rows
        to those who would rather not touch all of them.
      outer: ``outer(params) -> loss`` on all examples, a scalar of at least 0.
      num_examples: N.
      start: members of the random subset that the search begins with.
      evaluations: for how many the history has room, the start included; make one step less, or
        ``(evaluations - 1) / num_candidates``.
      limit: a subset has fewer members than this; None for any number.
      tolerance: the share by which the loss may be above the smallest one seen.
      target: a loss that is good enough: with ``tolerance=0`` the search is for the smallest subset that reaches it.
      ties: whether a smaller loss at equal size is an improvement.
      proposal: how another subset comes out of the incumbent; :func:`swap` by default.
      num_candidates: b, the moves made from one incumbent and trained side by side. They are compared in order; with 1
        the rule is the published one.

    Returns:
      The :class:`~jaxfair.typing.Solver`. ``init(key, mask=None) -> CoresetState`` trains and evaluates the start, or
      the ``mask`` given. ``step`` reads no batch.

    Raises:
      ValueError: in one line, before anything is trained, for numbers that cannot be; by ``init`` outside of jit also
        for an empty or too large mask, and for a negative loss with a tolerance that is a share of it.
      TypeError: for a proposal that is none.

    Example:
      The mean of five numbers, from as few of them as may be. A pair has it. So has the number in the middle, but no
      move of one member leads there without a larger loss on its way: a local search is no more than that.

      >>> x = jnp.array([-3.0, -2.0, 0.0, 2.0, 3.0])
      >>> mean = lambda weight, key: jnp.sum(weight * x) / jnp.sum(weight)
      >>> search = coreset(mean, lambda m: jnp.mean((x - m) ** 2), num_examples=5, start=3, evaluations=41)
      >>> state, keys = search.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 40)
      >>> state, _ = jax.lax.scan(lambda state, key: search.step(state, None, key), state, keys)
      >>> _history.coreset_of(state).indices.tolist()
      [0, 4]
    """
    proposal = swap() if proposal is None else proposal
    _check(inner, outer, num_examples, start, evaluations, limit, tolerance, target, proposal, num_candidates)
    most = num_examples + 1 if limit is None else limit
    rule: dict[str, Any] = {"tolerance": tolerance, "target": -np.inf if target is None else target, "ties": ties}

    def evaluate(mask: Bool[Array, "N"], key: Key) -> tuple[Params, Array, Array]:
        params = inner(mask.astype(jnp.float32), key)
        loss = jnp.asarray(outer(params))
        if loss.shape != ():
            raise ValueError(f"outer gave shape {loss.shape}: give one number, the loss on all examples.")
        size = jnp.sum(mask, dtype=jnp.int32)
        allowed = (size > 0) & (size < most) & jnp.isfinite(loss)
        return params, jnp.where(allowed, loss, jnp.inf).astype(jnp.float32), size

    def init(key: Key, mask: Any = None) -> CoresetState:
        drawing, training = jax.random.split(key)
        if mask is None:
            mask = top_k(jax.random.uniform(drawing, (num_examples,)), start)
        _check_mask(mask, num_examples, most)
        mask = jnp.asarray(mask)
        params, loss, size = evaluate(mask, training)
        if target is None and not _known_zero(tolerance) and not isinstance(loss, Tracer) and np.any(loss < 0):
            raise ValueError(
                f"the start's loss is {loss:g}, and of a negative number tolerance={tolerance} is no room: give "
                "tolerance=0 and target=, or a loss of at least 0."
            )
        history = _history.remember(_history.empty(evaluations, num_examples), mask, loss, size)
        # Loss and best are one array, and the mask may be somebody's: no two places of the state share memory.
        return copied(CoresetState(params, jnp.int32(0), mask, loss, size, loss, proposal.init(mask), history))

    def step(state: CoresetState, batch: Any, key: Key) -> tuple[CoresetState, CoresetInfo]:
        del batch
        moving, training = (jax.random.split(k, num_candidates) for k in jax.random.split(key))
        masks, *memories = jax.vmap(lambda k: proposal.propose(state.memory, state.mask, k))(moving)
        params, losses, sizes = jax.vmap(evaluate)(masks, training)

        def compare(at: tuple[Any, ...], candidate: tuple[Any, ...]) -> tuple[Any, Array]:
            loss, size, best, which, history = at
            number, new_mask, new_loss, new_size = candidate
            won = lexicographic_better((new_loss, new_size), (loss, size), best, **rule)
            kept = (jnp.where(won, a, b) for a, b in ((new_loss, loss), (new_size, size)))
            history = _history.remember(history, new_mask, new_loss, new_size)
            return (*kept, jnp.minimum(best, new_loss), jnp.where(won, number, which), history), won

        numbers = jnp.arange(num_candidates, dtype=jnp.int32)
        at = (state.loss, state.size, state.best, jnp.int32(-1), state.history)
        (loss, size, best, which, history), accepted = lax.scan(compare, at, (numbers, masks, losses, sizes))

        def taken(new: Array, old: Array) -> Array:
            return jnp.where(which >= 0, new[which], old)

        after = jax.tree.map(lambda won, lost: taken(won, lost[0]), *memories)
        moved = CoresetState(
            jax.tree.map(taken, params, state.params), state.step + 1, taken(masks, state.mask), loss, size, best,
            after, _history.choose(history, **rule),
        )  # fmt: skip
        return moved, CoresetInfo(state.loss, losses, sizes, accepted)

    return Solver(init, step)


def members(weight: ArrayLike, most: int) -> tuple[Array, Array]:
    """The rows of a subset and their weights, at a fixed length: a training then touches these rows only.

    Args:
      weight: ``[N]``, 0 for those that are not in it.
      most: a number of members, static: of more the first are given.

    Returns:
      ``[most]`` int32 rows, and their weights, 0 behind the last member.

    Example:
      >>> rows, weights = members(jnp.array([0.0, 1.0, 0.0, 1.0]), 3)
      >>> rows.tolist(), weights.tolist()
      ([1, 3, 0], [1.0, 1.0, 0.0])
    """
    weight = jnp.asarray(weight)
    (rows,) = jnp.nonzero(weight, size=most, fill_value=0)
    there = jnp.arange(most) < jnp.sum(weight != 0)
    return rows.astype(jnp.int32), jnp.where(there, weight[rows], 0)


def _known_zero(number: ArrayLike) -> bool:
    return not isinstance(number, Tracer) and not np.any(np.asarray(number))


def _check_mask(mask: Any, num_examples: int, most: Any) -> None:
    """Raises for a start that is no subset, and for one that may not be chosen where it can be looked at."""
    kind = getattr(mask, "dtype", type(mask).__name__)
    if np.shape(mask) != (num_examples,) or str(kind) != "bool":
        raise ValueError(f"mask of shape {np.shape(mask)} and dtype {kind}: give [{num_examples}] bool.")
    if isinstance(mask, Tracer) or isinstance(most, Tracer):
        return
    size = int(np.sum(mask))
    if not 0 < size < int(most):
        raise ValueError(f"a start of {size} members: give at least 1, and fewer than limit={int(most)}.")


def _check(
    inner: Any,
    outer: Any,
    num_examples: Any,
    start: Any,
    evaluations: Any,
    limit: Any,
    tolerance: Any,
    target: Any,
    proposal: Any,
    num_candidates: Any,
) -> None:
    """Raises for what cannot be searched, before anything is trained."""
    for name, given in (("inner", inner), ("outer", outer)):
        if not callable(given):
            raise TypeError(f"{name}={given!r}: give a function.")
    check_counts(
        num_examples=num_examples, start=start, evaluations=evaluations, limit=limit, num_candidates=num_candidates
    )
    if not isinstance(start, Tracer) and whole(start) > num_examples:  # type: ignore
        raise ValueError(f"start={start}: there are {num_examples} examples.")
    if limit is not None and not any(isinstance(n, Tracer) for n in (start, limit)) and limit <= start:
        raise ValueError(f"limit={limit}, start={start}: a subset has fewer members than the limit, so the start, too.")
    check_at_least_0(tolerance=tolerance)
    if target is not None and not isinstance(target, Tracer) and np.isnan(target):
        raise ValueError(f"target={target}: give a loss that is good enough, or None.")
    if not isinstance(proposal, Proposal):
        word = getattr(proposal, "__name__", None)
        if callable(proposal) and word:
            raise TypeError(f"proposal={word} is a function that makes one: did you mean {word}()?")
        raise TypeError(f"proposal={proposal!r}: give bilevel.swap(), flip(), or a bilevel.Proposal of your own.")
    if not proposal.several and whole(num_candidates) != 1:
        raise ValueError(f"num_candidates={num_candidates}: this proposal makes one move after the other; give 1.")


def check_counts(**numbers: Any) -> None:
    """Raises for what is no whole number of at least 1; None and traced numbers pass."""
    for name, given in numbers.items():
        if given is not None and not isinstance(given, Tracer) and (whole(given) or 0) < 1:
            raise ValueError(f"{name}={given}: give a whole number of at least 1.")


def check_at_least_0(**numbers: Any) -> None:
    """Raises for what is below 0 or no number; traced numbers pass."""
    for name, given in numbers.items():
        number = np.nan if isinstance(given, str) or np.shape(given) != () else given
        if not isinstance(given, Tracer) and not 0 <= number < np.inf:
            raise ValueError(f"{name}={given}: give a number of at least 0.")
