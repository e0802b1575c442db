"""Rates against loops over people, against fairlearn, and in the solver."""

import inspect
import itertools

import chex
import fairlearn.metrics
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints
from jaxfair.constraints import rates
from jaxfair.constraints.rates._proxies import FEWEST
from jaxfair.constraints.rates._tables import tables
from jaxfair.typing import Batch

NUM, NUM_GROUPS, FEATURES = 60, 3, 5
LABELLED = ("positive", "true_positive", "false_negative", "false_positive", "true_negative")
NAMES = (*LABELLED, "accuracy", "error", "precision")


def apply(params, state, x, *, train, key=None):
    return x @ params, state


def make_split(num_classes: int, num: int = NUM, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        x=jnp.asarray(rng.normal(size=(num, FEATURES)), jnp.float32),
        y=jnp.asarray(rng.integers(0, num_classes, num), jnp.int32),
        group=jnp.asarray(rng.choice(NUM_GROUPS, num, p=[0.6, 0.3, 0.1]), jnp.int32),
        index=jnp.arange(num, dtype=jnp.int32),
        weight=jnp.ones(num),
    )


def make_params(num_classes: int, seed: int = 1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(FEATURES, num_classes)), jnp.float32)


def all_rates(num_classes: int) -> list[rates.Expression]:
    """Every rate of every group, of two pooled, of everybody, and of every class."""
    chosen = []
    for name, group in itertools.product(NAMES, (None, 0, 1, 2, (0, 2))):
        make = getattr(rates, name)
        if name in ("accuracy", "error"):
            chosen.append(make(group=group))
        else:
            chosen += [make(group=group, positive=c) for c in range(num_classes)]
    return chosen


def begin(problem, split, **known):
    """Compiled as a whole: one by one, the compilations of the small operations take seconds."""
    return jax.jit(problem.init)({}, known.pop("outcomes", None), split, **known)


def look(problem, params, carry, batch):
    return jax.jit(problem.evaluate)(params, carry, batch, None)


def measure(chosen, prediction, y, group, **options):
    return jax.jit(lambda p: rates.measure(chosen, p, y, group, **options))(prediction)


# --- what a rate is, one person at a time ------------------------------------------------------------------------


def speaks_of(rate: rates.Rate, y: int, group: int) -> bool:
    if rate.group is not None and group not in rate.group:
        return False
    if rate.name in ("true_positive", "false_negative"):
        return y == rate.positive
    if rate.name in ("false_positive", "true_negative"):
        return y != rate.positive
    return True


def by_hand(rate: rates.Rate, predicted, y, group, weight=None) -> float:
    hits = size = 0.0
    weight = np.ones(len(y)) if weight is None else weight
    for p, label, g, w in zip(predicted, y, group, weight, strict=True):
        if not speaks_of(rate, label, g):
            continue
        if rate.name == "precision":
            if p == rate.positive:
                size += w
                hits += w * (label == rate.positive)
            continue
        size += w
        hits += w * {
            "accuracy": p == label,
            "error": p != label,
            "false_negative": p != rate.positive,
            "true_negative": p != rate.positive,
        }.get(rate.name, p == rate.positive)
    return hits / size if size else float("nan")


def only(expression: rates.Expression) -> rates.Rate:
    ((rate, _),) = expression.terms
    return rate


@pytest.mark.parametrize("num_classes", [2, 4])
def test_strict_values_are_those_of_a_loop_over_people(num_classes):
    rng = np.random.default_rng(7)
    split = make_split(num_classes)
    predicted = rng.integers(0, num_classes, NUM)
    weight = (rng.random(NUM) > 0.2).astype(np.float32)
    chosen = all_rates(num_classes)
    measured = measure(
        chosen, predicted, split.y, split.group,
        num_groups=NUM_GROUPS, num_classes=num_classes, weight=weight,
    )  # fmt: skip
    y, group = np.asarray(split.y), np.asarray(split.group)
    expected = [by_hand(only(e), predicted, y, group, weight) for e in chosen]
    assert np.isnan(expected).sum() == np.isnan(measured.value).sum() < len(chosen) / 4
    # One division of integers in float32.
    np.testing.assert_allclose(measured.value, expected, rtol=2e-7)

    # Combinations are those of the rates.
    mixed = 2 * chosen[0] - 0.5 * chosen[-num_classes * 5] + 0.25
    value = measure([mixed, mixed <= 0.75], predicted, y, group, num_groups=NUM_GROUPS, num_classes=num_classes).value
    first, second = (by_hand(rate, predicted, y, group) for rate, _ in mixed.terms)
    left = 2 * first - 0.5 * second + 0.25
    np.testing.assert_allclose(value, [left, left - 0.75], rtol=1e-6)


