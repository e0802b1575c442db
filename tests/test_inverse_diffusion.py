"""Reward-directed diffusion against closed forms, brute force, scikit-learn, and itself with other axes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from jaxfair import train
from jaxfair.inverse import diffusion
from jaxfair.typing import Batch

KEY = jax.random.key(0)
DIM, LATENT = 5, 2


@pytest.fixture(scope="module")
def world():
    """Data x = A z on a plane in five dimensions, a reward along it, and the exact law: (A, theta, law)."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(DIM, LATENT)))
    basis = jnp.asarray(basis, jnp.float32)
    theta = basis @ jnp.array([0.6, 0.8])
    return basis, theta, diffusion.gaussian(jnp.zeros(DIM), basis @ basis.T, theta, noise=0.125)


def score_of(law):
    return jax.jit(lambda x, y, t: diffusion.score(x, law.denoise(x, y, t), t))


# --- the closed form -----------------------------------------------------------------------------------------------


def test_the_hand_case():
    """beta = (.6, .8), nu = .5, a = 2 in the first two axes of three."""
    theta, support = jnp.array([0.6, 0.8, 0.0]), jnp.diag(jnp.array([1.0, 1.0, 0.0]))
    law = diffusion.gaussian(jnp.zeros(3), support, theta, noise=0.5)
    np.testing.assert_allclose(law.mean(2.0), [0.96, 1.28, 0], atol=1e-6)
    np.testing.assert_allclose(law.covariance, [[0.712, -0.384, 0], [-0.384, 0.488, 0], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(theta @ law.mean(2.0), 1.6, atol=1e-6)
    np.testing.assert_allclose(theta @ law.covariance @ theta, 0.2, atol=1e-6)
    found = score_of(law)(jnp.array([[1.0, 0.0, 0.5]]), jnp.array([2.0]), jnp.ones(1))
    np.testing.assert_allclose(found[0], [-0.325035, 0.899953, -0.790988], atol=2e-6)


def test_the_noise_of_pseudo_labels_alone_costs_a_known_part_of_a_target(world):
    _, theta, law = world
    np.testing.assert_allclose(3 - theta @ law.mean(3.0), 3 * 0.125**2 / (1 + 0.125**2), atol=1e-6)
    np.testing.assert_allclose(3 * 0.125**2 / (1 + 0.125**2), 0.046154, atol=1e-6)


def test_the_score_is_the_gradient_of_the_log_density():
    """Of x_t given the label, whose covariance alpha^2 S + h I is inverted here as a whole, in float64."""
    rng = np.random.default_rng(1)
    root, theta, mu = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=4)
    sigma = root @ root.T
    law = diffusion.gaussian(mu, sigma, theta, noise=0.3)
    q, score = theta @ sigma @ theta + 0.09, score_of(law)
    for t, a in ((0.01, 2.0), (0.7, -1.0), (6.0, 0.0)):
        alpha, h = np.exp(-t / 2), 1 - np.exp(-t)
        x = rng.normal(size=(6, 4))
        mean = alpha * (mu + a / q * sigma @ theta)
        given = alpha**2 * (sigma - np.outer(sigma @ theta, sigma @ theta) / q) + h * np.eye(4)
        want = -np.linalg.solve(given, (x - mean).T).T
        found = score(jnp.asarray(x, jnp.float32), np.full(6, a, np.float32), np.full(6, t, np.float32))
        np.testing.assert_allclose(found, want, rtol=2e-4, atol=2e-4 / np.sqrt(h))  # clean / h of float32 numbers


def test_the_exact_denoiser_is_an_encoder_and_a_decoder(world):
    """What lies outside of the subspace changes nothing, and nothing comes out there."""
    basis, _, law = world
    x = jax.random.normal(KEY, (7, DIM))
    inside = (x @ basis) @ basis.T
    y, t = jnp.linspace(-3, 3, 7), jnp.geomspace(1e-3, 8, 7)
    denoise = jax.jit(law.denoise)
    clean = denoise(x, y, t)
    np.testing.assert_allclose(clean, denoise(inside, y, t), atol=1e-5)
    assert float(diffusion.off_support(clean, basis).max()) < 1e-5


def test_the_law_and_its_designs_turn_with_the_axes(world):
    basis, theta, law = world
    turn = jnp.linalg.qr(jax.random.normal(KEY, (DIM, DIM)))[0]
    turned = diffusion.gaussian(jnp.zeros(DIM), turn @ basis @ basis.T @ turn.T, turn @ theta, noise=0.125)
    np.testing.assert_allclose(turned.mean(2.0), turn @ law.mean(2.0), atol=1e-6)
    np.testing.assert_allclose(turned.covariance, turn @ law.covariance @ turn.T, atol=1e-6)
    x, y, t = jax.random.normal(jax.random.key(1), (7, DIM)), jnp.linspace(-3, 3, 7), jnp.geomspace(1e-3, 8, 7)
    found, plain = jax.jit(turned.denoise)(x @ turn.T, y, t), jax.jit(law.denoise)(x, y, t)
    np.testing.assert_allclose(found, plain @ turn.T, atol=1e-4)  # float32 over the smallest h


def test_designs_without_steps_have_the_law(world):
    _, theta, law = world
    x = np.asarray(law.draw(3.0, KEY, 4000), float)
    of_mean = np.sqrt(np.diag(np.asarray(law.covariance)) / 4000)
    assert (abs(x.mean(0) - law.mean(3.0)) < 5 * of_mean + 1e-6).all()
    # A sample variance has a relative standard error of sqrt(2 / N).
    want = float(theta @ law.covariance @ theta)
    assert abs((x @ np.asarray(theta)).var() / want - 1) < 5 * np.sqrt(2 / 4000)


# --- the sampler ---------------------------------------------------------------------------------------------------

DESIGNS, STEPS = 4000, 30


#: An entry for each time that `drawing` was traced; a cache of compiled functions may lose some of many.
TRACED = []


@pytest.fixture(scope="module")
def drawing(world):
    """``draw(target, key) -> Samples`` with the exact denoiser, compiled once for every target."""
    labels = np.asarray(jax.random.normal(KEY, (1000,)))

    @jax.jit
    def draw(target, key):
        TRACED.append(key)
        return diffusion.sample(world[2].denoise, target, key, labels=labels, num=DESIGNS, dim=DIM, steps=STEPS)

    return draw


def recursion(law, target, steps=STEPS):
    """Mean and covariance of the sampler's designs, step by step in float64: every step is linear."""
    times = np.geomspace(1e-3, 8, steps)[::-1]
    values, axes = np.linalg.eigh(np.asarray(law.covariance, float))
    values, m = np.maximum(values, 0), np.asarray(law.mean(target), float)

    def clean(t):
        """x0 = C x + c."""
        alpha, h = np.exp(-t / 2), -np.expm1(-t)
        C = axes @ np.diag(alpha * values / (alpha**2 * values + h)) @ axes.T
        return C, m - alpha * C @ m

    mean, covariance = np.zeros(DIM), np.eye(DIM)
    for t, s in itertools.pairwise(times):
        a, h_t, h_s = np.exp((s - t) / 2), -np.expm1(-t), -np.expm1(-s)
        gained, (C, c) = 1 - a**2, clean(t)
        A = (a * h_s * np.eye(DIM) + np.exp(-s / 2) * gained * C) / h_t
        mean = A @ mean + np.exp(-s / 2) * gained / h_t * c
        covariance = A @ covariance @ A.T + gained * h_s / h_t * np.eye(DIM)
    C, c = clean(times[-1])
    return C @ mean + c, C @ covariance @ C.T


def test_designs_of_the_exact_score_have_the_reward_and_stay_on_the_support(world, drawing):
    basis, theta, law = world
    x = np.asarray(drawing(3.0, KEY).x, float)
    mean, covariance = recursion(law, 3.0)
    reward, variance = x @ np.asarray(theta, float), float(theta @ covariance @ theta)
    assert abs(reward.mean() - theta @ mean) < 5 * np.sqrt(variance / DESIGNS)
    assert abs(reward.var() / variance - 1) < 5 * np.sqrt(2 / DESIGNS)
    # The mean is that of the law. Of the spread some is lost: a step knows no spread of the clean x.
    np.testing.assert_allclose(theta @ mean, 2.953846, atol=1e-3)
    for steps, kept in ((100, 0.89), (200, 0.91)):
        assert kept < 65 * (theta @ recursion(law, 3.0, steps)[1] @ theta) < 1
    across = np.asarray(basis @ jnp.array([0.8, -0.6]), float)  # where the label says nothing
    np.testing.assert_allclose(across @ recursion(law, 3.0, 100)[1] @ across, 0.9425, atol=1e-4)
    assert float(diffusion.off_support(jnp.asarray(x, jnp.float32), basis).max()) < 1e-5


def test_raw_samples_would_carry_noise_off_the_support():
    """(D - d) h(t0), that the last step takes away."""
    h = diffusion.levels(jnp.array([0.01, 0.001]))[1]
    np.testing.assert_allclose(48 * h, [0.4776, 0.0480], atol=5e-5)


def test_one_key_gives_one_set_of_designs_and_targets_are_lanes(drawing):
    one = drawing(2.0, KEY).x
    before = len(TRACED)
    again, other = (drawing(2.0, key).x for key in (KEY, jax.random.key(1)))
    drawing(-1.0, KEY)
    assert len(TRACED) == before  # a target is data
    assert (one == again).all()
    assert not jnp.allclose(one, other)
    targets = jnp.array([-1.0, 2.0])
    found = jax.vmap(drawing, in_axes=(0, None))(targets, KEY)
    for i, target in enumerate(targets):
        alone = drawing(target, KEY)
        np.testing.assert_allclose(found.x[i], alone.x, atol=2e-5)  # sums in another order, over all steps
        np.testing.assert_allclose(found.extrapolation[i], alone.extrapolation, rtol=1e-6)


@pytest.mark.slow
def test_each_design_may_have_a_target_of_its_own(world):
    """Labels as they are drawn give plain samples."""
    _, theta, law = world
    labels = diffusion.pseudo_labels(jax.random.normal(KEY, (DESIGNS,)), jax.random.key(3), noise=0.125)
    draw = functools.partial(diffusion.sample, law.denoise, labels=labels, num=DESIGNS, dim=DIM, steps=30)
    found = draw(labels, KEY)
    reward = np.asarray(found.x @ theta)
    assert abs(reward.mean()) < 5 / np.sqrt(DESIGNS)
    assert np.corrcoef(reward, labels)[0, 1] > 0.97  # 1 / sqrt(1 + nu^2) = .992 with exact steps
    np.testing.assert_allclose(found.extrapolation, (labels - labels.mean()) / labels.std(), atol=1e-5)


@pytest.mark.slow
def test_labels_that_say_nothing_give_the_law_of_the_data(world):
    """A reward of 0: whatever is asked for, the designs are as the data are."""
    basis, _, _ = world
    law = diffusion.gaussian(jnp.ones(DIM), basis @ basis.T, jnp.zeros(DIM), noise=1.0)
    found = diffusion.sample(law.denoise, 7.0, KEY, labels=np.arange(3.0), num=DESIGNS, dim=DIM, steps=50).x
    np.testing.assert_allclose(law.mean(7.0), np.ones(DIM))
    np.testing.assert_allclose(law.covariance, basis @ basis.T, atol=1e-6)
    mean, covariance = recursion(law, 7.0, steps=50)
    code, inside = np.asarray(found @ basis, float), np.asarray(basis, float)
    want = inside.T @ covariance @ inside
    assert (abs(code.mean(0) - mean @ inside) < 5 * np.sqrt(np.diag(want) / DESIGNS)).all()
    assert (abs(np.cov(code.T) - want) < 5 * np.sqrt(2 / DESIGNS)).all()


# --- rewards -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few():
    """Twelve examples in five dimensions with values and weights."""
    rng = np.random.default_rng(2)
    return rng.normal(size=(12, DIM)), rng.normal(size=12), rng.uniform(0.5, 2, size=12)


def test_ridge_is_scikit_learns(few):
    x, y, weight = few
    want = Ridge(alpha=0.7, fit_intercept=False).fit(x, y, sample_weight=weight).coef_
    np.testing.assert_allclose(diffusion.reward_from_values(x, y, strength=0.7, weight=weight), want, rtol=1e-4)


def test_preferences_are_scikit_learns_logistic_regression(few):
    x, _, weight = few
    other, strength = np.roll(x, 1, axis=0), 0.4
    difference = x - other
    # It wants two classes: each pair in both directions, at half of the weight.
    both, first = np.concatenate([difference, -difference]), np.repeat([1, 0], 12)
    peer = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-10, max_iter=1000)
    want = peer.fit(both, first, sample_weight=np.tile(weight / 2, 2)).coef_[0]
    found = diffusion.reward_from_preferences(x, other, strength=strength, weight=weight)
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-5)
    # A share of preferences is the pair in both directions, each as often.
    share = np.linspace(0, 1, 12)
    found = diffusion.reward_from_preferences(x, other, share=share, strength=strength)
    wide, again = np.concatenate([x, other]), np.concatenate([other, x])
    same = diffusion.reward_from_preferences(wide, again, strength=strength, weight=np.concatenate([share, 1 - share]))
    np.testing.assert_allclose(found, same, rtol=1e-3, atol=1e-5)


