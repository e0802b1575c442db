"""What a problem says of itself, losses, traced numbers; and small inputs that once gave wrong answers."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints, metrics, optim
from jaxfair.constraints import rates
from jaxfair.constraints.problem import Aux, Carry
from jaxfair.typing import Batch

G, C, N, FEATURES = 3, 4, 120, 5
RNG = np.random.default_rng(0)
SPLIT = Batch(
    x=jnp.asarray(RNG.normal(size=(N, FEATURES)), jnp.float32),
    y=jnp.asarray(RNG.integers(0, C, N), jnp.int32),
    group=jnp.asarray(RNG.choice(G, N, p=[0.6, 0.3, 0.1]), jnp.int32),
    index=jnp.arange(N, dtype=jnp.int32),
    weight=jnp.ones(N),
)
PARAMS = jnp.asarray(RNG.normal(size=(FEATURES, C)), jnp.float32)


def apply(params, state, x, *, train, key=None):
    return x @ params, state


DENSE = constraints.outcomes(apply(0.5 * PARAMS[::-1], {}, SPLIT.x, train=False)[0], SPLIT.y)
ORDER = jnp.asarray(np.stack([np.random.default_rng(t).permutation(N)[:32] for t in range(60)]))


def play(solver, carry, steps=60, params=PARAMS):
    """The end of a run, and what was seen on the way."""

    def body(state, index):
        state, info = solver.step(state, jax.tree.map(lambda a: a[index], SPLIT))
        return state, (info.loss, info.strict, info.weights)

    state, seen = jax.lax.scan(body, solver.init(params, carry), ORDER[:steps])
    return state.params, state.multipliers, state.penalties, seen


def players(dual=0.5):
    return {"primal": optax.sgd(0.1, momentum=0.9), "dual": optax.sgd(dual)}


def made(problem, **options):
    return constraints.solver(problem, **players() | options), problem.init({}, DENSE, SPLIT)


def following(problem):
    """A problem that is told what the dense model predicts."""
    return problem._replace(
        init=lambda state, outcomes, batch: problem.init(
            state, outcomes, batch, prediction=jnp.argmax(batch.x @ PARAMS[::-1], axis=-1)
        )
    )


# --- a problem says once what it is --------------------------------------------------------------------------------

PROBLEMS = {
    "ceag": lambda **kw: constraints.excess_accuracy_gap(apply, num_groups=G, tolerance=0.02, **kw),
    "accuracy_gap": lambda **kw: constraints.accuracy_gap(apply, num_groups=G, tolerance=0.02, **kw),
    "equalized_loss": lambda **kw: constraints.equalized_loss(apply, num_groups=G, **kw),
    "churn": lambda **kw: following(constraints.churn(apply, num_groups=G, limit=0.02, **kw)),
    "rates": lambda **kw: rates.problem(
        apply,
        [rates.positive(group=0) <= 0.1, rates.equal(rates.error(group=1), 0.5)],
        num_groups=G,
        num_classes=C,
        **kw,
    ),
    "unconstrained": lambda **kw: constraints.unconstrained(apply, num_groups=G, **kw),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_brings_its_kind_its_multipliers_and_its_formulation(name):
    problem = PROBLEMS[name]()
    short = constraints.solver(problem, **players())
    long = constraints.solver(
        problem.evaluate,
        multipliers=constraints.dense(problem.num_constraints, equality=problem.equality),
        formulation=problem.formulation,
        **players(),
    )
    carry = problem.init({}, DENSE, SPLIT)
    chex.assert_trees_all_equal(play(short, carry, 20), play(long, carry, 20))


@pytest.mark.slow
def test_each_of_them_can_be_overridden():
    problem = PROBLEMS["ceag"]()
    solver, carry = made(problem, multipliers=constraints.dense(G, initial=1.0), formulation=constraints.lagrangian())
    _, info = solver.step(solver.init(PARAMS, carry), SPLIT)
    np.testing.assert_array_equal(info.multipliers, 1.0)
    assert float(info.weights.sum()) > 1.0  # the problem recommends weights that sum to less
    capped = problem._replace(multipliers=constraints.dense(G, maximum=0.01, initial=0.01))
    solver, carry = made(capped)
    assert float(play(solver, carry)[1].max()) <= 0.01


@pytest.mark.slow
def test_an_equality_stays_one_without_being_told_again():
    """Violations of (-1.5, 4.5) / 3 in each of three steps: a multiplier of an equality may fall below 0."""
    problem = constraints.equalized_loss(lambda p, s, x, **_: (x * p, s), num_groups=2)
    x = jnp.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    batch = Batch(x, jnp.zeros(4, jnp.int32), jnp.array([0, 0, 0, 1]), jnp.arange(4), jnp.ones(4))
    solver = constraints.solver(problem, primal=optax.sgd(0.0), dual=optax.sgd(1.0))
    dense = constraints.Outcomes(jnp.ones(4), jnp.zeros(4))
    state = solver.init(jnp.ones(()), problem.init({}, dense, batch))
    for _ in range(3):
        state, _ = solver.step(state, batch)
    np.testing.assert_allclose(state.multipliers, [-1.5, 4.5], rtol=1e-6)


def test_without_constraints_neither_a_dual_optimizer_nor_a_reference_is_needed():
    problem = PROBLEMS["unconstrained"]()
    solver = constraints.solver(problem, primal=optax.sgd(0.1))
    state, info = solver.step(solver.init(PARAMS, problem.init({}, None, SPLIT)), SPLIT)
    loss, gradient = jax.value_and_grad(lambda p: constraints.cross_entropy(SPLIT.x @ p, SPLIT).mean())(PARAMS)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-6)
    np.testing.assert_allclose(state.params, PARAMS - 0.1 * gradient, atol=1e-6)


# --- the maker is the long way, bit for bit -------------------------------------------------------------------------


def shared_by_hand(params, carry, batch, memory, remember):
    """What the problems of groups have in common, written out."""
    logits = batch.x @ params
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.y)
    correct = (jnp.argmax(logits, axis=-1) == batch.y).astype(jnp.float32)
    loss = jnp.sum(batch.weight * losses) / jnp.sum(batch.weight)
    remembered = memory.push(carry.memory, batch, losses if remember == "loss" else correct)
    sums = jnp.zeros(G).at[batch.group].add(batch.weight * losses)
    group_loss = sums / (jnp.sum(batch.weight) * carry.reference.prevalence)
    carry = Carry(carry.model_state, remembered, carry.reference, carry.step + 1)
    return loss, correct, group_loss, memory.group_means(remembered)[0], carry


def ceag_by_hand(params, carry, batch, key):
    memory, ref = constraints.example_memory(G), carry.reference
    loss, correct, group_loss, accuracy, carry = shared_by_hand(params, carry, batch, memory, "correct")
    gap = ref.group_accuracy - accuracy
    excess = gap - jnp.sum(ref.prevalence * gap) / jnp.sum(ref.prevalence)
    surrogate = (group_loss - ref.group_loss) - (loss - ref.loss)
    return constraints.Evaluation(loss, surrogate - 0.01, excess - 0.01, carry=carry, aux=Aux(correct, accuracy))


def accuracy_gap_by_hand(params, carry, batch, key):
    memory, ref = constraints.example_memory(G), carry.reference
    loss, correct, group_loss, accuracy, carry = shared_by_hand(params, carry, batch, memory, "correct")
    return constraints.Evaluation(
        loss,
        (group_loss - ref.group_loss) - 0.01,
        (ref.group_accuracy - accuracy) - 0.01,
        carry=carry,
        aux=Aux(correct, accuracy),
    )


def equalized_loss_by_hand(params, carry, batch, key):
    memory, ref = constraints.example_memory(G), carry.reference
    loss, correct, group_loss, losses, carry = shared_by_hand(params, carry, batch, memory, "loss")
    average = jnp.sum(ref.prevalence * losses) / jnp.sum(ref.prevalence)
    return constraints.Evaluation(loss, group_loss - loss, losses - average, carry=carry, aux=Aux(correct, losses))


def churn_by_hand(params, carry, batch, key):
    """The accuracy gap of a world in which the dense model is right about everybody; the loss is that of this one."""
    memory, ref = constraints.example_memory(G), carry.reference
    logits, label = batch.x @ params, ref.label[batch.index]
    loss, far = (
        batch.weight * optax.softmax_cross_entropy_with_integer_labels(logits, classes) for classes in (batch.y, label)
    )
    correct, agree = ((jnp.argmax(logits, axis=-1) == classes).astype(jnp.float32) for classes in (batch.y, label))
    remembered = memory.push(carry.memory, batch, agree)
    agreement = memory.group_means(remembered)[0]
    group_loss = jnp.zeros(G).at[batch.group].add(far) / (jnp.sum(batch.weight) * ref.prevalence)
    return constraints.Evaluation(
        jnp.sum(loss) / jnp.sum(batch.weight), group_loss - 0.01, (1.0 - agreement) - 0.01,
        carry=Carry(carry.model_state, remembered, ref, carry.step + 1), aux=Aux(correct, agreement),
    )  # fmt: skip


BY_HAND = {
    "ceag": ceag_by_hand,
    "accuracy_gap": accuracy_gap_by_hand,
    "equalized_loss": equalized_loss_by_hand,
    "churn": churn_by_hand,
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.slow
def test_sixty_steps_equal_those_of_the_problem_written_out(name):
    problem = PROBLEMS[name]()
    assert float(DENSE.correct.mean()) > 0
    carry = problem.init({}, DENSE, SPLIT)
    maker = constraints.solver(problem, **players())
    by_hand = constraints.solver(problem._replace(evaluate=BY_HAND[name]), **players())
    found = jax.jit(lambda: play(maker, carry))()
    written = jax.jit(lambda: play(by_hand, carry))()
    if name == "churn":
        # Of two cross entropies of the same logits, a compiler may sum either first: last digits, over sixty steps.
        chex.assert_trees_all_close(found, written, rtol=1e-5, atol=1e-5)
    else:
        chex.assert_trees_all_equal(found, written)
    assert float(jnp.abs(found[1]).max()) > 0  # some constraint had a multiplier


# --- the loss is an argument ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.slow
def test_every_problem_takes_a_loss(name):
    """Twice the cross entropy is twice the objective; where proxies are losses, they are of the same loss."""
    plain = PROBLEMS[name]()
    double = PROBLEMS[name](loss=lambda z, b: 2.0 * constraints.cross_entropy(z, b))
    carry = plain.init({}, DENSE, SPLIT)
    a, b = (p.evaluate(PARAMS, carry, SPLIT, None) for p in (plain, double))
    np.testing.assert_allclose(b.loss, 2 * a.loss, rtol=1e-6)
    if name == "equalized_loss":
        np.testing.assert_allclose(b.proxy, 2 * a.proxy, atol=1e-5)
    if name in ("ceag", "accuracy_gap"):
        gradients = (
            jax.jacobian(lambda w, p=p: p.evaluate(w, carry, SPLIT, None).proxy)(PARAMS) for p in (plain, double)
        )
        one, two = gradients
        np.testing.assert_allclose(two, 2 * one, atol=1e-5)
        np.testing.assert_array_equal(a.strict, b.strict)


def test_distillation_is_cross_entropy_at_share_0_and_follows_the_teacher_at_share_1():
    teacher = SPLIT.x @ PARAMS[::-1]
    logits = SPLIT.x @ PARAMS
    none = constraints.distillation(teacher, temperature=2.0, share=0.0)
    np.testing.assert_allclose(none(logits, SPLIT), constraints.cross_entropy(logits, SPLIT), rtol=1e-6)
    problem = PROBLEMS["unconstrained"](loss=constraints.distillation(teacher, temperature=2.0))
    solver = constraints.solver(problem, primal=optax.adam(0.1))
    params, *_ = jax.jit(lambda: play(solver, problem.init({})))()
    agree = jnp.argmax(SPLIT.x @ params, -1) == jnp.argmax(teacher, -1)
    assert float(agree.mean()) > 0.9


def test_a_teacher_that_is_asked_says_what_one_that_has_been_asked_does():
    logits, weights = SPLIT.x @ PARAMS, PARAMS[::-1]
    known, asked = (
        constraints.distillation(teacher, temperature=2.0, share=0.7)
        for teacher in (SPLIT.x @ weights, lambda batch: batch.x @ weights)
    )
    np.testing.assert_allclose(known(logits, SPLIT), asked(logits, SPLIT), rtol=1e-6)
    with pytest.raises(ValueError, match="teacher has shape"):
        constraints.distillation(lambda batch: batch.x @ weights[:, :1])(logits, SPLIT)
    # It is asked, not taught.
    of = lambda w: constraints.distillation(lambda batch: batch.x @ w)(logits, SPLIT).sum()
    assert not np.any(jax.grad(of)(weights))


@pytest.mark.parametrize("name", ["ceag", "accuracy_gap", "equalized_loss"])
def test_proxies_may_be_made_of_another_loss_than_the_objective(name):
    taught = constraints.distillation(SPLIT.x @ PARAMS[::-1])
    plain, both, other = (
        PROBLEMS[name](**options)
        for options in ({}, {"loss": taught, "proxy_loss": constraints.cross_entropy}, {"loss": taught})
    )

    def found(problem):
        return problem.evaluate(PARAMS, problem.init({}, DENSE, SPLIT), SPLIT, None)

    np.testing.assert_array_equal(found(both).proxy, found(plain).proxy)
    assert found(both).loss == found(other).loss
    assert found(both).loss != found(plain).loss
    assert not np.allclose(found(other).proxy, found(plain).proxy)


def test_a_loss_of_another_shape_is_named():
    problem = PROBLEMS["ceag"](loss=lambda z, b: constraints.cross_entropy(z, b).mean())
    with pytest.raises(ValueError, match="one number per example"):
        problem.evaluate(PARAMS, problem.init({}, DENSE, SPLIT), SPLIT, None)


# --- numbers are data -----------------------------------------------------------------------------------------------


def bounded(tolerance=0.02, **options):
    return made(constraints.excess_accuracy_gap(apply, num_groups=G, tolerance=tolerance, **options))


def one_rate(bounds, **options):
    return made(
        rates.problem(apply, bounds, num_groups=G, num_classes=C, **options),
        formulation=constraints.lagrangian(),
    )


def augmented(penalty, **options):
    return made(PROBLEMS["ceag"](), formulation=constraints.augmented_lagrangian(penalty), **options)


def grown(name, **options):
    return augmented(getattr(constraints.penalties, name)(0.5, **options))


def spaced(**options):
    return made(PROBLEMS["ceag"](), multipliers=constraints.dense(G, **options))


# Numbers that are exact in binary: a product of two of them is the same in Python and in float32.
NUMBERS = {
    "tolerance": (0.03125, lambda v: bounded(v)),
    "tolerance of accuracy_gap": (
        0.03125,
        lambda v: made(constraints.accuracy_gap(apply, num_groups=G, tolerance=v)),
    ),
    "limit of churn": (
        0.03125,
        lambda v: made(following(constraints.churn(apply, num_groups=G, limit=v))),
    ),
    "tolerance as published": (
        0.03125,
        lambda v: made(
            constraints.published_excess_accuracy_gap(
                apply, num_groups=G, tolerance=v, memory=constraints.replay_buffer(G, 4)
            )
        ),
    ),
    "margin": (0.25, lambda v: bounded(margin=v)),
    "start": (3, lambda v: bounded(start=v)),
    "slack": (0.0625, lambda v: one_rate(rates.demographic_parity(v, num_groups=G))),
    "bound of a rate": (0.25, lambda v: one_rate([2 * rates.positive(group=1) <= v])),
    "temperature of a rate": (
        0.5,
        lambda v: one_rate([rates.positive() <= 0.25], proxy="sigmoid", temperature=v),
    ),
    "maximum": (0.0625, lambda v: spaced(maximum=v)),
    "initial": (0.5, lambda v: spaced(initial=v)),
    "penalty": (0.5, lambda v: augmented(v)),
    "penalty of each": (np.array([0.5, 0.0, 2.0], np.float32), lambda v: augmented(v)),
    "quadratic penalty": (
        0.5,
        lambda v: made(PROBLEMS["ceag"](), formulation=constraints.quadratic_penalty(v)),
    ),
    "growth": (1.125, lambda v: grown("multiplicative", growth=v, maximum=4.0)),
    "increment": (0.125, lambda v: grown("additive", increment=v)),
    "tolerance of a penalty": (0.125, lambda v: grown("additive", tolerance=v)),
    "maximum of a penalty": (1.5, lambda v: grown("multiplicative", growth=1.5, maximum=v)),
    "shrink": (0.5, lambda v: grown("by_feasibility", shrink=v, every=2)),
    "every": (2, lambda v: grown("by_feasibility", every=v)),
    "decay": (0.75, lambda v: bounded(memory=constraints.exponential_average(G, v))),
    "weight_decay": (0.125, lambda v: bounded(weight_decay=v)),
    "weight_decay without constraints": (
        0.125,
        lambda v: made(PROBLEMS["unconstrained"](weight_decay=v)),
    ),
    "weight_decay of rates": (
        0.125,
        lambda v: one_rate([rates.positive() <= 0.25], weight_decay=v),
    ),
    "z": (0.5, lambda v: made(constraints.confident(PROBLEMS["ceag"](), z=v))),
    "share of a teacher": (
        0.5,
        lambda v: bounded(loss=constraints.distillation(SPLIT.x @ PARAMS[::-1], share=v)),
    ),
    "constrained": (np.array([True, False, True]), lambda v: bounded(constrained=v)),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.slow
def test_a_traced_number_is_the_same_number(name):
    number, make = NUMBERS[name]
    run = jax.jit(lambda v: play(*make(v), steps=12))
    traced, plain = run(number), jax.jit(lambda: play(*make(number), steps=12))()
    chex.assert_trees_all_equal(traced, plain)
    another = number[::-1] if isinstance(number, np.ndarray) else type(number)(1)
    another = ~number if name == "constrained" else another
    pairs = zip(jax.tree.leaves(run(another)), jax.tree.leaves(plain), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs)  # the number is not ignored


@pytest.mark.slow
def test_four_tolerances_are_four_lanes_of_one_program():
    traced = 0

    def run(tolerance):
        nonlocal traced
        traced += 1
        return play(*bounded(tolerance), steps=30)

    tolerances = jnp.array([0.0, 0.03125, 0.125, 1.0])
    lanes = jax.jit(jax.vmap(run))(tolerances)
    assert traced == 1
    for k, tolerance in enumerate(tolerances.tolist()):
        alone = jax.jit(lambda t=tolerance: run(t))()
        mine = jax.tree.map(lambda leaf, k=k: leaf[k], lanes)
        # Products of matrices are summed in another order under vmap.
        chex.assert_trees_all_close(mine, alone, rtol=1e-3, atol=1e-4)
    assert float(lanes[1][0].max()) > 0
    np.testing.assert_array_equal(lanes[1][3], 0.0)  # at a tolerance of 1 nothing binds


def with_switches(uniform, by_count, bound, start):
    """CEAG with its words as numbers: which mean, and which estimate of a group's loss."""

    def strict(accuracy, observed, ref):
        gap = jnp.where(observed, ref.group_accuracy - accuracy, 0.0)
        share = jnp.where(observed, ref.prevalence, 0.0)
        average = jnp.sum(share * gap) / jnp.maximum(jnp.sum(share), 1e-12)
        each = jnp.sum(jnp.where(observed, accuracy, 0.0)) / jnp.maximum(jnp.sum(observed), 1)
        return gap - jnp.where(uniform > 0, ref.accuracy - each, average)

    def estimator(losses, batch, prevalence):
        pair = (constraints.group_losses(losses, batch, prevalence, word) for word in ("batch", "prevalence"))
        return jax.tree.map(lambda a, b: jnp.where(by_count > 0, a, b), *pair)

    return constraints.group_problem(
        apply,
        num_groups=G,
        strict=strict,
        surrogate=lambda group_loss, mean, ref: (group_loss - ref.group_loss) - (mean - ref.loss),
        proxy=estimator,
        bound=bound,
        start=start,
    )


