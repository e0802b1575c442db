"""Weights that come back: SET, RigL, AC/DC and straight-through training."""

import functools
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import sparsity

RNG = np.random.default_rng(17)


def everything(path):
    return True


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.25, "11010100"), (0.5, "11001100"), (0.75, "10101100"), (1.0, "10101100")],
)
def test_rigl_exchanges_as_published(share, expected):
    # The vector of the spec: what lives, what it is dropped by, and the dense gradient it grows by.
    mask = jnp.array([c == "1" for c in "01010110"])
    numbers = jnp.array([-9.0, 1, 4, -1, 5, 8, -2, 3])
    tx = sparsity.regrow(
        optax.sgd(1.0), sparsity.periodic(0.5, begin=1, every=1, end=1), key=jax.random.key(0),
        grow=sparsity.by_gradient, drop=share, train_on_exchange=False, prunable=everything,
        score=lambda weights, gradients: gradients,
    )  # fmt: skip
    params = {"w": jnp.where(mask, 0.5, 0.0)}
    state = tx.init(params)._replace(masks={"w": mask})
    updates, state = jax.jit(tx.update)({"w": numbers}, state, params)
    assert "".join("01"[int(m)] for m in state.masks["w"]) == expected
    after = np.asarray(optax.apply_updates(params, updates)["w"])
    stays = np.asarray(state.masks["w"]) & np.asarray(mask)
    np.testing.assert_array_equal(after, np.where(stays, 0.5, 0.0))  # newcomers start at 0, nothing was trained


METHODS = {
    "set": functools.partial(sparsity.set_, drop=0.3),
    "set global": functools.partial(sparsity.set_, distribution=sparsity.global_),
    "rigl": sparsity.rigl,
    "rigl erk": functools.partial(sparsity.rigl, distribution=sparsity.erk()),
    "rigl blocks": functools.partial(sparsity.rigl, structure=sparsity.block((2, 2))),
    "rigl saliency": functools.partial(sparsity.rigl, score=sparsity.saliency),
}
INNER = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adamw": optax.adamw(0.05),
    "lamb": optax.lamb(0.05),
}
SHAPES = {"a": (8, 6), "b": (6, 4)}
TARGET = {k: jnp.asarray(RNG.normal(size=s), jnp.float32) for k, s in SHAPES.items()}
START = {k: jnp.asarray(RNG.normal(size=s), jnp.float32) for k, s in SHAPES.items()}
SCHEDULE = sparsity.periodic(0.75, every=3, end=9)


def run(tx, steps=12, key=None):
    def step(carry, _):
        params, state = carry
        gradients = jax.tree.map(lambda p, t: p - t, params, TARGET)
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state.masks)

    state = tx.init(START)
    params = sparsity.apply_masks(START, sparsity.get_masks(state))
    return jax.jit(lambda c: lax.scan(step, c, None, steps))((params, state))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "inner"), [*((m, "momentum") for m in METHODS), ("rigl", "adamw"), ("set", "lamb")])
def test_density_is_conserved_and_dead_weights_are_zero(method, inner):
    tx = METHODS[method](INNER[inner], SCHEDULE, key=jax.random.key(4), prunable=everything)
    _, (params, masks) = run(tx)
    counts = {k: np.asarray(masks[k]).reshape(12, -1).sum(axis=1) for k in masks}
    if method.endswith(("global", "erk")):
        assert (sum(counts.values()) == 72 - math.ceil(0.75 * 72)).all()
    else:
        assert (counts["a"] == 12).all()
        assert (counts["b"] == (4 if "blocks" in method else 6)).all()
    for k in params:
        assert (np.asarray(params[k])[~np.asarray(masks[k])] == 0).all()
    changed = [t for t in range(1, 12) if any((masks[k][t] != masks[k][t - 1]).any() for k in masks)]
    # Updates number 2, 5 and 8 (from 0) leave steps 3, 6, 9. RigL's share falls to 0 until then, and what it drops
    # may grow again at once.
    assert set(changed) <= {2, 5, 8}
    assert 2 in changed


