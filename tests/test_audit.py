"""What compression did to each group: from arrays or networks, the same verdicts, and everything on a page."""

import dataclasses
import functools
import re

import numpy as np
import pandas as pd
import pytest

from experiments import balancing_act
from jaxfair import audit, data, metrics, models, recipes
from jaxfair.cli import flags

pytestmark = pytest.mark.usefixtures("drawn_once")

NUM = 3000


@functools.cache
def arrays():
    """Three groups; the networks after got a tenth of the second one wrong."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, NUM), rng.choice(["a", "<b>", "c"], NUM, p=[0.5, 0.4, 0.1])
    before = np.stack([np.where(rng.random(NUM) < 0.1, 1 - y, y) for _ in range(3)])
    harmed = (group == "<b>") & (rng.random((3, NUM)) < 0.1)
    after = np.where(harmed, 1 - y, before)
    return before, after, y, group


@pytest.mark.slow
def test_the_harmed_group_is_named_and_all_files_are_there(tmp_path):
    before, after, y, group = arrays()
    compared = audit.compare(before, {"pruned": after, "same": before}, y, group, tolerance=0.01)
    verdicts = {str(v).partition(",")[0]: v for v in compared.verdicts}
    assert verdicts["pruned"].state == "violated"
    assert "Violated: <b> (" in str(verdicts["pruned"])
    assert verdicts["same"].state != "violated"  # of 300 people who stayed, a point cannot be excluded
    path = compared.write(tmp_path, title="Mine & yours")
    written = {p.name for p in tmp_path.iterdir()}
    assert {"report.html", "table.md", "table.csv", "people.csv", "groups", "figures"} <= written
    page = path.read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "Mine &amp; yours" in page
    titles = re.findall(r"<h2>(.*?)</h2>|<summary>(.*?)</summary>", page)
    assert {"Figures", "Numbers", "Who is harmed", "The data"} <= {t for pair in titles for t in pair}
    table = pd.read_csv(tmp_path / "table.csv").set_index("method")
    gaps = [
        float(metrics.accuracy_gaps(b == y, a == y, codes(group), 3).max_excess)
        for b, a in zip(before, after, strict=True)
    ]
    assert table.loc["pruned", "largest gap"] == pytest.approx(np.mean(gaps), rel=1e-5)
    people = pd.read_csv(tmp_path / "people.csv")
    assert len(people) == (before != after).sum()
    assert set(people["group"]) == {"<b>"}
    one = people[(people["seed"] == 0) & (people["became"] == "wrong")]
    where = np.flatnonzero((before[0] == y) & (after[0] != y))
    assert one["row"].tolist() == where.tolist()


@pytest.mark.slow
def test_every_table_has_the_same_shares_of_changed_predictions(tmp_path):
    """Of three classes, so that a prediction may change and stay wrong; of two seeds and one that failed."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 3, NUM), rng.choice(["a", "b", "c"], NUM, p=[0.6, 0.3, 0.1])
    y, group = y, np.where(np.arange(NUM) < 9, "", group)  # nobody knows the group of nine people
    before = np.where(rng.random((3, NUM)) < 0.2, (y + 1) % 3, y)
    moved = rng.random((3, NUM)) < np.array([0.05, 0.1, 0.2, 0.4])[codes(group)]
    after = np.where(moved, (before + 1) % 3, before)
    after[2] = -1
    free = np.array([True, True, False])  # the group in which most changes has no bound
    found = audit.compare(before, {"pruned": after}, y, group, constrained=free, labels={"pruned": "pruned"})
    found.write(tmp_path)
    is_wrong = (before == y) & (after != y) & moved
    by_group = {
        name: [[kind[seed][group == g].mean() for g in "abc"] for seed in range(2)]
        for name, kind in (("changed", moved), ("newly wrong", is_wrong))
    }
    everybody = {"changed": moved[:2].mean(), "newly wrong": is_wrong[:2].mean()}
    table = pd.read_csv(tmp_path / "table.csv").set_index("method").loc["pruned"]
    text = found.shown()[0].frame.set_index("method")
    rows = pd.read_csv(tmp_path / "groups" / "pruned.csv").set_index("group")
    of_answer = found.answer().rows[1]
    short = dict(zip(found.answer().table().columns, found.answer().table().rows[1], strict=True))
    for name, shares in by_group.items():
        worst = np.mean([max(of[:2]) for of in shares])
        assert table[name] == pytest.approx(everybody[name], rel=1e-5)
        assert table[f"{name}, worst group"] == pytest.approx(worst, rel=1e-5)
        assert text.loc["pruned", name].startswith(f"{100 * everybody[name]:.1f} ± ")
        assert text.loc["before", name] == "–"
        assert rows.loc[["a", "b", "c"], name.replace(" ", "_")].tolist() == pytest.approx(np.mean(shares, axis=0))
        assert getattr(of_answer, name.replace(" ", "_")) == pytest.approx((everybody[name], worst), rel=1e-5)
        assert short[name] == f"{100 * everybody[name]:.1f} % ({100 * worst:.1f} %)"
        assert found.answer().table().rows[0][found.answer().table().columns.index(name)] == ""
    # The people who became wrong are those of people.csv.
    people = pd.read_csv(tmp_path / "people.csv")
    listed = people[(people["became"] == "wrong") & (people["seed"] < 2) & (people["group"] == "b")]
    assert len(listed) == pytest.approx(2 * (group == "b").sum() * rows.loc["b", "newly_wrong"])
    page = (tmp_path / "report.html").read_text()
    assert page.count("newly wrong") >= 3