def test_unknown_groups_count_nowhere():
    prediction, y = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    value = measure(
        [rates.positive(), rates.positive(group=1), rates.error()],
        prediction, y, np.array([-1, 0, 1, 1]), num_groups=2, num_classes=2,
    ).value  # fmt: skip
    np.testing.assert_allclose(value, [1 / 3, 0.0, 2 / 3], rtol=1e-6)


# --- fairlearn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positive", [0, 1, 2])
def test_strict_values_are_fairlearns(positive):
    """Also of several classes, one against the rest."""
    rng = np.random.default_rng(positive)
    y, predicted = rng.integers(0, 3, (2, 300))
    group = rng.integers(0, NUM_GROUPS, 300)
    is_y, is_p = y == positive, predicted == positive

    functions = {
        "positive": fairlearn.metrics.selection_rate,
        "coverage": fairlearn.metrics.selection_rate,
        "true_positive": fairlearn.metrics.true_positive_rate,
        "false_positive": fairlearn.metrics.false_positive_rate,
        "true_negative": fairlearn.metrics.true_negative_rate,
        "false_negative": fairlearn.metrics.false_negative_rate,
    }
    differences = {
        "demographic_parity": fairlearn.metrics.demographic_parity_difference,
        "equal_opportunity": fairlearn.metrics.equal_opportunity_difference,
        "equalized_odds": fairlearn.metrics.equalized_odds_difference,
    }
    methods = {"pairs": "between_groups", "overall": "to_overall"}
    options = {"num_groups": NUM_GROUPS, "positive": positive}
    chosen = {
        name: [getattr(rates, name)(group=g, positive=positive) for g in (*range(NUM_GROUPS), None)]
        for name in functions
    } | {
        (name, between): getattr(rates, name)(0.0, between=between, **options)
        for name in differences
        for between in methods
    }

    measured = measure(
        [e for part in chosen.values() for e in part], predicted, y, group,
        num_groups=NUM_GROUPS, num_classes=3,
    )  # fmt: skip
    ends = np.cumsum([len(part) for part in chosen.values()])
    values = dict(zip(chosen, np.split(measured.value, ends[:-1]), strict=True))
    frame = fairlearn.metrics.MetricFrame(metrics=functions, y_true=is_y, y_pred=is_p, sensitive_features=group)
    for name in functions:
        np.testing.assert_allclose(values[name][:-1], frame.by_group[name], rtol=1e-6)
        np.testing.assert_allclose(values[name][-1], frame.overall[name], rtol=1e-6)
    for name, difference in differences.items():
        for between, method in methods.items():
            expected = difference(is_y, is_p, sensitive_features=group, method=method)
            # Differences of rates of size 1 in float32.
            np.testing.assert_allclose(values[name, between].max(), expected, atol=2e-7)


def test_families_have_the_stated_size_and_order():
    pairs = rates.demographic_parity(0.1, num_groups=4, between="pairs")
    assert len(set(pairs)) == len(pairs) == 12
    overall = rates.equal_opportunity(0.1, num_groups=4, positive=2)
    assert len(set(overall)) == len(overall) == 8
    up, down = overall[1], overall[5]
    gap = rates.true_positive(group=1, positive=2) - rates.true_positive(positive=2)
    assert up == (gap <= 0.1)
    assert down == (-gap <= 0.1)
    assert rates.equalized_odds(0.1, num_groups=4, positive=2)[:8] == overall


# --- standard errors ---------------------------------------------------------------------------------------------


def test_standard_errors_are_binomial_where_that_is_exact():
    rng = np.random.default_rng(0)
    predicted, y = rng.integers(0, 2, (2, 400))
    group = rng.integers(0, 2, 400)
    cases = [rates.true_positive(group=g) for g in (0, 1)] + [rates.precision(group=g) for g in (0, 1)]
    cases += [3 * (cases[0] - cases[1])]
    measured = measure(cases, predicted, y, group, num_groups=2, num_classes=2)
    kept = [(y == 1) & (group == g) for g in (0, 1)] + [(predicted == 1) & (group == g) for g in (0, 1)]
    p = np.array([((y == 1) & (predicted == 1) & k).sum() / k.sum() for k in kept])
    variance = p * (1 - p) / [k.sum() for k in kept]
    expected = np.sqrt([*variance, 9 * (variance[0] + variance[1])])
    np.testing.assert_allclose(measured.standard_error, expected, rtol=1e-5)


