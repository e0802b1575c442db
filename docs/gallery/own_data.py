"""
Your own data, in arrays
========================

A table is three arrays: numbers to predict from, the class, and the group that each person is of. From there it is one
call to train networks, one to prune them under a bound, and one that says what became of each group.
"""

import matplotlib.pyplot as plt
import numpy as np

from jaxfair import audit, data, models, recipes
from jaxfair.report.figures import COLORS

# %%
# These arrays stand for yours. Few people live on the islands, and there six columns have the contrary meaning.
rng = np.random.default_rng(0)
region = rng.choice(["islands", "north", "south"], 3000, p=[0.1, 0.45, 0.45])
repaid = rng.random(3000) < 0.5
sign = np.where(repaid, 1, -1)[:, None] * np.where((region == "islands")[:, None] & (np.arange(16) < 6), -1, 1)
x = rng.normal(size=(3000, 16)) + 0.5 * sign * (np.arange(16) < 8)
x = np.column_stack([x, region == "islands"])
mine = data.dataset(x, np.where(repaid, "repaid", "not repaid"), region, standardize=True)
print(*mine.read, sep="\n")

# %%
# The bound: no group loses more accuracy than everybody does on average by more than 2 points.
model = models.mlp(mine.num_classes, hidden=(32,))
dense = recipes.dense(model, mine, seeds=2, epochs=15, progress=False)
bound = recipes.ceag(tolerance=0.02)
pruned = recipes.prune(model, mine, dense, sparsity=0.95, bound=bound, epochs=20, progress=False)
print(*audit.compare(dense, pruned, mine, tolerance=0.02).verdicts, sep="\n")

# %%
# The picture: of each group, how many the networks are right about on average over seeds.
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for i, (name, networks) in enumerate({"before": dense, "95 % of the weights removed": pruned}.items()):
    right = 100 * (networks.predict(mine.train) == mine.train.y).mean(0)
    share = [right[mine.train.group == g].mean() for g in range(mine.num_groups)]
    bars = axes.bar(np.arange(mine.num_groups) + 0.4 * i, share, 0.38, color=COLORS[i], label=name)
    axes.bar_label(bars, fmt="%.1f")
axes.set_xticks(np.arange(mine.num_groups) + 0.2, mine.group_names)
axes.set(ylabel="accuracy, %", ylim=(0, 125), title="Right predictions by group (people trained on)")
axes.legend(frameon=False, ncols=2, loc="upper center", fontsize=8)
plt.show()