def codes(group):
    return np.unique(group, return_inverse=True)[1]


def test_one_seed_numbers_as_groups_and_groups_without_a_bound():
    before, after, y, group = arrays()
    names = ["<b>", "a", "c"]
    one = audit.compare(
        before[0], after[0], y, codes(group), names=names, constrained=[False, True, True],
        split="people of 2026",
    )  # fmt: skip
    frame = one.found.frames["after"][0]
    assert frame["group"].tolist()[0] == "<b>"
    # The one that was harmed has no bound, so it is measured and counts in no largest gap.
    assert float(one.found.largest("after", "people of 2026")[0]) < 0
    assert "people of 2026" in str(one.verdicts[0])


def test_a_network_that_diverged_is_right_about_nobody_and_one_that_failed_is_left_out(tmp_path):
    before, after, y, group = arrays()
    lost = np.full_like(after, -1)
    found = audit.compare(before, lost, y, group).found
    assert (found.measured["after", "test"].accuracy == 0).all()
    failed = audit.Variant({"test": after}, np.array([True, False, True]))
    one = audit.compare(before, {"pruned": failed}, y, group)
    assert "failed in 1 of 3 seeds" in " ".join(one.remarks())
    text = one.shown()[0].frame
    assert text.loc[text["method"] == "pruned", "bound"].tolist() != ["–"]
    one.write_details(tmp_path)
    assert set(pd.read_csv(tmp_path / "people.csv")["seed"]) == {0, 2}  # of the seed that failed nobody became wrong
    none = audit.compare(before, {"pruned": failed._replace(ok=np.zeros(3, bool))}, y, group)
    assert none.shown()[0].frame["bound"].tolist()[-1] == "failed in all seeds"
    assert none.drawn() == []
    assert none.verdicts == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"after": np.zeros((3, 5), int)}, "predictions of shape"),
        ({"after": {}}, "after is empty"),
        ({"after": np.zeros(NUM, int)}, "after has 1 seeds and there are 3"),
        ({"group": None}, "group is missing"),
        ({"group": np.zeros(5, int)}, "group 5 and rows"),
        ({"focus": ("nobody",)}, "focus='nobody': choose from after"),
    ],
)
def test_what_does_not_fit_is_said(change, words):
    before, after, y, group = arrays()
    given = {"before": before, "after": after, "y": y, "group": group} | change
    with pytest.raises(ValueError, match=re.escape(words)):
        audit.compare(**given)


