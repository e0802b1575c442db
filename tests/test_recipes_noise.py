"""A bound below the noise is said before anything is trained."""

import jax
import numpy as np
import pytest

from jaxfair import data, metrics, recipes


def four(people=6000, **options):
    """A table in four groups of equal size."""
    number = np.arange(people)
    return data.dataset(np.ones((people, 1)), number % 2, number // 2 % 4, group_names=["a", "b", "c", "d"], **options)


def test_a_table_of_6000_people_in_four_groups_at_one_point():
    chance, small = recipes.noise(four(), 0.01, changed=0.19)
    assert chance == (
        "a bound of 1 point is below the noise on train: where 19 % of people change, the largest gap is about "
        "1.4 points by chance alone"
    )
    assert small.startswith(
        "groups too small to be judged on test at a tolerance of 1 point, if 19 % of them change: a "
    )
    # At ten points nothing is said; without a bound neither.
    assert recipes.noise(four(), 0.1, changed=0.19) == []
    assert recipes.noise(four(), None) == []
    assert recipes.noise(four(), np.float32(0.1)) == []


def test_who_is_too_small_is_named_with_the_number_it_would_take():
    size = np.array([2000] * 3 + [600])
    group = np.repeat(["north", "south", "west", "a"], size)
    mine = data.dataset(np.ones((len(group), 1)), np.arange(len(group)) % 2, group)
    needed = int(metrics.people_needed(0.03, 0.05, groups=4))
    (line,) = recipes.noise(mine, 0.03)
    assert line == (
        "groups too small to be judged on test at a tolerance of 3 points, if 5 % of them change: a (120 people; about "
        "350 would be needed)"
    )
    assert needed == pytest.approx(350, rel=0.05)
    # Of a group without a bound nothing is said.
    free = data.dataset(np.ones((len(group), 1)), np.arange(len(group)) % 2, group, unconstrained="a")
    assert recipes.noise(free, 0.03) == []


def test_the_noise_is_that_of_the_null():
    dataset = four(people=2000)
    rng = np.random.default_rng(0)
    after = rng.random(len(dataset.train.y)) > 0.05
    null = metrics.sign_flip_null(np.ones(len(after), bool), after, dataset.train.group, 4, key=jax.random.key(1))
    said = float(recipes.noise(dataset, 0.001)[0].split("about ")[1].split()[0]) / 100
    assert said == pytest.approx(null.mean, rel=0.15)


def test_edges():
    assert "no number would be enough" in recipes.noise(four(), 0.0)[-1]
    many = np.arange(4000)
    mine = data.dataset(np.ones((4000, 1)), many % 2, np.char.add("g", (many // 2 % 20).astype(str)))
    assert recipes.noise(mine, 0.02)[-1].endswith("; and 15 more")
    # Nobody has a bound: nobody is judged.
    assert recipes.noise(four(unconstrained=("a", "b", "c", "d")), 0.01) == []


def test_a_name_is_one_line_and_one_person_is_a_person():
    group = np.array(["two\nlines"] * 5 + ["[red]"] * 995)
    mine = data.dataset(np.ones((1000, 1)), np.arange(1000) % 2, group, split_seed=3)
    assert mine.group_sizes()["test"].min() == 1
    said = recipes.noise(mine, 0.02)[-1]
    assert r"two\nlines (1 person; about " in said
    assert "\n" not in said
