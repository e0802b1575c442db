"""Methods as they are compared on games: how each is made, what is tuned besides its learning rate, what it costs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import optax

from jaxfair import optim


class Method(NamedTuple):
    """How a method is made and tuned, and what a step of it costs.

    Attributes:
      make: of a learning rate ``lr`` and the second parameter. One object per method, so that a sweep compiles once.
      words: what it does, for a reader.
      second: the name of the second parameter, or None.
      values: of the second parameter, rising, in a grid. A 0 among them is a bound. None for a parameter like optimism,
        which has the scale of the gradient's change.
      high: a bound above, which the second parameter may reach where it stands among the values; None for no bound.
      calls: oracle calls per step.
      measure: at which point the distance is taken, as in `play`.
    """

    make: Callable[..., optax.GradientTransformation]
    words: str
    second: str | None = None
    values: Sequence[float] | None = None
    high: float | None = None
    calls: int = 1
    measure: Callable[[Any, Any], Any] | None = None


def _sgd(lr: Any) -> Any:
    return optax.sgd(lr)


def _momentum(lr: Any, decay: Any) -> Any:
    return optim.omegam(lr, optimism=0.0, decay=decay)


def _optimistic_gradient(lr: Any, optimism: Any) -> Any:
    return optim.optimistic_gradient(lr, optimism)


def _omega(lr: Any, optimism: Any, decay: Any = 0.9) -> Any:
    return optim.omega(lr, optimism, decay)


def _omegam(lr: Any, optimism: Any, decay: Any = 0.9) -> Any:
    return optim.omegam(lr, optimism, decay)


def _extragradient(lr: Any, extrapolation: Any) -> Any:
    return optim.extragradient(lr, extrapolation * lr)


def _optimistic_adam(lr: Any, optimism: Any) -> Any:
    return optim.optimistic_adam(lr, optimism)


def _lookahead(lr: Any, slow_rate: Any) -> Any:
    return optim.lookahead(optax.sgd(lr), period=10, slow_rate=slow_rate)


def _lead(lr: Any, coupling: Any) -> Any:
    return optim.lead(lr, coupling)


def _consensus(lr: Any, regularization: Any) -> Any:
    return optim.consensus(lr, regularization)


def _average(players: Any, state: Any) -> Any:
    return optim.get_average(state)


def _averaged(method: Method) -> Method:
    """The same iterates, looked at through their average: the steps of a method are not changed by it."""

    def make(lr: Any, **second: Any) -> Any:
        return optim.average_iterates(method.make(lr, **second))

    words = f"{method.words}; what is looked at is the average of all its iterates so far"
    return method._replace(make=make, words=words, measure=_average)


#: Every method by its name, each also as ``<name>_averaged``: measured at the average of its iterates.
METHODS = {
    "sgd": Method(_sgd, "each player follows its own gradient g: w ← w − η g"),
    "momentum": Method(
        _momentum,
        "follows an average of gradients, m ← b m + (1 − b) g",
        "decay",
        (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99),
        high=1.0,
    ),
    "optimistic_gradient": Method(
        _optimistic_gradient,
        "adds the change since the last step: w ← w − η (g + o (g − previous g))",
        "optimism",
    ),
    "omega": Method(
        _omega,
        "adds the change against an average of past gradients: w ← w − η (g + o (g − m)), decay b = 0.9",
        "optimism",
    ),
    "omegam": Method(
        _omegam,
        "the optimistic gradient on the average itself: w ← w − η (m + o (m − previous m)), b = 0.9",
        "optimism",
    ),
    "extragradient": Method(
        _extragradient,
        "looks at the gradient after a trial step of extrapolation · η; two calls per step",
        "extrapolation",
        calls=2,
    ),
    "optimistic_adam": Method(_optimistic_adam, "the optimistic gradient on Adam's direction", "optimism"),
    "lookahead": Method(
        _lookahead,
        "ten steps of sgd, of which only the share slow_rate is then kept",
        "slow_rate",
        (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
        high=1.0,
    ),
    "lead": Method(
        _lead,
        "adds a force against the rotation that the other player's move causes; three calls per step",
        "coupling",
        calls=3,
    ),
    "consensus": Method(
        _consensus,
        "also descends the squared norm of the field; two calls per step",
        "regularization",
        calls=2,
    ),
}
METHODS |= {f"{name}_averaged": _averaged(method) for name, method in METHODS.items()}
