"""The settings of Omega's authors, as they play each method on each of their games.

Source: Ramirez, Sukumaran, Bertrand, Gidel, `Omega: Optimistic EMA Gradients <https://arxiv.org/abs/2306.07905>`_,
2023. ``optimistic_gradient 10`` is a control that they do not have: the optimistic gradient with Omega's effective
optimism.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import optax

from jaxfair.games._methods import METHODS, Method
from jaxfair.games._suite import SETUPS

#: Label -> method, its second parameter.
PUBLISHED: dict[str, tuple[str, float | None]] = {
    "sgd": ("sgd", None),
    "momentum 0.9": ("momentum", 0.9),
    "optimistic_gradient 1": ("optimistic_gradient", 1.0),
    "optimistic_gradient 10": ("optimistic_gradient", 10.0),
    "omega 1": ("omega", 1.0),
    "omegam 1": ("omegam", 1.0),
}
#: On the quadratic-linear game the player with a curvature descends plainly, the other at this share of the rate.
_LINEAR_PLAYER_RATE = 0.5


def published(name: str, label: str) -> tuple[Method, dict[str, float]]:
    """How the authors play a method on a game.

    Args:
      name: one of ``games.SETUPS`` that has a published rate.
      label: one of ``games.PUBLISHED``.

    Returns:
      The method, the same object at each call, and its setting.

    Raises:
      ValueError: for a game that they do not have.

    Example:
      >>> method, setting = published("quadratic", "momentum 0.9")
      >>> method.calls, setting
      (1, {'lr': 0.01, 'decay': 0.9})
    """
    rate, (which, second) = SETUPS[name].published_rate, PUBLISHED[label]
    if rate is None:
        theirs = ", ".join(game for game, setup in SETUPS.items() if setup.published_rate)
        raise ValueError(f"{name!r} is no game of Omega's authors: choose from {theirs}.")
    method = _per_player(which) if name == "quadratic_linear" else METHODS[which]
    setting = {"lr": rate}
    if method.second is not None and second is not None:
        setting[method.second] = second
    return method, setting


@functools.cache
def _per_player(name: str) -> Method:
    """Plain descent for x, the method at half its rate for y; one object, so that a sweep compiles once."""
    make = functools.partial(_x_descends, METHODS[name].make)
    return METHODS[name]._replace(make=make)


def _x_descends(make: Callable[..., Any], lr: Any, **second: Any) -> Any:
    parts: dict[Hashable, Any] = {"x": optax.sgd(lr), "y": make(_LINEAR_PLAYER_RATE * lr, **second)}
    return optax.partition(parts, {"x": "x", "y": "y"})
