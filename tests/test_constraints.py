"""The constrained problems and the solver: hand computations, exact solutions, and the laws of the gaps."""

import collections

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints, metrics, sparsity
from jaxfair.constraints._orders import ORDERS
from jaxfair.typing import Batch

NUM_GROUPS, NUM_CLASSES, FEATURES = 3, 4, 5


def apply(params, state, x, *, train, key=None):
    """Multinomial logistic regression."""
    return x @ params["kernel"] + jnp.broadcast_to(params["bias"], (x.shape[0], NUM_CLASSES)), state


def make_split(num: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        x=jnp.asarray(rng.normal(size=(num, FEATURES)), jnp.float32),
        y=jnp.asarray(rng.integers(0, NUM_CLASSES, num), jnp.int32),
        # Unbalanced: a mean over groups is not the mean over people.
        group=jnp.asarray(rng.choice(NUM_GROUPS, num, p=[0.6, 0.3, 0.1]), jnp.int32),
        index=jnp.arange(num, dtype=jnp.int32),
        weight=jnp.ones(num),
    )


SPLIT = make_split(200, 0)
PARAMS = {
    "kernel": jnp.asarray(np.random.default_rng(1).normal(size=(FEATURES, NUM_CLASSES)), jnp.float32),
    "bias": jnp.zeros(NUM_CLASSES),
}
DENSE = {"kernel": 0.5 * PARAMS["kernel"][::-1], "bias": jnp.ones(NUM_CLASSES)}


def outcomes_of(params) -> constraints.Outcomes:
    return constraints.outcomes(apply(params, {}, SPLIT.x, train=False)[0], SPLIT.y)


OUTCOMES = outcomes_of(DENSE)


def take(index) -> Batch:
    return jax.tree.map(lambda a: a[jnp.asarray(index)], SPLIT)


def following(problem):
    """A problem that is told what the dense model predicts."""
    return problem._replace(
        init=lambda state, outcomes, batch: problem.init(
            state, outcomes, batch, prediction=jnp.argmax(apply(DENSE, {}, batch.x, train=False)[0], axis=-1)
        )
    )


PROBLEMS = {
    "excess_accuracy_gap": lambda **kw: constraints.excess_accuracy_gap(
        apply, num_groups=NUM_GROUPS, tolerance=0.02, **kw
    ),
    "accuracy_gap": lambda **kw: constraints.accuracy_gap(apply, num_groups=NUM_GROUPS, tolerance=0.02, **kw),
    "equalized_loss": lambda **kw: constraints.equalized_loss(apply, num_groups=NUM_GROUPS, **kw),
    "churn": lambda **kw: following(constraints.churn(apply, num_groups=NUM_GROUPS, limit=0.02, **kw)),
    "unconstrained": lambda **kw: constraints.unconstrained(apply, num_groups=NUM_GROUPS),
}
FORMULATIONS = {
    "lagrangian": constraints.lagrangian,
    "normalized": constraints.normalized_lagrangian,
}


def make_solver(problem, *, primal=None, dual=None, formulation=None, order="dual_primal"):
    return constraints.solver(
        problem,
        primal=primal or optax.sgd(0.1),
        dual=dual or optax.sgd(0.5),
        formulation=formulation or constraints.lagrangian(),
        order=order,
    )


# --- (a), (i): the laws of the gaps ------------------------------------------------------------------------------


def test_gaps_weighted_by_prevalence_sum_to_zero_and_the_largest_is_not_negative():
    problem = PROBLEMS["excess_accuracy_gap"](margin=0.0)
    carry = problem.init({}, OUTCOMES, SPLIT)
    strict = problem.evaluate(PARAMS, carry, SPLIT, None).strict
    # Sums of 200 numbers of size 1 in float32.
    assert abs(float(strict @ carry.reference.prevalence)) < 1e-6
    assert float(strict.max()) >= 0
    assert float(jnp.abs(strict).max()) > 0.01  # the two models do differ


@pytest.mark.parametrize("proxy", ["prevalence", "batch"])
def test_the_dense_model_itself_has_no_gap(proxy):
    problem = PROBLEMS["excess_accuracy_gap"](margin=0.0, proxy=proxy)
    evaluation = problem.evaluate(DENSE, problem.init({}, OUTCOMES, SPLIT), SPLIT, None)
    np.testing.assert_array_equal(evaluation.strict, 0.0)
    # The same losses, summed in another order.
    np.testing.assert_allclose(evaluation.proxy, 0.0, atol=1e-6)


