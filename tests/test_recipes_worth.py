"""What networks are worth: one function of predictions, and a rule of recommendation that never looks at test."""

import csv
import dataclasses
import io
import itertools
import json
import math

import numpy as np
import pytest

from jaxfair import data, recipes, sparsity
from jaxfair.constraints import rates

SPLIT = ["train"] * 10 + ["validation"] * 10 + ["test"] * 10


def mine(**options):
    """Thirty people, ten in each split, two of ten in group b."""
    y, group = np.array([0, 1] * 15), np.array((["a"] * 8 + ["b"] * 2) * 3)
    return data.dataset(np.ones((30, 1)), y, group, split=SPLIT, **options)


def truth(dataset, networks=1):
    return {name: np.stack([split.y] * networks) for name, split in dataset.splits.items()}


def with_errors(dataset, wrong):
    """Networks that are wrong about these places of these splits."""
    after = truth(dataset, len(wrong))
    for network, of in enumerate(wrong):
        for split, places in of.items():
            after[split][network, places] = 1 - after[split][network, places]
    return after


def test_a_row_has_what_was_lost_on_every_split():
    dataset = mine()
    after = with_errors(dataset, [{"train": [9], "test": [0, 1]}])
    (row,) = recipes.worth(dataset, truth(dataset), after, bound=recipes.ceag(0.5), seeds=[3])
    assert row["file"] == "ceag_seed3.safetensors"
    assert (row["seed"], row["failed_at"], row["bound_met"], row["recommended"]) == (3, -1, True, True)
    # b lost one of two, everybody one of ten; on test a lost two of eight, everybody two of ten.
    assert row["largest_gap_train"] == pytest.approx(0.4)
    assert row["violation_train"] == pytest.approx(-0.1, abs=2e-6)  # the last digit of a float32 mean is forgiven
    assert (row["worst_group_train"], row["worst_group_test"]) == ("b", "a")
    assert row["largest_loss_train"] == pytest.approx(0.5)
    assert row["largest_gap_test"] == pytest.approx(0.05)
    assert (row["accuracy_dense_train"], row["accuracy_train"], row["accuracy_test"]) == (1.0, 0.9, 0.8)
    # Who was right about everybody has lost whatever changed.
    for kind in ("changed", "newly_wrong"):
        assert (row[f"{kind}_train"], row[f"{kind}_test"]) == pytest.approx((0.1, 0.2))
        assert (row[f"largest_{kind}_train"], row[f"largest_{kind}_test"]) == pytest.approx((0.5, 0.25))
    assert all(type(value) in (bool, int, float, str) for value in row.values())


def test_a_gap_of_exactly_the_tolerance_meets_it_as_in_training():
    y, group = np.zeros(84, int), np.repeat(["a", "b", "a", "b"], [40, 40, 2, 2])
    y[::2] = 1
    dataset = data.dataset(np.ones((84, 1)), y, group, split=["train"] * 80 + ["validation"] * 4)
    after = with_errors(dataset, [{"train": [40, 41, 42, 43]}])
    for tolerance in (0.05, np.float32(0.05), 0.04999):
        (row,) = recipes.worth(dataset, truth(dataset), after, bound=recipes.ceag(tolerance))
        assert row["bound_met"] == (tolerance >= 0.05)


@pytest.mark.parametrize("bound", [recipes.ceag, recipes.accuracy_gap])
def test_a_group_of_which_one_person_is_more_than_the_tolerance_is_allowed_one(bound):
    """And of people that count by weights, one of them, whatever the weights sum to."""
    y, group = np.arange(64) % 2, np.repeat(["a", "b", "a", "b"], [50, 10, 2, 2])
    dataset = data.dataset(np.ones((64, 1)), y, group, split=["train"] * 60 + ["validation"] * 4)
    after = with_errors(dataset, [{"train": [50]}, {"train": [50, 51]}])
    one, two = recipes.worth(dataset, truth(dataset, 2), after, bound=bound(0.01))
    assert (one["bound_met"], two["bound_met"]) == (True, False)
    for weight in (2, 1 / 60):
        same = dataclasses.replace(dataset, train=dataset.train._replace(weight=np.full(60, weight, np.float32)))
        one, two = recipes.worth(same, truth(same, 2), after, bound=bound(0.01))
        assert (one["bound_met"], two["bound_met"]) == (True, False)


