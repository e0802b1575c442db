"""Sparse training by name: exact zeros, costs that follow the masks, and the same with lanes one after another."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints, data, metrics, models, recipes, train
from jaxfair.typing import Batch

pytestmark = pytest.mark.usefixtures("compiled_once")

SPLIT = data.sample(data.load("digits").train, 320, seed=0)
MODEL = models.mlp(10, hidden=(8, 8))
LAYERS = (64 * 8, 8 * 8)  # the last one is not prunable
UNIFORM = sum(math.ceil(0.9 * n) for n in LAYERS)
TOGETHER = math.ceil(0.9 * sum(LAYERS))
KEYS = jax.random.split(jax.random.key(0), 2)
START = jax.vmap(lambda key: MODEL.init(key, jnp.asarray(SPLIT.x[:1])))(KEYS)
FEW = jax.tree.map(lambda a: np.stack([a, a]), data.of_each_class(SPLIT, 10))
BOUND = constraints.excess_accuracy_gap(MODEL.apply, num_groups=10, tolerance=0.01)


def trained(method, split=SPLIT, **more):
    settings = {
        "optimizer": optax.sgd(0.05, momentum=0.9), "keys": KEYS, "start": START, "epochs": 4, "batch_size": 32,
        "few": FEW, "num_groups": 10, "keep": 0.2, "batches": 1, "rounds": 3,
    }  # fmt: skip
    return recipes.sparse(method, MODEL, split, 0.9, **settings | more)


def prunable(tree):
    """``[S, p]``, of the layers that may be pruned."""
    return np.concatenate([np.asarray(tree[f"Dense_{i}"]["kernel"]).reshape(2, -1) for i in (0, 1)], axis=1)


@pytest.fixture(scope="module")
def dense():
    return trained("dense")


# The others are the same code with another score or distribution; these have code of their own.
@pytest.mark.parametrize("method", ["rigl", "acdc", "ste", "synflow", "wanda", "fairgrape"])
@pytest.mark.slow
def test_zeros_are_exact_and_costs_follow_the_masks(method, dense):
    found = trained(method)
    weights, masks = prunable(found.params), prunable(found.masks)
    assert np.all(weights[~masks] == 0)
    expected = TOGETHER if method in ("rigl", "synflow") else UNIFORM
    assert (~masks).sum(axis=1).tolist() == [expected] * 2
    assert np.all(found.failed_at == -1)
    extra = found.densities.shape[1] - dense.densities.shape[1]
    assert extra == (2 * 10 if method == "fairgrape" else 0)  # two rounds, ten groups
    ratio = found.cost[0] / dense.cost[0]
    if method == "ste":  # a masked forward pass, a masked and a dense half of the backward pass
        assert 1 / 3 < ratio < 1
    if method in ("synflow", "wanda"):  # sparse from the first step
        assert ratio < 1 / 3
        np.testing.assert_array_equal(found.densities[:, 0], found.densities[:, -1])
    if method == "wanda":  # every output keeps the same number of its inputs
        kept = np.asarray(found.masks["Dense_0"]["kernel"][0]).sum(0)
        assert kept.max() - kept.min() <= 1
    if method == "rigl":
        assert 0 < found.dense_gradient.sum() < len(found.dense_gradient)


@pytest.mark.slow
def test_densities_fall_step_by_step_as_the_schedule_says():
    rows = trained("magnitude").densities[0, :, 3]  # leaves are bias, kernel, bias, kernel, ...
    assert rows[0] == 1.0
    assert rows[-1] == pytest.approx(1 - math.ceil(0.9 * 64) / 64)
    assert np.all(np.diff(rows) <= 0)


@pytest.mark.slow
def test_a_network_that_failed_is_no_network():
    found = trained("magnitude", optimizer=optax.sgd(1e30))
    assert np.all(found.failed_at >= 0)
    assert np.all(np.isnan(prunable(found.params)) | (prunable(found.params) == 0))
    logits = MODEL.apply(train.take(found.params, 0), {}, jnp.asarray(SPLIT.x), train=False)[0]
    assert not metrics.correct(logits, jnp.asarray(SPLIT.y)).any()


@pytest.mark.slow
def test_lanes_one_after_another_are_the_same_networks():
    short = {"epochs": 2, "keep": 0.1}
    together = trained("fairgrape", **short)
    apart = trained("fairgrape", plan=train.Plan(mapped=False), **short)
    np.testing.assert_array_equal(prunable(together.masks), prunable(apart.masks))
    np.testing.assert_allclose(prunable(together.params), prunable(apart.params), atol=1e-5)


@pytest.mark.slow
def test_a_bound_moves_the_weights_and_data_may_be_of_each_lane():
    own = jax.tree.map(lambda a: np.stack([a, a]), SPLIT)
    right = jnp.ones((2, len(SPLIT.y)))
    bound = {
        "problem": BOUND,
        "dual": optax.sgd(0.1),
        "reference": constraints.Outcomes(right, jnp.zeros_like(right)),
    }
    free, bounded = trained("magnitude"), trained("magnitude", **bound)
    assert not np.array_equal(prunable(free.params), prunable(bounded.params))
    assert np.all((prunable(bounded.params) == 0).sum(axis=1) >= UNIFORM)
    again = trained("magnitude", split=own, split_axes=Batch(0, 0, 0, 0, 0), **bound)
    np.testing.assert_allclose(prunable(again.params), prunable(bounded.params), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "more", "words"),
    [
        ("obs", {}, "choose one of magnitude"),
        ("snip", {"few": None}, "takes few="),
        ("fairgrape", {"num_groups": 0}, "number of groups"),
        ("ste", {"problem": BOUND}, "does not go with constraints"),
    ],
)
def test_what_cannot_be_is_said(method, more, words):
    with pytest.raises(ValueError, match=words):
        trained(method, **more)
