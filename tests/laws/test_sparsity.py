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
    "lamb": optax.lamb(0.05),
    "muon": optax.contrib.muon(0.05),
    "chain of chains": optax.chain(
        optax.chain(optax.clip(0.5), optax.scale_by_adam()), optax.chain(optax.scale(-0.05))
    ),
    "inject sgd": optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.1, 0.01, 9)),
    "inject adamw": optax.inject_hyperparams(optax.adamw)(optax.linear_schedule(0.1, 0.01, 9)),
    "clip and adamw": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.05)),
    "partition": optax.partition({"matrix": optax.adam(0.05), "vector": optax.sgd(0.1)}, by_rank),
}
# optax promotes the bfloat16 moments of an optimizer whose rates are injected as float32 arrays.
FLOAT32_ONLY = {"inject adamw"}
each = pytest.mark.parametrize("name", INNER)


def make(name="sgd"):
    """Both precisions side by side, so that one program serves both: Dense_1 is bfloat16."""
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), WEIGHTS)
    if name in FLOAT32_ONLY:
        return params
    return {**params, "Dense_1": {"kernel": params["Dense_1"]["kernel"].astype(jnp.bfloat16)}}


def gradient(params):
    return jax.tree.map(lambda p, t: p - jnp.asarray(t, p.dtype), params, TARGET)


def dtypes(tree):
    return jax.tree.map(lambda x: x.dtype, tree)


@functools.cache  # the laws look at one run
def run(name):
    """-> the final state, and parameters and masks after each of the ``[STEPS]`` updates."""
    tx = sparsity.prune(INNER[name], SCHEDULE, prunable=prunable)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state.masks)

    start = make(name), tx.init(make(name))
    (_, state), path = jax.jit(lambda carry: lax.scan(step, carry, None, STEPS))(start)
    return state, *path


@each
def test_pruned_weights_are_exactly_zero_after_apply_updates(name):
    _, params, masks = run(name)
    for layer in FINAL:
        w, m = (np.asarray(x[layer]["kernel"], np.float32) for x in (params, masks))
        assert (w[m == 0] == 0).all()
        assert (w[m == 1] != 0).all()


@each
def test_counts_are_those_of_the_schedule_and_masks_are_monotone(name):
    _, params, masks = run(name)
    for layer, final in FINAL.items():
        m = np.asarray(masks[layer]["kernel"])
        pruned = m[0].size - m.reshape(STEPS, -1).sum(axis=1)
        # Scheduled are 1, 3, 5, 6 updates, and the first of them leaves 0: row t is after t + 1.
        assert pruned[0] == pruned[1] == 0
        assert 0 < pruned[2] == pruned[3] < pruned[4] <= pruned[5]
        assert (pruned[5:] == final).all()
        assert (m[1:] <= m[:-1]).all()
    for layer, leaf in (("Dense_0", "bias"), ("Dense_2", "kernel")):
        assert np.asarray(masks[layer][leaf]).all()
        assert (np.asarray(params[layer][leaf]) != 0).all()


@each
def test_dtypes_shapes_and_structure_are_stable(name):
    state, params, _ = run(name)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    start = sparsity.prune(INNER[name], SCHEDULE, prunable=prunable).init(make(name))
    assert describe(state) == describe(start)
    assert describe(jax.tree.map(lambda p: p[0], params)) == describe(make(name))
    assert int(state.count) == STEPS


@each
def test_sparsity_zero_is_the_inner_optimizer_bit_for_bit(name):
    inner, params = INNER[name], make(name)
    tx = sparsity.prune(inner, sparsity.constant(0.0, begin=99), prunable=prunable)
    state, inner_state = tx.init(params), inner.init(params)
    with jax.disable_jit():  # op by op: how a compiler rounds what it fuses is not the pruner's doing
        for _ in range(3):
            updates, state = tx.update(gradient(params), state, params)
            expected, inner_state = inner.update(gradient(params), inner_state, params)
            jax.tree.map(np.testing.assert_array_equal, updates, expected)
            assert dtypes(updates) == dtypes(expected)
            params = optax.apply_updates(params, updates)


@pytest.mark.parametrize(
    ("distribution", "zeros"),
    [(sparsity.uniform, 15 + 12), (sparsity.global_, 27)],  # ceil(0.6 * 24) + ceil(0.6 * 20), ...
    ids=["uniform", "global"],
)
def test_a_permutation_of_the_weights_permutes_the_masks(distribution, zeros):
    schedule = sparsity.constant(0.6)
    tx = sparsity.prune(optax.sgd(0.1), schedule, distribution=distribution, prunable=prunable)
    order = RNG.permutation(24)
    shuffle = lambda x: x.reshape(-1)[order].reshape(6, 4)
    params = make()
    first = {**params["Dense_0"], "kernel": shuffle(params["Dense_0"]["kernel"])}
    plain, moved = (sparsity.get_masks(tx.init(p)) for p in (params, {**params, "Dense_0": first}))
    np.testing.assert_array_equal(moved["Dense_0"]["kernel"], shuffle(plain["Dense_0"]["kernel"]))
    np.testing.assert_array_equal(moved["Dense_1"]["kernel"], plain["Dense_1"]["kernel"])
    assert sum(int((~np.asarray(plain[layer]["kernel"])).sum()) for layer in FINAL) == zeros


@pytest.mark.parametrize("distribution", [sparsity.uniform, sparsity.global_], ids=["uniform", "global"])
@pytest.mark.parametrize(
    "structure", [sparsity.unstructured, sparsity.n_by_m(1, 2), sparsity.block((2, 1)), sparsity.channel(-1)],
    ids=["unstructured", "n_by_m", "block", "channel"],
)  # fmt: skip
def test_pruning_what_is_pruned_changes_nothing(distribution, structure):
    """Idempotence: zeros have the least magnitude, so the same sparsity takes the same weights again."""
    tx = sparsity.prune(
        optax.sgd(0.0), sparsity.constant(0.5), distribution=distribution, structure=structure,
        prunable=prunable,
    )  # fmt: skip
    params = make()
    masks = sparsity.get_masks(tx.init(params))
    once = sparsity.apply_masks(params, masks)
    again = sparsity.get_masks(tx.init(once))
    jax.tree.map(np.testing.assert_array_equal, again, masks)
    jax.tree.map(np.testing.assert_array_equal, sparsity.apply_masks(once, again), once)
    zeros = sum(int((~np.asarray(m)).sum()) for m in jax.tree.leaves(masks))
    assert 22 <= zeros <= 24  # 12 of 24 and 10 of 20; of 5 channels of 4 weights, 3
