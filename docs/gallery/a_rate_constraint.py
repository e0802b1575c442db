"""
A rate constraint
=================

Two groups are of the good class at different rates, and a model predicts so. A rate constraint bounds the difference
of the two selection rates. How much that costs depends on the bound: four bounds are four lanes of one program.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxfair import constraints
from jaxfair.constraints import rates
from jaxfair.report.figures import COLORS
from jaxfair.typing import Batch

rng = np.random.default_rng(0)
group = rng.integers(0, 2, 2000)
y = (rng.random(2000) < 0.3 + 0.4 * group).astype(np.int32)
x = np.stack([rng.normal(size=2000) + y + group, rng.normal(size=2000) + y, np.ones(2000)], axis=1)
people = Batch(jnp.asarray(x, jnp.float32), y, group, np.arange(2000), np.ones(2000, np.float32))


def apply(params, state, x, *, train, key=None):
    return x @ params, state


# %%
# Rates are added, subtracted and compared like numbers. The slack may be traced, so that ``jax.vmap`` trains with all.
gap = rates.positive(group=1) - rates.positive(group=0)


def trained(slack):
    problem = rates.problem(apply, [gap <= slack], num_groups=2, num_classes=2)
    solver = constraints.solver(problem, primal=optax.sgd(0.1), dual=optax.sgd(0.1))
    state = solver.init(jnp.zeros((3, 2)), problem.init({}, None, people))
    return jax.lax.scan(lambda state, _: solver.step(state, people), state, length=1000)[0].params


slacks = np.array([0.05, 0.2, 0.35, 0.6])
models = jax.jit(jax.vmap(trained))(jnp.asarray(slacks, jnp.float32))

found = [
    rates.measure([gap, rates.error()], jnp.argmax(people.x @ w, 1), y, group, num_groups=2, num_classes=2)
    for w in models
]
value, error = (100 * np.array([getattr(f, name) for f in found]) for name in ("value", "standard_error"))

figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
axes.errorbar(100 * slacks, value[:, 0], 2 * error[:, 0], fmt="o-", color=COLORS[0], label="difference of the rates")
axes.errorbar(100 * slacks, value[:, 1], 2 * error[:, 1], fmt="s--", color=COLORS[1], label="wrong predictions")
axes.plot([0, 60], [0, 60], ":", color="black", label="the bound")
axes.set(xlabel="bound on the difference, points", ylabel="points", title="A fairer rate costs accuracy")
axes.legend(frameon=False)
plt.show()
