"""
A population of networks
========================

One network says little: another seed is wrong about other people. So train thirty, and look at how far they differ in
each group. Only their predictions are kept, a byte for each example and network.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxfair import data, metrics, models, train
from jaxfair.report.figures import COLORS

digits = data.load("digits", flatten=True)
model = models.mlp(10, hidden=(32,))


# %%
# How to train several at once: a key for each.
def make(keys, members):
    return train.dense(model, digits.train, keys=keys, epochs=12, batch_size=126)


# %%
# Networks are trained in chunks that fit into memory; network k is the same in a population of any size. With
# ``folder="runs/mine"`` a run that was stopped would go on after the last chunk.
said = train.population(make, model, {"test": digits.test}, key=jax.random.key(0), size=30, num_classes=10)["test"]
rates = metrics.population_rates(said, digits.test.y, digits.test.group, digits.num_groups)
error = 100 * np.asarray(rates.error)
print(f"{said.shape[0]} networks; errors of all people: {100 * rates.overall_error.mean():.1f} %")

figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
shift = np.random.default_rng(0).uniform(-0.25, 0.25, error.shape)
axes.plot(np.arange(10) + shift, error, ".", color=COLORS[0], alpha=0.5, markersize=5)
axes.plot(np.arange(10), error.mean(0), "_", color=COLORS[1], markersize=22, markeredgewidth=2, label="mean")
axes.set_xticks(range(10), digits.group_names)
axes.set(xlabel="digit", ylabel="wrong predictions, %", title="A point is a network: 30 seeds of the same training")
axes.legend(frameon=False)
plt.show()
