"""What problems and solvers make of unusual inputs: weights, people of no group or class, shapes, numbers, rates."""

import collections
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints, metrics, optim, train
from jaxfair.constraints import penalties, rates
from jaxfair.constraints._groups import difference_error
from jaxfair.constraints._objective import make_forward
from jaxfair.constraints.multipliers import start_values
from jaxfair.constraints.rates._families import _apart
from jaxfair.constraints.solver import _check_players
from jaxfair.train.evaluate import predict_batch
from jaxfair.typing import Batch

G, N, C = 3, 24, 3
RNG = np.random.default_rng(0)


def apply(params, state, x, *, train, key=None):
    return x @ params, state


SPLIT = Batch(
    jnp.asarray(RNG.normal(size=(N, 4)), jnp.float32),
    jnp.asarray(RNG.integers(C, size=N), jnp.int32),
    jnp.asarray(RNG.choice(G, N, p=[0.6, 0.3, 0.1]), jnp.int32),
    jnp.arange(N, dtype=jnp.int32),
    jnp.asarray(RNG.choice([0.5, 1.0, 2.0], N), jnp.float32),
)
PARAMS = jnp.asarray(RNG.normal(size=(4, C)), jnp.float32)
DENSE = constraints.outcomes(SPLIT.x @ PARAMS[::-1], SPLIT.y)
BOUNDS = [*rates.equalized_odds(0.05, num_groups=G), rates.error() <= 0.5, rates.precision(group=0) >= 0.1]


def paired(problem):
    """A held-out problem that is given one batch for both."""
    both = constraints.held_out(problem, problem)
    return both._replace(
        init=lambda state, outcomes, batch: both.init(state, (outcomes,) * 2, (batch,) * 2),
        evaluate=lambda params, carry, batch, key: both.evaluate(params, carry, (batch,) * 2, key),
    )


def of(make, **options):
    return lambda: make(apply, num_groups=G, **options)


def following(problem):
    """A problem that is told what the dense model predicts."""
    return problem._replace(
        init=lambda state, outcomes, batch: problem.init(
            state, outcomes, batch, prediction=jnp.argmax(batch.x @ PARAMS[::-1], axis=-1)
        )
    )


BOUND = {"tolerance": 0.02}
Info, Aux = collections.namedtuple("Info", "loss aux"), collections.namedtuple("Aux", "correct")
PROBLEMS = {
    "unconstrained": of(constraints.unconstrained),
    "accuracy_gap": of(constraints.accuracy_gap, **BOUND),
    "excess_accuracy_gap": of(constraints.excess_accuracy_gap, **BOUND),
    "equalized_loss": of(constraints.equalized_loss),
    "churn": lambda: following(constraints.churn(apply, num_groups=G, limit=0.02)),
    "churn by the batch": lambda: following(
        constraints.churn(apply, num_groups=G, limit=0.02, proxy="batch", memory=constraints.minibatch(G))
    ),
    "by the batch": of(constraints.excess_accuracy_gap, proxy="batch", memory=constraints.minibatch(G), **BOUND),
    "average": of(constraints.equalized_loss, memory=constraints.exponential_average(G, 0.5)),
    "published": of(constraints.excess_accuracy_gap, memory=constraints.replay_buffer(G, 2), mean="uniform", **BOUND),
    "held_out": lambda: paired(PROBLEMS["excess_accuracy_gap"]()),
    "confident": lambda: constraints.confident(PROBLEMS["excess_accuracy_gap"](), z=0.5),
    "rates": lambda: rates.problem(apply, BOUNDS, num_groups=G, num_classes=C),
    "rates of batches": lambda: rates.problem(
        apply, BOUNDS, num_groups=G, num_classes=C, memory="batch", estimator="batch", proxy="sigmoid"
    ),
}
each = pytest.mark.parametrize("name", PROBLEMS)


def look(problem, batch, split=SPLIT, outcomes=DENSE):
    """Loss, proxies, strict values and their errors, and the gradient of loss and proxies together."""
    carry = problem.init({}, outcomes, split)

    def total(params):
        found = problem.evaluate(params, carry, batch, None)
        return found.loss + jnp.sum(jnp.where(found.proxy_observed, found.proxy, 0.0)), found

    gradient, found = jax.jit(jax.grad(total, has_aux=True))(PARAMS)
    return [found.loss, found.proxy, found.strict, found.strict_observed, found.strict_error, gradient]


def assert_alike(a, b, rtol=1e-5, atol=1e-6):
    for x, y in zip(a, b, strict=True):
        if x is not None:
            np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def rows(batch, index):
    return jax.tree.map(lambda a: a[np.asarray(index)], batch)


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@each
def test_a_common_factor_of_all_weights_changes_nothing(name):
    heavy = SPLIT._replace(weight=4 * SPLIT.weight)
    assert_alike(look(PROBLEMS[name](), heavy, heavy), look(PROBLEMS[name](), SPLIT), rtol=1e-6)


@pytest.mark.slow
@each
def test_padding_changes_nothing_whatever_it_says(name):
    """Also in the split, of which the reference is made."""
    junk = Batch(jnp.full((2, 4), 1e30), jnp.array([-7, 99]), jnp.array([0, 55]), jnp.array([0, -1]), jnp.zeros(2))
    padded = jax.tree.map(lambda a, b: jnp.concatenate([a, b.astype(a.dtype)]), SPLIT, junk)
    outcomes = jax.tree.map(lambda a: jnp.concatenate([a, jnp.full(2, jnp.nan)]), DENSE)
    split = padded._replace(index=jnp.arange(N + 2))
    assert_alike(look(PROBLEMS[name](), padded, split, outcomes), look(PROBLEMS[name](), SPLIT))