LEARN = {
    "values": lambda x, y, **options: diffusion.reward_from_values(x, y, **options),
    "preferences": lambda x, y, **options: diffusion.reward_from_preferences(x, jnp.roll(x, 1, axis=0), **options),
}


@pytest.mark.parametrize("source", LEARN)
def test_a_reward_turns_with_the_axes_and_does_not_see_padding(source, few):
    x, y, weight = few
    learn = LEARN[source]
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(DIM, DIM)))
    theta = learn(x, y, weight=weight)
    np.testing.assert_allclose(learn(x @ turn.T, y, weight=weight), turn @ np.asarray(theta), rtol=1e-3, atol=1e-5)
    if source == "values":  # a roll would take the padding in
        padded = np.concatenate([x, np.full((3, DIM), np.nan)]), np.concatenate([y, np.full(3, np.inf)])
        again = learn(*padded, weight=np.concatenate([weight, np.zeros(3)]))
        np.testing.assert_allclose(again, theta, rtol=1e-5)
    strengths = jnp.array([0.1, 1.0, 10.0])
    lanes = jax.vmap(lambda s: learn(jnp.asarray(x), jnp.asarray(y), strength=s))(strengths)
    for strength, lane in zip(strengths, lanes, strict=True):
        np.testing.assert_allclose(lane, learn(x, y, strength=strength), rtol=1e-3, atol=1e-5)
    assert np.linalg.norm(lanes[0]) > np.linalg.norm(lanes[2])


