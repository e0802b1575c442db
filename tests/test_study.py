"""A study: nothing is made twice, groups are cut alike after a kill, and a verdict means what it says."""

import dataclasses
import json
import os
import signal
import time

import numpy as np
import pytest

from jaxfair import metrics, study


@dataclasses.dataclass(frozen=True)
class Config:
    runs_dir: str
    id: str = ""
    rate: float = 0.1
    seeds: int = 2


NAMES, GROWS = ("seed",), ("seeds",)


def test_a_run_has_a_folder_of_its_settings_and_comes_back_to_it(tmp_path, capsys):
    config = Config(str(tmp_path / "runs"))
    with study.opened(config, NAMES, grows=GROWS) as run:
        assert json.loads((run.folder / "config.json").read_text()) == {"rate": 0.1}
        run.record({"seed": 0}, {"gap": 0.5})
    assert capsys.readouterr().out == ""
    with study.opened(dataclasses.replace(config, seeds=9), NAMES, grows=GROWS) as again:
        assert again.folder == run.folder
        assert again.records == [{"seed": 0, "gap": 0.5}]
    assert capsys.readouterr().out == f"going on with the run in {run.folder}\n"
    other = dataclasses.replace(config, rate=0.2)
    with study.opened(other, NAMES, grows=GROWS) as elsewhere:
        assert elsewhere.folder != run.folder
    named = dataclasses.replace(other, id=run.folder.name)
    with (
        pytest.raises(study.FolderError, match=r"rate is 0.1 there and 0.2 here"),
        study.opened(named, NAMES, grows=GROWS),
    ):
        pass
    with (
        pytest.raises(study.FolderError, match=r"design is not set there and abc here"),
        study.opened(
            dataclasses.replace(config, id=run.folder.name),
            NAMES,
            grows=GROWS,
            more={"design": "abc"},
        ),
    ):
        pass


def test_a_second_process_is_kept_out(tmp_path):
    config = Config(str(tmp_path))
    with (
        study.opened(config, NAMES) as run,
        pytest.raises(study.FolderError, match="another process"),
        study.opened(config, NAMES),
    ):
        pass
    assert (run.folder / "config.json").exists()


@pytest.mark.parametrize("error", [study.FolderError, ZeroDivisionError, KeyboardInterrupt])
def test_what_fails_before_anything_is_recorded_leaves_no_folder(tmp_path, error):
    config = Config(str(tmp_path / "deep" / "runs"), id="mine")

    def fail(recorded):
        with study.opened(config, NAMES) as run:
            if recorded:
                run.record({"seed": 0}, {"gap": 0.5})
            raise error("no such file")

    with pytest.raises(error):
        fail(recorded=False)
    assert list(tmp_path.iterdir()) == []
    for recorded in (True, False):  # what was recorded stays, whatever happens later
        with pytest.raises(error):
            fail(recorded)
        assert study.read(tmp_path / "deep/runs/mine/records.jsonl") == [{"seed": 0, "gap": 0.5}]


def groups(run, wanted, **how):
    return [
        (shared, [c["method"] + str(c["seed"]) for c in cells])
        for shared, cells in run.missing(wanted, say=lambda line: None, **how)
    ]


WANTED = study.grid(seed=range(3), method=("nft", "ceag"))