@each
@pytest.mark.slow
def test_a_batch_of_nobody_moves_nothing(name):
    problem = PROBLEMS[name]()
    batch = rows(SPLIT, [0, 1])._replace(weight=jnp.zeros(2))
    loss, proxy, *_, gradient = look(problem, batch)
    assert float(loss) == 0.0
    assert np.isfinite(proxy).all()
    np.testing.assert_array_equal(gradient, 0.0)
    solver = constraints.solver(problem, primal=optax.sgd(0.1), dual=optax.sgd(0.1))
    state, info = solver.step(solver.init(PARAMS, problem.init({}, DENSE, SPLIT)), batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.multipliers, state.carry)))
    assert np.isfinite(info.kkt.stationarity)


@pytest.mark.slow
@pytest.mark.parametrize("rows_of", [[], [3]], ids=["empty", "one"])
@each
def test_batches_of_none_and_one(name, rows_of):
    found = look(PROBLEMS[name](), rows(SPLIT, np.array(rows_of, int)))
    assert np.isfinite(found[0])
    assert np.isfinite(found[-1]).all()


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", [n for n in PROBLEMS if n != "unconstrained"])
def test_a_split_has_no_such_weights(name, bad):
    with pytest.raises(ValueError, match=f"a weight is {bad}: give finite numbers"):
        PROBLEMS[name]().init({}, DENSE, SPLIT._replace(weight=SPLIT.weight.at[3].set(bad)))


def test_the_error_of_a_share_knows_people_and_not_weights():
    y, prediction = np.ones(400, int), np.arange(400) % 10 < 3
    group, error = np.zeros(400, int), np.sqrt(0.3 * 0.7 / 400)
    for weight in (None, np.ones(400), np.full(400, 4.0)):
        options = {"num_groups": 1, "num_classes": 2, "weight": weight}
        found = rates.measure([rates.positive()], prediction.astype(int), y, group, **options)
        np.testing.assert_allclose(found.standard_error, error, rtol=1e-5)
    # Half of them count nine times as much: fewer people, in effect, are in the mean. sum w^2 v^2 / (sum w)^2.
    weight = np.where(np.arange(400) < 200, 9.0, 1.0)
    found = rates.measure(
        [rates.positive()], prediction.astype(int), y, group, num_groups=1, num_classes=2, weight=weight
    )
    share = weight @ prediction / weight.sum()
    np.testing.assert_allclose(found.value, share, rtol=1e-6)
    expected = np.sqrt(weight**2 @ (prediction - share) ** 2) / weight.sum()
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-5)


# --- who is nobody ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.int64])
@pytest.mark.parametrize("nobody", [-1, 2, 77])
@pytest.mark.slow
def test_a_person_of_no_group_is_nobodys_mistake(nobody, dtype):
    """Four people, of whom only the one without a group is wrong: `metrics.accuracy_gaps` of each group is 0."""
    group = np.array([0, 0, 1, nobody], dtype)
    x = jnp.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    batch = Batch(x, jnp.zeros(4, int), group, jnp.arange(4), jnp.ones(4))
    dense = constraints.Outcomes(jnp.ones(4), jnp.zeros(4))
    right = np.array([1, 1, 1, 0])
    expected = metrics.accuracy_gaps(np.ones(4), right, group.astype(int), 2)
    np.testing.assert_array_equal(expected.gap, [0, 0])

    def scaled(params, state, x, *, train, key=None):
        return x * params, state

    problem = constraints.accuracy_gap(scaled, num_groups=2, tolerance=0.0)
    found = problem.evaluate(jnp.ones(()), problem.init({}, dense, batch), batch, None)
    np.testing.assert_array_equal(found.strict, expected.gap)
    # The average is one of the people who have a group, weighted by their shares.
    problem = constraints.excess_accuracy_gap(scaled, num_groups=2, tolerance=0.0)
    carry = problem.init({}, dense, batch)
    found = problem.evaluate(jnp.ones(()), carry, batch, None)
    np.testing.assert_allclose(carry.reference.prevalence, [0.5, 0.25])
    shared = metrics.accuracy_gaps(np.ones(4), right, group.astype(int), 2, share=carry.reference.prevalence)
    np.testing.assert_array_equal(found.strict, shared.excess)


def test_the_reference_and_meters_count_people_of_no_group_with_everybody_only():
    group, right = np.array([0, 0, 1, -1, 9], np.int8), np.array([1.0, 0.0, 1.0, 0.0, 0.0], np.float32)
    weight = np.array([0.25, 0.5, 1.0, 0.25, 1.0], np.float32)
    ref = constraints.reference(constraints.Outcomes(right, 1 - right), group, weight, 200)
    means = metrics.group_means(right, group.astype(np.int32), 200, weight=weight)
    np.testing.assert_allclose(ref.group_accuracy[:2], means[:2], rtol=1e-6)
    np.testing.assert_allclose(ref.accuracy, 1.25 / 3, rtol=1e-6)
    np.testing.assert_allclose(ref.prevalence[:2], [0.25, 1 / 3], rtol=1e-6)

    meter, batch = train.group_meter(200), Batch(None, None, group, None, weight)
    values, info = meter.init(), Info(jnp.float32(1.0), Aux(jnp.asarray(right)))
    for _ in range(3):
        values = meter.update(values, None, batch, info)
    read = meter.read(values)
    np.testing.assert_allclose(read["accuracy"], 1.25 / 3, rtol=1e-6)
    np.testing.assert_allclose(read["group_accuracy"], means, rtol=1e-6)  # nan where nobody was seen
    with pytest.raises(ValueError, match=r"outcomes of shape \(5, 1\), groups \(5,\) and weights \(5,\)"):
        meter.update(values, None, batch, Info(jnp.float32(1.0), Aux(right[:, None])))