def test_standard_errors_know_that_rates_share_people():
    """Against many samples drawn anew from the same cells."""
    rng = np.random.default_rng(1)
    predicted, y = rng.integers(0, 3, (2, 600))
    predicted = np.where(rng.random(600) < 0.5, y, predicted)
    group = rng.integers(0, 2, 600)
    cases = [
        rates.positive(group=0) - rates.positive(),
        rates.accuracy() - rates.true_positive(group=1, positive=2),
        rates.precision(group=0) - rates.false_negative(group=0) + rates.positive(group=(0, 1)),
        rates.accuracy() + rates.error(),  # always 1
    ]
    options = {"num_groups": 2, "num_classes": 3}
    error = np.asarray(measure(cases, predicted, y, group, **options).standard_error)

    @jax.jit
    def resampled(index):
        data = [jnp.asarray(a)[index] for a in (predicted, y, group)]
        return rates.measure(cases, *data, **options).value

    values = jax.lax.map(resampled, rng.integers(0, 600, (2000, 600)), batch_size=100)
    # A standard deviation of 2,000 draws has a relative error of 1.6 %; four of those. The delta method's own
    # error is of order 1/600.
    np.testing.assert_allclose(error[:3], np.std(values, axis=0)[:3], rtol=0.065)
    # The delta method on cancelling terms of size 1/600: rounding of about 1e-7 in the variance's terms.
    assert error[3] < 1e-4


# --- proxies, one person at a time -------------------------------------------------------------------------------


def softplus(m):
    return np.logaddexp(0.0, m)


UPPER = {
    "hinge": lambda m: max(0.0, 1.0 + m),
    "logistic": lambda m: softplus(m) / np.log(2.0),
    "sigmoid": lambda m: 1.0 / (1.0 + np.exp(-m / 0.7)),
}


def proxy_by_hand(constraint, proxy, estimator, logits, split, batch):
    """In float64, with loops; `split` gives prevalences, `batch` the people whose logits these are."""
    y, group = np.asarray(batch.y), np.asarray(batch.group)
    present = [i for i in range(len(y)) if batch.weight[i] > 0]
    value = constraint.expression.constant
    for rate, a in constraint.expression.terms:
        upper = UPPER["sigmoid" if constraint.equality or rate.name == "precision" else proxy]
        total = size = 0.0
        for i in present:
            if not speaks_of(rate, y[i], group[i]):
                continue
            c = y[i] if rate.positive is None else rate.positive
            m = logits[i, c] - max(z for j, z in enumerate(logits[i]) if j != c)
            if rate.name == "precision":
                total += upper(m) * (y[i] == rate.positive)
                size += upper(m)
                continue
            size += 1
            if rate.name in ("error", "false_negative", "true_negative"):
                m = -m
            total += upper(m) if a > 0 else 1.0 - upper(-m)
        if rate.name != "precision" and estimator == "prevalence":
            known = [speaks_of(rate, *pair) for pair in zip(np.asarray(split.y), np.asarray(split.group), strict=True)]
            size = len(present) * np.mean(known)
        value += a * total / size
    return value


def signed(num_classes: int) -> list[rates.Constraint]:
    """Every rate with either sign, differences, and equalities."""
    each = [e for e in all_rates(num_classes) if "group=2" not in repr(e)]
    bounds = [e <= 0.3 for e in each] + [e >= 0.3 for e in each]
    bounds += [2 * a - 0.5 * b <= 0.1 for a, b in itertools.pairwise(each)]
    return [*bounds, *(rates.equal(a, b) for a, b in zip(each[::7], each[1::7], strict=False))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_classes", "proxy", "estimator"),
    [
        (3, "hinge", "prevalence"),
        (3, "logistic", "batch"),
        (3, "sigmoid", "prevalence"),
        (2, "hinge", "batch"),
    ],
)
def test_proxies_and_gradients_are_those_of_a_loop_over_people(num_classes, proxy, estimator):
    split = make_split(num_classes)
    batch = jax.tree.map(lambda a: a[:14], split)
    batch = batch._replace(weight=batch.weight.at[3].set(0.0))
    chosen = signed(num_classes)
    problem = rates.problem(
        apply, chosen, num_groups=NUM_GROUPS, num_classes=num_classes,
        proxy=proxy, estimator=estimator, temperature=0.7,
    )  # fmt: skip
    carry = begin(problem, split)
    params = make_params(num_classes)

    direction = np.random.default_rng(3).normal(size=params.shape)

    @jax.jit
    def proxies(params):
        """Values and, backwards as the solver differentiates, the gradient of each."""

        def value(params):
            evaluation = problem.evaluate(params, carry, batch, None)
            return evaluation.proxy, evaluation.proxy_observed

        primal, pull_back, seen = jax.vjp(value, params, has_aux=True)
        return primal, seen, jax.vmap(pull_back)(jnp.eye(len(chosen)))[0]

    value, seen, gradients = proxies(params)
    assert seen.all()
    x = np.asarray(batch.x, np.float64)
    kernel = np.asarray(params, np.float64)

    def hand(kernel):
        return np.array([proxy_by_hand(c, proxy, estimator, x @ kernel, split, batch) for c in chosen])

    # Sums of 13 numbers of size 5 in float32.
    np.testing.assert_allclose(value, hand(kernel), rtol=1e-5, atol=5e-6)
    step = 1e-6
    slope = (hand(kernel + step * direction) - hand(kernel - step * direction)) / (2 * step)
    derivatives = np.tensordot(gradients, direction, axes=2)
    np.testing.assert_allclose(derivatives, slope, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("num_classes", "proxy"), [(2, "hinge"), (3, "hinge"), (3, "logistic")])
