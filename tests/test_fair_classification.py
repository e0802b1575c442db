"""The comparison with fairlearn: measured alike, the same objective, chosen without test; it goes on after a kill."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, selection_rate, true_positive_rate
from sklearn.linear_model import LogisticRegression

from experiments import fair_classification, fair_classification_report
from jaxfair.constraints import rates
from jaxfair.study import records
from jaxfair.typing import Batch

pytestmark = pytest.mark.filterwarnings("ignore::jaxfair.data.DataWarning")

ROOT = pathlib.Path(__file__).parents[1]
TINY = (
    "--seeds=2", "--linear_rounds=15", "--max_train=600", "--linear_dual_rates=1", "--slacks=0.1",
    "--families=demographic_parity", "--methods=linear,eg_logistic",
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


@pytest.mark.parametrize("family", fair_classification.FAMILIES)
def test_influences_add_up_to_the_constraints(family):
    """Those of the people who are predicted 1 sum to what `rates.measure` says, in its order."""
    rng = np.random.default_rng(0)
    y, group, prediction = (
        rng.integers(2, size=99),
        rng.integers(3, size=99),
        rng.integers(2, size=99),
    )
    bounds = fair_classification.FAMILIES[family](0.0, num_groups=3)
    wanted = rates.measure(bounds, prediction, y, group, num_groups=3, num_classes=2).value
    found = fair_classification.influence(split_of(y, group), family, 3) @ prediction
    # float32: shares of up to 99 people, added.
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("family", fair_classification.FAMILIES)
def test_the_cost_proxy_is_reweighted_cross_entropy(family):
    """Its Lagrangian has the gradient of cross entropy with each person's weight moved by the multipliers."""
    rng = np.random.default_rng(1)
    y, group = jnp.array(rng.integers(2, size=40)), rng.integers(2, size=40)
    logits = jnp.array(rng.normal(size=(40, 2)), jnp.float32)
    influence = jnp.array(fair_classification.influence(split_of(np.array(y), group), family, 2))
    multipliers = jnp.array(rng.random(len(influence)), jnp.float32)

    def each(logits):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]

    def lagrangian(logits):
        proxy = fair_classification.cost_proxy(logits, y, influence)
        return each(logits).mean() + multipliers @ proxy

    weight = 1 / 40 + (1 - 2 * y) * (multipliers @ influence)
    np.testing.assert_allclose(
        jax.grad(lagrangian)(logits),
        jax.grad(lambda logits: weight @ each(logits))(logits),
        atol=1e-7,  # float32, of numbers up to 0.1
    )


def flipped(batch):
    return batch._replace(y=1 - batch.y)


@pytest.fixture(scope="module")
def trained():
    """Three splits, compiled once: a small one, the same with other test labels, and with other validation labels."""
    config = dataclasses.replace(
        fair_classification.Config(), max_train=2000, slacks=(0.03,), seeds=1, linear_rounds=80
    )
    split = fair_classification.load(config, 0)
    splits = [
        split,
        split._replace(test=flipped(split.test)),
        split._replace(validation=flipped(split.validation)),
    ]
    how = fair_classification.recipe(config, "linear", len(split.train.y))
    slacks = [0.03, fair_classification.FREE]
    return split, fair_classification.train_frontier(how, "equalized_odds", splits, slacks)


def test_without_constraints_the_linear_model_is_scikit_learns(trained):
    """The same penalised objective, to its optimum: the same log-odds for everybody."""
    split, frontier = trained
    last = jax.tree.map(lambda a: a[0, -1, 0, -1], frontier.params)["Dense_0"]
    ours = (split.train.x @ last["kernel"] + last["bias"]) @ np.array([-1.0, 1.0])
    peer = LogisticRegression(max_iter=1000, tol=1e-6).fit(split.train.x, split.train.y)
    theirs = peer.decision_function(split.train.x)
    # Both stop short of the optimum; a log-odds of 0.02 is half a point of probability at most.
    assert np.abs(ours - theirs).max() < 0.02


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fairlearn's, of pandas
def test_the_linear_model_meets_its_bound_as_accurately_as_the_reduction(trained):
    """On the training split, where nothing is left to chance: feasible, and at most 0.3 points behind."""
    split, frontier = trained
    mixture, _ = fair_classification.choose(frontier, 0, 0.03)
    theirs = fair_classification.run_theirs("eg_logistic", "equalized_odds", 0.03, 0, split, 50)
    assert mixture.feasible
    assert frontier.gaps[0, -1, 0, -1].max() > 0.03  # there is something to do
    # One person of 2,000 is 0.05 points; the two do not minimise the number of mistakes, but a convex stand-in.
    assert 1 - mixture.loss > theirs["accuracy_train"] - 0.003


def test_what_trains_and_chooses_does_not_see_the_other_splits(trained):
    """Chosen on train: other labels on test and on validation leave every number as it was."""
    _, frontier = trained
    for other in (1, 2):
        np.testing.assert_array_equal(frontier.error[other], frontier.error[0])
        np.testing.assert_array_equal(frontier.gaps[other], frontier.gaps[0])