def test_pairs_that_can_be_put_in_order_end_at_the_penalty():
    """Their likelihood has no maximum; the gradient with the penalty is 0 at the end all the same."""
    x, strength = jnp.array([[1.0, 0.0], [2.0, 1.0], [3.0, -1.0]]), 1e-4
    theta = diffusion.reward_from_preferences(x, jnp.zeros_like(x), strength=strength, steps=30)
    gradient = -x.T @ jax.nn.sigmoid(-x @ theta) + strength * theta
    assert np.abs(gradient).max() < 1e-5
    assert float(theta[0]) > 2


@pytest.mark.slow
def test_rewards_from_few_labels_point_where_they_were_measured_to_point():
    """Cosines with the true reward at 64, 256 and 1,024 labels with noise 1, and pairs: means over 20 draws elsewhere.

    D = 64, d = 16. The bound is five standard errors of two means of 20, and the last digit of what was written down.
    """
    want = {"values": (0.856, 0.967, 0.993), "preferences": (0.745, 0.921, 0.980)}
    weights = jnp.asarray((np.arange(1024)[None] < np.array([[64], [256], [1024]])).astype(np.float32))

    @jax.jit
    def cosines(key):
        keys = jax.random.split(key, 6)
        basis = jnp.linalg.qr(jax.random.normal(keys[0], (64, 16)))[0]
        beta = jax.random.normal(keys[1], (16,))
        theta = basis @ (beta / jnp.linalg.norm(beta))
        x, other = ((jax.random.normal(k, (1024, 16)) @ basis.T) for k in keys[2:4])
        y = x @ theta + jax.random.normal(keys[4], (1024,))
        first = jax.random.bernoulli(keys[5], jax.nn.sigmoid((x - other) @ theta))[:, None]
        u, v = jnp.where(first, x, other), jnp.where(first, other, x)
        found = [jax.vmap(lambda w: diffusion.reward_from_values(x, y, weight=w))(weights)]
        found += [jax.vmap(lambda w: diffusion.reward_from_preferences(u, v, weight=w, strength=1e-2))(weights)]
        return [f @ theta / jnp.linalg.norm(f, axis=1) for f in found]

    found = jax.lax.map(cosines, jax.random.split(KEY, 20))
    for cosine, published in zip(found, want.values(), strict=True):
        error = np.asarray(cosine).std(0, ddof=1) * np.sqrt(2 / 20)
        assert (abs(np.asarray(cosine).mean(0) - published) < 5 * error + 5e-4).all()


