"""Coresets: the lexicographic rule, its search against brute force, its laws, and the rules beside it."""

import functools
import inspect
import itertools
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import bilevel, implicit, train

N = 10


@functools.cache
def ridge(seed=0):
    """``(loss of a mask, x, y)``: ridge regression by one number on a subset, the mean square on all; in float64."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=N) + 0.5
    y = 2 * x + rng.normal(size=N)

    def loss(mask):
        rows = np.flatnonzero(np.asarray(mask))
        w = x[rows] @ y[rows] / (x[rows] @ x[rows] + 0.1)
        return np.mean((x * w - y) ** 2)

    return loss, x.astype(np.float32), y.astype(np.float32)


def inner_and_outer(x, y):
    def inner(weight, key):
        return jnp.sum(weight * x * y) / (jnp.sum(weight * x * x) + 0.1)

    return inner, lambda w: jnp.mean((x * w - y) ** 2)


def search(**options):
    _, x, y = ridge()
    return bilevel.coreset(
        *inner_and_outer(x, y), **{"num_examples": N, "start": 6, "limit": 8, "evaluations": 61} | options
    )


def walked(solver, key, steps=60):
    first, second = jax.random.split(key)

    def step(state, key):
        new, info = solver.step(state, None, key)
        return new, (new.mask, new.loss, new.size, new.best, info)

    return jax.lax.scan(step, solver.init(first), jax.random.split(second, steps))


PLAIN = search()
WALK = jax.jit(lambda key: walked(PLAIN, key))


@pytest.fixture(scope="module")
def walk():
    return jax.device_get(WALK(jax.random.key(0)))


# --- the rule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "incumbent", "published", "ours"),
    [
        ((0.95, 3), (0.9, 4), True, True),
        ((1.0, 3), (0.95, 3), False, False),
        ((0.92, 3), (0.95, 3), False, True),  # a tie in size, and a smaller loss
        ((2.0, 1), (0.95, 3), False, False),
        ((0.85, 9), (0.95, 3), False, False),  # the band moves to 0.9775, and both are in it
        ((0.8, 9), (0.95, 3), True, True),  # to 0.92, and the incumbent is out of it
        ((1.0, 2), (2.0, 1), True, True),
        ((2.0, 1), (3.0, 1), True, True),
        ((np.inf, 1), (np.inf, 9), False, False),
        ((5.0, 9), (np.inf, 1), True, True),
    ],
)
def test_what_is_accepted(new, incumbent, published, ours):
    for ties, expected in ((False, published), (True, ours)):
        found = bilevel.lexicographic_better(new, incumbent, 0.9, tolerance=0.15, ties=ties)
        assert found.item() is expected, ties


def test_without_tolerance_the_loss_alone_counts_and_a_target_makes_the_size_count():
    better = functools.partial(bilevel.lexicographic_better, tolerance=0.0)
    assert not better((0.91, 1), (0.9, 9), 0.9)
    assert better((0.89, 9), (0.9, 1), 0.9)
    assert better((0.91, 1), (0.9, 9), 0.9, target=1.0)
    assert not better((1.01, 1), (0.9, 9), 0.9, target=1.0)


def brute_force(losses, sizes, tolerance):
    """The smallest size in the band, and the smallest loss of that size."""
    band = min(losses) * (1 + tolerance)
    size = min(s for loss, s in zip(losses, sizes, strict=True) if loss <= band)
    return size, min(loss for loss, s in zip(losses, sizes, strict=True) if s == size and loss <= band)


@pytest.mark.parametrize("seed", range(3))
def test_fed_with_all_subsets_the_rule_gives_the_optimum_of_brute_force(seed):
    """Both as it chooses among all, and as it goes from one to the next, in any order that ends in the whole list."""
    loss, *_ = ridge(seed)
    masks = np.array([m for m in itertools.product((False, True), repeat=N) if 0 < sum(m) < 8])
    losses, sizes = np.array([loss(m) for m in masks], np.float32), masks.sum(1).astype(np.int32)
    best = brute_force(losses, sizes, 0.15)
    place = bilevel.lexicographic_best(losses, sizes).item()
    assert (sizes[place], losses[place]) == best

    def compare(carry, candidate):
        incumbent, smallest = carry
        won = bilevel.lexicographic_better(candidate, incumbent, smallest)
        incumbent = jax.tree.map(lambda a, b: jnp.where(won, a, b), candidate, incumbent)
        return (incumbent, jnp.minimum(smallest, candidate[0])), None

    # Twice: what was passed over before the smallest loss was known is met again.
    order = np.tile(np.random.default_rng(seed).permutation(len(masks)), 2)
    begin = (jnp.float32(jnp.inf), jnp.int32(N)), jnp.float32(jnp.inf)
    (incumbent, _), _ = jax.lax.scan(compare, begin, (jnp.asarray(losses[order]), jnp.asarray(sizes[order])))
    assert (incumbent[1].item(), incumbent[0].item()) == best


def test_the_published_choice_among_equal_sizes_is_the_last():
    losses, sizes = jnp.array([0.95, 1.0, 0.9]), jnp.array([2, 2, 5])
    assert bilevel.lexicographic_best(losses, sizes, ties=False).item() == 1
    assert bilevel.lexicographic_best(losses, sizes).item() == 0
    assert bilevel.lexicographic_best(jnp.full(3, jnp.inf), sizes).item() == 0


# --- the search ----------------------------------------------------------------------------------------------------


def test_what_a_search_says_is_true(walk):
    state, (masks, losses, sizes, best, info) = walk
    loss, *_ = ridge()
    for mask, said, size in zip(masks[::10], losses[::10], sizes[::10], strict=True):
        assert size == mask.sum()
        np.testing.assert_allclose(said, loss(mask), rtol=1e-5)
    np.testing.assert_allclose(state.params, inner_and_outer(*ridge()[1:])[0](state.mask * 1.0, None), rtol=1e-5)
    assert (np.diff(best) <= 0).all()
    assert (sizes < 8).all()
    assert info.accepted.sum() > 3
    history = state.history
    assert history.count == 61
    unpacked = np.unpackbits(history.bits, axis=1, count=N)
    np.testing.assert_array_equal(unpacked.sum(1), history.sizes)
    np.testing.assert_array_equal(history.losses[1:], info.losses[:, 0])
    found = bilevel.coreset_of(state)
    assert (found.size, np.float32(found.loss)) == brute_force(history.losses, history.sizes, 0.15)
    assert found.loss <= history.losses.min() * 1.15
    np.testing.assert_array_equal(found.indices, np.flatnonzero(found.mask))
    # And with two of a class each: 4 of 5 classes may be missing.
    missing = bilevel.coreset_of(state, y=np.arange(N) // 2, num_classes=6).missing
    assert set(missing) == set(range(6)) - set((found.indices // 2).tolist())


def test_with_one_candidate_the_rule_is_the_sequential_one(walk):
    """The walk again, by hand: the moves of the same keys, the losses that were seen, Python's comparisons."""
    state, (masks, _, _, _, info) = walk
    first, second = jax.random.split(jax.random.key(0))
    start = jax.device_get(jax.jit(PLAIN.init)(first))
    mask, loss, size, best = start.mask, start.loss, start.size, start.loss
    propose, moved = jax.jit(bilevel.swap().propose), 0
    for number, key in enumerate(jax.random.split(second, 60)):
        (moving,) = jax.random.split(jax.random.split(key)[0], 1)
        new = np.asarray(propose((), mask, moving)[0])
        new_loss, new_size = info.losses[number, 0], new.sum()
        assert new_size == info.sizes[number, 0]
        best = min(best, new_loss)
        band = np.float32(best * np.float32(1.15))
        if new_loss < band and loss < band:
            won = new_size < size or (new_size == size and new_loss < loss)
        else:
            won = new_loss < loss
        if won:
            mask, loss, size, moved = new, new_loss, new_size, moved + 1
        np.testing.assert_array_equal(mask, masks[number])
    assert moved == info.accepted.sum()
    assert loss == state.loss