def test_the_judges_are_those_that_the_setting_names():
    parts = [split_of(np.full(n, 1), np.zeros(n, int)) for n in (5, 3, 2)]
    split = fair_classification.Splits(*parts, num_groups=2)
    assert fair_classification.judge(split, "train") is split.train
    assert fair_classification.judge(split, "validation") is split.validation
    both = fair_classification.judge(split, "both")
    np.testing.assert_array_equal(both.weight, [0, 0, 0, 0, 0, 1, 1, 1])  # accuracy: validation
    assert len(both.y) == len(both.x) == len(both.group) == 8  # rates: all of them


def frontier_of(error, gaps):
    """One split, two slacks, one step size; ``[2, E]`` errors, and the parameters are the candidates' numbers."""
    error, gaps = np.array(error)[None, :, None], np.array(gaps)[None, :, None, :, None]
    return fair_classification.Frontier(
        {"w": np.arange(error.size).reshape(error.shape)}, error, np.concatenate([gaps, -gaps], axis=-1),
        seconds=0.0, cpu_seconds=0.0, compile_seconds=0.0, compile_cpu_seconds=0.0,
    )  # fmt: skip


def test_candidates_of_all_slacks_that_violate_on_either_side_are_mixed():
    frontier = frontier_of([[0.5, 0.9], [0.5, 0.9]], [[0.5, 0.0], [-0.5, 0.0]])
    mixture, params = fair_classification.choose(frontier, 0, 1e-6)
    np.testing.assert_array_equal(params["w"], [0, 2])
    np.testing.assert_allclose(mixture.probabilities, 0.5, atol=1e-5)  # the slack moves it by 1e-6
    assert mixture.feasible


def test_without_a_bound_the_most_accurate_of_those_trained_without_is_taken():
    frontier = frontier_of([[0.0, 0.0], [0.2, 0.1]], [[0.0, 0.0], [0.5, 9.0]])
    _, params = fair_classification.choose(frontier, 0, fair_classification.FREE)
    assert params["w"] == [3]


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
        "time.md",
        "report.html",
        "figures",
    }
    assert wanted <= names
    assert "Demographic parity: the linear model of jaxfair is " in out
    found = records.read(folder / "tiny" / "records.jsonl")
    # Two methods, a slack and none, two seeds.
    assert len({fair_classification.names_of(r) for r in found}) == len(found) == 8
    for record in found:
        if np.isfinite(record["slack"]):
            assert record["feasible"]
            assert record["violation_train"] <= 0.1 + 1e-5  # float32
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
        [{k: v for k, v in r.items() if "seconds" not in k} for r in rows]
        for rows in (before, after)
    ]
    assert timeless[0] == timeless[1]
    assert json.loads((folder / "tiny" / "config.json").read_text())["seeds"] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("eg_trees",)}, "there is no 'eg_trees'"),
        ({"families": ("parity",)}, "there is no 'parity'"),
        ({"slacks": (0.0,)}, "--slacks=0.0: give numbers above 0"),
        ({"slacks": ()}, "--slacks: give at least one"),
        ({"mlp_proxy": "step"}, "--mlp_proxy=step: choose from cost, sigmoid, hinge, logistic"),
        ({"linear_chosen_on": "test"}, "--linear_chosen_on=test: choose from train, validation, both"),
        ({"mlp_weight_decay": -1.0}, "--mlp_weight_decay=-1.0"),
        ({"seeds": 0}, "--seeds=0"),
        ({"max_train": 10}, "--max_train=10"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_cannot_be_used_gives_one_line_and_exit_code_2(
    changes, words, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main() changes it
    config = dataclasses.replace(
        fair_classification.Config(), runs_dir=str(tmp_path / "runs"), **changes
    )
    assert fair_classification.main(config) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("accuracy", "violation", "words"),
    [
        (0.80, 0.02, "worse beyond the interval (less accurate at slack 2)"),
        (0.80, 0.03, "worse beyond the interval (less accurate at slack 2; more violation at slack 2)"),
        (0.85, 0.03, "worse beyond the interval (more violation at slack 2)"),
        (0.90, 0.01, "no worse beyond the interval at any slack"),
    ],
    ids=["less accurate", "worse in both", "more violation", "better"],
)  # fmt: skip
def test_the_headline_says_whichever_way_it_falls(accuracy, violation, words):
    rows = [
        fair_classification.cell(method, "demographic_parity", 0.02, seed)
        | {"accuracy_test": a + 0.001 * seed, "violation_test": v}
        | {"seconds": 1.0, "cpu_seconds": 2.0, "compile_seconds": 0.5, "compile_cpu_seconds": 1.0}
        for method, (a, v) in {"linear": (accuracy, violation), "eg_logistic": (0.85, 0.02)}.items()
        for seed in range(3)
    ]
    settings = {"seeds": 3, "slacks": (0.02,), "groups": ("sex",)}
    text = fair_classification_report.headline(pd.DataFrame(rows), settings)
    assert words in text[1]
    difference = f"{100 * (accuracy - 0.85):+.2f} ± 0.00 points"
    assert difference in text[1]
    assert (
        "took 6 seconds of CPU and 3 to compile, fairlearn's 6: 1.0 times as much, or 0.7"
        in text[2]
    )