def test_newcomers_begin_without_a_past_and_survivors_keep_theirs():
    tx = sparsity.rigl(optax.sgd(0.1, momentum=0.9), SCHEDULE, key=jax.random.key(4), prunable=everything, drop=0.5)
    state = tx.init(START)
    params = sparsity.apply_masks(START, state.masks)
    update = jax.jit(tx.update)
    for t in range(3):
        before, trace = state.masks, state.inner[0].trace
        gradients = jax.tree.map(lambda p, q: p - q, params, TARGET)
        updates, state = update(gradients, state, params)
        if t < 2:
            params = optax.apply_updates(params, updates)
    for k in params:
        new = np.asarray(state.masks[k]) & ~np.asarray(before[k])
        stayed = np.asarray(state.masks[k]) & np.asarray(before[k])
        assert new.any()
        assert (np.asarray(state.inner[0].trace[k])[new] == 0).all()
        # At an exchange RigL does not train: the survivors' momentum is what it was.
        np.testing.assert_array_equal(np.asarray(state.inner[0].trace[k])[stayed], np.asarray(trace[k])[stayed])
        assert (np.asarray(updates[k])[stayed] == 0).all()


def test_rigl_grows_where_the_dense_gradient_is_largest():
    # The target has six weights that matter; the first masks are random, and RigL finds them.
    target = jnp.zeros(60).at[jnp.arange(6) * 9].set(3.0)
    tx = sparsity.rigl(
        optax.sgd(0.3),
        sparsity.periodic(0.9, every=4, end=60),
        key=jax.random.key(1),
        prunable=everything,
    )
    state = tx.init({"w": jnp.ones(60)})
    params = sparsity.apply_masks({"w": jnp.ones(60)}, state.masks)
    assert not np.asarray(state.masks["w"])[np.arange(6) * 9].all()
    update = jax.jit(tx.update)
    for _ in range(60):
        updates, state = update({"w": params["w"] - target}, state, params)
        params = optax.apply_updates(params, updates)
    assert np.flatnonzero(state.masks["w"]).tolist() == [i * 9 for i in range(6)]
    np.testing.assert_allclose(params["w"], target, atol=1e-3)


def test_growth_sees_the_dense_gradient_whatever_the_score_sees():
    # The score of Adam's second moments knows nothing of dead weights, whose gradients are masked.
    tx = sparsity.regrow(
        optax.adam(0.01), sparsity.periodic(0.5, begin=0, every=2, end=2), key=jax.random.key(0), drop=0.25,
        grow=sparsity.by_gradient, train_on_exchange=False, prunable=everything,
        score=sparsity.adam_fisher(), first=sparsity.magnitude,
    )  # fmt: skip
    params = {"w": jnp.array([1.0, 9.0, 8.0, 7.0, 0.0, 0.0, 0.0, 0.0])}
    gradients = {"w": jnp.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, -50.0])}
    state = tx.init(params)
    assert np.flatnonzero(state.masks["w"]).tolist() == [0, 1, 2, 3]
    for _ in range(2):
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    assert np.flatnonzero(state.masks["w"]).tolist() == [1, 2, 3, 7]


@pytest.mark.parametrize("wrap", [sparsity.straight_through, sparsity.regrow])
def test_a_schedule_that_falls_starts_where_it_says(wrap):
    schedule = sparsity.Schedule((0, 4), (Fraction(9, 10), Fraction(1, 2)))
    more = {"key": jax.random.key(0), "grow": sparsity.by_gradient} if wrap is sparsity.regrow else {}
    state = wrap(optax.sgd(0.1), schedule, prunable=everything, **more).init({"w": jnp.ones(20)})
    assert int(state.masks["w"].sum()) == 2


