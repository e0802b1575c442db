"""
Group DRO: training for the worst group
=======================================

A shortcut agrees with the class for 95 of 100 people, and a network takes it. Who is of the other five, pays. Group DRO
is a game: an adversary puts weight on the group with the largest loss, and the network trains on the weighted loss. It
helps most early: later the network knows the few by heart, and new people like them gain nothing. So stop in time.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxfair import data, metrics, models, robust, train
from jaxfair.report.figures import looks

people = data.spurious(key=jax.random.key(0), num_train=2000, noise=1.0)
model = models.mlp(people.num_classes, hidden=(16,))
params, _ = model.init(jax.random.key(1), people.train.x[:1])
sizes = people.group_sizes()["train"]

# %%
# Both are objectives of one solver. At rate 0 the adversary never moves and knows the groups' sizes: ordinary training.
objectives = {
    "ordinary training": robust.group_dro(people.num_groups, rate=0, sizes=sizes),
    "Group DRO": robust.group_dro(people.num_groups, rate=0.05, sizes=sizes, adjustment=1.0),
}


def worst(state, epoch):
    logits, _ = model.apply(state.solver.params, {}, people.test.x, train=False)
    right = (logits.argmax(-1) == people.test.y).astype(jnp.float32)
    return metrics.group_means(right, people.test.group, people.num_groups).min(), right.mean()


curves = {}
for name, objective in objectives.items():
    solver = robust.solver(model.apply, objective, optax.adam(3e-3))
    start = solver.init(params, {}, adversary=objective.init(jax.random.key(2), people.train))
    fitted = jax.jit(
        lambda key, s=solver, b=start: train.run(s, b, people.train, key, epochs=15, batch_size=100, look=worst)
    )
    curves[name] = 100 * np.array(fitted(jax.random.key(3))[1])
    print(f"{name}: worst group {curves[name][0][-1]:.0f} %, everybody {curves[name][1][-1]:.0f} %")

figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
for name, look in looks(curves).items():
    axes.plot(range(1, 16), curves[name][0], color=look.color, marker=look.marker, linestyle=look.line, label=name)
axes.set(xlabel="epoch", ylabel="accuracy, %", title="Accuracy of the worst of four groups, on test")
axes.legend(frameon=False)
plt.show()