@pytest.mark.slow
def test_candidates_side_by_side_are_compared_one_after_the_other():
    solver = search(num_candidates=3, evaluations=31)
    state, (_, losses, sizes, _, info) = jax.device_get(jax.jit(lambda key: walked(solver, key, 10))(jax.random.key(1)))
    start = jax.jit(solver.init)(jax.random.split(jax.random.key(1))[0])
    incumbent, best = (float(start.loss), int(start.size)), float(start.loss)
    for number in range(10):
        for new_loss, new_size, accepted in zip(
            info.losses[number], info.sizes[number], info.accepted[number], strict=True
        ):
            won = bilevel.lexicographic_better((new_loss, new_size), incumbent, best).item()
            assert won == accepted
            incumbent = (new_loss, new_size) if won else incumbent
            best = min(best, new_loss)
        assert incumbent == (losses[number], sizes[number])
    assert state.history.count == 31
    assert 0 < info.accepted.sum() < 30
    assert info.accepted.sum(1).max() > 1


def test_seeds_side_by_side_are_seeds_one_by_one_and_the_same_key_is_the_same_walk(walk):
    keys = jax.random.split(jax.random.key(7), 3)
    several = jax.device_get(jax.jit(jax.vmap(lambda key: walked(PLAIN, key)[0]))(keys))
    for lane, key in enumerate(keys):
        one, _ = jax.device_get(WALK(key))
        assert (
            bilevel.coreset_of(train.take(several, lane)).indices.tolist() == bilevel.coreset_of(one).indices.tolist()
        )
        np.testing.assert_array_equal(several.mask[lane], one.mask)
        np.testing.assert_array_equal(several.history.bits[lane], one.history.bits)
        np.testing.assert_allclose(several.loss[lane], one.loss, rtol=1e-5)
    again = jax.device_get(WALK(jax.random.key(0)))
    jax.tree.map(np.testing.assert_array_equal, walk, again)
    with pytest.raises(ValueError, match="3 lanes"):
        bilevel.coreset_of(several)


