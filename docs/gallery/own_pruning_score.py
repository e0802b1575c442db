"""
Your own pruning score
======================

A score says what a weight is worth, and the smallest go. It is any function of the weights and their gradients. Here:
how much the loss would rise by a second-order guess, with the squared gradient in place of the curvature.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxfair import data, models, sparsity, train
from jaxfair.report.figures import looks

digits = data.load("digits", flatten=True)
model = models.mlp(10, hidden=(64,))
networks = train.dense(model, digits.train, keys=jax.random.split(jax.random.key(0), 1), epochs=20, batch_size=126)
params = jax.tree.map(lambda leaf: leaf[0], networks.params)


# %%
# The score: two arrays of one shape in, one out.
def guessed_rise(weights, gradients):
    return weights**2 * gradients


def loss(params, x, y):
    logits = model.apply(params, {}, x[None], train=False)[0][0]
    return -jax.nn.log_softmax(logits)[y]


each = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(params, digits.train.x, digits.train.y)
squares = jax.tree.map(lambda g: jnp.mean(g**2, axis=0), each)

# %%
# It goes wherever a score goes: ``one_shot`` here, ``sparsity.prune(..., score=guessed_rise)`` while training. What is
# handed over as gradients is the caller's choice; here it is the mean of their squares.
scores = {"magnitude": sparsity.magnitude, "your own": guessed_rise}
shares, curves = np.array([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95]), {}
for name, score in scores.items():
    curves[name] = []
    for share in shares:
        sparse, _ = sparsity.one_shot(params, share, prunable=model.prunable, score=score, gradients=squares)
        logits, _ = model.apply(sparse, {}, digits.test.x, train=False)
        curves[name].append(100 * np.mean(np.argmax(logits, 1) == digits.test.y))

figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
for name, look in looks(scores).items():
    axes.plot(100 * shares, curves[name], color=look.color, marker=look.marker, linestyle=look.line, label=name)
axes.set(xlabel="weights removed, %", ylabel="accuracy on test, %", title="Pruned at once by two scores (digits)")
axes.legend(frameon=False)
plt.show()
