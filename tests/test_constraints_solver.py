"""The solver's orders, formulations, multipliers and penalties against exact solutions and steps by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import lsq_linear

from jaxfair import constraints, optim, train

ORDERS = ("dual_primal", "simultaneous", "primal_dual", "extragradient")

# --- min |x|^2 s.t. Ax <= b, Cx = d, with its exact primal and dual solution ---------------------------------------


def program(dim, num_inequalities, num_equalities, seed):
    """A random quadratic programme whose constraints have singular values between 1.5 and 2.5.

    The dual is to maximise -|G'z|^2/4 - h'z with G = [A; C], h = [b; d] and the first entries of z at least 0. G has
    full row rank, so h = G w for some w, and that is to minimise |G'z/2 + w|^2: a bounded least-squares problem.
    """
    rng = np.random.default_rng(seed)
    num = num_inequalities + num_equalities
    rows, _ = np.linalg.qr(rng.normal(size=(num, num)))
    columns, _ = np.linalg.qr(rng.normal(size=(dim, num)))
    matrix = rows * rng.uniform(1.5, 2.5, num) @ columns.T
    bound = rng.normal(size=num)
    w = np.linalg.lstsq(matrix, bound, rcond=None)[0]
    low = np.where(np.arange(num) < num_inequalities, 0.0, -np.inf)
    z = lsq_linear(0.5 * matrix.T, -w, bounds=(low, np.inf), method="bvls", tol=1e-14).x
    x = -0.5 * matrix.T @ z
    # What is claimed of the oracle itself: feasible, and complementary.
    violation = matrix @ x - bound
    assert (violation[:num_inequalities] < 1e-9).all()
    assert np.abs(violation[num_inequalities:]).max(initial=0.0) < 1e-9
    assert np.abs(z * violation).max() < 1e-9
    return matrix, bound, np.arange(num) >= num_inequalities, x, z


def evaluation_of(matrix, bound, *, kind="dense", scale=1.0, noise=None):
    """``evaluate`` of a programme; indexed multipliers see its rows in reverse order."""
    matrix, bound = jnp.asarray(matrix, jnp.float32), jnp.asarray(bound, jnp.float32)
    num = len(bound)
    order = jnp.arange(num)[::-1] if kind == "indexed" else jnp.arange(num)

    def evaluate(params, carry, batch, key):
        strict = matrix @ params - bound
        proxy = strict if noise is None else (matrix + jnp.asarray(noise)) @ params - bound
        return constraints.Evaluation(
            loss=scale * jnp.sum(params**2),
            proxy=proxy[order],
            strict=jax.lax.stop_gradient(strict)[order],
            index=order if kind == "indexed" else None,
            features=jnp.eye(num)[order] if kind == "implicit" else None,
        )

    return evaluate


def space_of(kind, equality):
    num = len(equality)
    if kind == "implicit":
        # One network for all constraints has one sign rule for all: here two, put together by hand.
        both = constraints.implicit(lambda: jnp.zeros(num), lambda w, f: f @ w, equality=bool(equality.all()))
        return both
    return getattr(constraints, kind)(num, equality=equality)


def run(evaluate, dim, steps, **options):
    solver = constraints.solver(evaluate, **options)
    state, info = jax.jit(lambda s: jax.lax.scan(lambda s, _: solver.step(s), s, length=steps))(
        solver.init(jnp.zeros(dim))
    )
    return state, jax.tree.map(lambda leaf: leaf[-1], info)


SHAPES = [
    ("dense", (2, 1, 1)),
    ("dense", (7, 4, 2)),
    ("dense", (50, 12, 8)),
    ("indexed", (2, 1, 1)),
    ("indexed", (50, 12, 8)),
]


@pytest.mark.parametrize(("kind", "shape"), SHAPES, ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["lagrangian", "augmented", "multiplier_method"])
def test_every_order_reaches_the_exact_pair(name, order, kind, shape):
    matrix, bound, equality, x, z = program(*shape, seed=sum(shape))
    formulation, dual = {
        "lagrangian": (constraints.lagrangian(), optax.sgd(0.1)),
        "augmented": (constraints.augmented_lagrangian(1.0), optax.sgd(0.1)),
        "multiplier_method": (
            constraints.augmented_lagrangian(0.2, dual_step=True),
            optax.sgd(1.0),
        ),
    }[name]
    state, info = run(
        evaluation_of(matrix, bound, kind=kind), len(x), 3000,
        multipliers=space_of(kind, equality), primal=optax.sgd(0.05), dual=dual, formulation=formulation, order=order,
    )  # fmt: skip
    # Float32 leaves about 1e-6; the contraction of 3,000 steps is far below it.
    np.testing.assert_allclose(state.params, x, atol=1e-4)
    np.testing.assert_allclose(state.multipliers, z, atol=1e-4)
    assert max(info.kkt) < 1e-4


@pytest.mark.parametrize("num", [(3, 0), (0, 3)], ids=["inequalities", "equalities"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_network_of_multipliers_with_one_weight_each_reaches_it_too(order, num):
    matrix, bound, equality, x, z = program(6, *num, seed=3)
    state, _ = run(
        evaluation_of(matrix, bound, kind="implicit"), 6, 3000, order=order,
        multipliers=space_of("implicit", equality), primal=optax.sgd(0.05), dual=optax.sgd(0.1),
    )  # fmt: skip
    np.testing.assert_allclose(state.params, x, atol=1e-4)
    multipliers = np.asarray(state.multipliers)
    np.testing.assert_allclose(multipliers if num[1] else np.maximum(multipliers, 0), z, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_normalised_multipliers_reach_it_where_they_sum_to_less_than_one(order):
    matrix, bound, equality, x, z = program(6, 3, 2, seed=5)
    scale = 0.5 / np.abs(z).sum()  # the multipliers grow with the loss: now they sum to a half
    state, info = run(
        evaluation_of(matrix, bound, scale=scale), 6, 20_000, order=order,
        multipliers=constraints.dense(5, equality=equality), primal=optax.sgd(0.2), dual=optax.sgd(0.02),
        formulation=constraints.normalized_lagrangian(),
    )  # fmt: skip
    np.testing.assert_allclose(state.params, x, atol=1e-4)
    np.testing.assert_allclose(info.weights, scale * z, atol=1e-4)  # mu, and with it KKT
    assert max(info.kkt) < 1e-4
    np.testing.assert_allclose(state.multipliers, 2 * scale * z, atol=1e-3)  # mu / (1 - 1/2)


@pytest.mark.parametrize("order", ORDERS)
def test_a_growing_quadratic_penalty_reaches_it_to_one_part_in_a_thousand(order):
    """Its minimum misses every active constraint by lambda / c: 0.001 at c = 1,000 and multipliers up to 1."""
    matrix, bound, equality, x, z = program(6, 3, 2, seed=5)
    penalty = constraints.penalties.multiplicative(1.0, growth=1.001, tolerance=0.0, maximum=4000.0)
    # The curvature is up to 2 + 6.25 c, so the step must shrink as c grows.
    state, _ = run(
        evaluation_of(matrix, bound), 6, 45_000, order=order,
        multipliers=constraints.dense(5, equality=equality), primal=optax.sgd(3e-5), dual=optax.sgd(1.0),
        formulation=constraints.quadratic_penalty(penalty),
    )  # fmt: skip
    np.testing.assert_allclose(state.params, x, atol=1e-3)
    np.testing.assert_array_equal(state.multipliers, 0.0)
    weight = float(state.penalties) * (matrix @ np.asarray(state.params) - bound)
    # The multipliers that the penalty stands for.
    np.testing.assert_allclose(np.where(equality, weight, np.maximum(weight, 0)), z, rtol=0.02, atol=0.02)


JOINT = {
    "sgd": lambda: optax.sgd(0.03),
    "omega": lambda: optim.omega(0.03),
    "optimistic_gradient": lambda: optim.optimistic_gradient(0.05),
    "nupi": lambda: optim.nupi(0.03, proportional=1.0),
    "extragradient": lambda: optim.extragradient(0.05),
    "consensus": lambda: optim.consensus(0.03, 0.1),
    "symplectic_adjustment": lambda: optim.symplectic_adjustment(0.02),
    "competitive_gradient": lambda: optim.competitive_gradient(0.05),
}


@pytest.mark.parametrize("num", [(3, 2), (0, 3)], ids=["both kinds", "equalities"])
@pytest.mark.parametrize("name", JOINT)
def test_joint_optimizers_reach_the_exact_pair(name, num):
    matrix, bound, equality, x, z = program(6, *num, seed=5)

    def evaluate(params, carry, batch, key):
        violation = jnp.asarray(matrix, jnp.float32) @ params - jnp.asarray(bound, jnp.float32)
        return constraints.Evaluation(loss=jnp.sum(params**2), proxy=violation, strict=violation)

    state, _ = run(
        evaluate,
        6,
        6000,
        multipliers=constraints.dense(len(z), equality=equality),
        joint=JOINT[name](),
    )
    if name in ("consensus", "symplectic_adjustment") and num[0]:
        # They also descend |F|^2, which an inactive inequality keeps from 0: they end elsewhere, as their page says.
        assert np.abs(np.asarray(state.params) - x).max() > 1e-2
        return
    np.testing.assert_allclose(state.params, x, atol=1e-4)
    np.testing.assert_allclose(state.multipliers, z, atol=1e-4)


def test_a_joint_sgd_is_the_simultaneous_order_bit_for_bit():
    matrix, bound, equality, _, _ = program(6, 3, 2, seed=5)
    evaluate, space = evaluation_of(matrix, bound), constraints.dense(5, equality=equality)
    both, _ = run(evaluate, 6, 50, multipliers=space, joint=optax.sgd(0.03))
    apart, _ = run(
        evaluate, 6, 50, multipliers=space, primal=optax.sgd(0.03), dual=optax.sgd(0.03), order="simultaneous"
    )  # fmt: skip
    chex.assert_trees_all_equal(both.params, apart.params)
    chex.assert_trees_all_equal(both.multipliers, apart.multipliers)


@pytest.mark.parametrize("order", ORDERS)
def test_noisy_surrogates_still_end_feasible(order):
    """The direction is wrong, the judgement is not: x is no longer optimal, but it is feasible."""
    matrix, bound, equality, x, _ = program(6, 3, 2, seed=5)
    noise = 0.3 * np.random.default_rng(0).normal(size=matrix.shape).astype(np.float32)
    state, info = run(
        evaluation_of(matrix, bound, noise=noise), 6, 6000, order=order,
        multipliers=constraints.dense(5, equality=equality), primal=optax.sgd(0.05), dual=optax.sgd(0.05),
    )  # fmt: skip
    assert info.kkt.feasibility < 5e-4
    assert np.abs(np.asarray(state.params) - x).max() > 1e-3


# --- special programmes --------------------------------------------------------------------------------------------


def small(matrix, bound, **options):
    defaults = {
        "multipliers": constraints.dense(len(bound)),
        "primal": optax.sgd(0.05),
        "dual": optax.sgd(0.1),
    }
    return run(evaluation_of(np.array(matrix), np.array(bound)), 2, 4000, **defaults | options)


@pytest.mark.parametrize("order", ORDERS)
def test_degenerate_inactive_and_redundant_constraints(order):
    # Through the unconstrained minimum: active with multiplier 0.
    state, _ = small([[1.0, 1.0]], [0.0], order=order)
    np.testing.assert_allclose(state.params, 0.0, atol=1e-6)
    np.testing.assert_allclose(state.multipliers, 0.0, atol=1e-6)
    # Far from it, and violated at the start of nothing: inactive.
    state, _ = small([[1.0, 0.0]], [3.0], order=order)
    np.testing.assert_array_equal(state.multipliers, 0.0)
    # -x_0 <= -1 twice: the multipliers share 2 between them.
    state, _ = small([[-1.0, 0.0], [-1.0, 0.0]], [-1.0, -1.0], order=order)
    np.testing.assert_allclose(state.params, [1.0, 0.0], atol=1e-4)
    assert float(state.multipliers.sum()) == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_of_an_infeasible_problem_the_multipliers_grow_and_info_says_so(order):
    """x_0 <= -1 and x_0 >= 1. The violations are 1 each at best, so each multiplier grows by the dual rate."""
    infeasible = [[1.0, 0.0], [-1.0, 0.0]], [-1.0, -1.0]
    state, info = small(*infeasible, order=order)
    np.testing.assert_allclose(state.multipliers, 0.1 * 4000, rtol=1e-2)
    assert info.kkt.feasibility == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_array_less(50.0, info.multipliers)
    state, info = small(*infeasible, order=order, multipliers=constraints.dense(2, maximum=5.0))
    np.testing.assert_array_equal(state.multipliers, 5.0)
    assert info.kkt.feasibility == pytest.approx(1.0, abs=1e-4)


# --- a step, by hand -----------------------------------------------------------------------------------------------


def bent(params, carry, batch, key):
    """min x^2 + y^2 s.t. 1 - x - 2y + x y <= 0, whose strict value is a quarter above the proxy."""
    proxy = 1.0 - params[0] - 2.0 * params[1] + params[0] * params[1]
    return constraints.Evaluation(
        loss=jnp.sum(params**2), proxy=proxy[None], strict=proxy[None] + 0.25, carry=carry + 1
    )


def field_by_hand(x, weight):
    return np.array([2 * x[0] + weight * (x[1] - 1), 2 * x[1] + weight * (x[0] - 2)])


def strict_by_hand(x):
    return 1.25 - x[0] - 2 * x[1] + x[0] * x[1]


@pytest.mark.parametrize("penalty", [0.0, 0.5])
@pytest.mark.parametrize("order", [*ORDERS, "joint_extragradient"])
def test_two_steps_by_hand(order, penalty):
    """With an augmented Lagrangian, which at 0 is the plain one."""
    eta, eta_dual = 0.25, 0.5  # exact in binary, as are most products below
    joint = order == "joint_extragradient"
    optimizers = (
        {"joint": optim.extragradient({"params": eta, "multipliers": eta_dual})}
        if joint
        else {"primal": optax.sgd(eta), "dual": optax.sgd(eta_dual), "order": order}
    )
    solver = constraints.solver(
        bent,
        multipliers=constraints.dense(1),
        formulation=constraints.augmented_lagrangian(penalty),
        **optimizers,
    )
    state = solver.init(jnp.array([0.5, -0.5]), jnp.zeros((), jnp.int32))
    x, lam = np.array([0.5, -0.5]), 0.25 * 0

    def weight(lam, x):
        return max(0.0, lam + penalty * strict_by_hand(x))

    def up(lam, x):
        return max(0.0, lam + eta_dual * strict_by_hand(x))

    for _ in range(2):
        state, _ = solver.step(state)
        if order == "dual_primal":
            lam = up(lam, x)
            x = x - eta * field_by_hand(x, weight(lam, x))
        elif order == "simultaneous":
            x, lam = x - eta * field_by_hand(x, weight(lam, x)), up(lam, x)
        elif order == "primal_dual":
            x = x - eta * field_by_hand(x, weight(lam, x))
            lam = up(lam, x)
        else:
            half, half_lam = x - eta * field_by_hand(x, weight(lam, x)), up(lam, x)
            x, lam = x - eta * field_by_hand(half, weight(half_lam, half)), up(lam, half)
        np.testing.assert_allclose(state.params, x, rtol=1e-6)
        np.testing.assert_allclose(state.multipliers, [lam], rtol=1e-6)
    assert int(state.carry) == 2  # further evaluations leave no carry
    assert int(state.step) == 2


# --- laws of the formulations --------------------------------------------------------------------------------------

FORMULATIONS = {
    "lagrangian": constraints.lagrangian,
    "normalized_lagrangian": constraints.normalized_lagrangian,
    "augmented_lagrangian": lambda: constraints.augmented_lagrangian(2.0),
    "augmented_lagrangian of each": lambda: constraints.augmented_lagrangian(np.array([0.0, 1.0, 3.0])),
    "augmented_lagrangian at 0": lambda: constraints.augmented_lagrangian(0.0),
    "quadratic_penalty": lambda: constraints.quadratic_penalty(2.0),
    "quadratic_penalty at 0": lambda: constraints.quadratic_penalty(0.0),
}
SPACES = {
    "inequalities": constraints.dense(3),
    "equalities": constraints.dense(3, equality=True),
    "capped": constraints.dense(3, maximum=1.5),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", FORMULATIONS)
def test_the_weights_are_the_gradient_of_the_value(name, space):
    """Where the projection has corners the derivative is one-sided; random points meet none."""
    formulation, penalties = FORMULATIONS[name](), FORMULATIONS[name]().init(3)

    found = constraints.Evaluation(jnp.zeros(()), jnp.zeros(3), jnp.zeros(3))
    onto = SPACES[space].violation if formulation.of_violation else SPACES[space].project

    def project(rows):
        return onto(rows, found)

    rng = np.random.default_rng(0)
    for _ in range(20):
        multipliers = SPACES[space].project(jnp.asarray(rng.normal(size=3), jnp.float32), found)
        violation = jnp.asarray(rng.normal(size=3), jnp.float32)
        by_hand = formulation.weights(multipliers, violation, penalties, project)
        by_jax = jax.grad(lambda v, m=multipliers: jnp.sum(formulation.value(m, v, penalties, project)))(violation)
        np.testing.assert_allclose(by_jax, by_hand, rtol=1e-5, atol=1e-6)
        assert np.isfinite(formulation.value(multipliers, violation, penalties, project)).all()


def test_at_penalty_zero_the_augmented_lagrangian_is_the_lagrangian():
    """Cooper divides by the penalty there, and gives nan (its issue 106)."""
    ours, plain = constraints.augmented_lagrangian(0.0), constraints.lagrangian()
    multipliers, violation = jnp.array([0.0, 1.0, 2.0]), jnp.array([-1.0, -2.0, 3.0])
    for name in ("value", "weights"):
        a = getattr(ours, name)(multipliers, violation, ours.init(3), jax.nn.relu)
        b = getattr(plain, name)(multipliers, violation, (), jax.nn.relu)
        np.testing.assert_array_equal(a, b)


def test_the_value_is_the_textbooks():
    """N&W 17.65 for inequalities, 17.36 for equalities, where the penalty is above 0."""
    ours, c = constraints.augmented_lagrangian(2.0), 2.0
    multipliers, violation = np.array([0.0, 1.0, 2.0, 3.0]), np.array([-1.0, -2.0, 3.0, 0.5])
    value = ours.value(jnp.asarray(multipliers), jnp.asarray(violation), ours.init(4), jax.nn.relu)
    textbook = (np.maximum(0, multipliers + c * violation) ** 2 - multipliers**2) / (2 * c)
    np.testing.assert_allclose(value, textbook, rtol=1e-6)
    value = ours.value(jnp.asarray(multipliers), jnp.asarray(violation), ours.init(4), lambda m: m)
    np.testing.assert_allclose(value, multipliers * violation + c / 2 * violation**2, rtol=1e-6)


# --- penalties -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_constraint", [False, True])
@pytest.mark.parametrize("name", ["multiplicative", "additive"])
def test_penalties_grow_while_violated_and_restart_when_satisfied(name, per_constraint):
    grow = {"multiplicative": lambda c: 2.0 * c, "additive": lambda c: c + 3.0}[name]
    size = {"multiplicative": {"growth": 2.0}, "additive": {"increment": 3.0}}[name]
    make = getattr(constraints.penalties, name)
    seen = [([1.0, 0.0], [True, True]), ([1.0, 9.0], [True, False]), ([0.0, 0.0], [True, True])]
    for restart in (False, True):
        penalty = make(1.0, restart=restart, per_constraint=per_constraint, maximum=7.0, **size)
        state, by_hand = penalty.init(2), np.ones(2 if per_constraint else ())
        for violation, observed in seen + seen[:1] * 3:
            state = penalty.update(state, jnp.array(violation), jnp.array(observed))
            if per_constraint:
                for k in range(2):
                    if observed[k] and violation[k] > 1e-4:
                        by_hand[k] = min(grow(by_hand[k]), 7.0)
                    elif observed[k] and restart:
                        by_hand[k] = 1.0
            elif any(v > 1e-4 for v, o in zip(violation, observed, strict=True) if o):
                by_hand = np.minimum(grow(by_hand), 7.0)
            elif restart:
                by_hand = np.ones(())
            np.testing.assert_array_equal(penalty.value(state), by_hand)


def test_by_feasibility_waits_and_compares():
    penalty = constraints.penalties.by_feasibility(1.0, growth=10.0, shrink=0.5, every=2, per_constraint=True)
    state, values = penalty.init(2), []
    violations = [(8.0, 8.0), (8.0, 8.0), (1.0, 8.0), (1.0, 8.0), (0.9, 1.0), (0.9, 1.0)]
    for violation in violations:
        state = penalty.update(state, jnp.array(violation), jnp.array([True, True]))
        values.append(tuple(np.asarray(penalty.value(state)).tolist()))
    # Looks at the 2nd (nothing to compare with), the 4th (8 to 1, 8 to 8) and the 6th (1 to 0.9, 8 to 1).
    assert values == [(1, 1), (1, 1), (1, 1), (1, 10), (1, 10), (10, 10)]


def test_penalties_of_each_are_read_at_the_rows():
    """Indexed multipliers with one penalty per constraint: only the named ones grow."""

    def evaluate(params, carry, batch, key):
        return constraints.Evaluation(loss=jnp.sum(params**2), proxy=params[:2] + 1, strict=params[:2] + 1, index=batch)

    penalty = constraints.penalties.multiplicative(1.0, growth=2.0, per_constraint=True)
    solver = constraints.solver(
        evaluate, multipliers=constraints.indexed(5), primal=optax.sgd(0.0), dual=optax.sgd(0.1),
        formulation=constraints.augmented_lagrangian(penalty, dual_step=True),
    )  # fmt: skip
    state = solver.init(jnp.zeros(2))
    for rows in ([4, 1], [1, 5], [1, 2]):
        state, _ = solver.step(state, jnp.array(rows))
    np.testing.assert_array_equal(state.penalties, [1, 8, 2, 1, 2])
    np.testing.assert_allclose(state.multipliers, [0, 0.1 * (1 + 2 + 4), 0.1, 0, 0.1], rtol=1e-6)


# --- kinds of multipliers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dual", [optax.sgd(0.1), optax.sgd(0.1, momentum=0.5), optax.adam(0.1)])
def test_indexed_equals_dense_and_touches_only_what_it_names(dual):
    """A random subset of the constraints each step; dense multipliers see the same through their masks."""
    matrix, bound, equality, _, _ = program(8, 4, 3, seed=1)
    matrix, bound = jnp.asarray(matrix, jnp.float32), jnp.asarray(bound, jnp.float32)

    def some(params, carry, batch, key):
        violation = (matrix @ params - bound).at[batch].get(mode="fill", fill_value=0.0)
        return constraints.Evaluation(jnp.sum(params**2), violation, violation, index=batch)

    def all_of_them(params, carry, batch, key):
        violation = matrix @ params - bound
        named = jnp.zeros(7, bool).at[batch].set(True, mode="drop")
        return constraints.Evaluation(
            jnp.sum(params**2), violation, violation, proxy_observed=named, strict_observed=named
        )

    pair = [
        constraints.solver(evaluate, multipliers=make(7, equality=equality), primal=optax.sgd(0.05), dual=dual)
        for evaluate, make in ((some, constraints.indexed), (all_of_them, constraints.dense))
    ]
    ours, theirs = (solver.init(jnp.zeros(8)) for solver in pair)
    rng = np.random.default_rng(0)
    for _ in range(30):
        before = ours
        # The last row stands for nothing.
        rows = np.append(rng.choice(7, 3, replace=False), 7)
        ours, theirs = (
            jax.jit(solver.step)(state, jnp.asarray(rows))[0]
            for solver, state in zip(pair, (ours, theirs), strict=True)
        )
        rest = np.setdiff1d(np.arange(7), rows)
        untouched, still = (jax.tree.map(lambda a, r=rest: a[r], (s.multipliers, s.dual_state)) for s in (before, ours))
        chex.assert_trees_all_equal(untouched, still)
        # The sum over the constraints is over four terms here and over seven there.
        chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_restart_forgets_when_satisfied():
    def evaluate(params, carry, batch, key):
        return constraints.Evaluation(params**2, batch * params, batch)

    solver = constraints.solver(
        evaluate, multipliers=constraints.dense(2, equality=np.array([False, True]), restart=True),
        primal=optax.sgd(0.0), dual=optax.sgd(1.0, momentum=0.5),
    )  # fmt: skip
    state, seen = solver.init(jnp.ones(())), []
    for strict in (1.0, 1.0, -0.25, 1.0):
        state, _ = solver.step(state, jnp.full(2, strict))
        seen.append(tuple(np.asarray(state.multipliers).tolist()))
    # With momentum the second step is 1.5. The inequality begins again; the equality is never "satisfied" by a sign.
    assert seen[:3] == [(1.0, 1.0), (2.5, 2.5), (0.0, 3.0)]
    assert seen[3] == (1.0, 3.0 + 1.0 + 0.5 * (-0.25 + 0.5 * 1.5))


def test_constraints_may_speak_to_one_player_only_or_at_another_frequency():
    """The true constraint is known every third step; the proxy is always; a third constraint only moves the weights."""

    def evaluate(params, carry, batch, key):
        violation = jnp.stack([params + 1, params + 2])
        return constraints.Evaluation(
            loss=params**2,
            proxy=violation,
            strict=violation,
            proxy_observed=jnp.array([True, False]),
            strict_observed=jnp.stack([carry % 3 == 0, jnp.array(True)]),
            carry=carry + 1,
        )

    solver = constraints.solver(evaluate, multipliers=constraints.dense(2), primal=optax.sgd(0.25), dual=optax.sgd(0.5))
    state, x, lam = solver.init(jnp.zeros(()), jnp.zeros((), jnp.int32)), 0.0, np.zeros(2)
    for t in range(7):
        state, info = solver.step(state)
        lam = lam + 0.5 * np.array([(x + 1) * (t % 3 == 0), x + 2])
        lam = np.maximum(lam, 0)
        x = x - 0.25 * (2 * x + lam[0])
        np.testing.assert_allclose(state.multipliers, lam, rtol=1e-6)
        np.testing.assert_allclose(state.params, x, rtol=1e-6)
        assert float(info.weights[1]) == 0.0


# --- one compilation, many seeds, and going on ---------------------------------------------------------------------

SOLVERS = {
    "dense": lambda: {"multipliers": constraints.dense(5), "dual": optax.sgd(0.1, momentum=0.5)},
    "indexed": lambda: {"multipliers": constraints.indexed(5), "dual": optax.adam(0.1)},
    "implicit": lambda: {
        "multipliers": constraints.implicit(lambda: jnp.zeros(5), lambda w, f: f @ w),
        "dual": optax.adam(0.1),
    },
    "growing penalty": lambda: {
        "multipliers": constraints.dense(5),
        "dual": optax.sgd(0.1),
        "formulation": constraints.augmented_lagrangian(
            constraints.penalties.by_feasibility(0.1, every=10, maximum=5.0)
        ),
    },
    "extragradient": lambda: {
        "multipliers": constraints.dense(5),
        "dual": optim.nupi(0.1),
        "order": "extragradient",
    },
    "joint": lambda: {"multipliers": constraints.dense(5), "joint": optim.omega(0.02)},
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.slow
def test_one_compilation_mapped_seeds_and_a_checkpoint_half_way(name, tmp_path):
    matrix, bound, _, _, _ = program(6, 5, 0, seed=2)
    kind = name if name in ("indexed", "implicit") else "dense"
    options = SOLVERS[name]()
    if "joint" not in options:
        options["primal"] = optax.sgd(0.05, momentum=0.5)
    solver = constraints.solver(evaluation_of(matrix, bound, kind=kind), **options)
    traced = 0

    def hundred(state):
        nonlocal traced
        traced += 1
        return jax.lax.scan(lambda s, _: (solver.step(s)[0], None), state, length=100)[0]

    starts = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)), jnp.float32)
    lanes = jax.vmap(solver.init)(starts)
    mapped = jax.jit(jax.vmap(hundred))
    half = mapped(lanes)
    whole = mapped(half)
    assert traced == 1
    alone = jax.jit(hundred)(jax.jit(hundred)(solver.init(starts[1])))
    # Products of matrices are summed in another order under vmap.
    chex.assert_trees_all_close(alone, jax.tree.map(lambda leaf: leaf[1], whole), rtol=1e-4, atol=1e-5)

    with train.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(100, half)
        step, again = checkpoints.restore(jax.tree.map(jnp.zeros_like, half))
    assert step == 100
    chex.assert_trees_all_equal(mapped(again), whole)


# --- what is refused -----------------------------------------------------------------------------------------------


def made(**options):
    defaults = {
        "multipliers": constraints.dense(2),
        "primal": optax.sgd(0.1),
        "dual": optax.sgd(0.1),
    }
    return constraints.solver(evaluation_of(np.eye(2), np.ones(2)), **defaults | options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: made(order="both"), "order='both'"),
        (lambda: made(dual=None), "give primal= and dual="),
        (lambda: made(joint=optax.sgd(0.1)), "give neither primal="),
        (
            lambda: made(multipliers=constraints.indexed(2), primal=None, dual=None, joint=optax.sgd(0.1)),
            "joint= needs all multipliers",
        ),
        (
            lambda: made(multipliers=constraints.indexed(2), formulation=constraints.normalized_lagrangian()),
            "by the multipliers of all others",
        ),
        (lambda: constraints.dense(2, maximum=0.0), "maximum=0.0"),
        (lambda: constraints.dense(2, initial=2.0, maximum=1.0), "beyond maximum=1.0"),
        (lambda: constraints.augmented_lagrangian(-1.0), "coefficient=-1.0"),
        (lambda: constraints.penalties.multiplicative(1.0, growth=0.5), "growth=0.5"),
        (lambda: constraints.penalties.additive(1.0, increment=-1.0), "increment=-1.0"),
        (lambda: constraints.penalties.additive(1.0, tolerance=-1.0), "tolerance=-1.0"),
        (lambda: constraints.penalties.by_feasibility(1.0, shrink=2.0), "shrink=2.0"),
        (lambda: constraints.penalties.by_feasibility(1.0, every=0), "every=0"),
        (lambda: constraints.penalties.constant(np.ones(3)).init(2), "for 2 constraints"),
        (
            lambda: constraints.penalties.constant(1.0, per_constraint=True).init(None),
            "stored one by one",
        ),
        (
            lambda: made(multipliers=constraints.indexed(2)).step(
                made(multipliers=constraints.indexed(2)).init(jnp.zeros(2))
            ),
            "needs Evaluation.index",
        ),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
