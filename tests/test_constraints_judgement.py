"""How sure an estimate is, on whom it is taken, and which iterate is kept."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from jaxfair import constraints, optim
from jaxfair.typing import Batch

G, N = 4, 200
RNG = np.random.default_rng(0)
GROUP = RNG.integers(G, size=N)
GROUP[GROUP == 3] = 2
GROUP[0] = 3  # of which there is one
LOSS = RNG.exponential(size=N).astype(np.float32)


def batch_of(index, weight=None):
    index = np.asarray(index)
    weight = np.ones(len(index), np.float32) if weight is None else np.asarray(weight, np.float32)
    return Batch(None, None, GROUP[index], index, weight)


# --- standard errors -----------------------------------------------------------------------------------------------


def expected(values, effective=None):
    """s / sqrt(n) of a sample."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return np.inf
    return values.std(ddof=1) / np.sqrt(len(values))


@pytest.mark.slow
def test_minibatch_and_example_memory_and_ring_know_their_errors():
    index = RNG.permutation(N)[:80]
    seen = {g: LOSS[index][GROUP[index] == g] for g in range(G)}

    memory = constraints.minibatch(G)
    state = memory.push(memory.init(GROUP, LOSS, np.ones(N)), batch_of(index), LOSS[index])
    # Float32 sums of squares of about 100 numbers: six digits, five after the subtraction.
    np.testing.assert_allclose(memory.standard_errors(state), [expected(seen[g]) for g in range(G)], rtol=1e-4)

    memory = constraints.replay_buffer(G, 7)
    state = memory.push(memory.init(GROUP, LOSS, np.ones(N)), batch_of(index), LOSS[index])
    np.testing.assert_allclose(memory.standard_errors(state), [expected(seen[g][-7:]) for g in range(G)], rtol=1e-4)

    memory = constraints.example_memory(G)
    state = memory.init(GROUP, LOSS, np.ones(N, np.float32))
    new = LOSS.copy()
    for _ in range(5):
        index = RNG.permutation(N)[:80]
        new[index] = RNG.exponential(size=80)
        state = memory.push(state, batch_of(index), new[index])
    np.testing.assert_allclose(memory.standard_errors(state), [expected(new[g == GROUP]) for g in range(G)], rtol=1e-4)


def test_exponential_average_is_the_weighted_mean_of_all_it_saw():
    memory, decay = constraints.exponential_average(G, 0.8), 0.8
    state = memory.init(GROUP, LOSS, np.ones(N))
    values, weights = [[] for _ in range(G)], [[] for _ in range(G)]
    for _ in range(12):
        index = RNG.permutation(N)[:10]
        padding = np.array([1.0] * 8 + [0.0] * 2)
        state = memory.push(state, batch_of(index, padding), LOSS[index])
        for g in range(G):
            new = LOSS[index[:8]][GROUP[index[:8]] == g]
            if len(new):
                weights[g] = [decay * w for w in weights[g]] + [1.0] * len(new)
                values[g] += new.tolist()
    means, observed = memory.group_means(state)
    errors = memory.standard_errors(state)
    for g in range(G):
        assert bool(observed[g]) == bool(values[g])
        if not values[g]:
            assert np.isinf(errors[g])
            continue
        w, v = np.array(weights[g]), np.array(values[g])
        mean = (w @ v) / w.sum()
        np.testing.assert_allclose(means[g], mean, rtol=1e-5)
        size = w.sum() ** 2 / (w**2).sum()
        if size > 1 + 1e-6:
            variance = (w @ v**2) / w.sum() - mean**2
            np.testing.assert_allclose(errors[g], np.sqrt(variance / (size - 1)), rtol=1e-3, atol=1e-4)


def apply(params, state, x, *, train, key=None):
    return x @ params, state


X = RNG.normal(size=(N, 3)).astype(np.float32)
Y = RNG.integers(2, size=N).astype(np.int32)
SPLIT = Batch(*map(jnp.asarray, (X, Y, GROUP, np.arange(N), np.ones(N, np.float32))))
PARAMS = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)
DENSE = constraints.Outcomes(jnp.ones(N), jnp.zeros(N))


@pytest.mark.parametrize("mean", ["prevalence", "uniform"])
@pytest.mark.slow
def test_the_error_of_an_excess_gap_is_that_of_bootstrapped_people(mean):
    """Groups keep their sizes; the group of one person has no error of its own and none that is known."""
    problem = constraints.excess_accuracy_gap(apply, num_groups=G, tolerance=0.0, mean=mean)
    found = problem.evaluate(PARAMS, problem.init({}, DENSE, SPLIT), SPLIT, None)
    correct = (np.argmax(X @ np.asarray(PARAMS), axis=1) == Y).astype(float)
    share = np.bincount(GROUP, minlength=G) / N if mean == "prevalence" else np.full(G, 1 / G)
    rng, draws = np.random.default_rng(1), []
    for _ in range(4000):
        accuracy = np.array([rng.choice(correct[g == GROUP], (g == GROUP).sum()).mean() for g in range(G)])
        draws.append(accuracy - share @ accuracy)
    # 4,000 draws know a standard deviation to 1.1 %; the plain bootstrap divides by n where we divide by n - 1.
    np.testing.assert_allclose(found.strict_error[:3], np.std(draws, axis=0)[:3], rtol=0.05)
    assert np.isinf(found.strict_error[3])


