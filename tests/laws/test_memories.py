"""Laws of memories: a table of memories x streams, each against a recount in float64, one person at a time.

What a weight means stands in the recount: of the people that a memory knows, with outcomes o and weights w, the mean is
sum w o / sum w, and the standard error that of (sum w)^2 / sum w^2 people.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import constraints
from jaxfair.typing import Batch

G, N, B, STEPS, SIZE, DECAY = 3, 40, 12, 9, 4, 0.75
#: Beyond this an outcome counts as infinite.
LARGEST = 1e15


class Recount:
    """All people that a memory knows, by group: pairs of an outcome and a weight."""

    def __init__(self, group, outcome, weight):
        del group, outcome, weight
        self.known = [[] for _ in range(G)]

    @staticmethod
    def kept(group, index, outcome, weight):
        """Who is somebody, in the order of the batch."""
        for g, i, o, w in zip(group, index, outcome.astype(np.float64), weight, strict=True):
            if 0 <= g < G and np.isfinite(o) and abs(o) <= LARGEST and np.isfinite(w) and w > 0:
                yield int(g), int(i), float(o), float(w)

    def push(self, *batch):
        for g, _, o, w in self.kept(*batch):
            self.known[g].append((o, w))

    def people(self, g):
        return self.known[g]

    def observed(self, g):
        return bool(self.known[g])


class Minibatch(Recount):
    def push(self, *batch):
        self.known = [[] for _ in range(G)]
        super().push(*batch)


class Ring(Recount):
    def people(self, g):
        return self.known[g][-SIZE:]

    def observed(self, g):
        return len(self.known[g]) >= SIZE


class Average(Recount):
    def push(self, *batch):
        seen = {g for g, *_ in self.kept(*batch)}
        self.known = [[(o, w * DECAY) if g in seen else (o, w) for o, w in self.known[g]] for g in range(G)]
        super().push(*batch)


class Examples(Recount):
    def __init__(self, group, outcome, weight):
        self.last = {}
        self.push(group, np.arange(N), outcome, weight)

    def push(self, *batch):
        for g, i, o, w in self.kept(*batch):
            if 0 <= i < N:
                self.last[i] = (g, o, w)

    def people(self, g):
        return [(o, w) for of, o, w in self.last.values() if of == g]

    def observed(self, g):
        return bool(self.people(g))


MEMORIES = {
    "minibatch": (constraints.minibatch, Minibatch),
    "replay_buffer": (functools.partial(constraints.replay_buffer, size=SIZE), Ring),
    "exponential_average": (functools.partial(constraints.exponential_average, decay=DECAY), Average),
    "example_memory": (constraints.example_memory, Examples),
}
each = pytest.mark.parametrize("name", MEMORIES)


@functools.cache
def compiled(name):
    """The memory of a name; what it does to batches of a shape, and says of them, is compiled once for all streams."""
    memory = MEMORIES[name][0](G)
    return memory._replace(
        push=jax.jit(memory.push),
        group_means=jax.jit(memory.group_means),
        standard_errors=jax.jit(memory.standard_errors),
    )


GROUP = np.random.default_rng(0).choice(G, N, p=[0.6, 0.3, 0.1])


def stream(rng, *, weight, index=None, group=None, outcome=None, size=B):
    """Batches as tuples (group, index, outcome, weight); each argument changes one of them."""
    for _ in range(STEPS):
        i = rng.choice(N, size, replace=False) if index is None else index(rng)
        g = GROUP[i % N] if group is None else group(rng, i)
        o = rng.exponential(size=len(i)).astype(np.float32)
        yield g, i, o if outcome is None else outcome(rng, o), weight(rng, len(i)).astype(np.float32)


def ones(rng, n):
    return np.ones(n)


def chosen(*values):
    return lambda rng, n: rng.choice(values, n)


def spoilt(*values):
    return lambda rng, o: np.where(rng.random(len(o)) < 0.3, rng.choice(values, len(o)), o).astype(np.float32)


STREAMS = {
    "weights of one": {"weight": ones},
    "weights": {"weight": chosen(0.25, 1.0, 3.0)},
    "weights of four": {"weight": chosen(4.0)},
    "small weights": {"weight": chosen(1e-4, 3e-4)},
    "padding": {"weight": chosen(0.0, 1.0)},
    "impossible weights": {"weight": chosen(1.0, np.nan, np.inf, -1.0)},
    "repeated": {"weight": ones, "index": lambda rng: rng.integers(5, size=B)},
    "repeated, with weights": {"weight": chosen(0.0, 0.5, 2.0), "index": lambda rng: rng.integers(5, size=B)},
    "groups out of range": {
        "weight": chosen(0.5, 1.0),
        "group": lambda rng, i: np.where(rng.random(B) < 0.4, rng.choice([-1, -7, G, 99], B), GROUP[i]),
    },
    "positions out of range": {
        "weight": chosen(0.5, 1.0),
        "index": lambda rng: rng.choice([-1, -N, N, N + 3, *range(9)], B),
        "group": lambda rng, i: np.where((i >= 0) & (i < N), GROUP[i % N], 0),
    },
    "narrow integers": {
        "weight": ones,
        "group": lambda rng, i: GROUP[i].astype(np.int8),
    },
    "not finite": {"weight": chosen(0.5, 1.0), "outcome": spoilt(np.nan, np.inf, -np.inf)},
    "squares not finite": {"weight": chosen(0.5, 1.0), "outcome": spoilt(1e20, -1e25)},
    "large, and gone": {"weight": ones, "outcome": spoilt(1e4, 1e10)},
    "positions that change their group": {"weight": chosen(0.3, 0.7), "group": lambda rng, i: rng.integers(G, size=B)},
    "a group that is left": {"weight": chosen(0.3, 0.7), "group": lambda rng, i: np.zeros(B, int)},
    "half precision": {"weight": ones, "outcome": lambda rng, o: (300 * o).astype(np.float16)},
    "far from zero": {"weight": chosen(0.5, 1.0), "outcome": lambda rng, o: 1000.0 + o},
    "right or wrong": {"weight": chosen(0.5, 1.0), "outcome": lambda rng, o: (o > 0.7).astype(np.float32)},
    "true or false": {"weight": chosen(0.5, 1.0), "outcome": lambda rng, o: o > 0.7},
    "a group never seen": {"weight": ones, "index": lambda rng: rng.choice(np.flatnonzero(GROUP), B, replace=False)},
    "no group at all": {"weight": ones, "group": lambda rng, i: np.full(B, -1)},
    "weights of zero": {"weight": chosen(0.0)},
    "batches of one": {"weight": chosen(0.5, 1.0), "size": 1},
    "empty batches": {"weight": ones, "size": 0},
}


def batch_of(group, index, outcome, weight):
    return Batch(None, None, group, index, weight), outcome


def assert_equal(memory, state, recount):
    means, observed = memory.group_means(state)
    errors = memory.standard_errors(state)
    for g in range(G):
        o, w = np.array(recount.people(g), np.float64).reshape(-1, 2).T
        assert bool(observed[g]) == recount.observed(g)
        mean = w @ o / w.sum() if len(o) else 0.0
        # Float32 sums of some 40 numbers of about this size.
        np.testing.assert_allclose(means[g], mean if recount.observed(g) else 0.0, rtol=2e-6)
        people = w.sum() ** 2 / (w**2).sum() if len(o) else 0.0
        if people <= 1 + 1e-6:
            assert np.isinf(errors[g])
            continue
        error = np.sqrt(w @ (o - mean) ** 2 / w.sum() / (people - 1))
        # Twenty numbers near 1,000 are known to 1e-4 each.
        np.testing.assert_allclose(errors[g], error, rtol=1e-3, atol=1e-5 * max(abs(mean), 1e-2))


@pytest.mark.parametrize("case", STREAMS)
@each
@pytest.mark.slow
def test_a_memory_is_a_recount(name, case):
    rng = np.random.default_rng(len(case))
    memory, recounted = compiled(name), MEMORIES[name][1]
    start = rng.exponential(size=N).astype(np.float32)
    if "far" in case:
        start = start + 1000
    weight = STREAMS[case]["weight"](rng, N).astype(np.float32)
    state, recount = memory.init(GROUP, start, weight), recounted(GROUP, start, weight)
    assert_equal(memory, state, recount)
    for batch in stream(rng, **STREAMS[case]):
        state = memory.push(state, *batch_of(*batch))
        recount.push(*batch)
        assert_equal(memory, state, recount)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@each
@pytest.mark.slow
def test_the_start_may_know_nobody_and_anybody(name):
    """Groups out of range, outcomes that are not finite and padding, in the split itself."""
    rng = np.random.default_rng(1)
    group = np.where(rng.random(N) < 0.3, rng.choice([-1, G + 1], N), GROUP)
    start = spoilt(np.nan, np.inf)(rng, rng.exponential(size=N))
    weight = rng.choice([0.0, 0.5, 2.0], N).astype(np.float32)
    memory, recount = compiled(name), MEMORIES[name][1](group, start, weight)
    state = memory.init(group, start, weight)
    assert_equal(memory, state, recount)
    for batch in stream(rng, weight=ones):  # everybody has a group now, and an outcome
        state = memory.push(state, *batch_of(*batch))
        recount.push(*batch)
        assert_equal(memory, state, recount)


@pytest.mark.parametrize("factor", [4.0, 0.125])
@each
@pytest.mark.slow
def test_a_common_factor_of_all_weights_changes_nothing(name, factor):
    """Bit for bit: a power of two is exact. A weight of 4 is no four people."""
    memory, states = compiled(name), []
    for scale in (1.0, factor):
        rng = np.random.default_rng(2)
        state = memory.init(GROUP, rng.exponential(size=N), np.full(N, scale, np.float32))
        for group, index, outcome, weight in stream(rng, weight=chosen(0.5, 1.0, 3.0)):
            state = memory.push(state, *batch_of(group, index, outcome, scale * weight))
        states.append((memory.group_means(state), memory.standard_errors(state)))
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.parametrize("name", ["replay_buffer", "example_memory"])
@pytest.mark.slow
def test_a_stream_is_the_same_data_in_one_batch(name):
    memory, rng = MEMORIES[name][0](G), np.random.default_rng(3)
    batches = list(stream(rng, weight=chosen(0.0, 0.5, 2.0)))
    state = once = memory.init(GROUP, np.ones(N), np.ones(N))
    for batch in batches:
        state = memory.push(state, *batch_of(*batch))
    once = memory.push(once, *batch_of(*(np.concatenate(parts) for parts in zip(*batches, strict=True))))
    for a, b in zip(memory.group_means(state), memory.group_means(once), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)
    np.testing.assert_allclose(memory.standard_errors(state), memory.standard_errors(once), rtol=1e-5)


@pytest.mark.slow
@each
def test_lanes_and_scans_are_the_same_memory(name):
    memory, rng = MEMORIES[name][0](G), np.random.default_rng(4)
    parts = [np.stack(part) for part in zip(*stream(rng, weight=chosen(0.5, 1.0)), strict=True)]
    start = memory.init(GROUP, np.ones(N), np.ones(N))

    def play(state, outcomes):
        def push(state, part):
            group, index, outcome, weight = part
            return memory.push(state, *batch_of(group, index, outcome, weight)), None

        return jax.lax.scan(push, state, (*parts[:2], outcomes, parts[3]))[0]

    lanes = jax.jit(jax.vmap(play, (None, 0)))(start, np.stack([parts[2], 2 * parts[2]]))
    alone = start
    for batch in zip(*parts, strict=True):
        alone = memory.push(alone, *batch_of(*batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-6), lanes, alone)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int64, np.uint32])
@each
def test_more_groups_than_eight_bits_can_say(name, dtype):
    memory, one = MEMORIES[name][0](300), np.ones(4, np.float32)
    group = np.array([0, 100, 100, 127], dtype)
    state = memory.init(group, one, one)
    for _ in range(SIZE):
        state = memory.push(state, Batch(None, None, group, np.arange(4), one), one)
    means, observed = memory.group_means(state)
    assert np.flatnonzero(observed).tolist() == [0, 100, 127]
    np.testing.assert_array_equal(means[np.array([0, 100, 127])], 1.0)


@each
def test_a_number_too_large_for_32_bits_is_nobody(name):
    memory, one = MEMORIES[name][0](2), np.ones(3, np.float32)
    group = np.array([2**32, 2**32 + 1, -(2**32)])
    state = memory.push(memory.init(group, one, one), Batch(None, None, group, np.arange(3), one), one)
    assert not memory.group_means(state)[1].any()


@pytest.mark.parametrize(
    ("group", "outcome", "weight", "words"),
    [
        (np.zeros(3, int), np.ones((3, 1)), np.ones(3), r"outcomes have shape \(3, 1\) and weights \(3,\)"),
        (np.zeros(3, int), np.ones(4), np.ones(3), r"outcomes have shape \(4,\)"),
        (np.zeros(3, int), np.ones(3), np.ones((3, 1)), r"weights \(3, 1\)"),
        (np.zeros(2, int), np.ones(3), np.ones(3), r"group has shape \(2,\) beside weights of shape \(3,\)"),
        (np.zeros((3, 1), int), np.ones(3), np.ones(3), r"group has shape \(3, 1\)"),
        (np.zeros(3), np.ones(3), np.ones(3), "group has dtype float64: give integers"),
    ],
)
@each
def test_shapes_that_do_not_fit_are_named(name, group, outcome, weight, words):
    memory = MEMORIES[name][0](2)
    state = memory.init(np.zeros(3, int), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=words):
        memory.push(state, Batch(None, None, group, np.arange(len(weight)), weight), outcome)


def test_positions_are_one_for_each_example():
    memory, one = constraints.example_memory(2), np.ones(3)
    state = memory.init(np.zeros(3, int), one, one)
    with pytest.raises(ValueError, match=r"index has shape \(2,\) beside weights of shape \(3,\)"):
        memory.push(state, Batch(None, None, np.zeros(3, int), np.arange(2), one), one)


@pytest.mark.slow
def test_losses_that_fall_for_long_leave_no_rounding_behind():
    """A training: the losses of 50,000 people, 500 in a step, fall by a factor of ten in each epoch."""
    people, size, rng = 50_000, 500, np.random.default_rng(5)
    memory, group = constraints.example_memory(2), np.repeat([0, 1], (people - 100, 100))
    loss = 2.3 * rng.exponential(size=people).astype(np.float32)
    state = memory.init(group, loss, np.ones(people, np.float32))
    order = rng.permutation(people).reshape(-1, size)

    @jax.jit
    def epoch(state, loss):
        def step(state, at):
            return memory.push(state, Batch(None, None, jnp.asarray(group)[at], at, jnp.ones(size)), loss[at]), None

        return jax.lax.scan(step, state, order)[0]

    for scale in (1e-1, 1e-2, 1e-3, 1e-4):
        loss = scale * rng.exponential(size=people).astype(np.float32)
        state = epoch(state, loss)
        means, errors = memory.group_means(state)[0], memory.standard_errors(state)
        for g in range(2):
            of = loss[group == g].astype(np.float64)
            np.testing.assert_allclose(means[g], of.mean(), rtol=1e-4)
            np.testing.assert_allclose(errors[g], of.std() / np.sqrt(len(of) - 1), rtol=1e-4)


@pytest.mark.slow
def test_what_stays_of_people_that_count_differently():
    """The published input: means of people who are all right are 1, whatever they weigh and however often they come."""
    group, index, one = np.array([0, 0, 1, 1]), np.arange(4), jnp.ones(4)
    weight = np.array([1.0, 3.0, 1.0, 3.0])
    memory = constraints.example_memory(2)
    state = memory.init(group, one, weight)
    for _ in range(4):
        state = memory.push(state, Batch(None, None, group, index, weight), one)
        np.testing.assert_array_equal(memory.group_means(state)[0], 1.0)
    # One of two people three times, right before and wrong now.
    state = memory.init(np.zeros(2, int), np.ones(2), np.ones(2))
    again = Batch(None, None, np.zeros(3, int), np.zeros(3, int), np.ones(3))
    assert memory.group_means(memory.push(state, again, np.zeros(3)))[0].tolist() == [0.5, 0.0]
    # A position that is none of the three.
    state = memory.init(np.zeros(3, int), np.array([1.0, 1.0, 0.0]), np.ones(3))
    for _ in range(5):
        state = memory.push(state, Batch(None, None, np.zeros(1, int), np.array([7]), np.ones(1)), np.ones(1))
    np.testing.assert_allclose(memory.group_means(state)[0], [2 / 3, 0], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 40, 512, 513, 700])
def test_of_somebody_who_is_in_a_batch_several_times_the_last_counts(size):
    """Small batches are compared pair by pair, large ones sorted."""
    rng = np.random.default_rng(size)
    index, outcome = rng.integers(-2, N + 3, size), rng.exponential(size=size).astype(np.float32)
    memory, last = constraints.example_memory(1), np.zeros(N, np.float32)
    state = memory.init(np.zeros(N, int), last, np.ones(N))
    state = memory.push(state, Batch(None, None, np.zeros(size, int), index, np.ones(size)), outcome)
    for i, o in zip(index, outcome, strict=True):
        if 0 <= i < N:
            last[i] = o
    np.testing.assert_array_equal(state.outcome, last)