@pytest.mark.slow
def test_networks_and_their_predictions_are_the_same_audit(tmp_path):
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(900, 6)), rng.choice(["n", "s"], 900)
    y = (x[:, 0] + np.where(group == "s", x[:, 1], -x[:, 2]) > 0).astype(int)
    mine, model = data.dataset(x, y, group), models.mlp(2, hidden=(8,))
    quiet = {"progress": False, "batch_size": 64}
    dense = recipes.dense(model, mine, seeds=2, epochs=3, **quiet)
    sparse = recipes.prune(model, mine, dense, sparsity=0.8, bound=recipes.ceag(0.02), epochs=3, **quiet)  # fmt: skip
    whole = audit.compare(dense, sparse, mine, tolerance=0.02, pruned_at=1)
    assert {d.name for d in whole.drawn()} == {
        "before_and_after", "accuracy_against_gap", "gaps_by_group", "trajectories",
    }  # fmt: skip
    assert all(d.narrow is not None for d in whole.drawn())
    assert "Layers" in [s.title for s in whole.sections()]
    split = mine.test
    part = audit.compare(
        dense.predict(split), sparse.predict(split), split.y, split.group, names=mine.group_names, tolerance=0.02
    )  # fmt: skip
    assert [str(v) for v in part.verdicts] == [str(v) for v in whole.verdicts]
    whole.write(tmp_path)
    assert len(pd.read_csv(tmp_path / "table.csv")) == 4
    with pytest.raises(ValueError, match="leave it out"):
        audit.compare(dense, sparse, mine, group)
    labels = {"train": np.zeros((2, len(mine.train.y)), int)}
    with pytest.raises(ValueError, match=r"after has predictions of shape \(0,\) for \d+ people of validation"):
        audit.compare(dense, audit.Variant(labels, np.ones(2, bool)), mine)
    with pytest.raises(ValueError, match=re.escape("has the seeds [1, 0] and those before [0, 1]")):
        audit.compare(dense, sparse.take([1, 0]), mine)


def planted(share=0.2, num=2000):
    """Two groups, and a network after that got a share of the second one wrong."""
    rng = np.random.default_rng(1)
    y, group = rng.integers(0, 2, num), rng.choice(["m", "w"], num)
    return y, np.where((group == "w") & (rng.random(num) < share), 1 - y, y), group


