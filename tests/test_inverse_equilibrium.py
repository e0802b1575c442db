"""Equilibria and inputs found through them, against closed forms, hand-made iterates, Newton and unrolled loops."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxfair import implicit, inverse

DRAWN = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def of_norm(shape, norm, rng=DRAWN):
    matrix = rng.normal(size=shape)
    return matrix * norm / np.linalg.norm(matrix, 2)


# --- Anderson acceleration -----------------------------------------------------------------------------------------

AFFINE, SHIFT = of_norm((5, 5), 0.8), DRAWN.normal(size=5)
ROOT = np.linalg.solve(np.eye(5) - AFFINE, SHIFT)


def split(v):
    return {"a": v[:2], "b": v[2:].reshape(3, 1)}


def joined(tree):
    return jnp.concatenate([tree["a"], tree["b"].ravel()])


def affine(tree):
    return split(jnp.asarray(AFFINE) @ joined(tree) + jnp.asarray(SHIFT))


@pytest.mark.parametrize("kind", [1, 2])
def test_an_affine_map_of_d_numbers_ends_after_d_plus_two_evaluations(kind):
    run = jax.jit(lambda n: implicit.anderson(affine, split(jnp.zeros(5)), memory=6, kind=kind, evaluations=n))
    early, end = run(6), run(7)
    assert np.abs(joined(early.value) - ROOT).max() > 1e-4
    assert_allclose(joined(end.value), ROOT, atol=1e-12)
    assert (early.evaluations, end.evaluations) == (6, 7)
    assert_allclose(early.residual, np.linalg.norm(joined(affine(early.value)) - joined(early.value)), rtol=1e-9)


@pytest.mark.parametrize("kind", [1, 2])
def test_the_next_point_is_the_textbooks_mix_of_images(kind):
    """Weights that sum to 1 solve the bordered system of the products of points (or residuals) with residuals."""
    mix = implicit.mixing(memory=3, kind=kind)
    state, points, images = mix.init(jnp.zeros(5)), [], []
    for number in range(5):
        points.append(np.asarray(state.x))
        images.append(np.tanh(AFFINE @ points[-1]) + SHIFT)
        state = mix.update(state, jnp.asarray(images[-1]))
        x, f = np.array(points[-3:]), np.array(images[-3:])
        g = f - x
        m = len(x)
        bordered = np.block([[np.zeros((1, 1)), np.ones((1, m))], [np.ones((m, 1)), (x if kind == 1 else g) @ g.T]])
        weights = np.linalg.solve(bordered, np.eye(m + 1)[0])[1:] if number else np.ones(1)
        assert_allclose(state.x, weights @ f, rtol=1e-6)  # the bordered system loses digits


def test_a_memory_of_one_is_the_plain_iteration_bit_for_bit():
    x = jnp.zeros(5, jnp.float32)
    state = implicit.mixing(memory=1).init(x)
    step = jax.jit(lambda x: jnp.tanh(jnp.asarray(AFFINE, jnp.float32) @ x) + jnp.asarray(SHIFT, jnp.float32))
    for _ in range(4):
        assert (state.x == x).all()
        state, x = implicit.mixing(memory=1).update(state, step(state.x)), step(x)


def test_lanes_are_what_they_are_alone_and_one_that_runs_off_stays_in_its_lane():
    def find(slope, memory=3):
        return implicit.anderson(lambda x: slope * x**3 + 0.1, jnp.ones(()), memory=memory, evaluations=12)

    slopes = jnp.array([0.1, 50.0, 0.3, jnp.nan])
    together = jax.jit(jax.vmap(find))(slopes)
    alone = jax.jit(find)
    for i, slope in enumerate(slopes):
        one = alone(slope)
        # Close to its end a secant divides rounding by rounding.
        assert_allclose(together.value[i], one.value, rtol=1e-6)
        assert_allclose(together.residual[i], one.residual, rtol=1e-6, atol=1e-7)
    assert (together.value[3], together.residual[3]) == (1.0, jnp.inf)
    assert np.isfinite(together.value).all()
    assert_allclose(together.value[::2], 0.1 + slopes[::2] * together.value[::2] ** 3, atol=1e-12)


@pytest.mark.parametrize("memory", [1, 4])
def test_a_map_that_runs_off_gives_its_best_point_and_says_so(memory):
    found = implicit.anderson(lambda x: jnp.exp(x) + 1.0, jnp.zeros(2), memory=memory, evaluations=30)
    assert np.isfinite(found.value).all()
    assert found.residual >= 2**1.5 - 1e-12  # exp(x) + 1 - x is at least 2
    assert_allclose(found.residual, np.linalg.norm(np.exp(found.value) + 1 - found.value))
    assert found.evaluations == 30


def test_it_stops_where_it_is_told_and_works_in_the_dtypes_of_its_tree():
    start = {"a": jnp.zeros(2, jnp.bfloat16), "b": jnp.zeros(3, jnp.float32)}

    def halved(tree):
        return {"a": tree["a"] / 2 + 1, "b": tree["b"] / 2 + 1}

    found = implicit.anderson(halved, start, memory=3, evaluations=50, tolerance=1e-2)
    assert found.evaluations < 10
    assert {k: v.dtype for k, v in found.value.items()} == {"a": jnp.bfloat16, "b": jnp.float32}
    assert_allclose(found.value["b"], 2.0, rtol=2e-2)


@pytest.mark.slow
def test_a_solve_of_what_neither_is_symmetric_nor_contracts():
    system, target = 3 * of_norm((8, 8), 1.0) + np.eye(8), DRAWN.normal(size=8)
    solve = implicit.anderson_solve(memory=9, tolerance=1e-12)
    found = jax.jit(lambda b: solve(lambda v: jnp.asarray(system) @ v, b))(jnp.asarray(target))
    assert_allclose(found.value, np.linalg.solve(system, target), atol=1e-9)
    assert found.products <= 12
    assert found.residual < 1e-6
    nothing = solve(lambda v: 2.0 * v, jnp.zeros(2))
    assert (nothing.value.tolist(), nothing.products, nothing.residual) == ([0.0, 0.0], 1, 0.0)


def test_pairs_that_say_the_same_give_a_plain_step():
    """On the diagonal all changes are parallel, and the system of two pairs has no solution."""
    for kind in (1, 2, "truncated"):
        mix = implicit.mixing(memory=9, kind=kind)
        state = mix.init(jnp.ones(2))
        assert state.history.steps.shape == (2, 2)  # of two numbers, two differences say all
        for _ in range(9):
            state = mix.update(state, jnp.cos(state.x))
            assert np.isfinite(state.x).all()
        assert_allclose(state.best, 0.739085, atol=0.03)


def test_an_image_that_is_not_finite_sends_back_to_the_best_point_without_its_memory():
    mix = implicit.mixing(memory=4)
    state = mix.init(jnp.zeros(2))
    for image in ([1.0, 0.5], [1.5, 0.8], [jnp.nan, 0.0]):
        state = mix.update(state, jnp.array(image))
    assert (state.x == state.best).all()
    assert not state.history.filled.any()
    again = mix.update(state, jnp.array([0.3, 0.4]))
    assert again.x.tolist() == [0.3, 0.4]


def test_a_ridge_is_relative_to_the_largest_product():
    """Of two numbers and one pair: the weight is b / (p + ridge p)."""
    mix, image = implicit.mixing(memory=2, kind=2, ridge=0.5), jnp.array([3.0, 1.0])
    state = mix.update(mix.init(jnp.zeros(2)), image)
    second = jnp.array([1.0, 4.0])
    x, f = [np.zeros(2), np.asarray(state.x)], [np.asarray(image), np.asarray(second)]
    change = (x[1] - f[1]) - (x[0] - f[0])
    weight = change @ (x[1] - f[1]) / (1.5 * change @ change)
    assert_allclose(mix.update(state, second).x, f[1] - weight * (f[1] - f[0]))


# --- the layer -----------------------------------------------------------------------------------------------------

DEEP = {"w": jnp.asarray(of_norm((6, 6), 0.9), jnp.float32), "u": jnp.asarray(DRAWN.normal(size=(6, 3)), jnp.float32)}
INPUT = DRAWN.normal(size=3)


def layer(z, a):
    return jnp.tanh(a["w"] @ z + a["u"] @ a["x"])


@pytest.fixture(scope="module")
def deep():
    with jax.enable_x64(True):
        return {
            "w": jnp.asarray(DEEP["w"], jnp.float64),
            "u": jnp.asarray(DEEP["u"], jnp.float64),
            "x": jnp.asarray(INPUT),
        }


def found_by(a, **options):
    return inverse.equilibrium(layer, jnp.zeros(6), a, tolerance=1e-14, **options)


def test_the_fixed_point_is_newtons(deep):
    found, z = jax.jit(found_by)(deep), np.zeros(6)
    w, shift = np.asarray(deep["w"]), np.asarray(deep["u"]) @ INPUT
    for _ in range(30):
        image = np.tanh(w @ z + shift)
        z -= np.linalg.solve(np.eye(6) - (1 - image**2)[:, None] * w, z - image)
    assert_allclose(found.value, z, atol=1e-12)
    assert found.residual < 1e-12


@pytest.mark.slow
def test_the_implicit_derivative_is_that_of_the_unrolled_loop(deep):
    weight = jnp.arange(1.0, 7.0)

    def unrolled(a):
        z, _ = jax.lax.scan(lambda z, _: (layer(z, a), None), jnp.zeros(6), length=400)
        return weight @ z

    expected = jax.grad(unrolled)(deep)
    for solve in (None, implicit.dense()):
        found = jax.jit(jax.grad(lambda a, solve=solve: weight @ found_by(a, solve=solve).value))(deep)
        for name in deep:
            assert_allclose(found[name], expected[name], rtol=1e-4 if solve is None else 1e-9, atol=1e-6)


# --- joint inference -----------------------------------------------------------------------------------------------


def scalar(a=0.5, prior=0.0):
    """f = a z + x, and the loss (z - 1)^2 / 2 with a prior on x."""
    return lambda z, x: a * z + x, lambda z, x: (z - 1) ** 2 / 2 + prior * x**2 / 2


ZERO = inverse.Joint(0.0, 0.0, 0.0)


def test_the_iterates_by_hand():
    step, v = inverse.joint_map(*scalar(), rate=0.05), jax.tree.map(jnp.asarray, ZERO)
    expected = [(0, 0, -0.6), (0, 0.03, -1.02), (0.024, 0.081, -1.314), (0.0792, 0.1467, -1.5054)]
    for numbers in expected:
        v = step(v)
        assert_allclose(v, numbers, atol=1e-12)


@pytest.mark.parametrize(("a", "limit"), [(0.0, 0.541241), (0.5, 0.0962682), (0.9, 0.00119543)])
def test_the_largest_stable_rate_without_acceleration(a, limit):
    """Where the spectral radius of the plain iteration reaches 1, bisected; and below the bound for small rates."""

    def radius(rate):
        step = inverse.joint_map(*scalar(a), rate=rate)
        columns = jax.jacobian(lambda v: jnp.stack(step(inverse.Joint(*v))))(jnp.zeros(3))
        return np.abs(np.linalg.eigvals(columns)).max()

    low, high = limit * 0.99, limit * 1.01
    assert radius(low) < 1 < radius(high)
    assert radius(limit * (1 - 1e-5)) < 1 < radius(limit * (1 + 1e-5))
    assert limit < 1.4 * (1 - a) ** 3


LINEAR = [of_norm((8, 8), 0.6), DRAWN.normal(size=(8, 3)), DRAWN.normal(size=(6, 8)), DRAWN.normal(size=6)]


def linear(A, B=LINEAR[1]):
    A, B, C, y = (jnp.asarray(part) for part in (A, B, *LINEAR[2:]))
    return lambda z, x: A @ z + B @ x, lambda z, x: jnp.sum((C @ z - y) ** 2) / 2


@pytest.fixture(scope="module")
def solved():
    """``solved(kind) -> Found`` of the linear model, and its least squares."""
    with jax.enable_x64(True):
        run = {
            kind: jax.jit(
                lambda kind=kind: inverse.joint_inference(
                    *linear(LINEAR[0]), jnp.zeros(8), jnp.zeros(3), rate=0.05, kind=kind, evaluations=120
                )
            )()
            for kind in (1, 2)
        }
    A, B, C, y = LINEAR
    through = C @ np.linalg.solve(np.eye(8) - A, B)
    return run, np.linalg.lstsq(through, y, rcond=None)[0]


@pytest.mark.parametrize("kind", [1, 2])
def test_a_linear_model_is_least_squares(kind, solved):
    (found, x), (A, B, C, y) = (solved[0][kind], solved[1]), LINEAR
    z = np.linalg.solve(np.eye(8) - A, B @ x)
    assert_allclose(found.at.x, x, atol=1e-8)
    assert_allclose(found.at.z, z, atol=1e-8)
    adjoint = np.linalg.solve((np.eye(8) - A).T, C.T @ (C @ z - y))
    assert_allclose(found.at.multiplier, adjoint, atol=1e-7)
    assert_allclose(B.T @ found.at.multiplier, 0, atol=1e-8)
    assert_allclose(found.value, np.sum((C @ z - y) ** 2) / 2, rtol=1e-9)
    assert max(found.residuals) < 1e-7
    # The residual is that of the map at the point, computed again.
    step = inverse.joint_map(*linear(A), rate=0.05)
    moved = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), step(found.at), found.at)
    assert_allclose(found.residual, np.sqrt(sum(moved)), rtol=1e-3, atol=1e-14)


def test_the_envelope_gradient_is_that_of_the_closed_form(solved):
    def value(A, B):
        C, y = (jnp.asarray(part) for part in LINEAR[2:])
        through = C @ jnp.linalg.solve(jnp.eye(8) - A, B)
        x = jnp.linalg.solve(through.T @ through, through.T @ y)
        return jnp.sum((through @ x - y) ** 2) / 2

    A, B = jnp.asarray(LINEAR[0]), jnp.asarray(LINEAR[1])
    expected = jax.grad(value, argnums=(0, 1))(A, B)
    at = solved[0][1].at
    found = jax.grad(lambda A, B: inverse.lagrangian(*linear(A, B), at), argnums=(0, 1))(A, B)
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, atol=1e-7)
    assert_allclose(found[0], np.outer(at.multiplier, at.z), atol=1e-12)


@pytest.mark.slow
def test_the_derivative_of_another_loss_goes_through_the_fixed_point_of_the_joint_map(solved):
    """A clean target on top of a noisy measurement: x moves with A, which the envelope does not see."""
    clean, (_, B, C, y) = jnp.asarray(LINEAR[3] + 0.4), LINEAR
    found = solved[0][1].at

    def outer(A):
        v = implicit.fixed_point(
            lambda v, A: inverse.joint_map(*linear(A), rate=0.05)(v), found, A, max_iterations=0, solve=implicit.dense()
        )
        return jnp.sum((jnp.asarray(C) @ v.z - clean) ** 2) / 2

    def closed(A):
        through = jnp.asarray(C) @ jnp.linalg.solve(jnp.eye(8) - A, jnp.asarray(B))
        x = jnp.linalg.solve(through.T @ through, through.T @ jnp.asarray(y))
        return jnp.sum((through @ x - clean) ** 2) / 2

    A = jnp.asarray(LINEAR[0])
    expected = jax.grad(closed)(A)
    assert_allclose(jax.jit(jax.grad(outer))(A), expected, atol=1e-6)
    assert np.abs(expected).max() > 0.1


def test_a_prior_on_the_input_has_the_closed_form():
    found = inverse.joint_inference(*scalar(prior=1.0), *ZERO[:2], rate=0.1, evaluations=12, memory=4)
    assert_allclose(found.at, (0.8, 0.4, -0.4), atol=1e-12)
    assert_allclose(found.value, 0.1, atol=1e-12)
    assert_allclose(jax.grad(lambda a: inverse.lagrangian(*scalar(a, 1.0), found.at))(0.5), -0.32, atol=1e-12)


@pytest.mark.slow
def test_without_a_rate_it_is_the_forward_pass_and_its_adjoint(deep):
    def loss(z, x):
        return jnp.sum((z - 0.3) ** 2) / 2

    def f(z, x):
        return layer(z, deep | {"x": x})

    found = jax.jit(lambda: inverse.joint_inference(f, loss, jnp.zeros(6), deep["x"], rate=0.0, evaluations=60))()
    z = found_by(deep).value
    assert (found.at.x == deep["x"]).all()
    assert_allclose(found.at.z, z, atol=1e-10)
    slope = jax.jacobian(f)(z, deep["x"])
    assert_allclose(found.at.multiplier, np.linalg.solve(np.eye(6) - slope.T, z - 0.3), atol=1e-9)
    assert found.residuals.x > 0.01  # x was not asked to move, and its gradient says so


def test_a_function_that_does_not_read_its_input_leaves_it():
    found = inverse.joint_inference(lambda z, x: z / 2 + 1.0, lambda z, x: z**2, 0.0, 0.7, rate=0.3, evaluations=20)
    assert found.at.x == 0.7
    assert_allclose(found.at.z, 2.0, atol=1e-9)


def test_of_one_explicit_layer_it_is_gradient_descent_with_gradients_two_steps_old():
    """f_z = 0 and no damping: z and the multiplier follow x at once, an evaluation late each."""
    matrix, y, rate = jnp.asarray(LINEAR[2]), jnp.asarray(LINEAR[3]), 0.02
    step = inverse.joint_map(
        lambda z, x: matrix @ x, lambda z, x: jnp.sum((z - y) ** 2) / 2, rate=rate, damping=(1.0, 1.0)
    )
    v, x = inverse.Joint(jnp.zeros(6), jnp.zeros(8), jnp.zeros(6)), [np.zeros(8)]
    gradients = [np.zeros(8), -LINEAR[2].T @ LINEAR[3]]  # of a multiplier of 0, and of z = 0
    for number in range(6):
        v = step(v)
        x.append(x[-1] - rate * gradients[number])
        gradients.append(LINEAR[2].T @ (LINEAR[2] @ x[number] - LINEAR[3]))
        assert_allclose(v.x, x[-1], atol=1e-12)


def test_mixed_points_are_projected_too():
    """Onto a sphere, which every mix leaves."""
    f, loss = linear(LINEAR[0])
    how = {"rate": 0.01, "project": lambda x: 0.2 * x / jnp.linalg.norm(x), "memory": 4}
    run = jax.jit(lambda n: inverse.joint_inference(f, loss, jnp.zeros(8), jnp.ones(3), evaluations=n, **how).at.x)
    for evaluations in range(1, 20):
        assert_allclose(np.linalg.norm(run(evaluations)), 0.2, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "rate"), [(1, 3e-4), (6, 0.01)])
def test_the_input_that_comes_back_is_projected(memory, rate):
    def ball(x):
        return x / jnp.maximum(1.0, jnp.linalg.norm(x) / 0.2)

    f, loss = linear(LINEAR[0])
    run = jax.jit(
        lambda n: inverse.joint_inference(
            f, loss, jnp.zeros(8), jnp.ones(3), rate=rate, project=ball, memory=memory, evaluations=n
        )
    )
    for evaluations in (1, 3, 40):
        assert np.linalg.norm(run(evaluations).at.x) <= 0.2 + 1e-12
    found = run(20_000 if memory == 1 else 200)
    assert_allclose(np.linalg.norm(found.at.x), 0.2)  # the free solution lies outside
    assert found.residuals.x < 1e-4
    gradient = LINEAR[1].T @ found.at.multiplier
    assert_allclose(-gradient / np.linalg.norm(gradient), found.at.x / 0.2, atol=1e-3)  # it pushes straight outwards


def test_a_batch_is_its_examples_and_a_model_that_does_not_contract_says_so():
    def find(a):
        f, loss = scalar(a, prior=1.0)
        return inverse.joint_inference(f, loss, jnp.zeros(()), jnp.zeros(()), rate=0.1, memory=4, evaluations=30)

    slopes = jnp.array([0.5, jnp.inf, 0.0, 3.0])
    together, alone = jax.jit(jax.vmap(find))(slopes), jax.jit(find)
    for i, slope in enumerate(slopes):
        for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone(slope)), strict=True):
            assert_allclose(one[i], other, rtol=1e-9, atol=1e-12)
    assert together.residual[1] == jnp.inf
    assert_allclose(together.at.z[::2], 1 / (1 + (1 - slopes[::2]) ** 2), atol=1e-9)
    # A slope of 3 diverges forwards; the joint root is there all the same, and acceleration finds it.
    assert_allclose((together.at.z[3], together.at.x[3]), (0.2, -0.4), atol=1e-9)


def test_a_rate_may_be_a_schedule():
    seen = inverse.joint_inference(
        *scalar(), *ZERO[:2], rate=lambda k: jnp.where(k < 2, 0.05, 0.0), memory=1, evaluations=20
    )
    assert_allclose(seen.at.x, 0.03, atol=1e-12)


def test_bad_input_is_one_line():
    f, loss = scalar()
    for options, words in {
        "rate": ({"rate": -1.0}, "rate=-1.0: give a number of at least 0"),
        "damping": ({"rate": 0.1, "damping": (0.8, 1.5)}, "damping=1.5: give two numbers above 0 and at most 1"),
        "memory": ({"rate": 0.1, "memory": 0}, "memory=0: give a whole number of points"),
        "kind": ({"rate": 0.1, "kind": 3}, "kind=3: there are type 1"),
    }.values():
        with pytest.raises(ValueError, match=re.escape(words)):
            inverse.joint_inference(f, loss, 0.0, 0.0, **options)
    with pytest.raises(ValueError, match=r"function= made float64\[2\] of float64\[\]: z = f"):
        inverse.joint_inference(lambda z, x: jnp.zeros(2), loss, 0.0, 0.0, rate=0.1)
    with pytest.raises(ValueError, match="loss= gave ShapeDtypeStruct"):
        inverse.joint_inference(f, lambda z, x: jnp.zeros(2), 0.0, 0.0, rate=0.1)
    with pytest.raises(ValueError, match=r"the function made float32\[3\] of float32\[2\]"):
        implicit.anderson(lambda x: jnp.zeros(3, jnp.float32), jnp.zeros(2, jnp.float32))
    with pytest.raises(ValueError, match="the start has numbers of type complex128: give floats"):
        implicit.anderson(lambda x: x, jnp.zeros(2, complex))
    with pytest.raises(ValueError, match="the start has numbers of type int64: give floats"):
        inverse.equilibrium(lambda z, a: z, 0, jnp.zeros(()))