@pytest.mark.slow
def test_a_step_is_compiled_once_and_numbers_are_data():
    """Tolerances, limits and rates are lanes of one program."""
    traced = 0

    def run(key, tolerance, limit, share):
        nonlocal traced
        traced += 1
        solver = search(tolerance=tolerance, limit=limit, start=limit - 1, proposal=bilevel.swap(share), evaluations=21)
        return walked(solver, key, 20)[0]

    many = jax.jit(jax.vmap(run, in_axes=(None, 0, 0, 0)))
    tolerances = jnp.array([0.0, 0.15, 10.0, 1e6])
    for key in jax.random.split(jax.random.key(0), 2):
        state = many(key, tolerances, jnp.array([8, 7, 8, 11]), jnp.array([0.05, 0.3, 0.3, 0.5]))
    assert traced == 1
    assert state.size[3] == 1  # where any loss will do
    assert (state.size < jnp.array([8, 7, 8, 11])).all()
    assert state.loss[0] == state.best[0] == state.history.losses[0].min()


MASK = jnp.arange(200) < 50
KEYS = jax.random.split(jax.random.key(0), 400)


def moves(proposal, keys):
    memory = proposal.init(MASK)
    return jax.vmap(lambda key: proposal.propose(memory, MASK, key)[0])(keys)


SWAPS = jax.jit(lambda keys, share: moves(bilevel.swap(share), keys))


def test_swap_never_grows_and_lets_its_share_go():
    for share, going in ((0.05, 2), (0.001, 1), (1.0, 50)):
        masks = SWAPS(KEYS, share)
        assert ((MASK[None] & ~masks).sum(1) == going).all()
        came = (masks & ~MASK[None]).sum(1)
        assert (came.min().item(), came.max().item()) == (0, going)


