"""The experiment on sparse training: exact zeros by every method, a page, and it goes on after a kill."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments import dynamic_sparse, dynamic_sparse_report, runs
from jaxfair.study import records

TINY = {
    "seeds": 2, "epochs": 2, "hidden": (8, 8), "sparsities": (0.9,), "synflow_rounds": 3,
    "importance_batches": 1, "fairgrape_keep": 0.2, "id": "tiny",
}  # fmt: skip
LAYERS = (64 * 8, 8 * 8)
UNIFORM = sum(math.ceil(0.9 * n) for n in LAYERS)
TOGETHER = math.ceil(0.9 * sum(LAYERS))
NEEDED = {
    "dataset", "method", "sparsity", "seed", "weights", "pruned", "zeros", "cost", "cost_before", "cost_dense",
    "seconds", "accuracy", "accuracy_dense", "max_excess", "accuracy_train", "max_excess_train",
}  # fmt: skip


def timeless(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.slow
def test_a_run_end_to_end_goes_on_where_it_stopped(tmp_path, capsys):
    # One without constraints, one with.
    settings = TINY | {"methods": ("magnitude", "ceag"), "runs_dir": str(tmp_path)}
    config = dynamic_sparse.Config(**settings)
    assert dynamic_sparse.main(config) == 0
    folder = tmp_path / "tiny"
    wanted = {"config.json", "records.jsonl", "table.md", "table.csv", "paired.md", "report.html"}
    assert wanted <= {p.name for p in folder.iterdir()}
    assert {p.stem for p in (folder / "figures").iterdir()} == {"accuracy", "who_pays"}
    out = capsys.readouterr().out
    assert "Noise floor" in out
    before = records.read(folder / "records.jsonl")
    assert len({dynamic_sparse.names_of(r) for r in before}) == len(before) == 2 * (3 + 2)
    for record in before:
        assert set(record) >= NEEDED
        assert record["max_excess"] >= 0
        dense = record["method"] in dynamic_sparse.CONTROLS
        assert record["pruned"] == (0 if dense else UNIFORM)
        assert record["zeros"] >= record["pruned"]
        if record["method"] == "dense":
            assert record["max_excess"] == record["max_excess_train"] == 0
            assert record["cost"] == record["cost_dense"]

    # The same command adds nothing; a record that is lost is made again from the stored network.
    log = folder / "records.jsonl"
    stored = log.read_bytes()
    lost = [r for r in before if r["method"] != "magnitude"]
    assert dynamic_sparse.main(config) == 0
    assert "going on with the run" in capsys.readouterr().out
    assert log.read_bytes() == stored
    log.write_text("".join(records.dumps(r) + "\n" for r in lost) + '{"datas')
    assert dynamic_sparse.main(config) == 0
    after = sorted(timeless(records.read(log)), key=dynamic_sparse.names_of)
    assert after == sorted(timeless(before), key=dynamic_sparse.names_of)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    config = dynamic_sparse.Config(**TINY)
    task = dynamic_sparse.load(config, "digits", (0,))
    dense, _ = dynamic_sparse.dense_networks(config, task, tmp_path_factory.mktemp("dense"))
    return config, task, dense


# The others are the same code with another score or distribution; these have code of their own here.
@pytest.mark.parametrize("method", ["rigl", "acdc", "ste", "synflow", "wanda", "fairgrape"])
def test_zeros_are_exact_and_costs_follow_the_masks(method, tiny):
    config, task, dense = tiny
    if method == "fairgrape":  # as networks with convolutions train: not mapped, step by step
        task = task._replace(mapped=False)
    found = dynamic_sparse.trained(config, task, method, 0.9, dense)
    (record,) = dynamic_sparse.measured(task, method, 0.9, found, dense)
    together = method in ("rigl", "synflow")
    expected = TOGETHER if together else UNIFORM
    assert record["pruned"] == expected
    assert record["zeros"] >= expected  # what is grown starts at 0, and may stay there
    assert record["cost_before"] == (
        record["cost_dense"] if method in ("wanda", "fairgrape") else 0
    )
    extra = found.densities.shape[1] - task.steps
    assert (extra > 0) == (method == "fairgrape")
    if method == "ste":  # a masked forward pass, a masked and a dense half of the backward pass
        assert 1 / 3 < record["cost"] / record["cost_dense"] < 1
    if method == "wanda":  # every output keeps the same number of its inputs
        kept = np.asarray(found.masks["Dense_0"]["kernel"][0]).sum(0)
        assert kept.max() - kept.min() <= 1
    if method == "rigl":
        assert 0 < found.dense_gradient.sum() < task.steps


def test_every_method_has_its_words():
    names = dynamic_sparse.CONTROLS + dynamic_sparse.SCRATCH + dynamic_sparse.FURTHER
    assert tuple(dynamic_sparse_report.IN_WORDS) == names
    assert dynamic_sparse_report.FURTHER == dynamic_sparse.FURTHER


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("obs",)}, "there is no 'obs'"),
        ({"datasets": ("mnist",)}, "choose from digits, adult, cifar10"),
        ({"cifar_network": "resnet"}, "choose from cifar_resnet20, small_cnn"),
        ({"datasets": ()}, "--datasets: give at least one"),
        ({"sparsities": (1.0,)}, "give numbers above 0 and below 1"),
        ({"hidden": ()}, "--hidden"),
        ({"seeds": 0}, "--seeds=0"),
        ({"dual_rate": 0.0}, "--dual_rate=0.0"),
        ({"cifar_rates": (0.1, 0.0)}, "--cifar_rates"),
        ({"cifar_rates_sparsity": 1.0}, "--cifar_rates_sparsity=1.0"),
        ({"fairgrape_keep": 1.0}, "--fairgrape_keep=1.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_used_is_said_in_one_line(changes, words):
    with pytest.raises(runs.UsageError, match=words):
        dynamic_sparse.check(dynamic_sparse.Config(**changes))


def test_a_wrong_flag_gives_exit_code_2(tmp_path, capsys):
    config = dynamic_sparse.Config(methods=("obs",), runs_dir=str(tmp_path / "runs"))
    assert dynamic_sparse.main(config) == 2
    assert capsys.readouterr().err.startswith("dynamic_sparse: --methods: there is no 'obs'")
    assert not (tmp_path / "runs").exists()


def rows(gaps, share=0.9):
    """Records of three seeds, all as accurate as each other, with these gaps."""
    return [
        dynamic_sparse.cell("digits", method, 0.0 if method.startswith("dense") else share, seed)
        | {"accuracy": 0.9 + 0.001 * seed * (-1) ** number, "max_excess": gap + 0.001 * seed}
        for number, (method, gap) in enumerate(gaps.items())
        for seed in range(3)
    ]


def test_the_headline_falls_either_way():
    gaps = {"dense": 0.0, "dense_again": 0.01, "magnitude": 0.05, "fairgrape": 0.07, "ceag": 0.02}
    text = " ".join(dynamic_sparse_report.headline(pd.DataFrame(rows(gaps))))
    assert "the largest excess gap is 1.1 points" in text
    assert "smaller beyond the interval in 1: ceag at 90 % (-3.0 ± 0.0)" in text
    assert "larger in 1: fairgrape at 90 % (+2.0 ± 0.0)" in text
    assert "CEAG less FairGRAPE, in points: 90 %: gap -5.0 ± 0.0 (smaller)" in text
    worse = gaps | {"ceag": 0.09}
    text = " ".join(dynamic_sparse_report.headline(pd.DataFrame(rows(worse))))
    assert "smaller beyond the interval in 0; larger in 2" in text
    assert "(larger)" in text


@pytest.fixture
def cifar(tmp_path):
    """CIFAR-10 as a folder: 200 images to train with, 20 of them for validation, and 40 of test; a class is a grey."""
    for split, number in (("train", 200), ("test", 40)):
        labels = np.arange(number, dtype=np.int32) % 10
        files = []
        for label in labels:
            buffer = io.BytesIO()
            Image.fromarray(np.full((32, 32, 3), 25 * label, np.uint8)).save(buffer, "jpeg")
            files.append(buffer.getvalue())
        np.savez(
            tmp_path / f"cifar10_{split}.npz", jpeg=np.frombuffer(b"".join(files), np.uint8),
            offsets=np.cumsum([0, *map(len, files)]), label=labels,
            class_names=np.array([f"c{i}" for i in range(10)]),
        )  # fmt: skip
    return dynamic_sparse.Config(
        datasets=("cifar10",), methods=("magnitude",), sparsities=(0.9,), seeds=1, cifar_epochs=20,
        cifar_network="small_cnn", cifar_rates=(1e-6, 0.05), data_dir=str(tmp_path),
        runs_dir=str(tmp_path / "runs"), id="rates",
    )  # fmt: skip


@pytest.mark.slow
def test_learning_rates_are_chosen_on_validation(cifar, tmp_path, monkeypatch):
    chosen_on = dynamic_sparse.load(cifar, "cifar10", (0,), measured_on="validation")
    assert [s.y.shape[1] for s in (chosen_on.train, chosen_on.test)] == [180, 20]
    assert dynamic_sparse.main(cifar) == 0
    folder = tmp_path / "runs" / "rates"
    stored = (folder / "rates.jsonl").read_bytes()
    rows = records.read(folder / "rates.jsonl")
    assert [(r["method"], r["rate"]) for r in rows] == [
        (m, r) for m in ("dense", "magnitude") for r in cifar.cifar_rates
    ]
    assert all(20 * r["accuracy"] == pytest.approx(round(20 * r["accuracy"])) for r in rows)
    # With a rate of a millionth nothing is learned: a network of it would be at one class in ten.
    dense, sparse = (
        next(r for r in records.read(folder / "records.jsonl") if r["method"] == method)
        for method in ("dense", "magnitude")
    )
    assert dense["accuracy"] > 0.2
    assert sparse["accuracy"] > 0.2
    assert "Learning rates" in (folder / "report.html").read_text()

    # The same command goes on: one row is lost, and only it is made again.
    (folder / "rates.jsonl").write_bytes(b"".join(stored.splitlines(keepends=True)[:3]))
    (folder / "records.jsonl").unlink()
    assert dynamic_sparse.main(cifar) == 0
    assert (folder / "rates.jsonl").read_bytes() == stored

    # The best on file is taken, by each method, and the controls have that of the dense network.
    monkeypatch.setattr(dynamic_sparse, "trained", None)
    monkeypatch.setattr(dynamic_sparse, "fit", None)
    best = {
        ("dense", 1e-6): 0.6,
        ("dense", 0.05): 0.5,
        ("magnitude", 1e-6): 0.1,
        ("magnitude", 0.05): 0.4,
    }
    lines = [
        records.dumps({"dataset": "cifar10", "method": m, "rate": r, "accuracy": a}) + "\n"
        for (m, r), a in best.items()
    ]
    (folder / "rates.jsonl").write_text("".join(lines))
    rates = dynamic_sparse.choose_rates(cifar, "cifar10", folder)
    assert {m: c.cifar_learning_rate for m, c in rates.items()} == {
        "dense": 1e-6, "dense_again": 1e-6, "dense_longer": 1e-6, "magnitude": 0.05
    }  # fmt: skip
    assert set(dynamic_sparse.choose_rates(cifar, "digits", folder).values()) == {cifar}
