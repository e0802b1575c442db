"""Complaints: the optimum against brute force, the rules by hand and within their bounds, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints, robust, train


def graph_of(k, *edges):
    graph = np.zeros((k, k), bool)
    for i, j in edges:
        graph[i, j] = graph[j, i] = True
    return graph


def path(k):
    return graph_of(k, *itertools.pairwise(range(k)))


def star(leaves):
    return graph_of(leaves + 1, *((0, i) for i in range(1, leaves + 1)))


def complete(k):
    return graph_of(k, *itertools.combinations(range(k), 2))


GRAPHS = {
    "none": graph_of(4), "matching": graph_of(4, (0, 1), (2, 3)), "path": path(4), "star": star(3),
    "cycle": graph_of(4, (0, 1), (1, 2), (2, 3), (0, 3)), "complete": complete(4),
}  # fmt: skip


def singles(k, *complaints):
    """``[T, k]``, of (criterion, loss, times)."""
    return np.concatenate([np.tile(np.eye(k)[i] * loss, (times, 1)) for i, loss, times in complaints])


@jax.jit
def rule(events, graph, costs):
    return robust.play(robust.threshold_policy(graph, costs), events, graph, costs)


optimum = jax.jit(robust.offline_cost)
rules, optima = jax.jit(jax.vmap(rule)), jax.jit(jax.vmap(robust.offline_cost))


# --- independent sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "count"),
    [
        (path(1), 2),
        (path(5), 13),
        (star(4), 17),
        (complete(6), 7),
        (graph_of(5), 32),
        (graph_of(6, (0, 1), (2, 3)), 36),
    ],
)
def test_the_number_of_independent_sets(graph, count):
    found = robust.independent_sets(graph)
    assert len(found) == count
    assert len({tuple(s) for s in found.tolist()}) == count
    assert not found[0].any()
    assert not ((found.astype(int) @ graph * found) > 0).any()


def test_the_heaviest_set_is_the_best_of_all_and_of_equals_the_smallest():
    rng, heaviest = np.random.default_rng(0), jax.jit(jax.vmap(robust.heaviest_set, (None, 0)))
    for graph in GRAPHS.values():
        sets, weights = robust.independent_sets(graph), rng.integers(-2, 3, (9, 4)).astype(np.float32)
        for w, found in zip(weights, np.asarray(heaviest(graph, weights)), strict=True):
            value = (sets * w).sum(1)
            assert (found * w).sum() == value.max()
            assert found.sum() == sets[value == value.max()].sum(1).min()
            assert (sets == found).all(1).any()


# --- the offline optimum -------------------------------------------------------------------------------------------


def by_hand(events, graph, costs):
    """The least over all sequences of independent sets."""
    sets = robust.independent_sets(graph)
    best = np.inf
    for sequence in itertools.product(range(len(sets)), repeat=len(events)):
        before, cost = np.zeros(len(costs), bool), 0.0
        for s, losses in zip(sequence, events, strict=True):
            cost += costs[sets[s] & ~before].sum() + losses[~sets[s]].sum()
            before = sets[s]
        best = min(best, cost)
    return best


@pytest.mark.parametrize(
    "graph", [graph_of(2), path(2), path(3), complete(3)], ids=["none", "edge", "path", "complete"]
)
def test_the_optimum_is_the_least_over_all_sequences_of_states(graph):
    k = len(graph)
    rng = np.random.default_rng(k)
    for many in (False, True):
        events = rng.uniform(0, 3, (5, k)) * (1 if many else np.eye(k)[rng.integers(k, size=5)])
        costs = rng.uniform(0.5, 3, k)
        found = np.asarray(optimum(events, graph, costs))
        for t in range(1, 6):
            np.testing.assert_allclose(found[t - 1], by_hand(events[:t], graph, costs), rtol=1e-6)


def test_no_policy_is_cheaper_than_the_optimum_and_staying_is_one_of_them():
    rng = np.random.default_rng(1)
    events, costs = rng.uniform(0, 1, (60, 4)).astype(np.float32), rng.uniform(2, 9, 4).astype(np.float32)

    @jax.jit
    def stayed(state, graph):
        return robust.play(robust.stay_policy(state), events, graph, costs).cost[-1]

    for graph in GRAPHS.values():
        least = float(optimum(events, graph, costs)[-1])
        fixed = [float(stayed(s, graph)) for s in robust.independent_sets(graph)]
        best = float(stayed(robust.best_state(events, graph, costs), graph))
        assert best == min(fixed)
        for cost in (*fixed, float(rule(events, graph, costs).cost[-1])):
            assert cost >= least * (1 - 1e-6)


# --- the threshold rule --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "cost", "events", "paid", "fixes", "best"),
    [
        (graph_of(1), 10, singles(1, (0, 1, 10)), 19, 1, 10),
        (path(2), 3, singles(2, (0, 1, 3), (1, 2, 2), (0, 1, 1)), 11, 2, 7),
        (path(2), 1, np.eye(2)[[0, 1] * 6], 12, 12, 7),
        (star(3), 1, np.eye(4)[[0, 1, 2, 3] * 6], 24, 24, 9),
    ],
    ids=["rental", "edge", "alternating", "star"],
)
def test_the_rule_and_the_best_by_hand(graph, cost, events, paid, fixes, best):
    costs = np.full(len(graph), float(cost))
    played = rule(events, graph, costs)
    assert float(played.cost[-1]) == paid
    assert float(played.spent.sum()) == fixes * cost
    assert float(optimum(events, graph, costs)[-1]) == best


def streams(seed, graph, costs, length=80):
    """Single complaints: at random, in bursts, and about what the rule has not fixed."""
    k, rng = len(graph), np.random.default_rng(seed)
    sizes = rng.uniform(0, 2, (length, 1)) * costs.min()
    yield sizes * np.eye(k)[rng.integers(k, size=length)]
    yield sizes * np.eye(k)[np.repeat(rng.integers(k, size=length // 8), 8)]
    fixed, account, events = np.zeros(k, bool), np.zeros(k), np.zeros((length, k))
    for t in range(length):  # the rule, once more in NumPy
        i = rng.choice(np.flatnonzero(~fixed)) if not fixed.all() else 0
        events[t, i] = sizes[t, 0]
        if not fixed[i] and account[i] + events[t, i] >= costs[i]:
            fixed[graph[i]] = False
            fixed[i], account[i] = True, 0
        elif not fixed[i]:
            account[i] += events[t, i]
    yield events


@pytest.fixture(scope="module")
def many():
    """(events, graph, costs) of every kind of stream, graph and costs, side by side."""
    found = []
    for seed, graph in enumerate(GRAPHS.values()):
        rng = np.random.default_rng(seed)
        for costs in (np.ones(4), rng.uniform(1, 2, 4), np.geomspace(1, 20, 4)[rng.permutation(4)]):
            found += [(events, graph, costs) for events in streams(seed, graph, costs)]
    return tuple(np.stack([np.asarray(x, np.float32) for x in part]) for part in zip(*found, strict=True))


def test_the_rule_is_within_its_bound(many):
    _, graphs, costs = many
    paid, least = np.asarray(rules(*many).cost)[:, -1], np.asarray(optima(*many))[:, -1]
    factor = np.array([robust.threshold_bound(g > 0, c) for g, c in zip(graphs, costs, strict=True)])
    share = (paid - costs.sum(1)) / (factor * least)
    assert (share <= 1).all()
    assert share.max() > 0.3  # and the streams are not all easy
    assert (paid >= least * (1 - 1e-5)).all()


def test_the_bound_knows_degrees_and_costs():
    assert float(robust.threshold_bound(graph_of(3), np.array([1.0, 5.0, 9.0]))) == 2
    assert float(robust.threshold_bound(path(3), np.ones(3))) == 2 * (1 + 2)
    # Only costs of criteria that exclude each other count.
    assert float(robust.threshold_bound(path(3), np.array([1.0, 4.0, 1.0]))) == 2 * (1 + 2 * 4)
    for costs in ([1.0, 2.0, 9.0], [8.0, 4.0, 1.0]):
        assert float(robust.threshold_bound(graph_of(3, (0, 1)), np.array(costs))) == 2 * (1 + 2)


def test_the_state_is_always_independent_and_fixed_criteria_are_neither_paid_nor_seen(many):
    events, graphs, costs = many
    played = rules(*many)
    fixed = np.asarray(played.fixed)
    assert not (np.einsum("nti,nij,ntj->nt", fixed, graphs, fixed) > 0).any()
    np.testing.assert_allclose(played.paid, (events * ~fixed).sum(-1), rtol=1e-6)
    # What the fixed criteria would have cost changes nothing.
    before = np.concatenate([np.zeros_like(fixed[:, :1]), fixed[:, :-1]], axis=1)
    again = rules(np.where(before & fixed, 7.0, events).astype(np.float32), graphs, costs)
    assert jnp.array_equal(again.fixed, played.fixed)
    assert jnp.array_equal(again.paid, played.paid)


def test_without_edges_all_criteria_rent_skis_on_their_own():
    rng = np.random.default_rng(2)
    events, costs = rng.integers(0, 4, (50, 4)).astype(np.float32), np.array([5.0, 9.0, 17.0, 300.0], np.float32)
    together = rule(events, graph_of(4), costs)
    least = optimum(events, graph_of(4), costs)
    alone, best = [], []
    for i in range(4):
        alone.append(rule(events[:, i : i + 1], graph_of(1), costs[i : i + 1]))
        best.append(optimum(events[:, i : i + 1], graph_of(1), costs[i : i + 1]))
        total = events[:, i].cumsum()
        np.testing.assert_array_equal(best[i], np.minimum(total, costs[i]))
        late = total >= costs[i]
        np.testing.assert_array_equal(alone[i].fixed[:, 0], late)
    np.testing.assert_array_equal(together.fixed, np.concatenate([a.fixed for a in alone], axis=1))
    np.testing.assert_array_equal(together.cost, sum(np.asarray(a.cost) for a in alone))
    np.testing.assert_array_equal(least, sum(map(np.asarray, best)))


def test_of_several_that_are_due_at_once_the_largest_goes_first_and_the_others_wait():
    played = rule(np.array([[1.0, 2.0, 1.5], [1.0, 0.0, 1.0]]), path(3), np.ones(3))
    assert played.fixed.tolist() == [[False, True, False], [True, False, True]]
    assert played.paid.tolist() == [2.5, 0.0]


def test_lanes_of_costs_are_the_single_plays(many):
    events, graphs, costs = many
    played = rules(*many)
    for i in (0, 22, 53):
        one = rule(events[i], graphs[i], costs[i])
        assert jnp.array_equal(one.fixed, played.fixed[i])
        np.testing.assert_allclose(one.cost, played.cost[i], rtol=1e-6)


# --- the optimistic rule -------------------------------------------------------------------------------------------

MEANS, COSTS = np.array([0.5, 0.45, 0.3, 0.2, 0.6]), np.full(5, 5.0)
BEST = np.array([True, False, True, False, True])


def drawn(length, seeds=5):
    return np.random.default_rng(length).random((seeds, length, 5)) < MEANS


def optimistic(events, horizon):
    events = jnp.asarray(events, jnp.float32)
    return robust.play(robust.optimistic_policy(path(5), horizon=horizon), events, path(5), COSTS)


def regret(played):
    left = (~np.asarray(played.fixed) * MEANS).sum(-1) - (~BEST * MEANS).sum()
    return left.sum(-1) + np.asarray(played.spent).sum(-1)


@pytest.fixture(scope="module")
def long():
    return jax.jit(jax.vmap(lambda events: optimistic(events, 16_000)))(drawn(16_000))


def test_the_optimistic_rule_finds_the_best_state_and_moves_rarely(long):
    assert (np.asarray(long.fixed)[:, -1] == BEST).all()
    moves = (np.asarray(long.fixed)[:, 1:] != np.asarray(long.fixed)[:, :-1]).any(-1).sum(-1)
    assert (moves <= 5 * (1 + np.log2(16_000))).all()
    # Nothing is known of fixed criteria: they were counted only while they were not.
    before = np.concatenate([np.zeros((5, 1, 5), bool), np.asarray(long.fixed)[:, :-1]], axis=1)
    assert (np.asarray(long.memory.count) == (~before).sum(1)).all()


def test_its_regret_is_within_the_root_of_time_and_below_that_of_exploring_first(long):
    found, length = regret(long), 16_000
    radii = 2 * 5 * 2 * np.sqrt(2 * np.log(5 * length) * length)  # 2 rad_i summed over an i's n, of five
    assert (found <= radii + 5 * (1 + np.log2(length)) * (COSTS.sum() + 5)).all()
    explored = np.ceil(length ** (2 / 3)) * (BEST * MEANS).sum() + COSTS[BEST].sum()
    assert (found < explored).all()
    assert (found > 0).all()
    short = jax.jit(jax.vmap(lambda events: optimistic(events, 1000)))(drawn(1000))
    # Sixteen times as long, and less than four times as much: it grows more slowly than the root.
    assert found.mean() < 4 * regret(short).mean()


def test_what_is_above_the_largest_complaint_is_refused_or_clipped_and_counted():
    policy = robust.optimistic_policy(path(2), horizon=10, largest=0.5)
    events = np.array([[0.5, 0.7], [0.1, 0.9]])
    with pytest.raises(ValueError, match=r"a complaint of 0.9: the policy is made for 0.5 at most; give largest=0.9"):
        robust.play(policy, events, path(2), np.ones(2))
    memory = jax.jit(lambda events: robust.play(policy, events, path(2), np.ones(2)))(events).memory
    assert int(memory.clipped) == 2
    np.testing.assert_allclose(memory.total, [0.6, 1.0], rtol=1e-6)


# --- constraints that complaints switch on and off -----------------------------------------------------------------


def between(params, carry, batch, key):
    """x is pulled to 3, and is to be at least 1 and at most -1."""
    g = jnp.stack([1.0 - params["x"], params["x"] + 1.0])
    model_state = {"seen": carry.model_state["seen"] + 1}
    return constraints.Evaluation((params["x"] - 3.0) ** 2, g, g, carry=carry._replace(model_state=model_state))


BETWEEN = constraints.Problem(
    2, equality=False, init=lambda state: constraints.Carry(state, (), (), jnp.int32(0)), evaluate=between
)  # fmt: skip
ONE, BOTH_COST = path(2), np.array([2.0, 9.0])


def solved(problem, length=30):
    """Params, multipliers and the carry after each step."""
    solver = constraints.solver(problem, primal=optax.sgd(0.05), dual=optax.sgd(0.5))
    start = solver.init({"x": jnp.zeros(())}, problem.init({"seen": jnp.int32(0)}))

    def step(state, _):
        state, _ = solver.step(state)
        return state, state

    return jax.jit(lambda start: jax.lax.scan(step, start, length=length)[1])(start)


def test_driven_by_who_fixes_all_is_the_problem_and_by_who_fixes_none_has_no_constraint():
    plain = solved(BETWEEN)
    every = solved(robust.driven(BETWEEN, robust.stay_policy(jnp.array([True, True]))))
    for part in ("params", "multipliers"):
        assert jax.tree.all(jax.tree.map(jnp.array_equal, getattr(plain, part), getattr(every, part)))
    assert jnp.array_equal(every.carry.paid, jnp.zeros(30))
    none = solved(robust.driven(BETWEEN, robust.stay_policy(jnp.array([False, False]))))
    assert not none.multipliers.any()
    x = 3 * (1 - 0.9 ** np.arange(1, 31))
    np.testing.assert_allclose(none.params["x"], x, rtol=1e-5)
    at = np.r_[0, x[:-1]]
    np.testing.assert_allclose(none.carry.paid, np.cumsum(np.maximum(1 - at, 0) + at + 1), rtol=1e-5)
    # Whoever trains finds the network's state.
    assert train.network_of(jax.tree.map(lambda a: a[-1], none))[1] == {"seen": 30}


def test_a_multiplier_moves_while_its_constraint_is_fixed_and_waits_else():
    found = solved(robust.driven(BETWEEN, robust.threshold_policy(ONE, BOTH_COST)))
    fixed, multiplier = np.asarray(found.carry.fixed), np.asarray(found.multipliers)
    assert fixed.any(0).all()
    assert not fixed.all(1).any()
    moved = np.diff(multiplier, axis=0, prepend=0) != 0
    assert not (moved & ~fixed).any()
    assert (moved & fixed).sum() > 0.8 * fixed.sum()
    # The direction is that of what is fixed: x moves by the loss and by the multipliers of these alone.
    x = np.r_[0, found.params["x"]]
    pull = 2 * (x[:-1] - 3) + (fixed * multiplier) @ np.array([-1.0, 1.0])
    np.testing.assert_allclose(np.diff(x), -0.05 * pull, rtol=1e-3, atol=1e-5)


def test_a_policy_for_another_number_of_criteria_is_refused():
    wrong = robust.driven(BETWEEN, robust.stay_policy(jnp.zeros(3, bool)))
    with pytest.raises(ValueError, match="a policy of 3 criteria: the problem has 2 constraints"):
        solved(wrong, length=1)


# --- what is refused -----------------------------------------------------------------------------------------------


def played(graph=None, costs=(1.0, 1.0), events=((0.0, 1.0),)):
    graph, costs, events = path(2) if graph is None else graph, np.asarray(costs), np.asarray(events)
    return robust.play(robust.threshold_policy(graph, costs), events, graph, costs)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: played(np.array([[1, 0], [0, 0]])), "criterion 0 excludes itself"),
        (lambda: played(np.array([[0, 1], [0, 0]])), "criteria 0 and 1 exclude each other in one direction only"),
        (lambda: played(np.array([[0, 2], [2, 0]])), "other entries than 0 and 1"),
        (lambda: played(np.array([[0.0, np.nan], [np.nan, 0.0]])), "other entries than 0 and 1"),
        (lambda: robust.independent_sets(np.zeros((21, 21))), "at most 20 criteria"),
        (lambda: robust.independent_sets(np.zeros((2, 3))), r"graph of shape \(2, 3\)"),
        (lambda: robust.independent_sets(np.zeros((0, 0))), r"graph of shape \(0, 0\)"),
        (lambda: played(costs=(1.0, 0.0)), "costs must be in"),
        (lambda: played(costs=(1.0, -1.0)), "costs must be in"),
        (lambda: played(costs=(1.0, np.nan)), "costs must be in"),
        (lambda: played(costs=(1.0,)), "give one for each of 2"),
        (lambda: played(events=((0.0, -0.5),)), "a complaint of -0.5"),
        (lambda: played(events=((0.0, np.nan),)), "a complaint of nan"),
        (lambda: played(events=((0.0, np.inf),)), "a complaint of inf"),
        (lambda: played(events=(0.0, 1.0)), r"events of shape \(2,\)"),
        (lambda: robust.offline_cost(np.ones((3, 1)), path(2), np.ones(2)), r"events of shape \(3, 1\)"),
        (lambda: robust.optimistic_policy(path(2), horizon=0), "horizon must be in"),
        (lambda: robust.optimistic_policy(path(2), horizon=10, largest=0.0), "largest must be in"),
        (lambda: robust.threshold_bound(path(2), np.zeros(2)), "costs must be in"),
        (lambda: robust.incompatible(np.array([0.5, 1.0]), precision=0.8, false_negative_rate=0.2), "base_rate must"),
        (lambda: robust.incompatible(np.array([0.5]), precision=0.0, false_negative_rate=0.2), "precision must be in"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(call, words):
    with pytest.raises(ValueError, match=words) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_a_policy_that_fixes_what_excludes_each_other_has_no_cost():
    policy = robust.stay_policy(jnp.array([True, True]))
    assert np.isnan(robust.play(policy, np.ones((2, 2)), path(2), np.ones(2)).cost).all()
    assert float(robust.play(policy, np.ones((2, 2)), graph_of(2), np.ones(2)).cost[-1]) == 2


# --- edges from data -----------------------------------------------------------------------------------------------


def test_base_rates_that_differ_exclude_equal_precision_and_equal_error_rates():
    rates = robust.implied_false_positive_rate(np.array([0.5, 0.3]), np.full(2, 0.8), np.full(2, 0.2))
    np.testing.assert_allclose(rates, [0.2, 0.085714], atol=1e-6)
    # The formula against a table of people that has these rates: 1,000 of whom 300 are positive.
    hit, missed, wrong = 240, 60, 60
    np.testing.assert_allclose(rates[1], wrong / 700, rtol=1e-6)
    assert hit / (hit + wrong) == 0.8
    assert missed / 300 == 0.2
    same = {"precision": 0.8, "false_negative_rate": 0.2}
    assert bool(robust.incompatible(np.array([0.5, 0.3]), **same))
    assert not bool(robust.incompatible(np.array([0.4, 0.4]), **same))
    assert not bool(robust.incompatible(np.array([0.4, np.nan]), **same))  # nobody is there
    assert not bool(robust.incompatible(np.array([0.5, 0.3]), **same, tolerance=0.12))
    assert bool(robust.incompatible(np.array([0.9, 0.9]), precision=0.5, false_negative_rate=0.0))  # a rate of 9


def test_an_equality_complains_from_both_sides():
    def evaluate(params, carry, batch, key):
        return constraints.Evaluation(loss=0.0 * params, proxy=params[None] + 5.0, strict=params[None] + 5.0)

    problem = constraints.Problem(1, equality=True, init=lambda *_: (), evaluate=evaluate)
    driven = robust.driven(problem, robust.threshold_policy(np.zeros((1, 1), bool), np.array([5.0])))
    for start in (-10.0, 0.0):
        seen = driven.evaluate(jnp.asarray(start), driven.init(), None, None)
        assert bool(seen.carry.fixed[0]), start