@pytest.mark.parametrize(
    "moved",
    [
        lambda keys: SWAPS(keys, 0.5),
        jax.jit(lambda keys: moves(bilevel.flip(0.3), keys)),
        jax.jit(lambda keys: moves(bilevel.flow(0.1), keys)),
    ],
    ids=["swap", "flip", "flow"],
)
def test_an_outsider_is_as_likely_to_come_as_another(moved):
    masks = moved(KEYS)
    assert masks.dtype == bool
    assert (MASK[None] ^ masks).any()
    # The least and the most of 150 counts, in standard errors.
    counts = np.asarray(masks[:, 50:].sum(0), float)
    assert np.abs(counts - counts.mean()).max() <= 5 * np.sqrt(counts.mean())


def test_flip_keeps_the_size_in_the_mean():
    mask = jnp.arange(2000) < 500
    flip = jax.jit(
        jax.vmap(lambda k, entries: bilevel.flip(0.1, entries=entries).propose((), mask, k)[0], in_axes=(0, None))
    )
    for entries, mean in ((1.0, 500), (0.5, 475)):
        masks = flip(jax.random.split(jax.random.key(0), 200), entries)
        # A size has a variance of less than 500 * 0.1 + 50, its mean over 200 has sd 0.7.
        assert abs(float(masks.sum(1).mean()) - mean) < 3.5


def test_the_published_walk_goes_against_its_direction_from_where_it_is():
    mask, walk = jnp.arange(100) < 30, bilevel.flow(0.05, drift=0.0)
    memory = walk.init(mask)
    np.testing.assert_allclose(memory.point, np.where(np.arange(100) < 30, 0.6, 0.25))
    propose = jax.jit(walk.propose)
    _, accepted, rejected = propose(memory, mask, jax.random.key(0))
    np.testing.assert_allclose(jnp.linalg.norm(accepted.direction), 1.0, rtol=1e-5)
    np.testing.assert_allclose(accepted.point, memory.point + 0.5 * accepted.direction, atol=1e-6)
    np.testing.assert_array_equal(rejected.point, memory.point)
    # After a success: back to where it was. After a failure: to the other side. Then a new direction.
    back, again, _ = propose(accepted, mask, jax.random.key(1))
    np.testing.assert_array_equal(back, mask)
    np.testing.assert_allclose(again.point, memory.point, atol=1e-6)
    _, other, _ = propose(rejected, mask, jax.random.key(1))
    np.testing.assert_allclose(other.point, memory.point - 0.5 * accepted.direction, atol=1e-6)
    _, new, _ = propose(other, mask, jax.random.key(2))
    assert abs(float(new.direction @ other.direction)) < 0.5


def test_what_may_not_be_chosen_has_an_infinite_loss():
    """What is empty, and what is too large."""
    wrong = bilevel.Proposal(
        lambda mask: jnp.bool_(False),
        lambda memory, mask, key: (jnp.where(memory, mask | True, mask & False), ~memory, ~memory),
        several=True,
    )
    solver = search(proposal=wrong)
    state, (masks, *_, info) = jax.jit(lambda key: walked(solver, key, 2))(jax.random.key(0))
    assert info.sizes.tolist() == [[0], [N]]
    assert info.losses.tolist() == [[np.inf], [np.inf]]
    assert not info.accepted.any()
    assert masks.sum(1).tolist() == [6, 6]
    assert bilevel.coreset_of(state).size == 6


@pytest.mark.slow
def test_a_start_that_diverged_is_left_for_the_first_that_has_not():
    nan = bilevel.coreset(
        lambda weight, key: jnp.where(weight[0] == 1, jnp.nan, jnp.sum(weight)), lambda p: p, num_examples=3, start=2
    )

    @jax.jit
    def first_steps(keys):
        state = nan.init(keys[0], jnp.array([True, True, False]))
        return state, jax.vmap(lambda key: nan.step(state, None, key)[0])(keys)

    state, states = first_steps(jax.random.split(jax.random.key(1), 20))
    assert state.loss == jnp.inf
    left = np.asarray(jnp.isfinite(states.loss))
    assert left.any()
    assert not states.mask[left, 0].any()