@pytest.mark.slow
def test_the_published_mean_shifts_every_gap_by_the_same_offset():
    """mean_g A_g - A on unbalanced groups: with it, a model equal to the dense one violates."""
    fair = PROBLEMS["excess_accuracy_gap"](margin=0.0)
    published = PROBLEMS["excess_accuracy_gap"](margin=0.0, mean="uniform", proxy="batch")
    gaps = [p.evaluate(DENSE, p.init({}, OUTCOMES, SPLIT), SPLIT, None).strict for p in (fair, published)]
    by_group = jax.ops.segment_sum(OUTCOMES.correct, SPLIT.group) / jnp.bincount(SPLIT.group)
    offset = float(by_group.mean() - OUTCOMES.correct.mean())
    assert abs(offset) > 0.003
    np.testing.assert_allclose(gaps[1] - gaps[0], offset, atol=1e-6)


def test_gaps_agree_with_the_metrics():
    problem = PROBLEMS["excess_accuracy_gap"](margin=0.0)
    strict = problem.evaluate(PARAMS, problem.init({}, OUTCOMES, SPLIT), SPLIT, None).strict
    expected = metrics.accuracy_gaps(OUTCOMES.correct, outcomes_of(PARAMS).correct, SPLIT.group, NUM_GROUPS)
    np.testing.assert_allclose(strict, expected.excess, atol=1e-6)


# --- (b): a step is a re-weighted cross entropy ------------------------------------------------------------------

LAMBDA = jnp.array([0.0, 0.7, 2.0])


def detached(**options):
    """CEAG without a gradient through the average loss, from the maker of all problems of groups."""

    def strict(accuracy, observed, ref):
        gap = jnp.where(observed, ref.group_accuracy - accuracy, 0.0)
        return gap - jnp.sum(ref.prevalence * gap)

    def surrogate(group_loss, mean_loss, ref):
        return (group_loss - ref.group_loss) - (jax.lax.stop_gradient(mean_loss) - ref.loss)

    return constraints.group_problem(
        apply, num_groups=NUM_GROUPS, strict=strict, surrogate=surrogate, bound=0.01, **options
    )


def example_weights(batch, prevalence, proxy, weights, detach):
    """The weight of every example by the formulas of the docstring, in numpy."""
    group, num = np.asarray(batch.group), len(batch.group)
    weights, prevalence = np.asarray(weights, np.float64), np.asarray(prevalence, np.float64)
    present = np.bincount(group, minlength=NUM_GROUPS)
    counted = np.where(present > 0, weights, 0.0) if proxy == "batch" else weights
    share = 1.0 if detach else 1.0 - counted.sum()
    size = present if proxy == "batch" else num * prevalence
    return share / num + weights[group] / size[group]


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("proxy", ["prevalence", "batch"])
@pytest.mark.slow
def test_the_direction_is_a_weighted_cross_entropy(proxy, formulation, detach):
    problem = (detached if detach else PROBLEMS["excess_accuracy_gap"])(proxy=proxy)
    carry = problem.init({}, OUTCOMES, SPLIT)
    # Group 2 is in the split and not in the batch.
    batch = take([i for i in range(60) if int(SPLIT.group[i]) != 2][:30])
    solver = make_solver(
        problem,
        primal=optax.sgd(1.0),
        dual=optax.sgd(1e-12),
        formulation=FORMULATIONS[formulation](),
    )
    state = solver.init(PARAMS, carry)._replace(multipliers=LAMBDA)
    new, info = solver.step(state, batch)

    mu = LAMBDA if formulation == "lagrangian" else LAMBDA / (1 + LAMBDA.sum())
    weight = example_weights(batch, carry.reference.prevalence, proxy, mu, detach)
    if proxy == "batch" and not detach:
        assert weight.sum() == pytest.approx(1.0)

    def weighted(params):
        loss = constraints.outcomes(apply(params, {}, batch.x, train=True)[0], batch.y).loss
        return jnp.sum(jnp.asarray(weight, jnp.float32) * loss)

    expected = jax.grad(weighted)(PARAMS)
    actual = jax.tree.map(jnp.subtract, PARAMS, new.params)
    # Differences of parameters of size 1 in float32.
    chex.assert_trees_all_close(actual, expected, atol=2e-6)
    if proxy == "batch":
        np.testing.assert_array_equal(info.proxy_observed, [True, True, False])
        assert float(info.weights[2]) == 0.0


