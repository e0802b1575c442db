"""
Calibration, group by group
===========================

Of the people whom a model is 80 % sure about, it should be right about 80 %, in every group. A model that is well
calibrated on the whole may be too sure of one group.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

from jaxfair import metrics
from jaxfair.report.figures import looks

# %%
# People of two groups. In the smaller one the first column says less, and the model is not told who is who.
rng = np.random.default_rng(0)
names = ["north", "south"]
group = (rng.random(20_000) < 0.2).astype(int)
x = rng.normal(size=(20_000, 4))
score = x @ [2.0, 1.0, 0.5, 0.0] * np.where(group == 1, 0.4, 1.0)
y = (rng.random(20_000) < 1 / (1 + np.exp(-score))).astype(int)
model = LogisticRegression().fit(x[:10_000], y[:10_000])
said = model.predict_proba(x[10_000:])

# %%
# How sure the model is, and whether it is right, is all that the metrics ask for. The error is debiased: what chance
# adds to it, which is more in a small group, is taken off.
sure, correct = said.max(1), said.argmax(1) == y[10_000:]
of = {"group": group[10_000:], "num_groups": 2}
curve = metrics.reliability(sure, correct, **of, bins=10)
error = metrics.ece_debiased(sure, correct, **of, p=1)
print(*(f"{name}: off by {100 * e:.1f} points" for name, e in zip(names, error, strict=True)), sep="\n")

figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
axes.plot([50, 100], [50, 100], ":", color="black", label="as often right as sure")
for g, (name, look) in enumerate(looks(names).items()):
    confidence, accuracy = 100 * np.asarray(curve.confidence[g]), 100 * np.asarray(curve.accuracy[g])
    label = f"{name}, off by {100 * error[g]:.1f} points"
    axes.plot(confidence, accuracy, color=look.color, marker=look.marker, linestyle=look.line, label=label)
axes.set(xlabel="how sure the model is, %", ylabel="how often it is right, %")
axes.set_title("Calibration on new people, by group")
axes.legend(frameon=False)
plt.show()