def test_each_group_has_its_own_tolerance():
    y, group = np.arange(204) % 2, np.repeat(["a", "b", "a", "b"], [100, 100, 2, 2])
    dataset = data.dataset(np.ones((204, 1)), y, group, split=["train"] * 200 + ["validation"] * 4)
    after = with_errors(dataset, [{"train": range(100, 110)}])
    for tolerance, met in (([0.01, 0.2], True), ([0.2, 0.01], False)):
        bound = recipes.accuracy_gap(tolerance)
        (row,) = recipes.worth(dataset, truth(dataset), after, bound=bound)
        lines = recipes.why(dataset, truth(dataset), after, bound=bound)
        assert (row["bound_met"], bool(lines)) == (met, not met)
        assert all("seed 0, b: " in line for line in lines)
        assert recipes.noise(dataset, tolerance)[0].startswith("a bound of 1 point is below ")
    with pytest.raises(ValueError, match=r"tolerance=\[0.1\]: give one share .* for each of the 2\."):
        recipes.worth(dataset, truth(dataset), after, bound=recipes.ceag([0.1]))


def test_a_row_says_whose_network_it_is():
    dataset = mine()
    after = truth(dataset, 2)
    rows = recipes.worth(dataset, after, after, bound=recipes.ceag(0.1), naive=np.array([False, True]))
    assert [row["naive"] for row in rows] == [False, True]
    assert [row["naive"] for row in recipes.worth(dataset, after, after)] == [False, False]
    read = csv.DictReader(io.StringIO(recipes.as_csv(rows)))
    assert [row["naive"] for row in read] == ["False", "True"]


def test_what_the_bound_is_on_says_whether_it_is_met():
    dataset = mine()
    after = with_errors(dataset, [{"train": [0, 1, 2, 3, 8]}])  # all lose half: no excess
    for bound, met in ((recipes.ceag(0.1), True), (recipes.accuracy_gap(0.1), False), (None, None)):
        (row,) = recipes.worth(dataset, truth(dataset), after, bound=bound)
        assert row["bound_met"] is met
        assert row["recommended"]
    (row,) = recipes.worth(dataset, truth(dataset), after, tolerance=0.1)
    assert (row["method"], row["bound_met"]) == ("nft", True)


def test_a_bound_on_rates_is_measured_by_the_bound():
    dataset = mine()
    selecting = truth(dataset)["train"].copy()
    selecting[0, :8], selecting[0, 8:] = 1, 0  # everybody of a is selected, nobody of b
    bound = recipes.rates(lambda groups: rates.demographic_parity(0.3, num_groups=groups))
    after = {"train": np.concatenate([truth(dataset)["train"], selecting])}
    good, bad = recipes.worth(dataset, truth(dataset, 2), after, bound=bound)
    assert (good["bound_met"], bad["bound_met"]) == (True, False)
    assert bad["violation_train"] > 0 > good["violation_train"]


def test_a_bound_on_churn_is_met_by_who_changes_nothing_right_or_wrong():
    """The networks before are wrong about two of a, of whom one person is an eighth: a network that repairs both has
    changed as much as one that makes two errors. One of b is half of it, and what a group is allowed at least."""
    dataset = mine()
    before = with_errors(dataset, [{"train": [0, 1]}] * 3)
    after = {"train": np.concatenate([before["train"][:1], truth(dataset)["train"], before["train"][:1]])}
    after["train"][2, 9] ^= 1
    rows = recipes.worth(dataset, before, after, bound=recipes.churn(0.125), method="churn")
    assert [row["bound_met"] for row in rows] == [True, False, True]
    assert [row["violation_train"] for row in rows] == pytest.approx([-0.125, 0.125, 0.0], abs=1e-5)
    assert [row["changed_train"] for row in rows] == pytest.approx([0.0, 0.2, 0.1])
    assert [row["newly_wrong_train"] for row in rows] == pytest.approx([0.0, 0.0, 0.1])
    assert [row["largest_newly_wrong_train"] for row in rows] == pytest.approx([0.0, 0.0, 0.5])
    assert [row["recommended"] for row in rows] == [True, False, False]
    assert "the bound is met on train by 2 of 3 networks" in recipes.to_ship(rows)
    free = dataclasses.replace(dataset, constrained=np.array([False, True]))
    assert all(row["bound_met"] for row in recipes.worth(free, before, after, bound=recipes.churn(0.125)))


