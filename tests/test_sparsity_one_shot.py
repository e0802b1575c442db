"""Pruning at once: scores of whole networks against definitions, and what they are combined with."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import models, sparsity
from jaxfair.typing import Batch

RNG = np.random.default_rng(7)
X = jnp.asarray(RNG.normal(size=(12, 6)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, 3, 12), jnp.int32)
WEIGHTS = {
    "Dense_0": {"bias": RNG.normal(size=5), "kernel": RNG.normal(size=(6, 5))},
    "Dense_1": {"bias": RNG.normal(size=3), "kernel": RNG.normal(size=(5, 3))},
}
PARAMS = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), WEIGHTS)


def prunable(path):
    return path.endswith("kernel")


def loss(params):
    hidden = jnp.tanh(X @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None])
    logits = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"][None]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(12), Y])


def kept(masks):
    return {layer: int(np.asarray(masks[layer]["kernel"]).sum()) for layer in masks}


@pytest.mark.slow
def test_counts_and_zeros_of_every_distribution():
    for distribution in (
        sparsity.uniform, sparsity.global_, sparsity.global_normalized, sparsity.erk(),
        sparsity.per_path({"Dense_0/*": 0.5}, default=0.8),
    ):  # fmt: skip
        pruned, masks = sparsity.one_shot(PARAMS, 0.6, prunable=prunable, distribution=distribution)
        for layer in PARAMS:
            mask = np.asarray(masks[layer]["kernel"])
            np.testing.assert_array_equal(np.asarray(pruned[layer]["kernel"]) != 0, mask)
            np.testing.assert_array_equal(pruned[layer]["bias"], PARAMS[layer]["bias"])
        total = sum(kept(masks).values())
        if distribution.emptied is None:  # what is shared is exact in all
            assert total == 45 - math.ceil(0.6 * 45)
    assert kept(masks) == {"Dense_0": 15, "Dense_1": 3}


def test_normalised_layers_are_compared_by_share():
    params = {"small": jnp.array([0.01, 0.02, 0.03]), "large": jnp.array([1.0, 5.0, 9.0])}
    everything = {"prunable": lambda path: True}
    _, plain = sparsity.one_shot(params, 0.5, distribution=sparsity.global_, **everything)
    assert not plain["small"].any()
    _, fair = sparsity.one_shot(params, 0.5, distribution=sparsity.global_normalized, **everything)
    # 1/10.3, 5/10.3, 9/10.3 against 1/3.74, 2/3.74, 3/3.74: the best three are two of small and one of large.
    assert fair["small"].tolist() == [False, True, True]
    assert fair["large"].tolist() == [False, False, True]


@pytest.mark.slow
def test_rounds_end_at_the_count_and_take_scores_anew():
    seen = []

    def scores(params):
        seen.append(int((np.asarray(params["Dense_0"]["kernel"]) != 0).sum()))
        return sparsity.snip(loss, params)

    _, masks = sparsity.one_shot(PARAMS, 0.8, prunable=prunable, scores=scores, rounds=4, distribution=sparsity.global_)
    assert len(seen) == 4
    assert seen == sorted(seen, reverse=True)
    assert sum(kept(masks).values()) == 9
    fewer = sparsity.one_shot(PARAMS, 0.8, prunable=prunable, masks=masks)[1]
    assert all((np.asarray(fewer[k]["kernel"]) <= np.asarray(masks[k]["kernel"])).all() or
               kept(masks)[k] < kept(fewer)[k] for k in masks)  # fmt: skip


def test_rounds_are_a_loop_under_jit_with_the_same_masks():
    def masks(params):
        return sparsity.one_shot(
            params, 0.8, prunable=prunable, scores=lambda p: sparsity.snip(loss, p), rounds=4,
            distribution=sparsity.global_,
        )[1]  # fmt: skip

    by_hand, looped = masks(PARAMS), jax.jit(masks)(PARAMS)
    for a, b in zip(jax.tree.leaves(by_hand), jax.tree.leaves(looped), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "scan" in str(jax.make_jaxpr(masks)(PARAMS))


def test_snip_is_the_derivative_by_a_mask():
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    by_mask = jax.grad(lambda m: loss(jax.tree.map(jnp.multiply, m, PARAMS)))(ones)
    # Two roundings apart.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, jnp.abs(b), rtol=1e-5, atol=1e-7),
        sparsity.snip(loss, PARAMS), by_mask,
    )  # fmt: skip


@pytest.mark.slow
def test_grasp_is_weight_times_hessian_times_gradient():
    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)
    of_flat = lambda v: loss(unravel(v))
    expected = flat * (jax.hessian(of_flat)(flat) @ jax.grad(of_flat)(flat))
    got = jax.flatten_util.ravel_pytree(sparsity.grasp(loss, PARAMS))[0]
    # Sums of 48 float32 products of order 1.
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_grasp_is_half_the_change_of_the_gradients_norm():
    # d |g|^2 / d (removing w) = -2 w (Hg): central differences along each weight.
    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)
    with jax.enable_x64(True):
        wide = jnp.asarray(np.asarray(flat), jnp.float64)
        norm = lambda v: jnp.sum(jnp.square(jax.grad(lambda u: loss(unravel(u.astype(jnp.float32))))(v)))
        slopes = np.asarray(jax.grad(norm)(wide))
    got = jax.flatten_util.ravel_pytree(sparsity.grasp(loss, PARAMS))[0]
    np.testing.assert_allclose(2 * np.asarray(got), slopes * np.asarray(flat), rtol=1e-3, atol=1e-4)


def test_synflow_conserves_the_flow_and_sees_every_path():
    linear = {k: {"kernel": v["kernel"]} for k, v in PARAMS.items()}
    output = lambda p: (jnp.ones(6) @ p["Dense_0"]["kernel"] @ p["Dense_1"]["kernel"]).sum()
    scores = sparsity.synflow(output, linear)
    a, b = (np.abs(np.asarray(linear[k]["kernel"])) for k in ("Dense_0", "Dense_1"))
    paths = np.zeros((6, 5))
    for i, j, k in itertools.product(range(6), range(5), range(3)):
        paths[i, j] += a[i, j] * b[j, k]
    np.testing.assert_allclose(scores["Dense_0"]["kernel"], paths, rtol=1e-5)
    # Its law: the sum of the scores of every layer is the same.
    sums = [float(scores[k]["kernel"].sum()) for k in linear]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5)


def test_synflow_in_rounds_empties_no_layer():
    params = {"wide": jnp.asarray(RNG.normal(size=(30, 30)) * 3, jnp.float32),
              "thin": jnp.asarray(RNG.normal(size=(30, 2)) * 0.01, jnp.float32)}  # fmt: skip
    output = lambda p: (jnp.ones(30) @ p["wide"] @ p["thin"]).sum()
    at_once = {"prunable": lambda path: True, "distribution": sparsity.global_}
    rounds = sparsity.one_shot(params, 0.97, scores=lambda p: sparsity.synflow(output, p), rounds=30, **at_once)[0]
    assert float(output(jax.tree.map(jnp.abs, rounds))) > 0
    by_size = sparsity.one_shot(params, 0.97, **at_once)[0]
    assert float(output(jax.tree.map(jnp.abs, by_size))) == 0


@pytest.fixture(scope="module")
def conv_net():
    model = models.cifar_resnet(8, 3)
    x = jnp.asarray(RNG.normal(size=(2, 8, 8, 3)), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    params, state = jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s.shape) / 8 + 0.1, jnp.float32), shapes)
    state = jax.tree.map(jnp.abs, state)
    return model, params, state, x


def test_wanda_on_a_dense_network_is_its_definition():
    model = models.mlp(3, hidden=(5,))
    params, state = model.init(jax.random.key(3), X)
    forward = lambda p: model.apply(p, state, X, train=False)[0]
    scores = jax.jit(lambda p: sparsity.wanda(forward, p, prunable=prunable))(params)
    first = np.asarray(params["Dense_0"]["kernel"])
    hidden = np.maximum(np.asarray(X) @ first + np.asarray(params["Dense_0"]["bias"]), 0)
    for layer, inputs in (("Dense_0", np.asarray(X)), ("Dense_1", hidden)):
        norms = np.sqrt((inputs**2).sum(axis=0))[:, None]
        expected = np.abs(np.asarray(params[layer]["kernel"])) * norms
        np.testing.assert_allclose(scores[layer]["kernel"], expected, rtol=1e-5)
    # Within an output: every column keeps the same number.
    masks = sparsity.one_shot(params, 0.5, scores=scores, structure=sparsity.balanced(), prunable=prunable)[1]
    assert set(np.asarray(masks["Dense_0"]["kernel"]).sum(axis=0).tolist()) == {3}


@pytest.mark.slow
def test_wanda_measures_channels_of_convolutions(conv_net):
    model, params, state, x = conv_net
    forward = lambda p: model.apply(p, state, x, train=False)[0]
    norms = sparsity.input_norms(forward, params, prunable=lambda path: path.endswith("kernel"))
    expected = np.sqrt(np.square(np.asarray(x)).sum(axis=(0, 1, 2)))
    np.testing.assert_allclose(norms["Conv_0"]["kernel"].reshape(-1), expected, rtol=1e-5)
    # The inputs of the second stage are the outputs of the first: recorded by a network of the first stage alone.
    assert norms["Block_1_0"]["Conv_0"]["kernel"].shape == (1, 1, 16, 1)
    np.testing.assert_array_equal(
        norms["Block_1_0"]["Conv_0"]["kernel"], norms["Block_1_0"]["Conv_2"]["kernel"]
    )  # the convolution and the shortcut read the same
    assert (np.asarray(norms["Block_1_0"]["Conv_1"]["kernel"]) > 0).any()


def test_depthwise_kernels_get_the_norm_of_their_own_channel():
    x = jnp.asarray(RNG.normal(size=(2, 5, 5, 4)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 1, 8)), jnp.float32)  # two outputs of every channel

    def forward(p):
        return jax.lax.conv_general_dilated(
            x, p["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )  # fmt: skip

    norms = sparsity.input_norms(forward, {"kernel": kernel}, prunable=lambda path: True)["kernel"]
    expected = np.repeat(np.sqrt(np.square(np.asarray(x)).sum(axis=(0, 1, 2))), 2)
    assert norms.shape == (1, 1, 1, 8)
    np.testing.assert_allclose(norms.reshape(-1), expected, rtol=1e-5)


def test_wanda_says_which_leaf_it_cannot_measure():
    forward = lambda p: X @ p["used"]
    params = {"used": jnp.ones((6, 2)), "unused": jnp.ones((6, 2))}
    with pytest.raises(ValueError, match="unused reaches no product"):
        sparsity.wanda(forward, params, prunable=lambda path: True)


# FairGRAPE


def greedy(importance, quota):
    """The algorithm as its paper has it, one weight at a time."""
    target = importance.sum(axis=1) / importance.sum()
    gained, picked = np.zeros(len(importance)), []
    for _ in range(quota):
        share = gained / gained.sum() if gained.sum() else gained
        group = int(np.argmax(target - share))
        free = [w for w in range(importance.shape[1]) if w not in picked]
        best = max(free, key=lambda w: (importance[group, w], -w))
        picked.append(best)
        gained = gained + importance[:, best]
    return sorted(picked), gained / gained.sum(), target


@pytest.mark.parametrize("seed", range(4))
def test_fairgrape_is_its_greedy_choice(seed):
    rng = np.random.default_rng(seed)
    importance = rng.gamma(0.5, size=(3, 60)) * np.array([[1.0], [0.1], [5.0]])
    params = {"w": jnp.ones((6, 10))}
    _, masks = sparsity.fairgrape(
        params, {"w": jnp.asarray(importance, jnp.float32).reshape(3, 6, 10)}, 0.7,
        prunable=lambda path: True,
    )  # fmt: skip
    expected, share, target = greedy(importance, 18)
    assert np.flatnonzero(masks["w"]).tolist() == expected
    # What it is for: the shares of the selected are near the targets, nearer than by the sum of importances.
    by_sum = np.argsort(-importance.sum(axis=0))[:18]
    plain = importance[:, by_sum].sum(axis=1) / importance[:, by_sum].sum()
    assert np.abs(share - target).max() < 0.05
    assert np.abs(share - target).max() <= np.abs(plain - target).max() + 0.01


def test_fairgrape_with_one_group_is_top_k_of_squared_saliency():
    batch = Batch(x=X, y=Y, group=jnp.zeros(12, jnp.int32), index=jnp.arange(12), weight=jnp.ones(12))

    def of(params, batch):
        logits = jnp.tanh(batch.x @ params["Dense_0"]["kernel"]) @ params["Dense_1"]["kernel"]
        losses = -jax.nn.log_softmax(logits)[jnp.arange(12), batch.y]
        return jnp.sum(batch.weight * losses) / jnp.maximum(jnp.sum(batch.weight), 1)

    importance = sparsity.group_importance(of, PARAMS, batch, 1)
    masks = sparsity.fairgrape(PARAMS, importance, 0.6, prunable=prunable)[1]
    scores = jax.tree.map(lambda i: i[0], importance)
    expected = sparsity.one_shot(PARAMS, 0.6, scores=scores, prunable=prunable)[1]
    jax.tree.map(np.testing.assert_array_equal, masks, expected)
    # A group that is not in the batch has no say; it does not make NaN of the others.
    wider = sparsity.group_importance(of, PARAMS, batch, 2)
    jax.tree.map(lambda i: np.testing.assert_array_equal(i[1], 0), wider)


def test_fairgrape_goes_on_from_masks():
    importance = {"w": jnp.asarray(RNG.gamma(0.5, size=(2, 40)), jnp.float32)}
    params = {"w": jnp.ones(40)}
    every = {"prunable": lambda path: True}
    first = sparsity.fairgrape(params, importance, 0.3, **every)[1]
    second = sparsity.fairgrape(params, importance, 0.6, masks=first, **every)[1]
    assert int(second["w"].sum()) == 16
    assert (np.asarray(second["w"]) <= np.asarray(first["w"])).all()


# Learned masks


def test_edge_popup_finds_the_weights_that_matter():
    # The network is random and stays so; only which of its weights are used is learnt. The target uses half of them.
    rng = np.random.default_rng(3)
    weights = {"w": jnp.asarray(rng.normal(size=20), jnp.float32)}
    used = np.arange(20) % 2 == 0
    x = jnp.asarray(rng.normal(size=(200, 20)), jnp.float32)
    y = x @ jnp.where(used, weights["w"], 0.0)

    def of(scores):
        masks = sparsity.edge_popup(scores, 0.5, prunable=lambda path: True)
        return jnp.mean(jnp.square(x @ (masks["w"] * weights["w"]) - y))

    scores = {"w": jnp.asarray(rng.uniform(0.1, 0.2, size=20), jnp.float32)}
    step = jax.jit(lambda s: jax.tree.map(lambda a, g: a - 0.02 * g, s, jax.grad(of)(s)))
    for _ in range(200):
        scores = step(scores)
    masks = sparsity.edge_popup(scores, 0.5, prunable=lambda path: True)
    np.testing.assert_array_equal(np.asarray(masks["w"]) > 0, used)
    assert set(np.asarray(masks["w"]).tolist()) == {0.0, 1.0}


def test_adapting_by_pruning_reaches_a_sparsity_and_lets_weights_recover():
    phi = sparsity.initial_phi(jax.random.key(0), {"w": jnp.zeros(500)})
    important = np.arange(500) < 50

    def of(p):  # the first 50 should live
        return -jnp.sum(sparsity.sigmoid_mask(p["w"]) * jnp.where(important, 1.0, 0.0))

    tx = optax.chain(optax.sgd(0.01), sparsity.drift(2e-4))
    start = phi

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(jax.grad(of)(p), state, p)
        p = optax.apply_updates(p, updates)
        return (p, state), jnp.mean(p["w"] < 0)

    (phi, _), shares = jax.lax.scan(step, (phi, tx.init(phi)), None, 1000)
    assert float(shares[-1]) >= 0.9 * 0.99
    alive = np.asarray(phi["w"]) > 0
    assert alive[important].all()
    assert not np.asarray(start["w"] > 0)[important].all()  # some of these were dead, and came back


def test_sigmoid_mask_has_a_hard_value_and_a_soft_derivative():
    phi = jnp.array([-1.0, -0.01, 0.01, 1.0])
    np.testing.assert_array_equal(sparsity.sigmoid_mask(phi), [0, 0, 1, 1])
    half = sparsity.sigmoid_mask(jnp.array([0.0, 1e-3, -1e-3], jnp.float16))
    assert half.dtype == jnp.float16
    np.testing.assert_array_equal(half, [0.5, 1, 0])
    soft = lambda p: 3 * jax.nn.sigmoid(2 * p)
    got = jax.grad(lambda p: 3 * sparsity.sigmoid_mask(p, smooth=2.0).sum())(phi)
    np.testing.assert_allclose(got, jax.vmap(jax.grad(soft))(phi), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"structure": sparsity.n_by_m(2, 4, axis=-1)}], ids=["plain", "n_by_m"])
def test_what_is_pruned_already_stays_so(options):
    given = jnp.array([True, False, False, False, True, True, True, True])
    params, everything = {"w": jnp.arange(1.0, 9.0)}, lambda path: True
    _, masks = sparsity.one_shot(params, 0.5, prunable=everything, masks={"w": given}, **options)
    # Of the second four the two largest live at least, and of four to be kept it is three where two of four may live.
    assert np.flatnonzero(masks["w"]).tolist() == ([0, 6, 7] if options else [4, 5, 6, 7])
    sparser = {"w": given & (jnp.arange(8) < 5)}
    _, masks = sparsity.one_shot(params, 0.5, prunable=everything, masks=sparser, **options)
    np.testing.assert_array_equal(masks["w"], sparser["w"])
    importance = {"w": jnp.ones((2, 8))}
    _, masks = sparsity.fairgrape(params, importance, 0.5, prunable=everything, masks=sparser)
    np.testing.assert_array_equal(masks["w"], sparser["w"])


# Tickets


def test_a_lottery_ticket_is_the_initial_network_under_nested_masks():
    seen = []

    def train(params, masks):
        # Every round begins at the initial weights, and masked.
        start = PARAMS if masks is None else sparsity.apply_masks(PARAMS, masks)
        jax.tree.map(np.testing.assert_array_equal, params, start)
        seen.append(masks)
        return jax.tree.map(lambda p: p * 1.5 + jnp.where(p == 0, 0.0, 0.01), params)

    ticket, masks = sparsity.lottery_ticket(train, PARAMS, rounds=5, prunable=prunable)
    total, living = 45, sum(kept(masks).values())
    assert living == total - math.ceil((1 - 0.8**5) * total)
    for layer in PARAMS:
        m = np.asarray(masks[layer]["kernel"])
        np.testing.assert_array_equal(ticket[layer]["kernel"], np.where(m, PARAMS[layer]["kernel"], 0))
    assert seen[0] is None
    for early, late in itertools.pairwise([*seen[1:], masks]):
        for layer in PARAMS:
            assert (np.asarray(late[layer]["kernel"]) <= np.asarray(early[layer]["kernel"])).all()


def test_what_cannot_work_says_so():
    bad = {"kernel": PARAMS["Dense_0"]["kernel"].at[0, 0].set(jnp.nan)}
    with pytest.raises(ValueError, match="1 scores of Dense_0/kernel are NaN"):
        sparsity.one_shot({**PARAMS, "Dense_0": bad}, 0.5, prunable=prunable)
    with pytest.raises(ValueError, match="rounds must be at least 1, but it is 0"):
        sparsity.one_shot(PARAMS, 0.5, prunable=prunable, rounds=0)
    with pytest.raises(ValueError, match="no leaf is prunable"):
        sparsity.one_shot(PARAMS, 0.5, prunable=lambda path: False)
    with pytest.raises(ValueError, match="no leaf is prunable"):
        sparsity.fairgrape(PARAMS, PARAMS, 0.5, prunable=lambda path: False)
    with pytest.raises(ValueError, match="keep in"):
        sparsity.lottery_ticket(lambda p, m: p, PARAMS, rounds=1, keep=0.0, prunable=prunable)


@pytest.mark.parametrize("keep", [0.0, 1.0, 1.5, -0.5, "a"])
def test_a_share_that_a_lottery_cannot_keep_is_named(keep):
    with pytest.raises(ValueError, match=f"keep in .* keep={keep}"):
        sparsity.lottery_ticket(lambda p, m: p, PARAMS, rounds=1, keep=keep, prunable=prunable)


def test_fairgrape_sums_bfloat16_importances_in_more_bits():
    """One by one: 256 and one more are 256 in bfloat16, so that a group's share would stop there."""
    importance = jnp.asarray(1 + np.random.default_rng(0).gamma(0.5, size=(2, 900)), jnp.bfloat16)
    params, every = {"w": jnp.ones((30, 30))}, {"prunable": lambda path: True}
    of = {kind: importance.astype(kind).reshape(2, 30, 30) for kind in (jnp.bfloat16, jnp.float32)}
    half, full = (sparsity.fairgrape(params, {"w": leaf}, 0.2, **every)[1]["w"] for leaf in of.values())
    np.testing.assert_array_equal(half, full)