@pytest.mark.slow
def test_the_proxy_of_an_inequality_is_never_below_its_strict_value(num_classes, proxy):
    """Also where logits are equal."""
    chosen = [c for c in signed(num_classes) if not c.equality and "precision" not in repr(c)]
    problem = rates.problem(
        lambda params, state, x, **_: (params * x, state), chosen, memory="batch",
        num_groups=NUM_GROUPS, num_classes=num_classes, proxy=proxy, estimator="batch",
    )  # fmt: skip
    split = make_split(num_classes)
    evaluate = jax.jit(lambda x: problem.evaluate(1.0, carry, split._replace(x=x), None))
    carry = begin(problem, split)
    for seed, scale in itertools.product(range(3), (0.01, 1.0, 30.0)):
        logits = np.random.default_rng(seed).normal(size=(NUM, num_classes)) * scale
        for x in (logits, np.round(logits)):
            evaluation = evaluate(jnp.asarray(x, jnp.float32))
            assert evaluation.strict_observed.all()
            # Rounding of sums of 60 numbers as large as the logits.
            assert (evaluation.proxy - evaluation.strict > -1e-6 * max(scale, 1)).all()


def test_a_sharp_sigmoid_is_the_strict_value():
    chosen = signed(3)
    split = make_split(3)
    problem = rates.problem(
        apply, chosen, num_groups=NUM_GROUPS, num_classes=3,
        proxy="sigmoid", temperature=1e-4, memory="batch",
    )  # fmt: skip
    evaluation = look(problem, make_params(3), begin(problem, split), split)
    np.testing.assert_allclose(evaluation.proxy, evaluation.strict, atol=2e-6)


@pytest.mark.slow
def test_prevalence_is_unbiased_over_a_pass():
    split = make_split(2)
    chosen = [c for c in signed(2) if "precision" not in repr(c)]
    problem = rates.problem(apply, chosen, num_groups=NUM_GROUPS, num_classes=2)
    carry, params = begin(problem, split), make_params(2)
    evaluate = jax.jit(lambda batch: look(problem, params, carry, batch).proxy)
    parts = [evaluate(jax.tree.map(lambda a, i=i: a[i : i + 10], split)) for i in range(0, NUM, 10)]
    np.testing.assert_allclose(np.mean(parts, axis=0), evaluate(split), rtol=1e-5, atol=1e-5)


# --- memory ------------------------------------------------------------------------------------------------------

BOUNDS = [*rates.equalized_odds(0.05, num_groups=NUM_GROUPS), rates.precision(group=1) >= 0.5]


