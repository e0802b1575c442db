"""The science of the experiment on one-shot pruning; that it runs and resumes is a law of all experiments."""

import numpy as np
import pytest

from experiments import one_shot
from jaxfair import study


@pytest.mark.slow
def test_counts_are_exact_and_correcting_weights_lowers_what_the_model_predicts(tmp_path):
    flags = [
        "--seeds=2",
        "--epochs=2",
        "--gradients=20",
        "--sparsities=0.9",
        "--methods=magnitude,chita_block",
    ]
    assert one_shot.main([*flags, f"--runs_dir={tmp_path}", "--id=a"]) == 0
    records = study.read(tmp_path / "a" / "records.jsonl")
    for record in records:
        assert record["weights"] == 784 * 40 + 40 * 20 + 20 * 10
        assert record["zeros"] >= 29_124  # ceil(0.9 * 32,360); more only if a dense weight is zero
        assert record["max_excess_after"] >= 0
        assert record["accuracy_before"] == record["accuracy_after"]  # there is no BatchNorm
    objective = {m: study.by_seed(records, "objective", method=m) for m in one_shot.METHODS}
    assert np.all(objective["chita_block"] < objective["magnitude"])
    assert "not MNIST" in (tmp_path / "a" / "report.html").read_text()
