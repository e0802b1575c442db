"""
A run that is stopped and goes on
=================================

Training that keeps checkpoints can be stopped at any moment. The same call goes on from the last one and ends with the
same numbers, bit for bit, as if nothing had happened.
"""

import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxfair import data, models, study, train
from jaxfair.report.figures import COLORS

digits = data.load("digits", flatten=True)
model = models.mlp(10, hidden=(32,))
solver = train.descent(model.apply, optax.adam(3e-3))
keys = jax.random.split(jax.random.key(0), 2)
start = jax.vmap(lambda key: solver.init(model.init(key, digits.train.x[:1])[0]))(keys)


# %%
# ``stop`` is looked at after each epoch; the command line sets it by Ctrl-C. All that is random follows from the keys.
def fit(folder, stop=lambda: False):
    rows, options = [], {"keys": keys, "epochs": 12, "batch_size": 126, "checkpoints": folder, "stop": stop}
    try:
        state = train.fit(solver, start, digits.train, show=lambda done, total, new: rows.extend(new), **options)
    except study.Stopped:
        state = None
    losses = {row["epoch"]: row["loss"] for row in rows if row["lane"] == 0}
    return state, np.array([*losses]), np.array([*losses.values()])


whole, epochs, losses = fit(tempfile.mkdtemp())
folder, calls = tempfile.mkdtemp(), iter(range(100))
_, before, first = fit(folder, stop=lambda: next(calls) >= 4)
resumed, after, rest = fit(folder)

# %%
# Equal means equal: not close, but the same bits.
same = jax.tree.map(lambda a, b: np.array_equal(a, b), whole.solver.params, resumed.solver.params)
print("the same weights:", all(jax.tree.leaves(same)), "- the same losses:", [*first, *rest] == [*losses])

figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
axes.plot(epochs, losses, color="#bbbbbb", linewidth=6, label="never stopped")
axes.plot(before, first, "o-", color=COLORS[0], label="until it was stopped")
axes.plot(after, rest, "s--", color=COLORS[1], label="the same call again")
axes.set(xlabel="epoch", ylabel="training loss", title="A stopped run goes on, bit for bit")
axes.legend(frameon=False)
plt.show()