@pytest.mark.slow
def test_a_history_that_is_full_forgets_the_largest_loss_and_never_the_choice():
    solver = search(evaluations=5)
    state, (_, _, _, _, info) = jax.device_get(jax.jit(lambda key: walked(solver, key, 40))(jax.random.key(3)))
    assert state.history.count == 41
    assert state.history.losses.min() == state.best == info.losses.min()
    assert (np.sort(state.history.losses)[:-1] <= np.sort(info.losses[:, 0])[5]).all()  # but for the choice
    found = bilevel.coreset_of(state)
    assert found.loss <= state.best * 1.15


@pytest.mark.slow
def test_a_search_is_stopped_and_goes_on(tmp_path):
    """Its state is arrays: halves of a walk with a file between them are the walk."""
    keys = jax.random.split(jax.random.key(5), 20)
    step = jax.jit(PLAIN.step)
    state = jax.jit(PLAIN.init)(jax.random.key(4))
    for key in keys[:10]:
        state, _ = step(state, None, key)
    leaves, structure = jax.tree.flatten(state)
    np.savez(tmp_path / "half.npz", *map(np.asarray, leaves))
    with np.load(tmp_path / "half.npz") as half:
        other = jax.tree.unflatten(structure, [jnp.asarray(half[name]) for name in half.files])
    for key in keys[10:]:
        state, info = step(state, None, key)
        other, _ = step(other, None, key)
    jax.tree.map(np.testing.assert_array_equal, state, other)
    assert state.step == 20
    assert jnp.shape(info.loss) == ()


GOOD = {"num_examples": N, "start": 5}
WRONG = [
    ({"num_examples": 0}, "num_examples=0: give a whole number of at least 1"),
    ({"start": 0}, "start=0: give a whole number of at least 1"),
    ({"start": 11}, "start=11: there are 10 examples"),
    ({"start": 2.5}, "start=2.5: give a whole number"),
    ({"limit": 5}, "limit=5, start=5: a subset has fewer members than the limit"),
    ({"limit": 0}, "limit=0: give a whole number"),
    ({"tolerance": -0.1}, "tolerance=-0.1: give a number of at least 0"),
    ({"tolerance": np.nan}, "tolerance=nan: give a number of at least 0"),
    ({"target": np.nan}, "target=nan: give a loss"),
    ({"evaluations": 0}, "evaluations=0: give a whole number"),
    ({"num_candidates": 0}, "num_candidates=0: give a whole number"),
    ({"proposal": bilevel.swap}, "did you mean swap()?"),
    ({"proposal": "swap"}, "give bilevel.swap(), flip(), or a bilevel.Proposal"),
    ({"proposal": bilevel.flow(), "num_candidates": 2}, "num_candidates=2: this proposal makes one move"),
    ({"inner": None}, "inner=None: give a function"),
    ({"outer": 3}, "outer=3: give a function"),
]


def refuses(make, said):
    with pytest.raises((ValueError, TypeError)) as raised:
        make()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("options", "said"), WRONG, ids=lambda v: str(v)[:30])
def test_what_cannot_be_searched_is_one_line_before_anything_is_trained(options, said):
    def never(*_):
        raise AssertionError("trained")

    make = inspect.unwrap(bilevel.coreset)  # the shape checker of the tests would speak first
    refuses(lambda: make(**{"inner": never, "outer": never} | GOOD | options), said)