@pytest.mark.slow
def test_the_words_of_a_problem_may_be_data_too():
    """Four corners as lanes of one program: the steps of `excess_accuracy_gap`."""
    corners = [(0, 0, 0), (1, 0, 0), (0, 1, 3), (1, 1, 3)]
    lanes = jax.jit(
        jax.vmap(lambda uniform, by_count, start: play(*made(with_switches(uniform, by_count, 0.01, start)), steps=12))
    )(*map(jnp.array, zip(*corners, strict=True)))
    for k, (uniform, by_count, start) in enumerate(corners):
        problem = PROBLEMS["ceag"](
            mean="uniform" if uniform else "prevalence",
            proxy="batch" if by_count else "prevalence",
            start=start,
        )
        alone = made(problem, formulation=constraints.lagrangian())
        expected = jax.jit(lambda alone=alone: play(*alone, steps=12))()
        mine = jax.tree.map(lambda leaf, k=k: leaf[k], lanes)
        # Products of matrices are summed in another order under vmap.
        chex.assert_trees_all_close(mine, expected, rtol=1e-4, atol=1e-5)


# --- what once gave wrong answers -----------------------------------------------------------------------------------


def one_constraint(strict, observed, formulation, **options):
    def evaluate(params, carry, batch, key):
        return constraints.Evaluation((params - 1) ** 2, params[None], jnp.asarray(strict), strict_observed=observed)

    solver = constraints.solver(
        evaluate,
        multipliers=constraints.dense(1, **options),
        primal=optax.sgd(0.1),
        dual=optax.sgd(0.1),
        formulation=formulation,
    )
    return solver.step(solver.init(jnp.zeros(())))