def test_a_split_without_anybody_who_is_bound_has_no_gap():
    dataset = mine(unconstrained=("a", "b"))
    after = with_errors(dataset, [{"train": [0]}])
    (row,) = recipes.worth(dataset, truth(dataset), after, bound=recipes.ceag(0.1))
    assert math.isnan(row["largest_gap_train"])
    assert math.isnan(row["largest_changed_train"])
    assert row["changed_train"] == pytest.approx(0.1)
    assert row["worst_group_train"] == ""
    assert row["bound_met"] is False
    # Splits without people have no columns.
    y, group = np.array([0, 1] * 5), np.array(["a"] * 9 + ["b"])
    alone = data.dataset(np.ones((10, 1)), y, group, split=["train"] * 10)
    right = {"train": alone.train.y[None]}
    (row,) = recipes.worth(alone, right, right, bound=recipes.ceag(0.1))
    assert not any(name.endswith("_test") for name in row)
    assert "80" not in recipes.to_ship([row])
    assert "the best accuracy on train, 100.00 %" in recipes.to_ship([row])


def rows_of(**columns):
    """Rows with these columns, of three seeds."""
    base = {"method": "ceag", "failed_at": -1, "bound_met": True, "violation_train": -0.01, "accuracy_validation": 0.5}
    return [
        {**base, "seed": seed, "file": f"ceag_seed{seed}.safetensors", **{k: v[seed] for k, v in columns.items()}}
        for seed in range(3)
    ]


@pytest.mark.parametrize(
    ("columns", "best", "said"),
    [
        ({"accuracy_validation": (0.8, 0.9, 0.7)}, 1, "by 3 of 3 networks; of those it has the best accuracy on valid"),
        ({"accuracy_validation": (0.8, 0.9, 0.7), "bound_met": (True, False, True)}, 0, "by 2 of 3 networks"),
        ({"accuracy_validation": (0.8, 0.8, 0.8)}, 0, "ceag_seed0"),
        ({"accuracy_validation": (0.8, 0.9, 0.7), "failed_at": (-1, 7, -1), "bound_met": (True, False, True)}, 0,
         "by 2"),
        ({"bound_met": (False,) * 3, "violation_train": (0.02, 0.005, 0.01), "accuracy_validation": (1.0, 0.1, 0.9)}, 1,
         "none as it is; no network of 3 met the bound on train. The nearest is ceag_seed1.safetensors, 0.50 points"),
        ({"bound_met": (None,) * 3, "violation_train": (math.nan,) * 3, "accuracy_validation": (0.1, 0.2, 0.3)}, 2,
         "no bound was asked for"),
        ({"failed_at": (1, 2, 3), "bound_met": (False,) * 3}, None, "none; all 3 networks failed"),
        ({"bound_met": (False,) * 3, "violation_train": (math.nan, 0.5, math.nan)}, 1, "50.00 points"),
    ],
)  # fmt: skip
def test_the_rule_of_recommendation(columns, best, said):
    rows = recipes.recommend(rows_of(**columns))
    assert [row["seed"] for row in rows if row["recommended"]] == ([] if best is None else [best])
    assert said in recipes.to_ship(rows)


def test_the_test_split_and_the_order_of_rows_are_never_looked_at():
    rows = rows_of(accuracy_validation=(0.8, 0.9, 0.9))
    for accuracies in itertools.permutations((0.1, 0.5, 1.0)):
        tested = [
            row | {"accuracy_test": a, "largest_gap_test": 1 - a} for row, a in zip(rows, accuracies, strict=True)
        ]
        for order in itertools.permutations(tested):
            assert [row["seed"] for row in recipes.recommend(order) if row["recommended"]] == [1]


def test_what_does_not_fit_is_said():
    dataset = mine()
    with pytest.raises(ValueError, match="1 and 2 networks"):
        recipes.worth(dataset, truth(dataset), truth(dataset, 2))
    with pytest.raises(ValueError, match="predictions of no split"):
        recipes.worth(dataset, {}, truth(dataset))


def test_one_that_predicts_nothing_has_failed():
    dataset = mine()
    after = {name: np.concatenate([y, np.full_like(y, -1)]) for name, y in truth(dataset).items()}
    good, bad = recipes.worth(dataset, truth(dataset, 2), after, bound=recipes.ceag(1.0))
    assert (good["failed_at"], bad["failed_at"]) == (-1, 0)
    assert (bad["file"], bad["bound_met"], bad["recommended"]) == ("", False, False)


