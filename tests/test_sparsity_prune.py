"""What `prune` promises beyond the laws that all inner optimizers share (tests/laws/test_sparsity.py)."""

import math
from contextlib import nullcontext
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import sparsity

RNG = np.random.default_rng(1)
PARAMS = {
    "first": {"kernel": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)},
    "hidden": {
        "bias": jnp.asarray(RNG.normal(size=5), jnp.float32),
        "kernel": jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32),
    },
    "other": {"kernel": jnp.asarray(RNG.normal(size=(7,)), jnp.float32)},
}
TARGET = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), p.dtype), PARAMS)
SCHEDULE = sparsity.polynomial(0.75, begin=0, end=6, every=2)


def prunable(path):
    return path in {"hidden/kernel", "other/kernel"}


def gradient(params):
    return jax.tree.map(lambda p, t: p - t, params, TARGET)


def train(tx, params, steps, grad=gradient):
    """-> the final (params, state) and the stacked params and masks after every step."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(grad(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, sparsity.get_masks(state))

    return jax.jit(lambda c: lax.scan(step, c, None, steps))((params, tx.init(params)))


def zeros(x):
    return int((np.asarray(x) == 0).sum())


def test_counts_at_every_step_follow_the_schedule():
    tx = sparsity.prune(optax.sgd(0.1), SCHEDULE, prunable=prunable)
    _, (params, masks) = train(tx, PARAMS, 9)
    for t in range(9):
        reached = [s for at, s in zip(SCHEDULE.steps, SCHEDULE.sparsities, strict=True) if at <= t + 1]
        for name in ("hidden", "other"):
            size = PARAMS[name]["kernel"].size
            wanted = min(math.ceil(reached[-1] * size), size - 1)
            assert zeros(params[name]["kernel"][t]) == wanted
            np.testing.assert_array_equal(masks[name]["kernel"][t], params[name]["kernel"][t] != 0)
    assert zeros(params["first"]["kernel"]) == zeros(params["hidden"]["bias"]) == 0
    assert np.asarray(masks["first"]["kernel"]).shape == (9,)  # a scalar True, at each of 9 steps
    final = np.asarray(masks["hidden"]["kernel"])
    assert (final[1:] <= final[:-1]).all()  # monotone


def test_a_new_mask_keeps_the_largest_of_params_plus_updates():
    schedule = sparsity.constant(0.6, begin=1)
    tx = sparsity.prune(optax.sgd(0.1), schedule, prunable=prunable)
    _, (params, _) = train(tx, PARAMS, 1)
    dense = 0.9 * np.asarray(PARAMS["hidden"]["kernel"]) + 0.1 * np.asarray(TARGET["hidden"]["kernel"])
    order = np.argsort(-np.abs(dense).reshape(-1), kind="stable")
    expected = np.zeros(20)
    expected[order[:8]] = dense.reshape(-1)[order[:8]]
    # One multiplication and one addition in float32.
    np.testing.assert_allclose(params["hidden"]["kernel"][0].reshape(-1), expected, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_exact_counts_with_ties(value, strict_dtype):
    shapes = [(1,), (2,), (3, 3), (2, 3, 4), (97,)]
    weights = [jnp.asarray(RNG.integers(1, 3, size=shape), jnp.float32) for shape in shapes]
    tx = sparsity.prune(optax.identity(), sparsity.constant(value), prunable=lambda path: True)
    emptied = [i for i, w in enumerate(weights) if math.ceil(Fraction(str(value)) * w.size) == w.size]
    with pytest.warns(UserWarning, match="one unit of each") if emptied else nullcontext() as told:
        masks = sparsity.get_masks(tx.init(weights))
    if emptied:  # it says which layers
        assert f"leave nothing of {', '.join(map(str, emptied))};" in str(told[0].message)
    for mask, w in zip(masks, weights, strict=True):
        k = max(w.size - math.ceil(Fraction(str(value)) * w.size), 1)
        order = np.lexsort((np.arange(w.size), -np.asarray(w).reshape(-1)))
        assert set(np.flatnonzero(mask)) == set(order[:k])


def test_global_compares_layers():
    params = {"a": jnp.array([1.0, 2.0, 3.0]), "b": jnp.array([10.0, -20.0, 30.0])}
    tx = sparsity.prune(
        optax.identity(),
        sparsity.constant(0.5),
        distribution=sparsity.global_,
        prunable=lambda path: True,
    )
    masks = sparsity.get_masks(tx.init(params))
    assert [masks["a"].any().item(), masks["b"].all().item()] == [False, True]


def test_a_schedule_that_starts_above_zero_masks_after_init():
    tx = sparsity.prune(optax.sgd(0.1, momentum=0.9), sparsity.constant(0.75), prunable=prunable)
    masks = sparsity.get_masks(tx.init(PARAMS))
    params = sparsity.apply_masks(PARAMS, masks)
    assert zeros(params["hidden"]["kernel"]) == 15
    _, (after, masks_after) = train(tx, params, 3)
    for t in range(3):
        assert zeros(after["hidden"]["kernel"][t]) == 15
        np.testing.assert_array_equal(masks_after["hidden"]["kernel"][t], masks["hidden"]["kernel"])


def test_live_weights_of_value_zero_do_not_bring_pruned_ones_back():
    schedule = sparsity.Schedule((1, 2), (Fraction(1, 4), Fraction(1, 2)))
    tx = sparsity.prune(optax.sgd(1.0), schedule, prunable=lambda path: True)
    params = {"w": jnp.array([5.0, 4.0, 3.0, 1.0])}
    state = tx.init(params)
    for grads in ([0, 0, 0, 0], [5, 4, 3, 0]):  # the second one drives all live weights to 0
        updates, state = tx.update({"w": jnp.array(grads, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
    assert state.masks["w"].tolist() == [True, True, False, False]


def test_saliency_sees_raw_gradients_or_those_it_is_given():
    def pruned(**extra):
        tx = sparsity.prune(
            optax.adam(1e-3),
            sparsity.constant(0.5, begin=1),
            score=sparsity.saliency,
            prunable=lambda path: True,
        )
        params = {"w": jnp.array([1.0, 2.0, 3.0, 4.0])}
        # Magnitude keeps the last two, and Adam's updates have all one size.
        _, state = tx.update({"w": jnp.array([9.0, 1e-3, 8.0, 1e-3])}, tx.init(params), params, **extra)
        return state.masks["w"].tolist()

    assert pruned() == [True, False, True, False]
    assert pruned(score_grads={"w": jnp.array([0.0, 1.0, 0.0, 1.0])}) == [False, True, False, True]
    tx = sparsity.prune(optax.sgd(0.1), sparsity.constant(0.5), score=sparsity.saliency, prunable=prunable)
    with pytest.raises(ValueError, match="saliency needs gradients"):
        tx.init(PARAMS)


def test_a_structure_lives_or_dies_as_a_whole():
    columns = sparsity.Structure(
        pool=lambda scores: scores.sum(axis=0),
        expand=lambda mask, shape: jnp.broadcast_to(mask, shape),
    )
    tx = sparsity.prune(optax.sgd(0.1), SCHEDULE, structure=columns, prunable=lambda path: path == "hidden/kernel")
    _, (_, masks) = train(tx, PARAMS, 7)
    mask = np.asarray(masks["hidden"]["kernel"])  # [7, 4, 5]
    assert (mask == mask[:, :1]).all()
    assert mask[-1, 0].sum() == 1  # ceil(0.75 * 5) = 4 columns are gone
    assert (mask[1:] <= mask[:-1]).all()


@pytest.mark.slow
def test_vmapped_seeds_equal_a_loop_and_stay_a_conditional():
    tx = sparsity.prune(optax.adamw(0.05), SCHEDULE, prunable=prunable)
    seeds = 3
    stacked = jax.tree.map(lambda p: jnp.stack([p, p[::-1] * 2, -p * p]), PARAMS)
    # Lanes may be out of step: the second one starts at count 1, the third at 4.
    states = jax.vmap(tx.init)(stacked)._replace(count=jnp.array([0, 1, 4], jnp.int32))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradient(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = lambda carry: lax.scan(step, carry, None, 5)[0]
    program = jax.jit(jax.vmap(run)).lower((stacked, states)).compile()
    assert "conditional(" in program.as_text()
    together = program((stacked, states))
    alone = jax.jit(run)
    for s in range(seeds):
        expected = alone(jax.tree.map(lambda x, s=s: x[s], (stacked, states)))
        got = jax.tree.map(lambda x, s=s: x[s], together)
        # Two programs may fuse a multiplication and an addition differently: some ulps over 5 steps.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-7), got, expected)
        for a, b in zip(jax.tree.leaves(got[1].masks), jax.tree.leaves(expected[1].masks), strict=True):
            np.testing.assert_array_equal(a, b)


def test_compiles_once():
    tx = sparsity.prune(optax.adam(0.05), SCHEDULE, prunable=prunable)
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(1)
        updates, state = tx.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(4):
        params, state = step(params, state)
    assert len(traces) == 1


def test_inside_multi_steps():
    tx = sparsity.prune(optax.sgd(0.1), SCHEDULE, prunable=prunable)
    micro = optax.MultiSteps(tx, every_k_schedule=2)
    (params, state), _ = train(micro, PARAMS, 14)
    (expected, _), _ = train(tx, PARAMS, 7)
    # Twice the same gradient, averaged by a running mean.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, expected)
    assert zeros(params["hidden"]["kernel"]) == 15
    assert not np.asarray(sparsity.get_masks(state)["hidden"]["kernel"]).all()


def test_inside_apply_if_finite():
    tx = optax.apply_if_finite(sparsity.prune(optax.sgd(0.1), SCHEDULE, prunable=prunable), 5)
    state = tx.init(PARAMS)
    nan = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), PARAMS)
    updates, state = tx.update(nan, state, PARAMS)
    assert all(not leaf.any() for leaf in jax.tree.leaves(updates))
    assert int(state.inner_state.count) == 0
    (params, _), _ = train(tx, PARAMS, 7)
    assert zeros(params["hidden"]["kernel"]) == 15


def test_a_lane_that_diverges_stays_in_its_lane():
    tx = sparsity.prune(optax.sgd(0.1), sparsity.constant(0.5, begin=1), prunable=lambda path: True)
    params = {"w": jnp.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])}
    grads = {"w": jnp.zeros((2, 4)).at[0, 1].set(jnp.nan)}
    updates, _ = jax.vmap(tx.update)(grads, jax.vmap(tx.init)(params), params)
    after = np.asarray(optax.apply_updates(params, updates)["w"])
    assert np.isnan(after[0]).tolist() == [False, True, False, False]
    assert after[0, [0, 2]].tolist() == [0, 0]  # NaN ranks first; the count is kept
    assert after[1].tolist() == [0, 0, 3, 4]


def test_the_state_is_arrays_and_a_run_can_go_on_from_a_copy():
    tx = sparsity.prune(optax.adam(0.05), SCHEDULE, prunable=prunable)
    (params, state), _ = train(tx, PARAMS, 3)
    leaves, treedef = jax.tree.flatten((params, state))
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    saved = [np.asarray(leaf).copy() for leaf in leaves]
    restored, restored_state = jax.tree.unflatten(treedef, [jnp.asarray(leaf) for leaf in saved])

    def step(carry, _):
        updates, new = tx.update(gradient(carry[0]), carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), new), None

    go_on = jax.jit(lambda c: lax.scan(step, c, None, 4)[0])
    jax.tree.map(np.testing.assert_array_equal, go_on((params, state)), go_on((restored, restored_state)))


def test_extra_arguments_reach_the_inner_transformation():
    seen = {}

    def update(updates, state, params=None, *, value, **extra):
        seen.update(value=value, extra=set(extra))
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx = sparsity.prune(inner, SCHEDULE, prunable=prunable)
    tx.update(gradient(PARAMS), tx.init(PARAMS), PARAMS, value=3.0, unknown=1)
    assert seen == {"value": 3.0, "extra": {"unknown"}}


@pytest.mark.slow
def test_the_inner_transformation_sees_masked_raw_gradients():
    seen = []

    def update(updates, state, params=None):
        # It is also traced, for steps with new masks.
        if not isinstance(updates["w"], jax.core.Tracer):
            seen.append(updates["w"].tolist())
        return updates, state

    inner = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    tx = sparsity.prune(inner, sparsity.constant(0.5), prunable=lambda path: True)
    params = {"w": jnp.array([1.0, 0.0])}
    tx.update({"w": jnp.array([2.0, jnp.nan])}, tx.init(params), params)
    assert seen == [[2.0, 0.0]]


def test_a_step_with_new_masks_trains_under_them():
    # The gradient's norm is 5; what is pruned at this step does not count, and 3 is clipped to 1.
    tx = sparsity.prune(
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)),
        sparsity.constant(0.5, begin=1),
        prunable=lambda path: True,
    )
    params = {"w": jnp.array([3.0, 0.25])}
    updates, state = tx.update({"w": jnp.array([3.0, 4.0])}, tx.init(params), params)
    assert updates["w"].tolist() == [-1.0, -0.25]
    assert sparsity.get_masks(state)["w"].tolist() == [True, False]


@pytest.mark.parametrize(
    "tx",
    [
        sparsity.prune(optax.adam(0.1), SCHEDULE, prunable=lambda path: True),
        sparsity.set_(
            optax.adam(0.1), sparsity.periodic(0.5, every=2, end=6), key=jax.random.key(0),
            prunable=lambda path: True,
        ),
    ],
    ids=["prune", "set_"],
)  # fmt: skip
def test_a_step_copies_neither_masks_nor_moments(tx):
    # The memory of all three is given away, so a copy would be one that the compiler has put in to save old values.
    params = {"w": jnp.ones((20, 30))}

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    program = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()
    entry = program.as_text().split("\nENTRY ")[1]
    assert "conditional(" in entry
    assert [line for line in entry.splitlines() if "20,30" in line and " copy(" in line] == []


def test_mixed_precision_updates_give_exact_zeros():
    for updates_dtype, params_dtype in [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.bfloat16)]:
        cast = optax.stateless(lambda u, p, d=updates_dtype: jax.tree.map(lambda x: x.astype(d), u))
        tx = sparsity.prune(cast, sparsity.constant(0.5, begin=1), prunable=lambda path: True)
        params = {"w": jnp.array([0.123456, -1.2, 3.3, 0.7], params_dtype)}
        updates, _ = tx.update({"w": jnp.full(4, 0.01, params_dtype)}, tx.init(params), params)
        after = optax.apply_updates(params, updates)["w"]
        assert after.dtype == params_dtype
        assert (after == 0).tolist() == [True, False, False, True]


def test_what_cannot_work_says_so():
    tx = sparsity.prune(optax.sgd(0.1), SCHEDULE, prunable=prunable)
    with pytest.raises(ValueError, match=r"no leaf is prunable.*hidden/kernel"):
        sparsity.prune(optax.sgd(0.1), SCHEDULE, prunable=lambda path: path == "kernel").init(PARAMS)
    with pytest.raises(ValueError, match=r"needs the parameters; call update\(grads, state, params\)"):
        tx.update(gradient(PARAMS), tx.init(PARAMS))
    with pytest.raises(TypeError, match="LookaheadParams"):
        tx.init(optax.LookaheadParams.init_synced(PARAMS))
    with pytest.raises(TypeError, match="must be a float array, but steps has the dtype int32"):
        sparsity.prune(optax.sgd(0.1), SCHEDULE, prunable=lambda path: True).init({"steps": jnp.array([1])})


def test_an_optax_schedule_is_no_sparsity_schedule():
    with pytest.raises(TypeError):
        sparsity.prune(optax.sgd(0.1), optax.constant_schedule(0.5), prunable=prunable)


def test_get_masks_wants_one_pruner():
    tx = sparsity.prune(optax.sgd(0.1), SCHEDULE, prunable=prunable)
    with pytest.raises(ValueError, match="found 0"):
        sparsity.get_masks(optax.adam(0.1).init(PARAMS))
    with pytest.raises(ValueError, match="found 2"):
        sparsity.get_masks((tx.init(PARAMS), tx.init(PARAMS)))


def test_apply_masks_hides_nan(strict_dtype):
    masks = {"a": jnp.array([True, False, True]), "b": jnp.array(True)}
    params = {"a": jnp.array([1.0, jnp.nan, jnp.inf], jnp.bfloat16), "b": jnp.ones((2, 2))}
    out = sparsity.apply_masks(params, masks)
    assert out["a"].tolist() == [1.0, 0.0, float("inf")]
    assert out["a"].dtype == jnp.bfloat16
    assert out["b"].tolist() == [[1, 1], [1, 1]]


def test_report():
    (params, state), _ = train(sparsity.prune(optax.sgd(0.1), SCHEDULE, prunable=prunable), PARAMS, 6)
    report = sparsity.sparsity_report(params, sparsity.get_masks(state))
    rows = {row.path: row for row in report.layers}
    assert rows["hidden/kernel"] == ("hidden/kernel", (4, 5), 5, 20, 0.75)
    assert rows["other/kernel"][2:4] == (1, 7)
    assert rows["hidden/bias"][2:] == (5, 5, 0.0)
    assert report.prunable[2:4] == (6, 27)
    assert report.total[2:4] == (12 + 5 + 5 + 1, 44)
    assert str(report).splitlines()[0].split() == ["layer", "shape", "kept", "total", "sparsity"]
    with pytest.raises(ValueError, match=r"the mask of w has the shape \(2,\)"):
        sparsity.sparsity_report({"w": jnp.ones(3)}, {"w": jnp.ones(2, bool)})
    with pytest.raises(ValueError, match="there are 0 masks for 1 leaves"):
        sparsity.sparsity_report({"w": jnp.ones(3)}, {})