@pytest.mark.parametrize("strict", [[np.nan], [100.0]])
@pytest.mark.parametrize("name", ["augmented_lagrangian", "quadratic_penalty"])
def test_what_is_not_observed_steers_nobody(name, strict):
    state, info = one_constraint(strict, False, getattr(constraints, name)(1.0))
    assert float(state.params) == pytest.approx(0.2)
    assert float(info.kkt.feasibility) == 0.0


@pytest.mark.slow
def test_of_a_group_whose_buffer_is_not_full_a_penalty_knows_nothing():
    problem = PROBLEMS["ceag"](memory=constraints.replay_buffer(G, 4))
    solver, carry = made(problem, formulation=constraints.augmented_lagrangian(5.0))
    batch = jax.tree.map(lambda a: a[:3], SPLIT)
    _, info = solver.step(solver.init(PARAMS, carry), batch)
    assert not info.strict_observed.any()
    np.testing.assert_array_equal(info.weights, 0.0)


@pytest.mark.parametrize("row", [3, -1, 7])
def test_a_row_that_stands_for_nothing_counts_for_nothing(row):
    values = jnp.array([0.0, 5.0])

    def evaluate(params, carry, batch, key):
        return constraints.Evaluation(params**2, values * params, values, index=jnp.array([0, row]))

    solver = constraints.solver(
        evaluate,
        multipliers=constraints.indexed(3),
        primal=optax.sgd(0.1),
        dual=optax.sgd(0.1),
        formulation=constraints.augmented_lagrangian(1.0),
    )
    state, info = solver.step(solver.init(jnp.ones(())))
    assert float(state.params) == pytest.approx(0.8)
    assert float(info.kkt.feasibility) == 0.0
    np.testing.assert_array_equal(state.multipliers, 0.0)