def test_weights_sum_to_one_on_the_whole_split_and_are_positive_when_normalised():
    prevalence = np.bincount(SPLIT.group) / len(SPLIT.y)
    mu = LAMBDA / (1 + LAMBDA.sum())
    weight = example_weights(SPLIT, prevalence, "prevalence", mu, detach=False)
    assert weight.sum() == pytest.approx(1.0)
    assert weight.min() > 0
    # The recipe's own formula.
    g = np.asarray(SPLIT.group)
    expected = (1 + np.asarray(LAMBDA)[g] / prevalence[g]) / (len(g) * (1 + float(LAMBDA.sum())))
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    assert example_weights(SPLIT, prevalence, "prevalence", LAMBDA, detach=False).min() < 0


# --- (c), (d): memories ------------------------------------------------------------------------------------------


def push_all(memory, batches, outcomes):
    state = memory.init(SPLIT.group, OUTCOMES.correct, SPLIT.weight)
    push = jax.jit(memory.push)
    for batch, outcome in zip(batches, outcomes, strict=True):
        state = push(state, batch, outcome)
        yield state


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_ring_equals_a_deque(size):
    """Also where a batch brings more of a group than the ring holds, in whatever order."""
    rng = np.random.default_rng(size)
    memory = constraints.replay_buffer(NUM_GROUPS, size)
    queues = [collections.deque(maxlen=size) for _ in range(NUM_GROUPS)]
    batches = [take(rng.choice(200, 20, replace=False)) for _ in range(12)]
    # Padding in the middle of a batch must leave no trace.
    batches = [b._replace(weight=jnp.asarray(rng.random(20) > 0.2, jnp.float32)) for b in batches]
    outcomes = [jnp.asarray(rng.random(20) > 0.5, jnp.float32) for _ in batches]
    for batch, outcome, state in zip(batches, outcomes, push_all(memory, batches, outcomes), strict=True):
        for g, value, weight in zip(batch.group, outcome, batch.weight, strict=True):
            if weight:
                queues[int(g)].append(float(value))
        means, observed = memory.group_means(state)
        for g, queue in enumerate(queues):
            full = len(queue) == size
            assert bool(observed[g]) == full
            assert float(means[g]) == pytest.approx(np.mean(queue) if full else 0.0)
            row = [float(v) for v in state.ring[g]]
            head = int(state.head[g])
            in_order = row[head:] + row[:head] if full else row[: len(queue)]
            assert in_order == list(queue)


def test_example_memory_equals_a_recount():
    rng = np.random.default_rng(3)
    memory = constraints.example_memory(NUM_GROUPS)
    last = np.asarray(OUTCOMES.correct).copy()
    batches = [take(rng.choice(200, 20, replace=False)) for _ in range(15)]
    batches = [b._replace(weight=b.weight.at[4].set(0.0)) for b in batches]
    outcomes = [jnp.asarray(rng.random(20) > 0.5, jnp.float32) for _ in batches]
    for batch, outcome, state in zip(batches, outcomes, push_all(memory, batches, outcomes), strict=True):
        seen = np.asarray(batch.weight) > 0
        last[np.asarray(batch.index)[seen]] = np.asarray(outcome)[seen]
        means, observed = memory.group_means(state)
        expected = [last[np.asarray(SPLIT.group) == g].mean() for g in range(NUM_GROUPS)]
        assert observed.all()
        # Sums of zeros and ones are exact in float32; one division.
        np.testing.assert_allclose(means, expected, rtol=1e-6)


