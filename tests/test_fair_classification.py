"""The comparison with fairlearn: measured alike, chosen without the test split, and it goes on after a kill."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, selection_rate, true_positive_rate

from experiments import fair_classification, fair_classification_report
from jaxfair.report import records
from jaxfair.typing import Batch

ROOT = pathlib.Path(__file__).parents[1]
TINY = (
    "--seeds=2", "--epochs=3", "--batch_size=128", "--max_train=600", "--hidden=8", "--dual_rates=0.1",
    "--slacks=0.1", "--families=demographic_parity", "--methods=linear,eg_logistic",
)  # fmt: skip


def finish(folder, *arguments):
    run = subprocess.run(
        [sys.executable, "-m", "experiments.fair_classification", f"--runs_dir={folder}", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return run.returncode, run.stdout, run.stderr


def split_of(y, group):
    size = len(y)
    return Batch(np.zeros((size, 1)), y, group, np.arange(size), np.ones(size))


def test_violations_are_fairlearns():
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=300), rng.integers(3, size=300)
    predicted = (rng.random(300) < 0.3 + 0.2 * (group == 1)).astype(float)
    found = fair_classification.expected(predicted, split_of(y, group), "demographic_parity", 3)
    frame = MetricFrame(
        metrics=selection_rate, y_true=y, y_pred=predicted, sensitive_features=group
    )
    assert found["violation"] == pytest.approx((frame.by_group - frame.overall).abs().max())
    assert found["accuracy"] == pytest.approx((predicted == y).mean())
    found = fair_classification.expected(predicted, split_of(y, group), "equalized_odds", 3)
    both = []
    for flip in (
        False,
        True,
    ):  # the false-positive rate is the true-positive one of the flipped labels
        frame = MetricFrame(
            metrics=true_positive_rate,
            y_true=1 - y if flip else y,
            y_pred=predicted,
            sensitive_features=group,
        )
        both.append((frame.by_group - frame.overall).abs().max())
    assert found["violation"] == pytest.approx(max(both))


def test_the_choice_is_made_on_the_training_split_alone():
    """Two step sizes of two iterates each: the second is perfect on validation and test, and wrong on train."""
    y, group = np.array([0, 1, 0, 1] * 25), np.array([0, 0, 1, 1] * 25)
    right = np.broadcast_to(y == 1, (2, 100))
    half = np.broadcast_to((y == 1) & (np.arange(100) < 50), (2, 100))

    def lanes(first, second):
        return np.stack([first, second])[None, None]

    frontier = fair_classification.Frontier(
        train=lanes(right, half),
        validation=lanes(half, right),
        test=lanes(half, right),
        seconds=1.0,
    )
    split = fair_classification.Splits(*[split_of(y, group)] * 3, num_groups=2)
    for slack in (0.1, np.inf):
        found = fair_classification.choose(frontier, (0, 0), split, slack, "demographic_parity")
        assert found["feasible"]
        assert found["accuracy_train"] == 1.0
        assert found["accuracy_test"] == found["accuracy_validation"] < 1.0


def test_two_iterates_that_violate_on_either_side_are_mixed():
    """One selects group 0 only, one group 1 only: half of each is fair, and the LP finds it."""
    group = np.array([0, 1] * 50)
    y = np.ones(100, int)
    both = np.stack([group == 0, group == 1])[None, None, None]
    frontier = fair_classification.Frontier(both, both, both, 1.0)
    split = fair_classification.Splits(*[split_of(y, group)] * 3, num_groups=2)
    found = fair_classification.choose(frontier, (0, 0), split, 1e-6, "demographic_parity")
    assert found["mixed"] == 2
    assert found["violation_test"] <= 1e-6 + 1e-9  # the slack
    assert found["accuracy_test"] == pytest.approx(0.5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    code, out, err = finish(folder, *TINY, "--id=tiny")
    assert code == 0, err
    return folder, out


def test_a_run_writes_its_files_and_says_what_it_found(finished):
    folder, out = finished
    names = {p.name for p in (folder / "tiny").iterdir()}
    wanted = {
        "config.json",
        "records.jsonl",
        "table.md",
        "table.csv",
        "paired.md",
        "report.html",
        "figures",
    }
    assert wanted <= names
    assert "demographic parity: " in out
    found = records.read(folder / "tiny" / "records.jsonl")
    # Two methods, a slack and none, two seeds.
    assert len({fair_classification.names_of(r) for r in found}) == len(found) == 8
    for record in found:
        if record["method"] == "eg_logistic" and np.isfinite(record["slack"]):
            assert record["violation_train"] <= 0.1 + 1e-6  # what its bound promises
    page = (folder / "tiny" / "report.html").read_text()
    assert "fairlearn: ExponentiatedGradient around logistic regression" in page


def test_a_killed_run_goes_on_and_may_be_asked_for_more(finished):
    """Half of the records are gone: the same are made again, and those that were there are left alone."""
    folder, _ = finished
    log = folder / "tiny" / "records.jsonl"
    before = records.read(log)
    kept = before[: len(before) // 2]
    log.write_text("".join(records.dumps(r) + "\n" for r in kept))
    code, out, err = finish(folder, *TINY, "--id=tiny")
    assert code == 0, err
    assert "going on with the run" in out
    after = records.read(log)
    assert after[: len(kept)] == kept
    timeless = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in rows] for rows in (before, after)
    ]
    assert timeless[0] == timeless[1]
    assert json.loads((folder / "tiny" / "config.json").read_text())["seeds"] == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--methods=eg_trees",), "there is no 'eg_trees'"),
        (("--families=parity",), "there is no 'parity'"),
        (("--slacks=0",), "--slacks=0.0: give numbers above 0"),
        (("--proxy=step",), "choose from sigmoid, hinge, logistic"),
        (("--seeds=0",), "--seeds=0"),
        (("--max_train=10",), "--max_train=10"),
        (("--slack=0.1",), "unrecognized arguments"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_cannot_be_used_gives_one_line_and_exit_code_2(flags, words, tmp_path):
    code, _, err = finish(tmp_path / "runs", *flags)
    assert code == 2, err
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_the_headline_says_it_if_we_are_worse():
    rows = [
        fair_classification.cell(method, "demographic_parity", 0.02, seed)
        | {"accuracy_test": accuracy + 0.001 * seed, "violation_test": 0.02, "seconds": 1.0}
        for method, accuracy in {"linear": 0.80, "eg_logistic": 0.85}.items()
        for seed in range(3)
    ]
    import pandas as pd

    settings = {"seeds": 3, "slacks": (0.02,), "groups": ("sex",)}
    text = fair_classification_report.headline(pd.DataFrame(rows), settings)
    assert "less accurate than fairlearn's" in text[1]
    assert "-5.00 ± 0.00 at 2" in text[1]
