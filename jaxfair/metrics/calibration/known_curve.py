r"""A model whose calibration is known: to see by how much an estimator is off.

Confidences are Beta, and how often people of confidence f are predicted rightly is a generalised linear model of f::

    f ~ Beta(a, b),  or 1 with chance q,     link(P(right | f)) = intercept + slope link(f)

with the links logit, log, and log-flip, ``link(f) = log(1 - f)``. An intercept of 0 and a slope of 1 are a model that
is perfectly calibrated, by any of them. The true calibration error is an integral::

    TCE_p = ( E |f - P(right | f)|^p )^(1/p)

taken over quantiles of the Beta law by the midpoint rule. Where a chance would exceed 1, as with the log link it may,
it is 1.

Source: Roelofs, Cain, Shlens and Mozer, `Mitigating bias in calibration error estimation
<https://arxiv.org/abs/2012.08668>`_, AISTATS 2022, who fit such curves to networks on CIFAR and ImageNet.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from jaxfair.typing import Array, Key

# Of the midpoint rule: with kinks, and powers at the ends, it is right to about six digits.
_POINTS = 2**16
_LINKS = ("logit", "log", "logflip")


class KnownCurve(NamedTuple):
    """Who is how sure, and how often right.

    Attributes:
      a: of Beta(a, b).
      b: of it.
      intercept: of the accuracy, in units of the link.
      slope: of it.
      link: "logit", "log" or "logflip".
      at_one: the share of people about whom the model is sure by 1.

    Example:
      A model that is sure by 0.8 on average and right nine times of ten as often as it says:

      >>> curve = KnownCurve(4.0, 1.0, intercept=np.log(0.9), link="log")
      >>> round(true_error(curve, p=1), 4)              # 0.1 E f
      0.08
    """

    a: float
    b: float
    intercept: float = 0
    slope: float = 1
    link: str = "logit"
    at_one: float = 0


def expected_accuracy(curve: KnownCurve, confidence: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """How often people of these confidences are predicted rightly.

    Raises:
      ValueError: for a link that there is not.

    Example:
      >>> expected_accuracy(KnownCurve(4.0, 1.0, slope=0.0), jnp.array([0.2, 0.9])).tolist()
      [0.5, 0.5]
    """
    sure = jnp.log(confidence), jnp.log1p(-confidence)
    if curve.link == "logit":
        # Where one of the two is infinite, so is the logit; a slope of 0 makes nan of it, which is its limit, 0.
        steep = curve.slope * (sure[0] - sure[1]) if curve.slope else jnp.zeros_like(confidence)
        return jax.nn.sigmoid(curve.intercept + steep)
    if curve.link not in _LINKS:
        raise ValueError(f"link={curve.link!r}: choose from {', '.join(_LINKS)}")
    one = sure[0] if curve.link == "log" else sure[1]
    part = jnp.minimum(jnp.exp(curve.intercept + (curve.slope * one if curve.slope else jnp.zeros_like(one))), 1)
    return part if curve.link == "log" else 1 - part


def draw(curve: KnownCurve, key: Key, shape: tuple[int, ...]) -> tuple[Float[Array, "*n"], Bool[Array, "*n"]]:
    """People of a model: their confidences, and whether each was predicted rightly.

    Args:
      curve: of the model.
      key: of the people.
      shape: how many.

    Example:
      >>> confidence, correct = draw(KnownCurve(4.0, 1.0), jax.random.key(0), (10_000,))
      >>> round(float(confidence.mean()), 1), round(float(correct.mean()), 1)
      (0.8, 0.8)
    """
    beta, one, right = jax.random.split(key, 3)
    confidence = jax.random.beta(beta, curve.a, curve.b, shape)
    if curve.at_one:
        confidence = jnp.where(jax.random.uniform(one, shape) < curve.at_one, 1.0, confidence)
    return confidence, jax.random.uniform(right, shape) < expected_accuracy(curve, confidence)


def true_error(curve: KnownCurve, p: float | int = 2) -> float:
    """TCE_p, the error that all estimators estimate.

    Args:
      curve: of the model.
      p: of the norm.

    Example:
      >>> [round(true_error(KnownCurve(2.0, 1.0, slope=slope)), 3) for slope in (1.0, 0.5)]
      [0.0, 0.107]
    """
    inside = special.betaincinv(curve.a, curve.b, (np.arange(_POINTS) + 0.5) / _POINTS)
    points = np.append(inside, 1.0)
    with np.errstate(divide="ignore"):
        gap = np.abs(points - _in_float64(curve, points)) ** p
    return float(((1 - curve.at_one) * gap[:-1].mean() + curve.at_one * gap[-1]) ** (1 / p))


def _in_float64(curve: KnownCurve, points: np.ndarray) -> np.ndarray:
    """:func:`expected_accuracy` on the host."""
    with jax.enable_x64(True):
        return np.asarray(expected_accuracy(curve, jnp.asarray(points, jnp.float64)))
