"""
Two of every four weights
=========================

Accelerators can skip zeros where exactly two of every four neighbours are zero. It costs a little accuracy beside any
other half of the weights; here is how much, before training goes on.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxfair import data, models, sparsity, train
from jaxfair.report.figures import COLORS

digits = data.load("digits", flatten=True)
model = models.mlp(10, hidden=(32,))
networks = train.dense(model, digits.train, keys=jax.random.split(jax.random.key(0), 1), epochs=20, batch_size=126)
params = jax.tree.map(lambda leaf: leaf[0], networks.params)

# %%
# The structure is one argument, of ``sparsity.one_shot`` as here, or of ``sparsity.prune``, which wraps an optax
# transformation and rises to 2:4 by a schedule while the network trains. Groups of four lie along the inputs.
structures = {"any half": sparsity.unstructured, "2 of every 4": sparsity.n_by_m(2, 4)}
kernels = {}
for name, structure in structures.items():
    sparse, masks = sparsity.one_shot(params, 0.5, structure=structure, prunable=lambda path: path == "Dense_0/kernel")
    right = np.argmax(model.apply(sparse, {}, digits.test.x, train=False)[0], 1) == digits.test.y
    kernels[f"{name}: {right.mean():.1%} right"] = np.asarray(masks["Dense_0"]["kernel"])
print("living weights in every four:", np.unique(kernels[[*kernels][1]].reshape(16, 4, 32).sum(axis=1)))

figure, grid = plt.subplots(1, 2, figsize=(5, 3.8), layout="constrained", sharey=True)
for axes, (name, mask) in zip(grid, kernels.items(), strict=True):
    axes.imshow(mask[20:44, :16], cmap="Blues", vmin=0, vmax=1.4)
    for edge in range(4, 24, 4):
        axes.axhline(edge - 0.5, color=COLORS[1], linewidth=1)
    axes.set_title(name, fontsize=10)
    axes.set_xlabel("output")
grid[0].set_ylabel("input")
figure.suptitle("Which weights live (blue); a line every four inputs", fontsize=11)
plt.show()