def test_starts_that_cannot_be_and_losses_that_have_no_band():
    def never(*_):
        raise AssertionError("trained")

    solver, key = bilevel.coreset(never, never, **GOOD, limit=8), jax.random.key(0)
    refuses(lambda: solver.init(key, np.zeros(N, bool)), "a start of 0 members")
    refuses(lambda: solver.init(key, np.arange(N) < 8), "fewer than limit=8")
    refuses(lambda: solver.init(key, np.ones(N)), "dtype float64: give [10] bool")
    refuses(lambda: solver.init(key, np.ones(3, bool)), "shape (3,)")
    negative, five = bilevel.coreset(lambda w, k: w, lambda p: -jnp.sum(p), **GOOD), np.arange(N) < 5
    refuses(
        lambda: negative.init(key, five), "the start's loss is -5, and of a negative number tolerance=0.15 is no room"
    )
    bilevel.coreset(lambda w, k: w, lambda p: -jnp.sum(p), **GOOD, tolerance=0.0).init(key, five)
    two = bilevel.coreset(lambda w, k: w, lambda p: p, **GOOD)
    refuses(lambda: two.init(key, five), "outer gave shape (10,): give one number")
    state = bilevel.coreset(lambda w, k: w, jnp.sum, **GOOD).init(key, five)
    refuses(lambda: bilevel.coreset_of(state, y=[0, 1]), "y of shape (2,): give the classes of all 10")
    refuses(lambda: jax.jit(bilevel.coreset_of)(state), "use chosen_mask")
    for make in (lambda: bilevel.swap(2), lambda: bilevel.flip(-0.1), lambda: bilevel.flow(-1)):
        refuses(make, "give a share between 0 and 1")


# --- by gradients --------------------------------------------------------------------------------------------------


def objective(w, weight):
    _, x, y = ridge()
    return jnp.sum(weight * (x * w - y) ** 2) / 2 + 0.05 * w**2


@pytest.mark.slow
@pytest.mark.parametrize("straight_through", [True, False])
def test_the_derivative_of_the_theorem_is_that_through_the_training(straight_through):
    """Ridge regression is solved exactly, so both are exact: the weights after one step are the same."""
    _, x, y = ridge()
    inner, outer = inner_and_outer(x, y)
    options = {"num_examples": N, "size": 4, "tx": optax.sgd(0.05), "straight_through": straight_through}
    through = bilevel.relaxed_coreset(inner, outer, **options)
    implied = bilevel.relaxed_coreset(inner, outer, objective=objective, solve=implicit.dense(), **options)
    start = jnp.linspace(0.1, 0.9, N)

    @jax.jit
    def both(key):
        state = through.init(key, start)
        return state, through.step(state, None, key), implied.step(state, None, key)

    state, (one, info), (other, _) = both(jax.random.key(0))
    np.testing.assert_allclose(one.weight, other.weight, atol=2e-5)
    assert float(jnp.abs(one.weight - state.weight).max()) > 1e-3
    assert info.size == 4
    at = state.mask * 1.0 if straight_through else state.weight
    np.testing.assert_allclose(info.loss, outer(inner(at, None)), rtol=1e-4)
    np.testing.assert_allclose(info.rounded, outer(inner(state.mask * 1.0, None)), rtol=1e-4)


@pytest.mark.slow
def test_a_descent_keeps_its_budget_and_finds_better_subsets_than_chance():
    _, x, y = ridge()
    loss, *_ = ridge()
    size = optax.linear_schedule(7.0, 3.0, 40)
    solver = bilevel.relaxed_coreset(
        *inner_and_outer(x, y), num_examples=N, size=size, evaluations=50, tx=optax.adam(0.1), tolerance=0.3
    )

    def run(key):
        first, second = jax.random.split(key)

        def step(state, key):
            new, info = solver.step(state, None, key)
            return new, (state.weight.sum(), state.mask.sum(), info)

        return jax.lax.scan(step, solver.init(first), jax.random.split(second, 50))

    states, (total, members, info) = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4))
    budget = np.array([size(t) for t in range(50)])
    assert (total <= budget[None] * (1 + 1e-6)).all()
    np.testing.assert_array_equal(members, np.tile(np.round(budget), (4, 1)))
    np.testing.assert_array_equal(info.size, members)
    three = [loss(m) for m in itertools.product((0, 1), repeat=N) if sum(m) == 3]
    assert info.rounded[:, -10:].mean() - min(three) < 0.25 * (np.mean(three) - min(three))
    found = bilevel.coreset_of(jax.tree.map(lambda a: a[0], states))
    np.testing.assert_allclose(found.loss, loss(found.mask), rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size=0: give a whole number of at least 1"),
        ({"size": 11}, "size=11: there are 10 examples"),
        ({"tolerance": -1}, "tolerance=-1: give a number of at least 0"),
        ({"solve": implicit.dense()}, "give objective="),
        ({"objective": 1}, "objective=1: give a function"),
        ({"inner": 1}, "inner=1: give a function"),
    ],
)
def test_what_cannot_be_descended_is_one_line(options, said):
    make = inspect.unwrap(bilevel.relaxed_coreset)
    refuses(lambda: make(**{"inner": len, "outer": len, "num_examples": N, "size": 3} | options), said)