@pytest.mark.parametrize(
    ("how", "fresh", "later"),
    [
        ({}, [({}, ["nft0", "ceag0", "nft1", "ceag1", "nft2", "ceag2"])], [({}, ["nft0", "nft1", "ceag1", "ceag2"])]),
        ({"together": ("method",)},
         [({"method": "nft"}, ["nft0", "nft1", "nft2"]), ({"method": "ceag"}, ["ceag0", "ceag1", "ceag2"])],
         [({"method": "nft"}, ["nft0", "nft1"]), ({"method": "ceag"}, ["ceag1", "ceag2"])]),
        ({"together": ("seed",), "whole": True},
         [({"seed": s}, [f"nft{s}", f"ceag{s}"]) for s in range(3)],
         [({"seed": s}, [f"nft{s}", f"ceag{s}"]) for s in range(3)]),
        # Evenly: six of at most four are three and three.
        ({"at_most": 4}, [({}, ["nft0", "ceag0", "nft1"]), ({}, ["ceag1", "nft2", "ceag2"])],
         [({}, ["nft0", "nft1"]), ({}, ["ceag1", "ceag2"])]),
    ],
    ids=["all", "together", "whole", "at_most"],
)  # fmt: skip
def test_groups_are_cut_from_what_is_wanted_so_that_a_resumed_run_cuts_alike(tmp_path, how, fresh, later):
    run = study.Run(tmp_path, names=("seed", "method"))
    assert groups(run, WANTED, **how) == fresh
    run.record({"seed": 0, "method": "ceag"}, {})
    run.record({"seed": 2, "method": "nft"}, {})
    assert groups(study.Run(tmp_path, names=("seed", "method")), WANTED, **how) == later


def test_a_record_is_made_once_and_comes_back_as_it_will_be_read(tmp_path):
    run = study.Run(tmp_path, names=("of", "seed"))
    run.record({"of": ("tune", "omega"), "seed": np.int64(3)}, {"gap": np.float32(0.1), "all": (1, 2)})
    run.record({"of": ["tune", "omega"], "seed": 3}, {"gap": 9.0, "all": ()})  # there already
    assert run.records == [{"of": ["tune", "omega"], "seed": 3, "gap": float(np.float32(0.1)), "all": [1, 2]}]
    assert study.Run(tmp_path, names=("of", "seed")).records == run.records
    assert run.has({"of": ("tune", "omega"), "seed": 3, "more": "than names"})
    assert not run.has({"of": ("tune", "omega")})
    with pytest.raises(ValueError, match="'seed' names a record"):
        run.record({"of": "x"}, {"seed": 1})
    with pytest.raises(ValueError, match="has at least one of of, seed"):
        run.record({"method": "x"}, {})


def test_cells_that_would_be_taken_for_one_another_are_refused(tmp_path):
    run = study.Run(tmp_path, names=("method", "seed"))
    wanted = study.grid(method=("nft",), sparsity=(0.5, 0.9), seed=(0,))
    with pytest.raises(ValueError, match=r"differ in 'sparsity' only, which is not among the names \(method, seed\)"):
        list(run.missing(wanted))
    run.record(wanted[0], {"gap": 0.1})
    run.record(wanted[0], {"gap": 0.2})
    with pytest.raises(ValueError, match="differ in 'sparsity' only"):
        run.record(wanted[1], {"gap": 0.2})
    assert len(run.records) == 1
    run.record({"method": "nft", "seed": 1.0}, {"gap": 0.3})
    assert run.has({"method": "nft", "seed": 1})  # as numbers are equal


def test_names_may_be_lists(tmp_path):
    run = study.Run(tmp_path, names=("of",))
    for of in (("tune", "omega"), ("tune", "sgd")):
        run.record({"of": of}, {"rate": 0.1})
    assert study.values(run.records, "of") == [["tune", "omega"], ["tune", "sgd"]]
    assert len(study.chosen(run.records, of=("tune", "sgd"))) == 1


def test_what_threads_have_done_is_not_lost_for_what_failed(tmp_path):
    def compute(shared, cells):
        if shared["seed"] == 0:
            time.sleep(0.2)
            raise ZeroDivisionError
        return [{"square": shared["seed"] ** 2} for _ in cells]

    run = study.Run(tmp_path, names=("seed",))
    with pytest.raises(ZeroDivisionError):
        run.make(study.grid(seed=range(4)), compute, together=("seed",), workers=2, say=lambda line: None)
    assert [r["seed"] for r in study.read(tmp_path / "records.jsonl")] == [1, 2, 3]


