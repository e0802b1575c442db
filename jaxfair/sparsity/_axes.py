"""What was given for an axis of pruning: a member of it, or one line that says what was meant.

Some members are values (`uniform`, `magnitude`), others are made by a call (`erk()`, `movement()`). Who takes one for
the other is told which it is.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Member = TypeVar("Member")


def member(axis: str, given: Any, kind: type[Member]) -> Member:
    """What was given, if it is a member of this axis.

    Args:
      axis: the name of the argument.
      given: what stands there.
      kind: what it must be: `Distribution`, `Structure` or `Schedule`.

    Returns:
      `given`.

    Raises:
      TypeError: one line, with what to write instead.

    Example:
      >>> from jaxfair import sparsity
      >>> member("distribution", sparsity.erk, sparsity.Distribution)
      Traceback (most recent call last):
      ...
      TypeError: distribution must be a Distribution, but it is a function that makes one; did you mean sparsity.erk()?
    """
    if isinstance(given, kind):
        return given
    refuse_factory(axis, given, kind)
    raise TypeError(
        f"{axis} must be a {kind.__name__}, but it is {_said(given)}; choose from {', '.join(_choices(axis, kind))}"
    )


def plain(axis: str, given: Any) -> Callable[..., Any]:
    """What was given, if it is a plain function, as members of this axis are.

    Example:
      >>> from jaxfair import sparsity
      >>> plain("grow", 0.5)
      Traceback (most recent call last):
      ...
      TypeError: grow must be a function, but it is a float; choose from sparsity.at_random, sparsity.by_gradient
    """
    if isinstance(given, tuple) or not callable(given):  # a `Distribution`, say, is a tuple
        raise TypeError(f"{axis} must be a function, but it is {_said(given)}; choose from {', '.join(_choices(axis))}")
    return given


def refuse_factory(axis: str, given: Any, kind: type) -> None:
    """Raises TypeError for a function that makes members of this axis, given in place of what it makes.

    Example:
      >>> from jaxfair import sparsity
      >>> refuse_factory("score", sparsity.random, sparsity.Score)
      Traceback (most recent call last):
      ...
      TypeError: score must be a Score, but it is a function that makes one; did you mean sparsity.random(key)?
    """
    if _makes(given, kind):
        raise TypeError(
            f"{axis} must be a {kind.__name__}, but it is a function that makes one; did you mean {_call(given)}?"
        )


def value(axis: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a function as a member of that axis itself, so that a call without arguments says so.

    Example:
      >>> from jaxfair import sparsity
      >>> sparsity.magnitude()
      Traceback (most recent call last):
      ...
      TypeError: magnitude is given as it is, without a call; did you mean sparsity.magnitude?
    """

    def mark(function):
        @functools.wraps(function)
        def checked(*args, **kwargs):
            if not args and not kwargs:
                name = function.__name__
                raise TypeError(f"{name} is given as it is, without a call; did you mean sparsity.{name}?")
            return function(*args, **kwargs)

        vars(checked)["axis"] = axis
        return checked

    return mark


def called(given: Any) -> NoReturn:
    """Raises TypeError for a member that was called.

    Example:
      >>> from jaxfair import sparsity
      >>> sparsity.uniform()
      Traceback (most recent call last):
      ...
      TypeError: this is a Distribution already, and is given without a call; did you mean sparsity.uniform?
    """
    kind = type(given).__name__
    names = [f"sparsity.{name}" for name, other in _room().items() if other is given]
    meant = f"did you mean {names[0]}?" if names else "leave out the last ()"
    raise TypeError(f"this is a {kind} already, and is given without a call; {meant}")


def _room() -> dict[str, Any]:
    return vars(sys.modules["jaxfair.sparsity"])  # not imported: it is made of files that import this one


def _makes(given: Any, kind: type) -> bool:
    made = getattr(given, "__annotations__", {}).get("return")
    return inspect.isfunction(given) and made in (kind, kind.__name__)


def _choices(axis: str, *kinds: type) -> list[str]:
    room = {name: thing for name, thing in _room().items() if not name.startswith("_")}
    values = [
        f"sparsity.{name}"
        for name, thing in room.items()
        if isinstance(thing, kinds) or getattr(thing, "axis", None) == axis
    ]
    makers = [thing for thing in room.values() if any(_makes(thing, kind) for kind in kinds)]
    return values + [_call(maker) for maker in makers]


def _call(function: Callable[..., Any]) -> str:
    """How a function is called, with the arguments that it needs."""
    needed = [
        f"{name}=..." if p.kind is p.KEYWORD_ONLY else name
        for name, p in inspect.signature(function).parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    ours = (getattr(function, "__module__", None) or "").startswith("jaxfair.sparsity")
    return f"{'sparsity.' if ours else ''}{function.__name__}({', '.join(needed)})"


def _said(given: Any) -> str:
    if inspect.isfunction(given):
        return f"the function {given.__name__}"
    kind = type(given).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
