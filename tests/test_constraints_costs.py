"""Costs of mistakes: influences add up, the Lagrangian is reweighted cross entropy, and units can be changed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints
from jaxfair.constraints import rates
from jaxfair.typing import Batch

NUM, NUM_GROUPS = 48, 3
FAMILIES = [rates.demographic_parity, rates.equalized_odds]
BOTH = {"num_groups": NUM_GROUPS, "num_classes": 2}


def apply(params, state, x, *, train, key=None):
    return x @ params, state


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    return Batch(
        x=rng.normal(size=(NUM, 4)).astype(np.float32),
        y=rng.integers(2, size=NUM).astype(np.int32),
        group=rng.integers(NUM_GROUPS, size=NUM).astype(np.int32),
        index=np.arange(NUM, dtype=np.int32),
        weight=np.ones(NUM, np.float32),
    )


@pytest.fixture
def params():
    return jnp.array(np.random.default_rng(1).normal(size=(4, 2)), jnp.float32)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_influences_of_those_predicted_1_add_up_to_the_constraints(family, split):
    prediction = np.random.default_rng(2).integers(2, size=NUM)
    bounds = family(0.0, num_groups=NUM_GROUPS)
    wanted = rates.measure(bounds, prediction, split.y, split.group, **BOTH).value
    found = rates.influence(bounds, split, num_groups=NUM_GROUPS) @ prediction
    # float32: shares of up to 48 people, added.
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_influences_know_padding_unknown_groups_and_empty_conditions(split):
    bounds = [rates.true_positive(group=0) - rates.error(group=(1, 2)) <= 0.1]
    strange = split._replace(weight=np.where(split.index < 9, 0, 1), group=np.where(split.index < 18, -1, split.group))
    found = rates.influence(bounds, strange, num_groups=NUM_GROUPS)[0]
    assert np.abs(found[:18]).max() == 0
    members = (strange.group == 0) & (split.y == 1)
    np.testing.assert_allclose(found[members], 1 / members.sum(), rtol=1e-6)
    others = strange.group > 0
    # Predicting 1 for somebody of class 0 is one more error, which counts against.
    np.testing.assert_allclose(found[others], (2 * split.y[others] - 1) / others.sum(), rtol=1e-6)
    nobody = rates.influence(bounds, split._replace(y=np.zeros(NUM, int)), num_groups=NUM_GROUPS)
    assert np.abs(nobody[0, split.group == 0]).max() == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_expected_is_measure_of_hard_predictions_and_linear(family, split):
    rng = np.random.default_rng(3)
    chosen = [rates.accuracy(), rates.error(group=1), *family(0.25, num_groups=NUM_GROUPS)]
    first, second = rng.integers(2, size=(2, NUM)).astype(float)
    wanted = rates.measure(chosen, first.astype(int), split.y, split.group, **BOTH).value
    found = [
        rates.expected(chosen, p, split, num_groups=NUM_GROUPS) for p in (first, second, 0.25 * first + 0.75 * second)
    ]
    np.testing.assert_allclose(found[0], wanted, atol=1e-6)  # float32
    np.testing.assert_allclose(found[2], 0.25 * found[0] + 0.75 * found[1], atol=1e-12)
    nobody = rates.expected([rates.accuracy(group=5)], first, split, num_groups=6)
    assert np.isnan(nobody).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cost_proxy_is_reweighted_cross_entropy(family, split):
    """Its Lagrangian has the gradient of cross entropy with each person's weight moved by the multipliers."""
    rng = np.random.default_rng(1)
    y, logits = jnp.array(split.y), jnp.array(rng.normal(size=(NUM, 2)), jnp.float32)
    influence = jnp.array(rates.influence(family(0.0, num_groups=NUM_GROUPS), split, num_groups=NUM_GROUPS))
    multipliers = jnp.array(rng.random(len(influence)), jnp.float32)

    def each(logits):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]

    def lagrangian(logits):
        return each(logits).mean() + multipliers @ rates.cost_proxy(logits, y, influence)

    weight = 1 / NUM + (1 - 2 * y) * (multipliers @ influence)
    np.testing.assert_allclose(
        jax.grad(lagrangian)(logits),
        jax.grad(lambda logits: weight @ each(logits))(logits),
        atol=1e-7,  # float32, of numbers up to 0.1
    )