@pytest.mark.slow
def test_the_memory_equals_a_recount():
    rng = np.random.default_rng(5)
    split = make_split(2)
    y, group = np.asarray(split.y), np.asarray(split.group)
    problem = rates.problem(apply, BOUNDS, num_groups=NUM_GROUPS, num_classes=2)
    evaluate = jax.jit(problem.evaluate)
    recount = jax.jit(lambda p: rates.measure(BOUNDS, p, y, group, num_groups=NUM_GROUPS, num_classes=2))
    known = rng.integers(0, 2, NUM)
    correct = constraints.Outcomes(jnp.asarray(known == y, jnp.float32), jnp.zeros(NUM))
    starts = [
        (np.full(NUM, -1), begin(problem, split)),
        (known, begin(problem, split, outcomes=correct, prediction=known)),
        (known, begin(problem, split, outcomes=correct)),
    ]
    for start, carry in starts:
        counted = start.copy()
        for t in range(12):
            index = rng.choice(NUM, 12, replace=False)
            batch = jax.tree.map(lambda a, index=index: a[index], split)
            here = rng.random(12) > 0.3
            # Padding repeats an example that is in the batch, with features that are not numbers.
            index = np.where(here, index, index[here][0])
            batch = batch._replace(
                index=jnp.asarray(index),
                weight=jnp.asarray(here, jnp.float32),
                x=jnp.where(here[:, None], batch.x, jnp.nan),
            )
            params = make_params(2, seed=t)
            evaluation = evaluate(params, carry, batch, None)
            carry = evaluation.carry
            now = np.argmax(np.asarray(batch.x) @ np.asarray(params), axis=1)
            counted[index[here]] = now[here]
            np.testing.assert_array_equal(carry.memory.predicted, counted)
            counts = np.zeros((NUM_GROUPS, 2, 2))
            has = counted >= 0
            np.add.at(counts, (group[has], y[has], counted[has]), 1)
            np.testing.assert_array_equal(carry.memory.counts, counts)
            measured = recount(counted)
            seen = ~np.isnan(measured.value)
            np.testing.assert_array_equal(evaluation.strict_observed, seen)
            # Compiled in another program: differences of rates of size 1, rounded elsewhere.
            np.testing.assert_allclose(evaluation.strict[seen], measured.value[seen], atol=1e-7)
            error = evaluation.strict_error
            np.testing.assert_array_equal(error, evaluation.aux.standard_error)
            np.testing.assert_allclose(error[seen], measured.standard_error[seen], rtol=1e-6)
            assert np.isinf(error[~seen]).all()
            assert np.isfinite(evaluation.proxy).all()
        assert seen.all()


@pytest.mark.slow
def test_what_has_nobody_is_not_observed():
    """Group 2 is in the split and not in the batch; nobody is of class 1 in group 1; nobody is predicted positive."""
    y = jnp.array([0, 1, 0, 0, 1, 0])
    group = jnp.array([0, 0, 1, 1, 2, 2])
    split = Batch(jnp.ones((6, 1)), y, group, jnp.arange(6), jnp.ones(6))
    batch = jax.tree.map(lambda a: a[:4], split)
    params = jnp.array([[50.0, -50.0]])
    chosen = [
        rates.positive(group=0) <= 0.1,
        rates.true_positive(group=1) <= 0.1,
        rates.positive(group=2) <= 0.1,
        rates.precision() >= 0.1,
        rates.true_positive(group=0) - rates.true_positive(group=1) <= 0.1,
    ]
    expected = {
        ("prevalence", "examples"): ([1, 0, 1, 0, 0], [1, 0, 0, 0, 0]),
        ("batch", "batch"): ([1, 0, 0, 0, 0], [1, 0, 0, 0, 0]),
    }
    for (estimator, memory), (proxy, strict) in expected.items():
        problem = rates.problem(apply, chosen, num_groups=3, num_classes=2, estimator=estimator, memory=memory)

        @jax.jit
        def run(params, problem=problem):
            carry = problem.init({}, None, split)
            total = lambda p: problem.evaluate(p, carry, batch, None).proxy.sum()
            return problem.evaluate(params, carry, batch, None), jax.grad(total)(params)

        evaluation, gradient = run(params)
        np.testing.assert_array_equal(evaluation.proxy_observed, np.array(proxy, bool))
        np.testing.assert_array_equal(evaluation.strict_observed, np.array(strict, bool))
        assert jnp.isfinite(gradient).all()
    assert float(jax.nn.sigmoid(-100.0)) * 6 < FEWEST


def test_start_keeps_memory_and_constraints_until_then():
    split = make_split(2)
    problem = rates.problem(apply, BOUNDS, num_groups=NUM_GROUPS, num_classes=2, start=2)
    carry = begin(problem, split)
    evaluate = jax.jit(problem.evaluate)
    for t in range(3):
        evaluation = evaluate(make_params(2), carry, split, None)
        carry = evaluation.carry
        assert bool(evaluation.strict_observed.any()) == (t >= 2)
        assert bool((carry.memory.predicted >= 0).any()) == (t >= 2)


# --- algebra -----------------------------------------------------------------------------------------------------

A, B, C = rates.positive(group=0), rates.true_positive(group=(2, 1), positive=3), rates.error()