def test_a_multiplier_waits_until_its_buffer_is_full():
    problem = PROBLEMS["excess_accuracy_gap"](memory=constraints.replay_buffer(NUM_GROUPS, 12))
    solver = make_solver(problem, dual=optax.adam(0.1))
    state, step = solver.init(PARAMS, problem.init({}, OUTCOMES, SPLIT)), jax.jit(solver.step)
    filled = np.zeros(NUM_GROUPS, int)
    moved = np.zeros(NUM_GROUPS, bool)
    for t in range(6):
        batch = take(range(10 * t, 10 * t + 10))
        filled += np.bincount(batch.group, minlength=NUM_GROUPS)
        before = state
        state, info = step(state, batch)
        np.testing.assert_array_equal(info.strict_observed, filled >= 12)
        still = filled < 12
        np.testing.assert_array_equal(state.multipliers[still], before.multipliers[still])
        counts = optax.tree.get(state.dual_state, "count")
        np.testing.assert_array_equal(counts[still], 0)  # neither does its optimizer's state move
        moved |= ~still
    assert moved.any()
    assert not moved.all()


def test_start_keeps_memory_and_multipliers_until_then():
    problem = PROBLEMS["excess_accuracy_gap"](start=2)
    solver = make_solver(problem)
    state, step = solver.init(PARAMS, problem.init({}, OUTCOMES, SPLIT)), jax.jit(solver.step)
    for t in range(3):
        before = state
        state, info = step(state, take(range(30)))
        if t < 2:
            assert not info.strict_observed.any()
            chex.assert_trees_all_equal(state.carry.memory, before.carry.memory)
            chex.assert_trees_all_equal(state.multipliers, before.multipliers)
    assert info.strict_observed.all()
    assert float(jnp.abs(state.multipliers).max()) > 0


def test_constrained_names_the_groups_with_a_bound():
    only = np.array([False, True, False])
    for name in ("excess_accuracy_gap", "accuracy_gap", "equalized_loss", "churn"):
        problem = PROBLEMS[name](constrained=only)
        evaluation = problem.evaluate(PARAMS, problem.init({}, OUTCOMES, SPLIT), SPLIT, None)
        np.testing.assert_array_equal(evaluation.strict_observed, only)
        np.testing.assert_array_equal(evaluation.proxy_observed, only)


def test_two_sided_bounds_both_signs():
    one = PROBLEMS["excess_accuracy_gap"]()
    two = constraints.two_sided(one)
    assert two.num_constraints == 2 * NUM_GROUPS
    carry = one.init({}, OUTCOMES, SPLIT)
    a = one.evaluate(PARAMS, carry, SPLIT, None)
    b = two.evaluate(PARAMS, carry, SPLIT, None)
    bound = 0.5 * 0.02
    np.testing.assert_allclose(b.strict[:NUM_GROUPS], a.strict)
    np.testing.assert_allclose(b.strict[NUM_GROUPS:], -(a.strict + bound) - bound, atol=1e-7)
    np.testing.assert_allclose(b.proxy[NUM_GROUPS:], -(a.proxy + bound) - bound, atol=1e-6)


def test_equalized_loss_signed_and_absolute():
    signed, absolute = (
        PROBLEMS["equalized_loss"](absolute=a, proxy="batch", memory=constraints.minibatch(NUM_GROUPS))
        for a in (False, True)
    )
    carry = signed.init({}, OUTCOMES, SPLIT)
    s = signed.evaluate(PARAMS, carry, SPLIT, None)
    a = absolute.evaluate(PARAMS, carry, SPLIT, None)
    loss = outcomes_of(PARAMS).loss
    by_group = np.array([loss[SPLIT.group == g].mean() for g in range(NUM_GROUPS)])
    # Means of 200 float32 losses of size 1.
    np.testing.assert_allclose(s.strict, by_group - loss.mean(), atol=2e-6)
    np.testing.assert_allclose(s.proxy, by_group - loss.mean(), atol=2e-6)
    np.testing.assert_array_equal(a.strict, np.abs(s.strict))
    assert (np.asarray(s.strict) < 0).any()


def test_weight_decay_of_all_or_of_some():
    half = 0.5 * 0.1
    for decayed, leaves in [
        (lambda p: True, ("kernel", "bias")),
        (lambda p: p == "kernel", ("kernel",)),
    ]:
        params = {"kernel": PARAMS["kernel"], "bias": jnp.arange(4.0)}
        plain, decaying = (PROBLEMS["excess_accuracy_gap"](weight_decay=w, decayed=decayed) for w in (0.0, 0.1))
        carry = plain.init({}, OUTCOMES, SPLIT)
        a, b = (p.evaluate(params, carry, SPLIT, None) for p in (plain, decaying))
        expected = half * sum(float(jnp.sum(params[name] ** 2)) for name in leaves)
        assert float(b.loss - a.loss) == pytest.approx(expected, rel=1e-5)
        # The decay is no part of the constraint (in the authors' code it is).
        np.testing.assert_array_equal(a.proxy, b.proxy)


