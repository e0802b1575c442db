"""Numbers of a recipe, chosen on validation by a search: the rule, failures, going on. Nothing is trained here."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import data, recipes, search, study
from jaxfair.typing import Batch, Model

OVER = {"bias": search.Real(-1.0, 1.0)}
#: Accuracy is best at 0.4; beyond 0.3 group b loses more than the others do.
X = np.linspace(-1, 1, 300, dtype=np.float32)[:, None]


@pytest.fixture(scope="module")
def people():
    """Who is positive has x above -0.4; in group b everybody is, and their x lies between -0.4 and -0.3."""
    split = np.tile(["train", "validation", "test"], 100)
    group = np.where((X[:, 0] > -0.4) & (X[:, 0] < -0.3), "b", "a")
    return data.dataset(X, np.where(X[:, 0] > -0.4, 1, 0), group, split=split)


def apply(params, state, x, *, train, key=None):
    side = x[:, 0] + params["bias"]
    return jnp.stack([-side, side], -1), state


MODEL = Model(lambda key, x: ({"bias": jnp.zeros(())}, {}), apply, lambda path: True)


def network(bias, seeds=2):
    return recipes.networks({"bias": jnp.full(seeds, bias)}, several=True, model=MODEL)


DENSE = network(0.4)


def played():
    """A recipe that trains nothing, and what it was asked."""
    asked = []

    def play(setting):
        asked.append(setting["bias"])
        return network(setting["bias"])

    return play, asked


def test_the_most_accurate_on_validation_that_meets_the_bound_is_chosen(people):
    play, asked = played()
    found = recipes.tuned(play, OVER, people, DENSE, budget=16, start={"bias": [0.0]})
    assert asked[0] == 0.0
    assert len(asked) == 16
    assert found.met
    assert found.accuracy.max() == found.accuracy[asked.index(found.chosen["bias"])]
    assert abs(found.chosen["bias"] - 0.4) < 0.1
    np.testing.assert_array_equal(found.networks.params["bias"], np.float32(found.chosen["bias"]))
    # A bound that the most accurate would not meet: of group b nobody may be lost, who are lost from 0.3 on.
    strict = recipes.tuned(play, OVER, people, DENSE, budget=16, bound=recipes.ceag(0.01), start={"bias": [0.0]})
    assert strict.met
    allowed = strict.over <= 0
    assert not allowed.all()
    assert strict.accuracy[strict.settings["bias"] == strict.chosen["bias"]][0] == strict.accuracy[allowed].max()


def test_where_no_setting_meets_the_bound_the_least_excess_is_taken_and_said(people):
    play, _ = played()
    said = []
    low = {"bias": search.Real(-1.0, 0.0)}
    found = recipes.tuned(play, low, people, DENSE, budget=6, bound=recipes.ceag(0.0), say=said.append)
    assert not found.met
    assert found.over[found.settings["bias"] == found.chosen["bias"]][0] == found.over.min() > 0
    assert len(said) == 6
    assert all("on validation, the bound exceeded by" in line for line in said)


def test_a_setting_with_which_a_network_diverges_is_never_taken(people):
    play, _ = played()
    said = []

    def diverging(setting):
        networks = play(setting)
        return networks if setting["bias"] < 0.2 else dataclasses.replace(networks, failed_at=np.array([-1, 3]))

    found = recipes.tuned(diverging, OVER, people, DENSE, budget=6, say=said.append)
    assert found.chosen["bias"] < 0.2
    assert np.isnan(found.accuracy).any()
    assert any(line.endswith("a network diverged") for line in said)
    with pytest.raises(ValueError, match="with all 6 settings a network diverged"):
        recipes.tuned(lambda s: dataclasses.replace(play(s), failed_at=np.array([0, 0])), OVER, people, DENSE, budget=6)


def test_a_search_that_was_stopped_goes_on_and_another_one_is_refused(people, tmp_path):
    play, asked = played()
    whole = recipes.tuned(play, OVER, people, DENSE, budget=6, folder=tmp_path / "whole")

    class Killed(Exception):
        pass

    def killed(setting):
        if len(asked) == 6 + 3:
            raise Killed
        return play(setting)

    with pytest.raises(Killed):
        recipes.tuned(killed, OVER, people, DENSE, budget=6, folder=tmp_path / "half")
    before = len(asked)
    again = recipes.tuned(play, OVER, people, DENSE, budget=6, folder=tmp_path / "half")
    assert again.chosen == whole.chosen
    np.testing.assert_array_equal(again.accuracy, whole.accuracy)
    np.testing.assert_array_equal(again.networks.params["bias"], whole.networks.params["bias"])
    assert len(asked) - before in (3, 4)  # the three that were missing, and the best again if it was among the others
    with pytest.raises(study.FolderError, match="budget is 6 there and 7 here"):
        recipes.tuned(play, OVER, people, DENSE, budget=7, folder=tmp_path / "half")


def test_without_validation_nothing_can_be_compared(people):
    play, asked = played()
    nobody = people.validation._replace(**{name: getattr(people.validation, name)[:0] for name in Batch._fields})
    alone = dataclasses.replace(people, validation=nobody)
    with pytest.raises(ValueError, match="no validation split"):
        recipes.tuned(play, OVER, alone, DENSE)
    assert not asked


def test_where_settings_tie_the_networks_are_those_of_the_chosen_one(people):
    play, _ = played()
    low = {"bias": search.Real(-0.1, 0.29)}
    found = recipes.tuned(play, low, people, DENSE, budget=6, bound=recipes.accuracy_gap(0.0))
    np.testing.assert_array_equal(found.networks.params["bias"], np.float32(found.chosen["bias"]))
    worst = found.over == found.over.min()
    assert worst.sum() > 1  # they tie
    assert found.accuracy[found.row] == found.accuracy[worst].max()


def test_a_dense_network_that_diverged_has_no_part(people):
    play, _ = played()
    half = dataclasses.replace(DENSE, failed_at=np.array([-1, 3]))
    found = recipes.tuned(
        lambda s: dataclasses.replace(play(s), failed_at=np.array([-1, 3])), OVER, people, half, budget=6
    )
    assert np.isfinite(found.accuracy).all()
    none = dataclasses.replace(DENSE, failed_at=np.array([1, 3]))
    with pytest.raises(ValueError, match="all dense networks diverged"):
        recipes.tuned(play, OVER, people, none, budget=6)


def test_a_recipe_that_is_another_one_is_refused_and_nothing_need_be_played_again(people, tmp_path):
    play, asked = played()
    options = {"budget": 6, "folder": tmp_path, "facts": {"sparsity": 0.5}}
    recipes.tuned(play, OVER, people, DENSE, **options)
    before = len(asked)
    again = recipes.tuned(play, OVER, people, DENSE, **options, deliver=False)
    assert again.networks is None
    assert len(asked) == before
    with pytest.raises(study.FolderError, match="facts is"):
        recipes.tuned(play, OVER, people, DENSE, **options | {"facts": {"sparsity": 0.9}})
    log = tmp_path / "settings.jsonl"
    lines = log.read_text().splitlines()
    lines[2] = lines[3]
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(study.FolderError, match="line 3 was played with"):
        recipes.tuned(play, OVER, people, DENSE, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"travel": -1.0}, "travel=-1.0: give a number above 0"),
        ({"travel": float("nan")}, "travel=nan: give a number above 0"),
        ({"rate": 0.1, "travel": 50.0}, "rate=0.1, travel=50.0: travel is of the rule that rate replaces"),
    ],
)
def test_a_travel_that_cannot_be_is_one_line(options, says):
    with pytest.raises(ValueError, match=says):
        recipes.ceag(0.01, **options)
