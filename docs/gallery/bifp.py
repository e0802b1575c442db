"""
BiFP: masks and weights under one bound
=======================================

Pruning first and mending later settles the mask before the bound is known. BiFP finds both together: masks above,
weights below, and a bound on groups at both levels. BiP is the same without the bound.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxfair import bilevel, constraints, data, metrics, models, sparsity
from jaxfair.report.figures import COLORS

# %%
# Planted people: in most columns the minority, 5 in 100, looks like the wrong class of the majority.
people = data.planted(key=jax.random.key(0), num_train=2000, num_test=4000, minority_test=1000, minority=0.05)
model = models.mlp(people.num_classes, hidden=(32,))
params, _ = model.init(jax.random.key(1), people.train.x[:1])

# %%
# The bound: no group's accuracy is more than 2 points away from everybody's. It is kept by multipliers.
parity = constraints.accuracy_parity(model.apply, num_groups=2, tolerance=0.02, proxy_loss=constraints.soft_error())
problem = constraints.two_sided(parity)
settings = {
    "prunable": model.prunable,
    "weights": optax.sgd(0.1, momentum=0.9),
    "masks": optax.sgd(1.0),
    "dual": optax.sgd(0.1),
    "gamma": 10.0,
    "weight_decay": 1e-4,
}
found = {}
for name, levels in {"BiP": (), "BiFP": ("weights", "masks")}.items():
    solver = bilevel.bifp(problem, sparsity.constant(0.9), fair=levels, **settings)
    state = solver.init(params, problem.init({}, None, people.train))
    run = jax.jit(
        lambda s, solver=solver: jax.lax.scan(lambda s, _: solver.step(s, people.train, None), s, length=400)[0]
    )
    sparse, masks = solver.network(run(state))
    right = model.apply(sparse, {}, people.test.x, train=False)[0].argmax(-1) == people.test.y
    found[name] = 100 * np.asarray(metrics.group_means(right.astype(np.float32), people.test.group, 2))
    print(name, found[name].round(1))

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for i, group in enumerate(people.group_names):
    bars = axes.bar(
        np.arange(2) + 0.4 * i, [values[i] for values in found.values()], 0.38, color=COLORS[i], label=group
    )
    axes.bar_label(bars, fmt="%.0f")
axes.set_xticks([0.2, 1.2], [f"{name}, 90 % removed" for name in found])
axes.set(ylabel="accuracy on test, %", ylim=(0, 130), title="Who is left behind when weights go")
axes.legend(frameon=False, ncols=2)
plt.show()