def test_the_laws_of_the_algebra():
    assert A + B - B == A
    assert A + B == B + A
    assert hash(A + B) == hash(B + A)
    assert (A + B) + C == A + (B + C)
    assert 2 * (A - B) == 2 * A - 2 * B == (A - B) * 2 == -2 * (B - A)
    assert (A + B) / 4 == 0.25 * A + B / 4
    assert A - A == 0 * B == rates.Expression(())
    assert 1 - A == -A + 1 == -(A - 1)
    assert A + 0.5 - 0.25 == A + 0.25 != A
    assert sum([A, B, C]) == A + B + C
    assert (A <= 0.5) == (A - 0.5 <= 0) == (0.5 >= A) == (1 - A >= 0.5)  # noqa: SIM300
    assert (A >= B) == (B <= A) == (B - A <= 0)
    assert rates.equal(A, 0.5) != (A <= 0.5)
    assert rates.equal(A, B) == rates.equal(A - B, 0) == rates.equal(0, B - A)
    assert len({A, rates.positive(group=[0]), A + B, B + A}) == 2
    assert rates.coverage(group=0) == A
    assert rates.true_positive(group=(2, 1, 2)) == rates.true_positive(group=np.array([1, 2]))
    assert A != 0.02  # data, not a constraint


def test_numpy_numbers_are_numbers():
    half = np.float32(0.5)
    assert half * A == A * half == A / np.int64(2) == 0.5 * A
    assert (half >= A) == (A <= half) == (A <= 0.5)  # noqa: SIM300
    assert half - A == 0.5 - A


