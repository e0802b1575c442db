"""How sparse, when: a schedule is a table of steps and exact sparsities.

Step ``t`` counts optimizer steps that are done: ``schedule(0)`` is the sparsity of the first
forward pass, and the update number ``t`` (from 0) leaves ``schedule(t + 1)``, so that the next
forward pass sees it.

A table, and not a formula of a traced step, because masks change at these steps only, the last of
them must give the final sparsity exactly, and the number of weights to prune is an integer that
float32 cannot be trusted with
(see `jaxfair.sparsity._counts`).
"""

import bisect
import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity import _numbers
from jaxfair.typing import Array


class Schedule(NamedTuple):
    """The steps at which masks are updated, and the sparsity that each leaves.

    Attributes:
      steps: ascending integers, ``[U]``.
      sparsities: the share of zeros from that step until the next, ``[U]`` fractions in ``[0,
        1)``. Before the first step it is 0.

    Example:
      Any table will do. This one prunes half of the weights at step 10 and 3/4 at step 50:

      >>> from fractions import Fraction
      >>> schedule = Schedule(steps=(10, 50), sparsities=(Fraction(1, 2), Fraction(3, 4)))
      >>> [float(schedule(t)) for t in (0, 9, 10, 49, 50, 1000)]
      [0.0, 0.0, 0.5, 0.5, 0.75, 0.75]
    """

    steps: tuple[int, ...]
    sparsities: tuple[Fraction, ...]

    def __call__(self, step: Any) -> Array:
        """The sparsity after `step` updates, ``[]`` float32; `step` may be traced."""
        values = np.array([0, *self.sparsities], dtype=np.float32)
        return jnp.asarray(values)[self.index(step)]

    def at(self, step: int) -> float:
        """The same of a step that is known, as a number: nothing is compiled."""
        return float(np.float32([0, *self.sparsities][bisect.bisect_right(self.steps, step)]))

    def index(self, step: Any) -> Array:
        """How many of the scheduled steps have been reached, ``[]`` int32 in ``[0, U]``."""
        steps = jnp.asarray(np.array(self.steps, dtype=np.int32))
        return jnp.sum(steps <= step, dtype=jnp.int32)

    def is_update(self, step: Any) -> Array:
        """Whether `step` is one of the scheduled steps, ``[]`` bool."""
        return jnp.any(jnp.asarray(np.array(self.steps, dtype=np.int32)) == step)


def checked(schedule: Schedule) -> Schedule:
    """A schedule whose steps are ascending integers and whose sparsities are fractions, whoever wrote its table.

    Raises:
      ValueError: for what no schedule has.

    Example:
      >>> checked(Schedule((0, 5), (0.25, "1/2"))).sparsities
      (Fraction(1, 4), Fraction(1, 2))
    """
    steps = tuple(_numbers.whole("a step of a schedule", step) for step in schedule.steps)
    if not steps or len(steps) != len(schedule.sparsities) or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(
            f"a schedule has ascending steps and as many sparsities, but it has {len(schedule.sparsities)} "
            f"sparsities at the steps {list(schedule.steps)}"
        )
    if steps[-1] >= 2**31:
        raise ValueError(f"a step of a schedule must be below 2**31, but it is {steps[-1]}")
    return Schedule(steps, tuple(map(counts.exact_sparsity, schedule.sparsities)))


def polynomial(final: Any, *, begin: Any, end: Any, every: Any, initial: Any = 0.0, power: Any = 3) -> Schedule:
    r"""Gradual pruning: fast while there is much to prune, slow towards the end.

    .. math::
      s(t) = s_{final} + (s_{initial} - s_{final}) \left(1 - \frac{t - begin}{end - begin}\right)^{power}

    at :math:`t = begin, begin + every, \dots` and at `end` itself, also where `every` does not
    divide the distance, so that the final sparsity is always reached exactly. Before `begin`
    nothing is pruned.

    Args:
      final: the last sparsity, in ``[0, 1)``.
      begin: the first scheduled step.
      end: the last scheduled step, after `begin`.
      every: steps between two updates of the masks. The table has ``(end - begin) / every + 1``
        rows.
      initial: the sparsity at `begin`, in ``[0, 1)``. Where it is above 0 and `begin` is 0, the
        weights must be masked once after ``init``: ``params = apply_masks(params,
        get_masks(opt_state))``.
      power: a positive integer; 3 in the paper, 1 is linear.

    Returns:
      The `Schedule`.

    Raises:
      ValueError: for a sparsity outside ``[0, 1)``, or steps that are out of order.

    Example:
      Sixteen updates, one per epoch of 1000 steps:

      >>> schedule = polynomial(0.9, begin=0, end=15_000, every=1000)
      >>> [round(float(s), 3) for s in schedule.sparsities][:6]
      [0.0, 0.168, 0.314, 0.439, 0.545, 0.633]
      >>> schedule.sparsities[-1]
      Fraction(9, 10)

    References:
      Zhu and Gupta, *To prune, or not to prune*, 2017. The same convention as JaxPruner's
      polynomial schedule: for ``polynomial(0.5, begin=0, end=20, every=1)``, update number 9
      leaves 0.4375. Unlike there, `end` is always a scheduled step, and updates fire at multiples
      of `every` counted from `begin`.
    """
    first, last = counts.exact_sparsity(initial), counts.exact_sparsity(final)
    begin, end, every = _steps(begin, end, every)
    if not (0 <= begin < end and every >= 1):
        raise ValueError(
            f"a schedule needs 0 <= begin < end and every >= 1, but it has begin={begin}, end={end}, every={every}; "
            f"use constant({final}, begin={begin}) to prune once"
        )
    power = _numbers.whole("power", power, low=None, hint="3 is the usual one")
    if power < 1:
        raise ValueError(f"power must be a positive integer, but it is {power}; 3 is the usual one")
    if not first <= last:
        raise ValueError(
            f"sparsity must not fall, but initial={initial} is above final={final}; pruned weights do not come back"
        )
    steps = (*range(begin, end, every), end)
    remaining = (Fraction(end - step, end - begin) for step in steps)
    return Schedule(steps, tuple(last + (first - last) * r**power for r in remaining))