def test_two_sided_and_other_problems_report_errors_too():
    for problem in (
        constraints.two_sided(constraints.excess_accuracy_gap(apply, num_groups=G, tolerance=0.0)),
        constraints.published_excess_accuracy_gap(apply, num_groups=G, tolerance=0.0),
        constraints.accuracy_gap(apply, num_groups=G, tolerance=0.0),
        constraints.equalized_loss(apply, num_groups=G),
    ):
        found = problem.evaluate(PARAMS, problem.init({}, DENSE, SPLIT), SPLIT, None)
        assert found.strict_error.shape == (problem.num_constraints,)
        assert (found.strict_error >= 0).all()


def test_the_error_of_a_share_of_changed_predictions_is_that_of_a_share():
    problem = constraints.churn(apply, num_groups=G, limit=0.0)
    before = np.where(np.arange(N) % 3 == 0, 0, np.argmax(X @ np.asarray(PARAMS), axis=1))
    found = problem.evaluate(PARAMS, problem.init({}, None, SPLIT, prediction=before), SPLIT, None)
    changed = before != np.argmax(X @ np.asarray(PARAMS), axis=1)
    size = np.bincount(GROUP, minlength=G)[:3]  # of the one person in the last group no error is known
    share = np.bincount(GROUP, changed, minlength=G)[:3] / size
    assert (share > 0).all()
    np.testing.assert_allclose(found.strict[:3], share, rtol=1e-6)
    np.testing.assert_allclose(found.strict_error[:3], np.sqrt(share * (1 - share) / (size - 1)), rtol=1e-5)


# --- two data sets, and confidence ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_held_out_takes_each_part_from_its_own_split():
    problem = constraints.excess_accuracy_gap(apply, num_groups=G, tolerance=0.0)
    other = SPLIT._replace(x=-SPLIT.x)
    both = constraints.held_out(problem, problem)
    carry = both.init({}, (DENSE, DENSE), (SPLIT, other))
    found = both.evaluate(PARAMS, carry, (SPLIT, other), None)
    a = problem.evaluate(PARAMS, problem.init({}, DENSE, SPLIT), SPLIT, None)
    b = problem.evaluate(PARAMS, problem.init({}, DENSE, other), other, None)
    for name, source in {"loss": a, "proxy": a, "strict": b, "strict_error": b}.items():
        np.testing.assert_array_equal(getattr(found, name), getattr(source, name))
    # The weights learn nothing from the held-out split, and the solver takes the problem as it is.
    gradient = jax.grad(lambda p: jnp.sum(both.evaluate(p, carry, (SPLIT, other), None).strict))
    np.testing.assert_array_equal(gradient(PARAMS), 0.0)
    solver = constraints.solver(
        both.evaluate, multipliers=constraints.dense(G), primal=optax.sgd(0.1), dual=optax.sgd(0.1)
    )
    state, _ = jax.jit(solver.step)(solver.init(PARAMS, carry), (SPLIT, other))
    np.testing.assert_allclose(state.multipliers, jnp.maximum(0.1 * b.strict, 0.0), rtol=1e-6)


def test_held_out_shares_the_state_of_the_network():
    """The state, here a counter, is the training problem's before and after."""

    def counting(params, state, x, *, train, key=None):
        return x @ params + 0 * state["count"], {"count": state["count"] + 1}

    problem = constraints.accuracy_gap(counting, num_groups=G, tolerance=0.0)
    both = constraints.held_out(problem, problem)
    carry = both.init({"count": jnp.zeros(())}, (DENSE, DENSE), (SPLIT, SPLIT))
    carry = both.evaluate(PARAMS, carry, (SPLIT, SPLIT), None).carry
    assert float(carry.model_state["count"]) == 1.0
    assert float(carry.strict.model_state["count"]) == 1.0


