"""SUBG, JTT and LISA: who is drawn, what is mixed, their limits, and that they train through `train.fit`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import data, robust, train
from jaxfair.typing import Batch

#: (class, group) cells of 9, 4, 2 and 6 people.
CELLS = ((0, 0, 9), (0, 1, 4), (1, 0, 2), (1, 1, 6))
N = 21
Y, GROUP = (np.repeat([cell[i] for cell in CELLS], [n for *_, n in CELLS]) for i in (0, 1))
Y, GROUP = (of[np.random.default_rng(0).permutation(N)] for of in (Y, GROUP))
KEYS = jax.random.split(jax.random.key(3), 400)


def within(counts, expected, *, sds=5):
    """Whether counts are binomial about what is expected, to five standard deviations."""
    return bool((np.abs(counts - expected) < sds * np.sqrt(expected) + 1e-9).all())


# --- SUBG ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [Y, None], ids=["cells", "groups"])
def test_every_cell_has_as_many_as_the_smallest_and_nobody_is_there_twice(y):
    kept = np.asarray(jax.jit(jax.vmap(lambda key: robust.subsample(key, GROUP, y)))(KEYS))
    cell = GROUP if y is None else 2 * Y + GROUP
    least = np.bincount(cell).min()
    assert kept.shape == (400, least * (cell.max() + 1))
    for one in kept:
        assert np.bincount(cell[one]).tolist() == [least] * (cell.max() + 1)
        assert len(set(one.tolist())) == len(one)
    # Of a cell everybody is drawn alike.
    assert within(np.bincount(kept.ravel(), minlength=N), (400 * least / np.bincount(cell))[cell])


def test_the_order_of_a_subsample_has_the_same_people_in_all_epochs():
    order = functools.partial(robust.subsample_order, group=GROUP, y=Y, batch_size=4, num_steps=5)
    drawn = np.asarray(jax.jit(jax.vmap(jax.vmap(order, (None, 0)), (0, None)))(KEYS[:3], jnp.arange(2)))
    for key, lane in zip(KEYS[:3], drawn, strict=True):
        kept = sorted(robust.subsample(jax.random.split(key)[0], GROUP, Y).tolist())
        for epoch in lane:
            for a_pass in (epoch[:2], epoch[2:4]):  # eight people, two steps of four
                assert sorted(a_pass.ravel().tolist()) == kept
        assert (lane[0] != lane[1]).any()
    assert sorted(set(drawn[0].ravel())) != sorted(set(drawn[1].ravel()))


# --- JTT -----------------------------------------------------------------------------------------------------------

RIGHT = np.arange(N) % 3 > 0


def drawn_by(weights):
    draw = functools.partial(robust.weighted_order, weights=weights, batch_size=8, num_steps=50)
    return np.bincount(np.asarray(jax.vmap(draw, (0, None))(KEYS[:50], 1)).ravel(), minlength=N)


def test_errors_weigh_more_and_with_a_weight_of_one_all_are_drawn_alike():
    weights = robust.just_train_twice(RIGHT, up=5.0)
    assert weights.tolist() == [1.0 if right else 5.0 for right in RIGHT]
    counts = drawn_by(weights)
    assert within(counts, np.asarray(weights / weights.sum()) * counts.sum())
    assert not within(counts, np.full(N, counts.sum() / N))
    plain = drawn_by(robust.just_train_twice(RIGHT, up=1.0))
    assert within(plain, np.full(N, plain.sum() / N))
    lanes = robust.just_train_twice(np.stack([RIGHT, ~RIGHT]), up=5.0)
    np.testing.assert_array_equal(lanes[0], weights)
    np.testing.assert_array_equal(lanes[1], 6 - weights)


def test_who_weighs_nothing_is_never_drawn():
    for weights in (np.r_[0.0, np.ones(N - 2), 0.0], np.r_[np.zeros(N - 1), 2.0], np.r_[1e-30, np.zeros(N - 1)]):
        assert (drawn_by(weights)[weights == 0] == 0).all()


# --- LISA: the pairs -----------------------------------------------------------------------------------------------


def pairs(same_class, *, group=GROUP, y=Y):
    order = functools.partial(
        robust.lisa_order, group=group, y=y, batch_size=7, num_steps=6, same_class=same_class
    )  # fmt: skip
    drawn = np.asarray(jax.vmap(order, (0, None))(KEYS, 0))  # not compiled: each plan would be anew
    return drawn[..., :7], drawn[..., 7:]


def test_a_partner_differs_in_group_or_class_but_not_in_both_and_all_of_them_are_drawn_alike():
    for same_class in (0.0, 1.0):
        first, partner = pairs(same_class)
        same, other = (Y, GROUP) if same_class else (GROUP, Y)
        assert (same[first] == same[partner]).all()
        assert (other[first] != other[partner]).all()
        # Of each first example, each that may be its partner is as likely.
        may = (same[:, None] == same) & (other[:, None] != other)
        counts = np.zeros((N, N))
        np.add.at(counts, (first.ravel(), partner.ravel()), 1)
        assert within(counts, may * (counts.sum(1) / may.sum(1))[:, None])
    first, partner = pairs(0.5)
    kind = (Y[first] == Y[partner]).sum()
    assert abs(kind - first.size / 2) < 5 * np.sqrt(first.size) / 2
    # The first ones are fresh permutations: two passes of three steps.
    assert (np.sort(first.reshape(400, 2, 21), axis=-1) == np.arange(21)).all()


def test_who_has_no_partner_is_its_own():
    first, partner = pairs(1.0, group=np.zeros(N, int))  # no other group
    np.testing.assert_array_equal(first, partner)
    first, partner = pairs(0.0, y=np.zeros(N, int))  # no other class
    np.testing.assert_array_equal(first, partner)
    first, partner = pairs(0.0, group=np.where(GROUP == 1, 2, 0), y=np.where(GROUP == 1, 0, Y))  # one group has one
    alone = GROUP[first] == 1
    assert (first[alone] == partner[alone]).all()
    assert (first[~alone] != partner[~alone]).all()


# --- LISA: the mixture ---------------------------------------------------------------------------------------------

RNG = np.random.default_rng(1)
TWICE = Batch(
    x=RNG.normal(size=(8, 3)).astype(np.float32), y=RNG.integers(0, 3, 8).astype(np.int32),
    group=np.zeros(8, np.int32), index=np.arange(8, dtype=np.int32), weight=np.ones(8, np.float32),
)  # fmt: skip
PARAMS = jnp.asarray(RNG.normal(size=(3, 3)), jnp.float32)
SEEN = []


def linear(params, state, x, *, train, key=None):
    SEEN.append(x.shape)
    return x @ params, state


SGD = optax.sgd(0.5)
PLAIN, MIXED, ONCE = (
    train.descent(linear, SGD),
    robust.lisa(train.descent(linear, SGD)),
    robust.lisa(train.descent(robust.once(linear), SGD)),
)


def stepped(solver, batch, key=KEYS[0]):
    state, info = jax.jit(solver.step)(solver.init(PARAMS), batch, key)
    return np.asarray(state.params), float(info.loss)


def seen_of(batch, alpha):
    see = robust.lisa(PLAIN._replace(step=lambda state, batch, key: (state, batch)), alpha=alpha)
    return see.step((), batch, KEYS[0])[1]


traced, at_two = jax.jit(seen_of), jax.jit(functools.partial(seen_of, alpha=2.0))


def what_the_solver_sees(batch, alpha):
    """The batch that comes out of the mixing."""
    return at_two(batch) if alpha == 2.0 else traced(batch, alpha)


def test_a_step_is_that_of_the_cross_entropy_of_soft_labels_at_the_mixtures():
    share = what_the_solver_sees(TWICE, 2.0).weight[:4, None]
    x, soft = (share * a[:4] + (1 - share) * a[4:] for a in (TWICE.x, jax.nn.one_hot(TWICE.y, 3)))

    def loss(params):
        return optax.softmax_cross_entropy(x @ params, soft).mean()

    value, gradient = jax.value_and_grad(loss)(PARAMS)
    for solver in (MIXED, ONCE):
        params, found = stepped(solver, TWICE)
        np.testing.assert_allclose(found, value, rtol=1e-6)
        np.testing.assert_allclose(params, PARAMS - 0.5 * gradient, rtol=1e-5, atol=1e-6)


def test_once_runs_the_network_on_the_mixtures_alone():
    for solver, shape in ((MIXED, (8, 3)), (ONCE, (4, 3))):
        SEEN.clear()
        jax.eval_shape(lambda state, step=solver.step: step(state, TWICE, KEYS[0]), PLAIN.init(PARAMS))
        assert [shape] == SEEN
    whole, _ = robust.once(linear)(PARAMS, {}, TWICE.x, train=False)
    np.testing.assert_array_equal(whole, linear(PARAMS, {}, TWICE.x, train=False)[0])


def test_paired_with_itself_it_is_plain_training():
    again = Batch(*(np.concatenate([a[:4], a[:4]]) for a in TWICE))
    expected = stepped(PLAIN, Batch(*(a[:4] for a in TWICE)))
    for solver in (MIXED, ONCE):
        for found, right in zip(stepped(solver, again), expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-6)
    seen = what_the_solver_sees(again, 2.0)
    np.testing.assert_array_equal(seen.x, again.x)
    np.testing.assert_array_equal(seen.weight, np.repeat([1.0, 0.0], 4))


@pytest.mark.parametrize("alpha", [1, 2.0, jnp.float32(2.5)], ids=["one", "two", "fraction"])
def test_shares_have_the_moments_of_their_distribution(alpha):
    n = 4000
    many = Batch(*(np.zeros(2 * n, np.float32) for _ in range(3)), np.arange(2 * n), np.ones(2 * n, np.float32))
    see = robust.lisa(PLAIN._replace(step=lambda state, batch, key: (state, batch.weight[:n])), alpha=alpha)
    share = np.asarray(see.step((), many, KEYS[1])[1], np.float64) - 0.5
    second, fourth = 1 / (4 * (2 * alpha + 1)), 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert abs(share.mean()) < 5 * np.sqrt(second / n)
    assert abs((share**2).mean() - second) < 5 * np.sqrt((fourth - second**2) / n)
    assert abs((share**4).mean() - fourth) < 0.1 * fourth


def test_with_alpha_towards_zero_a_mixture_is_one_of_the_two():
    seen = what_the_solver_sees(TWICE, 1e-4)
    mine, other = np.split(np.asarray(seen.weight), 2)
    assert set(mine.round(5)) | set(other.round(5)) <= {0.0, 1.0}
    np.testing.assert_allclose(mine + other, 1, rtol=1e-6)
    whose = np.where(mine[:, None] > 0.5, TWICE.x[:4], TWICE.x[4:])
    np.testing.assert_allclose(seen.x, np.concatenate([whose, whose]), atol=1e-5)
    half = what_the_solver_sees(TWICE, 1e6)  # and at large ones half of each
    np.testing.assert_allclose(half.weight, 0.5, atol=0.01)


def test_padding_is_not_mixed_in():
    weight, x = np.array([1, 0, 0, 2, 0, 1, 0, 4], np.float32), np.array(TWICE.x)
    x[weight == 0] = np.nan
    seen = what_the_solver_sees(TWICE._replace(x=x, weight=weight), 2.0)
    np.testing.assert_array_equal(seen.x[0], x[0])
    np.testing.assert_array_equal(seen.x[1], x[5])
    mine, other = np.split(np.asarray(seen.weight), 2)
    np.testing.assert_array_equal(np.stack([mine, other])[:, :3], [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(mine[3] / 2 + other[3] / 4, 1, rtol=1e-6)
    assert np.isfinite(np.asarray(seen.x)[np.asarray(seen.weight) > 0]).all()


# --- through train.fit ---------------------------------------------------------------------------------------------


def init(key):
    first, last = jax.random.split(key)
    return {"in": jax.random.normal(first, (13, 12)) * 0.3, "out": jax.random.normal(last, (12, 2)) * 0.3}


def network(params, state, x, *, train, key=None):
    return jax.nn.relu(x @ params["in"]) @ params["out"], state


ADAM = optax.adam(0.01)
DESCENT = train.descent(network, ADAM)


@pytest.fixture(scope="module")
def people():
    """A minority of five per cent, of which most features say the opposite of what they say of the majority."""
    drawn = data.planted(
        key=jax.random.key(0), num_train=800, num_validation=100, num_test=1000, minority=0.05, minority_test=500,
        noise=2,
    )  # fmt: skip
    return drawn.train, drawn.test


def trained(split, order=None, *, epochs=8, **options):
    start = jax.jit(jax.vmap(lambda key: DESCENT.init(init(key))))(jax.random.split(jax.random.key(5), 3))
    found = train.fit(
        DESCENT, start, split, keys=jax.random.split(jax.random.key(6), 3), epochs=epochs, batch_size=32, num_steps=25,
        order=order, **options,
    )  # fmt: skip
    assert (np.asarray(found.failed_at) == -1).all()
    return found.solver.params


@jax.jit
def labels(params, x):
    return jax.vmap(lambda p: jnp.argmax(network(p, {}, x, train=False)[0], axis=1))(params)


def accuracies(params, split):
    """``[S, G]``."""
    right = np.asarray(labels(params, split.x)) == split.y
    return np.stack([right[:, split.group == g].mean(1) for g in (0, 1)], axis=1)


@pytest.mark.slow
def test_just_training_twice_finds_the_minority_and_learns_it(people):
    split, test = people
    first = trained(split, epochs=3)
    right = np.asarray(labels(first, split.x)) == split.y
    minority = np.asarray(split.group) == 1
    # Few are got wrong, and of them the minority is many times its share.
    precision = np.array([minority[~lane].mean() for lane in right])
    assert (precision > 4 * minority.mean()).all(), precision
    weights = robust.just_train_twice(right, up=10.0)
    lanes = train.SHARED._replace(weight=0)
    weighed = trained(split._replace(weight=np.asarray(weights)), split_axes=lanes)
    drawn = trained(
        split, functools.partial(robust.weighted_order, weights=np.asarray(weights[0]), batch_size=32, num_steps=25)
    )
    plain = accuracies(trained(split), test)
    assert accuracies(weighed, test).min(1).mean() > plain.min(1).mean() + 0.1
    assert accuracies(drawn, test).min(1).mean() > plain.min(1).mean() + 0.1


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: robust.subsample(KEYS[0], np.array([0, 0, 1]), np.array([0, 1, 0])), "of class 1 in group 1"),
        (lambda: robust.subsample(KEYS[0], np.array([0, 2])), "no example of group 1"),
        (lambda: robust.subsample(KEYS[0], np.array([0, -1])), "group -1 is none"),
        (lambda: robust.subsample(KEYS[0], GROUP, Y - 1), "class -1 is none"),
        (lambda: robust.subsample(KEYS[0], np.array([], int)), "there are no examples"),
        (lambda: robust.subsample_order(KEYS[0], 0, group=GROUP, y=Y, batch_size=9, num_steps=2), "from 1 to 8"),
        (lambda: robust.just_train_twice(np.ones(3), up=5.0), "nobody is got wrong: T is too late"),
        (lambda: robust.just_train_twice(np.array([[1, 0], [1, 1]]), up=5.0), "nobody is got wrong in lane 1"),
        (lambda: robust.just_train_twice(np.array([0.3, 1.0]), up=5.0), "right .1. or wrong"),
        (lambda: robust.just_train_twice(RIGHT, up=0.0), "up must be in"),
        (lambda: robust.weighted_order(KEYS[0], 0, weights=np.zeros(3), batch_size=2, num_steps=2), "not 0 all"),
        (lambda: robust.weighted_order(KEYS[0], 0, weights=-np.ones(3), batch_size=2, num_steps=2), "0 or above"),
        (lambda: robust.weighted_order(KEYS[0], 0, weights=np.ones(3), batch_size=0, num_steps=2), "from 1 on"),
        (lambda: robust.lisa_order(KEYS[0], 0, group=GROUP, y=Y, batch_size=22, num_steps=2), "from 1 to 21"),
        (lambda: robust.lisa_order(KEYS[0], 0, group=GROUP - 1, y=Y, batch_size=2, num_steps=2), "group -1 is none"),
        (
            lambda: robust.lisa_order(KEYS[0], 0, group=GROUP, y=Y, batch_size=2, num_steps=2, same_class=1.5),
            "same_class must",
        ),
        (lambda: robust.lisa(PLAIN, alpha=0.0), "alpha must be in"),
        (lambda: stepped(MIXED, Batch(*(a[:3] for a in TWICE))), "a batch of 3: LISA takes"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(call, words):
    with pytest.raises(ValueError, match=words) as raised:
        call()
    assert "\n" not in str(raised.value)
