"""Rounding that is chosen, and bits and zeros chosen together: against brute force, NumPy, and what must hold."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import models, quant, sparsity

RNG = np.random.default_rng(1)
CHANNELS = quant.Quantizer(granularity=quant.per_channel())
ROUND = jax.jit(quant.round_layer, static_argnames="sort")


def layer(seed, n=6, out=4, people=40):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(people, n)) @ rng.normal(size=(n, n))
    return jnp.asarray(rng.normal(size=(n, out)), jnp.float32), jnp.asarray(x.T @ x / people, jnp.float32)


# Rounding.


def by_hand(w, gram, step, high, damping):
    """GPTQ as the paper has it, in NumPy with an explicit inverse, inputs in their order."""
    w, done = w.astype(np.float64).copy(), np.zeros(w.shape)
    damped = gram + damping * np.diag(gram).mean() * np.eye(len(gram))
    inverse = np.linalg.inv(damped)
    for i in range(len(w)):
        done[i] = np.clip(np.round(w[i] / step[0]), -high, high) * step[0]
        rest = slice(i + 1, None)
        # Optimal brain surgeon: the others to where they are best, given this one; then it leaves the problem.
        w[rest] -= np.outer(inverse[rest, i], (w[i] - done[i]) / inverse[i, i])
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    return done


def test_it_is_the_surgeon_of_one_weight_after_the_other():
    w, gram = layer(0)
    grid = quant.calibrate(w, 3, CHANNELS)
    expected = by_hand(np.asarray(w), np.asarray(gram, np.float64), np.asarray(grid.scale, np.float64), 3, 0.01)
    np.testing.assert_allclose(ROUND(w, gram, grid, sort=False), expected, rtol=1e-5, atol=1e-6)


def test_with_a_diagonal_matrix_it_is_the_best_of_all_roundings():
    w = jnp.asarray(RNG.normal(size=(4, 1)), jnp.float32)
    gram, grid = jnp.diag(jnp.array([1.0, 3.0, 0.5, 2.0])), quant.calibrate(w, 2)
    step = float(grid.scale[0, 0])
    every = [np.array(c)[:, None] * step for c in itertools.product((-1, 0, 1), repeat=4)]
    best = min(every, key=lambda q: float(quant.layer_loss(w, q, gram)))
    np.testing.assert_allclose(ROUND(w, gram, grid), best, rtol=1e-6)
    np.testing.assert_array_equal(ROUND(w, gram, grid), quant.quantize(w, grid))


@pytest.mark.slow
def test_it_beats_the_nearest_level_and_is_near_the_best_of_all():
    """Forty layers of four inputs: all 7^4 roundings of each output are tried."""
    codes = np.array(list(itertools.product(range(-3, 4), repeat=4)), np.float32)
    chosen, nearest, best = [], [], []
    for seed in range(40):
        w, gram = layer(seed, n=4)
        grid = quant.calibrate(w, 3, CHANNELS)
        change = codes[:, :, None] * np.asarray(grid.scale)[None] - np.asarray(w)[None]
        best.append(np.einsum("cio,ij,cjo->co", change, np.asarray(gram), change).min(axis=0).sum())
        chosen.append(quant.layer_loss(w, ROUND(w, gram, grid, sort=True), gram))
        nearest.append(quant.layer_loss(w, quant.quantize(w, grid), gram))
    chosen, nearest, best = map(np.array, (chosen, nearest, best))
    assert (best <= chosen * 1.0001).all()
    assert chosen.mean() < 0.7 * nearest.mean()
    assert chosen.mean() < 1.6 * best.mean()
    # In layers that are not that small there is always somebody to make up for an error.
    for seed in range(20):
        w, gram = layer(seed, n=24, people=100)
        grid = quant.calibrate(w, 3, CHANNELS)
        assert quant.layer_loss(w, ROUND(w, gram, grid, sort=True), gram) < quant.layer_loss(
            w, quant.quantize(w, grid), gram
        )


def test_zeros_stay_and_an_input_that_is_never_there_is_rounded_to_the_nearest():
    w, gram = layer(3)
    w = w.at[1].set(0.0).at[2, 1].set(0.0)
    gram = gram.at[4].set(0.0).at[:, 4].set(0.0)
    grid = quant.calibrate(w, 4, CHANNELS)
    found = np.asarray(ROUND(w, gram, grid, sort=True))
    assert not found[1].any()
    assert found[2, 1] == 0
    np.testing.assert_array_equal(found[4], quant.quantize(w, grid)[4])
    np.testing.assert_allclose(found / np.asarray(grid.scale), np.round(found / np.asarray(grid.scale)), atol=1e-5)


@pytest.mark.slow
def test_a_bound_on_a_small_group_is_met_where_rounding_for_all_breaks_it():
    kept = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x = [rng.normal(size=(400, 12)) @ rng.normal(size=(12, 12)) for _ in range(2)]
        share = np.array([0.96, 0.04])[:, None, None]
        grams = jnp.asarray(share * np.stack([a.T @ a / 400 for a in x]), jnp.float32)
        w = jnp.asarray(rng.normal(size=(12, 6)), jnp.float32)
        grid = quant.calibrate(w, 3, CHANNELS)
        free = quant.layer_loss(w, ROUND(w, grams.sum(0), grid, sort=True), grams)
        bound = jnp.stack([jnp.inf, 0.7 * free[1]])
        found = BOUNDED(w, grams, grid, bound)
        assert (np.asarray(found.losses)[1] <= bound[1]) == bool(found.met)
        np.testing.assert_allclose(found.losses, quant.layer_loss(w, found.weights, grams), rtol=1e-4)
        assert found.losses.sum() >= 0.9 * free.sum()
        kept += bool(found.met)
    assert kept >= 5
    loose = BOUNDED(w, grams, grid, jnp.full(2, jnp.inf))
    np.testing.assert_array_equal(loose.weights, ROUND(w, grams.sum(0), grid, sort=True))


BOUNDED = jax.jit(quant.round_groups)


@pytest.mark.slow
def test_grams_of_a_network_are_those_of_its_layers_inputs_group_by_group():
    model = models.mlp(3, hidden=(5,))
    x, group = RNG.normal(size=(30, 4)).astype(np.float32), RNG.integers(0, 3, 30)
    params, state = model.init(jax.random.key(0), x)
    forward = lambda p: model.apply(p, state, x, train=False)[0]
    of = lambda p: sparsity.input_grams(
        forward, p, prunable=lambda path: path.endswith("kernel"), group=group, num_groups=2
    )
    grams = jax.jit(of)(params)
    hidden = np.maximum(x @ np.asarray(params["Dense_0"]["kernel"]) + np.asarray(params["Dense_0"]["bias"]), 0)
    for path, inputs in (("Dense_0/kernel", x), ("Dense_1/kernel", hidden)):
        for g in range(2):
            mine = np.asarray(inputs)[group == g]
            np.testing.assert_allclose(grams[path][g], mine.T @ mine, rtol=1e-4, atol=1e-4)
    w = params["Dense_1"]["kernel"]
    grid = quant.calibrate(w, 3)
    nearest = quant.quantize(w, grid)
    rounded = ROUND(w, grams["Dense_1/kernel"].sum(0), grid, sort=True)
    lost = [((hidden[group < 2] @ np.asarray(q - w)) ** 2).sum() for q in (rounded, nearest)]
    assert lost[0] < lost[1]
    np.testing.assert_allclose(lost[0], quant.layer_loss(w, rounded, grams["Dense_1/kernel"]).sum(), rtol=1e-3)


@pytest.mark.parametrize("damping", [0.0, 1e-12, 0.01])
def test_a_layer_of_fewer_people_than_inputs_is_rounded(damping):
    x = jnp.asarray(RNG.normal(size=(3, 8)), jnp.float32)
    w = jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32)
    grid, gram = quant.calibrate(w, 3), x.T @ x
    found = quant.round_layer(w, gram, grid, damping=damping)
    assert float(quant.layer_loss(w, found, gram)) < float(quant.layer_loss(w, quant.quantize(w, grid), gram))


def test_what_cannot_be_rounded_is_one_line():
    w, gram = layer(0)
    grid = quant.calibrate(w, 3)
    for call, word in (
        (lambda: quant.round_layer(w, gram[:3], grid), "give .n, out. weights"),
        (lambda: quant.round_layer(w, gram, grid, damping=-1), "damping=-1"),
        (lambda: quant.round_groups(w, gram, grid, 1.0), "G, n, n"),
        (lambda: quant.round_groups(w, gram[None], grid, 0.0), "bound=0.0"),
        (lambda: quant.round_groups(w, gram[None], grid, 1.0, rounds=0), "rounds=0"),
    ):
        with pytest.raises(ValueError, match=word):
            call()


# Bits and zeros.

PARAMS = {
    "a": {"kernel": jnp.asarray(RNG.normal(size=(6, 8)), jnp.float32), "bias": jnp.ones(8)},
    "b": {"kernel": jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32)},
}
FISHER = jax.tree.map(lambda w: jnp.asarray(RNG.uniform(0.1, 1.0, w.shape), jnp.float32), PARAMS)
TOTAL = 48 + 32
LEVELS = tuple(float(s) for s in 1 - np.logspace(0, -1, 6))


def kernels(tree):
    return [np.asarray(tree[name]["kernel"], np.float64) for name in ("a", "b")]


def test_with_pruning_only_the_levels_nest_and_the_numbers_are_those_of_the_method():
    found = quant.fitcompress(PARAMS, FISHER, 0.2, bits=(), sparsities=LEVELS)
    first, *rest = found.path
    norm = np.sqrt(sum((f * w**2).sum() for f, w in zip(kernels(FISHER), kernels(PARAMS), strict=True)))
    assert (first.size, first.cost) == (1.0, 0.0)
    np.testing.assert_allclose(first.estimate, 0.8 * norm, rtol=1e-5)  # f of the start is h
    assert found.path[-1].size < 0.2 <= found.path[-2].size
    assert [step.sparsity for step in found.path] == list(LEVELS[: len(found.path)])
    # By hand: the path's length, from masks that nest.
    importance = np.concatenate([(f * w**2).ravel() for f, w in zip(kernels(FISHER), kernels(PARAMS), strict=True)])
    order, cost, gone = np.argsort(importance, kind="stable"), 0.0, 0
    for step in rest:
        now = int(np.ceil(step.sparsity * TOTAL - 1e-9))
        cost += np.sqrt(importance[order[gone:now]].sum())
        np.testing.assert_allclose(step.cost, cost, rtol=1e-4)
        np.testing.assert_allclose(step.size, 1 - now / TOTAL)
        gone = now
    masks = np.concatenate([np.asarray(found.masks[name]["kernel"]).ravel() for name in ("a", "b")])
    assert set(np.flatnonzero(~masks)) == set(order[:gone])
    assert found.masks["a"]["bias"].shape == ()
    np.testing.assert_array_equal(found.params["a"]["bias"], PARAMS["a"]["bias"])


def test_with_bits_only_a_move_costs_what_its_layer_loses():
    found = quant.fitcompress(PARAMS, FISHER, 0.13, bits=(8, 4, 2), sparsities=(0.0,))
    for before, after in itertools.pairwise(found.path):
        (moved,) = [path for path in before.bits if before.bits[path] != after.bits[path]]
        name = moved.split("/")[0]
        w, f = PARAMS[name]["kernel"], FISHER[name]["kernel"]
        levels = [
            w if bits == 32 else quant.quantize(w, quant.calibrate(w, bits))
            for bits in (before.bits[moved], after.bits[moved])
        ]
        np.testing.assert_allclose(
            after.cost - before.cost, np.sqrt(float(jnp.sum(f * (levels[0] - levels[1]) ** 2))), rtol=1e-3, atol=1e-5
        )
        used = sum(PARAMS[p.split("/")[0]]["kernel"].size * bits for p, bits in after.bits.items())
        np.testing.assert_allclose(after.size, used / (32 * TOTAL))
    levels = quant.quantize_params(PARAMS, quant.grids(PARAMS, found.bits))
    jax.tree.map(np.testing.assert_array_equal, found.params, levels)


@pytest.mark.slow
def test_a_star_is_never_longer_than_greedy_and_both_reach_the_goal():
    """With one number of bits a layer: nine descriptions by three levels, all paths of which are tried by hand."""
    options = {"bits": (8, 3), "sparsities": (0.0, 0.3, 0.6)}
    for goal, most in ((0.5, 1000), (0.2, 1000), (0.1, 1000), (0.2, 1), (0.2, 3), (0.1, 5), (0.1, 8), (0.1, 12)):
        greedy = quant.fitcompress(PARAMS, FISHER, goal, **options)
        best = quant.fitcompress(PARAMS, FISHER, goal, search="a_star", most=most, **options)
        for found in (greedy, best):
            assert found.path[-1].size < goal
        f = [found.path[-1].cost + found.path[-1].estimate for found in (best, greedy)]
        assert f[0] <= f[1] + 1e-6
        assert best.looked_at >= greedy.looked_at


@pytest.mark.parametrize("seed", [1, 11, 19])
def test_a_star_that_looks_back_too_seldom_is_no_worse_than_greedy(seed):
    """After six descriptions its best one leads to twice as much; after a thousand it has found a shorter way."""
    rng = np.random.default_rng(seed)
    params = {name: {"kernel": jnp.asarray(rng.normal(size=(4, 4)), jnp.float32)} for name in "ab"}
    fisher = jax.tree.map(lambda w: jnp.asarray(rng.uniform(0.01, 1.0, w.shape) ** 3, jnp.float32), params)
    ends = [
        quant.fitcompress(params, fisher, 0.08, bits=(8, 4, 2), sparsities=(0.0, 0.3, 0.6), **options).path[-1]
        for options in ({}, {"search": "a_star", "most": 6}, {"search": "a_star"})
    ]
    greedy, six, all_of_them = (end.cost + end.estimate for end in ends)
    assert six <= greedy
    assert all_of_them <= six


@pytest.mark.slow
def test_fisher_information_may_be_asked_again_and_is_that_of_examples():
    x = jnp.asarray(RNG.normal(size=(20, 3)), jnp.float32)
    loss = lambda p, row: jnp.sum((row @ p["w"]) ** 2)
    params = {"w": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)}
    by_hand = np.mean([np.asarray(jax.grad(loss)(params, row)["w"]) ** 2 for row in x], axis=0)
    np.testing.assert_allclose(quant.fisher_diagonal(loss, params, x)["w"], by_hand, rtol=1e-5)
    asked = []

    def again(params):
        asked.append(params)
        return quant.fisher_diagonal(loss, params, x)

    found = quant.fitcompress(params, again, 0.2, sparsities=(0.0,))
    assert len(asked) == found.looked_at + 1
    assert not np.array_equal(asked[0]["w"], asked[-1]["w"])


def test_a_sum_of_many_small_numbers_is_not_lost_in_16_bits():
    rows = jnp.asarray(np.resize([1.0, 2.0], (2000, 1)), jnp.bfloat16)
    found = quant.fisher_diagonal(lambda p, row: jnp.sum(p["w"] * row), {"w": jnp.ones(1, jnp.bfloat16)}, rows)
    assert (found["w"].dtype, float(found["w"][0])) == (jnp.bfloat16, 2.5)


def test_what_cannot_be_chosen_is_one_line():
    for options, word in (
        ({"goal": 0}, "goal=0"),
        ({"goal": 0.01, "bits": (8,), "sparsities": (0.0,)}, "get below it"),
        ({"goal": 0.5, "bits": (4, 8)}, "they fall"),
        ({"goal": 0.5, "bits": (1.5,)}, "bits=1.5"),
        ({"goal": 0.5, "sparsities": (0.5,)}, "rise from 0"),
        ({"goal": 0.5, "search": "best"}, "search='best'"),
        ({"goal": 0.5, "most": 0}, "most=0"),
        ({"goal": 0.5, "fisher": {"w": 1.0}}, "give a tree like the parameters"),
    ):
        with pytest.raises(ValueError, match=word):
            quant.fitcompress(PARAMS, options.pop("fisher", FISHER), **options)
