"""Ensembles whose members lack features: a member never reads what it lacks, and what is left is plain averaging."""

import functools

import jax
import numpy as np
import pytest

from jaxfair import data, metrics, models, recipes, study

pytestmark = pytest.mark.usefixtures("compiled_once")

SENSITIVE = ("race", "sex")
LACKS = {0: (1, 2), 1: (3,), 2: (1, 2, 3)}
QUIET = {"batch_size": 64, "learning_rate": 0.01, "progress": False}


@functools.cache
def people():
    """Pay depends on all columns, which are an age, two indicators of race, and a sex."""
    rng = np.random.default_rng(0)
    race, sex = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    x = np.stack([rng.normal(size=500), race, 1 - race, sex], axis=1)
    y = x[:, 0] + race - sex + 0.5 * rng.normal(size=500) > 0
    return data.dataset(x, y, race, name="people", feature_names=["age", "race=a", "race=b", "sex"])


MODEL = models.mlp(2, hidden=(6,))


@functools.cache
def found():
    return recipes.fixout(MODEL, people(), SENSITIVE, seeds=2, epochs=4, **QUIET)


def probability(model, network):
    return lambda x: jax.nn.softmax(model.apply(*network, x, train=False)[0])[:, 1]


def explain(network):
    """Shapley values ``[N, P]`` of an ensemble."""
    test, player = people().test.x, metrics.players(people().feature_names).player
    # Coalition by coalition: the rounding of a row may depend on its place in a batch.
    options = {"player": player, "batch_size": 1}
    return metrics.shapley(probability(found().model, network), test[:9], test[9:20], **options).values


@functools.cache
def explained():
    """Those of the members ``[S, M, N, P]``, each an ensemble of one."""
    alone = jax.tree.map(lambda leaf: leaf[:, :, None], (found().params, found().model_state))
    return jax.jit(jax.vmap(jax.vmap(explain)))(alone)


@pytest.mark.slow
def test_a_dropped_feature_is_worth_exactly_nothing_in_its_member():
    size = np.abs(explained()).mean(axis=2)  # [S, M, P], of age, race, sex
    assert (size[:, 0, 1] == 0).all()
    assert (size[:, 1, 2] == 0).all()
    assert (size[:, 2, 1:] == 0).all()
    read = [size[:, 0, [0, 2]], size[:, 1, [0, 1]], size[:, 2, [0]]]
    assert min(part.min() for part in read) > 0.01


@pytest.mark.slow
def test_the_values_of_the_ensemble_are_the_mean_of_its_members():
    whole = jax.jit(jax.vmap(explain))((found().params, found().model_state))
    np.testing.assert_allclose(whole, explained().mean(axis=1), atol=1e-6)


@pytest.mark.slow
def test_probabilities_are_averaged():
    network = jax.tree.map(lambda a: a[0], (found().params, found().model_state))
    x = people().test.x
    told = np.zeros(len(x))
    for m, lacking in LACKS.items():
        seen = np.array(x)
        seen[:, lacking] = 0
        params = jax.tree.map(lambda a, m=m: a[m], network[0])
        told += np.asarray(jax.nn.softmax(MODEL.apply(params, {}, seen, train=False)[0])[:, 1]) / 3
    np.testing.assert_allclose(probability(found().model, network)(x), told, atol=1e-6)
    np.testing.assert_array_equal(found().predict(people().test)[0], told > 0.5)


def test_what_a_member_lacks_it_is_not_trained_on():
    """Its weights are where they began, and those of other columns are not."""
    kernel = np.asarray(found().params["Dense_0"]["kernel"])
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)
    begun = np.asarray(MODEL.init(key, people().test.x[:1])[0]["Dense_0"]["kernel"])
    moved = (kernel[0, 0] != begun).any(axis=1)
    assert moved.tolist() == [True, False, False, True]
    # Members and seeds begin apart: of what neither is trained on, the weights differ.
    for one, other in ((kernel[0, 0, 1], kernel[0, 2, 1]), (kernel[0, 1, 3], kernel[0, 2, 3])):
        assert not np.array_equal(one, other)
    assert not np.array_equal(kernel[0, 0, 1], kernel[1, 0, 1])


