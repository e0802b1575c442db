"""
Whose prediction does pruning change?
=====================================

An exemplar is an example on which many pruned networks say something else than many dense ones. Single networks differ
by chance; the votes of two populations differ for a reason, and it is worth looking at these examples by eye.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxfair import data, metrics, models, sparsity, train

digits = data.load("digits", flatten=True)
model = models.mlp(10, hidden=(32,))

# %%
# Twenty networks are trained side by side, and each then loses 85 % of its weights, the smallest ones.
keys = jax.random.split(jax.random.key(0), 20)
dense = train.dense(model, digits.train, keys=keys, epochs=12, batch_size=126).params
pruned, _ = jax.vmap(lambda params: sparsity.one_shot(params, 0.85, prunable=model.prunable))(dense)


def votes(networks):
    return jax.vmap(lambda params: model.apply(params, {}, digits.test.x, train=False)[0].argmax(-1))(networks)


# %%
# The score of an example is how far the two populations disagree about it; ties of a vote are named, too.
before, after = votes(dense), votes(pruned)
found = metrics.exemplars(before, after, 10)
floor = metrics.noise_floor(before, after, 10, key=jax.random.key(1))
print(
    f"{100 * np.mean(found.exemplar):.1f} % of the test images; two halves of the dense ones: {100 * floor.share:.1f} %"
)

figure, grid = plt.subplots(2, 4, figsize=(5, 3.4), layout="constrained")
for axes, at in zip(grid.ravel(), np.argsort(-np.where(found.exemplar, found.score, -1)), strict=False):
    axes.imshow(np.reshape(digits.test.x[at], (8, 8)), cmap="gray_r")
    axes.set_title(f"{found.before[at]} → {found.after[at]}", fontsize=11)
    axes.set_xlabel(f"label {digits.test.y[at]}", fontsize=9)
    axes.set(xticks=[], yticks=[])
figure.suptitle("Images on which pruning changes the vote", fontsize=11)
plt.show()