def test_set_grows_anywhere_with_the_same_probability():
    tx = sparsity.set_(
        optax.sgd(0.0), sparsity.periodic(0.5, begin=1, every=1, end=1), key=jax.random.key(0),
        prunable=everything, drop=0.5,
    )  # fmt: skip
    params = {"w": jnp.array([4.0, 3.0, 2.0, 1.0] + [0.0] * 4)}
    masks = {"w": jnp.array([True] * 4 + [False] * 4)}

    def once(key):
        state = tx.init(params)._replace(masks=masks, key=key)
        return tx.update({"w": jnp.zeros(8)}, state, params)[1].masks["w"]

    drawn = np.asarray(jax.jit(jax.vmap(once))(jax.random.split(jax.random.key(9), 600)))
    assert (drawn.sum(axis=1) == 4).all()
    assert drawn[:, :2].all()
    # Two of six others: 1/3 with a deviation of 0.019; five of them.
    assert np.abs(drawn[:, 2:].mean(axis=0) - 1 / 3).max() < 0.1


def test_ac_dc_is_dense_and_sparse_in_turn_and_ends_sparse():
    tx = sparsity.regrow(
        optax.sgd(0.1, momentum=0.9), sparsity.alternating(0.75, begin=2, end=8, every=3),
        key=jax.random.key(0), grow=sparsity.by_gradient, prunable=everything,
    )  # fmt: skip
    _, (params, masks) = run(tx)
    zeros = [int((~np.asarray(masks["a"][t])).sum()) for t in range(12)]
    assert zeros == [0, 36, 36, 36, 0, 0, 0, 36, 36, 36, 36, 36]
    assert (np.asarray(params["a"])[-1] == 0).sum() == 36


def test_lanes_have_their_own_keys_and_it_stays_a_conditional():
    def start(key):
        tx = sparsity.set_(optax.sgd(0.1), SCHEDULE, key=key, prunable=everything)
        return tx.init(START)

    states = jax.jit(jax.vmap(start))(jax.random.split(jax.random.key(3), 3))
    masks = np.asarray(states.masks["a"])
    assert (masks[0] != masks[1]).any()
    tx = sparsity.set_(optax.sgd(0.1), SCHEDULE, key=jax.random.key(0), prunable=everything)
    stacked = jax.tree.map(lambda p: jnp.stack([p] * 3), START)
    program = jax.jit(jax.vmap(tx.update)).lower(stacked, states, stacked).compile()
    assert "conditional(" in program.as_text()
    for _ in range(3):
        _, states = program(stacked, states, stacked)
    after = np.asarray(states.masks["a"])
    assert (after.reshape(3, -1).sum(axis=1) == 12).all()
    assert (after[0] != after[2]).any()


def test_extra_arguments_and_missing_parameters():
    tx = sparsity.rigl(optax.sgd(0.1), SCHEDULE, key=jax.random.key(0), prunable=everything)
    state = tx.init(START)
    tx.update(START, state, START, unknown=1, score_grads=TARGET)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(START, state)


# Straight through


def train_dense(tx, steps, params, gradient):
    def step(carry, _):
        params, state = carry
        masked = sparsity.apply_masks(params, sparsity.get_masks(state))
        updates, state = tx.update({"w": gradient(masked["w"])}, state, params)
        return (optax.apply_updates(params, updates), state), state.masks["w"]

    whole = lambda p: lax.scan(step, (p, tx.init(p)), None, steps)
    (params, state), history = jax.jit(whole)(params)
    return params, state, np.asarray(history)


def test_straight_through_is_the_gradient_at_the_masked_weights_written_out():
    target = jnp.asarray(RNG.normal(size=10), jnp.float32)
    start = jnp.asarray(RNG.normal(size=10), jnp.float32)
    tx = sparsity.straight_through(
        optax.sgd(0.1, momentum=0.9),
        sparsity.periodic(0.5, every=2, end=8),
        prunable=everything,
        decay=0.01,
    )
    params, _, history = train_dense(tx, 6, {"w": start}, lambda w: w - target)
    w, trace = np.asarray(start, np.float64), np.zeros(10)

    def mask_of(w):
        keep = np.zeros(10, bool)
        keep[np.argsort(-np.abs(w), kind="stable")[:5]] = True
        return keep

    mask = mask_of(w)
    for t in range(6):
        g = mask * w - np.asarray(target) + 0.01 * (1 - mask) * w
        trace = 0.9 * trace + g
        w = w - 0.1 * trace
        if (t + 1) % 2 == 0:
            mask = mask_of(w)
        np.testing.assert_array_equal(history[t], mask)
    # Six float32 steps.
    np.testing.assert_allclose(params["w"], w, rtol=1e-5, atol=1e-6)