def test_the_csv_has_numbers():
    dataset = mine()
    rows = recipes.worth(dataset, truth(dataset), truth(dataset))
    (read,) = csv.DictReader(io.StringIO(recipes.as_csv(rows)))
    assert read["bound_met"] == ""
    for name, value in rows[0].items():
        if isinstance(value, float):
            assert float(read[name]) == pytest.approx(value, nan_ok=True)


def test_facts_stand_in_the_file(tmp_path):
    two = dataclasses.replace(
        recipes.networks({"w": np.ones((2, 3), np.float32)}, several=True), epoch=np.array([7, 9])
    )
    paths = two.save(tmp_path, "ceag", facts=[{"gap_train": 0.01, "bound_met": b} for b in (True, None)])
    first, second = (sparsity.load(path).metadata for path in paths)
    assert (first["bound_met"], second["bound_met"], first["gap_train"]) == ("True", "", "0.01")
    assert (first["seed"], second["seed"], second["epoch"]) == ("0", "1", "9")
    assert first["jaxfair"]
    before = [path.read_bytes() for path in paths]
    two.save(tmp_path, "ceag", facts=[{"bound_met": b, "gap_train": 0.01} for b in (True, None)])
    assert [path.read_bytes() for path in paths] == before
    (shared, _) = two.save(tmp_path, "other", facts={"tolerance": 0.02})
    assert sparsity.load(shared).metadata["tolerance"] == "0.02"
    with pytest.raises(ValueError, match="facts of 1 networks for 2"):
        two.save(
            tmp_path,
            facts=[
                {},
            ][:1],
        )


def test_a_bound_on_rates_is_not_asked_of_one_that_failed():
    dataset = mine()
    bound = recipes.rates(lambda groups: rates.demographic_parity(0.3, num_groups=groups))
    after = {"train": np.concatenate([truth(dataset)["train"], np.full((1, 10), -1)])}
    good, bad = recipes.worth(dataset, truth(dataset, 2), after, bound=bound)
    assert (good["bound_met"], bad["bound_met"], bad["recommended"]) == (True, False, False)
    assert math.isnan(bad["violation_train"])


def test_a_file_says_what_it_takes_to_use_the_network(tmp_path):
    """The columns in their order, how they were scaled, and what the answers mean: the table is not shipped with it."""
    y, group = np.array(["repaid", "default"] * 15), np.array((["a"] * 8 + ["b"] * 2) * 3)
    path = tmp_path / "my.csv"
    ages = 20 + np.arange(30)
    rows = [f"{age},{2.5 * age},{g},{c}" for age, g, c in zip(ages, group, y, strict=True)]
    path.write_text("\n".join(["äge,pay,group,y", *rows]), encoding="utf-8")
    dataset = data.load(path, positive="repaid", standardize=True)
    rows = recipes.worth(dataset, truth(dataset), truth(dataset), bound=recipes.ceag(0.5))
    (file,) = recipes.ship(dataset, recipes.networks({"w": np.ones(3)}), rows, tmp_path)
    known = sparsity.load(file).metadata
    assert json.loads(known["class_names"]) == ["default", "repaid"]
    assert known["positive"] == "repaid"
    assert json.loads(known["feature_names"]) == ["äge", "pay"]
    mean, deviation = (np.array(json.loads(known[f"scaling_{name}"])) for name in ("mean", "deviation"))
    x = np.stack([ages, 2.5 * ages], 1)[dataset.rows["test"]]
    np.testing.assert_allclose((x - mean) / deviation, dataset.test.x, rtol=1e-5)


def test_what_is_shipped_says_what_it_does_to_new_people():
    """They are not looked at for the choice; whoever ships must know all the same."""
    dataset = dataclasses.replace(mine(), group_names=("a", "two\nlines"))
    after = with_errors(dataset, [{"test": [9]}])
    rows = recipes.worth(dataset, truth(dataset), after, bound=recipes.ceag(0.1))
    said = recipes.to_ship(rows)
    assert "met on train by 1 of 1 network;" in said
    assert said.endswith(
        r"; on test, which was not looked at for this: 90.00 %, largest gap +40.00 points (two\nlines)"
    )


def test_a_gap_of_nothing_is_not_shown_as_minus_nothing(capsys):
    row = {"epoch": 0, "loss": 0.5, "accuracy": 0.8, "max_gap": -1e-9, "max_multiplier": 0.0}
    with recipes.Progress(every=0) as screen:
        screen.of("ceag")(1, 2, [row])
    assert "largest gap 0.0 pt, multiplier 0.00" in capsys.readouterr().err
