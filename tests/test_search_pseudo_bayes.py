"""Pseudo-Bayesian optimisation: closed forms, laws of the regression and of the search, settings of every kind."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxfair import search
from jaxfair.search import space

RULES = (search.shepard, search.linear, search.kriging)


@pytest.fixture(scope="module")
def design():
    """A few points of a cube of three dimensions; the last rows are empty."""
    points = np.random.default_rng(0).uniform(size=(20, 3)).astype(np.float32)
    return jnp.asarray(points).at[16:].set(7.0), jnp.sin(5 * jnp.asarray(points).sum(-1)), 16


@functools.cache
def regressed(rule, noise=0.0):
    """One compiled function for all places."""
    shape = search.Shape(8, 2.0, 0.6)

    def at(x, design, values, count):
        return search.predict(x, design, values, count, shape, rule=rule, noise=noise)

    return jax.jit(jax.vmap(at, (0, None, None, None)))


def test_the_hand_case():
    # X = (0, 1), y = (1, 3), x = 0.25, weights 1 / distance, Matern-5/2 of length 1: by hand.
    at = functools.partial(search.predict, jnp.array([0.25]), jnp.array([[0.0], [1.0]]), jnp.array([1.0, 3.0]), 2)
    mean, deviation = at(search.Shape(12, 1.0, 1.0), rule=search.shepard)
    assert mean.item() == pytest.approx(1.5, rel=1e-6)
    assert deviation.item() ** 2 == pytest.approx(0.0572340, rel=1e-5)  # float32, a difference of numbers near 1
    k = np.array([0.950960, 0.675648])
    K = np.array([[1, 0.523994], [0.523994, 1]])
    process = 1 - k @ np.linalg.solve(K, k)
    assert process == pytest.approx(0.0523173, abs=2e-6)  # the digits of k
    assert process < at(search.Shape(12, 1.0, 1.0), rule=search.kriging)[1].item() ** 2 < deviation.item() ** 2


def test_the_error_bar_is_that_of_an_ensemble_of_randomised_priors():
    # Members p + sum w (y - p(X)): drawn here from the prior's covariance, 40,000 of them.
    points, x, shape = np.array([[0.0], [1.0], [0.4]]), np.array([0.25]), search.Shape(12, 2.0, 0.7)
    near = np.abs(points[:, 0] - x)
    weights = near**-2.0 / (near**-2.0).sum()
    places = np.concatenate([points, [x]])
    covariance = np.asarray(search.matern(jnp.abs(places - places.T), 0.7), np.float64)
    priors = np.random.default_rng(0).multivariate_normal(np.zeros(4), covariance, 40_000)
    y = np.array([1.0, 3.0, -1.0])
    members = priors[:, 3] + (y - priors[:, :3]) @ weights
    mean, deviation = search.predict(jnp.asarray(x), jnp.asarray(points), jnp.asarray(y), 3, shape, rule=search.shepard)
    error = deviation.item() / 40_000**0.5  # of the mean; of the deviation it is 1 / sqrt(2) of that
    assert members.mean() == pytest.approx(mean.item(), abs=4 * error)
    assert members.std() == pytest.approx(deviation.item(), abs=4 * error)


@pytest.mark.parametrize("rule", RULES)
def test_laws_of_the_regression(rule, design):
    points, values, count = design
    at = regressed(rule)
    places = jnp.asarray(np.random.default_rng(1).uniform(size=(64, 3)), jnp.float32)
    mean, deviation = at(places, points, values, count)
    # It interpolates, to float32 and, of kriging, to the ridge that keeps its matrix definite.
    itself, nothing = at(points[:count], points, values, count)
    np.testing.assert_allclose(itself, values[:count], atol=2e-3 if rule is search.kriging else 1e-4)
    assert float(nothing.max()) < 1e-2
    # A ball without points keeps an error bar.
    far, bar = at(jnp.full((1, 3), 3.0), points, values, count)
    assert float(bar[0]) > 0.9
    assert np.isfinite(far).all()
    # An affine change of the values changes the mean by that map, and no deviation; in float32, where a plane is
    # continued beyond its neighbours with weights of ten and more.
    moved, same = at(places, points, 3 * values + 2, count)
    np.testing.assert_allclose(moved, 3 * mean + 2, atol=1e-3)
    np.testing.assert_array_equal(same, deviation)
    # The order of the design means nothing; what stands in empty rows neither.
    order = np.random.default_rng(2).permutation(count)
    shuffled = jnp.concatenate([points[:count][order], points[count:] * 0])
    again, bars = at(places, shuffled, jnp.concatenate([values[:count][order], values[count:] + 1e9]), count)
    np.testing.assert_allclose(again, mean, atol=1e-3)
    np.testing.assert_allclose(bars, deviation, atol=2e-3)
    # The variance is never below that of the Gaussian process that sees all points.
    K = np.asarray(search.matern(jnp.linalg.norm(points[:count, None] - points[None, :count], axis=-1), 0.6), float)
    k = np.asarray(search.matern(jnp.linalg.norm(places[:, None] - points[None, :count], axis=-1), 0.6), float)
    process = 1 - np.einsum("qi,qi->q", k, np.linalg.solve(K, k.T).T)
    assert (np.asarray(deviation) ** 2 > process - 1e-5).all()


def test_noise_is_averaged_and_not_interpolated():
    points = jnp.full((20, 1), 0.5).at[:, 0].add(1e-4 * jnp.arange(20))
    values = jnp.asarray(np.random.default_rng(0).normal(size=20), jnp.float32)
    shape = search.Shape(12, 2.0, 1.0)
    for rule in (search.shepard, search.kriging):
        mean, deviation = search.predict(points[3], points, values, 20, shape, rule=rule, noise=1.0)
        assert abs(mean.item()) < 1.0  # of twelve values, not the fourth
        assert deviation.item() == pytest.approx(12**-0.5, rel=0.1)


def test_duplicates_and_few_points():
    shape = search.Shape(12, 2.0, 0.5)
    twice = jnp.array([[0.2], [0.2], [0.9]])
    for rule in RULES:
        mean, _ = search.predict(jnp.array([0.2]), twice, jnp.array([1.0, 3.0, 9.0]), 3, shape, rule=rule)
        assert mean.item() == pytest.approx(2.0, abs=0.01)
        nothing, prior = search.predict(jnp.array([0.2]), twice, jnp.array([1.0, 3.0, 9.0]), 0, shape, rule=rule)
        assert (nothing.item(), prior.item()) == (0.0, 1.0)


def test_expected_improvement_and_its_logarithm():
    from scipy import integrate, stats

    at = jax.jit(search.log_expected_improvement)
    for mean, deviation in ((0.0, 1.0), (1.5, 0.3), (-2.0, 0.5), (3.9, 1.0), (4.1, 1.0), (9.0, 1.0)):
        true = integrate.quad(lambda y, m=mean, s=deviation: -y * stats.norm.pdf(y, m, s), mean - 40 * deviation, 0,
                              points=[-deviation], limit=200, epsabs=0)[0]  # fmt: skip
        assert at(jnp.float32(mean), jnp.float32(deviation), 0.0).item() == pytest.approx(np.log(true), abs=2e-2)
    assert at(jnp.float32(1.0), jnp.float32(0.0), 0.0).item() == -np.inf  # certain, and worse
    assert at(jnp.float32(-1.0), jnp.float32(0.0), 0.0).item() == pytest.approx(0.0)  # certain, better by 1


# --- the search ----------------------------------------------------------------------------------------------------

BUDGET = 24


def bowl(x):
    return sum(jnp.square(x[..., i] - at) for i, at in enumerate((0.2, 0.7)))


SEARCH = search.pseudo_bayes(2, BUDGET, candidates=200)
ASK, TELL = jax.jit(SEARCH.ask), jax.jit(SEARCH.tell)


def searched(key):
    first, later = jax.random.split(key)

    def step(told, key):
        x = SEARCH.ask(told, key)
        return SEARCH.tell(told, x, bowl(x)), x

    return lax.scan(step, SEARCH.init(first), jax.random.split(later, BUDGET))


def test_regret_on_a_quadratic_falls_far_below_that_of_the_same_number_of_random_points():
    lanes = jax.jit(jax.vmap(searched))
    told, x = lanes(jax.random.split(jax.random.key(0), 5))
    regret = np.asarray(told.y.min(-1))
    drawn = np.random.default_rng(0).uniform(size=(1000, BUDGET, 2)).astype(np.float32)
    chance = np.asarray(bowl(drawn)).min(-1)
    assert regret.max() < np.quantile(chance, 0.05)  # the worst of five, beside one of twenty at random
    assert np.median(regret) < np.quantile(chance, 0.01)
    assert ((x >= 0) & (x <= 1)).all()
    # What a lane finds depends on its key alone, and on nobody beside it.
    other, _ = lanes(jax.random.split(jax.random.key(0), 5)[::-1])
    np.testing.assert_array_equal(other.y, told.y[::-1])


def filled(count):
    """A search that was told some values."""
    told = SEARCH.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (count, 2))
    return told, x, bowl(x)


def test_it_asks_the_first_design_first_and_the_order_of_a_batch_means_nothing():
    told, x, y = filled(12)
    begun = np.concatenate([ASK(told._replace(count=jnp.int32(i)), jax.random.key(i)) for i in range(6)])
    assert len(np.unique(begun, axis=0)) == 6
    assert np.abs(np.sort(begun, 0) - np.linspace(0, 1, 6)[:, None]).max() < 0.3  # spread over each axis
    order = np.random.default_rng(0).permutation(12)
    one, other = TELL(told, x, y, 0.0), TELL(told, x[order], y[order], 0.0)
    np.testing.assert_allclose(ASK(one, jax.random.key(5)), ASK(other, jax.random.key(5)), atol=1e-6)
    np.testing.assert_array_equal(SEARCH.ask(one, jax.random.key(5)).shape, (1, 2))


def test_a_play_that_failed_counts_as_the_worst_and_values_that_are_all_alike_are_searched_on():
    told, x, y = filled(12)
    failed = TELL(told, x, y.at[3].set(jnp.nan), 0.0)
    worst = TELL(told, x, y.at[3].set(jnp.delete(y, 3).max()), 0.0)
    np.testing.assert_array_equal(ASK(failed, jax.random.key(5)), ASK(worst, jax.random.key(5)))
    assert np.isnan(failed.y[3])  # and it can be seen
    row, met = search.best(failed)
    assert (int(row), bool(met)) == (int(jnp.argmin(y)), True)
    alike = TELL(told, x, jnp.ones(12), 0.0)
    assert np.isfinite(ASK(alike, jax.random.key(5))).all()
    nothing = TELL(told, x, jnp.full(12, jnp.nan), 0.0)
    assert np.isfinite(ASK(nothing, jax.random.key(5))).all()
    assert not search.best(nothing)[1]


def test_values_beyond_the_budget_are_counted_and_forgotten():
    told, x, y = filled(BUDGET)
    told = TELL(told, x, y, 0.0)
    more = SEARCH.tell(told, jnp.zeros((1, 2)), jnp.array([-9.0]))
    assert (int(more.count), float(more.y.min())) == (BUDGET + 1, float(y.min()))


def test_the_region_doubles_after_improvements_and_halves_after_failures():
    told, x, y = filled(12)
    told = TELL(told, x, y, 0.0)
    tell = jax.jit(SEARCH.tell)
    better = told
    for i in range(3):
        better = tell(better, x[:1], jnp.array([-1.0 - i]), 0.0)
    assert float(better.side) == pytest.approx(1.6)
    worse = told
    for _ in range(4):
        worse = tell(worse, x[:1], jnp.array([9.0]), 0.0)
    assert float(worse.side) == pytest.approx(0.4)
    small = told._replace(side=jnp.float32(2.0**-7), failures=jnp.int32(3))
    assert float(tell(small, x[:1], jnp.array([9.0]), 0.0).side) == pytest.approx(0.8)  # it begins again


def test_a_bound_is_kept_and_a_batch_has_different_points():
    def play(settings):
        value = settings["x"] + settings["y"]  # least at the origin, which is not allowed
        return value, 0.25 - settings["x"] * settings["y"]

    over = {"x": search.Real(0, 1), "y": search.Real(0, 1)}
    found = search.minimize(over, play, budget=36, batch=4, constrained=True, key=jax.random.key(0))
    assert found.met
    assert 1.0 <= found.values[found.row] < 1.1  # at (1/2, 1/2) it is 1
    allowed = found.excess <= 0
    assert found.values[found.row] == found.values[allowed].min()
    for begins in range(8, 36, 4):
        rows = np.stack([found.settings[name][begins : begins + 4] for name in over], -1)
        assert len(np.unique(rows.round(6), axis=0)) == 4
    # Where nobody is allowed, the least excess is what is found.
    never = search.minimize(
        over, lambda s: (s["x"], 1 + s["y"]), budget=20, batch=4, constrained=True, key=jax.random.key(0)
    )
    assert not never.met
    assert never.excess[never.row] == never.excess.min() < 1.1


def test_settings_of_every_kind():
    over = {
        "rate": search.Real(1e-4, 1.0, log=True),
        "layers": search.Integer(1, 6),
        "optimizer": search.Choice(("sgd", "adam", "lion")),
    }
    points = np.random.default_rng(0).uniform(size=(50, 5))
    settings = search.decoded(over, points)
    snapped = np.asarray(jax.vmap(functools.partial(space.snapped, over))(jnp.asarray(points, jnp.float32)))
    np.testing.assert_allclose(search.encoded(over, settings), snapped, atol=1e-5)
    assert set(settings["layers"]) == set(range(1, 7))
    assert set(settings["optimizer"]) == {"sgd", "adam", "lion"}

    def play(settings):
        off = np.log10(settings["rate"] / 1e-2) ** 2 + (settings["layers"] - 4) ** 2 / 4
        return off + 2.0 * (settings["optimizer"] != "adam")

    start = {"rate": [0.5], "layers": [1], "optimizer": ["sgd"]}
    found = search.minimize(over, play, budget=40, key=jax.random.key(0), start=start)
    assert {name: column[0] for name, column in found.settings.items()} == pytest.approx(
        {name: column[0] for name, column in start.items()}
    )
    assert (found.chosen["layers"], found.chosen["optimizer"]) == (4, "adam")
    assert 3e-3 < found.chosen["rate"] < 3e-2
    assert found.words().endswith("40 settings played")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: search.pseudo_bayes(0, 10), "dimension=0: at least 1"),
        (lambda: search.pseudo_bayes(2, 4, first=9), "first=9 points are more than the budget of 4"),
        (lambda: SEARCH.tell(filled(2)[0], jnp.ones((1, 3)), jnp.ones(1)), "on a cube of 2 dimensions"),
        (lambda: space.check({}), "a space of no settings"),
        (lambda: space.check({"rate": search.Real(1.0, 0.1)}), "rate: low=1.0 is not below high=0.1: swap them"),
        (lambda: space.check({"rate": search.Real(1.0, 1.0)}), "rate: low=1.0 is not below"),
        (lambda: space.check({"rate": search.Real(0.0, 1.0, log=True)}), "rate: low=0.0 with log=True"),
        (lambda: space.check({"rate": search.Real(0.0, np.inf)}), "both must be finite"),
        (lambda: space.check({"n": search.Integer(1, 2.5)}), "n: low=1, high=2.5: whole numbers"),
        (lambda: space.check({"o": search.Choice(("a",))}), "o: values=('a',): two or more"),
        (lambda: search.encoded({"n": search.Integer(1, 3)}, {"n": [9]}), "n=9: outside of what is searched, 1 to 3"),
        (lambda: search.encoded({"n": search.Integer(1, 3)}, {"m": [2]}), "settings ['m']: give ['n'], and no others"),
        (lambda: search.encoded({"n": search.Integer(1, 3)}, {"n": [2.5]}), "n=2.5: a whole number from 1 to 3"),
        (lambda: search.encoded({"x": search.Real(0, 1)}, {"x": 0.5}), "give a list of as many for each name"),
        (
            lambda: search.minimize(
                {"x": search.Real(0, 1)}, lambda s: np.ones(3), budget=2, key=jax.random.key(0)
            ),
            "values of shape (3,) for 1 settings",
        ),
        (
            lambda: search.minimize(
                {"x": search.Real(0, 1)}, lambda s: s["x"], budget=2, key=jax.random.key(0), constrained=True
            ),
            "no pair of values and excess",
        ),
        (
            lambda: search.minimize(
                {"x": search.Real(0, 1)}, lambda s: s["x"], budget=1, key=jax.random.key(0), start={"x": [0.1, 0.2]}
            ),
            "budget=1: below the 2 settings of start=",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(call, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        call()
    assert "\n" not in str(error.value)


def test_one_dimension_and_a_failed_play():
    found = search.minimize(
        {"x": search.Real(-1, 1)}, lambda s: np.where(s["x"] < 0, np.nan, (s["x"] - 0.4) ** 2), budget=16,
        key=jax.random.key(0),
    )  # fmt: skip
    assert abs(found.chosen["x"] - 0.4) < 0.1
    assert "of them failed" in found.words()


def test_where_there_are_few_settings_each_is_played_once():
    """Two minima, and the better one alone in its cell: only who plays all cells finds it."""
    over = {"n": search.Integer(1, 5), "which": search.Choice(((64,), (32, 32), None))}
    played = []

    def play(settings):
        played.extend(zip(settings["n"].tolist(), settings["which"].tolist(), strict=True))
        hidden = np.array([which == (32, 32) for which in settings["which"]])
        return np.where(hidden & (settings["n"] == 5), -1.0, (settings["n"] - 2) ** 2 / 9.0)

    found = search.minimize(over, play, budget=15, key=jax.random.key(0))
    assert len(set(played)) == 15
    assert (found.chosen["n"], found.chosen["which"]) == (5, (32, 32))


def test_choices_of_several_kinds_stay_what_they_are():
    over = {"m": search.Choice(("sqrt", 4)), "flag": search.Choice((False, 0.5))}
    settings = search.decoded(over, np.array([[1.0, 0, 1, 0], [0, 1, 0, 1]]))
    assert settings["m"].tolist() == ["sqrt", 4]
    assert [type(value) for value in settings["flag"]] == [bool, float]


def test_small_differences_of_large_values_are_seen():
    found = search.minimize(
        {"x": search.Real(0, 1)}, lambda s: 1e6 + 0.05 * (s["x"] - 0.4) ** 2, budget=12, key=jax.random.key(0)
    )
    assert found.row == found.values.argmin()
    assert abs(found.chosen["x"] - 0.4) < 0.05


def test_a_value_that_exploded_is_no_worse_than_one_that_is_not_there():
    told, x, y = filled(12)
    asked = [
        ASK(TELL(told, x, y.at[3].set(value), 0.0), jax.random.key(5)) for value in (1e3, 1e25)
    ]  # fmt: skip
    np.testing.assert_array_equal(*asked)
    good = TELL(told, x, y, 0.0)
    assert np.abs(asked[0] - ASK(good, jax.random.key(5))).max() < 0.5  # and the others are still told apart


def test_the_first_allowed_point_is_a_success():
    bound = search.pseudo_bayes(2, 8, first=1, constrained=True, candidates=3)
    told = bound.init(jax.random.key(0))
    told = bound.tell(told, jnp.full((3, 2), 0.5), jnp.zeros(3), jnp.ones(3))
    told = bound.tell(told, jnp.full((1, 2), 0.4), jnp.zeros(1), jnp.full(1, 0.5))  # less beyond
    told = bound.tell(told, jnp.full((1, 2), 0.3), jnp.full(1, 9.0), jnp.full(1, -0.5))  # allowed, whatever its value
    assert (int(told.successes), int(told.failures)) == (2, 0)
    told = bound.tell(told, jnp.full((1, 2), 0.3), jnp.full(1, 9.0), jnp.full(1, -0.5))
    assert (int(told.successes), int(told.failures)) == (0, 1)
