"""The experiment on one-shot pruning: exact counts, a page, and it goes on after a kill."""

import pathlib
import subprocess
import sys

import pandas as pd
import pytest

from experiments import one_shot, one_shot_report, runs
from jaxfair.study import records

ROOT = pathlib.Path(__file__).parents[1]
TINY = (
    "--seeds=2", "--epochs=2", "--gradients=20", "--sparsities=0.9", "--methods=magnitude,chita_block",
)  # fmt: skip


def finish(folder, *arguments):
    run = subprocess.run(
        [sys.executable, "-m", "experiments.one_shot", f"--runs_dir={folder}", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return run.returncode, run.stdout, run.stderr


def timeless(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_a_killed_run_goes_on_with_the_same_numbers(tmp_path):
    code, out, err = finish(tmp_path, *TINY, "--id=tiny")
    assert code == 0, err
    folder = tmp_path / "tiny"
    wanted = {"config.json", "records.jsonl", "table.md", "table.csv", "paired.md", "report.html"}
    assert wanted <= {p.name for p in folder.iterdir()}
    assert "chita_block is " in out
    before = records.read(folder / "records.jsonl")
    assert len({one_shot.names_of(r) for r in before}) == len(before) == 4
    for record in before:
        assert record["weights"] == 784 * 40 + 40 * 20 + 20 * 10
        assert record["zeros"] >= 29_124  # ceil(0.9 * 32,360); more only if a dense weight is zero
        assert record["max_excess_after"] >= 0
        assert record["accuracy_before"] == record["accuracy_after"]  # there is no BatchNorm
    # Both seeds: correcting the weights of magnitude's support lowers what the model predicts.
    objective = {one_shot.names_of(r)[1:]: r["objective"] for r in before}
    for seed in range(2):
        assert objective["chita_block", 0.9, seed] < objective["magnitude", 0.9, seed]
    assert "not MNIST" in (folder / "report.html").read_text()

    # The last record is gone, and half of a line is left: it is made again from the stored network.
    log = folder / "records.jsonl"
    log.write_text("".join(records.dumps(r) + "\n" for r in before[:3]) + '{"netw')
    code, out, err = finish(tmp_path, *TINY, "--id=tiny")
    assert code == 0, err
    assert "going on with the run" in out
    after = records.read(log)
    assert after[:3] == before[:3]
    assert timeless(after) == timeless(before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("obs",)}, "there is no 'obs'"),
        ({"networks": ()}, "--networks: give at least one"),
        ({"dataset": "mnist"}, "choose from digits, fashion_mnist"),
        ({"sparsities": (1.0,)}, "give numbers of at least 0, below 1"),
        ({"seeds": 0}, "--seeds=0"),
        ({"ridge": 0.0}, "--ridge=0.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_used_is_said_in_one_line(changes, words):
    with pytest.raises(runs.UsageError, match=words):
        one_shot.check(one_shot.Config(**changes))


def test_a_wrong_flag_gives_exit_code_2(tmp_path, capsys):
    config = one_shot.Config(methods=("obs",), runs_dir=str(tmp_path / "runs"))
    assert one_shot.main(config) == 2
    assert capsys.readouterr().err.startswith("one_shot: --methods: there is no 'obs'")
    assert not (tmp_path / "runs").exists()


def test_the_headline_says_it_if_we_are_worse():
    rows = [
        one_shot.cell("mlpnet", method, 0.9, seed)
        | {"accuracy_after": accuracy + 0.001 * seed, "accuracy_dense": 0.9}
        for method, accuracy in {"magnitude": 0.8, "chita": 0.7}.items()
        for seed in range(3)
    ]
    text = one_shot_report.headline(pd.DataFrame(rows), {"dataset": "digits"})
    assert "at 0 of 1 sparsities, less accurate at 1 (-10.0 ± 0.0 at 90 %)" in text[1]
