"""Evaluation on full splits, in eval mode, with padding that weighs nothing."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import metrics
from jaxfair.train.plan import Plan, stack, take
from jaxfair.typing import Batch, ModelState, Params


class Predictions(NamedTuple):
    """What a network says of every example of a split.

    Attributes:
      label: ``[N]`` int32, the class with the largest logit (the first of equal ones); -1, which is no class, where
        logits are not numbers: a network that has diverged predicts nothing, and is right about nobody.
      loss: ``[N]`` float32 cross entropy with the true class; 0 where that is none of the C.
    """

    label: jax.Array
    loss: jax.Array


def predict_batch(
    apply: Callable[..., Any], params: Params, model_state: ModelState, x: jax.Array, y: jax.Array
) -> Predictions:
    """The predictions of one batch, in eval mode.

    Example:
      >>> import jax.numpy as jnp
      >>> apply = lambda params, state, x, *, train: (x, state)
      >>> predict_batch(apply, {}, {}, jnp.array([[0.0, 2.0]]), jnp.array([1])).label
      Array([1], dtype=int32)
    """
    logits, _ = apply(params, model_state, x, train=False)
    logits = logits.astype(jnp.float32)
    known = has_class(y, logits.shape[-1])
    own = jnp.take_along_axis(logits, jnp.where(known, y, 0)[:, None], axis=-1)[:, 0]
    loss = jnp.where(known, jax.nn.logsumexp(logits, axis=-1) - own, 0.0)
    label = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    # `metrics.correct` is the one truth of what a row of logits is right about.
    return Predictions(jnp.where(metrics.correct(logits, label), label, -1), loss)


def has_class(y: jax.Array, num_classes: int) -> jax.Array:
    """Who has a class: a negative number would be taken for the last one.

    Example:
      >>> has_class(jnp.array([0, -1, 2], jnp.int8), 2).tolist()
      [True, False, False]
    """
    wide = y if y.dtype.itemsize > 4 else y.astype(jnp.int32)
    return (wide >= 0) & (wide < num_classes)


def make_predict(
    apply: Callable[..., Any], *, batch_size: int = 2048, looped: bool = False
) -> Callable[[Params, ModelState, Batch], Predictions]:
    """Makes ``predict(params, model_state, split) -> Predictions`` over a whole split, for one lane.

    Args:
      apply: the model's.
      batch_size: examples per forward pass; the last batch is padded.
      looped: a host loop over batches, for splits that are read from disk (``split.x`` is anything that can be
        sliced) and for convolutions on a CPU. Otherwise one program, which can be mapped over lanes.

    Example:
      >>> import jax.numpy as jnp, numpy as np
      >>> predict = make_predict(lambda params, state, x, *, train: (x * params, state), batch_size=2)
      >>> x, index = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]]), jnp.arange(3)
      >>> predict(jnp.ones(()), {}, Batch(x, jnp.array([0, 1, 0]), index, index, jnp.ones(3))).label
      Array([0, 1, 1], dtype=int32)
    """
    one = partial(predict_batch, apply)
    if looped:
        jitted = jax.jit(one)

        def predict(params: Params, model_state: ModelState, split: Batch) -> Predictions:
            parts = [
                jax.tree.map(lambda a, n=n: np.asarray(a)[:n], jitted(params, model_state, x, y))
                for x, y, n in padded_batches(split, batch_size)
            ]
            if not parts:
                return Predictions(jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.float32))
            return Predictions(*(jnp.concatenate(field) for field in zip(*parts, strict=True)))

        return predict

    def predict(params: Params, model_state: ModelState, split: Batch) -> Predictions:
        num = len(split.y)
        size = max(min(batch_size, num), 1)  # of nobody, too
        short = -num % size

        def batched(array: Any) -> jax.Array:
            array = jnp.asarray(array)
            padded = jnp.concatenate([array, jnp.zeros((short, *array.shape[1:]), array.dtype)])
            return padded.reshape(-1, size, *array.shape[1:])

        result = jax.lax.map(lambda xy: one(params, model_state, *xy), (batched(split.x), batched(split.y)))
        return Predictions(*(field.reshape(-1)[:num] for field in result))

    return predict


def make_logits(
    apply: Callable[..., Any], *, batch_size: int = 2048
) -> Callable[[Params, ModelState, jax.Array], jax.Array]:
    """Makes ``logits(params, model_state, x) -> [N, C]`` over a whole split, for one lane: a teacher's, say.

    Args:
      apply: the model's.
      batch_size: examples per forward pass; the last batch is padded.

    Example:
      >>> logits = make_logits(lambda params, state, x, *, train: (x * params, state), batch_size=2)
      >>> logits(jnp.float32(2.0), {}, jnp.ones((3, 2))).tolist()
      [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    """

    def logits(params: Params, model_state: ModelState, x: jax.Array) -> jax.Array:
        num = x.shape[0]
        size = max(min(batch_size, num), 1)
        padded = jnp.concatenate([x, jnp.zeros((-num % size, *x.shape[1:]), x.dtype)])
        batches = padded.reshape(-1, size, *x.shape[1:])
        found = jax.lax.map(lambda b: apply(params, model_state, b, train=False)[0], batches)
        return found.reshape(-1, found.shape[-1])[:num].astype(jnp.float32)

    return logits


def predictor(
    apply: Callable[..., Any], plan: Plan, *, batch_size: int = 2048, own: bool = False
) -> Callable[[Params, ModelState, Batch], Predictions]:
    """Makes ``predict(params, model_state, split) -> Predictions`` over a whole split and all lanes, as the plan says.

    Args:
      apply: the model's.
      plan: of :func:`jaxfair.train.plan`.
      batch_size: examples per forward pass.
      own: whether each lane has a split of its own, every array of it ``[S, N, ...]``.

    Returns:
      The function: of parameters and model states ``[S, ...]`` and a split that all lanes share, to ``[S, N]``.

    Example:
      >>> predict = predictor(lambda params, state, x, *, train: (x * params, state), Plan())
      >>> index = jnp.arange(2)
      >>> split = Batch(jnp.array([[1.0, 0.0], [0.0, 1.0]]), index, index, index, jnp.ones(2))
      >>> predict(jnp.array([1.0, -1.0, jnp.nan]), {}, split).label.tolist()
      [[0, 1], [1, 0], [-1, -1]]
    """
    by_host = plan.slow_loops or plan.streamed
    predict = make_predict(apply, batch_size=batch_size, looped=by_host)
    if plan.mapped and not by_host:
        return jax.jit(jax.vmap(predict, (0, 0, 0 if own else None)))
    one = predict if by_host else jax.jit(predict)

    def one_by_one(params: Params, model_state: ModelState, split: Batch) -> Predictions:
        lanes = len(jax.tree.leaves(params)[0])
        networks = [(take(params, i), take(model_state, i)) for i in range(lanes)]
        return stack([one(*n, take(split, i) if own else split) for i, n in enumerate(networks)])

    return one_by_one


def padded_batches(split: Batch, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """``(x, y, n)``: batches of a split in order, all of one size; the last holds ``n`` examples and then zeros."""
    num = len(split.y)
    size = max(min(batch_size, num), 1)
    for start in range(0, num, size):
        x, y = np.asarray(split.x[start : start + size]), np.asarray(split.y[start : start + size])
        short = size - len(y)
        if short:
            x = np.concatenate([x, np.zeros((short, *x.shape[1:]), x.dtype)])
            y = np.concatenate([y, np.zeros(short, y.dtype)])
        yield x, y, size - short
