"""`reset_moments` finds the moments of a weight in any optimizer's state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import sparsity

PARAMS = {"a": {"bias": jnp.ones(3), "kernel": jnp.ones((4, 3))}, "b": {"kernel": jnp.ones((3, 2))}}
NEW = {
    "a": {"bias": jnp.array(False), "kernel": jnp.zeros((4, 3), bool).at[0].set(True)},
    "b": {"kernel": jnp.zeros((3, 2), bool)},
}


def by_rank(params):
    return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "vector", params)


# name -> (transformation, leaves of its state that belong to a/kernel)
INNER = {
    "sgd": (optax.sgd(0.1), 0),
    "momentum": (optax.sgd(0.1, momentum=0.9), 1),
    "adamw": (optax.adamw(0.1), 2),
    "lion": (optax.lion(0.1), 1),
    "rmsprop": (optax.rmsprop(0.1, initial_scale=2.0), 1),
    "adagrad": (optax.adagrad(0.1, initial_accumulator_value=0.3), 1),
    "adafactor": (
        optax.adafactor(0.1, min_dim_size_to_factor=2),
        0,
    ),  # rows and columns: left alone
    "inject_hyperparams": (optax.inject_hyperparams(optax.adam)(0.1), 2),
    "chain": (optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)), 2),
    "partition": (
        optax.partition({"matrix": optax.adam(0.1), "vector": optax.sgd(0.1)}, by_rank),
        2,
    ),
    "muon": (optax.contrib.muon(0.1), 1),
}


@pytest.mark.parametrize("name", INNER)
def test_only_the_newcomers_start_again(name):
    inner, number = INNER[name]
    fresh = inner.init(PARAMS)
    _, state = jax.jit(inner.update)(PARAMS, fresh, PARAMS)
    reset = jax.jit(lambda *args: sparsity.reset_moments(inner, *args))(state, PARAMS, NEW)
    assert jax.tree.structure(reset) == jax.tree.structure(state)
    changed = 0
    leaves = [jax.tree.leaves(s) for s in (reset, state, fresh)]
    for got, before, first in zip(*leaves, strict=True):
        assert got.dtype == before.dtype
        if not np.array_equal(got, before):
            changed += 1
            np.testing.assert_array_equal(got[0], first[0])
            np.testing.assert_array_equal(got[1:], before[1:])
    assert changed == number