def test_a_cap_is_for_multipliers_and_not_for_violations():
    _, info = one_constraint([5.0], True, constraints.lagrangian(), maximum=2.0)
    assert float(info.kkt.feasibility) == 5.0
    _, info = one_constraint([5.0], True, constraints.quadratic_penalty(1.0), maximum=2.0)
    assert float(info.weights[0]) == 5.0
    penalty = constraints.penalties.multiplicative(1.0, growth=2.0, tolerance=3.0)
    state, info = one_constraint([5.0], True, constraints.augmented_lagrangian(penalty), maximum=2.0)
    assert float(state.penalties) == 2.0
    assert float(info.weights[0]) == 2.0


MEMORIES = {
    "minibatch": lambda: constraints.minibatch(1),
    "replay_buffer": lambda: constraints.replay_buffer(1, 2),
    "exponential_average": lambda: constraints.exponential_average(1, 0.5),
    "example_memory": lambda: constraints.example_memory(1),
}


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.slow
def test_a_memory_forgets_an_outcome_that_is_not_finite(name, bad):
    memory, one = MEMORIES[name](), jnp.ones(2)
    batch = Batch(None, None, jnp.zeros(2, int), jnp.arange(2), one)
    state = memory.init(batch.group, one, one)
    for losses in ([bad, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]):
        state = memory.push(state, batch, jnp.array(losses))
    np.testing.assert_array_equal(memory.group_means(state)[0], [1.0])
    assert np.isfinite(memory.standard_errors(state)).all()


