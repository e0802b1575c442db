"""SelMix: its policy, what it draws, its limits, and that it runs where every solver runs."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import metrics, models, robust, train
from jaxfair.typing import Batch, Split

MODEL = models.mlp(3, hidden=(4,))


def split_of(y, seed=0, weight=None):
    y = np.asarray(y, np.int32)
    x = np.random.default_rng(seed).normal(size=(len(y), 5)).astype(np.float32) + 2 * np.eye(3, 5)[y % 3]
    weight = np.ones(len(y)) if weight is None else weight
    return Batch(x.astype(np.float32), y, y, np.arange(len(y), dtype=np.int32), np.asarray(weight, np.float32))


TRAIN, HELD = split_of([0] * 30 + [1] * 6 + [2] * 2), split_of([0, 1, 2] * 5, seed=1)
PARAMS, _ = MODEL.init(jax.random.key(0), jnp.zeros((1, 5)))
OPTIONS = {"batch_size": 6, "refresh_every": 3}


def solver(psi=metrics.min_recall, primal=None, held=HELD, model=MODEL, **options):
    return robust.selmix(model, psi, optax.sgd(0.1) if primal is None else primal, held, **{**OPTIONS, **options})


def played(solver, steps, training=TRAIN, params=PARAMS, step=None):
    """The parameters after each step, and what it measured."""
    state, seen = solver.init(params, {}, training), []
    step = jax.jit(solver.step) if step is None else step
    for key in jax.random.split(jax.random.key(5), steps):
        state, info = step(state, training, key)
        seen.append((state.params, info))
    return seen


SOLVER = solver()
STEP = jax.jit(SOLVER.step)


def test_the_policy_is_what_was_derived_by_hand():
    """Of gains with six digits, so that a probability of .2 has a millionth less."""
    mean = [[0.009055, 0.007550, 0.009172], [-0.007404, 0.002934, -0.000442], [0.093659, 0.104666, 0.105000]]
    least = [[-0.084464, -0.155800, -0.116979], [-0.155800, -0.084464, -0.116979], [0.492306, 0.492306, 0.480000]]
    for gain, rows in (
        (mean, [[0.087191, 0.085888, 0.087293], [0, 0.082014, 0], [0.203190, 0.226832, 0.227592]]),
        (least, [[0] * 3, [0] * 3, [0.346716, 0.346716, 0.306568]]),
    ):
        np.testing.assert_allclose(robust.policy(np.array(gain), 0.1), rows, rtol=0, atol=3e-6)


def test_the_policy_has_its_limits():
    gain = jnp.array([[0.2, -0.1], [0.1, 0.3]])
    np.testing.assert_allclose(robust.policy(gain, 1e9), jnp.array([[1, 0], [1, 1]]) / 3, atol=1e-7)
    np.testing.assert_allclose(robust.policy(gain, 1e-3), jnp.array([[0.0, 0], [0, 1]]), atol=1e-6)
    np.testing.assert_array_equal(robust.policy(-gain.at[0, 1].set(0.1)), jnp.full((2, 2), 0.25))
    assert np.isnan(robust.policy(gain.at[0, 0].set(jnp.nan))).all()
    assert float(jnp.sum(robust.policy(gain))) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="temperature=0: give a positive number"):
        robust.policy(gain, 0)


def test_what_it_looks_at_is_the_network_on_validation():
    """R, prototypes and gain at the look before the fourth step, from the parameters there, by NumPy."""
    seen = played(SOLVER, 7, step=STEP)
    at, aux = jax.tree.map(np.asarray, seen[2][0]), seen[3][1].aux
    hidden = np.maximum(HELD.x @ at["Dense_0"]["kernel"] + at["Dense_0"]["bias"], 0)
    W, b = at["Dense_1"]["kernel"].T, at["Dense_1"]["bias"]
    said = (hidden @ W.T + b).argmax(1)
    recall = np.array([[np.mean(said[HELD.y == q] == c) for c in range(3)] for q in range(3)])
    prototypes = np.array([hidden[HELD.y == q].mean(0) for q in range(3)])
    np.testing.assert_allclose(aux.recall, recall, atol=1e-6)
    _, gain = jax.jit(functools.partial(metrics.metric_gain, metrics.min_recall))(recall, prototypes, W, b, 0.8)
    np.testing.assert_allclose(aux.gain, gain, rtol=1e-4, atol=1e-6)  # W is read off by differences
    np.testing.assert_allclose(aux.policy, robust.policy(gain), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(aux.psi, metrics.min_recall(np.maximum(recall, 1e-6)), rtol=1e-5)
    assert not aux.uniform
    # It is looked at before steps 0, 3 and 6, and only then.
    gains = [np.asarray(info.aux.gain) for _, info in seen]
    assert [bool((a != b).any()) for a, b in itertools.pairwise(gains)] == [False, False, True, False, False, True]


def test_pairs_and_examples_are_drawn_by_their_probabilities():
    """Of 20,000 pairs, and of examples by their weight within a class; padding is never drawn."""
    weight = np.r_[np.ones(15), np.full(15, 3.0), [0, 0, 0, 1, 1, 2], [0, 5]]
    training = TRAIN._replace(weight=weight.astype(np.float32))
    P = jnp.array([[0.2, 0.1, 0.0], [0.0, 0.3, 0.1], [0.25, 0.0, 0.05]])
    number, seen = 20_000, []

    def features(params, state, x, *, train, key=None):
        assert not train  # of BatchNorm the statistics of evaluation, which stay
        jax.debug.callback(seen.append, x[:, 0])
        return x - state["mean"], state

    split = Split(features, lambda params, z: jnp.tile(params["w"], (1, 3)) * jnp.ones((len(z), 1)), lambda path: True)
    rows = training._replace(x=np.arange(38, dtype=np.float32)[:, None])
    made = solver(model=split, held=rows, batch_size=number, choose=lambda gain, recall: P)
    state = made.init({"w": jnp.zeros((1, 1))}, {"mean": jnp.ones((1, 1))}, rows)
    new, info = jax.jit(made.step)(state, rows, jax.random.key(3))
    assert new.model_state == {"mean": 1}
    jax.effects_barrier()
    drawn = np.asarray(max(seen, key=len)).astype(int).reshape(2, number)
    pairs = np.asarray(info.aux.pairs)
    np.testing.assert_array_equal(TRAIN.y[drawn].T, pairs)
    found = np.bincount(pairs[:, 0] * 3 + pairs[:, 1], minlength=9) / number
    room = 5 * np.sqrt(np.asarray(P).ravel() * (1 - np.asarray(P).ravel()) / number)
    assert (np.abs(found - np.asarray(P).ravel()) <= room).all()
    for label in range(3):
        own = drawn[label == pairs.T]
        likely = np.where(TRAIN.y == label, weight, 0)
        likely = likely / likely.sum()
        share = np.bincount(own, minlength=38) / len(own)
        assert (np.abs(share - likely) <= 5 * np.sqrt(likely * (1 - likely) / len(own))).all()


def test_a_step_is_descent_on_the_mixture():
    """With one example for each class it is known who was drawn: the loss between the features of two, label first."""
    few, rate = split_of([0, 1, 2], seed=4), 0.5

    @jax.jit
    def step(part):
        made = solver(primal=optax.sgd(rate), mix=(part, part), choose=lambda gain, recall: jnp.ones((3, 3)) / 9)
        return made.step(made.init(PARAMS, {}, few), few, jax.random.key(1))

    @jax.jit
    @jax.value_and_grad
    def expected(params, part, first, second):
        z, _ = MODEL.split.features(params, {}, jnp.asarray(few.x), train=False)
        logits = MODEL.split.head(params, part * z[first] + (1 - part) * z[second])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), first])

    for part in (0.7, 1.0):
        new, info = step(part)
        first, second = np.asarray(info.aux.pairs).T
        value, gradient = expected(PARAMS, part, first, second)
        np.testing.assert_allclose(info.loss, value, rtol=1e-6)
        moved = jax.tree.map(lambda p, g: p - rate * g, PARAMS, gradient)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), new.params, moved)
    # Without mixing: plain fine-tuning on the examples that were drawn.
    batch = jax.tree.map(lambda a: jnp.asarray(a)[first], few)
    plain = train.mean_cross_entropy(MODEL.apply(PARAMS, {}, batch.x, train=True)[0], batch)
    np.testing.assert_allclose(info.loss, plain, rtol=1e-6)


@pytest.mark.slow
def test_of_one_class_nothing_moves():
    """Plain fine-tuning of one class: its loss is 0, and so is the gradient."""
    one = split_of([0] * 8)
    model = models.mlp(1, hidden=(4,))
    params, _ = model.init(jax.random.key(0), jnp.zeros((1, 5)))
    *_, (last, info) = played(solver(model=model, held=one), 4, one, params)
    jax.tree.map(np.testing.assert_array_equal, last, params)
    assert info.aux.policy.tolist() == [[1.0]]
    assert info.aux.uniform


@pytest.mark.slow
def test_where_nothing_gains_all_pairs_are_alike_and_that_is_said():
    ((_, info),) = played(solver(psi=lambda recall: 0 * metrics.mean_recall(recall)), 1)
    assert info.aux.uniform
    np.testing.assert_allclose(info.aux.policy, 1 / 9, rtol=1e-6)


@pytest.mark.slow
def test_it_runs_in_fit_with_lanes_of_their_own_splits_and_settings():
    """Two lanes with own training and validation data, temperatures and rates: each as it is alone."""
    lanes = [(split_of([0] * 9 + [1] * 4 + [2] * 3, seed), split_of([0, 1, 2] * 4, seed + 9)) for seed in (2, 3)]
    both = jax.tree.map(lambda *a: np.stack(a), *lanes)

    def make(settings):
        rate, temperature, held = settings
        return solver(primal=optax.sgd(rate), held=held, temperature=temperature)

    settings = (jnp.array([0.1, 0.3]), jnp.array([0.1, 1.0]), both[1])
    begin = jax.vmap(lambda settings, split: make(settings).init(PARAMS, {}, split))
    keys = jax.random.split(jax.random.key(4), 2)
    fitted = train.fit(
        make, begin(settings, both[0]), both[0], keys=keys, settings=settings, epochs=2, batch_size=None, num_steps=4,
        split_axes=Batch._make([0] * 5),
    )  # fmt: skip
    assert fitted.failed_at.tolist() == [-1, -1]
    assert fitted.solver.step.tolist() == [8, 8]
    rate, temperature, held = train.take(settings, 1)
    alone = solver(primal=optax.sgd(rate), held=held, temperature=temperature)
    state, step = alone.init(PARAMS, {}, lanes[1][0]), jax.jit(alone.step)
    for number in range(8):
        state, _ = step(state, lanes[1][0], jax.random.fold_in(keys[1], number))
    found = train.take(fitted.solver.params, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, state.params)


def test_a_class_that_a_traced_split_lacks_stops_its_lane():
    lacking = TRAIN._replace(weight=np.where(TRAIN.y == 2, 0, 1).astype(np.float32))
    state = jax.jit(SOLVER.init)(PARAMS, {}, lacking)
    assert np.isnan(STEP(state, lacking, jax.random.key(0))[1].loss)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.0}, "temperature=0.0: give a positive number"),
        ({"mix": (0.0, 1.0)}, r"mix=\(0.0, 1.0\): give the least and the largest part"),
        ({"mix": (0.9, 0.6)}, "give the least and the largest part"),
        ({"batch_size": 0}, "batch_size=0: give a whole number of at least 1"),
        ({"refresh_every": 0}, "refresh_every=0: give a whole number"),
        ({"model": MODEL._replace(split=None)}, "not cut before its last layer"),
        ({"held": split_of([0, 0, 2])}, "class 1 has no validation example, so that its mean features are not defined"),
        ({"training": split_of([0, 1])}, "class 2 has no training example, so that it cannot be drawn"),
    ],
)
def test_bad_input_is_one_line(options, said):
    training = options.pop("training", TRAIN)
    with pytest.raises(ValueError, match=said) as error:
        solver(**options).init(PARAMS, {}, training)
    assert "\n" not in str(error.value)