@pytest.mark.parametrize(
    "thing",
    [
        A, -A, B, 2 * A - 0.1 * B + 3, 1 - C, rates.Expression((), -0.5),
        A - B <= 0.02, A >= B, C >= 0.25, rates.equal(A, 0.3), rates.equal(2 * A + 1, B),
        *rates.equalized_odds(0.01, num_groups=2), *all_rates(3),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_printed_can_be_typed(thing):
    again = eval(repr(thing), vars(rates))
    assert rates.Expression((), again) == thing if isinstance(again, float) else again == thing


def problem_of(*chosen, **options):
    # Unwrapped: what is no constraint should meet our own message, not the one of the tests' type checker.
    make = inspect.unwrap(rates.problem)
    return make(apply, list(chosen), **{"num_groups": 3, "num_classes": 2, **options})


ERRORS = {
    "a chain": (lambda: 0.1 <= A <= 0.2, TypeError, "neither true nor false.*two constraints"),
    "a chain in brackets": (lambda: (A <= 0.2) >= 0.1, TypeError, "one bound"),
    "a truth value": (lambda: bool(A), TypeError, r"positive\(group=0\) is an expression"),
    "a product": (lambda: A * C, TypeError, r"positive\(group=0\).*error\(\).*not linear"),
    "a quotient": (lambda: A / C, TypeError, "a - s \\* b"),
    "one over": (lambda: 1 / A, TypeError, r"1 / \(positive\(group=0\)\)"),
    "over zero": (lambda: A / 0, ZeroDivisionError, "positive"),
    "a strict bound": (lambda: A < 0.2, TypeError, "use <="),
    "a strict bound below": (lambda: A > 0.2, TypeError, "use >="),
    "a word": (lambda: A + "1", TypeError, "'1' of type str"),
    "a bool": (lambda: A * True, TypeError, "True of type bool"),
    "a traced coefficient": (lambda: jax.jit(lambda s: (s * A).constant)(0.1), TypeError, "plain numbers"),
    "nan": (lambda: A - float("nan"), ValueError, "finite"),
    "no rate": (lambda: A - A <= 0.1, ValueError, "0 <= 0.1: the rates have cancelled"),
    "equality of numbers": (lambda: rates.equal(0.1, 0.2), ValueError, "cancelled"),
    "a fractional group": (lambda: rates.error(group=0.5), TypeError, "group=0.5"),
    "a named group": (lambda: rates.error(group="women"), TypeError, "group='women'"),
    "no group": (lambda: rates.error(group=()), ValueError, r"group=\(\)"),
    "a negative group": (lambda: rates.error(group=(0, -1)), ValueError, r"group=\(0, -1\)"),
    "a negative class": (lambda: rates.positive(positive=-1), ValueError, "positive=-1"),
    "a bool as class": (lambda: rates.positive(positive=True), ValueError, "positive=True"),
    "a group of others": (lambda: problem_of(C - rates.error(group=3) <= 0), ValueError, "no group 3 among 3"),
    "a class of others": (lambda: problem_of(rates.precision(positive=2) <= 0), ValueError, "no class 2 among 2"),
    "a comparison with ==": (lambda: problem_of(A == 0.1), TypeError, r"constraints\[0\] is False.*rates.equal"),
    "a nested list": (lambda: problem_of(A <= 1, BOUNDS), TypeError, r"constraints\[1\].*star"),
    "no bound": (lambda: problem_of(A), TypeError, "without a bound"),
    "no list": (lambda: tables(A <= 1, num_groups=1, num_classes=2), TypeError, "give a list"),
    "one class": (lambda: problem_of(A <= 1, num_classes=1), ValueError, "num_classes=1"),
    "no groups": (lambda: problem_of(A <= 1, num_groups=0), ValueError, "num_groups=0"),
    "proxy": (lambda: problem_of(A <= 1, proxy="ramp"), ValueError, "proxy='ramp'"),
    "estimator": (lambda: problem_of(A <= 1, estimator="ema"), ValueError, "estimator='ema'"),
    "memory": (lambda: problem_of(A <= 1, memory="ring"), ValueError, "memory='ring'"),
    "temperature": (lambda: problem_of(A <= 1, temperature=0.0), ValueError, "temperature=0.0"),
    "start": (lambda: problem_of(A <= 1, start=-1), ValueError, "start=-1"),
    "slack": (lambda: rates.demographic_parity(-0.1, num_groups=2), ValueError, "slack=-0.1"),
    "one group": (lambda: rates.equalized_odds(0.1, num_groups=1), ValueError, "num_groups=1"),
    "between": (
        lambda: rates.equal_opportunity(0.1, num_groups=2, between="all"), ValueError, "between='all'"
    ),
    "logits": (
        lambda: evaluate_with(make_params(3)), ValueError, r"\(60, 3\) for num_classes=2"
    ),
}  # fmt: skip


def evaluate_with(params):
    problem, split = problem_of(A <= 1), make_split(2)
    return look(problem, params, begin(problem, split), split)


def test_a_bound_may_be_traced_and_then_equals_itself_only():
    seen = []

    def trace(slack):
        gap = A - C
        bound, other = (gap <= 2.0 * slack for _ in "ab")
        seen.append((str(bound), bound == bound, bound == other, hash(bound)))
        return slack

    jax.jit(trace)(0.1)
    [(text, same, other, _)] = seen
    assert text == f"{A - C} <= traced"
    assert same
    assert not other
    # A number of JAX that is not traced is a number.
    bounds = [A.__le__(number) for number in (jnp.float32(0.25), 0.25)]
    assert bounds[0] == bounds[1]


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_was_wrong(case):
    call, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        call()


# --- in the solver -----------------------------------------------------------------------------------------------


def make_solver(problem, **options):
    kwargs = {"primal": optax.sgd(0.1), "dual": optax.sgd(0.5), **options}
    multipliers = constraints.dense(problem.num_constraints, equality=problem.equality)
    return constraints.solver(problem.evaluate, multipliers=multipliers, **kwargs)


def test_kinds_of_constraints():
    assert problem_of(A <= 1).equality is False
    assert problem_of(rates.equal(A, C)).equality is True
    mixed = problem_of(rates.equal(A, C), A <= 1)
    np.testing.assert_array_equal(mixed.equality, [True, False])
    assert mixed.num_constraints == 2
    make_solver(mixed)


@pytest.mark.slow
def test_bounds_that_never_bind_are_plain_training_bit_for_bit():
    split = make_split(2)
    outcomes = constraints.Outcomes(jnp.ones(NUM), jnp.zeros(NUM))
    ends = []
    for problem in (
        constraints.unconstrained(apply, num_groups=NUM_GROUPS),
        problem_of(),
        problem_of(rates.positive() <= 2.0, rates.precision() >= -2.0),
    ):
        solver = make_solver(problem)
        step = jax.jit(solver.step)
        state = solver.init(make_params(2), begin(problem, split, outcomes=outcomes))
        for _ in range(5):
            state, _ = step(state, split)
        ends.append(state.params)
    chex.assert_trees_all_equal(*ends)


@pytest.mark.slow
def test_one_compilation_scan_and_vmapped_seeds():
    split = make_split(2)
    problem = problem_of(*BOUNDS, rates.equal(A, C))
    solver = make_solver(problem)
    traced = 0

    def run(params, batches):
        nonlocal traced
        traced += 1
        start = solver.init(params, begin(problem, split))
        return jax.lax.scan(lambda state, batch: solver.step(state, batch), start, batches)

    batches = jax.tree.map(lambda a: a.reshape(5, 12, *a.shape[1:]), split)
    seeds = jnp.stack([make_params(2, seed) for seed in range(3)])
    mapped = jax.jit(jax.vmap(run, in_axes=(0, None)))
    together, info = mapped(seeds, batches)
    mapped(seeds + 1.0, batches)
    assert traced == 1
    assert info.aux.standard_error.shape == (3, 5, problem.num_constraints)
    single = jax.jit(run)
    alone = [single(params, batches)[0] for params in seeds]
    # Products of matrices are summed in another order under vmap.
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    chex.assert_trees_all_close(together, stacked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", ["examples", "batch"])
@pytest.mark.slow
def test_evaluations_are_strict_about_dtypes(strict_dtype, memory):
    split = make_split(2)
    problem = problem_of(*BOUNDS, rates.equal(A, C), memory=memory, weight_decay=0.1)
    carry = begin(problem, split)
    evaluation = look(problem, make_params(2), carry, split)
    for value in (evaluation.loss, evaluation.proxy, evaluation.strict, *evaluation.aux):
        assert value.dtype == jnp.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(evaluation.carry, carry)
    added = 0.05 * float(jnp.sum(make_params(2) ** 2))
    plain = constraints.outcomes(apply(make_params(2), {}, split.x, train=True)[0], split.y).loss
    assert float(evaluation.loss - plain.mean()) == pytest.approx(added, rel=1e-5)


def test_narrow_logits_are_counted_in_float32():
    problem, split = problem_of(*BOUNDS), make_split(2)
    narrow = split._replace(x=split.x.astype(jnp.bfloat16))
    evaluation = jax.eval_shape(
        problem.evaluate, make_params(2).astype(jnp.bfloat16), begin(problem, split), narrow, None
    )
    for value in (evaluation.loss, evaluation.proxy, evaluation.strict):
        assert value.dtype == jnp.float32


def gaussian_mixture(num: int = 400) -> Batch:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], num // 2)
    x = rng.normal(size=(num, 2)) + np.where(y[:, None] == 1, 1.0, -1.0)
    return Batch(
        x=jnp.asarray(np.concatenate([x, np.ones((num, 1))], axis=1), jnp.float32),
        y=jnp.asarray(y, jnp.int32),
        group=jnp.zeros(num, jnp.int32),
        index=jnp.arange(num, dtype=jnp.int32),
        weight=jnp.ones(num),
    )


@pytest.mark.parametrize(
    ("proxy", "formulation"),
    [("sigmoid", "lagrangian"), ("logistic", "lagrangian"), ("hinge", "normalized_lagrangian")],
)
@pytest.mark.slow
def test_a_gaussian_mixture_ends_at_its_bound(proxy, formulation):
    """A linear classifier that would call half of the people positive, and may call 30 % so."""
    split = gaussian_mixture()

    @jax.jit
    def run(bound):
        """A bound of 1 never binds: taken off 0.3, to have both in one compilation."""
        problem = rates.problem(apply, [rates.positive() <= 0.3], num_groups=1, num_classes=2, proxy=proxy)

        def evaluate(*args):
            evaluation = problem.evaluate(*args)
            return evaluation._replace(proxy=evaluation.proxy + 0.3 - bound, strict=evaluation.strict + 0.3 - bound)

        solver = make_solver(
            problem._replace(evaluate=evaluate),
            primal=optax.sgd(0.2),
            dual=optax.sgd(0.1),
            formulation=getattr(constraints, formulation)(),
        )
        start = solver.init(jnp.zeros((3, 2)), problem.init({}, None, split))
        return jax.lax.scan(lambda s, _: solver.step(s, split), start, length=1500)

    ends = {}
    for bound in (1.0, 0.3):
        state, info = run(bound)
        ends[bound] = np.asarray(info.strict[-300:, 0]) + bound
        predicted = jnp.argmax(split.x @ state.params, axis=1)
        assert (float(state.multipliers[0]) > 0) == (bound < 0.5)
        # The strict value is of the parameters before the last step, and these hardly move any more.
        assert float(jnp.mean(predicted)) == pytest.approx(ends[bound][-1], abs=0.01)
    assert ends[1.0].mean() == pytest.approx(0.5, abs=0.02)
    # The strict rate jumps by 1/400; around the bound the multiplier goes up and down.
    assert ends[0.3].mean() == pytest.approx(0.3, abs=0.005)
    assert np.abs(ends[0.3] - 0.3).max() < 0.02


# --- what is public ----------------------------------------------------------------------------------------------


def test_every_name_of_the_module_is_documented():
    public = {n: v for n, v in vars(rates).items() if not n.startswith("_")}
    ours = {n: v for n, v in public.items() if getattr(v, "__module__", "").startswith("jaxfair.constraints.rate")}
    assert set(NAMES) <= set(ours)
    for name, thing in ours.items():
        text = inspect.getdoc(thing) or ""
        assert len(text.splitlines()) > 2, name
        assert ">>>" in text or "Attributes:" in text, name