DONATED = {
    name: (lambda name=name: made(PROBLEMS[name]())) for name in PROBLEMS
} | {
    "minibatch": lambda: bounded(memory=constraints.minibatch(G)),
    "exponential_average": lambda: bounded(memory=constraints.exponential_average(G)),
    "replay_buffer": lambda: bounded(memory=constraints.replay_buffer(G, 4)),
    "restarted penalty": lambda: grown("multiplicative", restart=True),
    "by_feasibility": lambda: grown("by_feasibility"),
    "penalty": lambda: augmented(1.0),
    "adam": lambda: made(PROBLEMS["ceag"](), primal=optax.adam(0.1), dual=optax.adam(0.1)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", DONATED)
def test_a_fresh_state_can_be_given_away_and_a_second_one_made(name):
    solver, carry = DONATED[name]()
    step = jax.jit(solver.step, donate_argnums=0)
    state, again = (solver.init(jnp.array(PARAMS), jax.tree.map(jnp.array, carry)) for _ in "ab")
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(carry) if leaf.size]
    assert len(places) == len(set(places))
    for start in (state, again):
        assert np.isfinite(step(start, SPLIT)[1].loss)


@pytest.mark.parametrize("dtype", [jnp.uint32, jnp.int32, bool])
def test_counts_and_truths_are_violations_too(dtype):
    state, _ = one_constraint(jnp.array([1], dtype), True, constraints.lagrangian())
    np.testing.assert_allclose(state.multipliers, [0.1])


def test_a_loss_that_is_no_number_is_named():
    solver = constraints.solver(
        lambda p, c, b, k: constraints.Evaluation(p, p[:1], p[:1]),
        multipliers=constraints.dense(1),
        **players(),
    )
    with pytest.raises(ValueError, match=r"loss has shape \(2,\)"):
        solver.step(solver.init(jnp.ones(2)))


def test_a_network_that_is_not_finite_is_right_about_nobody():
    logits = jnp.array([[jnp.nan, jnp.nan], [jnp.nan, 0.0], [jnp.inf, 0.0], [0.0, -jnp.inf]])
    y = jnp.zeros(4, jnp.int32)
    found = constraints.outcomes(logits, y)
    np.testing.assert_array_equal(found.correct, [0, 0, 0, 1])
    np.testing.assert_array_equal(found.correct, metrics.correct(logits, y))


#: As users have them: here the types of all arguments are looked at before.
UNCHECKED = {n: inspect.unwrap(getattr(constraints, n)) for n in ("solver", "group_problem")}


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (
            lambda: UNCHECKED["solver"](PROBLEMS["ceag"](), multipliers=constraints.dense),
            TypeError,
            r"did you mean dense\(",
        ),
        (
            lambda: UNCHECKED["solver"](PROBLEMS["ceag"](), formulation=constraints.lagrangian),
            TypeError,
            r"did you mean lagrangian\(",
        ),
        (
            lambda: UNCHECKED["group_problem"](
                apply, num_groups=G, strict=None, surrogate=None, memory=constraints.example_memory
            ),
            TypeError,
            r"did you mean example_memory\(",
        ),
        (
            lambda: constraints.solver(PROBLEMS["ceag"]().evaluate, **players()),
            ValueError,
            r"multipliers=constraints.dense\(K\)",
        ),
        (
            lambda: constraints.solver(
                PROBLEMS["ceag"](),
                joint=optim.omega(0.1),
                multipliers=constraints.dense(G, restart=True),
            ),
            ValueError,
            "restart=True",
        ),
        (lambda: PROBLEMS["ceag"]().init({}, None, SPLIT), ValueError, "outcomes=None"),
        (
            lambda: PROBLEMS["ceag"](constrained=np.array([0, 1, 0])),
            ValueError,
            "one bool for each",
        ),
        (lambda: PROBLEMS["ceag"](constrained=[True]), ValueError, r"shape \(1,\)"),
        (lambda: bounded(2.0), ValueError, "tolerance=2.0"),
        (lambda: bounded(jnp.float32(-1)), ValueError, "tolerance=-1"),
        (lambda: bounded(start=np.int32(-1)), ValueError, "start=-1"),
        (lambda: bounded(weight_decay=-1.0), ValueError, "weight_decay=-1"),
        (lambda: spaced(initial=np.nan), ValueError, "initial=nan"),
        (lambda: spaced(maximum=np.nan), ValueError, "maximum=nan"),
        (lambda: grown("multiplicative", maximum=0.25), ValueError, "maximum=0.25"),
        (lambda: grown("by_feasibility", tolerance=-1.0), ValueError, "tolerance=-1"),
        (
            lambda: constraints.implicit(tuple, lambda *_: 0, maximum=-1.0),
            ValueError,
            "maximum=-1",
        ),
        (
            lambda: constraints.two_sided(PROBLEMS["equalized_loss"]()),
            ValueError,
            "bounds inequalities",
        ),
        (lambda: constraints.distillation(PARAMS, share=2.0), ValueError, "share=2.0"),
        (
            lambda: constraints.outcomes(jnp.ones((3, 1)), jnp.zeros(3, int)),
            ValueError,
            "one logit per class",
        ),
    ],
)
def test_bad_arguments_are_named(make, kind, words):
    with pytest.raises(kind, match=words):
        make()
