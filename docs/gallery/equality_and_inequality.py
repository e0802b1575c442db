"""
An equality and an inequality
=============================

The smallest problem with both kinds of constraint: the point nearest to the origin whose coordinates sum to 1
(an equality), and of which x is at least 0.7 (an inequality).
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxfair import constraints
from jaxfair.report.figures import COLORS

# %%
# A constraint is a number: an inequality holds where it is at most 0, an equality where it is 0. The proxy gives the
# weights their direction, the strict value moves the multipliers; here both are the same.


def evaluate(params, carry, batch, key):
    x, y = params
    values = jnp.array([x + y - 1, 0.7 - x])
    return constraints.Evaluation(loss=x**2 + y**2, proxy=values, strict=values)


multipliers = constraints.dense(2, equality=np.array([True, False]))
solver = constraints.solver(evaluate, multipliers=multipliers, primal=optax.sgd(0.05), dual=optax.sgd(0.2))


# %%
# The solver's step is a pure function: all steps are one compiled loop.
def step(state, _):
    state, _ = solver.step(state)
    return state, state.params


state, path = jax.lax.scan(step, solver.init(jnp.array([-0.5, 0.9])), length=300)
print("found:", state.params.round(3), "multipliers:", state.multipliers.round(3))

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
side = np.linspace(-1, 1.5, 100)
axes.contour(side, side, side**2 + side[:, None] ** 2, levels=8, colors="#cccccc", linewidths=0.8)
axes.axvspan(-1, 0.7, color=COLORS[1], alpha=0.08, linewidth=0)
axes.text(-0.95, -0.9, "x is too small", color=COLORS[1])
axes.plot(side, 1 - side, "--", color=COLORS[2], label="x + y = 1")
axes.plot(*path.T, color=COLORS[0], label="path of the solver")
axes.plot(0.7, 0.3, "*", color="black", markersize=12, label="solution, (0.7, 0.3)")
axes.set(xlim=(-1, 1.5), ylim=(-1, 1.5), xlabel="x", ylabel="y", title="Nearest to the origin, under two constraints")
axes.legend(loc="upper right", framealpha=0.9)
plt.show()
