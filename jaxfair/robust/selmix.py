r"""SelMix: a trained network fine-tuned on mixed pairs of classes, chosen by what they would add to a metric.

Every so many steps the network is looked at on validation: the confusion R, and the mean features of each class. From
them comes the gain :math:`G_{ij}` of each pair (:func:`jaxfair.metrics.metric_gain`), and from it the policy

.. math:: P \propto \mathrm{softmax}(G / T)\ \mathbb{1}[G > 0] + 10^{-8}

over all pairs at once. Between, each step draws pairs (i, j) from P, an example of class i and one of class j, mixes
what the last layer reads of them, and descends the cross entropy of the mixture with the label i:

.. math:: z = \beta z_1 + (1 - \beta) z_2, \qquad \beta \sim U[.6, 1], \qquad \mathrm{loss} = -\log p_i(z)

=============  ==========================================  ===================
the paper      meaning                                     here
=============  ==========================================  ===================
psi            metric of the confusion that is to rise     ``psi``
G, P           gain and probability of each pair           ``state.gain``, ``state.policy``
s = 1 / T      sharpness of the policy                     ``temperature``
K              classes                                     C
=============  ==========================================  ===================

Nothing is promised of what comes out; G is a first-order forecast of one step of the last layer. On long-tailed digits
the same classes mixed with anybody do as much, and for the worst recall so does the worst class mixed with anybody
(``experiments/selective_mixup.py``): compare with them, by ``choose``, before crediting the choice of pairs.

Differs from the authors' code: the gain is that of their formula; an example is drawn within its class by its weight;
no 1/C^3 is added to the probabilities, which shares out 1/(C + 1) uniformly there; BatchNorm and dropout are those of
evaluation, where there each half of the mixture is normalised by the statistics of its own batch; mixtures of the
labelled training split only.

Source: Ramasubramanian et al., `Selective Mixup Fine-Tuning for Optimizing Non-Decomposable Objectives
<https://arxiv.org/abs/2403.18301>`_, ICLR 2024.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from jaxfair import metrics, tree
from jaxfair.tree import copied
from jaxfair.typing import Batch, Key, Model, ModelState, Params, Solver, Split, split_of, whole


class SelMixState(NamedTuple):
    """What SelMix carries from step to step.

    Attributes:
      params: of the whole network.
      model_state: its state, such as BatchNorm statistics; never moved.
      opt_state: of the optimizer.
      step: scalar int32, the number of steps taken.
      recall: ``[C, C]``, R on validation at the last look.
      gain: ``[C, C]``, G.
      policy: ``[C, C]``, P: the row is the class that is learnt.
      members: ``[N]`` int32, the rows of the training split class by class.
      ends: ``[N]``, their running weight in that order.
      bounds: ``[C + 1]``, that weight before each class, and behind the last.
    """

    params: Params
    model_state: ModelState
    opt_state: Any
    step: jax.Array
    recall: jax.Array
    gain: jax.Array
    policy: jax.Array
    members: jax.Array
    ends: jax.Array
    bounds: jax.Array


class SelMixAux(NamedTuple):
    """What a step lets you look at beside the loss.

    Attributes:
      psi: scalar, the metric on validation at the last look.
      recall: ``[C, C]``, R there.
      gain: ``[C, C]``, G.
      policy: ``[C, C]``, P.
      uniform: scalar bool, whether no pair gained anything, so that all are equally likely.
      pairs: ``[B, 2]`` int32, the classes drawn in this step.
    """

    psi: jax.Array
    recall: jax.Array
    gain: jax.Array
    policy: jax.Array
    uniform: jax.Array
    pairs: jax.Array


class SelMixInfo(NamedTuple):
    """What a step measured, at the parameters before it.

    Attributes:
      loss: scalar, the mean cross entropy of the mixtures; nan where G is not finite or a class has no example, so that
        the lane stands still.
      aux: see :class:`SelMixAux`.
    """

    loss: jax.Array
    aux: SelMixAux


def policy(gain: Float[ArrayLike, "C C"], temperature: ArrayLike = 0.1) -> Float[Array, "C C"]:
    """How likely each pair of classes is to be drawn: by its gain, and hardly ever where it would lose.

    Args:
      gain: G, ``[C, C]``.
      temperature: T, above 0: towards 0 the best pair alone, towards infinity all that gain alike.

    Returns:
      P, ``[C, C]``, summing to 1 over all pairs; uniform where no pair gains.

    Raises:
      ValueError: for a temperature that is not positive.

    Example:
      >>> np.asarray(policy(jnp.array([[0.1, -0.1], [0.0, 0.3]]))).round(3).astype(str).tolist()
      [['0.119', '0.0'], ['0.0', '0.881']]
      >>> policy(-jnp.ones((2, 2))).tolist()
      [[0.25, 0.25], [0.25, 0.25]]
    """
    if not isinstance(temperature, Tracer) and not np.all(np.asarray(temperature) > 0):
        raise ValueError(f"temperature={temperature}: give a positive number; 0.1 is the authors'.")
    gain = jnp.asarray(gain)
    likely = jax.nn.softmax(gain / temperature, axis=(0, 1)) * (gain > 0) + 1e-8
    return likely / jnp.sum(likely)


def selmix(
    network: Model | Split,
    psi: Callable[[Any], Any],
    primal: optax.GradientTransformation,
    validation: Batch,
    *,
    batch_size: int = 64,
    refresh_every: int = 50,
    temperature: ArrayLike = 0.1,
    mix: tuple[ArrayLike, ArrayLike] = (0.6, 1.0),
    gain_mix: ArrayLike | None = None,
    choose: Callable[[Array, Array], Array] | None = None,
) -> Solver:
    """Makes the solver of a trained network that is fine-tuned by SelMix.

    Its step reads the *whole* training split as its batch and draws from it: ``train.fit(solver, start, split,
    batch_size=None, num_steps=...)``. A step costs a forward and a backward pass of ``2 * batch_size`` examples; a look
    is a forward pass of the validation split.

    Args:
      network: a `Model` with a ``split``, or a :class:`~jaxfair.typing.Split`.
      psi: the metric of R that is to rise: ``metrics.min_recall``, ``mean_recall``, ``g_mean``, ..., or your own.
      primal: any optax transformation, descending. For two learning rates: ``optax.partition`` by ``split.in_head``.
      validation: looked at as a whole, of which ``x``, ``y`` and ``weight`` are read. Lanes that have one each give
        it by a function of their settings, see :func:`jaxfair.train.fit`.
      batch_size: B, pairs of a step.
      refresh_every: steps between two looks; the first is before the first step.
      temperature: T of :func:`policy`.
      mix: the least and the largest part of the first example in a mixture; ``(1, 1)`` mixes nothing.
      gain_mix: m of the gain; the middle of ``mix`` by default.
      choose: ``choose(G, R) -> P``, ``[C, C]`` weights of pairs, in place of :func:`policy`: for controls.

    Returns:
      The :class:`~jaxfair.typing.Solver`; ``init(params, model_state, training) -> SelMixState`` takes the training
      split too, for its ``y`` and ``weight``.

    Raises:
      ValueError: in one line, for numbers that cannot be, and for a network without a split; by ``init`` for a class
        without an example in one of the splits. Where the classes are traced, the loss of that lane is nan.

    Example:
      A network that knows one class of two, fine-tuned for the worse recall:

      >>> from jaxfair import models
      >>> model = models.mlp(2, hidden=())
      >>> x, y = jnp.array([[-2.0], [-1.0], [1.0], [2.0]]), jnp.array([0, 0, 1, 1])
      >>> split = Batch(x=x, y=y, group=y, index=jnp.arange(4), weight=jnp.ones(4))
      >>> solver = selmix(model, metrics.min_recall, optax.sgd(0.5), split, batch_size=8, refresh_every=5)
      >>> start = {"Dense_0": {"kernel": jnp.zeros((1, 2)), "bias": jnp.array([1.0, -1.0])}}
      >>> state, step = solver.init(start, {}, split), jax.jit(solver.step)
      >>> for key in jax.random.split(jax.random.key(0), 12):
      ...     state, info = step(state, split, key)
      >>> info.aux.recall.tolist(), model.apply(state.params, {}, x, train=False)[0].argmax(1).tolist()
      ([[1.0, 0.0], [0.0, 1.0]], [0, 0, 1, 1])
    """
    split = split_of(network)
    _check(batch_size, refresh_every, temperature, mix)
    low, high = mix
    middle = (low + high) / 2 if gain_mix is None else gain_mix  # type: ignore
    pick = (lambda gain, recall: policy(gain, temperature)) if choose is None else choose

    def look(params: Params, model_state: ModelState, count: int) -> tuple[Array, Array, Array]:
        y, weight = jnp.asarray(validation.y), jnp.asarray(validation.weight)
        z, _ = split.features(params, model_state, jnp.asarray(validation.x), train=False)
        said = jnp.argmax(split.head(params, z), axis=-1)
        found = metrics.confusion(said, y, jnp.zeros_like(y), 1, num_classes=count, weight=weight)[0]
        recall = found / jnp.sum(found, axis=1, keepdims=True)
        member = jnp.where(y[:, None] == jnp.arange(count)[None], weight[:, None], 0.0)
        # Padding may hold anything.
        z = jnp.where(weight[:, None] > 0, z, 0).astype(jnp.float32)
        prototypes = member.T @ z / jnp.sum(member, axis=0)[:, None]
        # An affine head says what it is by what it makes of nothing, and of each feature alone.
        zero = jnp.zeros((1, z.shape[1]), z.dtype)
        bias = split.head(params, zero)
        weights = (split.head(params, jnp.eye(z.shape[1], dtype=z.dtype)) - bias).T
        _, gain = metrics.metric_gain(psi, recall, prototypes, weights, bias[0], middle)
        return recall, gain, pick(gain, recall)

    def init(params: Params, model_state: ModelState, training: Batch) -> SelMixState:
        one = jax.tree.map(lambda a: jnp.asarray(a)[:1], validation.x)
        count = jax.eval_shape(lambda: split.head(params, split.features(params, model_state, one, train=False)[0]))
        classes = count.shape[1]
        for name, part in (("validation", validation), ("training", training)):
            _check_classes(name, part, classes)
        square = jnp.zeros((classes, classes))
        drawn = _by_class(jnp.asarray(training.y), jnp.asarray(training.weight), classes)
        state = SelMixState(params, model_state, primal.init(params), jnp.int32(0), square, square, square, *drawn)
        return copied(state)

    def step(state: SelMixState, batch: Batch, key: Key) -> tuple[SelMixState, SelMixInfo]:
        classes = len(state.recall)
        recall, gain, likely = tree.cond_any(
            state.step % refresh_every == 0,
            lambda: look(state.params, state.model_state, classes),
            lambda: (state.recall, state.gain, state.policy),
        )
        drawing, who, mixing = jax.random.split(key, 3)
        pairs = _pairs(drawing, likely, batch_size)
        rows = _rows(who, state, pairs)
        part = jax.random.uniform(mixing, (batch_size, 1), minval=low, maxval=high)

        def of(params: Params) -> Array:
            x = jnp.asarray(batch.x)[rows.T.reshape(-1)]  # the first of all pairs, then the second
            z, _ = split.features(params, state.model_state, x, train=False)
            first, second = z[:batch_size], z[batch_size:]
            part_of = part.astype(z.dtype)
            logits = split.head(params, part_of * first + (1 - part_of) * second)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, pairs[:, 0]))

        loss, gradient = jax.value_and_grad(of)(state.params)
        updates, opt_state = primal.update(gradient, state.opt_state, state.params)
        new = state._replace(
            params=optax.apply_updates(state.params, updates), opt_state=opt_state, step=state.step + 1,
            recall=recall, gain=gain, policy=likely,
        )  # fmt: skip
        sound = jnp.all(jnp.isfinite(gain)) & jnp.all(jnp.diff(state.bounds) > 0)
        aux = SelMixAux(psi(jnp.maximum(recall, 1e-6)), recall, gain, likely, jnp.all(gain <= 0), pairs)
        return new, SelMixInfo(jnp.where(sound, loss, jnp.nan), aux)

    return Solver(init, step)


def _by_class(y: Int[Array, " N"], weight: Array, classes: int) -> tuple[Array, Array, Array]:
    """The rows class by class, their running weight, and that weight at the borders of the classes."""
    own = jnp.where((y >= 0) & (y < classes), y, classes)
    order = jnp.argsort(own, stable=True).astype(jnp.int32)
    ends = jnp.cumsum(jnp.where(own < classes, weight, 0)[order].astype(jnp.float32))
    # Borders are running weights themselves: to the last bit, as the search compares them.
    before = jnp.searchsorted(own[order], jnp.arange(classes + 1))
    return order, ends, jnp.concatenate([jnp.zeros(1), ends])[before]


def _pairs(key: Key, likely: Float[Array, "C C"], number: int) -> Int[Array, "B 2"]:
    """Pairs of classes by their probabilities, from running sums: a search, no noise for each of C x C."""
    ends = jnp.cumsum(likely.reshape(-1))
    at = jnp.searchsorted(ends, jax.random.uniform(key, (number,)) * ends[-1], side="right")
    # Rounding may lead behind the last pair that has a probability.
    at = jnp.minimum(at, jnp.searchsorted(ends, ends[-1]))
    return jnp.stack([at // len(likely), at % len(likely)], axis=1).astype(jnp.int32)


def _rows(key: Key, state: SelMixState, classes: Int[Array, "B 2"]) -> Int[Array, "B 2"]:
    """An example for each class, by its weight within it."""
    begin, end = state.bounds[classes], state.bounds[classes + 1]
    at = jnp.searchsorted(state.ends, begin + jax.random.uniform(key, classes.shape) * (end - begin), side="right")
    return state.members[jnp.minimum(at, jnp.searchsorted(state.ends, end))]


def _check(batch_size: Any, refresh_every: Any, temperature: Any, mix: Any) -> None:
    for name, given in (("batch_size", batch_size), ("refresh_every", refresh_every)):
        if (whole(given) or 0) < 1:
            raise ValueError(f"{name}={given}: give a whole number of at least 1.")
    if not isinstance(temperature, Tracer) and not np.all(np.asarray(temperature) > 0):
        raise ValueError(f"temperature={temperature}: give a positive number; 0.1 is the authors'.")
    if len(mix) != 2 or not (any(isinstance(m, Tracer) for m in mix) or 0 < mix[0] <= mix[1] <= 1):
        raise ValueError(f"mix={mix}: give the least and the largest part of the first example, in (0, 1].")


def _check_classes(name: str, part: Batch, classes: int) -> None:
    """Raises for a class that has no example, where that can be seen."""
    if isinstance(part.y, Tracer) or isinstance(part.weight, Tracer):
        return
    y = np.asarray(part.y)[np.asarray(part.weight) > 0]
    missing = sorted(set(range(classes)) - set(y.tolist()))
    if missing:
        use = "its mean features are not defined" if name == "validation" else "it cannot be drawn"
        raise ValueError(f"class {missing[0]} has no {name} example, so that {use}: add some, or leave the class out.")
