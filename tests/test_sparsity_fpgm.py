"""FPGM and the importance that masks keep, against loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from jaxfair import sparsity

KERNELS = {
    "conv": np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32),
    "bias": np.ones(5, np.float32),
}


def test_a_filter_is_worth_the_sum_of_its_distances_to_the_others():
    scores = sparsity.fpgm(KERNELS, prunable=lambda path: path == "conv")
    filters = [KERNELS["conv"][..., i].ravel() for i in range(5)]
    expected = [sum(np.linalg.norm(f - other) for other in filters) for f in filters]
    # Distances from products: a difference of squares of the size of 20 in float32.
    assert_allclose(scores["conv"], np.broadcast_to(expected, (2, 3, 4, 5)), rtol=1e-5)
    assert np.all(scores["bias"] == 0)


def test_it_prunes_a_copy_and_not_the_smallest():
    kernel = jnp.array([[3.0, 3.0, 0.1, 0.0], [0.0, 0.0, 0.0, 4.0]])
    scores = sparsity.fpgm({"w": kernel}, prunable=lambda path: True)
    half = {"prunable": lambda path: True, "structure": sparsity.channel(-1)}
    masks = sparsity.one_shot({"w": kernel}, 0.25, scores=scores, **half)[1]["w"]
    smallest = sparsity.one_shot({"w": kernel}, 0.25, **half)[1]["w"]
    assert smallest[0].tolist() == [True, True, False, True]
    assert masks[0].tolist() == [True, False, True, True]


def test_kept_importance_counts_group_by_group_and_prunable_weights_only():
    rng = np.random.default_rng(1)
    importance = {"a": rng.random((3, 4, 2)), "b": rng.random((3, 4)), "free": rng.random((3, 7))}
    masks = {"a": rng.random((4, 2)) > 0.5, "b": rng.random(4) > 0.5, "free": np.array(True)}
    found = sparsity.kept_importance(*jax.tree.map(jnp.asarray, (importance, masks)))
    for group, (kept, total) in enumerate(itertools.repeat((0, 0), 3)):
        for name in ("a", "b"):
            kept += importance[name][group][masks[name]].sum()
            total += importance[name][group].sum()
        assert_allclose(found[group], kept / total, rtol=1e-5)