def test_a_run_that_is_asked_to_stop_ends_between_two_groups_and_goes_on_from_there(tmp_path):
    config = Config(str(tmp_path), id="mine")
    seen = []

    def work(stop_in):
        with study.opened(config, NAMES) as run:
            for shared, cells in run.missing(study.grid(seed=range(3)), together=("seed",)):
                seen.append(shared["seed"])
                if shared["seed"] == stop_in:
                    os.kill(os.getpid(), signal.SIGTERM)
                run.record(cells[0], {})
            return len(run.records)

    with pytest.raises(study.Stopped, match="mine"):
        work(stop_in=1)
    assert work(stop_in=2) == 3  # in the last group there is nothing to stop
    assert seen == [0, 1, 2]


def test_a_run_says_how_long_it_will_take(tmp_path, monkeypatch):
    clock = iter([0.0, 600.0, 1200.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    lines = []
    run = study.Run(tmp_path, names=("seed",))
    list(run.missing(study.grid(seed=range(4)), at_most=2, say=lines.append))
    assert lines == ["2 of 4 done; about 10 min to go", "4 of 4 done"]


def table(**values):
    """Records of two methods: ``{level: (ours, theirs)}``, each a list over seeds."""
    return [
        {"method": method, "sparsity": level, "seed": seed, "gap": value}
        for level, both in values["levels"].items()
        for method, of in zip(("ceag", "nft"), both, strict=True)
        for seed, value in enumerate(of)
    ]


def test_paired_takes_the_seeds_that_both_have_in_whatever_order():
    records = table(levels={0.9: ([0.1, 0.3, 0.2], [0.2, 0.5])})[::-1]
    found = study.paired(records, "gap", {"method": "ceag"}, {"method": "nft"})
    expected = metrics.paired_difference(np.array([0.1, 0.3]), np.array([0.2, 0.5]))
    assert (found.mean, found.low, found.seeds) == (expected.mean, expected.low, 2)
    assert study.paired(records[:3], "gap", {"method": "ceag"}, {"method": "nft"}) is None
    with pytest.raises(ValueError, match=r"the record of method='ceag', sparsity=0.9, seed = . has no 'accuracy'"):
        study.by_seed(records, "accuracy", method="ceag", sparsity=0.9)
    with pytest.raises(ValueError, match=r"two records have seed = .: no name names more than one"):
        study.by_seed(records, "gap")
    split = [{"split": s, "seed": t, "gap": 10 * s + t} for s in range(2) for t in range(2)]
    assert study.by_seed(split, "gap", over=("split", "seed")).tolist() == [0, 1, 10, 11]


CLAIM = study.Claim("ceag", "nft", "gap", ("fairer", "less fair"), good=-1)


@pytest.mark.parametrize(
    ("shifts", "margin", "state", "better", "worse"),
    [
        ((-0.1, -0.1), 0.0, "holds", 2, 0),
        ((-0.1, 0.0), 0.0, "cannot tell", 1, 0),
        ((-0.1, 0.1), 0.0, "violated", 1, 1),
        ((0.1, 0.1), 0.0, "violated", 0, 2),
        ((-0.1, -0.1), 0.05, "holds", 2, 0),  # by more than 0.05
        ((-0.1, -0.1), 0.2, "violated", 0, 2),  # not by more than 0.2
        ((0.1, 0.1), -0.2, "holds", 2, 0),  # worse by less than 0.2
    ],
)
def test_a_claim_is_about_every_level(shifts, margin, state, better, worse):
    noise = np.array([0.001, -0.002, 0.0, 0.002, -0.001])
    records = table(
        levels={
            level: ((0.3 + shift + noise).tolist(), (0.3 - noise).tolist())
            for level, shift in zip((0.98, 0.9), shifts, strict=True)
        }
    )
    found = study.judge(records, CLAIM._replace(margin=margin))
    assert (found.state, len(found.better), len(found.worse)) == (state, better, worse)
    assert list(found.differences) == ["90 %", "98 %"]
    said = found.sentence()
    for interval in found.differences.values():  # every number that it rests on
        assert f"{100 * interval.mean:+.2f} ± {100 * interval.half_width:.2f}" in said
    assert "chance alone would give about 0.05 either way" in said
    assert f"at all of 2 levels: {state}. Beyond" in said
    assert (", give or take 20 points, at all" in said) == (margin < 0)
    assert (f" by more than {100 * margin:g} points at all" in said) == (margin > 0)
    mirrored = study.judge([r | {"gap": -r["gap"]} for r in records], CLAIM._replace(good=1, margin=margin))
    assert mirrored.state == state


def test_nothing_to_compare_is_said():
    found = study.judge(table(levels={0.9: ([0.1], [0.2])}), CLAIM)
    assert (found.state, found.compared, found.left_out) == ("cannot tell", 0, ["90 %"])
    assert "for want of two seeds of both or of finite numbers: 90 %" in found.sentence()
    assert "nothing to compare" in study.judge([], CLAIM).sentence()


@pytest.mark.parametrize("other", [([0.1], [0.4, 0.5]), ([np.inf, 0.1], [0.4, 0.5]), ([np.nan, 0.1], [0.4, 0.5])])
def test_a_claim_does_not_hold_over_the_levels_that_are_left(other):
    """Fairer at 90 %; at 98 % a seed lacks, or diverged: nothing can be said of every level."""
    records = table(levels={0.9: ([0.1, 0.11], [0.4, 0.41]), 0.98: other})
    found = study.judge(records, CLAIM)
    assert (found.state, list(found.better), found.left_out) == ("cannot tell", ["90 %"], ["98 %"])
    assert "at all of 2 levels: cannot tell." in found.sentence()
    assert found.sentence().endswith("finite numbers: 98 %.")


def test_levels_that_read_alike_are_two():
    lost, won = ([0.5, 0.51, 0.52], [0.4, 0.41, 0.42]), ([0.1, 0.11, 0.12], [0.4, 0.41, 0.42])
    found = study.judge(table(levels={0.9: lost, 0.90000001: won}), CLAIM)
    assert found.compared == 2
    assert (list(found.better), list(found.worse)) == (["0.90000001"], ["0.9"])


def test_with_a_margin_chance_is_that_of_the_margin():
    same = ([0.1, 0.11, 0.12], [0.11, 0.1, 0.12])
    found = study.judge(table(levels={0.9: same, 0.98: same}), CLAIM._replace(margin=-0.1))
    assert found.state == "holds"
    assert "either way if the true difference were the margin" in found.sentence()
    found = study.judge(table(levels={0.9: same, 0.98: same}), CLAIM._replace(margin=0.1))
    assert "not fairer by that much at 2" in found.sentence()
    assert "over 3 seeds" in found.sentence()


@pytest.mark.slow
def test_a_method_that_is_no_different_is_seldom_found_better_or_worse():
    """Of 200 tables of ten levels without a difference at most one in twenty is called violated, and none holds."""
    rng = np.random.default_rng(0)
    states = []
    for _ in range(200):
        values = rng.normal(size=(10, 2, 5)).tolist()
        records = table(levels={level: values[level] for level in range(10)})
        states.append(study.judge(records, CLAIM._replace(level=str)).state)
    # Bonferroni on one side of two: 0.025 expected; four standard errors of a share of 200 above it.
    assert states.count("violated") / 200 < 0.025 + 4 * np.sqrt(0.025 * 0.975 / 200)
    assert states.count("violated") > 0
    assert states.count("holds") == 0


def test_a_method_that_diverged_has_no_rank():
    rows = [("a", 0.9, 0.1), ("b", 0.8, 0.2), ("c", 0.7, 0.3), ("d", np.nan, 0.4)]
    records = [{"method": m, "seed": 0, "accuracy": x, "gap": y} for m, x, y in rows]
    assert study.rank_correlation(records, "accuracy", "gap") == (-1.0, 3)
    correlation, count = study.rank_correlation([], "accuracy", "gap")
    assert np.isnan(correlation)
    assert count == 0
