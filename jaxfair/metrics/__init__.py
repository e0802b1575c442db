"""What is measured: pure functions of arrays.

Grouped sums, gaps and rates run in JAX and may be jitted. Inference (intervals, tests, verdicts)
runs once per audit, on the host, in float64.
"""

from jaxfair.metrics._bootstrap import GapInference, infer, paired_bootstrap
from jaxfair.metrics._changes import Changes, count_changes
from jaxfair.metrics._decisions import (
    CANNOT_TELL,
    HOLDS,
    VIOLATED,
    transfer,
    verdict,
    worst_group,
)
from jaxfair.metrics._exact import (
    Bounds,
    bounded_mean_interval,
    clopper_pearson,
    mcnemar,
)
from jaxfair.metrics._fairness import (
    Rates,
    false_positive_rate,
    group_rates,
    rate_changes,
    selection_rate,
    true_positive_rate,
)
from jaxfair.metrics._grouped import accuracy, correct, group_counts, group_means, group_sums
from jaxfair.metrics._null import NullGap, sign_flip_null
from jaxfair.metrics._paired import exact_gap_interval, exact_gap_test
from jaxfair.metrics._populations import (
    NormalisedChange,
    PopulationRates,
    Welch,
    normalised_change,
    population_rates,
    welch_test,
)
from jaxfair.metrics._power import people_needed, people_to_judge, smallest_visible_gap
from jaxfair.metrics._seeds import Interval, paired_difference, t_interval
from jaxfair.metrics.accuracy_gaps import (
    AccuracyGaps,
    accuracy_gap,
    accuracy_gaps,
    disparity,
    excess_accuracy_gap,
    largest_loss,
    max_excess_accuracy_gap,
    violation,
)
from jaxfair.metrics.amplification import Amplification, amplification, matched_thresholds
from jaxfair.metrics.cell_thresholds import cell_thresholds
from jaxfair.metrics.certificate import Certificate, certificate
from jaxfair.metrics.exemplars import (
    Exemplars,
    NoiseFloor,
    exemplars,
    noise_floor,
)
from jaxfair.metrics.prediction_changes import PredictionChanges, prediction_changes
from jaxfair.metrics.representation import Representation, representation, representation_ratio

__all__ = [
    "CANNOT_TELL",
    "HOLDS",
    "VIOLATED",
    "AccuracyGaps",
    "Amplification",
    "Bounds",
    "Certificate",
    "Changes",
    "Exemplars",
    "GapInference",
    "Interval",
    "NoiseFloor",
    "NormalisedChange",
    "NullGap",
    "PopulationRates",
    "PredictionChanges",
    "Rates",
    "Representation",
    "Welch",
    "accuracy",
    "accuracy_gap",
    "accuracy_gaps",
    "amplification",
    "bounded_mean_interval",
    "cell_thresholds",
    "certificate",
    "clopper_pearson",
    "correct",
    "count_changes",
    "disparity",
    "exact_gap_interval",
    "exact_gap_test",
    "excess_accuracy_gap",
    "exemplars",
    "false_positive_rate",
    "group_counts",
    "group_means",
    "group_rates",
    "group_sums",
    "infer",
    "largest_loss",
    "matched_thresholds",
    "max_excess_accuracy_gap",
    "mcnemar",
    "noise_floor",
    "normalised_change",
    "paired_bootstrap",
    "paired_difference",
    "people_needed",
    "people_to_judge",
    "population_rates",
    "prediction_changes",
    "rate_changes",
    "representation",
    "representation_ratio",
    "selection_rate",
    "sign_flip_null",
    "smallest_visible_gap",
    "t_interval",
    "transfer",
    "true_positive_rate",
    "verdict",
    "violation",
    "welch_test",
    "worst_group",
]