# --- the loss and the networks -------------------------------------------------------------------------------------


def test_the_loss_is_least_at_the_exact_denoiser(world):
    """Its derivative by any linear disturbance is 0 there but for noise, and disturbances raise it."""
    basis, theta, law = world
    nothing, keys = jnp.zeros((DIM + 1, DIM)), jax.random.split(jax.random.key(2), 20)

    def apply(change, x, y, t):
        return law.denoise(x, y, t) + jnp.concatenate([x, y[:, None]], axis=1) @ change

    @jax.jit
    def around(key):
        fresh = jax.random.normal(key, (2000, LATENT)) @ basis.T
        labels = fresh @ theta + 0.125 * jax.random.normal(jax.random.fold_in(key, 1), (2000,))
        loss = functools.partial(diffusion.denoising_loss, apply, x=fresh, y=labels, key=jax.random.fold_in(key, 2))
        changes = 0.1 * jax.random.normal(KEY, (3, *nothing.shape))
        return jax.grad(loss)(nothing), jax.vmap(loss)(changes) - loss(nothing)

    slopes, rises = (np.asarray(a, float) for a in jax.lax.map(around, keys))
    error = slopes.std(0, ddof=1) / np.sqrt(len(keys))
    assert (abs(slopes.mean(0)) < 5 * error).all()
    assert (rises.mean(0) > 5 * rises.std(0, ddof=1) / np.sqrt(len(keys))).all()


