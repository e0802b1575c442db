r"""Factorial designs: many factors in few cells, the linear model of what came out, and what such a design cannot tell.

Each factor has its levels, the first of which is what the others are measured against. A *setting* is a dict of a level
for each factor; a *design* is a list of settings. The model of a response y over R settings is

.. math:: y_r = \beta_0 + \sum_f c_f(r)^\top \beta_f + \sum_{(f, g)} \big(c_f(r) \otimes c_g(r)\big)^\top \beta_{fg}

with :math:`c_f` the L - 1 orthonormal contrasts of a factor of L levels, and some of the two-factor interactions. Least
squares takes the errors for independent and of one variance; an interaction that is not in the model is noise to it.

In a fraction of all combinations, main effects are aliased with interactions: :func:`aliasing` says which, and how far.

References:
  Wu and Hamada, Experiments: Planning, Analysis, and Optimization, 2009, chapters 5 and 7.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from jaxfair.study._design import Levels as Levels
from jaxfair.study._design import read as read

#: A level of each factor, by its name.
Setting = Mapping[str, Any]
#: Factors that are looked at together.
Pairs = Sequence[tuple[str, str]]


class Fit(NamedTuple):
    """A linear model of a response; made by :func:`fit`.

    Attributes:
      levels: of the factors.
      interactions: that are in the model.
      terms: P names, of each column: a factor, or ``"a x b"``.
      beta: ``[P]``.
      covariance: ``[P, P]``, of ``beta``.
      df: residual degrees of freedom, R - P.
      residual: variance of the residuals.
      matrix: ``[R, P]``.
      response: ``[R]``.
    """

    levels: Levels
    interactions: Pairs
    terms: list[str]
    beta: np.ndarray
    covariance: np.ndarray
    df: int
    residual: float
    matrix: np.ndarray
    response: np.ndarray


class Effect(NamedTuple):
    """What a level does in place of its factor's first, over all levels of the other factors.

    Attributes:
      factor: whose.
      level: which.
      against: the first level.
      value: difference of the response.
      low: end of its t interval.
      high: the other end.
    """

    factor: str
    level: Any
    against: Any
    value: float
    low: float
    high: float


class Term(NamedTuple):
    """The F test of a term: what the model loses without it.

    Attributes:
      term: a factor, or ``"a x b"``.
      df: its degrees of freedom.
      ratio: the F statistic.
      p: the chance of such a ratio without an effect.
    """

    term: str
    df: int
    ratio: float
    p: float


def contrasts(levels: Sequence[Any], values: Sequence[Any]) -> Float[np.ndarray, "R C"]:
    """Orthonormal polynomial contrasts of a factor, the linear one first, as for levels that are equally far apart.

    Args:
      levels: L of them, in their order.
      values: R of them.

    Returns:
      ``[R, L - 1]``. Over all levels once, each column has the mean 0 and the mean square 1.

    Example:
      >>> contrasts((0.01, 0.1, 1.0), (1.0, 0.01)).round(3).tolist()
      [[1.225, 0.707], [-1.225, 0.707]]
    """
    count = len(levels)
    power = np.arange(count)[:, None] ** np.arange(count)
    basis = np.linalg.qr(power.astype(float))[0] * np.sqrt(count)
    basis *= np.sign(basis[-1])
    return basis[[list(levels).index(v) for v in values]][:, 1:]


def model_matrix(settings: Sequence[Setting], levels: Levels, interactions: Pairs = ()) -> tuple[np.ndarray, list[str]]:
    """The columns of the model: the intercept, all main effects, and the interactions.

    Args:
      settings: R of them.
      levels: of each factor.
      interactions: pairs of factors.

    Returns:
      ``[R, P]``, and the term of each column.

    Example:
      >>> levels = {"mean": ("uniform", "prevalence"), "margin": (1.0, 0.5)}
      >>> matrix, terms = model_matrix([{"mean": "prevalence", "margin": 1.0}], levels, [("mean", "margin")])
      >>> matrix.round(6).tolist(), terms
      ([[1.0, 1.0, -1.0, -1.0]], ['mean of all', 'mean', 'margin', 'mean x margin'])
    """
    columns, terms = [np.ones((len(settings), 1))], ["mean of all"]
    coded = {name: contrasts(of, [s[name] for s in settings]) for name, of in levels.items()}
    for name, block in coded.items():
        columns.append(block)
        terms += [name] * block.shape[1]
    for a, b in interactions:
        block = np.einsum("ri,rj->rij", coded[a], coded[b]).reshape(len(settings), -1)
        columns.append(block)
        terms += [f"{a} x {b}"] * block.shape[1]
    return np.concatenate(columns, axis=1), terms


def fit(
    settings: Sequence[Setting],
    response: Float[np.ndarray, " R"],
    levels: Levels,
    interactions: Pairs = (),
) -> Fit | None:
    """Ordinary least squares with the interactions; without them where the settings are too few.

    Args:
      settings: R of them.
      response: ``[R]``.
      levels: of each factor.
      interactions: pairs of factors.

    Returns:
      The fit; None where even the main effects leave less than two degrees of freedom.

    Example:
      >>> from jaxfair import study
      >>> levels = {"a": (0, 1), "b": (0, 1, 2)}
      >>> settings = study.grid(**levels)
      >>> found = fit(settings, np.array([2.0 * s["a"] + s["b"] for s in settings]), levels)
      >>> [(e.factor, e.level, round(e.value, 6)) for e in effects(found)]
      [('a', 1, 2.0), ('b', 1, 1.0), ('b', 2, 2.0)]
    """
    for pairs in dict.fromkeys([tuple(interactions), ()]):
        matrix, terms = model_matrix(settings, levels, pairs)
        df = len(matrix) - matrix.shape[1]
        if df < 2 or np.linalg.matrix_rank(matrix) < matrix.shape[1]:
            continue
        inverse = np.linalg.inv(matrix.T @ matrix)
        beta = inverse @ matrix.T @ response
        residual = float(np.sum((response - matrix @ beta) ** 2) / df)
        return Fit(levels, pairs, terms, beta, residual * inverse, df, residual, matrix, np.asarray(response))
    return None


def effects(found: Fit, level: float = 0.95) -> list[Effect]:
    """Every level of every factor against the factor's first, with a t interval.

    Args:
      found: the fit.
      level: of the intervals.

    Example:
      See :func:`fit`. An interval without 0 is an effect:

      >>> from jaxfair import study
      >>> levels = {"a": (0, 1), "b": (0, 1, 2, 3)}
      >>> settings = study.grid(**levels)
      >>> noise = np.array([0.1, -0.1, 0.0, 0.0, -0.1, 0.1, 0.0, 0.0])
      >>> effect = effects(fit(settings, noise + [s["a"] for s in settings], levels))[0]
      >>> effect.low > 0, effects(fit(settings, noise, levels))[0].low < 0
      (True, True)
    """
    quantile = float(special.stdtrit(found.df, 0.5 + level / 2))
    listed = []
    for factor, levels in found.levels.items():
        columns = [i for i, term in enumerate(found.terms) if term == factor]
        coded = contrasts(levels, levels)
        part = found.covariance[np.ix_(columns, columns)]
        for value, code in zip(levels[1:], coded[1:], strict=True):
            difference = code - coded[0]
            middle = float(difference @ found.beta[columns])
            half = quantile * math.sqrt(float(difference @ part @ difference))
            listed.append(Effect(factor, value, levels[0], middle, middle - half, middle + half))
    return listed


def f_tests(found: Fit) -> list[Term]:
    """The F test of every term: the model against the one without it.

    Args:
      found: the fit.

    Example:
      >>> from jaxfair import study
      >>> levels = {"a": (0, 1), "b": (0, 1, 2, 3)}
      >>> settings = study.grid(**levels)
      >>> noise = np.array([0.1, -0.1, 0.0, 0.0, -0.1, 0.1, 0.0, 0.0])
      >>> [(t.term, t.df, t.p < 0.01) for t in f_tests(fit(settings, noise + [s["a"] for s in settings], levels))]
      [('a', 1, True), ('b', 3, False)]
    """
    # A model that fits exactly leaves rounding for noise, as does a response that is the same everywhere.
    spread = found.response - found.response.mean()
    noise = max(found.residual, 1e-12 * float(spread @ spread), 1e-24 * float(found.response @ found.response))
    listed = []
    for term in dict.fromkeys(found.terms[1:]):
        kept = [i for i, other in enumerate(found.terms) if other != term]
        degrees = len(found.terms) - len(kept)
        reduced = found.matrix[:, kept]
        rest = found.response - reduced @ np.linalg.lstsq(reduced, found.response)[0]
        extra = float(rest @ rest) - found.residual * found.df
        ratio = extra / degrees / noise if noise != 0 else 0.0
        listed.append(Term(term, degrees, ratio, float(special.fdtrc(degrees, found.df, ratio))))
    return listed


def least(found: Fit, without: Sequence[Setting] = ()) -> dict[str, Any] | None:
    """The setting, of all combinations, for which the model predicts the least response.

    Args:
      found: the fit.
      without: settings that are not asked for.

    Returns:
      The setting; None where every combination is in ``without``.

    Example:
      >>> from jaxfair import study
      >>> levels = {"a": (0, 1), "b": (0, 1, 2)}
      >>> settings = study.grid(**levels)
      >>> found = fit(settings, np.array([s["a"] - 2.0 * s["b"] for s in settings]), levels)
      >>> least(found), least(found, without=[{"a": 0, "b": 2}])
      ({'a': 0, 'b': 2}, {'a': 1, 'b': 2})
    """
    every = [dict(zip(found.levels, values, strict=True)) for values in itertools.product(*found.levels.values())]
    matrix, _ = model_matrix(every, found.levels, found.interactions)
    ranked = (every[i] for i in np.argsort(matrix @ found.beta, kind="stable"))
    return next((setting for setting in ranked if setting not in list(without)), None)


def aliasing(settings: Sequence[Setting], levels: Levels) -> dict[tuple[str, str], float]:
    """How far main effects are aliased with two-factor interactions.

    Args:
      settings: the design.
      levels: of each factor.

    Returns:
      (factor, ``"a x b"``) to the largest correlation of their contrasts, where it is not 0. At 1 the two cannot be
      told apart.

    Example:
      Half of the eight combinations of three factors, those of even parity:

      >>> settings = [dict(zip("abc", bits)) for bits in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0))]
      >>> {k: round(v, 6) for k, v in aliasing(settings, dict.fromkeys("abc", (0, 1))).items()}
      {('a', 'b x c'): 1.0, ('b', 'a x c'): 1.0, ('c', 'a x b'): 1.0}
    """
    matrix, terms = model_matrix(settings, levels, list(itertools.combinations(levels, 2)))
    scaled = matrix / np.linalg.norm(matrix, axis=0).clip(1e-12)
    found: dict[tuple[str, str], float] = {}
    for i, term in enumerate(terms):
        for j, other in enumerate(terms):
            if term in levels and " x " in other and term not in other.split(" x "):
                size = abs(float(scaled[:, i] @ scaled[:, j]))
                if size > 1e-9:
                    found[term, other] = max(size, found.get((term, other), 0.0))
    return found