@pytest.mark.slow
def test_a_group_without_a_bound_is_measured_and_not_judged(tmp_path):
    y, bad, group = planted()
    one = audit.compare(y, bad, y, group, constrained=[True, False])
    assert one.verdicts[0].state == "holds"
    assert str(one.verdicts[0]).startswith(
        "after, test: the bound of 1 point holds for the 1 group. Nearest to it: m ("
    )
    assert str(one.verdicts[0]).endswith("1 group without a bound is not judged.")
    assert "any of the 2 groups, of which 1 has a bound, loses" in one.summary()[0]
    frame = one.found.frames["after"][0]
    assert dict(zip(frame["group"], frame["verdict"], strict=True)) == {"w": "no bound", "m": "holds"}
    assert one.shown()[0].frame["bound"].tolist()[-1] == "holds 1"
    none = audit.compare(y, bad, y, group, constrained=[False, False], naive="after")
    assert none.remarks() == []
    assert "no group that has people has a bound" in str(none.verdicts[0])
    assert "No group has a bound" in none.write(tmp_path).read_text()
    with pytest.raises(ValueError, match=r"constrained has shape \(3,\) and there are 2 groups"):
        audit.compare(y, bad, y, group, constrained=[True] * 3)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (lambda a: np.array(["no", "yes"])[a], ["no", "yes"]),
        (lambda a: a.astype(bool), ["0", "1"]),
        (lambda a: a.astype(float), ["0", "1"]),
        (lambda a: 2 * a - 1, ["-1", "1"]),
        (lambda a: (a + 1).tolist(), ["1", "2"]),
        (lambda a: pd.Series(a, dtype="Int64"), ["0", "1"]),
    ],
)
def test_classes_may_be_coded_in_any_way(code, names, tmp_path):
    y, bad, group = planted()
    usual = audit.compare(y, bad, y, group)
    one = audit.compare(code(y), code(bad), code(y), group)
    assert "selection_change" not in one.found.frames["after"][0]  # nobody said which class is the good one
    assert one.found.class_names == names
    pd.testing.assert_frame_equal(one.found.frames["after"][0], usual.found.frames["after"][0])
    good = audit.compare(code(y), code(bad), code(y), group, positive=np.asarray(code(y))[y == 1][0])
    assert good.found.class_names[good.found.positive] == names[1]
    change = good.found.frames["after"][0].set_index("group")["selection_change"]["w"]
    assert change == pytest.approx((bad[group == "w"] == 1).mean() - (y[group == "w"] == 1).mean(), abs=1e-6)
    one.write_details(tmp_path)
    classes = pd.read_csv(tmp_path / "people.csv")["class"].astype(str)
    assert classes.tolist() == np.array(names)[y[bad != y]].tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"after": np.full(2000, 0.3)}, "after holds 0.3: give classes"),
        ({"before": np.full(2000, 0.3)}, "before holds 0.3: give classes"),
        ({"after": np.full(2000, 7)}, "after predicts 7, none of which is in y, 0, 1"),
        ({"after": np.full(2000, "a")}, "y holds 0, 1 and after 'a'"),
        ({"class_names": ["no"]}, "class_names has 1 names and none of the class 1"),
        ({"y": [None] * 2000}, "y is missing for person 0"),
        ({"tolerance": 2}, "tolerance=2: give a share"),
        ({"tolerance": float("nan")}, "tolerance=nan: give a share"),
        ({"names": ["only"]}, "there are 1 names"),
        ({"after": {"before": np.zeros(2000, int)}}, "a variant 'before'"),
        ({"naive": "x"}, "naive='x': choose from after"),
        ({"peers": ["x"]}, "peers='x': choose from after"),
        ({"shown": ["x"]}, "shown='x': choose from after"),
        ({"controls": "x"}, "controls='x': choose from after"),
    ],
)
def test_what_would_be_a_clean_verdict_about_nothing_is_refused(change, words):
    y, bad, group = planted()
    given = {"before": y, "after": bad, "y": y, "group": (group == "w").astype(int)} | change
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        audit.compare(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nothing", [-1, np.nan])
def test_a_network_that_predicts_nothing_has_failed_and_a_prediction_that_is_missing_is_wrong(nothing):
    y, bad, group = planted()
    one = audit.compare(y, np.full(len(y), nothing), y, group)
    assert one.found.ok("after").tolist() == [False]
    assert one.verdicts == []
    assert one.remarks() == ["Training of after failed in 1 of 1 seeds, which are left out."]
    some = np.where(np.arange(len(y)) < 100, nothing, y)
    found = audit.compare(y, some, y, group).found
    assert found.ok("after").all()
    assert found.measured["after", "test"].accuracy == pytest.approx([1 - 100 / len(y)])
    before = audit.compare(np.stack([y, np.full(len(y), nothing)]), np.stack([bad, bad]), y, group)
    assert before.remarks() == ["Training of before failed in 1 of 2 seeds, which are left out."]


def test_people_whose_group_is_unknown_are_in_no_gap_and_that_is_said():
    y, bad, group = planted()
    number = np.where(np.arange(len(y)) < 9, -1, group == "w")
    one = audit.compare(y, bad, y, number, names=["m", "w"])
    said = "The group of 9 people of test is unknown: they count in the accuracy, and in no gap."
    assert one.remarks() == [said]
    words = [None, np.nan, "", *group[3:9], *group[9:]]
    assert audit.compare(y, bad, y, words).found.group_names == ["m", "w"]


def test_weights_that_an_audit_does_not_count_by_are_said():
    mine = data.dataset(np.ones((40, 1)), [0, 1] * 20, ["m", "w"] * 20, split=["train"] * 30 + ["test"] * 10)
    labels = audit.Variant({name: of.y[None] for name, of in mine.splits.items()}, np.ones(1, bool))
    assert audit.compare(labels, labels, mine).remarks() == []
    shares = np.full(len(mine.train.y), 0.1, np.float32)
    other = dataclasses.replace(mine, train=mine.train._replace(weight=shares))
    (line,) = audit.compare(labels, labels, other).remarks()
    assert line.startswith("People of train have weights, ")


@pytest.mark.slow
def test_names_of_variants_stay_in_the_folder(tmp_path):
    y, bad, group = planted()
    names = ["../../evil/x", "<b>x</b>", "a (last)"]
    one = audit.compare(y, dict.fromkeys(names, bad), y, group, focus=names)
    page = one.write(tmp_path / "in").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    written = {p.name for p in (tmp_path / "in" / "groups").iterdir()}
    assert written == {f"{name}.{end}" for name in ("evil_x", "b_x_b", "a_last") for end in ("md", "csv")}
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    last = audit.compare(y, {"a (last)": bad}, y, group)
    last.write_details(tmp_path / "last")
    assert len(pd.read_csv(tmp_path / "last" / "people.csv")) == (bad != y).sum()


def test_the_demo_claims_nothing_of_a_seed_whose_dense_network_failed():
    at = {("dense", 0): -1, ("dense", 1): 7, ("nft", 0): -1, ("nft", 1): -1, ("ceag", 0): 3, ("ceag", 1): -1}
    records = [{"method": method, "seed": seed, "failed_at": step} for (method, seed), step in at.items()]
    assert [(r["method"], r["seed"]) for r in balancing_act.finite(records)] == [("dense", 0), ("nft", 0)]


def test_the_demo_takes_a_share_as_its_tolerance():
    with pytest.raises(flags.UsageError, match=r"--tolerance=2\.0: give a number of at least 0 and below 1"):
        flags.check(balancing_act.Config(tolerance=2.0))
