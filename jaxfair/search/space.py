"""The settings that a search is over: real numbers, integers and choices, each with its place in the unit cube.

A `Choice` of n has n coordinates, of which the largest chooses; every other setting has one. Points of the cube are
rounded to those that stand for a setting (`snapped`) before a model sees them, or it would tell apart what is the same.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.typing import Array


class Real(NamedTuple):
    """A number between two bounds.

    Attributes:
      low: bound.
      high: bound.
      log: whether factors matter, as of a learning rate, and not differences.

    Example:
      >>> decoded({"rate": Real(1e-4, 1e-2, log=True)}, np.array([[0.0], [0.5], [1.0]]))["rate"].round(6).tolist()
      [0.0001, 0.001, 0.01]
    """

    low: float
    high: float
    log: bool = False


class Integer(NamedTuple):
    """A whole number between two bounds, both of which it may be.

    Attributes:
      low: bound.
      high: bound.

    Example:
      >>> decoded({"layers": Integer(1, 3)}, np.array([[0.0], [0.4], [1.0]]))["layers"].tolist()
      [1, 2, 3]
    """

    low: int
    high: int


class Choice(NamedTuple):
    """One of several values that have no order.

    Attributes:
      values: of any kind.

    Example:
      >>> decoded({"optimizer": Choice(("sgd", "adam"))}, np.array([[0.2, 0.7], [1.0, 0.0]]))["optimizer"].tolist()
      ['adam', 'sgd']
    """

    values: tuple[Any, ...]


#: What is searched: the kind of each setting, by its name.
Space: TypeAlias = Mapping[str, Real | Integer | Choice]


def check(space: Space) -> None:
    """Whether there is something to search.

    Raises:
      ValueError: naming the setting.

    Example:
      >>> check({"rate": Real(0.1, 0.001)})
      Traceback (most recent call last):
      ValueError: rate: low=0.1 is not below high=0.001: swap them
    """
    if not space:
        raise ValueError("a space of no settings: give one, such as {'rate': search.Real(1e-4, 1e-1, log=True)}")
    for name, of in space.items():
        if isinstance(of, Choice):
            if len(of.values) < 2 or len(set(map(repr, of.values))) < len(of.values):
                raise ValueError(f"{name}: values={of.values}: two or more different ones are a choice")
            continue
        if not (math.isfinite(of.low) and math.isfinite(of.high)):
            raise ValueError(f"{name}: low={of.low}, high={of.high}: both must be finite")
        if not of.low < of.high:
            then = "swap them" if of.low > of.high else "a setting that cannot vary is none"
            raise ValueError(f"{name}: low={of.low} is not below high={of.high}: {then}")
        if isinstance(of, Real) and of.log and of.low <= 0:
            raise ValueError(f"{name}: low={of.low} with log=True: a factor starts above 0")
        if isinstance(of, Integer) and not (float(of.low).is_integer() and float(of.high).is_integer()):
            raise ValueError(f"{name}: low={of.low}, high={of.high}: whole numbers")


def widths(space: Space) -> list[int]:
    """How many coordinates of the cube each setting has."""
    return [len(of.values) if isinstance(of, Choice) else 1 for of in space.values()]


def jumps(space: Space) -> np.ndarray:
    """``[D]`` bool: coordinates in which a small move changes nothing: choices, and whole numbers of few values."""
    few = [isinstance(of, Choice) or (isinstance(of, Integer) and of.high - of.low < 8) for of in space.values()]
    return np.repeat(few, widths(space))


def snapped(space: Space, x: Array) -> Array:
    """The point ``[D]`` that stands for the setting at x.

    Example:
      Whole numbers have cells of one width, with the points in their middles:

      >>> mixed = {"layers": Integer(1, 4), "optimizer": Choice(("sgd", "adam"))}
      >>> snapped(mixed, jnp.array([0.3, 0.2, 0.7])).tolist()
      [0.375, 0.0, 1.0]
    """
    parts, at = [], 0
    for of, width in zip(space.values(), widths(space), strict=True):
        part = x[at : at + width]
        at += width
        if isinstance(of, Choice):
            part = jax.nn.one_hot(jnp.argmax(part), width, dtype=x.dtype)
        elif isinstance(of, Integer):
            count = of.high - of.low + 1
            part = (jnp.minimum(jnp.floor(part * count), count - 1) + 0.5) / count
        parts.append(part)
    return jnp.concatenate(parts)


def decoded(space: Space, x: Any) -> dict[str, np.ndarray]:
    """The settings at points ``[Q, D]``: ``name -> [Q]``, zipped.

    Example:
      >>> space = {"rate": Real(0.0, 2.0), "layers": Integer(1, 4), "optimizer": Choice(("sgd", "adam"))}
      >>> {name: column.tolist() for name, column in decoded(space, np.array([[0.25, 0.9, 0.2, 0.7]])).items()}
      {'rate': [0.5], 'layers': [4], 'optimizer': ['adam']}
    """
    x, at = np.asarray(x, np.float64), 0
    settings: dict[str, np.ndarray] = {}
    for (name, of), width in zip(space.items(), widths(space), strict=True):
        part = x[:, at : at + width]
        at += width
        if isinstance(of, Choice):
            settings[name] = column(of.values)[part.argmax(-1)]
        elif isinstance(of, Integer):
            count = of.high - of.low + 1
            settings[name] = of.low + np.minimum(np.floor(part[:, 0] * count), count - 1).astype(np.int64)
        elif of.log:
            low, high = math.log(of.low), math.log(of.high)
            settings[name] = np.exp(low + (high - low) * part[:, 0]).clip(of.low, of.high)
        else:
            settings[name] = (of.low + (of.high - of.low) * part[:, 0]).clip(of.low, of.high)
    return settings


def column(values: Any) -> np.ndarray:
    """As plain numbers or strings where all are of one such type; NumPy would make strings of numbers beside them.

    Example:
      >>> [column(values).dtype.kind for values in ((1, 2), ("a", "b"), ("a", 2), ((64,), (32, 32)))]
      ['i', 'U', 'O', 'O']
    """
    kinds = set(map(type, values))
    if len(kinds) == 1 and kinds <= {str, bool, int, float}:
        return np.array(values)
    several = np.empty(len(values), object)
    for place, value in enumerate(values):
        several[place] = value
    return several


def encoded(space: Space, settings: Mapping[str, Any]) -> np.ndarray:
    """The points ``[Q, D]`` of settings ``name -> [Q]``: the inverse of `decoded`, where these are within their bounds.

    Raises:
      ValueError: for a setting that is missing, or outside of its bounds.

    Example:
      >>> space = {"rate": Real(1e-4, 1e-2, log=True), "optimizer": Choice(("sgd", "adam"))}
      >>> encoded(space, {"rate": [1e-3], "optimizer": ["adam"]}).round(6).tolist()
      [[0.5, 0.0, 1.0]]
    """
    if set(settings) != set(space):
        raise ValueError(f"settings {sorted(settings)}: give {sorted(space)}, and no others")
    lengths = {name: np.shape(values)[0] if np.ndim(values) else 0 for name, values in settings.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        raise ValueError(f"settings of {lengths} values each: give a list of as many for each name")
    columns = []
    for name, of in space.items():
        for value in settings[name]:
            inside = value in of.values if isinstance(of, Choice) else of.low <= value <= of.high
            if isinstance(of, Integer) and inside and value != int(value):
                raise ValueError(f"{name}={value}: a whole number from {of.low} to {of.high}")
            if not inside:
                bounds = of.values if isinstance(of, Choice) else f"{of.low} to {of.high}"
                raise ValueError(f"{name}={value}: outside of what is searched, {bounds}")
        if isinstance(of, Choice):
            which = [of.values.index(value) for value in settings[name]]
            columns.append(np.eye(len(of.values))[which])
            continue
        values = np.asarray(settings[name], np.float64)[:, None]
        if isinstance(of, Integer):
            columns.append((values - of.low + 0.5) / (of.high - of.low + 1))
        elif of.log:
            columns.append(np.log(values / of.low) / math.log(of.high / of.low))
        else:
            columns.append((values - of.low) / (of.high - of.low))
    return np.concatenate(columns, 1)
