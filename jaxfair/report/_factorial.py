"""Tables and a figure of factorial designs: the fits of several data sets side by side."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxfair.report import figures
from jaxfair.report._extra import need
from jaxfair.study import factorial


def say_effect(effect: factorial.Effect, *, of: Callable[[float], float] = float, spec: str = "+.2f") -> str:
    """An effect with its interval.

    Args:
      effect: of :func:`jaxfair.study.factorial.effects`.
      of: what is shown of a value: ``lambda v: 2.0**v`` makes factors of logarithms.
      spec: the format of a number.

    Example:
      >>> effect = factorial.Effect("mean", "prevalence", "uniform", -1.0, -2.0, 0.0)
      >>> say_effect(effect, of=lambda v: 2.0**v, spec=".2f")
      '0.50 (0.25 to 1.00)'
    """
    value, low, high = (format(of(v), spec) for v in (effect.value, effect.low, effect.high))
    return f"{value} ({low} to {high})"


def effects_table(fits: Mapping[str, factorial.Fit], **shown: Any) -> Any:
    """Every level against its factor's first: a row per level, a column per data set.

    Args:
      fits: by the titles of the columns.
      **shown: of :func:`say_effect`.

    Returns:
      A DataFrame of text.

    Example:
      >>> import numpy as np
      >>> from jaxfair import study
      >>> levels = {"a": (0, 1), "b": (0, 1, 2)}
      >>> settings = study.grid(**levels)
      >>> fit = factorial.fit(settings, np.array([2.0 * s["a"] for s in settings]), levels)
      >>> effects_table({"digits": fit}).iloc[0].tolist()
      ['a', '1 (against 0)', '+2.00 (+2.00 to +2.00)']
    """
    rows: dict[Any, dict[str, str]] = {}
    for title, fit in fits.items():
        for e in factorial.effects(fit):
            row = {"factor": e.factor, "level": f"{e.level} (against {e.against})"}
            rows.setdefault((e.factor, e.level), row)[title] = say_effect(e, **shown)
    return need("pandas").DataFrame(list(rows.values())).fillna("–")


def terms_table(fits: Mapping[str, factorial.Fit]) -> Any:
    """F tests of all terms: a row per term, a column per data set.

    Args:
      fits: by the titles of the columns.

    Returns:
      A DataFrame of text.

    Example:
      >>> import numpy as np
      >>> from jaxfair import study
      >>> levels = {"a": (0, 1), "b": (0, 1, 2)}
      >>> settings = study.grid(**levels)
      >>> fit = factorial.fit(settings, np.array([0.0, 0.1, 0.0, 2.0, 2.0, 2.1]), levels)
      >>> terms_table({"digits": fit})["digits"].tolist()
      ['1200.0 (p < 0.001)', '0.3 (p = 0.750)']
    """
    rows: dict[str, dict[str, Any]] = {}
    for title, fit in fits.items():
        for t in factorial.f_tests(fit):
            p = "p < 0.001" if t.p < 0.001 else f"p = {t.p:.3f}"
            row = rows.setdefault(t.term, {"term": t.term, "df": t.df})
            row[title] = f"{t.ratio:.1f} ({p})"
    return need("pandas").DataFrame(list(rows.values())).fillna("–")


def effects_figure(fits: Mapping[str, factorial.Fit], *, of: Callable[[float], float] = float, **drawn: Any) -> Any:
    """Every level against its factor's first, as a figure.

    Args:
      fits: by the titles of the panels.
      of: what is shown of a value, as in :func:`say_effect`.
      **drawn: of :func:`jaxfair.report.figures.forest`: ``label``, ``none``, ``base``.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> import numpy as np
      >>> from jaxfair import study
      >>> levels = {"a": (0, 1), "b": (0, 1, 2)}
      >>> settings = study.grid(**levels)
      >>> fit = factorial.fit(settings, np.array([2.0 * s["a"] for s in settings]), levels)
      >>> figure = effects_figure({"digits": fit}, label="points", none=0.0, base=None)
      >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
      ['a: 1', 'b: 1', 'b: 2']
    """
    panels = {
        title: {f"{e.factor}: {e.level}": (of(e.low), of(e.value), of(e.high)) for e in factorial.effects(fit)}
        for title, fit in fits.items()
    }
    return figures.forest(panels, **drawn)
