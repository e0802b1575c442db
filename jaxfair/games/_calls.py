"""How often an optimizer that does not say so itself evaluates the field again: its program is read, and counted along.

Each evaluation leaves a mark in the program of one update. Marks in a loop of fixed length count that often, those
behind a condition only when it is true, those in a `while` loop as often as it runs. The counting is part of the
compiled program, next to what the update computes, and costs nothing that can be measured.

Calls side by side in one `jax.vmap` count as one. Not seen are marks that differentiation removes (a reverse-mode
product through a conditional), and a condition inside a loop of fixed length counts as if it were always true.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun  # pyright: ignore[reportPrivateImportUsage]

Operator = Callable[[Any], Any]


def _evaluation_of_the_field():
    return jnp.zeros((), jnp.int32)


_mark = jax.jit(_evaluation_of_the_field)
_NAME = _evaluation_of_the_field.__name__


def marked(operator: Operator) -> Operator:
    """The same function; each call of it leaves a mark in the program that is being traced.

    Example:
      >>> jax.make_jaxpr(marked(jnp.sin))(1.0).eqns[0].params["name"]
      '_evaluation_of_the_field'
    """

    def call(players):
        _mark()
        return operator(players)

    return call


def counted(update: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """What ``update(*args)`` returns, and how many marks it went through, ``[]`` int32.

    Example:
      >>> sine = marked(jnp.sin)
      >>> def update(x):
      ...     x = lax.cond(x > 0, sine, lambda x: x, x)
      ...     return lax.fori_loop(0, 3, lambda i, x: sine(x), x)
      >>> [counted(update, x)[1].item() for x in (-1.0, 1.0)]
      [3, 4]
    """
    program, shape = jax.make_jaxpr(update, return_shape=True)(*args)
    if not _marks(program.jaxpr):
        return update(*args), jnp.zeros((), jnp.int32)
    out, calls = _run(program, *jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(shape), out), calls


def _inside(equation: Any) -> list[Any]:
    """The programs that an equation calls."""
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            program = getattr(item, "jaxpr", item)
            if hasattr(program, "eqns"):
                found.append(program)
    return found


def _is_constant(variable: Any) -> bool:
    return isinstance(variable, Literal)


def _is_mark(equation: Any) -> bool:
    return equation.params.get("name") == _NAME


def _marks(program: Any) -> int:
    """How many marks a program goes through, if every condition is true and every `while` loop runs once."""
    total = 0
    for equation in program.eqns:
        inner = [_marks(each) for each in _inside(equation)]
        if equation.primitive.name == "cond":
            total += max(inner)
        else:
            total += int(_is_mark(equation)) + sum(inner) * equation.params.get("length", 1)
    return total


def _run(closed: Any, *args: Any) -> tuple[list[Any], Any]:
    """Evaluates a program, and counts the marks: what `jax.core.eval_jaxpr` does, with an eye on control flow."""
    program, values = closed.jaxpr, {}

    def read(variable):
        return variable.val if _is_constant(variable) else values[variable]

    values.update(zip(program.constvars, closed.consts, strict=True))
    values.update(zip(program.invars, args, strict=True))
    calls = jnp.zeros((), jnp.int32)
    for equation in program.eqns:
        inputs = [read(variable) for variable in equation.invars]
        out, more = _equation(program, equation, inputs)
        calls = calls + more
        values.update(zip(equation.outvars, out, strict=True))
    return [read(variable) for variable in program.outvars], calls


def _equation(program: Any, equation: Any, inputs: list[Any]) -> tuple[list[Any], Any]:
    name, params = equation.primitive.name, equation.params
    inside = sum(_marks(each) for each in _inside(equation))
    if inside and name == "cond":
        index, *operands = inputs
        branches = [lambda *args, branch=branch: _run(branch, *args) for branch in params["branches"]]
        return lax.switch(index, branches, *operands)
    if inside and name == "while":
        return _while(params, inputs)
    if inside and name in ("jit", "pjit"):
        return _run(params["jaxpr"], *inputs)
    variables = {id(v): (v, x) for v, x in zip(equation.invars, inputs, strict=True) if not _is_constant(v)}
    ends = {"invars": [v for v, _ in variables.values()], "outvars": equation.outvars}
    alone = program.replace(constvars=[], eqns=[equation], effects=equation.effects, **ends)
    out = jaxpr_as_fun(ClosedJaxpr(alone, []))(*(x for _, x in variables.values()))
    return list(out), int(_is_mark(equation)) + inside * params.get("length", 1)


def _while(params: dict[str, Any], inputs: list[Any]) -> tuple[list[Any], Any]:
    ends = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_condition, of_body, start = inputs[: ends[0]], inputs[ends[0] : ends[1]], inputs[ends[1] :]

    def goes_on(carry):
        return _run(params["cond_jaxpr"], *of_condition, *carry[0])[0][0]

    def body(carry):
        state, calls = carry
        state, more = _run(params["body_jaxpr"], *of_body, *state)
        return state, calls + more

    return lax.while_loop(goes_on, body, (list(start), jnp.zeros((), jnp.int32)))
