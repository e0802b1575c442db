"""
Your own data, in arrays
========================

A table is three arrays: numbers to predict from, the class, and the group that each person is of. From there it takes
two calls to prune a network as usual and under a bound, and one to see what each group lost.
"""

import matplotlib.pyplot as plt
import numpy as np

from jaxfair import audit, data, models, recipes
from jaxfair.report.figures import COLORS

# %%
# These arrays stand for yours. Few people live on the islands, and there the class follows other columns.
rng = np.random.default_rng(0)
x = rng.normal(size=(6000, 20)).astype(np.float32)
region = np.where(rng.random(6000) < 0.08, "islands", np.where(rng.random(6000) < 0.5, "north", "south"))
signal = np.where(region == "islands", x[:, 10:14].sum(1), x[:, :6].sum(1))
x = np.column_stack([x, region == "islands"]).astype(np.float32)
y = np.where(signal + rng.normal(size=6000) > 0, "repaid", "not repaid")

mine = data.dataset(x, y, region, standardize=True)
print(*mine.read, sep="\n")

# %%
# The bound: no group loses more accuracy than everybody does on average by more than 2 points.
model = models.mlp(mine.num_classes, hidden=(64,))
dense = recipes.dense(model, mine, seeds=3, epochs=15, progress=False)
settings = {"sparsity": 0.95, "epochs": 25, "progress": False}
usual = recipes.prune(model, mine, dense, **settings)
bounded = recipes.prune(model, mine, dense, bound=recipes.ceag(tolerance=0.02), **settings)

# %%
# What each group lost, on the people trained on: the bound is a promise about them.
loss = {}
for name, networks in {"pruned as usual": usual, "under the bound": bounded}.items():
    right = [net.predict(mine.train) == mine.train.y for net in (dense, networks)]
    lost = 100 * (right[0].mean(0) - right[1].mean(0))
    loss[name] = [lost[mine.train.group == g].mean() - lost.mean() for g in range(mine.num_groups)]
print(audit.compare(dense, {"usual": usual, "bounded": bounded}, mine, tolerance=0.02).verdicts[-1])

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for i, (name, values) in enumerate(loss.items()):
    axes.bar(np.arange(mine.num_groups) + 0.4 * i, values, width=0.36, color=COLORS[i], label=name)
axes.axhline(2, color="black", linestyle="--", linewidth=1, label="the bound")
axes.set_xticks(np.arange(mine.num_groups) + 0.2, mine.group_names)
axes.set(ylabel="points of accuracy", title="Lost by a group, beyond the average")
axes.legend(frameon=False)
plt.show()
