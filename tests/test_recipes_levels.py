"""Masks found by BiP and BiFP in a recipe, and masks that are given."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints, data, models, recipes, sparsity

PEOPLE = data.planted(
    key=jax.random.key(0), num_train=512, num_validation=64, num_test=128, minority=0.25, minority_test=64
)
MODEL = models.mlp(2, hidden=(8,))
KEYS = jax.random.split(jax.random.key(1), 2)
START = jax.vmap(lambda key: MODEL.init(key, PEOPLE.train.x[:1]))(KEYS)
NOBODY = constraints.Outcomes(jnp.zeros((2, 512)), jnp.zeros((2, 512)))
PARITY = constraints.accuracy_parity(MODEL.apply, num_groups=2, tolerance=0.02)
HOW = {"keys": KEYS, "epochs": 2, "batch_size": 64}


def made(method, **more):
    return recipes.sparse(
        method, MODEL, PEOPLE.train, 0.5, optimizer=optax.sgd(0.1), start=START, **HOW, **more
    )  # fmt: skip


@pytest.mark.parametrize("method", ["bip", "bifp"])
def test_networks_are_exactly_as_sparse_as_asked_for(method):
    more = {"problem": PARITY, "dual": optax.sgd(0.1), "reference": NOBODY} if method == "bifp" else {}
    found = made(method, **more)
    kept = [np.asarray(m) for m in jax.tree.leaves(found.masks) if m.ndim > 1]
    assert sum(m[0].sum() for m in kept) == -(-sum(m[0].size for m in kept) // 2)
    for weights, mask in zip(jax.tree.leaves(found.params), jax.tree.leaves(found.masks), strict=True):
        if mask.ndim > 1:
            assert np.all(np.asarray(weights)[~np.asarray(mask)] == 0)
    assert not np.array_equal(kept[0][0], kept[0][1])
    assert np.all(found.dense_gradient)


def test_given_masks_stay_and_what_lives_under_them_is_trained():
    masks = jax.vmap(lambda p: sparsity.one_shot(p, 0.5, prunable=MODEL.prunable)[1])(START[0])
    for more in ({}, {"problem": PARITY, "dual": optax.sgd(0.1), "reference": NOBODY}):
        found = made("given", masks=masks, **more)
        for mine, given in zip(jax.tree.leaves(found.masks), jax.tree.leaves(masks), strict=True):
            assert np.array_equal(mine, given)
        weights, mask = found.params["Dense_0"]["kernel"], masks["Dense_0"]["kernel"]
        assert np.all(np.asarray(weights)[~np.asarray(mask)] == 0)
        assert not np.allclose(weights, jnp.where(mask, START[0]["Dense_0"]["kernel"], 0))


def test_what_does_not_go_together_is_one_line():
    with pytest.raises(ValueError, match="method='bifp' takes problem="):
        made("bifp")
    with pytest.raises(ValueError, match="method='bip' does not go with constraints"):
        made("bip", problem=PARITY, dual=optax.sgd(0.1))
    with pytest.raises(ValueError, match="masks= are for method='given', and it takes them"):
        made("given")
