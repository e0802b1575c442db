r"""Joint inference and input optimisation (JIIO): input, fixed point and multiplier of a model found together.

A deep equilibrium model has in place of layers the fixed point :math:`z = f(z, x)` (`equilibrium`). To explain a
measurement by such a model is

.. math:: \min_x\; \ell(z, x) \quad \text{s.t.} \quad z = f(z, x)

Solved in two loops each step on x solves for z and for the adjoint. JIIO takes one step on all three at once, each of
the old values, with one evaluation of f and one product with its Jacobian:

.. math:: z &\leftarrow z + \beta_z\, (f(z, x) - z) \\
          \mu &\leftarrow \mu + \beta_\mu\, (\ell_z + f_z^\top \mu - \mu) \\
          x &\leftarrow P\,(x - \alpha\, (\ell_x + f_x^\top \mu))

and hands that map to Anderson acceleration (`jaxfair.implicit.anderson`), which it needs: alone it is slow, and stable
for small rates only. In one dimension with :math:`f = a z + b x`, :math:`\ell = (c z - y)^2 / 2` it takes

.. math:: \alpha \lesssim (\beta_z + \beta_\mu)\, (1 - a)^3 / (b c)^2

At the solution :math:`\mu` is the adjoint of the implicit layer. So the derivative of :math:`\min_x \ell` by the
model's parameters is that of the `lagrangian` with z, x and :math:`\mu` held fixed (the envelope theorem): one backward
pass, and no adjoint to solve. Where another loss is put on top (a clean target for a noisy measurement) x moves with
the parameters, and that formula misses a term; then `implicit.fixed_point` of the `joint_map` has the whole derivative.

===============  ==========================  =====================================
paper            here                        default
===============  ==========================  =====================================
v = (z, x, mu)   `Joint`                     starts at 0
alpha_x          ``rate``                    none: it depends on the loss
.8, .6           ``damping``
m, type          ``memory``, ``kind``        20, 1
===============  ==========================  =====================================

Unlike in the authors' code the mixed point is projected (mixing weights may be negative, and leave a ball), the
residuals of the three are told apart, and of the points that were evaluated the one with the smallest residual is
returned, whatever its loss.

References:
  Gurumurthy, Bai, Manchester and Kolter, `Joint inference and input optimization in equilibrium networks
  <https://arxiv.org/abs/2111.13236>`_, 2021. Bai, Kolter and Koltun, `Deep equilibrium models
  <https://arxiv.org/abs/1909.01377>`_, 2019.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair.implicit import Kind, MixingState, mixing, unfinished
from jaxfair.tree import inner_product
from jaxfair.typing import Array

#: f, ``function(z, x) -> z``.
Layer = Callable[[Any, Any], Any]
#: The loss, ``loss(z, x) -> []``.
Loss = Callable[[Any, Any], Array]


class Joint(NamedTuple):
    """The three that are found together, or a number of each.

    Attributes:
      z: the state of the model, a tree.
      x: the input, a tree.
      multiplier: of z = f(z, x), a tree like z; at the solution the adjoint.
    """

    z: Any
    x: Any
    multiplier: Any


class Found(NamedTuple):
    r"""What `joint_inference` found.

    Attributes:
      at: the :class:`Joint` of the smallest residual.
      value: ``[]``, the loss there; with z off its fixed point it may be below what x is worth.
      residuals: a :class:`Joint` of ``[]``: :math:`|f(z, x) - z|`, the length of the gradient
        :math:`\ell_x + f_x^\top \mu` (with a projection of :math:`x - P(x - \text{gradient})`), and
        :math:`|\ell_z + f_z^\top \mu - \mu|`. All are 0 at a solution, and depend on neither rate nor damping.
      residual: ``[]``, of the joint map, which decided; inf where f was never finite.
      evaluations: ``[]`` int32: of f, each with one product with its Jacobian and one gradient of the loss.
    """

    at: Joint
    value: Array
    residuals: Joint
    residual: Array
    evaluations: Array


def joint_map(
    function: Layer,
    loss: Loss,
    *,
    rate: ArrayLike,
    damping: tuple[ArrayLike, ArrayLike] = (0.8, 0.6),
    project: Callable[[Any], Any] | None = None,
) -> Callable[[Joint], Joint]:
    """The map whose fixed points are the solutions: one step on z, x and the multiplier, each of the old values.

    Args:
      function: f.
      loss: of z and x, a sum over what is measured.
      rate: alpha, of the step on x; at 0 x stays, and the map is the forward pass and its adjoint.
      damping: of z and of the multiplier, above 0 and at most 1.
      project: P, onto what x may be.

    Returns:
      ``F(joint) -> joint``.

    Raises:
      ValueError: for a rate below 0, a damping outside its range, and (when it is called) a function that changes
        structure, shape or dtype, or a loss that is not one number.

    Example:
      f = z / 2 + x and the loss (z - 1)^2 / 2 have the solution x = 1/2, z = 1:

      >>> step = joint_map(lambda z, x: z / 2 + x, lambda z, x: (z - 1.0) ** 2 / 2, rate=0.05)
      >>> v = step(step(Joint(jnp.array(0.0), jnp.array(0.0), jnp.array(0.0))))
      >>> [round(float(number), 3) for number in v]
      [0.0, 0.03, -1.02]
    """
    _check("rate", rate, lambda r: r >= 0, "give a number of at least 0; 0 leaves x where it is")
    for number in damping:
        _check("damping", number, lambda d: (d > 0) & (d <= 1), "give two numbers above 0 and at most 1")

    def step(v: Joint) -> Joint:
        return _moved(v, _directions(function, loss, v)[1], rate, damping, project)

    return step


def joint_inference(
    function: Layer,
    loss: Loss,
    z: Any,
    x: Any,
    *,
    rate: ArrayLike | Callable[[Array], ArrayLike],
    multiplier: Any = None,
    damping: tuple[ArrayLike, ArrayLike] = (0.8, 0.6),
    project: Callable[[Any], Any] | None = None,
    memory: int = 20,
    kind: Kind = 1,
    ridge: ArrayLike = 0.0,
    evaluations: ArrayLike = 80,
    tolerance: ArrayLike = 0.0,
) -> Found:
    r"""Minimises a loss over the input of an equilibrium model, without an inner solve.

    For one example: `jax.vmap` makes a batch of it, whose lanes do not touch each other.

    Args:
      function: f, ``function(z, x) -> z``, its parameters inside.
      loss: ``loss(z, x) -> []``, a sum over what is measured.
      z: where the model's state starts, such as zeros.
      x: where the input starts.
      rate: alpha, of the step on x: a number, or a schedule of the evaluations before. The acceleration takes what it
        remembers of another rate for its own: change it rarely.
      multiplier: where the multiplier starts; zeros by default.
      damping: of z and of the multiplier.
      project: P, onto what x may be; mixed points are projected, too.
      memory: points that are mixed; 1 is the plain iteration.
      kind: the type of the acceleration.
      ridge: see `implicit.mixing`.
      evaluations: of f, at most; may be traced.
      tolerance: it ends where the joint map moves by at most this times :math:`|v|`; by default after all evaluations.

    Returns:
      The :class:`Found`. Where the iteration did not converge its residuals say so; nothing is raised.

    Raises:
      ValueError: see `joint_map` and `implicit.mixing`.

    Example:
      With a prior x^2 / 2 on the input the solution is x = 0.4, z = 0.8:

      >>> found = joint_inference(
      ...     lambda z, x: z / 2 + x, lambda z, x: (z - 1.0) ** 2 / 2 + x**2 / 2,
      ...     jnp.array(0.0), jnp.array(0.0), rate=0.1, evaluations=8)
      >>> [round(float(number), 4) for number in (*found.at, found.value)]
      [0.8, 0.4, -0.4, 0.1]
    """
    mix = mixing(memory=memory, kind=kind, ridge=ridge)
    schedule = rate if callable(rate) else lambda _: rate
    # Checks the numbers; a schedule is data.
    joint_map(function, loss, rate=0.0 if callable(rate) else rate, damping=damping)
    z, x = jax.tree.map(jnp.asarray, (z, x))
    mu = optax.tree.zeros_like(z) if multiplier is None else jax.tree.map(jnp.asarray, multiplier)
    start = mix.init(Joint(z, x if project is None else project(x), mu))
    dtype = start.residual.dtype
    nothing = jnp.full((), jnp.inf, dtype)

    goes_on = unfinished(evaluations, tolerance)

    def iterate(carry: tuple[MixingState, Any]) -> tuple[MixingState, Any]:
        state, kept = carry
        v = state.x
        value, direction = _directions(function, loss, v)
        new = mix.update(state, _moved(v, direction, schedule(state.evaluations), damping, project))
        if project is not None:
            new = new._replace(x=new.x._replace(x=project(new.x.x)))
        seen = value.astype(dtype), _lengths(v, direction, project, dtype)
        better = new.residual < state.residual
        return new, jax.tree.map(lambda now, before: jnp.where(better, now, before), seen, kept)

    begin = start, (nothing, Joint(nothing, nothing, nothing))
    state, (value, residuals) = lax.while_loop(lambda carry: goes_on(carry[0]), iterate, begin)
    return Found(state.best, value, residuals, state.residual, state.evaluations)


def lagrangian(function: Layer, loss: Loss, at: Joint) -> Array:
    r"""The loss of a solution, with the derivative of :math:`\min_x \ell` by whatever the two functions close over.

    .. math:: \ell(z, x) + \mu^\top (f(z, x) - z), \qquad z, x, \mu \text{ fixed}

    Exact at a solution; away from it off by the order of the residuals. Not for another loss than the one that x
    minimises.

    Args:
      function: f, its parameters inside.
      loss: the one that was minimised.
      at: what was found.

    Returns:
      ``[]``.

    Example:
      For f = a z + x and the loss of `joint_inference`'s example, where 1 / (2 + 2 / (1 - a)^2) is the value:

      >>> at = Joint(jnp.array(0.8), jnp.array(0.4), jnp.array(-0.4))
      >>> loss = lambda z, x: (z - 1.0) ** 2 / 2 + x**2 / 2
      >>> round(jax.grad(lambda a: lagrangian(lambda z, x: a * z + x, loss, at))(0.5).item(), 4)
      -0.32
    """
    z, x, multiplier = jax.tree.map(lax.stop_gradient, at)
    left = jax.tree.map(jnp.subtract, function(z, x), z)
    value = loss(z, x)
    return value + inner_product(multiplier, left).astype(value.dtype)


def _directions(function: Layer, loss: Loss, v: Joint) -> tuple[Array, Joint]:
    """The loss, and how far each of the three is from its equation; of x the gradient, which points up."""
    image, pull = jax.vjp(function, v.z, v.x)
    made, given = (jax.tree.map(lambda a: f"{a.dtype}{list(a.shape)}", tree) for tree in (image, v.z))
    if made != given:
        raise ValueError(f"function= made {made} of {given}: z = f(z, x) keeps structure, shape and dtype.")
    scalar = jax.eval_shape(loss, v.z, v.x)
    if getattr(scalar, "shape", None) != ():
        raise ValueError(f"loss= gave {scalar}: give one number, a sum over what is measured.")
    value, (loss_z, loss_x) = jax.value_and_grad(loss, argnums=(0, 1))(v.z, v.x)
    back_z, back_x = pull(v.multiplier)
    left = jax.tree.map(jnp.subtract, image, v.z)
    adjoint = jax.tree.map(lambda a, b, mu: a + b - mu, loss_z, back_z, v.multiplier)
    return value, Joint(left, jax.tree.map(jnp.add, loss_x, back_x), adjoint)


def _moved(v: Joint, direction: Joint, rate: ArrayLike, damping: tuple[ArrayLike, ArrayLike], project: Any) -> Joint:
    """One step on all three."""

    def along(tree: Any, by: Any, size: ArrayLike) -> Any:
        return jax.tree.map(lambda a, b: a + jnp.asarray(size, a.dtype) * b, tree, by)

    x = along(v.x, jax.tree.map(jnp.negative, direction.x), rate)
    multiplier = along(v.multiplier, direction.multiplier, damping[1])
    return Joint(along(v.z, direction.z, damping[0]), x if project is None else project(x), multiplier)


def _lengths(v: Joint, direction: Joint, project: Any, dtype: Any) -> Joint:
    """How far each is from its equation, a number each."""
    slope = direction.x
    if project is not None:
        slope = jax.tree.map(jnp.subtract, v.x, project(jax.tree.map(jnp.subtract, v.x, slope)))
    return Joint(*(optax.tree.norm(d).astype(dtype) for d in (direction.z, slope, direction.multiplier)))


def _check(name: str, value: Any, allowed: Callable[[Any], Any], what: str) -> None:
    """Refuses a number that is not allowed; what is traced is data."""
    if isinstance(value, Tracer):
        return
    number = np.asarray(value)
    if number.dtype.kind not in "biuf" or number.shape != () or not np.all(allowed(number)):
        raise ValueError(f"{name}={value}: {what}.")
