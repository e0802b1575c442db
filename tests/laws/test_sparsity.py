"""Laws of pruners: a table of inner optimizers x properties. A new one is a line in the table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import sparsity

RNG = np.random.default_rng(2)
WEIGHTS = {
    "Dense_0": {"bias": RNG.normal(size=4), "kernel": RNG.normal(size=(6, 4))},
    "Dense_1": {"kernel": RNG.normal(size=(4, 5))},
    "Dense_2": {"kernel": RNG.normal(size=(5, 2))},
}
TARGET = jax.tree.map(lambda w: RNG.normal(size=w.shape), WEIGHTS)
STEPS = 9
SCHEDULE = sparsity.polynomial(0.7, begin=1, end=6, every=2)
FINAL = {"Dense_0": 17, "Dense_1": 14}  # ceil(0.7 * 24), ceil(0.7 * 20)


def prunable(path):
    return path in {"Dense_0/kernel", "Dense_1/kernel"}


def by_rank(params):
    return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "vector", params)


INNER = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "decay": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9)),
    "adam": optax.adam(0.05),
    "adamw": optax.adamw(0.05, weight_decay=0.1),
    "lion": optax.lion(0.05, weight_decay=0.1),
    "rmsprop": optax.rmsprop(0.05),
    "inject_hyperparams": optax.inject_hyperparams(optax.adamw)(
        optax.linear_schedule(0.1, 0.01, 9)
    ),
    "clip and adamw": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.05)),
    "partition": optax.partition({"matrix": optax.adam(0.05), "vector": optax.sgd(0.1)}, by_rank),
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def make(dtype):
    return jax.tree.map(lambda w: jnp.asarray(w, dtype), WEIGHTS)


def trajectory(tx, params, extract):
    """-> (final state, [STEPS] params, [STEPS] extract(state)), one compiled scan."""

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(lambda p, t: p - jnp.asarray(t, p.dtype), params, TARGET)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, extract(state))

    run = jax.jit(lambda carry: lax.scan(step, carry, None, STEPS))
    (_, state), (path, seen) = run((params, tx.init(params)))
    return state, path, seen


@functools.cache  # four laws look at one run
def pruned_run(name, dtype):
    tx = sparsity.prune(INNER[name], SCHEDULE, prunable=prunable)
    return trajectory(tx, make(DTYPES[dtype]), sparsity.get_masks)


each = pytest.mark.parametrize(("name", "dtype"), [(n, d) for n in INNER for d in DTYPES])


@each
def test_pruned_weights_are_exactly_zero_after_apply_updates(name, dtype):
    _, params, masks = pruned_run(name, dtype)
    for layer in FINAL:
        w, m = (np.asarray(x[layer]["kernel"], np.float32) for x in (params, masks))
        assert (w[m == 0] == 0).all()


@each
def test_counts_are_those_of_the_schedule_and_masks_are_monotone(name, dtype):
    _, params, masks = pruned_run(name, dtype)
    for layer, final in FINAL.items():
        m = np.asarray(masks[layer]["kernel"])
        size = m[0].size
        # Steps 1, 3, 5, 6 are scheduled: after that many updates. The first one leaves 0.
        pruned = size - m.reshape(STEPS, -1).sum(axis=1)
        assert pruned[0] == pruned[1] == 0
        assert (pruned[2] == pruned[3], pruned[4] > pruned[3]) == (True, True)
        assert (pruned[5:] == final).all()
        assert (m[1:] <= m[:-1]).all()
    for layer, leaf in (("Dense_0", "bias"), ("Dense_2", "kernel")):
        assert np.asarray(masks[layer][leaf]).all()
        assert (np.asarray(params[layer][leaf], np.float32) != 0).all()


@each
def test_dtypes_shapes_and_structure_of_the_state_are_stable(name, dtype):
    state, params, _ = pruned_run(name, dtype)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(DTYPES[dtype])}
    start = sparsity.prune(INNER[name], SCHEDULE, prunable=prunable).init(make(DTYPES[dtype]))
    describe = lambda s: jax.tree.map(lambda x: (x.shape, x.dtype), s)
    assert describe(state) == describe(start)
    assert int(state.count) == STEPS


# Fusion is the compiler's, rounding in fused programs its own: so op by op, with one conditional.
@pytest.mark.parametrize(
    ("name", "dtype"), [*((n, "float32") for n in INNER), ("adamw", "bfloat16")]
)
def test_sparsity_zero_is_the_inner_optimizer_bit_for_bit(name, dtype):
    params = expected = make(DTYPES[dtype])
    inner = INNER[name]
    dense = sparsity.prune(inner, sparsity.constant(0.0, begin=1), prunable=prunable)
    state, inner_state = dense.init(params), inner.init(params)
    for _ in range(2):
        grads = jax.tree.map(lambda p, t: p - jnp.asarray(t, p.dtype), params, TARGET)
        updates, state = dense.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        updates, inner_state = inner.update(grads, inner_state, expected)
        expected = optax.apply_updates(expected, updates)
        jax.tree.map(np.testing.assert_array_equal, params, expected)


DISTRIBUTIONS = {"uniform": sparsity.uniform, "global": sparsity.global_}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_permutation_of_the_weights_permutes_the_masks(distribution):
    tx = sparsity.prune(
        optax.sgd(0.1),
        sparsity.constant(0.6),
        distribution=DISTRIBUTIONS[distribution],
        prunable=prunable,
    )
    order = RNG.permutation(24)
    shuffle = lambda x: x.reshape(-1)[order].reshape(6, 4)
    params = make(jnp.float32)
    shuffled = {
        **params,
        "Dense_0": {**params["Dense_0"], "kernel": shuffle(params["Dense_0"]["kernel"])},
    }
    plain, moved = (sparsity.get_masks(tx.init(p)) for p in (params, shuffled))
    np.testing.assert_array_equal(moved["Dense_0"]["kernel"], shuffle(plain["Dense_0"]["kernel"]))
    np.testing.assert_array_equal(moved["Dense_1"]["kernel"], plain["Dense_1"]["kernel"])
    zeros = sum(int((~np.asarray(plain[d]["kernel"])).sum()) for d in FINAL)
    assert (
        zeros == {"uniform": 15 + 12, "global": 27}[distribution]
    )  # ceil(.6 * 24) + ceil(.6 * 20)
