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
from jaxfair.metrics._grouped import accuracy, correct, effective_counts, group_counts, group_means, group_sums
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
from jaxfair.metrics._recalls import coverage, g_mean, h_mean, head_tail_recall, mean_recall, min_recall
from jaxfair.metrics._seeds import Interval, paired_difference, t_interval
from jaxfair.metrics._streams import (
    GroupMoments,
    Stream,
    group_moments,
    stream_confusion,
    stream_moments,
    stream_multilabel_confusion,
)
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
from jaxfair.metrics.calibration import (
    CalibrationChanges,
    Reliability,
    Sweep,
    TopLabel,
    calibration_changes,
    ece,
    ece_debiased,
    ece_squared,
    ece_sweep,
    reliability,
    top_label,
)
from jaxfair.metrics.cell_thresholds import cell_thresholds
from jaxfair.metrics.certificate import Certificate, certificate
from jaxfair.metrics.confusion import ConfusionRates, confusion, confusion_rates, multilabel_confusion, one_against_rest
from jaxfair.metrics.difference import difference, equalized_odds_difference, equalized_odds_ratio, ratio
from jaxfair.metrics.exemplars import (
    Exemplars,
    NoiseFloor,
    exemplars,
    noise_floor,
)
from jaxfair.metrics.group_auc import group_auc
from jaxfair.metrics.leaning import Leaning, leaning
from jaxfair.metrics.memorisation import (
    GroupMemorisation,
    Memorisation,
    group_memorisation,
    memorisation,
)
from jaxfair.metrics.memorised_bias import (
    MemorisedBias,
    MemorisedMass,
    memorised_bias,
    memorised_mass,
    parity_mass,
    zero_bias_residuals,
)
from jaxfair.metrics.metric_gain import metric_gain
from jaxfair.metrics.pepr import PeprCohort, pairs_overturned, pepr, pepr_cohort
from jaxfair.metrics.prediction_changes import PredictionChanges, prediction_changes
from jaxfair.metrics.regression_errors import RegressionErrors, regression_errors, stream_regression
from jaxfair.metrics.representation import Representation, representation, representation_ratio
from jaxfair.metrics.shapley import Importance, Players, Shapley, importance, players, shapley
from jaxfair.metrics.share_intervals import (
    ChangeIntervals,
    ShareIntervals,
    prediction_change_intervals,
    share_intervals,
)

__all__ = [
    "CANNOT_TELL",
    "HOLDS",
    "VIOLATED",
    "AccuracyGaps",
    "Amplification",
    "Bounds",
    "CalibrationChanges",
    "Certificate",
    "ChangeIntervals",
    "Changes",
    "ConfusionRates",
    "Exemplars",
    "GapInference",
    "GroupMemorisation",
    "GroupMoments",
    "Importance",
    "Interval",
    "Leaning",
    "Memorisation",
    "MemorisedBias",
    "MemorisedMass",
    "NoiseFloor",
    "NormalisedChange",
    "NullGap",
    "PeprCohort",
    "Players",
    "PopulationRates",
    "PredictionChanges",
    "Rates",
    "RegressionErrors",
    "Reliability",
    "Representation",
    "Shapley",
    "ShareIntervals",
    "Stream",
    "Sweep",
    "TopLabel",
    "Welch",
    "accuracy",
    "accuracy_gap",
    "accuracy_gaps",
    "amplification",
    "bounded_mean_interval",
    "calibration_changes",
    "cell_thresholds",
    "certificate",
    "clopper_pearson",
    "confusion",
    "confusion_rates",
    "correct",
    "count_changes",
    "coverage",
    "difference",
    "disparity",
    "ece",
    "ece_debiased",
    "ece_squared",
    "ece_sweep",
    "effective_counts",
    "equalized_odds_difference",
    "equalized_odds_ratio",
    "exact_gap_interval",
    "exact_gap_test",
    "excess_accuracy_gap",
    "exemplars",
    "false_positive_rate",
    "g_mean",
    "group_auc",
    "group_counts",
    "group_means",
    "group_memorisation",
    "group_moments",
    "group_rates",
    "group_sums",
    "h_mean",
    "head_tail_recall",
    "importance",
    "infer",
    "largest_loss",
    "leaning",
    "matched_thresholds",
    "max_excess_accuracy_gap",
    "mcnemar",
    "mean_recall",
    "memorisation",
    "memorised_bias",
    "memorised_mass",
    "metric_gain",
    "min_recall",
    "multilabel_confusion",
    "noise_floor",
    "normalised_change",
    "one_against_rest",
    "paired_bootstrap",
    "paired_difference",
    "pairs_overturned",
    "parity_mass",
    "people_needed",
    "people_to_judge",
    "pepr",
    "pepr_cohort",
    "players",
    "population_rates",
    "prediction_change_intervals",
    "prediction_changes",
    "rate_changes",
    "ratio",
    "regression_errors",
    "reliability",
    "representation",
    "representation_ratio",
    "selection_rate",
    "shapley",
    "share_intervals",
    "sign_flip_null",
    "smallest_visible_gap",
    "stream_confusion",
    "stream_moments",
    "stream_multilabel_confusion",
    "stream_regression",
    "t_interval",
    "top_label",
    "transfer",
    "true_positive_rate",
    "verdict",
    "violation",
    "welch_test",
    "worst_group",
    "zero_bias_residuals",
]