@pytest.mark.slow
def test_costs_of_batches_are_those_of_the_split_on_average(split, params):
    """With padding that holds infinities; strict values stay those of the problem."""
    bounds = rates.equalized_odds(0.1, num_groups=NUM_GROUPS)
    plain = rates.problem(apply, bounds, memory="batch", **BOTH)
    influence = rates.influence(bounds, split, num_groups=NUM_GROUPS)
    problem = rates.costs(plain, apply, influence)
    carry = problem.init({}, None, split)
    evaluate = jax.jit(problem.evaluate)
    whole = evaluate(params, carry, split, None)
    order = np.random.default_rng(4).permutation(NUM).reshape(4, -1)
    found = []
    for index in order:
        batch = jax.tree.map(lambda a, i=index: np.concatenate([a[i], a[:1]]), split)
        batch.x[-1], batch.weight[-1] = np.inf, 0
        found.append(evaluate(params, carry, batch, None).proxy)
    np.testing.assert_allclose(np.mean(found, axis=0), whole.proxy, atol=1e-6)
    logits = split.x @ params
    np.testing.assert_allclose(whole.proxy, rates.cost_proxy(logits, split.y, influence), atol=1e-6)
    np.testing.assert_array_equal(whole.strict, jax.jit(plain.evaluate)(params, carry, split, None).strict)


def test_what_costs_cannot_say_is_refused(split):
    with pytest.raises(ValueError, match="precision is no sum over people"):
        rates.influence([rates.precision() >= 0.5], split, num_groups=NUM_GROUPS)
    problem = rates.problem(apply, [rates.error() <= 0.5], **BOTH)
    with pytest.raises(ValueError, match=r"influence of shape \(2, 5\): give one row for each of 1"):
        rates.costs(problem, apply, np.zeros((2, 5)))


def test_scaled_constraints_are_dual_rates_by_the_square():
    """Against the steps by hand; and lanes of one program may each have their own units."""
    rng = np.random.default_rng(5)
    A, bound, goal = rng.normal(size=(3, 4)), np.full(3, -0.5), rng.normal(size=4)

    def evaluate(params, carry, batch, key):
        violation = jnp.asarray(A, jnp.float32) @ params - bound
        return constraints.Evaluation(
            0.5 * jnp.sum((params - goal) ** 2), violation, violation, strict_error=jnp.ones(3)
        )

    problem = constraints.Problem(3, False, lambda *_: (), evaluate, bound=bound)

    def run(scale):
        changed = constraints.scaled(problem, scale)
        solver = constraints.solver(changed, primal=optax.sgd(0.1), dual=optax.sgd(0.5))
        state, _ = jax.lax.scan(lambda s, _: solver.step(s), solver.init(jnp.zeros(4)), length=9)
        return state.params, scale * state.multipliers

    scales = rng.uniform(0.3, 1.5, size=(2, 3)).astype(np.float32)
    found = jax.jit(jax.vmap(run))(scales)
    for lane, scale in enumerate(scales):
        params, multipliers = np.zeros(4), np.zeros(3)
        for _ in range(9):
            multipliers = np.maximum(multipliers + 0.5 * scale**2 * (A @ params - bound), 0.0)
            params = params - 0.1 * (params - goal + A.T @ multipliers)
        assert multipliers.max() > 0
        np.testing.assert_allclose(found[0][lane], params, atol=1e-5)  # float32, nine steps
        np.testing.assert_allclose(found[1][lane], multipliers, atol=1e-5)
    changed = constraints.scaled(problem, scales[0])
    seen = changed.evaluate(jnp.ones(4), (), None, None)
    np.testing.assert_allclose(seen.strict + changed.bound, scales[0] * (A @ np.ones(4)), atol=1e-6)
    np.testing.assert_allclose(seen.strict_error, scales[0])
    with pytest.raises(ValueError, match="scale=0: give numbers above 0"):
        constraints.scaled(problem, 0)