def test_confident_waits_until_a_violation_is_more_than_noise():
    """A network as good as the dense one: violations are noise, which plain multipliers sum up and these do not."""
    truth = jnp.array([0.0, 0.0, 0.2, -0.1])  # the third group is harmed

    def evaluate(params, carry, batch, key):
        noise = 0.05 * jax.random.normal(key, (4,))
        strict = truth + noise
        return constraints.Evaluation(params**2, strict, strict, strict_error=jnp.full(4, 0.05))

    plain = constraints.Problem(4, False, lambda *_: (), evaluate)
    ends = {}
    for name, problem in {"plain": plain, "confident": constraints.confident(plain)}.items():
        solver = constraints.solver(
            problem.evaluate,
            multipliers=constraints.dense(4),
            primal=optax.sgd(0.0),
            dual=optax.sgd(1.0),
        )

        def step(state, key, step=solver.step):
            return step(state, None, key)[0], None

        keys = jax.random.split(jax.random.key(0), 2000)
        state, _ = jax.lax.scan(step, solver.init(jnp.ones(())), keys)
        ends[name] = np.asarray(state.multipliers)
    assert ends["confident"][2] > 100  # 2,000 steps of about 0.2 - 1.645 * 0.05
    # A mean of 0 with noise is a random walk reflected at 0; with confidence its drift is downwards.
    assert (ends["plain"][:2] > 0.5).all()
    assert (ends["confident"][:2] < 0.1).all()
    assert ends["confident"][3] == 0.0


def test_confident_shrinks_equalities_from_both_sides():
    def evaluate(params, carry, batch, key):
        v = jnp.array([0.3, -0.3, 0.1, -0.1, 5.0])
        return constraints.Evaluation(params, v, v, strict_error=jnp.array([0.1] * 4 + [jnp.inf]))

    problem = constraints.confident(constraints.Problem(5, True, lambda *_: (), evaluate), z=2.0)
    strict = problem.evaluate(jnp.ones(()), (), None, None).strict
    np.testing.assert_allclose(strict, [0.1, -0.1, 0, 0, 0], atol=1e-7)
    zero = constraints.confident(constraints.Problem(5, False, lambda *_: (), evaluate), z=0.0)
    np.testing.assert_allclose(zero.evaluate(jnp.ones(()), (), None, None).strict, [0.3, -0.3, 0.1, -0.1, 0])


# --- solutions -----------------------------------------------------------------------------------------------------


def test_best_feasible_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(200):
        losses, violations = rng.normal(size=6).round(1), rng.normal(size=(6, 2)).round(1)
        found = constraints.best_feasible(losses, violations)
        worst = violations.max(axis=1)
        feasible = [t for t in range(6) if worst[t] <= 0]
        if feasible:
            best = min(losses[t] for t in feasible)
            assert found.iterates.tolist() == [max(t for t in feasible if losses[t] == best)]
        else:
            assert found.iterates.tolist() == [max(t for t in range(6) if worst[t] == worst.min())]
        assert found.feasible == bool(feasible)


@pytest.mark.parametrize("num_constraints", [1, 2, 3])
def test_stochastic_is_the_best_mixture_and_a_small_one(num_constraints):
    """Against all vertices: a vertex of the polytope of mixtures uses at most K + 1 iterates."""
    rng = np.random.default_rng(num_constraints)
    seen = set()
    for _ in range(30):
        losses, violations = rng.normal(size=7), rng.normal(size=(7, num_constraints)) + 0.3
        found = constraints.stochastic(losses, violations)
        seen.add(found.feasible)
        assert len(found.iterates) <= num_constraints + 1
        assert found.probabilities.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(found.violations, found.probabilities @ violations[found.iterates])
        best = np.inf
        for size in range(1, num_constraints + 2):
            for support in itertools.combinations(range(7), size):
                for active in itertools.combinations(range(num_constraints), size - 1):
                    rows = np.vstack([np.ones(size), violations[list(support)].T[list(active)]])
                    try:
                        p = np.linalg.solve(rows, np.eye(size)[0])
                    except np.linalg.LinAlgError:
                        continue
                    allowed = (p @ violations[list(support)] <= 1e-9).all() and (p >= -1e-12).all()
                    if allowed:
                        best = min(best, p @ losses[list(support)])
        assert found.feasible == np.isfinite(best)
        if found.feasible:
            assert found.loss == pytest.approx(best, abs=1e-6)
            alone = constraints.best_feasible(losses, violations)
            assert not alone.feasible or found.loss <= alone.loss + 1e-9
    assert seen == {True, False} or num_constraints == 1


def test_iterates_that_diverged_are_never_chosen():
    losses, violations = [np.nan, 1.0, 2.0, -9.0], [[0.0], [0.5], [-0.5], [np.nan]]
    assert constraints.best_feasible(losses, violations).iterates.tolist() == [2]
    found = constraints.stochastic(losses, violations)
    assert found.iterates.tolist() == [1, 2]
    assert found.loss == pytest.approx(1.5)


# --- known cases of the field --------------------------------------------------------------------------------------


