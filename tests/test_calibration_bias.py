"""The science of the experiment on the bias of calibration errors; that it runs and resumes is a law of all of them."""

import jax
import numpy as np
import pytest

from experiments import calibration_bias
from jaxfair import metrics, study
from jaxfair.metrics import calibration


def test_a_record_says_how_far_off_and_how_unfair_to_the_smaller_group():
    """Two audits of a group of 20 and one of 60, with a true error of 0.1."""
    config = calibration_bias.Config(sizes=(20, 60))
    found = np.array([[0.3, 0.1], [0.1, 0.1]])
    small = calibration_bias.measured(found, "mass", config, 0.1, 0)
    expected = {"bias": 0.1, "distance": 0.1, "spread": 0.1, "error": 0.02**0.5, "worse": 0.75, "beyond": 0.1}
    expected |= {"square_bias": 0.04, "beyond_square": 0.04, "unfair": 0.1, "unfair_square": 0.04, "smaller": 20}
    assert small == pytest.approx(expected | {"truth": 0.1})
    large = calibration_bias.measured(found, "mass", config, 0.1, 1)
    assert large == pytest.approx(
        {"truth": 0.1, "bias": 0.0, "distance": 0.0, "spread": 0.0, "error": 0.0, "square_bias": 0.0}, abs=1e-12
    )
    squared = calibration_bias.measured(found**2 - 0.02, "squared", config, 0.1, 0)
    assert squared["square_bias"] == pytest.approx(0.02)
    assert "bias" not in squared


@pytest.mark.slow
def test_records_are_means_over_audits_of_what_the_library_says_of_each(tmp_path):
    flags = ["--seeds=2", "--curves=slightly_off", "--sizes=20,60", "--bins=5", "--repetitions=4", "--at_once=4"]
    assert calibration_bias.main([*flags, f"--runs_dir={tmp_path}", "--id=a"]) == 0
    records = study.read(tmp_path / "a" / "records.jsonl")
    curve = calibration_bias.CURVES["slightly_off"]
    key = jax.random.fold_in(jax.random.key(1), tuple(calibration_bias.CURVES).index("slightly_off"))
    confidence, correct = map(np.asarray, calibration.draw(curve, key, (4, 80)))
    errors = {
        "width": lambda *rows: metrics.ece(*rows, bins=5, binning="width"),
        "mass": lambda *rows: metrics.ece(*rows, bins=5),
        "debiased": lambda *rows: metrics.ece_debiased(*rows, bins=5),
        "sweep": lambda *rows: metrics.ece_sweep(*rows).error,
    }
    for method, error in errors.items():
        for size, rows in ((20, slice(20)), (60, slice(20, 80))):
            (record,) = study.chosen(records, method=method, size=size, seed=1)
            alone = [float(error(confidence[r, rows], correct[r, rows])[0]) for r in range(4)]
            assert record["bias"] == pytest.approx(np.mean(alone) - calibration.true_error(curve), abs=1e-5)
    # Of five bins and twenty people of whom four in five are right, chance alone makes some twenty points.
    assert study.over_seeds(records, "bias", method="mass", size=20).mean > 0.1
