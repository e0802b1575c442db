r"""JTT: train for a while, see who is got wrong, and train again from the start with those counting more.

After T epochs of plain training, with weak or strong regularisation as one would tune it, let :math:`E` be the training
examples that the network gets wrong. A second network is trained from a fresh start where an example weighs

.. math:: w_i = \lambda_{up} \text{ if } i \in E, \text{ else } 1

No group is known in training. It lives from early stopping: a network that has fitted everything gets nobody wrong, and
one that is stopped at the right time gets wrong those of whom the majority's rule is not true. T and
:math:`\lambda_{up}` are chosen by the worst group's accuracy on validation, where groups are known.

Semantics of :math:`\lambda_{up}`: here an error counts ``up`` times as much as another example, as in BalancingGroups.
The authors' code *adds* ``up_weight`` copies of each error, so there it counts ``up_weight + 1`` times, and the second
run has longer epochs than the first: compare methods at equal steps.

Reference: Liu et al., `Just Train Twice <https://arxiv.org/abs/2107.09044>`_, 2021.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from jaxfair.optim import numbers
from jaxfair.typing import Key


def just_train_twice(correct: Any, *, up: ArrayLike) -> Float[Array, "*S N"]:
    """The weights of the second run, from the outcomes of the first.

    Two ways to use them, which minimise the same loss in expectation. As ``Batch.weight`` of the training split, with
    ``split_axes`` where every lane has errors of its own; or, with less noise where ``up`` is large, as the chances in
    :func:`weighted_order`.

    Args:
      correct: ``[N]`` or ``[S, N]``, which training examples the first network gets right.
      up: how many times as much as another an error counts; above 0. At 1 it is plain training.

    Returns:
      Weights of 1 and ``up``, float32, in the shape of ``correct``.

    Raises:
      ValueError: where a network gets everybody right, for outcomes that are no yes or no, and for ``up`` not above 0.

    Example:
      >>> just_train_twice(np.array([True, True, False, True]), up=5.0)
      Array([1., 1., 5., 1.], dtype=float32)
      >>> just_train_twice(np.ones(4, bool), up=5.0)
      Traceback (most recent call last):
      ...
      ValueError: nobody is got wrong: T is too late; stop the first run earlier, or regularise it more.
    """
    numbers.check("up", up, 0.0, float("inf"), ends="()")
    if not isinstance(correct, Tracer):
        right = np.asarray(correct)
        if right.ndim not in (1, 2) or not np.isin(right, (0, 1)).all():
            raise ValueError(
                f"correct of shape {right.shape}: give [N] or [S, N] outcomes, each right (1) or wrong (0)."
            )
        late = np.flatnonzero(np.atleast_2d(right).all(axis=1))
        if late.size:
            lane = f" in lane {late[0]}" if right.ndim == 2 else ""
            raise ValueError(
                f"nobody is got wrong{lane}: T is too late; stop the first run earlier, or regularise it more."
            )
    return jnp.where(jnp.asarray(correct, bool), jnp.float32(1), jnp.asarray(up, jnp.float32))


def weighted_order(
    key: Key, epoch: Any, *, weights: Float[Any, " N"], batch_size: int, num_steps: int
) -> Int[Array, "T B"]:
    """The examples of each step of an epoch, drawn with replacement by weight, for `jaxfair.train.fit`.

    Args:
      key: the lane's.
      epoch: its number; the order depends on key and epoch alone.
      weights: ``[N]``, at least 0; known when tracing. They are the same for all lanes: where each has its own, give
        them as ``Batch.weight``, or fit one lane after another.
      batch_size: B.
      num_steps: T.

    Returns:
      ``[T, B]`` int32 positions in the training split. An example has its share of the weights in every place, to
      within 2^-32.

    Raises:
      ValueError: for weights that are negative, not finite or all 0, and a batch of nobody.

    Example:
      >>> order = weighted_order(jax.random.key(0), 0, weights=np.array([1.0, 0.0, 4.0]), batch_size=4, num_steps=1000)
      >>> (np.bincount(np.asarray(order).ravel(), minlength=3) / 4000).round(1).tolist()
      [0.2, 0.0, 0.8]
    """
    share = np.asarray(weights, np.float64)
    if share.ndim != 1 or not np.all(np.isfinite(share) & (share >= 0)) or not share.sum() > 0:
        raise ValueError(f"weights of shape {share.shape}: give [N] finite numbers, 0 or above, and not 0 all of them.")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: give a number from 1 on.")
    # The heaviest goes last: where its place begins is below 2^32, and all behind the last threshold is its own.
    heaviest = int(share.argmax())
    places = np.append(np.delete(np.arange(len(share)), heaviest), heaviest)
    ends = np.floor(np.cumsum(share[places])[:-1] / share.sum() * 2.0**32).astype(np.uint32)
    bits = jax.random.bits(jax.random.fold_in(key, epoch), (num_steps, batch_size), jnp.uint32)
    found = jnp.searchsorted(jnp.asarray(ends), bits, side="right")
    return jnp.asarray(places.astype(np.int32))[found]
