"""What each method of several evaluations promises: bounds, unbiased estimates, special cases, counts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import optim

RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def bilinear(dim=10, top=1.0, bottom=0.02):
    """B with singular values in ``[bottom, top]``; the saddle is 0 and L is `top`."""
    u, _, v = np.linalg.svd(RNG.normal(size=(dim, dim)))
    return u @ np.diag(np.linspace(bottom, top, dim)) @ v


MATRIX = bilinear()
START = {"x": RNG.normal(size=10), "y": RNG.normal(size=10)}


def field_of(matrix):
    return lambda w: {"x": matrix @ w["y"], "y": -matrix.T @ w["x"]}


def flat(w):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(w)], axis=None)


def play(tx, field, start, steps, **oracles):
    """-> the parameters before each step, leaves ``[steps + 1, ...]``, and the final state."""
    start = jax.tree.map(lambda w: jnp.asarray(w, jnp.float64), start)

    def step(carry, _):
        params, state = carry
        g = field(params)
        extra = {"operator_fn": field, "independent_operator_fn": field, "mean_operator_fn": field}
        updates, state = tx.update(g, state, params, field=g, **(extra | oracles))
        return (optax.apply_updates(params, updates), state), params

    def run(start):
        (last, state), path = lax.scan(step, (start, tx.init(start)), None, steps)
        return jax.tree.map(lambda p, w: jnp.concatenate([p, w[None]]), path, last), state

    return jax.jit(run)(start)


def squared_field(path, field):
    return np.asarray(jax.vmap(lambda w: optax.tree.norm(field(w), squared=True))(path))


# --- Anchored methods stay within their bounds, at every step. ---


def test_constant_anchored_extragradient_within_260():
    field = field_of(MATRIX)
    path, state = play(optim.anchored_extragradient(1 / 8), field, START, 1000)
    distance = np.sum(flat(START) ** 2)
    k = np.arange(1001)
    constants = squared_field(path, field) * (k + 1) ** 2 / distance
    assert 1 < constants.max() <= 260
    assert state.oracle_calls == 2000
    assert state.rate == 0


def test_varying_anchored_extragradient_within_27():
    field = field_of(MATRIX)
    path, state = play(optim.anchored_extragradient(0.618, lipschitz=1.0), field, START, 1000)
    k = np.arange(1001)
    constants = squared_field(path, field) * (k + 1) * (k + 2) / np.sum(flat(START) ** 2)
    assert 1 < constants.max() <= 27

    a = 0.618
    for k in range(1000):
        a = a * (1 - a**2 / ((k + 1) * (k + 3) * (1 - a**2)))
    np.testing.assert_allclose(state.rate, a, rtol=1e-12)
    assert 0.4 < a < 0.618


@pytest.mark.parametrize("comonotonicity", [0.0, -0.2])
def test_fast_extragradient_within_4(comonotonicity):
    field = field_of(MATRIX)
    if comonotonicity:
        # An eigenvalue 1 / (rho - i / s) has Re lambda = rho |lambda|^2: the game is rho-comonotone, not monotone.
        s = 0.9
        lam = 1 / (comonotonicity - 1j / s)
        field = lambda w: {
            "x": lam.real * w["x"] + lam.imag * w["y"],
            "y": lam.real * w["y"] - lam.imag * w["x"],
        }
        assert lam.real < 0
        assert abs(lam) <= 1  # so L = 1 holds
    tx = optim.fast_extragradient(1.0, comonotonicity=comonotonicity)
    path, _ = play(tx, field, START, 1000)
    k = np.arange(1, 1001)
    distance = np.sum(flat(START) ** 2)
    constants = squared_field(path, field)[1:] * k**2 * (1 + 2 * comonotonicity) ** 2 / distance
    assert 0.1 < constants.max() <= 4


def test_halpern_within_2():
    """T is the reflected resolvent of the bilinear field: nonexpansive, and plain iteration turns forever."""
    matrix = np.block([[np.zeros((10, 10)), MATRIX], [-MATRIX.T, np.zeros((10, 10))]])
    reflected = 2 * np.linalg.inv(np.eye(20) + matrix) - np.eye(20)
    field = lambda w: w - reflected @ w
    start = flat(START)
    path, _ = play(optim.halpern(1.0), field, start, 1000)
    residual = np.sqrt(squared_field(path, field))
    k = np.arange(1001)
    constants = residual * (k + 1) / np.linalg.norm(start)
    assert 1 < constants.max() <= 2
    plain, _ = play(optax.with_extra_args_support(optax.sgd(1.0)), field, start, 1000)
    assert np.sqrt(squared_field(plain, field))[-1] > 0.9 * np.sqrt(squared_field(plain, field))[0]


# --- Estimates are unbiased: averaged over every sample, they are the exact thing. ---

N = 4
SAMPLES_A = RNG.normal(size=(N, 20, 20))
SAMPLES_B = RNG.normal(size=(N, 20))


def sample_field(i):
    """A nonlinear field of minibatch i, on the joint tree."""

    def field(w):
        v = jnp.concatenate([w["x"], w["y"]])
        out = jnp.asarray(SAMPLES_A)[i] @ jnp.tanh(v) + jnp.asarray(SAMPLES_B)[i]
        return {"x": out[:10], "y": out[10:]}

    return field


def mean_field(w):
    fields = [sample_field(i)(w) for i in range(N)]
    return jax.tree.map(lambda *f: sum(f) / N, *fields)


def update_on(tx, state, i, j):
    params = jax.tree.map(jnp.asarray, START)
    g = sample_field(i)(params)
    update, _ = tx.update(
        g, state, params, operator_fn=sample_field(i), independent_operator_fn=sample_field(j),
        mean_operator_fn=mean_field, field=g,
    )  # fmt: skip
    return update


def mean_of_updates(tx, pairs, state=None):
    pairs = list(pairs)
    state = tx.init(jax.tree.map(jnp.asarray, START)) if state is None else state
    i, j = jnp.asarray(pairs).T
    out = jax.jit(jax.vmap(lambda i, j: update_on(tx, state, i, j)))(i, j)
    return flat(jax.tree.map(lambda u: u.mean(0), out))


ALL = list(itertools.product(range(N), repeat=2))
DIAGONAL = [(i, i) for i in range(N)]


def exact(fn):
    return flat(fn(jax.tree.map(jnp.asarray, START)))


def hamiltonian_gradient(w):
    return jax.grad(lambda w: optax.tree.norm(mean_field(w), squared=True) / 2)(w)


def test_hamiltonian_is_unbiased_from_two_independent_minibatches():
    expected = -exact(hamiltonian_gradient)
    np.testing.assert_allclose(mean_of_updates(optim.hamiltonian(1.0), ALL), expected, rtol=1e-10)
    same = mean_of_updates(optim.hamiltonian(1.0, samples="same"), DIAGONAL)
    assert np.abs(same - expected).max() > 0.1  # one minibatch for both factors is not
    of_means = jax.grad(lambda w: sum(optax.tree.norm(sample_field(i)(w), squared=True) for i in range(N)) / (2 * N))
    np.testing.assert_allclose(same, -exact(of_means), rtol=1e-10)


def test_consensus_is_unbiased_from_two_independent_minibatches():
    tx = optim.consensus(1.0, 0.3, samples="independent")
    expected = -exact(mean_field) - 0.3 * exact(hamiltonian_gradient)
    np.testing.assert_allclose(mean_of_updates(tx, ALL), expected, rtol=1e-10)


def test_adjustment_is_unbiased_from_two_independent_minibatches():
    w = jax.tree.map(jnp.asarray, START)
    jacobian = jax.jacobian(lambda v: flat_field(v))(jnp.concatenate([w["x"], w["y"]]))
    turn = (jacobian - jacobian.T) / 2
    expected = -(exact(mean_field) + 0.5 * turn.T @ exact(mean_field))
    tx = optim.symplectic_adjustment(1.0, 0.5, align=False, samples="independent")
    np.testing.assert_allclose(mean_of_updates(tx, ALL), expected, rtol=1e-9)


def flat_field(v):
    out = mean_field({"x": v[:10], "y": v[10:]})
    return jnp.concatenate([out["x"], out["y"]])


def svrg(**options):
    options = {"key": jax.random.key(0), "snapshot_probability": 0.0} | options
    return optim.svrg_extragradient(1.0, 0.0, **options)


def with_snapshot(tx, w):
    state = tx.init(jax.tree.map(jnp.asarray, START))
    w = jax.tree.map(jnp.asarray, w)
    return state._replace(count=state.count + 1, snapshot=w, mean_field=mean_field(w))


OLD = jax.tree.map(lambda w: w + RNG.normal(size=w.shape), START)


@pytest.mark.parametrize("samples", ["same", "independent"])
def test_svrg_direction_is_unbiased(samples):
    """With no extrapolation the update is the second direction at w, from any old snapshot."""
    tx = svrg(samples=samples)
    state = with_snapshot(tx, OLD)
    pairs = ALL if samples == "independent" else DIAGONAL
    np.testing.assert_allclose(mean_of_updates(tx, pairs, state), -exact(mean_field), rtol=1e-10)
    one = flat(update_on(tx, state, 0, 1 if samples == "independent" else 0))
    assert np.abs(one + exact(mean_field)).max() > 0.1  # a single one is not exact


def test_svrg_at_its_snapshot_is_the_extragradient():
    tx = optim.svrg_extragradient(0.2, 0.3, key=jax.random.key(1), snapshot_probability=1.0, samples="same")
    start = jax.tree.map(jnp.asarray, START)
    step = update_on(tx, tx.init(start), 2, 2)
    half = jax.tree.map(lambda w, f: w - 0.3 * f, start, mean_field(start))
    correction = jax.tree.map(
        lambda a, b, c: -0.2 * (a - b + c),
        sample_field(2)(half), sample_field(2)(start), mean_field(start),
    )  # fmt: skip
    np.testing.assert_allclose(flat(step), flat(correction), rtol=1e-12)


def sampled_play(make, matrices, offsets, start, steps, key):
    """On a bilinear finite sum, one uniform sample per evaluation. -> distance at the end, the state."""
    matrices, offsets = jnp.asarray(matrices), jnp.asarray(offsets)
    saddle = np.linalg.solve(np.asarray(matrices.mean(0)), -np.asarray(offsets.mean(0)))

    def on(i):
        a, c = matrices[i], offsets[i]
        return lambda w: {"x": a @ w["y"] + c, "y": -(a.T @ w["x"])}

    mean = lambda w: {
        "x": matrices.mean(0) @ w["y"] + offsets.mean(0), "y": -(matrices.mean(0).T @ w["x"]),
    }  # fmt: skip

    def run(key):
        tx = make(key)
        params = jax.tree.map(jnp.asarray, start)

        def step(carry, key):
            params, state = carry
            i, j = jax.random.randint(key, (2,), 0, len(matrices))
            g = on(i)(params)
            updates, state = tx.update(
                g, state, params, operator_fn=on(i), independent_operator_fn=on(j),
                mean_operator_fn=mean, field=g,
            )  # fmt: skip
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(key, steps)
        (params, state), _ = lax.scan(step, (params, tx.init(params)), keys)
        error = optax.tree.norm({"x": params["x"], "y": params["y"] - saddle})
        return error, state

    return jax.jit(run)(key)


def test_svrg_reaches_the_saddle_where_the_extragradient_circles_in_noise():
    """And the restarted average makes it faster on a bilinear game; its evaluations are counted."""
    matrices = np.eye(3) + 0.3 * RNG.normal(size=(5, 3, 3))
    offsets = RNG.normal(size=(5, 3))
    start = {"x": np.ones(3), "y": np.zeros(3)}
    key = jax.random.key(5)
    args = (matrices, offsets, start, 2000, key)
    noisy, _ = sampled_play(lambda key: optim.extragradient(0.1, samples="independent"), *args)
    options = {"snapshot_probability": 0.2, "mean_cost": 5}
    reduced, state = sampled_play(lambda key: optim.svrg_extragradient(0.1, key=key, **options), *args)
    restarted, with_mean = sampled_play(
        lambda key: optim.svrg_extragradient(0.1, key=key, restart_probability=0.1, **options),
        *args,
    )
    assert noisy > 0.05
    assert reduced < 0.02
    assert restarted < 1e-9
    snapshots = (state.oracle_calls - 4 * 2000) / 5  # Binomial(2000, 0.2): sd 18
    assert 320 < snapshots < 480
    assert isinstance(state.mean_params, optax.EmptyState)
    assert 0 <= with_mean.since_restart < 2000


def test_svrg_restarts_at_the_mean_of_its_iterates():
    tx = optim.svrg_extragradient(0.3, key=jax.random.key(2), snapshot_probability=1.0, restart_probability=1.0)
    field = field_of(MATRIX)
    params = jax.tree.map(jnp.asarray, START)
    state = tx.init(params)
    seen = []
    for _ in range(3):
        seen.append(params)
        g = field(params)
        kw = dict.fromkeys(("operator_fn", "independent_operator_fn", "mean_operator_fn"), field)
        updates, state = tx.update(g, state, params, field=g, **kw)
        params = optax.apply_updates(params, updates)
    # Not at the first step; at the second, from the mean of both; at the third, from the third alone.
    middle = jax.tree.map(lambda a, b: (a + b) / 2, *seen[:2])
    extra = optim.extragradient(0.3)
    for point, after in ((seen[0], seen[1]), (middle, seen[2]), (seen[2], params)):
        step, _ = extra.update(field(point), extra.init(point), point, operator_fn=field)
        np.testing.assert_allclose(flat(optax.apply_updates(point, step)), flat(after), rtol=1e-9)


# --- Special cases are equal, along whole trajectories. ---


def assert_same_path(a, b, steps=60, field=None, **tolerance):
    field = field_of(MATRIX) if field is None else field
    first, _ = play(a, field, START, steps)
    second, _ = play(b, field, START, steps)
    np.testing.assert_allclose(flat(first), flat(second), **({"atol": 1e-11} | tolerance))
    assert np.abs(flat(first)).max() > 0.1


def implicit_step(eta):
    """The proximal point method by a dense solve: w+ = (I + eta J)^{-1} w."""
    zero = np.zeros_like(MATRIX)
    jacobian = np.block([[zero, MATRIX], [-MATRIX.T, zero]])
    inverse = np.linalg.inv(np.eye(len(jacobian)) + eta * jacobian)

    def update(g, state, params=None):
        new = jnp.asarray(inverse) @ jnp.concatenate([params["x"], params["y"]])
        return {"x": new[:10] - params["x"], "y": new[10:] - params["y"]}, state

    return optax.with_extra_args_support(optax.GradientTransformation(lambda _: optax.EmptyState(), update))


@pytest.mark.parametrize("eta", [0.5, 5.0])
def test_competitive_gradient_on_a_bilinear_game_is_the_proximal_point_method(eta):
    assert_same_path(optim.competitive_gradient(eta, tolerance=1e-14), implicit_step(eta), atol=1e-9)


def test_competitive_gradient_solves_its_system_with_a_rate_per_player():
    """Against a dense solve of (I + J_off diag(eta)) d = F, on a quadratic game with more than two modes."""
    b, a, c = RNG.normal(size=(4, 6)), np.diag([1.0, 2, 3, 4]), np.eye(6)
    field = lambda w: {"x": a @ w["x"] + b @ w["y"], "y": c @ w["y"] - b.T @ w["x"]}
    w = {"x": jnp.asarray(RNG.normal(size=4)), "y": jnp.asarray(RNG.normal(size=6))}
    tx = optim.competitive_gradient({"x": 0.7, "y": 0.4}, tolerance=1e-13)
    g = field(w)
    update, state = tx.update(g, tx.init(w), w, operator_fn=field, field=g)
    off = np.block([[np.zeros((4, 4)), b], [-b.T, np.zeros((6, 6))]])
    rates = np.concatenate([np.full(4, 0.7), np.full(6, 0.4)])
    direction = np.linalg.solve(np.eye(10) + off * rates, flat(g))
    np.testing.assert_allclose(flat(update), -rates * direction, rtol=1e-9)
    assert 3 + 2 <= state.oracle_calls <= 3 + 2 * 6  # four modes: CG ends after about four
    for tree in ({"x": g["x"]}, {"x": g["x"], "y": g["y"], "z": g["x"]}):
        with pytest.raises(ValueError, match=f"this one has {len(tree)}"):
            tx.update(tree, tx.init(tree), tree, operator_fn=lambda w: w)


def test_competitive_gradient_leaves_a_diverged_lane_to_itself():
    field = field_of(MATRIX)
    tx = optim.competitive_gradient(0.5)

    def step(w):
        g = field(w)
        updates, state = tx.update(g, tx.init(w), w, operator_fn=field, field=g)
        return updates, state.oracle_calls

    lanes = jax.tree.map(lambda w: jnp.stack([w, jnp.full_like(w, jnp.nan)]), START)
    updates, calls = jax.jit(jax.vmap(step))(lanes)
    alone, _ = step(jax.tree.map(jnp.asarray, START))
    np.testing.assert_allclose(updates["x"][0], alone["x"], rtol=1e-12)
    assert np.isnan(updates["x"][1]).all()
    assert calls[1] == 3


@pytest.mark.parametrize("c", [1.0, 0.6])
def test_lead_without_momentum_on_a_bilinear_game_is_the_optimistic_gradient(c):
    assert_same_path(optim.lead(0.3, c), optim.optimistic_gradient(0.3, c))


def test_lead_in_the_players_own_terms():
    """On f = x'Ax/2 + x'By, against the update written with f_xy and f_yx."""
    a = np.diag(np.linspace(0.1, 1, 10))
    field = lambda w: {"x": a @ w["x"] + MATRIX @ w["y"], "y": -MATRIX.T @ w["x"]}
    eta, coupling, beta = 0.2, 0.8, 0.4
    path, state = play(optim.lead(eta, coupling, beta), field, START, 30)
    alpha = eta * coupling
    x, y = START["x"], START["y"]
    dx, dy = np.zeros(10), np.zeros(10)
    for _ in range(30):
        new_dx = beta * dx - eta * (a @ x + MATRIX @ y) - alpha * MATRIX @ dy
        new_dy = beta * dy + eta * (MATRIX.T @ x) + alpha * MATRIX.T @ dx
        x, y, dx, dy = x + new_dx, y + new_dy, new_dx, new_dy
    np.testing.assert_allclose(path["x"][-1], x, atol=1e-12)
    np.testing.assert_allclose(path["y"][-1], y, atol=1e-12)
    assert state.oracle_calls == 90


def test_adjustment_on_a_bilinear_game_is_consensus():
    assert_same_path(optim.symplectic_adjustment(0.3, 0.5), optim.consensus(0.3, 0.5))


def test_adjustment_vanishes_on_a_potential_game():
    matrix = MATRIX @ MATRIX.T
    field = lambda w: {"x": w["x"] + matrix @ w["y"], "y": w["y"] + matrix.T @ w["x"]}
    sgd = optax.with_extra_args_support(optax.sgd(0.1))
    assert_same_path(optim.symplectic_adjustment(0.1), sgd, field=field)


@pytest.mark.parametrize(("mu", "attracts"), [(0.5, True), (-0.5, False)])
def test_adjustment_aligns_its_sign_with_stability(mu, attracts):
    """F = (mu x + y, mu y - x): stable for mu > 0. Far from it, where the products beat the 0.1."""
    field = lambda w: jnp.array([mu * w[0] + w[1], mu * w[1] - w[0]])
    w = jnp.array([3.0, 4.0])
    g = field(w)
    tx, plain = (optim.symplectic_adjustment(1.0, 1.0, align=align) for align in (True, False))
    (aligned, _), (raw, _) = (t.update(g, t.init(w), w, operator_fn=field, field=g) for t in (tx, plain))
    turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])  # the antisymmetric part of the Jacobian
    np.testing.assert_allclose(raw, -(g + turn.T @ g), rtol=1e-12)
    np.testing.assert_allclose(aligned, -(g + (1 if attracts else -1) * turn.T @ g), rtol=1e-12)


def test_extragradient_with_two_equal_rates_is_the_one_with_one():
    assert_same_path(optim.extragradient(0.4), optim.extragradient(0.4, 0.4), atol=0)
    assert_same_path(optim.extragradient(0.4), optim.extragradient(lambda t: 0.4, samples="independent"), atol=0)


def test_extragradient_takes_its_second_evaluation_where_it_says():
    ours, theirs = (lambda w: 2 * w), (lambda w: 5 * w)
    w = jnp.array([1.0, -1.0])
    for samples, factor in (("same", 2), ("independent", 5)):
        tx = optim.extragradient(0.1, 0.25, samples=samples)
        kw = {"operator_fn": ours, "independent_operator_fn": theirs}
        update, _ = tx.update(ours(w), tx.init(w), w, **kw)
        np.testing.assert_allclose(update, -0.1 * factor * (w - 0.25 * 2 * w), rtol=1e-12)
    with pytest.raises(ValueError, match="needs independent_operator_fn"):
        tx.update(ours(w), tx.init(w), w, operator_fn=ours)


def test_two_schedules_reach_the_saddle_in_noise():
    """Constant gamma and eta ~ 1/t on a bilinear game with additive noise; equal rates stay away."""
    steps = 20_000
    noise = jax.random.normal(jax.random.key(1), (steps, 2, 2))

    def final(tx):
        def step(carry, noise):
            w, state = carry
            on = lambda e: lambda w: jnp.array([w[1], -w[0]]) + 0.5 * e
            g = on(noise[0])(w)
            kw = {"operator_fn": on(noise[0]), "independent_operator_fn": on(noise[1])}
            updates, state = tx.update(g, state, w, field=g, **kw)
            return (w + updates, state), w

        w = jnp.ones(2)
        path = lax.scan(step, (w, tx.init(w)), noise)[1]
        return jnp.sqrt(jnp.mean(jnp.sum(path[-2000:] ** 2, 1)))

    separate, equal = jax.jit(
        lambda: (
            final(optim.extragradient(lambda t: 2 / (t + 20), 0.5, samples="independent")),
            final(optim.extragradient(0.1, samples="independent")),
        )
    )()
    assert separate < 0.03
    assert equal > 0.2


# --- Projections ---


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.extragradient(0.3, projection=p),
        lambda p: optim.anchored_extragradient(0.3, projection=p),
        lambda p: optim.halpern(0.05, projection=p),  # 2 mu / L^2: a nonexpansive step
        lambda p: optim.svrg_extragradient(0.5, projection=p, key=jax.random.key(0), snapshot_probability=0.5),
    ],
)
def test_projection_keeps_the_players_in_their_sets_and_finds_the_saddle(make):
    """Rock, paper, scissors with a bonus: mixed strategies on two simplices, a little regularised."""
    payoff = jnp.array([[0.0, 2.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])

    def field(w):  # every operator that is passed lands in the simplex, half steps too
        return {"x": payoff @ w["y"] + 0.3 * w["x"], "y": 0.3 * w["y"] - payoff.T @ w["x"]}

    simplex = lambda w: jax.tree.map(optax.projections.projection_simplex, w)
    start = {"x": np.array([1.0, 0.0, 0.0]), "y": np.array([0.0, 0.0, 1.0])}
    path, _ = play(make(simplex), field, start, 2000)
    sums = np.asarray(path["x"].sum(1))
    np.testing.assert_allclose(sums, 1, atol=1e-12)
    assert np.asarray(path["x"]).min() > -1e-12
    last = jax.tree.map(lambda p: p[-1], path)
    moved = simplex(jax.tree.map(lambda w, g: w - g, last, field(last)))
    assert np.abs(flat(moved) - flat(last)).max() < 3e-2  # the natural residual; O(1 / t) with an anchor


def test_the_half_step_is_projected():
    seen = []

    def field(w):
        seen.append(np.asarray(w))
        return w - 10

    w = jnp.array([1.0])
    tx = optim.extragradient(1.0, projection=lambda w: jnp.minimum(w, 2.0))
    update, _ = tx.update(w - 10, tx.init(w), w, operator_fn=field)
    np.testing.assert_allclose(seen, [[2.0]])
    np.testing.assert_allclose(w + update, [2.0])


# --- Lookahead and averages ---


def test_lookahead_by_hand():
    path, _ = play(optim.lookahead(optax.sgd(0.2), period=3, slow_rate=0.4), field_of(MATRIX), START, 9)
    w = slow = flat(START)
    zero = np.zeros_like(MATRIX)
    jacobian = np.block([[zero, MATRIX], [-MATRIX.T, zero]])
    for step in range(1, 10):
        w = w - 0.2 * jacobian @ w
        if step % 3 == 0:
            slow = slow + 0.4 * (w - slow)
            w = slow
        here = flat(jax.tree.map(lambda p, step=step: p[step], path))
        np.testing.assert_allclose(here, w, rtol=1e-12)


def test_averages_by_hand():
    field = field_of(MATRIX)
    sgd = optax.sgd(0.2)
    plain, _ = play(optax.with_extra_args_support(sgd), field, START, 10)
    iterates = np.asarray(plain["x"])[1:]  # after each of the ten updates

    def average(**options):
        path, state = play(optim.average_iterates(sgd, **options), field, START, 10)
        np.testing.assert_allclose(path["x"], plain["x"], rtol=1e-12)  # the play is left alone
        return optim.get_average(state)["x"]

    np.testing.assert_allclose(average(), iterates.mean(0), rtol=1e-12)
    weights = 0.7 ** np.arange(9, -1, -1)
    np.testing.assert_allclose(average(decay=0.7), weights @ iterates / weights.sum(), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(average(period=4), iterates[8:].mean(0), rtol=1e-12)
    np.testing.assert_allclose(average(period=5), iterates[5:].mean(0), rtol=1e-12)


@pytest.mark.parametrize("decay", [0.99999999, 1 - 2**-53, "traced"])
def test_an_average_that_hardly_decays_is_the_uniform_one(decay):
    w = jnp.float32(0)

    def end(decay):
        tx = optim.average_iterates(optax.sgd(1.0), decay=decay)
        state, params = tx.init(w), w
        for _ in range(3):  # the iterates are -1, -2, -3
            updates, state = tx.update(jnp.ones_like(w), state, params)
            params = params + updates
        return optim.get_average(state)

    found = jax.jit(end)(jnp.float32(1)) if decay == "traced" else end(decay)
    np.testing.assert_allclose(found, -2, rtol=1e-6)


def test_a_jump_goes_to_the_average():
    field = field_of(MATRIX)
    tx = optim.average_iterates(optax.sgd(0.2), period=4, jump=True)
    path, state = play(tx, field, START, 4)
    plain, _ = play(optax.with_extra_args_support(optax.sgd(0.2)), field, START, 4)
    np.testing.assert_allclose(path["x"][-1], np.asarray(plain["x"])[1:].mean(0), rtol=1e-6)
    np.testing.assert_allclose(path["x"][-1], optim.get_average(state)["x"], rtol=1e-12)
    with pytest.raises(ValueError, match="pass period"):
        optim.average_iterates(optax.sgd(0.2), jump=True)
    with pytest.raises(ValueError, match="it found 0"):
        optim.get_average(optax.sgd(0.1).init(START))


def test_restarts_from_the_average_are_faster_on_an_interpolated_bilinear_game():
    """No noise at the saddle, a mean of one minibatch per step elsewhere."""
    matrices = np.eye(2) + 0.4 * RNG.normal(size=(6, 2, 2))
    start = {"x": np.ones(2), "y": np.zeros(2)}
    args = (matrices, np.zeros((6, 2)), start, 1200, jax.random.key(9))
    plain = lambda key: optim.extragradient(0.1)
    restarted = lambda key: optim.average_iterates(optim.extragradient(0.1), period=60, jump=True)
    (last, _), (jumped, _) = sampled_play(plain, *args), sampled_play(restarted, *args)
    assert jumped < 1e-4 * last


def test_an_average_of_bfloat16_is_kept_in_float32():
    """The mean of 1 and then 2 two thousand times: kept in bfloat16, its steps soon round to nothing."""

    def mean(dtype):
        tx = optim.average_iterates(optax.set_to_zero(), accumulator_dtype=dtype)
        one, two = (jnp.asarray(v, jnp.bfloat16) for v in (1.0, 2.0))
        _, state = tx.update(one, tx.init(one), one)
        body = lambda s, _: (tx.update(two, s, two)[1], None)
        return optim.get_average(lax.scan(body, state, None, 2000)[0]).item()

    assert abs(mean(None) - 2) < 1e-3
    assert mean(jnp.bfloat16) < 1.99


# --- Counts ---


@pytest.mark.parametrize(
    ("tx", "per_step"),
    [
        (optim.extragradient(0.1), 2),
        (optim.anchored_extragradient(0.1), 2),
        (optim.fast_extragradient(0.1), 2),
        (optim.consensus(0.1), 2),
        (optim.consensus(0.1, samples="independent"), 4),
        (optim.hamiltonian(0.1), 4),
        (optim.hamiltonian(0.1, samples="same"), 2),
        (optim.symplectic_adjustment(0.1), 3),
        (optim.lead(0.1), 3),
    ],
)
def test_oracle_calls(tx, per_step):
    params, field = jax.tree.map(jnp.asarray, START), field_of(MATRIX)
    state = tx.init(params)
    for step in (1, 2):
        g = field(params)
        kw = {"operator_fn": field, "independent_operator_fn": field}
        _, state = tx.update(g, state, params, field=g, **kw)
        assert state.oracle_calls == step * per_step
        assert state.count == step
