"""
Few bits under a bound
======================

With 2 bits a weight has three levels. Rounded to the nearest level, a network loses much, and some groups lose more
than others. Trained at its levels under a bound, no group loses more than the average by more than 2 points.
"""

import matplotlib.pyplot as plt
import numpy as np

from jaxfair import data, models, recipes
from jaxfair.report.figures import COLORS

digits = data.load("digits", flatten=True)
model = models.mlp(10, hidden=(32,))
dense = recipes.dense(model, digits, seeds=2, epochs=15, progress=False)

# %%
# The two ways. What is delivered of the second is chosen by the bound, too.
nearest = recipes.quantize(model, digits, dense, bits=2)
bound = recipes.ceag(tolerance=0.02)
trained = recipes.quantize(model, digits, dense, bits=2, method="qat", bound=bound, epochs=40, progress=False)
column = trained.params["Dense_1"]["kernel"][0, :, 3]
print("levels of the weights of one output:", np.unique(column).round(3))

# %%
# A bound is a promise about the people trained on; here they are images, and their groups the digits.
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
group, y = digits.train.group, digits.train.y
for i, (name, networks) in enumerate({"nearest levels": nearest, "trained under the bound": trained}.items()):
    lost = 100 * ((dense.predict(digits.train) == y).mean(0) - (networks.predict(digits.train) == y).mean(0))
    beyond = [lost[group == g].mean() - lost.mean() for g in range(10)]
    axes.bar(np.arange(10) + 0.4 * i, beyond, 0.38, color=COLORS[i], label=name)
    print(f"{name}: at most {max(beyond):.1f} points beyond the average")
axes.axhline(2, color="black", linestyle="--", linewidth=1, label="the bound")
axes.set_xticks(np.arange(10) + 0.2, digits.group_names)
axes.set(xlabel="digit", ylabel="points of accuracy", title="Lost at 2 bits beyond the average (on train)")
axes.legend(frameon=False, fontsize=8)
plt.show()
