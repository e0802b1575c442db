"""
Two of every four weights
=========================

Accelerators can skip zeros where exactly two of every four neighbours are zero. The structure 2:4 is one argument, and
the schedule rises to it while the network trains.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxfair import data, models, sparsity, train
from jaxfair.report.figures import COLORS

digits = data.load("digits", flatten=True)
model = models.mlp(10, hidden=(32,))

# %%
# A pruner is an optax transformation around another one. 10 steps an epoch, of which the first 8 epochs prune.
schedule = sparsity.polynomial(0.5, begin=0, end=80, every=10)
structures = {"any half": sparsity.unstructured, "2 of every 4": sparsity.n_by_m(2, 4)}
kernels = {}
for name, structure in structures.items():
    tx = sparsity.prune(optax.adam(3e-3), schedule, structure=structure, prunable=lambda path: path == "Dense_0/kernel")
    keys = jax.random.split(jax.random.key(0), 1)
    net = train.dense(model, digits.train, tx=tx, keys=keys, epochs=15, batch_size=126)
    params = jax.tree.map(lambda leaf: leaf[0], net.params)
    right = np.argmax(model.apply(params, {}, digits.test.x, train=False)[0], 1) == digits.test.y
    kernels[f"{name}: {right.mean():.1%} right"] = np.asarray(params["Dense_0"]["kernel"])

# %%
# Groups of four lie along the inputs, the axis that a product sums over. ``sparsity.pack_nm`` stores such a kernel in
# half the numbers and two bits for each of them.
alive = (kernels[name].reshape(16, 4, 32) != 0).sum(axis=1) if (name := [*kernels][1]) else None
print("living weights in every four:", np.unique(alive))

figure, grid = plt.subplots(1, 2, figsize=(5, 3.6), layout="constrained", sharey=True)
for axes, (name, kernel) in zip(grid, kernels.items(), strict=True):
    axes.imshow(kernel[:24, :16] != 0, cmap="Blues", vmin=0, vmax=1.4, aspect="equal")
    for edge in range(4, 24, 4):
        axes.axhline(edge - 0.5, color=COLORS[1], linewidth=1)
    axes.set_title(name, fontsize=9)
    axes.set_xlabel("output")
grid[0].set_ylabel("input")
figure.suptitle("Which weights live (blue); lines every four inputs", fontsize=10)
plt.show()
