"""The axes of a pruner one by one: scores that remember, distributions, schedules and structures."""

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
from jaxfair.sparsity._distributions import Layer
from jaxfair.sparsity._selection import monotone

RNG = np.random.default_rng(11)
ABC = [Layer("a", (2, 4), 8), Layer("b", (3, 6), 18), Layer("c", (2, 4, 6), 48)]


def scan(tx, params, steps, gradient=jnp.sin):
    """-> the last parameters, and the masks after every step; one program."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.tree.map(gradient, params), state, params)
        return (optax.apply_updates(params, updates), state), state.masks

    def whole(params):
        (params, _), masks = lax.scan(step, (params, tx.init(params)), None, steps)
        return params, masks

    return jax.jit(whole)(params)


# Distributions


@pytest.mark.parametrize(
    ("options", "value", "published"),
    [
        ({}, 0.5, (0, 0.3095, 0.6548)),
        ({}, 0.8, (0.5556, 0.7037, 0.8519)),
        ({"kernel": False}, 0.5, (0.2071, 0.4714, 0.5595)),
        ({"power": 2}, 0.5, (0, 0.0333, 0.7583)),
    ],
    ids=["half", "four fifths", "no kernel", "squared"],
)
def test_erk_has_the_published_densities_and_an_exact_total(options, value, published):
    s = Fraction(str(value))
    zeros = sparsity.erk(**options).zeros(s, s, ABC)
    assert sum(zeros) == math.ceil(s * 74)  # rounding each layer by itself gives 0.784 for 0.8
    for number, layer, share in zip(zeros, ABC, published, strict=True):
        # Whole weights, in all a rounded-up total: less than two away from the share.
        assert abs(number - share * layer.units) < 2


def test_erk_keeps_one_weight_of_every_layer_and_is_exact_for_all_sparsities():
    layers = [Layer(str(i), shape, math.prod(shape))
              for i, shape in enumerate([(3, 3, 3, 8), (64, 64), (5, 2), (1, 1), (128, 10)])]  # fmt: skip
    total = sum(layer.units for layer in layers)
    before = None
    for value in (0, "1/3", "1/2", "0.9", "0.99", "0.999"):
        s = Fraction(value)
        zeros = sparsity.erk().zeros(s, s, layers)
        assert sum(zeros) == min(math.ceil(s * total), total - 1)
        assert all(0 <= z < layer.units for z, layer in zip(zeros, layers, strict=True))
        if before is not None:  # sparser in all is sparser in each, up to rounding
            assert all(now >= then - 1 for now, then in zip(zeros, before, strict=True))
        before = zeros


def test_erk_in_training_never_brings_a_weight_back():
    params = {"a": jnp.asarray(RNG.normal(size=(7, 9))), "b": jnp.asarray(RNG.normal(size=(31, 3)))}
    tx = sparsity.prune(
        optax.sgd(0.1), sparsity.polynomial(0.9, begin=1, end=20, every=1),
        prunable=lambda path: True, distribution=sparsity.erk(),
    )  # fmt: skip
    params, masks = scan(tx, params, 20)
    for mask in masks.values():
        assert (np.asarray(mask)[1:] <= np.asarray(mask)[:-1]).all()
    total = sum(p.size for p in params.values())
    assert sum(int((p == 0).sum()) for p in params.values()) == math.ceil(Fraction(9, 10) * total)


def test_counts_that_rounding_gives_back_are_not_taken():
    table = np.array([[9, 9], [5, 6], [6, 5], [4, 5], [5, 4]], np.int32)
    assert monotone(table).tolist() == [[9, 9], [5, 6], [5, 5], [5, 5], [5, 4]]


def test_per_path_rises_with_the_schedule_and_names_what_it_does_not_find():
    rule = sparsity.per_path({"b": 0.9, "*": 0.5})
    final = Fraction(4, 5)
    assert rule.zeros(final / 2, final, ABC) == [2, math.ceil(0.45 * 18), 12]
    assert rule.zeros(final, final, ABC) == [4, 17, 24]
    assert rule.emptied(final, [Layer("b", (3,), 3)]) == ["b"]
    with pytest.raises(ValueError, match=r"no prunable layer matches \['d/\*'\]; there are \['a', 'b', 'c'\]"):
        sparsity.per_path({"d/*": 0.5}).zeros(final, final, ABC)
    with pytest.raises(ValueError, match="sparsity"):
        sparsity.per_path({"a": 1.0})


# Schedules


def test_a_schedule_of_optax_is_read_exactly_and_reaches_its_end():
    linear = sparsity.tabulated(optax.linear_schedule(0.0, 0.9, 10), begin=0, end=10, every=4)
    assert linear.steps == (0, 4, 8, 10)
    assert linear.sparsities == (0, Fraction(9, 25), Fraction(18, 25), Fraction(9, 10))
    with pytest.raises(ValueError, match="sparsity"):
        sparsity.tabulated(lambda t: 1.0, begin=0, end=1, every=1)


def test_steps_out_of_order_say_so():
    for bad in (
        lambda: sparsity.periodic(0.5, every=0, end=3),
        lambda: sparsity.periodic(0.5, every=1, begin=4, end=3),
        lambda: sparsity.tabulated(lambda t: 0.5, begin=3, end=2, every=1),
        lambda: sparsity.alternating(0.5, begin=0, end=10, every=10),
    ):
        with pytest.raises(ValueError, match="needs 0 <= begin"):
            bad()
    with pytest.raises(ValueError, match="falls"):
        sparsity.prune(
            optax.sgd(0.1),
            sparsity.alternating(0.5, begin=0, end=8, every=2),
            prunable=lambda path: True,
        )


# Scores that remember


def play(score, steps, schedule=None, inner=None):
    """-> weights and state after some steps of given gradients, on eight weights."""
    tx = sparsity.prune(
        optax.sgd(0.0) if inner is None else inner,
        schedule or sparsity.constant(0.5, begin=steps),
        score=score,
        prunable=lambda path: True,
    )

    def step(carry, gradients):
        params, state = carry
        updates, state = tx.update({"w": gradients}, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = {"w": jnp.linspace(0.3, 1.0, 8)}
    whole = lambda g: lax.scan(step, (params, tx.init(params)), g)[0]
    return jax.jit(whole)(jnp.asarray(GRADIENTS[:steps]))


GRADIENTS = RNG.normal(size=(6, 8)).astype(np.float32)


def kept(scores, k=4):
    mask = np.zeros(len(scores), bool)
    mask[np.argsort(-scores, kind="stable")[:k]] = True
    return mask


def test_movement_adds_up_over_all_steps():
    _, state = play(sparsity.movement(), 5)
    weights = np.linspace(0.3, 1.0, 8)
    np.testing.assert_array_equal(state.masks["w"], kept(-(weights * GRADIENTS[:5]).sum(axis=0)))


def test_fisher_is_the_squared_weight_times_the_mean_square():
    _, state = play(sparsity.fisher(0.8), 5)
    weights, mean = np.linspace(0.3, 1.0, 8), np.zeros(8)
    for g in GRADIENTS[:5]:
        mean = 0.8 * mean + 0.2 * g**2
    np.testing.assert_array_equal(state.masks["w"], kept(weights**2 * mean))


def test_adams_moment_is_a_fisher_and_other_optimizers_have_none():
    params, state = play(sparsity.adam_fisher(), 5, inner=optax.adamw(1e-2, b2=0.8))
    nu = np.zeros(8)
    for g in GRADIENTS[:5]:
        nu = 0.8 * nu + 0.2 * g**2
    alive = np.asarray(state.masks["w"])
    np.testing.assert_array_equal(np.asarray(params["w"]) != 0, alive)
    weights = np.linspace(0.3, 1.0, 8)  # Adam moved them by at most 0.05
    clear = kept(weights**2 * nu, 2)
    assert alive[clear].all()
    with pytest.raises(ValueError, match="its state has 0 called nu"):
        play(sparsity.adam_fisher(), 1, inner=optax.sgd(0.1))


def test_random_masks_are_nested_uniform_and_lanes_have_their_own():
    schedule = sparsity.polynomial(0.75, begin=0, end=4, every=1, initial=0.25)
    keys = jax.random.split(jax.random.key(5), 300)

    def first(key):
        return play(sparsity.random(key), 0, schedule)[1].masks["w"]

    masks = np.asarray(jax.jit(jax.vmap(first))(keys))
    assert (masks.sum(axis=1) == 6).all()
    # 300 draws of 6 of 8: a share of 0.75 with a deviation of 0.025 each; 5 deviations.
    assert np.abs(masks.mean(axis=0) - 0.75).max() < 0.125
    _, state = play(sparsity.random(keys[0]), 4, schedule)
    assert (np.asarray(state.masks["w"]) <= masks[0]).all()
    assert int(state.masks["w"].sum()) == 2


def test_a_score_that_needs_gradients_says_so_at_step_0():
    for score in (sparsity.saliency, sparsity.adam_fisher()):
        with pytest.raises(ValueError, match="begin the schedule at step 1"):
            play(score, 0, sparsity.constant(0.5), inner=optax.adam(0.1))
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), but it is 1.0"):
        sparsity.fisher(1.0)


# Structures


def test_n_by_m_rises_to_its_pattern_and_never_breaks_it():
    params = {"w": jnp.asarray(RNG.normal(size=(8, 5)), jnp.float32)}
    schedule = sparsity.polynomial(0.5, begin=0, end=6, every=2)
    tx = sparsity.prune(optax.sgd(0.1), schedule, structure=sparsity.n_by_m(2, 4), prunable=lambda path: True)
    params, masks = scan(tx, params, 6, jnp.cos)
    groups = np.asarray(masks["w"]).reshape(6, 2, 4, 5).sum(axis=2)
    assert (groups >= 2).all()
    assert (groups[-1] == 2).all()
    zeros = 40 - groups.sum(axis=(1, 2))
    # 0.5 (1 - (2/3)^3), 0.5 (1 - (1/3)^3) and 0.5 of 40, rounded up.
    assert zeros.tolist() == [0, 15, 15, 20, 20, 20]
    assert int((params["w"] == 0).sum()) == 20


@pytest.mark.parametrize("m", [2, 3, 4])
def test_n_by_m_keeps_the_n_best_of_every_m(m):
    weights = jnp.asarray(RNG.integers(-3, 4, size=(12, 12)), jnp.float32)  # many ties
    for axis, n in itertools.product((-1, -2), range(1, m)):
        masks = sparsity.one_shot(
            {"w": weights}, Fraction(m - n, m), structure=sparsity.n_by_m(n, m, axis=axis),
            prunable=lambda path: True,
        )[1]  # fmt: skip
        rows = np.asarray(weights) if axis == -1 else np.asarray(weights).T
        got = np.asarray(masks["w"]) if axis == -1 else np.asarray(masks["w"]).T
        for row, mask in zip(np.abs(rows).reshape(-1, m), got.reshape(-1, m), strict=True):
            np.testing.assert_array_equal(mask, kept(row, n))


def test_n_by_m_refuses_what_it_cannot_give():
    params = {"w": jnp.ones((8, 4))}
    every = {"prunable": lambda path: True}
    with pytest.raises(ValueError, match="above what this structure allows"):
        sparsity.one_shot(params, 0.6, structure=sparsity.n_by_m(2, 4), **every)
    with pytest.raises(ValueError, match=r"axis 0 of a leaf of shape \(8, 4\) is not a multiple of 3"):
        sparsity.one_shot(params, 0.5, structure=sparsity.n_by_m(1, 3), **every)
    with pytest.raises(ValueError, match="1 <= n < m"):
        sparsity.n_by_m(4, 4)
    with pytest.raises(ValueError, match="regrow cannot keep n of every m"):
        sparsity.rigl(optax.sgd(0.1), sparsity.periodic(0.5, every=1, end=3), key=jax.random.key(0),
                      structure=sparsity.n_by_m(2, 4), **every)  # fmt: skip


def test_blocks_with_edges_are_means_of_what_they_have():
    scores = np.abs(RNG.normal(size=(3, 5, 7))).astype(np.float32)
    for reduce, of in (("mean", np.mean), ("max", np.max)):
        pooled = np.asarray(sparsity.block((2, 3), reduce=reduce).pool(jnp.asarray(scores)))
        assert pooled.shape == (3, 3, 3)
        for k, i, j in np.ndindex(3, 3, 3):
            inside = scores[k, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
            np.testing.assert_allclose(pooled[k, i, j], of(inside), rtol=1e-6)
    weights = {"w": jnp.asarray(scores)}
    masks = sparsity.one_shot(weights, 0.5, structure=sparsity.block((2, 3)), prunable=lambda path: True)[1]
    mask = np.asarray(masks["w"])
    dead = sum(not mask[k, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].any() for k, i, j in np.ndindex(3, 3, 3))
    whole = sum(mask[k, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].all() for k, i, j in np.ndindex(3, 3, 3))
    assert (dead, whole) == (14, 13)
    with pytest.raises(ValueError, match="needs leaves of 2 dimensions"):
        sparsity.one_shot({"w": jnp.ones(4)}, 0.5, structure=sparsity.block((2, 2)), prunable=lambda path: True)
    with pytest.raises(ValueError, match="'mean' or 'max'"):
        sparsity.block((2, 2), reduce="sum")


@pytest.mark.parametrize("axis", [-1, -2, 0])
def test_channels_live_or_die_along_their_axis(axis):
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 6, 8)), jnp.float32)
    masks = sparsity.one_shot({"w": kernel}, 0.5, structure=sparsity.channel(axis), prunable=lambda path: True)[1]
    rows = np.moveaxis(np.asarray(masks["w"]), axis, 0).reshape(kernel.shape[axis], -1)
    assert (rows.all(axis=1) | ~rows.any(axis=1)).all()
    means = np.moveaxis(np.abs(np.asarray(kernel)), axis, 0).reshape(kernel.shape[axis], -1).mean(axis=1)
    k = kernel.shape[axis] - math.ceil(kernel.shape[axis] / 2)
    np.testing.assert_array_equal(rows[:, 0], kept(means, k))


def test_balanced_outputs_lose_the_same_number():
    weights = {"w": jnp.asarray(RNG.normal(size=(10, 6)) * np.arange(1, 7), jnp.float32)}
    masks = sparsity.one_shot(weights, 0.7, structure=sparsity.balanced(), prunable=lambda path: True)[1]
    mask = np.asarray(masks["w"])
    assert mask.sum(axis=0).tolist() == [3] * 6
    for column in range(6):
        np.testing.assert_array_equal(mask[:, column], kept(np.abs(np.asarray(weights["w"]))[:, column], 3))


# Exact counts for every score x structure


SCORES = {
    "magnitude": sparsity.magnitude,
    "saliency": sparsity.saliency,
    "random": sparsity.random(jax.random.key(2)),
    "movement": sparsity.movement(),
    "fisher": sparsity.fisher(),
    "adam": sparsity.adam_fisher(),
}
STRUCTURES = {
    "unstructured": (sparsity.unstructured, 1),
    "2:4": (sparsity.n_by_m(2, 4), 1),
    "balanced": (sparsity.balanced(), 1),
    "blocks": (sparsity.block((2, 2)), 4),
    "filters": (sparsity.channel(-1), 8),
    "inputs": (sparsity.channel(-2), 6),
}


CASES = {
    "ties": RNG.integers(-2, 3, size=(8, 6)),
    "zeros": np.zeros((8, 6)),
    "numbers": RNG.normal(size=(8, 6)),
}
SIGNS = RNG.integers(-1, 2, size=(3, 8, 6)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES)
def test_exact_counts_of_every_score_and_structure(score):
    weights = jnp.stack([jnp.asarray(case, jnp.float32) for case in CASES.values()])
    # What a structure does with scores is the same for all of them; blocks and 2:4 stand for the others.
    some = STRUCTURES if score == "magnitude" else ("unstructured", "2:4", "blocks")
    chosen = {name: STRUCTURES[name] for name in some}

    def one(weights, gradients):  # all structures in one program
        found = {}
        for name, (structure, _) in chosen.items():
            tx = sparsity.prune(
                optax.adam(0.0),
                sparsity.constant(0.5, begin=1),
                score=SCORES[score],
                structure=structure,
                prunable=lambda path: True,
            )
            params = {"w": weights}
            updates, state = tx.update({"w": gradients}, tx.init(params), params)
            found[name] = optax.apply_updates(params, updates)["w"], state.masks["w"]
        return found

    found = jax.jit(jax.vmap(one))(weights, jnp.asarray(SIGNS))
    for name, (_, unit) in chosen.items():
        after, masks = map(np.asarray, found[name])
        assert (~masks).sum(axis=(1, 2)).tolist() == [math.ceil(0.5 * (48 // unit)) * unit] * 3
        assert (after[~masks] == 0).all()
        assert not np.signbit(after[~masks]).any()


@pytest.mark.parametrize("structure", [sparsity.channel(), sparsity.block((64, 1))])
def test_what_is_pruned_within_a_unit_counts_as_zero_in_its_mean(structure):
    # Column i is i times as large. First single weights went; a mean that took them as -inf would drop the best units.
    weights = jnp.asarray(RNG.normal(size=(64, 8)) * np.arange(1, 9), jnp.float32)
    everything = {"prunable": lambda path: True}
    _, masks = sparsity.one_shot({"w": weights}, 0.3, **everything)
    _, masks = sparsity.one_shot({"w": weights}, 0.5, structure=structure, masks=masks, **everything)
    alive = np.asarray(masks["w"]).sum(axis=0)
    assert (alive[:4] == 0).all()
    assert (alive[4:] > 0).all()
    pooled = structure.pool(jnp.array([[-jnp.inf] * 2] * 64).at[0, 1].set(64.0))
    assert np.ravel(pooled).tolist() == [-np.inf, 1.0]


@pytest.mark.parametrize("structure", [sparsity.channel(), sparsity.block((600, 1))])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_means_of_16_bits_neither_overflow_nor_tie(structure, dtype):
    scores = jnp.full((600, 2), 256, dtype).at[:3, 1].add(8)
    np.testing.assert_allclose(np.ravel(structure.pool(scores)), [256, 256 + 24 / 600], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_normalised_layers_do_not_depend_on_the_unit_of_the_scores(dtype):
    shape, drawn = (50, 50), np.random.default_rng(0)
    params = {k: jnp.zeros(shape) for k in "ab"}
    scores = {k: jnp.asarray(np.abs(drawn.normal(size=shape)), dtype) for k in "ab"}
    everything = {"prunable": lambda path: True, "distribution": sparsity.global_normalized}
    alive = []
    for a, b in (
        (1, 1),
        (1024, 1),
        (2.0**-14, 2.0**-8),
    ):  # powers of two round nothing; 1024 squared is no float16
        scaled = {"a": scores["a"] * a, "b": scores["b"] * b}
        wide = jax.tree.map(lambda s: s.astype(jnp.float32), scaled)
        if dtype == jnp.float16 and a < 1:  # below the smallest that float16 has whole
            continue
        _, masks = sparsity.one_shot(params, 0.9, scores=scaled, **everything)
        _, expected = sparsity.one_shot(params, 0.9, scores=wide, **everything)
        for k in "ab":
            np.testing.assert_array_equal(masks[k], expected[k])
        alive.append([int(masks[k].sum()) for k in "ab"])
    assert alive == [alive[0]] * len(alive)
    tiny = jax.tree.map(lambda s: s.astype(jnp.float32) * 2.0**-60, scores)
    _, masks = sparsity.one_shot(params, 0.9, scores=tiny, **everything)
    assert [int(masks[k].sum()) for k in "ab"] == alive[0]
    # A layer of zeros stays one of zeros.
    nothing = {"a": scores["a"], "b": jnp.zeros(shape, dtype)}
    _, masks = sparsity.one_shot(params, 0.5, scores=nothing, **everything)
    assert [int(masks[k].sum()) for k in "ab"] == [2500, 0]


def test_balanced_outputs_are_balanced_in_bfloat16():
    weights = jnp.asarray(RNG.normal(size=(2000, 4)), jnp.bfloat16)
    _, masks = sparsity.one_shot({"w": weights}, 0.5, structure=sparsity.balanced(), prunable=lambda path: True)
    assert np.asarray(masks["w"]).sum(axis=0).tolist() == [1000] * 4


@pytest.mark.parametrize("structure", [sparsity.channel(2), sparsity.channel(-3), sparsity.n_by_m(2, 4, axis=3)])
def test_an_axis_that_a_leaf_has_not_is_refused(structure):
    with pytest.raises(ValueError, match="has no axis"):
        sparsity.one_shot({"w": jnp.ones((4, 4))}, 0.5, structure=structure, prunable=lambda path: True)