def test_the_loss_does_not_see_padding_and_nobody_has_none(world):
    basis, _, law = world
    x = jax.random.normal(KEY, (6, LATENT)) @ basis.T
    y, weight = jnp.arange(6.0), jnp.array([1.0, 2.0, 0.0, 1.0, 0.0, 1.0])

    @jax.jit
    def loss(x, y, weight, scale=1.0):
        return diffusion.denoising_loss(lambda s, *a: s * law.denoise(*a), scale, x, y, KEY, weight=weight)

    damaged = jnp.where(weight[:, None] > 0, x, jnp.nan), jnp.where(weight > 0, y, jnp.inf)
    assert float(loss(x, y, weight)) == float(loss(*damaged, weight)) > 0
    assert float(loss(x, y, jnp.zeros(6))) == 0.0
    assert np.isfinite(jax.grad(loss, argnums=3)(*damaged, weight, 1.0))


def test_networks_begin_with_the_skip(world):
    """It is exact for a standard Gaussian; that of the encoder and decoder lies in its subspace."""
    x, y, t = jax.random.normal(KEY, (3, DIM)), jnp.zeros(3), jnp.array([0.01, 1.0, 5.0])
    net = diffusion.plain(DIM, hidden=(4,))
    begin = jax.jit(lambda key: net.apply(net.init(key), x, y, t))
    standard = diffusion.gaussian(jnp.zeros(DIM), jnp.eye(DIM), jnp.zeros(DIM), noise=1.0)
    np.testing.assert_allclose(begin(KEY), jax.jit(standard.denoise)(x, y, t), atol=1e-5)
    net = diffusion.encoder_decoder(DIM, LATENT, hidden=(4,))
    params = jax.jit(net.init)(KEY)
    np.testing.assert_allclose(params["basis"].T @ params["basis"], np.eye(LATENT), atol=1e-6)
    params["layers"]["Dense_1"]["kernel"] += 1.0  # a network that says something
    clean = jax.jit(net.apply)(params, x, y, t)
    assert float(diffusion.off_support(clean, params["basis"]).max()) < 1e-5
    assert float(jnp.abs(clean).max()) > 0.1