@pytest.mark.parametrize("label", [-1, C, 200])
@each
@pytest.mark.slow
def test_a_person_without_a_class_teaches_nothing(name, label):
    """No gradient comes from them; in rates they are nobody, for strict values, proxies and shares alike."""
    index = np.arange(N) % 4 != 1
    unknown = SPLIT._replace(y=jnp.where(index, SPLIT.y, label))
    outcomes = constraints.outcomes(SPLIT.x @ PARAMS[::-1], unknown.y)
    np.testing.assert_array_equal(outcomes.correct[~index], 0.0)
    np.testing.assert_array_equal(outcomes.loss[~index], 0.0)
    problem = PROBLEMS[name]()
    carry = problem.init({}, outcomes, unknown)

    def loss(params, x):
        return problem.evaluate(params, carry, unknown._replace(x=x), None).loss

    gradient = jax.grad(loss, argnums=1)(PARAMS, SPLIT.x)
    np.testing.assert_array_equal(np.abs(gradient).max(axis=1) > 0, index)
    if name.startswith("rates"):
        kept = rows(SPLIT, np.flatnonzero(index))._replace(index=jnp.arange(index.sum()))
        alone = look(problem, kept, kept, jax.tree.map(lambda a: a[index], DENSE))
        share = float(kept.weight.sum() / SPLIT.weight.sum())
        for k, (a, b) in enumerate(zip(look(problem, unknown, unknown, outcomes), alone, strict=True)):
            if k in (1, 2, 3, 4):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            problem.init({}, outcomes, unknown).share, problem.init({}, DENSE, kept).share * share, rtol=1e-5
        )


def test_descent_learns_nothing_of_a_person_without_a_class():
    batch = SPLIT._replace(y=SPLIT.y.at[0].set(-1).at[1].set(C))
    gradient = jax.grad(lambda x: train.mean_cross_entropy(x @ PARAMS, batch._replace(x=x)))(SPLIT.x)
    np.testing.assert_array_equal(np.abs(gradient).max(axis=1) > 0, np.arange(N) > 1)
    predicted = predict_batch(apply, PARAMS, {}, batch.x, batch.y)
    np.testing.assert_array_equal(predicted.loss[:2], 0.0)
    assert (predicted.loss[2:] > 0).all()
    nobody = SPLIT._replace(weight=jnp.zeros(N))
    assert float(train.mean_cross_entropy(SPLIT.x @ PARAMS, nobody)) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["examples", "batch"])
def test_the_memory_of_rates_is_a_recount(memory):
    """With weights, people who are there twice, and positions, groups and classes out of range."""
    rng = np.random.default_rng(1)
    problem = rates.problem(apply, BOUNDS, num_groups=G, num_classes=C, memory=memory)
    carry, known = problem.init({}, None, SPLIT), {}
    evaluate = jax.jit(problem.evaluate)
    for step in range(8):
        index = rng.choice([-1, -N, N, 99, *range(8)], 10)
        inside = (index >= 0) & (index < N)
        whom = np.where(inside, index, 0)
        weight = rng.choice([0.0, 0.5, 2.0], 10).astype(np.float32)
        group, y = (np.asarray(a)[whom] for a in (SPLIT.group, SPLIT.y))
        group = np.where(whom == 3, -1, group)  # the same people every time
        y = np.where(whom == 5, -1, y)
        x = rng.normal(size=(10, 4)).astype(np.float32)
        found = evaluate(PARAMS, carry, Batch(x, y, group, index, weight), None)
        carry = found.carry
        said = np.argmax(x @ np.asarray(PARAMS), axis=1)
        if memory == "batch":
            known, inside = {}, np.ones(10, bool)
        for k in range(10):
            if inside[k] and weight[k] > 0:
                known[(k if memory == "batch" else index[k])] = (said[k], y[k], group[k], weight[k])
        if not known:
            continue
        prediction, labels, groups, weights = map(np.array, zip(*known.values(), strict=True))
        expected = rates.measure(
            BOUNDS, prediction, labels, groups, num_groups=G, num_classes=C, weight=weights.astype(np.float32)
        )
        seen = ~np.isnan(expected.value)
        np.testing.assert_array_equal(found.strict_observed, seen)
        np.testing.assert_allclose(found.strict[seen], expected.value[seen], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.strict_error[seen], expected.standard_error[seen], rtol=1e-4, atol=1e-6)
        assert step < 7 or seen.sum() > 5


