"""
A Flax NNX module of your own
=============================

The library never asks what is inside a network. An NNX module, with BatchNorm and Dropout, goes in by one line, and is
trained and pruned like any other.
"""

import functools

import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from jaxfair import data, metrics, models, sparsity, train
from jaxfair.report.figures import COLORS

# %%
# The module as you have it. ``train`` is no argument: BatchNorm and Dropout follow what the library says.


class Net(nnx.Module):
    def __init__(self, features, classes, *, rngs):
        self.hidden = nnx.Linear(features, 48, rngs=rngs)
        self.norm = nnx.BatchNorm(48, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.last = nnx.Linear(48, classes, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(jax.nn.relu(self.norm(self.hidden(x)))))


# %%
# The line: how to make the module, and which of its arrays may be pruned.
digits = data.load("digits", flatten=True)
model = models.nnx(functools.partial(Net, 64, 10), prunable=lambda path: path.endswith("kernel"))
net = train.dense(model, digits.train, keys=jax.random.split(jax.random.key(0), 1), epochs=15, batch_size=126)
params, state = jax.tree.map(lambda leaf: leaf[0], (net.params, net.model_state))
pruned, _ = sparsity.one_shot(params, 0.8, prunable=model.prunable)
print(jax.tree.map(np.shape, params))

figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
for i, (name, weights) in enumerate({"as trained": params, "80 % removed": pruned}.items()):
    right = model.apply(weights, state, digits.test.x, train=False)[0].argmax(-1) == digits.test.y
    of_group = metrics.group_means(right.astype(np.float32), digits.test.group, 10)
    axes.bar(np.arange(10) + 0.4 * i, 100 * np.asarray(of_group), 0.38, color=COLORS[i], label=name)
axes.set_xticks(np.arange(10) + 0.2, digits.group_names)
axes.set(xlabel="digit", ylabel="accuracy on test, %", ylim=(0, 125), title="An NNX module, before and after pruning")
axes.legend(frameon=False, ncols=2, loc="upper center")
plt.show()