@pytest.mark.slow
def test_a_trained_network_finds_subspace_and_reward(world):
    """Two lanes from one start: labels that say the reward, and labels that say nothing."""
    basis, theta, law = world
    x = jax.random.normal(KEY, (4000, LATENT)) @ basis.T
    labels = diffusion.pseudo_labels(x @ theta, jax.random.key(1), noise=0.125)
    both = jnp.stack([labels, jax.random.permutation(jax.random.key(2), labels)])
    net = diffusion.encoder_decoder(DIM, LATENT, hidden=(64, 64))
    tx = optax.adam(optax.cosine_decay_schedule(5e-3, 800))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=0)
    def lane(labels):
        params, loss = diffusion.fit(net, x, labels, KEY, tx=tx, steps=800)
        denoise = functools.partial(net.apply, params)
        designs = diffusion.sample(denoise, 2.0, KEY, labels=labels, num=500, dim=DIM, steps=50).x
        return loss, designs, diffusion.subspace_distance(params["basis"], basis)

    loss, designs, distance = lane(both)
    told, untold = np.asarray((designs @ theta).mean(1))
    assert abs(told - float(theta @ law.mean(2.0))) < 0.15
    assert abs(untold) < 0.3
    assert (np.asarray(distance) < 0.01).all()
    assert (loss[:, -50:].mean(1) < loss[:, :50].mean(1)).all()


@pytest.mark.slow
def test_the_trainer_of_the_library_trains_it():
    """Two lanes, each with labels of its own."""
    x = jax.random.normal(KEY, (64, 2))
    labels, nobody = jnp.stack([x[:, 0], x[:, 1]]), jnp.zeros(64, jnp.int32)
    net = diffusion.plain(2, hidden=(8,))
    solver = diffusion.solver(net.apply, optax.adam(0.01))
    keys = jax.random.split(KEY, 2)
    start = jax.vmap(lambda key: solver.init(net.init(key)))(keys)
    rows = []
    state = train.fit(
        solver, start, Batch(x, labels, nobody, jnp.arange(64), jnp.ones(64)), keys=keys, epochs=20, num_steps=10,
        batch_size=32, split_axes=Batch(None, 0, None, None, None), show=lambda done, total, new: rows.extend(new),
    )  # fmt: skip
    assert state.solver.step.tolist() == [200, 200]
    losses = {lane: [row["loss"] for row in rows if row["lane"] == lane] for lane in (0, 1)}
    assert all(np.mean(loss[-5:]) < np.mean(loss[:5]) for loss in losses.values())


# --- fidelity ------------------------------------------------------------------------------------------------------


def test_distances_of_subspaces_are_those_of_projections():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(6, 2)), rng.normal(size=(6, 3))

    def projection(basis):
        return basis @ np.linalg.solve(basis.T @ basis, basis.T)

    want = np.sum((projection(a) - projection(b)) ** 2)
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    distance = jax.jit(diffusion.subspace_distance)
    np.testing.assert_allclose(distance(a, b), want, rtol=1e-5)
    np.testing.assert_allclose(distance(b, a), want, rtol=1e-5)
    assert float(distance(a, a @ np.array([[2, 1], [0, 3]], np.float32))) < 1e-10
    x = rng.normal(size=(4, 6))
    want = np.linalg.norm(x - x @ projection(np.asarray(a, float)), axis=1)
    np.testing.assert_allclose(jax.jit(diffusion.off_support)(jnp.asarray(x, jnp.float32), a), want, rtol=1e-5)


# --- bad input -----------------------------------------------------------------------------------------------------

