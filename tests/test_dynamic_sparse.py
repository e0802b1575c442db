"""The experiment on sparse training: what it asks recipes for, and learning rates that are chosen on validation."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from experiments import dynamic_sparse
from jaxfair import recipes, study

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_every_method_is_one_that_can_be_trained_and_has_its_words():
    ours = set(dynamic_sparse.METHODS) - {"gmp", "ceag"}  # magnitude, from the dense network
    assert ours == set(recipes.SPARSE) - {"dense"}
    assert len(dynamic_sparse.SCRATCH) == 16
    assert len(dynamic_sparse.FURTHER) == 5


@pytest.mark.slow
def test_zeros_costs_and_controls(tmp_path):
    flags = [
        *(f"--runs_dir={tmp_path}", "--id=tiny", "--seeds=2", "--epochs=2", "--hidden=8,8"),
        *("--sparsities=0.9", "--methods=magnitude"),
    ]
    assert dynamic_sparse.main(flags) == 0
    records = study.read(tmp_path / "tiny" / "records.jsonl")
    assert len(records) == 2 * (3 + 1)
    for record in records:
        control = record["method"] in dynamic_sparse.CONTROLS
        uniform = math.ceil(0.9 * 64 * 8) + math.ceil(0.9 * 8 * 8)
        assert record["pruned"] == (0 if control else uniform)
        assert record["zeros"] >= record["pruned"]
        assert record["max_excess"] >= 0
        later = record["method"] == "dense_longer"
        assert record["cost_before"] == (record["cost_dense"] if later else 0)
        assert (record["cost"] < record["cost_dense"]) == (not control)
        if record["method"] == "dense":
            assert record["max_excess"] == record["max_excess_train"] == 0


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
            tmp_path / f"cifar10_{split}.npz",
            jpeg=np.frombuffer(b"".join(files), np.uint8),
            offsets=np.cumsum([0, *map(len, files)]),
            label=labels,
            class_names=np.array([f"c{i}" for i in range(10)]),
        )
    return [
        *("--datasets=cifar10", "--methods=magnitude", "--sparsities=0.9", "--seeds=1"),
        *("--cifar_epochs=20", "--cifar_network=small_cnn", "--cifar_rates=1e-6,0.05"),
        *(f"--data_dir={tmp_path}", f"--runs_dir={tmp_path / 'runs'}", "--id=rates"),
    ]


@pytest.mark.slow
def test_learning_rates_are_chosen_on_validation(cifar, tmp_path):
    assert dynamic_sparse.main(cifar) == 0
    folder = tmp_path / "runs" / "rates"
    stored = (folder / "rates.jsonl").read_bytes()
    rows = study.read(folder / "rates.jsonl")
    assert [(r["method"], r["rate"]) for r in rows] == [(m, r) for m in ("dense", "magnitude") for r in (1e-6, 0.05)]
    assert all(20 * r["accuracy"] == pytest.approx(round(20 * r["accuracy"])) for r in rows)
    # With a rate of a millionth nothing is learned: a network of it would be at one class in ten.
    for record in study.read(folder / "records.jsonl"):
        assert record["accuracy"] > 0.2
    assert "Learning rates" in (folder / "report.html").read_text()

    # The same command goes on: one row is lost, and only it is made again.
    (folder / "rates.jsonl").write_bytes(b"".join(stored.splitlines(keepends=True)[:3]))
    (folder / "records.jsonl").unlink()
    assert dynamic_sparse.main(cifar) == 0
    assert (folder / "rates.jsonl").read_bytes() == stored


def test_the_best_rate_on_file_is_taken_and_controls_have_that_of_the_dense_network(tmp_path):
    rates = study.Run(tmp_path, names=("dataset", "method", "rate"), log="rates.jsonl")
    best = {("dense", 1e-6): 0.6, ("dense", 0.05): 0.5, ("set", 1e-6): 0.1, ("set", 0.05): 0.4}
    for (method, rate), accuracy in best.items():
        rates.record({"dataset": "cifar10", "method": method, "rate": rate}, {"accuracy": accuracy})
    config = dynamic_sparse.Config(methods=("set",), cifar_rates=(1e-6, 0.05))
    run = study.Run(tmp_path, names=("seed",))
    found = dynamic_sparse.chosen_rates(config, "cifar10", run)
    assert {m: c.cifar_learning_rate for m, c in found.items()} == {
        "dense": 1e-6,
        "dense_again": 1e-6,
        "dense_longer": 1e-6,
        "set": 0.05,
    }
    assert set(dynamic_sparse.chosen_rates(config, "digits", run).values()) == {config}
