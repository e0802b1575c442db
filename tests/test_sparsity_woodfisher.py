"""WoodFisher against explicit inverses, the optimal brain surgeon by hand, and CHITA's back-solve."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import sparsity

pytestmark = pytest.mark.usefixtures("strict_dtype")

RNG = np.random.default_rng(1)
A = RNG.normal(size=(9, 10))
W = RNG.normal(size=10)
RIDGE = 0.05
# Condition numbers of the damped matrices below are at most some 100, so float32 is good to 1e-5.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
A32, W32 = jnp.asarray(A, jnp.float32), jnp.asarray(W, jnp.float32)


def fisher(gradients, ridge=RIDGE):
    return ridge * np.eye(gradients.shape[1]) + gradients.T @ gradients / len(gradients)


@functools.cache
def solver(**settings):
    return jax.jit(functools.partial(sparsity.woodfisher_solve, ridge=RIDGE, **settings))


@pytest.mark.parametrize(("block", "chunk"), [(10, 1), (10, 4), (4, 32), (1, 3)])
def test_inverse_is_the_inverse(block, chunk):
    found = jax.jit(functools.partial(sparsity.woodfisher_inverse, block=block, ridge=RIDGE, chunk=chunk))(A32)
    assert found.shape == (math.ceil(10 / block), block, block)
    for i, inverse in enumerate(found):
        part = A[:, i * block : (i + 1) * block]
        size = part.shape[1]
        np.testing.assert_allclose(inverse[:size, :size], np.linalg.inv(fisher(part)), **CLOSE)
        # What fills the last block up has no gradient.
        np.testing.assert_allclose(inverse[size:, size:], np.eye(block - size) / RIDGE, **CLOSE)


def test_statistic_is_the_rise_after_the_best_move():
    """Remove q, move the others to their optimum: the quadratic rises by w_q^2 / (2 [F^-1]_qq)."""
    found = solver(block=10)(A32, W32, 9)
    F = fisher(A)
    for q in range(10):
        rest = np.delete(np.arange(10), q)
        moved = np.zeros(10)
        moved[q] = -W[q]
        moved[rest] = np.linalg.solve(F[np.ix_(rest, rest)], F[rest, q] * W[q])
        assert found.statistic[q] == pytest.approx(moved @ F @ moved / 2, rel=1e-4)
    gone = np.flatnonzero(~np.asarray(found.mask))
    assert gone.tolist() == [int(np.argmin(found.statistic))]


def test_joint_update_is_the_optimum_on_the_support():
    found = solver(block=10)(A32, W32, 4)
    F, kept = fisher(A), np.asarray(found.mask)
    expected = np.zeros(10)
    pull = F[np.ix_(kept, ~kept)] @ W[~kept]
    expected[kept] = W[kept] + np.linalg.solve(F[np.ix_(kept, kept)], pull)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.weights[~kept], 0.0)
    assert kept.sum() == 4


def test_joint_update_is_chitas_back_solve_on_the_same_support():
    """The same quadratic, the same ridge. Eight of ten fill blocks of four and a rest of two."""
    found = solver(block=4)(A32, W32, 5)
    theirs = sparsity.chita_block_solve(A32, W32, 5, block=4, ridge=RIDGE, mask=found.mask)
    np.testing.assert_allclose(found.weights, theirs.weights, rtol=1e-4, atol=1e-4)


def test_one_weight_a_block_ranks_by_the_diagonal():
    found = solver(block=1)(A32, W32, 4)
    score = W**2 * np.diag(fisher(A)) / 2
    np.testing.assert_allclose(found.statistic, score, **CLOSE)
    assert set(np.flatnonzero(found.mask)) == set(np.argsort(score)[-4:])
    np.testing.assert_array_equal(found.weights, np.where(found.mask, W32, 0))


def test_separate_update_is_the_sum_of_single_moves():
    found = solver(block=10, update="separate")(A32, W32, 6)
    inverse, gone = np.linalg.inv(fisher(A)), ~np.asarray(found.mask)
    moved = sum(-W[q] * inverse[:, q] / inverse[q, q] for q in np.flatnonzero(gone))
    np.testing.assert_allclose(found.weights, np.where(gone, 0, W + moved), rtol=1e-4, atol=1e-4)
    # For one weight both are the optimal brain surgeon.
    one = [solver(block=10, update=u)(A32, W32, 9).weights for u in ("joint", "separate")]
    np.testing.assert_allclose(*one, **CLOSE)
    plain = solver(block=10, update="none")(A32, W32, 6)
    np.testing.assert_array_equal(plain.weights, np.where(plain.mask, W32, 0))


def test_a_tree_is_pruned_to_the_exact_count():
    params = {"a": {"bias": jnp.ones(2), "kernel": W32[:6].reshape(2, 3)}, "b": {"kernel": W32[6:]}}
    prunable = lambda path: path.endswith("kernel")
    pruned, masks, found = sparsity.woodfisher(params, A32, 0.55, prunable=prunable, block=4, ridge=RIDGE)
    assert int(found.mask.sum()) == 10 - math.ceil(0.55 * 10)
    np.testing.assert_array_equal(masks["a"]["kernel"].reshape(-1), found.mask[:6])
    np.testing.assert_array_equal(pruned["b"]["kernel"], found.weights[6:])
    np.testing.assert_array_equal(pruned["a"]["bias"], 1.0)
    assert masks["a"]["bias"].shape == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"block": 0}, "block must be above 0, but it is 0"),
        ({"ridge": 0.0}, "ridge must be above 0"),
        ({"chunk": 0}, "chunk must be above 0"),
        ({"update": "both"}, "update must be one of joint, separate, none, but it is 'both'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors_say_what_to_do(settings, words):
    with pytest.raises(ValueError, match=words):
        sparsity.woodfisher_solve(A32, W32, 5, **settings)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_ridge_that_is_not_above_zero_is_refused_before_it_is_traced(value):
    params, rows = {"w": jnp.arange(1.0, 5.0)}, jnp.eye(4)
    with pytest.raises(ValueError, match=f"ridge must be above 0, but it is {value}"):
        sparsity.woodfisher(params, rows, 0.5, prunable=lambda path: True, ridge=value)