def constant(sparsity: Any, *, begin: Any = 0) -> Schedule:
    """One-shot pruning: everything at step `begin`.

    Args:
      sparsity: in ``[0, 1)``.
      begin: the step. With 0, the masks come from the initial weights in ``init``, and the weights
        must be masked once after it: ``params = apply_masks(params, get_masks(opt_state))``.

    Returns:
      The `Schedule`.

    Raises:
      ValueError: for a sparsity outside ``[0, 1)``, or a negative step.

    Example:
      >>> schedule = constant(0.5, begin=100)
      >>> [float(schedule(t)) for t in (99, 100)]
      [0.0, 0.5]
    """
    begin = _numbers.whole("begin", begin, low=None)
    if begin < 0:
        raise ValueError(f"begin is a step, 0 or later, but it is {begin}")
    return Schedule((begin,), (counts.exact_sparsity(sparsity),))


def periodic(sparsity: Any, *, every: Any, end: Any, begin: Any = 0) -> Schedule:
    """The same sparsity at regular steps: for methods that exchange weights, `rigl` and `set_`.

    Args:
      sparsity: in ``[0, 1)``.
      every: steps between two exchanges.
      end: no exchange after this step; RigL stops at three quarters of training.
      begin: the first step. With 0 the network is sparse from the start, and the weights must be
        masked once after ``init``.

    Returns:
      The `Schedule`.

    Raises:
      ValueError: for a sparsity outside ``[0, 1)``, or steps that are out of order.

    Example:
      >>> periodic(0.8, every=100, end=250).steps
      (0, 100, 200)
    """
    begin, end, every = _steps(begin, end, every)
    if not (0 <= begin <= end and every >= 1):
        raise ValueError(
            f"a schedule needs 0 <= begin <= end and every >= 1, but it has begin={begin}, end={end}, every={every}"
        )
    steps = tuple(range(begin, end + 1, every))
    return Schedule(steps, (counts.exact_sparsity(sparsity),) * len(steps))


def tabulated(schedule: Callable[[Any], Any], *, begin: Any, end: Any, every: Any) -> Schedule:
    """Any optax schedule, read at begin, begin + every, ... and at `end`.

    Args:
      schedule: ``schedule(step)``, the sparsity at that step, in ``[0, 1)``. Seven decimal digits of it count, as
        many as a float32 has: 0.9 means 9/10.
      begin: the first step.
      end: the last step, whether `every` divides the distance or not.
      every: steps between two readings.

    Returns:
      The `Schedule`.

    Raises:
      ValueError: for a sparsity outside ``[0, 1)``, or steps that are out of order.

    Example:
      >>> import optax
      >>> linear = tabulated(optax.linear_schedule(0.0, 0.9, 30), begin=0, end=30, every=10)
      >>> [str(s) for s in linear.sparsities]
      ['0', '3/10', '3/5', '9/10']
    """
    begin, end, every = _steps(begin, end, every)
    if not (0 <= begin <= end and every >= 1):
        raise ValueError(
            f"a schedule needs 0 <= begin <= end and every >= 1, but it has begin={begin}, end={end}, every={every}"
        )
    steps = (*range(begin, end, every), end)
    return Schedule(steps, tuple(counts.exact_sparsity(np.float32(schedule(step))) for step in steps))


def alternating(sparsity: Any, *, begin: Any, end: Any, every: Any) -> Schedule:
    """Sparse and dense in turn, sparse at last: AC/DC, with ``regrow(...)`` that brings the weights back.

    Args:
      sparsity: of the sparse phases, in ``[0, 1)``.
      begin: the first step of the first sparse phase.
      end: the first step of the last sparse phase, which does not end.
      every: steps of a phase; it divides the distance an even number of times.

    Returns:
      The `Schedule`.

    Raises:
      ValueError: for a sparsity outside ``[0, 1)``, or steps that do not end with a sparse phase.

    Example:
      >>> schedule = alternating(0.9, begin=10, end=30, every=10)
      >>> [round(float(schedule(t)), 1) for t in (0, 10, 20, 30, 99)]
      [0.0, 0.9, 0.0, 0.9, 0.9]

    References:
      Peste et al., *AC/DC: alternating compressed/decompressed training of deep neural networks*, 2021.
    """
    begin, end, every = _steps(begin, end, every)
    if not (0 <= begin < end and every >= 1) or (end - begin) % (2 * every):
        raise ValueError(
            f"an alternating schedule needs 0 <= begin < end, and end - begin a multiple of 2 every, but it has "
            f"begin={begin}, end={end}, every={every}"
        )
    steps = tuple(range(begin, end + 1, every))
    share = counts.exact_sparsity(sparsity)
    return Schedule(steps, tuple(share if i % 2 == 0 else Fraction(0) for i in range(len(steps))))


def _steps(begin: Any, end: Any, every: Any) -> tuple[int, int, int]:
    """As integers, of Python, NumPy or JAX; what is out of range is said later, with all three."""
    given = {"begin": begin, "end": end, "every": every}
    first, last, between = (_numbers.whole(name, step, low=None) for name, step in given.items())
    return first, last, between
