"""Last-layer retraining: its convex problem against another solver, its subsets, its choice, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxfair import metrics, models, robust
from jaxfair.robust.last_layer import _balanced

RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
Z = (RNG.normal(size=(60, 4)) + 1.5 * np.eye(3, 4)[Y]) * [1, 10, 0.1, 1] + [0, 5, 0, -2]
#: And four rows of padding and of nobody's group, which may hold anything.
MORE = np.concatenate([Z, np.full((4, 4), np.nan)]), np.r_[Y, 0, 1, 2, 7], np.r_[Y, 0, -1, 9, 1]
SMALL = {"num_classes": 3, "num_groups": 3, "key": jax.random.key(0), "refits": 1}


def fitted(z=MORE[0], y=MORE[1], group=MORE[2], **options):
    how = {**SMALL, "strengths": (2.0,), "penalty": "l2", "weight": np.r_[np.ones(60), 0, 1, 1, 1], **options}
    return robust.last_layer(z, y, group, **how)


def standardised(z):
    return (z - z.mean(0)) / z.std(0)


def test_it_is_another_librarys_regression_on_the_same_data():
    """All groups are as many, so that the subset is everybody; the fold of the standardisation is undone here."""
    found = fitted()
    peer = LogisticRegression(C=1 / 2.0, tol=1e-9, max_iter=2000).fit(standardised(Z), Y)
    kernel = np.asarray(found.kernel) * Z.std(0)[:, None]
    np.testing.assert_allclose(kernel, peer.coef_.T, atol=2e-4)  # float32, and its steps
    bias = np.asarray(found.bias) + Z.mean(0) @ np.asarray(found.kernel)
    np.testing.assert_allclose(bias - bias.mean(), peer.intercept_ - peer.intercept_.mean(), atol=2e-4)
    said = np.asarray(jax.nn.softmax(Z @ found.kernel + found.bias[None]))
    np.testing.assert_allclose(said, peer.predict_proba(standardised(Z)), atol=2e-4)


def test_of_two_classes_the_squared_penalty_is_half_as_strong_as_that_on_one_logit():
    y = (Y > 0).astype(int)
    found = fitted(Z, y, Y, num_classes=2, weight=None)
    peer = LogisticRegression(C=2 / 2.0, tol=1e-9, max_iter=2000).fit(standardised(Z), y)
    kernel = np.asarray(found.kernel)
    np.testing.assert_allclose((kernel[:, 1] - kernel[:, 0]) * Z.std(0), peer.coef_[0], atol=2e-4)


def test_with_the_absolute_penalty_it_is_where_no_direction_descends():
    """The conditions of the optimum: the gradient is -s at what is not 0, and within s where it is."""
    strength = 5.0
    found = fitted(penalty="l1", strengths=(strength,), steps=1000)
    kernel = np.asarray(found.kernel, np.float64)
    said = np.asarray(jax.nn.softmax(Z @ kernel + np.asarray(found.bias)[None]))
    gradient = standardised(Z).T @ (said - np.eye(3)[Y])
    there = kernel != 0
    assert 0 < there.sum() < there.size
    np.testing.assert_allclose(gradient[there], -strength * np.sign(kernel[there]), atol=0.01)
    assert np.abs(gradient[~there]).max() <= strength + 0.01
    np.testing.assert_allclose((said - np.eye(3)[Y]).sum(0), 0, atol=0.01)  # the bias is free


def test_a_subset_has_as_many_of_each_group_as_the_smallest():
    group = jnp.array(RNG.permutation(np.repeat([0, 1, 2, 3], [40, 12, 5, 9])))  # of 3 groups, and nobody's
    drawn = jax.jit(jax.vmap(lambda key: _balanced(key, group, 3)))(jax.random.split(jax.random.key(0), 300))
    counts = jax.vmap(lambda one: jnp.bincount(group, one, length=4))(drawn)
    assert (np.asarray(counts) == [5, 5, 5, 0]).all()
    share = np.asarray(drawn.mean(0))[np.asarray(group) == 0]
    assert (np.abs(share - 5 / 40) < 5 * np.sqrt(5 / 40 * 35 / 40 / 300)).all()


@pytest.fixture(scope="module")
def spurious():
    """Half of the features decide; the other half go along with the class in 95 % of training, in half of test."""

    def drawn(number, agree):
        y = RNG.integers(0, 2, number)
        along = np.where(RNG.random(number) < agree, y, 1 - y)
        z = np.stack([2 * y - 1 + RNG.normal(size=number) * 0.7, 2 * along - 1 + RNG.normal(size=number) * 0.1], 1)
        return z, y, 2 * along + y

    return drawn(600, 0.95), drawn(2000, 0.5)


def worst(found, split):
    z, y, cell = split
    right = np.argmax(z @ np.asarray(found.kernel) + np.asarray(found.bias), axis=1) == y
    return float(np.min(metrics.group_means(right, cell, 4)))


@pytest.mark.slow
def test_it_does_what_it_is_for(spurious):
    """On everybody a layer leans on what goes along; balanced by cells it does not."""
    held, test = spurious
    options = {"num_classes": 2, "key": jax.random.key(1), "num_groups": 4, "strengths": (1.0, 10.0, 1e5), "refits": 4}
    found = robust.last_layer(*held, **options, penalty="l1", steps=200)
    plain = LogisticRegression().fit(*held[:2])
    coef, free = plain.coef_[0], plain.intercept_[0]
    alone = found._replace(kernel=np.stack([-coef, coef], 1), bias=np.array([-free, free]))
    assert worst(found, test) > worst(alone, test) + 0.2
    # What says nothing is not chosen: its worst group has no more than nobody.
    assert found.strength < 1e5
    assert found.worst.shape == (3,)
    assert found.worst.max() > found.worst[2]


def test_a_group_that_a_traced_split_lacks_is_not_a_number():
    groups = jnp.stack([jnp.asarray(MORE[2]), jnp.minimum(MORE[2], 1)])
    many = jax.jit(jax.vmap(lambda group: fitted(group=group, steps=5)))(groups)
    assert np.isfinite(many.kernel[0]).all()
    assert np.isnan(many.kernel[1]).all()


def test_the_new_layer_is_put_into_the_network():
    model = models.mlp(3, hidden=(4,))
    params, _ = model.init(jax.random.key(0), jnp.zeros((1, 5)))
    head = robust.LastLayer(jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), jnp.arange(3.0), jnp.ones(()), None)
    x = jnp.ones((2, 5))
    new = robust.with_head(params, model.split, head)
    z, _ = model.split.features(params, {}, x, train=False)
    np.testing.assert_allclose(
        model.apply(new, {}, x, train=False)[0], z @ head.kernel + head.bias[None], rtol=1e-5, atol=1e-6
    )
    assert new["Dense_0"] is not None
    jax.tree.map(np.testing.assert_array_equal, new["Dense_0"], params["Dense_0"])
    with pytest.raises(ValueError, match=r"the last layer has .*'Dense_1/kernel': \(4, 3\)"):
        robust.with_head(params, model.split, head._replace(kernel=jnp.ones((5, 3))))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"z": MORE[0][:, 0]}, "give \\[N, F\\], and one number for each of the N"),
        ({"y": MORE[1][:-1]}, "give \\[N, F\\]"),
        ({"penalty": "ridge"}, "penalty='ridge': choose one of 'l1', 'l2'"),
        ({"strengths": ()}, "give at least one number"),
        ({"strengths": (-1.0,)}, "none of them negative"),
        ({"refits": 0}, "refits=0"),
        ({"num_groups": 4}, "group 3 has 0 examples: 1 are needed"),
        (
            {"group": np.r_[np.zeros(59, int), [1] * 2, [-1] * 3], "num_groups": 2, "strengths": (1.0, 2.0)},
            "group 1 has 1 examples: 2 are needed, one for each half",
        ),
    ],
)
def test_bad_input_is_one_line(options, said):
    with pytest.raises(ValueError, match=said) as error:
        fitted(**options)
    assert "\n" not in str(error.value)


def test_classes_from_one_and_features_that_diverged_are_refused():
    z, y, group = np.ones((4, 2)), np.array([1, 2, 1, 2]), np.array([0, 0, 1, 1])
    more = {"num_classes": 2, "num_groups": 2, "key": jax.random.key(0), "strengths": (1.0,)}
    with pytest.raises(ValueError, match="class 0 has no example"):
        robust.last_layer(z, y, group, **more)
    with pytest.raises(ValueError, match="not finite"):
        robust.last_layer(np.full((4, 2), np.nan), y - 1, group, **more)