def test_a_masked_weight_comes_back_where_prune_would_have_lost_it():
    # The fourth weight starts small and matters most.
    target = jnp.array([1.0, 1.0, 0.0, 5.0])
    start = {"w": jnp.array([1.0, 1.1, 0.9, 0.1])}
    schedule = sparsity.periodic(0.5, every=1, end=100)
    through = sparsity.straight_through(optax.sgd(0.2), schedule, prunable=everything)
    _, state, _ = train_dense(through, 30, start, lambda w: w - target)
    assert bool(state.masks["w"][3])
    gone = sparsity.prune(optax.sgd(0.2), sparsity.constant(0.5), prunable=everything)
    _, state, _ = train_dense(gone, 30, start, lambda w: w - target)
    assert not bool(state.masks["w"][3])


def test_sr_ste_draws_masked_weights_to_zero():
    def left(decay):
        tx = sparsity.straight_through(optax.sgd(0.1), sparsity.constant(0.5), prunable=everything, decay=decay)
        params, state, _ = train_dense(tx, 20, {"w": jnp.array([3.0, 2.0, 1.0, 0.5])}, jnp.zeros_like)
        return np.asarray(params["w"]), np.asarray(state.masks["w"])

    plain, mask = left(0.0)
    drawn, _ = left(1.0)
    np.testing.assert_array_equal(plain, [3.0, 2.0, 1.0, 0.5])
    # 20 steps of 1 - 0.1.
    np.testing.assert_allclose(drawn, np.where(mask, plain, plain * 0.9**20), rtol=1e-5)


def test_straight_through_keeps_n_of_every_m_at_every_step():
    tx = sparsity.straight_through(
        optax.adam(0.1), sparsity.periodic(0.5, every=1, end=99), prunable=everything,
        structure=sparsity.n_by_m(2, 4, axis=-1),
    )  # fmt: skip
    start = jnp.asarray(RNG.normal(size=16), jnp.float32)
    target = jnp.asarray(RNG.normal(size=16), jnp.float32)
    _, _, history = train_dense(tx, 10, {"w": start}, lambda w: w - target)
    for mask in history:
        assert (mask.reshape(4, 4).sum(axis=1) == 2).all()
    assert any((a != b).any() for a, b in itertools.pairwise(history))


def test_weights_of_16_bits_grow_anywhere_too():
    """Drawn in their own type there would be 128 values, and of equal ones the first grows."""
    drawn = sparsity.at_random(jnp.zeros(10_000, jnp.bfloat16), None, jax.random.key(0))
    best = np.sort(np.argsort(-np.asarray(drawn))[:100])
    # Of 100 among 10,000 places a quarter is in each quarter, give or take four deviations of 4.3.
    assert (abs(np.histogram(best, 4, (0, 10_000))[0] - 25) < 18).all()


@pytest.mark.parametrize(
    ("score", "gradients", "sums"),
    [(sparsity.movement(), -1.0, 1000.0), (sparsity.fisher(0.999), 1.0, 1 - 0.999**1000)],
)
def test_sums_of_16_bits_go_on(score, gradients, sums):
    weights = jnp.ones(1, jnp.bfloat16)
    see = lambda memory, _: (score.observe(memory, weights, jnp.full(1, gradients, jnp.bfloat16)), None)
    memory, _ = lax.scan(see, score.init(weights, 0), None, length=1000)
    # A thousand sums of single precision.
    np.testing.assert_allclose(score.value(weights, None, memory), sums, rtol=1e-4)