def test_prevalence_losses_are_unbiased():
    """The average over all batches of a pass is the group's mean loss on the split."""
    losses, prevalence = outcomes_of(PARAMS).loss, jnp.bincount(SPLIT.group) / 200
    estimates = [
        constraints.group_losses(losses[i : i + 10], take(range(i, i + 10)), prevalence, "prevalence")[0]
        for i in range(0, 200, 10)
    ]
    expected = [float(losses[SPLIT.group == g].mean()) for g in range(NUM_GROUPS)]
    np.testing.assert_allclose(np.mean(estimates, axis=0), expected, rtol=1e-5)


# --- (g), (h): positivity, special cases, one compilation --------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["excess_accuracy_gap", "accuracy_gap", "unconstrained"])
def test_a_huge_tolerance_is_naive_fine_tuning_bit_for_bit(name):
    """With pruning, momentum and every step compared."""

    def trajectory(problem, formulation):
        schedule = sparsity.polynomial(0.5, begin=0, end=4, every=1)
        primal = sparsity.prune(optax.sgd(0.1, momentum=0.9), schedule, prunable=lambda path: path == "kernel")
        solver = make_solver(problem, primal=primal, formulation=formulation)
        state = solver.init(PARAMS, problem.init({}, OUTCOMES, SPLIT))
        step = jax.jit(solver.step)
        for t in range(8):
            state, _ = step(state, take(range(20 * t, 20 * t + 20)))
            yield state.params

    huge = {"tolerance": 1.0, "margin": 1e6} if name != "unconstrained" else {}
    factory = getattr(constraints, name)
    problem = factory(apply, num_groups=NUM_GROUPS, **huge)
    formulation = None if name == "unconstrained" else constraints.normalized_lagrangian()

    def plain_steps():
        """Without any of ours but the pruner: optax on the gradient of the mean loss."""
        primal = sparsity.prune(
            optax.sgd(0.1, momentum=0.9),
            sparsity.polynomial(0.5, begin=0, end=4, every=1),
            prunable=lambda path: path == "kernel",
        )
        params, opt_state = PARAMS, primal.init(PARAMS)

        @jax.jit
        def step(params, opt_state, batch):
            def loss(params):
                logits = apply(params, {}, batch.x, train=True)[0]
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.y)
                return jnp.sum(losses) / losses.shape[0]

            updates, opt_state = primal.update(jax.grad(loss)(params), opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        for t in range(8):
            params, opt_state = step(params, opt_state, take(range(20 * t, 20 * t + 20)))
            yield params

    nft = PROBLEMS["unconstrained"]()
    for a, b, c in zip(trajectory(problem, formulation), trajectory(nft, None), plain_steps(), strict=True):
        chex.assert_trees_all_equal(a, b)
        chex.assert_trees_all_equal(b, c)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.slow
def test_one_compilation_vmapped_seeds_and_positive_multipliers(name, formulation):
    problem = PROBLEMS[name]()
    solver = make_solver(problem, dual=optax.sgd(2.0), formulation=FORMULATIONS[formulation]())
    traced = 0

    def step(state, batch):
        nonlocal traced
        traced += 1
        return solver.step(state, batch)[0]

    scales = jnp.array([0.1, 1.0, 3.0])
    starts = jax.vmap(lambda s: jax.tree.map(lambda p: s * p, PARAMS))(scales)
    carry = problem.init({}, OUTCOMES, SPLIT)
    lanes = jax.vmap(lambda p: solver.init(p, carry))(starts)
    singles = [solver.init(jax.tree.map(lambda p, i=i: p[i], starts), carry) for i in range(3)]
    mapped, single = jax.jit(jax.vmap(step, in_axes=(0, None))), jax.jit(step)
    for t in range(4):
        batch = take(range(40 * t, 40 * t + 40))
        lanes = mapped(lanes, batch)
        singles = [single(s, batch) for s in singles]
        if not problem.equality:
            assert (lanes.multipliers >= 0).all()
    assert traced == 2  # once mapped, once alone
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *singles)

    def settled(state):
        # What rounding left of a running sum is nothing but rounding: the sums themselves are compared.
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.zeros_like(leaf) if getattr(path[-1], "name", "") == "lost" else leaf, state
        )

    # Products of matrices are summed in another order under vmap.
    chex.assert_trees_all_close(settled(lanes), settled(looped), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_evaluations_are_strict_about_dtypes(strict_dtype):
    for name, make in PROBLEMS.items():
        problem = make()
        carry = problem.init({}, OUTCOMES, SPLIT)
        evaluation = problem.evaluate(PARAMS, carry, take(range(20)), None)
        assert evaluation.loss.dtype == jnp.float32, name
        chex.assert_trees_all_equal_shapes_and_dtypes(evaluation.carry, carry)


# --- (j): exact solutions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_projection_onto_a_polytope_reaches_the_exact_pair(order, seed):
    """min |x - a|^2 / 2 s.t. x <= b coordinate by coordinate, and sum x = c.

    The exact solution by bisection on the multiplier of the equality: x_i = min(b_i, a_i - nu).
    """
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=6), rng.normal(size=6)
    c = b.sum() - 1.0

    low, high = -10.0, 10.0
    for _ in range(200):
        nu = (low + high) / 2
        low, high = (nu, high) if np.minimum(b, a - nu).sum() > c else (low, nu)
    x = np.minimum(b, a - nu)
    lam = np.maximum(a - nu - b, 0.0)

    def evaluate(params, carry, batch, key):
        violation = jnp.concatenate([params - jnp.asarray(b), (params.sum() - c)[None]])
        return constraints.Evaluation(
            loss=0.5 * jnp.sum((params - jnp.asarray(a)) ** 2), proxy=violation, strict=violation
        )

    with jax.enable_x64(True):
        solver = constraints.solver(
            evaluate,
            multipliers=constraints.dense(7, equality=np.array([False] * 6 + [True])),
            primal=optax.sgd(0.05),
            dual=optax.sgd(0.05),
            order=order,
        )
        state, _ = jax.lax.scan(lambda s, _: (solver.step(s)[0], None), solver.init(jnp.zeros(6)), length=20_000)
        # The multipliers are float32.
        np.testing.assert_allclose(state.params, x, atol=1e-5)
        np.testing.assert_allclose(state.multipliers, [*lam, nu], atol=1e-5)


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_dual_that_mixes_constraints_is_refused():
    problem = PROBLEMS["excess_accuracy_gap"]()
    with pytest.raises(ValueError, match="mixes the constraints"):
        make_solver(problem, dual=optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)))
    for dual in (optax.adam(0.1), optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.5))):
        make_solver(problem, dual=dual)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: constraints.dense(-1), "num_constraints=-1"),
        (lambda: constraints.dense(2, initial=-1.0), "must be 0 or more"),
        (lambda: constraints.dense(2, initial=np.ones(3)), "each of the 2 constraints"),
        (lambda: constraints.replay_buffer(2, 0), "size=0"),
        (lambda: PROBLEMS["excess_accuracy_gap"](mean="median"), "mean='median'"),
        (lambda: PROBLEMS["excess_accuracy_gap"](proxy="hinge"), "proxy='hinge'"),
        (lambda: PROBLEMS["excess_accuracy_gap"](margin=-1.0), "margin=-1.0"),
        (lambda: PROBLEMS["equalized_loss"](start=-1), "start=-1"),
        (
            lambda: constraints.accuracy_gap(apply, num_groups=2, tolerance=-1.0),
            "tolerance=-1.0",
        ),
        (
            lambda: constraints.excess_accuracy_gap(apply, num_groups=2, tolerance=float("nan")),
            "tolerance=nan",
        ),
        (lambda: make_solver(PROBLEMS["unconstrained"](), order="both"), "order='both'"),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        make()


def test_a_wrong_number_of_constraints_is_named():
    problem = PROBLEMS["excess_accuracy_gap"]()
    solver = constraints.solver(
        problem.evaluate,
        multipliers=constraints.dense(2),
        primal=optax.sgd(0.1),
        dual=optax.sgd(0.1),
    )
    with pytest.raises(ValueError, match="there are 2 multipliers"):
        solver.step(solver.init(PARAMS, problem.init({}, OUTCOMES, SPLIT)), SPLIT)