def test_classes_of_minus_one_and_one_are_refused():
    y, prediction, group = np.array([-1, 1, -1, 1]), np.array([1, 1, -1, -1]), np.zeros(4, int)
    words = r"the classes are -1 and 1: give 0 and 1, such as \(y \+ 1\) // 2"
    split = Batch(jnp.ones((4, 2)), y, group, np.arange(4), np.ones(4))
    problem = rates.problem(apply, [rates.error() <= 0.1], num_groups=1, num_classes=2)
    for refused in (
        lambda: rates.measure([rates.error()], prediction, y, group, num_groups=1, num_classes=2),
        lambda: rates.measure([rates.error()], prediction, (y + 1) // 2, group, num_groups=1, num_classes=2),
        lambda: problem.init({}, None, split),
        lambda: rates.influence([rates.error() <= 0.1], split, num_groups=1),
        lambda: constraints.outcomes(jnp.ones((4, 2)), y),
    ):
        with pytest.raises(ValueError, match=words):
            refused()
    # As 0 and 1 they are what they were.
    found = rates.measure(
        [rates.false_positive(), rates.error(), rates.positive()],
        (prediction + 1) // 2, (y + 1) // 2, group, num_groups=1, num_classes=2,
    )  # fmt: skip
    np.testing.assert_allclose(found.value, [0.5, 0.5, 0.5])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_rates_of_more_groups_than_eight_bits_can_say(dtype):
    group = np.array([0, 100, 100, 127], dtype)
    found = rates.measure(
        [rates.positive(group=100), rates.positive(group=150)],
        np.array([1, 0, 1, 0], dtype), np.array([1, 1, 0, 0], dtype), group, num_groups=200, num_classes=150,
    )  # fmt: skip
    np.testing.assert_array_equal(found.value, [0.5, np.nan])


def test_costs_know_nobody():
    split = Batch(None, np.array([1, 0, 1, -1, 0, 1]), np.array([0, 0, 1, 1, -1, 7], np.int8), np.arange(6), np.ones(6))
    kept = jax.tree.map(lambda a: a[:3], split)
    bounds = [rates.positive(group=0) - rates.positive() <= 0.1, rates.error(group=1) <= 0.1]
    found = rates.influence(bounds, split, num_groups=2)
    np.testing.assert_array_equal(found[:, 3:], 0.0)
    np.testing.assert_allclose(found[:, :3], rates.influence(bounds, kept, num_groups=2))
    p = np.array([0.2, 0.4, 0.9, 0.7, 0.3, 0.5])
    np.testing.assert_allclose(
        rates.expected(bounds, p, split, num_groups=2), rates.expected(bounds, p[:3], kept, num_groups=2)
    )
    with pytest.raises(ValueError, match=r"probability has shape \(6, 1\) for \(6,\) classes"):
        inspect.unwrap(rates.expected)(bounds, p[:, None], split, num_groups=2)


def test_a_teacher_has_nothing_to_say_of_people_outside_of_the_split():
    loss = constraints.distillation(10 * SPLIT.x @ PARAMS, temperature=2.0)
    batch = rows(SPLIT, [0, 1, 2, 3])._replace(index=jnp.array([0, -1, N, 3]))
    values = loss(batch.x @ PARAMS, batch)
    assert (np.asarray(values) > 0).tolist() == [True, False, False, True]


# --- shapes ----------------------------------------------------------------------------------------------------------


def evaluated(**changes):
    """A step on two constraints."""

    def evaluate(params, carry, batch, key):
        fields = {"loss": params**2, "proxy": params * jnp.ones(2), "strict": jnp.ones(2)} | changes
        return constraints.Evaluation(**fields)

    solver = constraints.solver(evaluate, multipliers=constraints.dense(2), primal=optax.sgd(0.1), dual=optax.sgd(0.1))
    return solver.step(solver.init(jnp.zeros(())))[0]


def with_batch(name="excess_accuracy_gap", **changes):
    problem = PROBLEMS[name]()
    carry = problem.init({}, DENSE, SPLIT)
    return inspect.unwrap(problem.evaluate)(PARAMS, carry, SPLIT._replace(**changes), None)


ONE = jnp.ones(N)
SHAPES = {
    "loss": (lambda: evaluated(loss=jnp.ones(2)), r"loss has shape \(2,\)"),
    "loss of [1]": (lambda: evaluated(loss=jnp.ones(1)), r"loss has shape \(1,\)"),
    "proxy": (lambda: evaluated(proxy=jnp.ones(3)), r"proxy has shape \(3,\), but there are 2 multipliers"),
    "strict": (lambda: evaluated(strict=jnp.ones(())), r"strict has shape \(\), but there are 2"),
    "observed": (lambda: evaluated(strict_observed=jnp.ones(1, bool)), r"strict_observed has dtype bool and shape \(1"),
    "seen": (lambda: evaluated(proxy_observed=jnp.ones((2, 2), bool)), r"proxy_observed has .*shape \(2, 2\)"),
    "list of numbers": (lambda: evaluated(strict_observed=jnp.array([0, 1])), "strict_observed has dtype int32"),
    "labels": (lambda: with_batch(y=SPLIT.y[:, None]), r"24, ?1"),
    "groups": (lambda: with_batch(group=SPLIT.group[:, None]), r"group has shape \(24, 1\) beside weights"),
    "positions": (lambda: with_batch(index=SPLIT.index[:3]), r"index has shape \(3,\)"),
    "weights": (lambda: with_batch(weight=SPLIT.weight[:3]), r"weights \(3,\)"),
    "groups of rates": (lambda: with_batch("rates", group=SPLIT.group[:3]), r"group has shape \(3,\)"),
    "one logit": (
        lambda: constraints.accuracy_gap(
            lambda p, s, x, **_: (x[:, :1], s), num_groups=G, tolerance=0.1
        ).evaluate(PARAMS, PROBLEMS["accuracy_gap"]().init({}, DENSE, SPLIT), SPLIT, None),
        r"logits of shape \(24, 1\)",
    ),
    "outcomes, one logit": (lambda: constraints.outcomes(jnp.ones((3, 1)), jnp.zeros(3, int)), "one logit per class"),
    "outcomes, labels": (
        lambda: inspect.unwrap(constraints.outcomes)(jnp.ones((3, 2)), jnp.zeros((3, 1), int)), r"3, ?1"),
    "outcomes, weights": (
        lambda: inspect.unwrap(constraints.outcomes)(jnp.ones((3, 2)), jnp.zeros(3, int), jnp.ones((3, 1))),
        r"weight has shape \(3, 1\) for classes of shape \(3,\)",
    ),
    "reference": (
        lambda: inspect.unwrap(constraints.reference)(DENSE, SPLIT.group[:3], SPLIT.weight, G), r"group has shape \(3"),
    "descent": (
        lambda: train.descent(apply, optax.sgd(0.1), loss=lambda z, batch: z[:, 0]).step(
            train.descent(apply, optax.sgd(0.1)).init(PARAMS), SPLIT, None),
        r"loss= gave shape \(24,\)",
    ),
    "cross entropy": (
        lambda: inspect.unwrap(train.mean_cross_entropy)(SPLIT.x @ PARAMS, SPLIT._replace(weight=ONE[:, None])),
        r"weights \(24, 1\)",
    ),
    "tolerance": (lambda: constraints.accuracy_gap(apply, num_groups=G, tolerance=np.full(2, 0.1)), r"shape \(2,\)"),
    "scale": (lambda: constraints.scaled(PROBLEMS["accuracy_gap"](), np.ones(2)), r"scale has shape \(2,\)"),
    "confident": (lambda: constraints.confident(PROBLEMS["accuracy_gap"](), z=np.ones(2)), r"z has shape \(2,\)"),
    "initial": (lambda: constraints.dense(2, initial=np.ones(3)), r"initial has shape \(3,\)"),
    "maximum": (lambda: constraints.dense(2, maximum=np.ones(3)), r"maximum has shape \(3,\)"),
    "maximum of rows": (lambda: constraints.indexed(2, maximum=np.ones(2)), r"shape \(2,\): give one number\."),
    "equality": (lambda: constraints.dense(2, equality=np.ones(3, bool)), r"equality has dtype bool and shape \(3,\)"),
    "coefficient": (
        lambda: penalties.multiplicative(1.0, growth=np.full(3, 2.0)), r"growth has shape \(3,\) beside a coefficient"),
    "measure": (
        lambda: inspect.unwrap(rates.measure)(
            [rates.error()], SPLIT.y[:3], SPLIT.y, SPLIT.group, num_groups=G, num_classes=C),
        r"prediction has shape \(3,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_do_not_fit_are_named(name):
    make, words = SHAPES[name]
    with pytest.raises((ValueError, TypeError), match=words):
        make()


@pytest.mark.parametrize("loss", [0, 0.0, np.int32(0), True])
def test_a_loss_may_be_a_plain_number(loss):
    """Where only feasibility is asked for, there is nothing to minimise."""
    assert float(evaluated(loss=loss).params) == pytest.approx(-0.02)


# --- numbers ---------------------------------------------------------------------------------------------------------


def gap(**options):
    return constraints.excess_accuracy_gap(apply, **{"num_groups": G, "tolerance": 0.1} | options)


REFUSED = {
    "tolerance=2": lambda: gap(tolerance=2),
    "tolerance=nan": lambda: gap(tolerance=np.float16(np.nan)),
    "tolerance=True": lambda: gap(tolerance=True),
    "tolerance=-0.5": lambda: gap(tolerance=jnp.float32(-0.5)),
    "margin=inf": lambda: gap(margin=np.inf),
    "start=2.5": lambda: gap(start=2.5),
    "start=nan": lambda: gap(start=np.nan),
    "start=-1": lambda: gap(start=-1),
    "num_groups=0": lambda: gap(num_groups=0),
    "weight_decay=inf": lambda: gap(weight_decay=np.inf),
    "weight_decay=nan": lambda: constraints.unconstrained(apply, num_groups=G, weight_decay=np.nan),
    "constrained has dtype int": lambda: gap(constrained=np.array([0, 1])),
    "constrained has dtype float": lambda: gap(constrained=np.ones(3)),
    "size=0": lambda: constraints.replay_buffer(2, 0),
    "size=2.5": lambda: inspect.unwrap(constraints.replay_buffer)(2, 2.5),
    "num_groups=-1": lambda: constraints.minibatch(-1),
    "decay=1.5": lambda: constraints.exponential_average(2, np.float32(1.5)),
    "decay=nan": lambda: constraints.exponential_average(2, np.nan),
    "num_constraints=2.5": lambda: inspect.unwrap(start_values)(2.5, False, 0.0, None),
    "initial=nan": lambda: constraints.dense(2, initial=np.nan),
    "initial=inf": lambda: constraints.dense(2, initial=np.inf),
    "equality has dtype int": lambda: constraints.dense(2, equality=np.array([0, 1])),
    "maximum=0": lambda: constraints.dense(2, maximum=0),
    "maximum=nan": lambda: constraints.indexed(2, maximum=jnp.float32(jnp.nan)),
    "maximum=-1": lambda: constraints.implicit(tuple, lambda *_: 0, maximum=-1),
    "beyond maximum": lambda: constraints.dense(2, initial=3.0, maximum=np.array([2.0, 4.0])),
    "coefficient=0": lambda: penalties.multiplicative(0.0),
    "coefficient=nan": lambda: penalties.constant(np.nan),
    "coefficient=inf": lambda: penalties.constant(np.inf),
    "maximum=0.5": lambda: penalties.multiplicative(1, maximum=0.5),
    "maximum=0.25": lambda: penalties.additive(np.float32(1), maximum=0.25),
    "growth=inf": lambda: penalties.multiplicative(1.0, growth=np.inf),
    "growth=0.5": lambda: penalties.by_feasibility(1.0, growth=jnp.float32(0.5)),
    "increment=nan": lambda: penalties.additive(1.0, increment=np.nan),
    "every=0": lambda: penalties.by_feasibility(1.0, every=0),
    "every=1.5": lambda: penalties.by_feasibility(1.0, every=1.5),
    "shrink=1": lambda: penalties.by_feasibility(1.0, shrink=1),
    "z=-1": lambda: constraints.confident(PROBLEMS["accuracy_gap"](), z=-1),
    "limit=2": lambda: constraints.churn(apply, num_groups=G, limit=2),
    "limit=nan": lambda: constraints.churn(apply, num_groups=G, limit=np.nan),
    "margin=-1: give": lambda: constraints.churn(apply, num_groups=G, limit=0.1, margin=-1),
    "prediction=None": lambda: constraints.churn(apply, num_groups=G, limit=0.1).init({}, DENSE, SPLIT),
    "prediction has dtype float32": lambda: inspect.unwrap(constraints.churn(apply, num_groups=G, limit=0.1).init)(
        {}, DENSE, SPLIT, prediction=jnp.ones(N)
    ),
    r"prediction has dtype int32 and shape \(3,\)": lambda: inspect.unwrap(
        constraints.churn(apply, num_groups=G, limit=0.1).init
    )({}, DENSE, SPLIT, prediction=jnp.ones(3, jnp.int32)),
    "scale=0": lambda: constraints.scaled(PROBLEMS["accuracy_gap"](), 0.0),
    "scale=inf": lambda: constraints.scaled(PROBLEMS["accuracy_gap"](), np.inf),
    "temperature=0": lambda: constraints.distillation(PARAMS, temperature=0),
    "temperature=nan": lambda: rates.problem(apply, BOUNDS, num_groups=G, num_classes=C, temperature=np.nan),
    "slack=-0.1": lambda: rates.equalized_odds(-0.1, num_groups=2),
    "slack=nan": lambda: rates.demographic_parity(np.nan, num_groups=2),
    "slack=nan: give": lambda: constraints.best_feasible([1.0], [[0.0]], slack=np.nan),
    "slack=2": lambda: rates.demographic_parity(2, num_groups=2),
    "num_groups=2.5": lambda: inspect.unwrap(_apart)(rates.coverage, 0.1, 2.5, 1, "pairs"),
    "num_groups=0: give": lambda: constraints.unconstrained(apply, num_groups=0),
    "restart='no'": lambda: inspect.unwrap(constraints.dense)(2, restart="no"),
    "restart=1": lambda: inspect.unwrap(constraints.indexed)(2, restart=1),
    "decay has shape": lambda: constraints.exponential_average(2, np.array([0.5, 0.5, 0.5])),
    "weight_decay has shape": lambda: gap(weight_decay=np.array([0.1])),
    "loss='ce'": lambda: inspect.unwrap(make_forward)(apply, loss="ce", weight_decay=0.0, decayed=None),
    "teacher has shape": lambda: inspect.unwrap(constraints.distillation)(np.ones(3)),
    "align must be True or False": lambda: inspect.unwrap(optim.symplectic_adjustment)(0.1, align="no"),
    "average_decay=0.5 without average_from": lambda: train.make_step(lambda *_: None, average_decay=0.5),
    "tx= beside solver=": lambda: inspect.unwrap(train.dense)(
        None, None, None, optax.sgd(0.1), keys=None, epochs=1, batch_size=1, solver=1
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_numbers_that_cannot_be_are_named(words):
    with pytest.raises(ValueError, match=words.split(":")[0]) as raised:
        REFUSED[words]()
    assert "\n" not in str(raised.value)


def test_numbers_of_numpy_and_jax_are_numbers():
    for number in (
        0.1,
        np.float32(0.1),
        np.array(0.1),
        jnp.float32(0.1),
        jnp.bfloat16(0.1),
        0,
        np.int64(0),
        np.uint8(1),
    ):
        gap(tolerance=number, margin=number, start=np.int64(3))
        constraints.dense(2, initial=number, maximum=2)
        penalties.additive(number, increment=number, tolerance=number)
    gap(start=2.0)
    gap(start=jnp.int32(2))
    each = constraints.exponential_average(2, np.array([0.0, 0.5]))
    batch = Batch(None, None, np.array([0, 1]), np.arange(2), np.ones(2))
    state = each.push(each.push(each.init(batch.group, np.ones(2), np.ones(2)), batch, np.ones(2)), batch, np.zeros(2))
    np.testing.assert_allclose(each.group_means(state)[0], [0, 1 / 3], rtol=1e-6)
    jax.jit(lambda t: gap(tolerance=t, start=t, weight_decay=t).bound)(0.1)  # what is traced is data


# --- a rate for each constraint --------------------------------------------------------------------------------------

VECTOR = np.array([0.1, 0.2], np.float32)
DUALS = {
    "sgd": (optax.sgd, {}),
    "momentum": (optax.sgd, {"momentum": 0.5}),
    "adam": (optax.adam, {}),
    "injected": (lambda rate: optax.inject_hyperparams(optax.sgd)(rate), {}),
    "nupi": (optim.nupi, {"decay": 0.5}),
    "nupi, gain": (lambda rate: optim.nupi(0.1, proportional=10 * rate, decay=0.5), {}),
    "omega": (optim.omega, {}),
    "a schedule for each": (lambda rate: optax.sgd(lambda count: rate / (1 + count)), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("space", ["dense", "indexed"])
@pytest.mark.parametrize("name", DUALS)
def test_each_constraint_may_have_a_rate_of_its_own(name, space):
    """It is what two problems of one constraint do, each with its number; who is not observed stays, count included."""
    make, options = DUALS[name]

    def evaluate(rows):
        def of(params, carry, batch, key):
            v = (jnp.array([1.0, -0.5])[rows]) * (1 + carry)
            seen = (jnp.array([True, False])[rows]) | (carry % 2 == 0)
            index = jnp.arange(len(rows)) if space == "indexed" else None
            return constraints.Evaluation(
                0.0 * params, params * v, v, strict_observed=seen, carry=carry + 1.0, index=index
            )

        return of

    def play(rows, rate):
        solver = constraints.solver(
            evaluate(np.array(rows)),
            multipliers=getattr(constraints, space)(len(rows), equality=True),
            primal=optax.sgd(0.0), dual=make(rate, **options),
        )  # fmt: skip
        state = solver.init(jnp.zeros(()), jnp.zeros(()))
        return jax.jit(lambda s: jax.lax.scan(lambda s, _: solver.step(s), s, length=5))(state)[0].multipliers

    both = play([0, 1], jnp.asarray(VECTOR))
    alone = [play([k], rate)[0] for k, rate in enumerate(VECTOR)]
    np.testing.assert_allclose(both, alone, rtol=1e-5)
    assert (np.abs(both) > 0.01).all()


@pytest.mark.parametrize(
    ("dual", "words"),
    [
        (lambda: optax.sgd([0.1, 0.2]), r"as an array, such as optax.sgd\(jnp.array\(\[0.1, 0.2\]\)\)"),
        (lambda: optax.sgd(jnp.ones(3)), "has 3 numbers for 2 constraints"),
        (lambda: optax.sgd(jnp.ones((2, 2))), r"update of shape \(2, 2\)"),
        (lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(jnp.ones(2))), "mixes the constraints"),
    ],
)
def test_rates_that_cannot_be_are_named(dual, words):
    with pytest.raises(ValueError, match=words) as raised:
        constraints.solver(
            PROBLEMS["accuracy_gap"]().evaluate, multipliers=constraints.dense(2), primal=optax.sgd(0.1), dual=dual()
        )
    assert "\n" not in str(raised.value)


# --- what is not known -----------------------------------------------------------------------------------------------


PLAYED = [
    (make, space, order)
    for make in ("lagrangian", "normalized_lagrangian", "augmented_lagrangian", "quadratic_penalty")
    for space in ("dense", "indexed", "implicit")
    for order in ("dual_primal", "simultaneous", "primal_dual", "extragradient", "joint")
    if space == "dense" or (make != "normalized_lagrangian" and order != "joint")
]


@pytest.mark.parametrize(("make", "space", "order"), PLAYED)
def test_nothing_moves_by_a_strict_value_that_is_not_known(make, space, order):
    """Nan is not known, whether it is flagged or not; the other constraint goes on. All groups at once, too."""
    formulation = getattr(constraints, make)(*([1.0] if make in ("augmented_lagrangian", "quadratic_penalty") else []))
    spaces = {
        "dense": lambda: constraints.dense(2, initial=0.5),
        "indexed": lambda: constraints.indexed(2, initial=0.5),
        "implicit": lambda: constraints.implicit(lambda: jnp.full(2, 0.5), lambda w, f: f @ w),
    }
    players = {"primal": optax.sgd(0.1), "dual": optax.sgd(0.1), "order": order}
    if order == "joint":
        players = {"joint": optax.sgd(0.1)}

    def play(strict, observed):
        def evaluate(params, carry, batch, key):
            return constraints.Evaluation(
                (params - 1) ** 2, params * jnp.ones(2), jnp.asarray(strict), strict_observed=jnp.asarray(observed),
                index=jnp.arange(2), features=jnp.eye(2),
            )  # fmt: skip

        solver = constraints.solver(evaluate, multipliers=spaces[space](), formulation=formulation, **players)
        return solver.step(solver.init(jnp.zeros(())))

    expected, _ = play([0.25, 0.0], [True, False])
    for strict, observed in (([0.25, np.nan], [True, False]), ([0.25, np.nan], [True, True])):
        state, info = play(strict, observed)
        np.testing.assert_allclose(state.params, expected.params)
        np.testing.assert_allclose(state.multipliers, expected.multipliers)
        assert info.strict_observed.tolist() == [True, False]
        assert np.isfinite([info.kkt.feasibility, info.kkt.complementarity]).all()
    state, _ = play([np.nan, np.nan], [True, True])
    np.testing.assert_allclose(state.multipliers, 0.5)
    assert np.isfinite(state.params)


def test_the_safe_mean_of_an_empty_group_spoils_nothing():
    """As the docstring of `Evaluation` has it; a division by the count itself is nan in its derivative."""
    mask = jnp.array([[1.0, 1.0], [0.0, 0.0]])

    def evaluate(params, carry, batch, key):
        p, n = params * jnp.array([1.0, 3.0]), jnp.sum(mask, axis=1)
        mean = mask @ p / jnp.where(n > 0, n, 1.0)
        return constraints.Evaluation((params - 1) ** 2, mean, mean, proxy_observed=n > 0, strict_observed=n > 0)

    for formulation in (constraints.lagrangian(), constraints.augmented_lagrangian(1.0)):
        solver = constraints.solver(
            evaluate,
            multipliers=constraints.dense(2),
            primal=optax.sgd(0.1),
            dual=optax.sgd(0.1),
            formulation=formulation,
        )
        state, info = solver.step(solver.init(jnp.zeros(())))
        assert float(state.params) == pytest.approx(0.2)
        assert np.isfinite(info.kkt.stationarity)


@pytest.mark.parametrize("size", [4, 700])  # compared pair by pair, and sorted
@pytest.mark.parametrize("formulation", ["lagrangian", "augmented_lagrangian", "quadratic_penalty"])
@pytest.mark.slow
def test_of_a_constraint_that_is_named_twice_the_last_row_counts(formulation, size):
    """The same numbers as without the other rows: multipliers, optimizer's state, penalties, weights and residuals."""
    form = getattr(constraints, formulation)(*(() if formulation == "lagrangian" else (1.0,)))

    def found(index, value):
        def evaluate(params, carry, batch, key):
            return constraints.Evaluation(params**2, params * value, value, index=index)

        made = constraints.solver(
            evaluate, multipliers=constraints.indexed(5), formulation=form, primal=optax.sgd(0.1), dual=optax.adam(0.1)
        )
        state = made.init(jnp.ones(()))
        for _ in range(2):
            state, info = jax.jit(made.step)(state)
        return state, info.kkt

    index = np.full(size, 3)
    index[-3:] = [1, 3, 1]
    value = jnp.full(size, 9.0).at[jnp.array([-2, -1])].set(jnp.array([2.0, -0.5]))
    jax.tree.map(np.testing.assert_array_equal, found(index, value), found(np.array([3, 1]), value[-2:]))


def test_a_standard_error_beside_a_group_of_almost_everybody():
    """1 - 2s + s² in float32 is not (1 - s)²."""
    share, errors = np.array([0.99995, 0.00003, 0.00002]), np.array([0.002, 0.3, 0.4])
    found = difference_error(jnp.asarray(errors, jnp.float32), jnp.ones(3, bool), jnp.asarray(share, jnp.float32))
    right = [
        np.sqrt(((1 - share[g]) * errors[g]) ** 2 + sum((share[h] * errors[h]) ** 2 for h in range(3) if h != g))
        for g in range(3)
    ]
    np.testing.assert_allclose(found, right, rtol=1e-5)
    assert difference_error(jnp.array([0.1]), jnp.ones(1, bool), jnp.array([7.0])).tolist() == [0.0]


@pytest.mark.parametrize("player", ["primal", "dual", "joint"])
@pytest.mark.parametrize("wrong", [optax.sgd, 0.1, "sgd"], ids=["uncalled", "number", "word"])
def test_a_player_that_is_no_optimizer_is_named(player, wrong):
    players = {"primal": optax.sgd(0.1), "dual": optax.sgd(0.1), "joint": None, player: wrong}
    with pytest.raises(TypeError, match=f"^{player}=.*: give an optax optimizer, such as"):
        inspect.unwrap(_check_players)(
            **players, multipliers=constraints.dense(1), formulation=constraints.lagrangian(), order="dual_primal"
        )


def test_a_problem_that_is_none_is_named():
    with pytest.raises(TypeError, match="problem='ceag': give a"):
        inspect.unwrap(constraints.solver)("ceag", multipliers=constraints.dense(1), primal=optax.sgd(0.1))


@pytest.mark.parametrize("make", [constraints.example_memory, constraints.minibatch])
def test_a_memory_of_other_groups_is_named(make):
    problem = gap(memory=make(G + 1))
    with pytest.raises(ValueError, match=r"memory= has means of shape \(4,\) for num_groups=3"):
        problem.evaluate(PARAMS, problem.init({}, DENSE, SPLIT), SPLIT, None)


CLASSES = Batch(None, jnp.zeros(3, int), jnp.zeros(3, int), jnp.arange(3), jnp.ones(3))
MISSHAPEN = {
    r"logits of shape (3, 1) for classes of shape (3,)": lambda of: of(constraints.cross_entropy)(
        jnp.ones((3, 1)), CLASSES
    ),
    r"logits of shape (3, 2) for classes of shape (3, 1)": lambda of: of(constraints.cross_entropy)(
        jnp.ones((3, 2)), CLASSES._replace(y=jnp.zeros((3, 1), int))
    ),
    r"logits of shape (3, 2) for classes of shape (2,)": lambda of: of(constraints.cross_entropy)(
        jnp.ones((3, 2)), CLASSES._replace(y=jnp.zeros(2, int))
    ),
    r"logits of shape (3,) for classes of shape (3,)": lambda of: of(constraints.outcomes)(jnp.ones(3), CLASSES.y),
    r"teacher has shape (3, 3) beside logits of shape (3, 2)": lambda of: of(
        constraints.distillation(jnp.ones((3, 3)))
    )(jnp.ones((3, 2)), CLASSES),
    r"losses have shape (3, 1) beside weights of shape (3,)": lambda of: of(constraints.group_losses)(
        jnp.ones((3, 1)), CLASSES, jnp.ones(1), "batch"
    ),
}


@pytest.mark.parametrize("words", MISSHAPEN)
def test_losses_of_shapes_that_do_not_fit_are_no_numbers(words):
    with pytest.raises(ValueError, match=re.escape(words)):
        MISSHAPEN[words](inspect.unwrap)