def test_a_derivative_that_is_not_finite_is_seen_in_the_loss():
    """The square root of a weight of 0 has none."""
    solver = bilevel.relaxed_coreset(
        lambda w, k: jnp.sum(jnp.sqrt(w)), lambda p: p, num_examples=4, size=2, tx=optax.sgd(0.1), evaluations=2
    )
    step = jax.jit(lambda begin: solver.step(solver.init(jax.random.key(0), begin), None, jax.random.key(0)))
    _, info = step(jnp.array([0.9, 0.9, 0.1, 0.1]))
    assert jnp.isnan(info.loss)
    assert (info.rounded, info.size) == (2, 2)


def test_a_weight_of_another_shape_is_one_line():
    solver = bilevel.relaxed_coreset(lambda w, k: w, lambda p: p[0], num_examples=N, size=3)
    refuses(lambda: solver.init(jax.random.key(0), jnp.ones(3)), "weight of shape (3,): give [10] floats")


# --- by rule -------------------------------------------------------------------------------------------------------


def test_herding_and_matching_are_what_their_formulas_say():
    features = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32) + 1
    mean, taken, matched = features.mean(0), [], []
    pull = mean.copy()
    for _ in range(12):
        left = [i for i in range(30) if i not in taken]
        taken.append(max(left, key=lambda i: pull @ features[i]))
        pull += mean - features[taken[-1]]
        left = [i for i in range(30) if i not in matched]
        matched.append(min(left, key=lambda i: np.linalg.norm(features[[*matched, i]].mean(0) - mean)))
    assert bilevel.herding(jnp.asarray(features), 12).tolist() == taken
    assert bilevel.gradient_matching(jnp.asarray(features), 12).tolist() == matched
    assert sorted(bilevel.herding(jnp.asarray(features), 30).tolist()) == list(range(30))
    for rule in (bilevel.herding, bilevel.gradient_matching):
        refuses(lambda rule=rule: rule(jnp.asarray(features), 31), "size=31: there are 30 examples")
        refuses(lambda rule=rule: rule(jnp.asarray(features), 0), "size=0: give a whole number")


def test_members_train_as_the_weights_they_stand_for():
    _, x, y = ridge()
    weight = jnp.asarray(np.arange(N) % 3 == 0, jnp.float32)
    rows, few = bilevel.members(weight, 6)
    inner, _ = inner_and_outer(x, y)
    short, _ = inner_and_outer(x[rows], y[rows])
    np.testing.assert_allclose(short(few, None), inner(weight, None), rtol=1e-4)
    assert bilevel.members(weight, 2)[0].tolist() == [0, 3]


# --- the page ------------------------------------------------------------------------------------------------------

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "bilevel.md").read_text().partition("\n## Coresets\n")[2]


@pytest.mark.slow
def test_the_example_of_the_page_runs():
    names = {}
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(text, names)
    found = names["found"]
    assert found.size < 20
    assert found.evaluations == 201
    assert found.missing == ()


def test_every_function_for_coresets_stands_on_the_page():
    words = ("coreset", "lexicographic", "proposals", "history", "herding", "gradient_matching")
    for name in dir(bilevel):
        thing = getattr(bilevel, name)
        if isinstance(thing, types.FunctionType) and any(word in thing.__module__ for word in words):
            assert re.search(rf"`(bilevel\.)?{name}[`(]|bilevel\.{name}\(", PAGE), name
