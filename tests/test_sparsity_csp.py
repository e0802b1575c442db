"""Pruning as compressed sensing: hand-made layers, what it is a special case of, the best of all supports, networks.

All layers are laid into one shape, which is compiled once: an input of its own with weights of 0 changes nothing.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import sparsity
from jaxfair.sparsity.csp import _compiled

INPUTS, OUTPUTS, RIDGE = 12, 5, 1e-4
RNG = np.random.default_rng(8)
X = (RNG.normal(size=(40, 6)) @ RNG.normal(size=(6, INPUTS)) + 0.3 * RNG.normal(size=(40, INPUTS))).astype(np.float32)
X *= np.geomspace(0.2, 3, INPUTS, dtype=np.float32)
W = RNG.normal(size=(INPUTS, OUTPUTS)).astype(np.float32)
G = X.T @ X


def solve(weights, gram, keep, ridge=RIDGE):
    settings = {"ridge": jnp.float32(ridge), "rounds": 3, "steps": 50}
    return _compiled(jnp.asarray(weights, jnp.float32), jnp.asarray(gram, jnp.float32), jnp.int32(keep), **settings)


def laid_in(weights, gram):
    """A small layer of one output among inputs that nobody uses."""
    n = len(weights)
    wide, apart = np.zeros((INPUTS, OUTPUTS), np.float32), np.eye(INPUTS, dtype=np.float32)
    wide[:n, 0], apart[:n, :n] = weights, gram
    return wide, apart


def objective(gram, weights, found, ridge=RIDGE):
    gram, moved = np.asarray(gram, np.float64), np.asarray(weights, np.float64) - np.asarray(found, np.float64)
    gram = gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.sum(moved * (gram @ moved)) / 2


def test_two_inputs_that_agree():
    """Without its new value the larger weight would cost 0.32, and the other one 0.5."""
    weights, gram = laid_in([1, 0.8], [[1, 0.9], [0.9, 1]])
    found = solve(weights, gram, 1, ridge=1e-8)
    np.testing.assert_allclose(found.weights[:2, 0], [1.72, 0], rtol=1e-4)
    np.testing.assert_allclose(found.error, 0.0608, rtol=1e-4)
    np.testing.assert_allclose(found.trace[0], 0.32, rtol=1e-5)


def test_the_largest_weight_need_not_be_kept():
    """Two others do nearly the same: either of them alone is worth more. Magnitude would cost 1.5795."""
    weights, gram = laid_in([1.2, 0.9, 0.9], [[1, 0, 0], [0, 1, 0.95], [0, 0.95, 1]])
    found = solve(weights, gram, 1, ridge=1e-8)
    assert np.argwhere(found.mask).tolist() == [[1, 0]]  # of the two the first
    np.testing.assert_allclose(found.weights[1, 0], 1.755, rtol=1e-4)
    np.testing.assert_allclose(found.error, 0.75949, rtol=1e-4)
    kept = np.where(np.abs(weights) == np.abs(weights).max(), weights, 0)
    np.testing.assert_allclose(objective(gram, weights, kept, 0), 1.5795, rtol=1e-6)


@pytest.mark.parametrize("keep", [1, 7, 30, 59])
def test_the_identity_is_magnitude_bit_for_bit(keep):
    found = solve(W, np.eye(INPUTS), keep)
    pruned, masks = sparsity.one_shot({"w": jnp.asarray(W)}, 1 - keep / W.size, prunable=lambda path: True)
    assert int(masks["w"].sum()) == keep
    np.testing.assert_array_equal(found.mask, masks["w"])
    np.testing.assert_array_equal(found.weights, pruned["w"])


@pytest.mark.parametrize("keep", [1, 7, 30, 59])
def test_a_diagonal_is_wanda_bit_for_bit(keep):
    """Of one output, and of all, whose weights compete; nothing is there to be taken over."""
    x = jnp.diag(jnp.geomspace(0.1, 10, INPUTS))
    scores = sparsity.wanda(lambda p: x @ p["w"], {"w": jnp.asarray(W)}, prunable=lambda path: True)["w"]
    found = solve(W, x.T @ x, keep, ridge=1e-8)
    np.testing.assert_array_equal(found.mask, sparsity.top_k(scores, keep))
    np.testing.assert_array_equal(found.weights, np.where(found.mask, W, 0))


@pytest.mark.parametrize("keep", [1, 4, 12, 30, 50])
def test_the_error_never_rises_and_is_what_it_says(keep):
    found = solve(W, G, keep)
    assert int(found.mask.sum()) == keep
    assert not np.asarray(found.weights)[~np.asarray(found.mask)].any()
    trace = np.asarray(found.trace)
    assert (np.diff(trace) <= 0).all()
    assert trace[-1] < 0.9 * trace[0]
    np.testing.assert_allclose(found.error, objective(G, W, found.weights), rtol=1e-4)
    np.testing.assert_array_equal(found.error, trace[-1])


def resolved(gram, weights, mask, ridge=RIDGE):
    """The best values of a support in float64, output by output."""
    gram = np.asarray(gram, np.float64)
    gram = gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    best = np.zeros(weights.shape)
    for j in range(weights.shape[1]):
        kept = np.flatnonzero(np.asarray(mask)[:, j])
        best[kept, j] = np.linalg.solve(gram[np.ix_(kept, kept)], (gram @ weights[:, j])[kept])
    return best


@pytest.mark.parametrize("keep", [4, 30])
def test_the_values_are_the_best_of_their_support(keep):
    found = solve(W, G, keep)
    np.testing.assert_allclose(found.weights, resolved(G, W, found.mask), rtol=2e-3, atol=2e-3)
    assert objective(G, W, found.weights) <= 1.0001 * objective(G, W, resolved(G, W, found.mask))


def test_beside_the_best_of_all_supports():
    """Two weights of sixty in twenty layers: never better than the best of 1,770 supports, and mostly it."""
    rng, ratios = np.random.default_rng(2), []
    for _ in range(20):
        x = rng.normal(size=(30, 5)) @ rng.normal(size=(5, INPUTS)) + 0.2 * rng.normal(size=(30, INPUTS))
        gram, weights = x.T @ x, rng.normal(size=(INPUTS, OUTPUTS))
        full = gram + RIDGE * np.trace(gram) / INPUTS * np.eye(INPUTS)
        pull = full @ weights
        # What a support gains over no weights: b' inv(G_ss) b / 2, of one output or of two by themselves.
        alone, best = pull**2 / np.diag(full)[:, None] / 2, 0.0
        for (i, a), (j, b) in itertools.combinations(itertools.product(range(INPUTS), range(OUTPUTS)), 2):
            gain = alone[i, a] + alone[j, b]
            if a == b:
                pair = [i, j]
                gain = pull[pair, a] @ np.linalg.solve(full[np.ix_(pair, pair)], pull[pair, a]) / 2
            best = max(best, gain)
        least = np.sum(weights * pull) / 2 - best
        ratios.append(float(solve(weights, gram, 2).error) / least)
    assert min(ratios) > 0.9999
    assert max(ratios) < 1.3
    assert np.mean(np.array(ratios) < 1.0001) >= 0.6  # 14 of 20; a search has no guarantee


@pytest.mark.slow
def test_of_one_output_it_is_the_problem_of_chita():
    """The rows of inputs are its gradients, and the objectives are one; neither search is much worse."""
    column = np.zeros_like(W)
    column[:, 0] = W[:, 0]
    rows = jnp.asarray(X)
    ours = solve(column, G, 4)
    chita = jax.jit(functools.partial(sparsity.chita_solve, keep=4, ridge=RIDGE * np.trace(G) / INPUTS / len(X)))
    theirs, wide = chita(rows, jnp.asarray(W[:, 0])), np.zeros_like(W)
    wide[:, 0] = theirs.weights
    np.testing.assert_allclose(objective(G, column, wide), float(theirs.objective), rtol=1e-3)
    assert float(ours.error) <= 1.001 * float(theirs.objective)


def test_all_kept_is_all_as_it_was():
    found = solve(W, G, W.size)
    np.testing.assert_array_equal(found.weights, W)
    assert float(found.error) == 0


def test_what_is_sparse_already_stays():
    sparse = np.where(np.asarray(sparsity.top_k(jnp.asarray(RNG.random(W.shape), jnp.float32), 9)), W, 0)
    np.testing.assert_array_equal(solve(sparse, G, 9).weights, sparse)


def test_ties_go_to_the_lowest_flat_index():
    found = solve(np.ones((INPUTS, OUTPUTS)), np.eye(INPUTS), 13)
    assert np.flatnonzero(np.asarray(found.mask)).tolist() == list(range(13))


@pytest.mark.parametrize("scale", [2.0**40, 2.0**-40])
def test_the_scale_of_the_inputs_does_not_matter(scale):
    for name in ("weights", "mask"):
        np.testing.assert_array_equal(getattr(solve(W, G * scale, 20), name), getattr(solve(W, G, 20), name))


def test_a_matrix_of_low_rank_and_one_of_nothing():
    """The ridge keeps both finite; inputs that are nothing measure nothing, so that weights count by their size."""
    thin = X[:2].T @ X[:2]
    found = solve(W, thin, 12)
    assert np.isfinite(found.weights).all()
    assert np.abs(found.weights).max() < 100
    assert int(found.mask.sum()) == 12
    nothing = solve(W, np.zeros_like(G), 12)
    np.testing.assert_array_equal(nothing.mask, sparsity.top_k(jnp.abs(jnp.asarray(W)), 12))
    np.testing.assert_array_equal(nothing.weights, np.where(nothing.mask, W, 0))


def test_weights_of_an_input_that_is_always_zero_go_first():
    x, weights = X.copy(), W.copy()
    x[:, 3], weights[3] = 0, 5.0
    found = solve(weights, x.T @ x, W.size - OUTPUTS, ridge=1e-9)
    assert not np.asarray(found.mask)[3].any()
    np.testing.assert_array_equal(np.asarray(found.weights)[np.arange(INPUTS) != 3], W[np.arange(INPUTS) != 3])


@pytest.mark.slow
def test_lanes_are_single_solves():
    keeps = jnp.array([5, 20, 40])
    lanes = jax.jit(jax.vmap(lambda k: sparsity.csp_solve(jnp.asarray(W), jnp.asarray(G), k)))(keeps)
    for i, keep in enumerate(keeps):
        np.testing.assert_array_equal(lanes.mask[i], solve(W, G, keep).mask)
        np.testing.assert_allclose(lanes.weights[i], solve(W, G, keep).weights, rtol=1e-3, atol=1e-4)


# --- networks ---

PARAMS = {"bias": jnp.ones((1, OUTPUTS)), "kernel": jnp.asarray(W)}
prunable = lambda path: path == "kernel"
forward = lambda p: jnp.tanh(jnp.asarray(X) @ p["kernel"] + p["bias"])
grams_of = functools.partial(sparsity.input_grams, forward, prunable=prunable)


def test_a_network_and_its_groups():
    params, masks, found = sparsity.csp(PARAMS, grams_of(PARAMS), 0.8, prunable=prunable)
    assert found.kept == {"kernel": 12}
    np.testing.assert_array_equal(params["bias"], PARAMS["bias"])
    assert masks["bias"].shape == ()
    np.testing.assert_array_equal(params["kernel"] != 0, masks["kernel"])
    change = np.sum((X @ (W - np.asarray(params["kernel"]))) ** 2) / np.sum((X @ W) ** 2)
    np.testing.assert_allclose(found.lost["kernel"], change, rtol=1e-3)
    group = jnp.arange(len(X)) % 2
    by_group = grams_of(PARAMS, group=group, num_groups=2)
    both, _, _ = sparsity.csp(PARAMS, by_group, 0.8, prunable=prunable)
    np.testing.assert_allclose(both["kernel"], params["kernel"], rtol=1e-3, atol=1e-4)
    # A group may be heard louder: less of its outputs is lost then.
    lost = []
    for weight in (1.0, 30.0):
        loud = {k: g * jnp.array([1.0, weight])[:, None, None] for k, g in by_group.items()}
        kernel = np.asarray(sparsity.csp(PARAMS, loud, 0.8, prunable=prunable)[0]["kernel"])
        lost.append(np.sum((X[1::2] @ (W - kernel)) ** 2))
    assert lost[1] < lost[0]


def test_in_stages_and_by_layer():
    prune = functools.partial(sparsity.csp, prunable=prunable)
    params, masks, found = sparsity.chita_stages(lambda p, stage: grams_of(p), PARAMS, (0.3, 0.6), prune=prune)
    assert [f.kept["kernel"] for f in found] == [42, 24]
    assert int(masks["kernel"].sum()) == int((params["kernel"] != 0).sum()) == 24
    by_name = sparsity.per_path({"kernel": 0.6})
    named = prune(PARAMS, grams_of(PARAMS), 0.6, distribution=by_name)[1]
    np.testing.assert_array_equal(named["kernel"], prune(PARAMS, grams_of(PARAMS), 0.6)[1]["kernel"])


def test_its_masks_can_be_held_in_training():
    params, masks, _ = sparsity.csp(PARAMS, grams_of(PARAMS), 0.8, prunable=prunable)
    tx = sparsity.prune(optax.sgd(0.1), sparsity.constant(0), prunable=prunable, masks=masks)
    gradient = jax.grad(lambda p: jnp.sum(forward(p) ** 2))(params)
    updates, _ = tx.update(gradient, tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(moved["kernel"] != 0, masks["kernel"])


nan = {"kernel": jnp.full((INPUTS, INPUTS), jnp.nan)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sparsity.csp_solve(jnp.asarray(W), jnp.asarray(G), 0), r"keep must be in \[1, 60\]"),
        (lambda: sparsity.csp_solve(jnp.asarray(W), jnp.asarray(G), 61), r"keep must be in \[1, 60\]"),
        (lambda: sparsity.csp_solve(jnp.asarray(W), jnp.asarray(G), 5, ridge=0.0), "ridge must be above 0"),
        (lambda: sparsity.csp_solve(jnp.asarray(W), jnp.asarray(G), 5, rounds=0), "rounds must be above 0"),
        (lambda: sparsity.csp_solve(jnp.asarray(W), jnp.eye(OUTPUTS), 5), r"give \[n, out\]"),
        (lambda: sparsity.csp_solve(jnp.ones((2, 3, 4)), jnp.eye(2), 5), r"give \[n, out\]"),
        (lambda: sparsity.csp(PARAMS, nan, 0.5, prunable=prunable), "numbers in gram are not finite"),
        (lambda: sparsity.csp(PARAMS, {}, 0.5, prunable=prunable), "grams has no kernel"),
        (lambda: sparsity.csp(PARAMS, grams_of(PARAMS), 1.0, prunable=prunable), "sparsity is the share"),
        (
            lambda: sparsity.csp(PARAMS, {}, 0.5, prunable=lambda path: True, distribution=sparsity.global_),
            "take uniform",
        ),
    ],
)
def test_what_cannot_be_is_one_line(call, words):
    with pytest.raises((ValueError, TypeError), match=words) as raised:
        call()
    assert "\n" not in str(raised.value)


# --- the re-solve by itself ---


def test_a_re_solve_of_any_mask_is_the_best_on_it():
    mask = np.asarray(sparsity.top_k(jnp.abs(jnp.asarray(W)), 20))
    masks = {"bias": jnp.array(True), "kernel": jnp.asarray(mask)}
    found = sparsity.re_solve(PARAMS, grams_of(PARAMS), masks, prunable=prunable)
    np.testing.assert_array_equal(found["bias"], PARAMS["bias"])
    np.testing.assert_array_equal(np.asarray(found["kernel"]) != 0, mask)
    np.testing.assert_allclose(found["kernel"], resolved(G, W, mask), rtol=2e-3, atol=2e-3)
    # All kept is as it was, and csp is never worse than the re-solve of magnitude's support.
    all_kept = {"bias": jnp.array(True), "kernel": jnp.array(True)}
    same = sparsity.re_solve(PARAMS, grams_of(PARAMS), all_kept, prunable=prunable)
    np.testing.assert_array_equal(same["kernel"], W)
    assert float(solve(W, G, 20).error) <= 1.0001 * objective(G, W, found["kernel"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"masks": {"kernel": jnp.array(True)}}, "bias is missing"),
        ({"grams": {}}, "grams has no kernel"),
        ({"ridge": -1.0}, "ridge must be above 0"),
        ({"steps": 0}, "steps must be above 0"),
    ],
)
def test_a_re_solve_that_cannot_be_is_one_line(change, words):
    right = {"grams": {"kernel": jnp.asarray(G)}, "masks": jax.tree.map(lambda p: jnp.array(True), PARAMS)}
    given = right | change
    grams, masks = given.pop("grams"), given.pop("masks")
    with pytest.raises(ValueError, match=words):
        sparsity.re_solve(PARAMS, grams, masks, prunable=prunable, **given)
