r"""LISA: train on mixtures of two examples that differ in the group but not the class, or the other way round.

For an example :math:`(x_i, y_i)` a partner j is drawn: with probability one half of the same class and another group,
else of the same group and another class. With :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)`,

.. math:: x = \lambda x_i + (1 - \lambda) x_j, \qquad
          \ell = \lambda\, \ell(f(x), y_i) + (1 - \lambda)\, \ell(f(x), y_j)

which for the cross entropy is that of the soft label. The first kind of pair hides the group from the network, the
second teaches that the class is not the group. **It hurts where the class is not to be had without the group**: where a
feature has the opposite sign in a minority, a mixture over groups of one class lies where the other class is. It is no
default.

How it is arranged: :func:`lisa_order` puts the partners behind the examples, 2B positions a step, and :func:`lisa`
wraps any solver: it mixes, and hands on a batch of 2B in which every mixture stands twice, with both labels and the
weights :math:`\lambda` and :math:`1 - \lambda`. So constraints, pruners and robust objectives train under it as they
are. With :func:`once` around the model's ``apply`` the network runs on B mixtures, not on 2B.

Beside the authors' code: that draws :math:`\lambda` for its "cut-mix" with another ``alpha`` than it says, and reports
all mixtures as one group; its batches are four group batches. Here batches are drawn from all people alike, a step sees
B examples and their partners, and where there is no partner of the kind that was drawn, an example stays as it is.

Reference: Yao et al., `Improving Out-of-Distribution Robustness via Selective Augmentation
<https://arxiv.org/abs/2201.00299>`_, 2022.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from jaxfair.optim import numbers
from jaxfair.robust._cells import cell_of, epochs_over
from jaxfair.typing import Batch, Key, ModelState, Params, Solver, whole


def lisa_order(
    key: Key,
    epoch: Any,
    *,
    group: Int[np.ndarray, " N"],
    y: Int[np.ndarray, " N"],
    batch_size: int,
    num_steps: int,
    same_class: ArrayLike = 0.5,
) -> Int[Array, "T pairs"]:
    """The examples of each step of an epoch, and behind them their partners, for `jaxfair.train.fit`.

    Args:
      key: the lane's.
      epoch: its number; the order depends on key and epoch alone.
      group: ``[N]`` of the training split, a NumPy array.
      y: ``[N]`` classes, a NumPy array.
      batch_size: B, the number of mixtures a step.
      num_steps: T.
      same_class: the chance of a partner of the same class and another group.

    Returns:
      ``[T, 2B]`` int32 positions: fresh permutations of all examples, then the partner of each. Who has no partner of
      the kind that was drawn is its own.

    Raises:
      ValueError: for a batch larger than the split, ids below 0, and a chance outside [0, 1].

    Example:
      >>> group, y = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 1, 1])
      >>> order = np.asarray(lisa_order(jax.random.key(0), 0, group=group, y=y, batch_size=3, num_steps=2))
      >>> first, partner = order[:, :3], order[:, 3:]
      >>> ((group[first] == group[partner]) != (y[first] == y[partner])).all().item()
      True
    """
    numbers.check("same_class", same_class, 0.0, 1.0, ends="[]")
    if not 1 <= batch_size <= len(group):
        raise ValueError(f"batch_size={batch_size}: give a number from 1 to {len(group)}, the examples of the split.")
    of_order, of_kind, of_class, of_group = jax.random.split(jax.random.fold_in(key, epoch), 4)
    everybody = jnp.arange(len(group), dtype=jnp.int32)
    first = epochs_over(of_order, everybody, batch_size=batch_size, num_steps=num_steps)
    kind = jax.random.bernoulli(of_kind, same_class, first.shape)
    partner = jnp.where(kind, _another(of_class, first, y, group), _another(of_group, first, group, y))
    return jnp.concatenate([first, partner], axis=1)


def _another(
    key: Key, first: Int[Array, "T B"], same: Int[np.ndarray, " N"], other: Int[np.ndarray, " N"]
) -> Int[Array, "T B"]:
    """Of each example one of the ``same`` and another ``other``, each alike; itself where there is none."""
    cell, num_cells = cell_of(other, same)
    order = np.argsort(cell, kind="stable")  # the same stand together, and of these the same others
    size, all_of = np.bincount(cell, minlength=num_cells), np.bincount(same)
    begin, own = (np.cumsum(all_of) - all_of)[same], (np.cumsum(size) - size)[cell]
    plan = np.stack([begin, own - begin, size[cell], all_of[same] - size[cell]]).astype(np.int32)
    start, offset, skip, number = jnp.asarray(plan)[:, first]
    drawn = jax.random.randint(key, first.shape, 0, jnp.maximum(number, 1))
    place = start + drawn + jnp.where(drawn >= offset, skip, 0)
    return jnp.where(number > 0, jnp.asarray(order.astype(np.int32))[jnp.where(number > 0, place, 0)], first)


def lisa(solver: Solver, *, alpha: ArrayLike = 2.0) -> Solver:
    r"""Makes a solver train on mixtures; its batches are of 2B examples, as :func:`lisa_order` arranges them.

    Args:
      solver: any, whose loss is a mean by ``batch.weight``.
      alpha: :math:`\alpha`, above 0; it may be traced. Near 0 a mixture is one of the two, at large ones half of each.

    Returns:
      The `Solver`: ``init`` is the solver's own. A pair of which one has the weight 0 is the other; whoever is paired
      with itself stays as it is.

    Raises:
      ValueError: for ``alpha`` not above 0, and when traced for a batch of an odd number.

    Example:
      >>> import optax
      >>> from jaxfair import train
      >>> apply = lambda params, state, x, *, train, key=None: (x @ params, state)
      >>> solver = lisa(train.descent(once(apply), optax.sgd(1.0)))
      >>> two = Batch(x=jnp.eye(2), y=jnp.array([0, 1]), group=jnp.zeros(2, jnp.int32), index=jnp.arange(2),
      ...             weight=jnp.ones(2))
      >>> state, info = jax.jit(solver.step)(solver.init(jnp.zeros((2, 2))), two, jax.random.key(0))
      >>> round(float(info.loss), 4), int(state.step)
      (0.6931, 1)
    """
    numbers.check("alpha", alpha, 0.0, float("inf"), ends="()")

    def step(state: Any, batch: Batch, key: Key | None) -> tuple[Any, Any]:
        if key is None:
            raise ValueError("key=None: LISA draws how pairs are mixed, and needs a key.")
        if len(batch.y) % 2:
            raise ValueError(f"a batch of {len(batch.y)}: LISA takes examples and as many partners; see lisa_order.")
        half = len(batch.y) // 2
        one, other = (jax.tree.map(lambda a, s=s: jnp.asarray(a)[s], batch) for s in (np.s_[:half], np.s_[half:]))
        # The solver's own noise is what it would be without mixing.
        share = _beta(jax.random.fold_in(key, 1), alpha, half)
        share = jnp.where((one.index == other.index) | (other.weight == 0), 1, jnp.where(one.weight == 0, 0, share))
        weight = jnp.concatenate([share * one.weight, (1 - share) * other.weight])

        def mixed(a: Array, b: Array) -> Array:
            a, b = (v if jnp.issubdtype(v.dtype, jnp.inexact) else v.astype(share.dtype) for v in (a, b))
            lam = share.astype(a.dtype).reshape(half, *(1,) * (a.ndim - 1))
            # What is in padding may be anything, and is not touched.
            between = jnp.where(lam == 1, a, jnp.where(lam == 0, b, lam * a + (1 - lam) * b))
            return jnp.concatenate([between, between])

        x = jax.tree.map(mixed, one.x, other.x)
        return solver.step(state, batch._replace(x=x, weight=weight), key)

    return Solver(solver.init, step)


def _beta(key: Key, alpha: ArrayLike, num: int) -> Float[Array, " num"]:
    """From Beta(alpha, alpha). At 1 it is uniform, and at 2 the middle of three uniforms: a hundred times as fast."""
    if whole(alpha) == 1:
        return jax.random.uniform(key, (num,))
    if whole(alpha) == 2:
        one, two, three = jax.random.uniform(key, (3, num))
        return jnp.maximum(jnp.minimum(one, two), jnp.minimum(jnp.maximum(one, two), three))
    return jax.random.beta(key, alpha, alpha, (num,))


def once(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A model's ``apply`` that in training runs on the first half of a batch, and says it for the second half, too.

    Under :func:`lisa` both halves hold the same mixtures, so this is the same at half the cost; of BatchNorm, too.

    Args:
      apply: ``apply(params, state, x, *, train, key=None) -> (logits, state)``.

    Example:
      >>> double = once(lambda params, state, x, *, train, key=None: (params * x, state))
      >>> double(2.0, {}, jnp.array([1.0, 5.0, 1.0, 5.0]), train=True)[0].tolist()
      [2.0, 10.0, 2.0, 10.0]
    """

    def halved(
        params: Params, state: ModelState, x: Any, *, train: bool, key: Key | None = None
    ) -> tuple[Array, ModelState]:
        if not train:
            return apply(params, state, x, train=train, key=key)
        logits, state = apply(params, state, jax.tree.map(lambda a: a[: len(a) // 2], x), train=train, key=key)
        return jnp.concatenate([logits, logits]), state

    return halved