def test_the_die_of_maximum_entropy():
    """Jaynes' die: of all dice whose mean is 4.5 the one of largest entropy; p_i is proportional to r^i."""
    faces = np.arange(1.0, 7.0)
    low, high = 0.5, 3.0
    for _ in range(200):
        r = (low + high) / 2
        p = r**faces / (r**faces).sum()
        low, high = (r, high) if p @ faces < 4.5 else (low, r)

    def evaluate(params, carry, batch, key):
        entropy = -jnp.sum(jnp.where(params > 0, params * jnp.log(jnp.maximum(params, 1e-9)), 0.0))
        equalities = jnp.stack([params.sum() - 1.0, params @ jnp.asarray(faces, jnp.float32) - 4.5])
        violation = jnp.concatenate([equalities, -params])
        return constraints.Evaluation(-entropy, violation, violation)

    solver = constraints.solver(
        evaluate,
        multipliers=constraints.dense(8, equality=np.array([True, True] + [False] * 6)),
        primal=optax.sgd(0.01),
        dual=optim.nupi(0.01, proportional=10.0),
    )
    state, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: (solver.step(s)[0], None), s, length=20_000))(
        solver.init(jnp.full(6, 1 / 6))
    )
    np.testing.assert_allclose(state.params, p, atol=1e-4)
    np.testing.assert_allclose(p, [0.05435, 0.07877, 0.11416, 0.16545, 0.23977, 0.34749], atol=1e-5)


@pytest.mark.slow
def test_logistic_regression_on_digits_under_a_bound_on_its_norm():
    """The bound is active, the solution is on it, and it satisfies the conditions of optimality."""
    digits = load_digits()
    x = jnp.asarray(digits.data / 16.0, jnp.float32)
    y = jnp.asarray(digits.target)

    def loss_of(params):
        return optax.softmax_cross_entropy_with_integer_labels(x @ params, y).mean()

    def evaluate(params, carry, batch, key):
        violation = (jnp.sum(params**2) - 1.0)[None]
        return constraints.Evaluation(loss_of(params), violation, violation)

    solver = constraints.solver(evaluate, multipliers=constraints.dense(1), primal=optax.sgd(0.2), dual=optax.sgd(0.2))
    state, info = jax.jit(lambda s: jax.lax.scan(lambda s, _: solver.step(s), s, length=1500))(
        solver.init(jnp.zeros((64, 10)))
    )
    assert float(jnp.sum(state.params**2)) == pytest.approx(1.0, abs=1e-4)
    assert max(leaf[-1] for leaf in info.kkt) < 1e-4
    # The multiplier by hand: the gradient of the loss is -2 lambda times the parameters.
    gradient = jax.grad(loss_of)(state.params)
    by_hand = -jnp.sum(gradient * state.params) / (2 * jnp.sum(state.params**2))
    np.testing.assert_allclose(state.multipliers[0], by_hand, rtol=1e-3)
    assert float(by_hand) > 0.01


def test_nupi_has_one_start():
    """Constant violation 1, K_P = K_I = 1, rate 1: the steps 1 to 3 of both published starts differ, ours do not.

    =====  ============================  ===================  ====================
    nu     here, as documented there     their dense path     their sparse path
    =====  ============================  ===================  ====================
    0      1, 1, 1                       1, 2, 1              1, 1, 1
    0.5    1, 1, 1                       1, 1.5, 1.25         1, 1.25, 1.125
    =====  ============================  ===================  ====================
    """

    def evaluate(params, carry, batch, key):
        return constraints.Evaluation(params, params[None], jnp.ones(1))

    for nu in (0.0, 0.5):
        solver = constraints.solver(
            evaluate, multipliers=constraints.dense(1), primal=optax.sgd(0.0),
            dual=optim.nupi(1.0, proportional=1.0, integral=1.0, decay=nu),
        )  # fmt: skip
        state, values = solver.init(jnp.ones(())), [0.0]
        for _ in range(3):
            state, _ = solver.step(state)
            values.append(float(state.multipliers[0]))
        assert np.diff(values).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: constraints.exponential_average(2, 1.0), "decay=1.0"),
        (lambda: constraints.confident(constraints.accuracy_gap(apply, num_groups=2, tolerance=0.0), z=-1.0), "z=-1.0"),
        (
            lambda: constraints.held_out(
                constraints.accuracy_gap(apply, num_groups=2, tolerance=0.0),
                constraints.accuracy_gap(apply, num_groups=3, tolerance=0.0),
            ),
            "same constraint on two splits",
        ),
        (lambda: constraints.best_feasible([1.0], [[0.0], [1.0]]), r"give \[T\] and \[T, K\]"),
        (lambda: constraints.best_feasible([], np.zeros((0, 1))), "T at least 1"),
        (lambda: constraints.stochastic([np.nan], [[0.0]]), "no iterate has a finite loss"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