TWO, NET = np.eye(2, dtype=np.float32), diffusion.plain(2, hidden=(2,))
ASK = functools.partial(diffusion.sample, lambda x, y, t: x, key=KEY, labels=np.arange(3.0), num=4, dim=2)
FIT = functools.partial(diffusion.fit, NET, key=KEY, tx=optax.sgd(0.1))
BAD = {
    "no label": (
        lambda: diffusion.reward_from_values(TWO[:0], np.array([])),
        "x of shape (0, 2): give [N, D] with at least one",
    ),
    "another number of labels": (
        lambda: diffusion.reward_from_values(TWO, np.array([1.0])),
        "y of shape (1,): give as many",
    ),
    "a label of nan": (
        lambda: diffusion.reward_from_values(TWO, np.array([0.0, np.nan])),
        "y[1] is nan: give finite numbers",
    ),
    "an example of inf": (
        lambda: diffusion.reward_from_values(TWO / 0.0, np.array([0, 1])),
        "x[0, 0] is inf: give finite",
    ),
    "no ridge": (
        lambda: diffusion.reward_from_values(TWO, np.array([0, 1]), strength=0.0),
        "strength=0.0: give a finite number",
    ),
    "one side of a pair": (lambda: diffusion.reward_from_preferences(TWO, TWO[0]), "both sides of each pair"),
    "a share of 2": (
        lambda: diffusion.reward_from_preferences(TWO, TWO, share=np.array([1, 2])),
        "share[1] is 2: give shares in",
    ),
    "no step": (lambda: diffusion.reward_from_preferences(TWO, TWO, steps=0), "steps=0: give a whole number of at"),
    "no noise": (
        lambda: diffusion.pseudo_labels(np.ones(1), KEY, noise=0.0),
        "noise=0.0: give a finite number above 0",
    ),
    "no value": (lambda: diffusion.pseudo_labels(np.ones(0), KEY, noise=1.0), "values of shape (0,): give [N]"),
    "a value of nan": (lambda: diffusion.pseudo_labels(np.array([np.nan]), KEY, noise=1.0), "values[0] is nan"),
    "a target of inf": (lambda: ASK(target=np.inf), "target is inf: give finite numbers"),
    "two targets of four": (lambda: ASK(target=np.ones(2)), "target of shape (2,): give one number, or 4"),
    "times out of order": (lambda: ASK(target=1.0, first=9.0), "first=9.0, last=8.0: give a first time below"),
    "no design": (lambda: ASK(target=1.0, num=0), "num=0: give a whole number of at least 1"),
    "one step": (lambda: ASK(target=1.0, steps=1), "steps=1: give a whole number of at least 2"),
    "a denoiser of one number": (
        lambda: diffusion.sample(lambda x, y, t: y, 1.0, KEY, labels=np.arange(3.0), num=4, dim=2),
        "denoise= gave shape (4,) of (4, 2)",
    ),
    "a cap of 0": (lambda: diffusion.solver(NET.apply, optax.sgd(0.1), cap=0), "cap=0: give a finite number above 0"),
    "no example": (lambda: FIT(TWO[:0], np.array([]), steps=1), "x of shape (0, 2)"),
    "a pseudo-label of nan": (lambda: FIT(TWO, np.array([np.nan, 0]), steps=1), "labels[0] is nan"),
    "too many latents": (lambda: diffusion.encoder_decoder(2, 3), "latent=3: give at most as many as there are dim"),
    "a layer of nobody": (lambda: diffusion.plain(2, hidden=(0,)), "hidden=0: give a whole number of at least 1"),
    "a covariance of another size": (
        lambda: diffusion.gaussian(np.zeros(2), np.eye(3), np.zeros(2), noise=1.0),
        "center of shape (2,), covariance (3, 3), theta (2,): give [D], [D, D] and [D].",
    ),
    "a reward of nan": (
        lambda: diffusion.gaussian(np.zeros(1), np.eye(1), np.array([np.nan]), noise=1.0),
        "theta[0] is nan",
    ),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_cannot_be_is_one_line(what):
    call, words = BAD[what]
    with pytest.raises(ValueError) as raised:  # noqa: PT011  the words are looked at below
        call()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_target_beyond_what_was_seen_is_data():
    """It is drawn, and the result says how far it is."""
    assert float(ASK(target=101.0).extrapolation) == pytest.approx(100 / np.arange(3.0).std(), rel=1e-5)
