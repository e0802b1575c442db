"""Implicit derivatives against quadratics in closed form, finite differences, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxfair import implicit

CG = implicit.conjugate_gradients(max_iterations=200, tolerance=1e-12)
#: Each with the eigenvalues of `SYSTEM` in mind, which lie between 0.5 and 2.
SOLVES = {"cg": CG, "neumann": implicit.neumann(terms=200, rate=0.8), "dense": implicit.dense()}
BASIS, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
SYSTEM = (BASIS * np.linspace(0.5, 2.0, 6)) @ BASIS.T
TARGET = np.linspace(-1.0, 1.0, 6)


def split(v):
    """A vector as a tree of two leaves of different ranks."""
    return {"a": v[:2], "b": v[2:].reshape(2, 2)}


def joined(tree):
    return jnp.concatenate([tree["a"], tree["b"].ravel()])


@pytest.fixture
def wide():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", SOLVES)
def test_a_solve_solves_trees_under_jit_and_vmap(name, wide):
    def solve(target):
        return SOLVES[name](lambda v: split(jnp.asarray(SYSTEM) @ joined(v)), split(target))

    targets = jnp.stack([jnp.asarray(TARGET), jnp.zeros(6)])
    found = jax.jit(jax.vmap(solve))(targets)
    expected = np.linalg.solve(SYSTEM, np.asarray(targets).T).T
    assert_allclose(jax.vmap(joined)(found.value), expected, atol=1e-12)
    assert np.all(np.asarray(found.residual) < 1e-6)


def test_a_system_that_is_not_symmetric_is_for_the_other_two(wide):
    system = jnp.array([[0.8, 0.3], [-0.3, 0.8]])
    for name in ("neumann", "dense"):
        found = SOLVES[name](lambda v: system @ v, jnp.array([1.0, 0.0]))
        assert_allclose(found.value, np.linalg.solve(system, [1.0, 0.0]), atol=1e-12)


def test_cg_takes_as_many_products_as_there_are_eigenvalues():
    found = implicit.conjugate_gradients()(lambda v: jnp.array([1.0, 1.0, 3.0, 3.0, 7.0]) * v, jnp.ones(5))
    assert found.products == 3


def test_cg_stops_at_a_direction_without_curvature_with_what_it_had():
    found = implicit.conjugate_gradients()(lambda v: -v, jnp.ones(2))
    assert found.value.tolist() == [0.0, 0.0]
    assert found.residual == 1.0


def test_a_lane_that_is_not_finite_ends_alone():
    found = jax.vmap(lambda b: implicit.conjugate_gradients()(lambda v: 2.0 * v, b))(
        jnp.array([[jnp.nan, 1.0], [1.0, 1.0]])
    )
    assert np.isnan(found.value[0, 0])
    assert_allclose(found.value[1], 0.5)


def test_damping_is_added_to_the_system(wide):
    for solve in (implicit.conjugate_gradients(damping=0.5), implicit.dense(damping=0.5)):
        assert_allclose(solve(lambda v: 1.5 * v, jnp.array([1.0])).value, 0.5)


def test_the_error_of_a_neumann_series_shrinks_by_the_largest_factor(wide):
    target, exact = jnp.asarray(BASIS[:, 0]), BASIS[:, 0] / 0.5  # the slowest direction of rate 0.8: factor 0.6
    errors = [
        np.linalg.norm(implicit.neumann(terms=n, rate=0.8)(lambda v: jnp.asarray(SYSTEM) @ v, target).value - exact)
        for n in (3, 4, 9)
    ]
    assert_allclose([errors[1] / errors[0], errors[2] / errors[1]], [0.6, 0.6**5], rtol=1e-9)


def least_squares(x, a):
    return 0.5 * jnp.sum((jnp.asarray(SYSTEM) @ x - a["target"]) ** 2) + 0.5 * jnp.sum(jnp.exp(a["decay"]) * x**2)


def held_out(x, a):
    return jnp.sum(jnp.sin(x) * jnp.arange(1.0, 7.0)) + jnp.sum(a["target"] ** 2)


def minimum(a):
    hessian = jnp.asarray(SYSTEM.T @ SYSTEM) + jnp.diag(jnp.exp(a["decay"]))
    return jnp.linalg.solve(hessian, jnp.asarray(SYSTEM.T) @ a["target"])


@pytest.mark.parametrize("name", ["cg", "dense"])
def test_a_hypergradient_is_the_derivative_through_the_closed_form(name, wide):
    a = {"target": jnp.asarray(TARGET), "decay": jnp.linspace(-1.0, 0.5, 6)}
    found = implicit.hypergradient(held_out, least_squares, minimum(a), a, solve=SOLVES[name])
    value, expected = jax.value_and_grad(lambda a: held_out(minimum(a), a))(a)
    assert_allclose(found.value, value)
    for leaf in a:
        assert_allclose(found.gradient[leaf], expected[leaf], atol=1e-9)
    # And the closed form is no circle: finite differences say the same.
    far = jax.tree.map(lambda leaf: leaf.at[2].add(1e-5), a)
    near = jax.tree.map(lambda leaf: leaf.at[2].add(-1e-5), a)
    difference = (held_out(minimum(far), far) - held_out(minimum(near), near)) / 2e-5
    assert_allclose(sum(found.gradient[leaf][2] for leaf in a), difference, rtol=1e-6)


def test_at_minimum_says_the_same_to_jax_grad(wide):
    a = {"target": jnp.asarray(TARGET), "decay": jnp.zeros(6)}

    def through(a):
        x = implicit.at_minimum(least_squares, minimum(jax.lax.stop_gradient(a)), a, solve=CG)
        return held_out(x, a)

    expected = jax.grad(lambda a: held_out(minimum(a), a))(a)
    found = jax.jit(jax.grad(through))(a)
    for leaf in a:
        assert_allclose(found[leaf], expected[leaf], atol=1e-9)


def test_what_an_objective_closes_over_has_a_derivative_too():
    def through(w):
        x = implicit.at_minimum(lambda x, a: (x - a * w) ** 2, jax.lax.stop_gradient(3.0 * w), jnp.array(3.0), solve=CG)
        return x**2

    assert_allclose(jax.grad(through)(2.0), 36.0, rtol=1e-6)
    assert_allclose(jax.jit(jax.grad(through))(2.0), 36.0, rtol=1e-6)


def test_a_fixed_point_and_its_derivative(wide):
    matrix = 0.4 * BASIS  # a contraction that is not symmetric

    def contraction(x, a):
        return jnp.asarray(matrix) @ jnp.tanh(x) + a

    def find(a, **options):
        return implicit.fixed_point(contraction, jnp.zeros(6), a, tolerance=1e-14, **options)

    a = jnp.asarray(TARGET)
    x = find(a)
    assert_allclose(x, contraction(x, a), atol=1e-13)
    weight = jnp.arange(6.0)
    slope = np.eye(6) - matrix * (1 - np.tanh(np.asarray(x)) ** 2)
    expected = np.linalg.solve(slope.T, np.asarray(weight))
    assert_allclose(jax.grad(lambda a: weight @ find(a))(a), expected, atol=1e-12)
    assert_allclose(jax.grad(lambda a: weight @ find(a, solve=implicit.dense()))(a), expected, atol=1e-12)


@pytest.mark.parametrize(("length", "segments"), [(0, None), (1, None), (7, None), (7, 7), (7, 1), (7, 3)])
def test_unrolled_steps_are_the_plain_loop(length, segments):
    def step(x, a):
        return jnp.sin(a * x) + x

    def plain(a):
        x = jnp.array(0.3)
        for _ in range(length):
            x = step(x, a)
        return x

    def unrolled(a):
        return implicit.unroll(step, jnp.array(0.3), a, length=length, segments=segments)

    a = jnp.array(0.7)
    assert_allclose(unrolled(a), plain(a), rtol=1e-6)
    assert_allclose(jax.grad(unrolled)(a), jax.grad(plain)(a), rtol=1e-6)


def test_unrolling_keeps_the_ends_of_segments_only():
    def kept(segments):
        def last(x, a):
            return jnp.sum(implicit.unroll(lambda x, a: jnp.tanh(a * x), x, a, length=256, segments=segments))

        program = jax.jit(jax.grad(last, argnums=1)).lower(jnp.ones(1000), jnp.array(0.9)).compile()
        return program.memory_analysis().temp_size_in_bytes

    # 16 ends, and of 16 steps the two or three arrays that each keeps, in place of 256 ends.
    assert kept(16) < 0.5 * kept(256)


def test_bad_numbers_are_one_line():
    with pytest.raises(ValueError, match="terms=0: a Neumann series has at least 1 term"):
        implicit.neumann(terms=0)
    with pytest.raises(ValueError, match=r"segments=9: cut 4 steps into at least 1 segment and at most 4\."):
        implicit.unroll(lambda x, a: x, jnp.ones(()), jnp.ones(()), length=4, segments=9)