@pytest.mark.slow
def test_a_member_that_lacks_nothing_is_the_dense_network():
    options = {"seeds": [3], "epochs": 3, **QUIET}
    dense = recipes.dense(MODEL, people(), **options)
    pair = recipes.ensemble(MODEL, people(), [(), ()], **options)
    mine = jax.tree.map(lambda a: a[:, 0], pair.params)
    for one, other in zip(jax.tree.leaves(mine), jax.tree.leaves(dense.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)  # lanes differ in their last digits
    assert not np.allclose(pair.params["Dense_0"]["kernel"][0, 0], pair.params["Dense_0"]["kernel"][0, 1])


@pytest.mark.slow
def test_it_is_pruned_as_any_other_and_its_masks_hold():
    sparse = recipes.prune(found().model, people(), found(), sparsity=0.5, epochs=2, batch_size=64, progress=False)
    assert sparse.params["Dense_0"]["kernel"].shape == (2, 3, 4, 6)
    assert (np.asarray(sparse.params["Dense_0"]["kernel"]) == 0).sum(axis=(1, 2, 3)).min() >= 36
    np.testing.assert_array_equal(sparse.model_state["kept"], found().model_state["kept"])
    member = jax.tree.map(lambda a: a[0, 2:], (sparse.params, sparse.model_state))
    x = np.array(people().test.x)
    before, x[:, 1:] = probability(sparse.model, member)(x), 1 - x[:, 1:]
    np.testing.assert_array_equal(probability(sparse.model, member)(x), before)


@pytest.mark.slow
def test_a_folder_holds_one_ensemble_and_of_one_feature_that_is_one_network(tmp_path):
    options = {"seeds": 1, "epochs": 2, "folder": tmp_path, **QUIET}
    first = recipes.fixout(MODEL, people(), ["sex"], **options)
    assert first.model_state["kept"].tolist() == [[[True, True, True, False]]]
    again = recipes.fixout(MODEL, people(), ["sex"], **options)
    assert again.digest() == first.digest()
    assert [(row["seed"], row["member"], row["epoch"]) for row in again.history] == [(0, 0, 0), (0, 0, 1)]
    with pytest.raises(study.FolderError, match="drop"):
        recipes.fixout(MODEL, people(), ["race"], **options)


@pytest.mark.slow
def test_a_member_that_diverges_spoils_its_ensemble():
    with pytest.warns(UserWarning, match="fixout: the loss was not finite, of seed 0 at step"):
        bad = recipes.fixout(MODEL, people(), SENSITIVE, seeds=1, epochs=2, **{**QUIET, "learning_rate": 1e38})
    assert bad.failed_at[0] >= 0
    assert (bad.predict(people().test) == -1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recipes.fixout(MODEL, people(), "sex"), "sensitive='sex': give the names of at least one"),
        (lambda: recipes.fixout(MODEL, people(), []), "sensitive=.* at least one"),
        (lambda: recipes.fixout(MODEL, people(), ["sex", "sex"]), "each once"),
        (lambda: recipes.fixout(MODEL, people(), ["gender"]), "'gender' is no feature of people: .* age, race, sex"),
        (lambda: recipes.ensemble(MODEL, people(), ["sex"]), "drop=.*: give for each member a sequence"),
        (lambda: recipes.ensemble(MODEL, people(), []), "drop=.*: give for each member a sequence"),
        (lambda: recipes.ensemble(MODEL, people(), [("age", "race", "sex")]), "leaves no feature of people"),
        (lambda: recipes.ensemble(models.mlp(10), data.load("digits"), [()]), "features of digits have no names"),
        (lambda: recipes.ensemble(MODEL, people(), [()], epochs=0), "epochs=0"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
