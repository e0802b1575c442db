"""Calibration: whether a model is right as often as it says, group by group, and how far chance blurs the answer."""

from jaxfair.metrics.calibration.calibration_changes import CalibrationChanges as CalibrationChanges
from jaxfair.metrics.calibration.calibration_changes import calibration_changes as calibration_changes
from jaxfair.metrics.calibration.ece import ece as ece
from jaxfair.metrics.calibration.ece import ece_debiased as ece_debiased
from jaxfair.metrics.calibration.ece import ece_squared as ece_squared
from jaxfair.metrics.calibration.ece_sweep import Sweep as Sweep
from jaxfair.metrics.calibration.ece_sweep import ece_sweep as ece_sweep
from jaxfair.metrics.calibration.known_curve import KnownCurve as KnownCurve
from jaxfair.metrics.calibration.known_curve import draw as draw
from jaxfair.metrics.calibration.known_curve import expected_accuracy as expected_accuracy
from jaxfair.metrics.calibration.known_curve import true_error as true_error
from jaxfair.metrics.calibration.reliability import Reliability as Reliability
from jaxfair.metrics.calibration.reliability import TopLabel as TopLabel
from jaxfair.metrics.calibration.reliability import reliability as reliability
from jaxfair.metrics.calibration.reliability import top_label as top_label
