"""
CHITA: pruning at once by second order
======================================

Magnitude pruning removes small weights and leaves the others as they are. CHITA chooses which weights stay *and* moves
them, so that the loss rises least by its quadratic model. It needs the gradients of some hundred examples, once.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxfair import data, models, sparsity, train
from jaxfair.report.figures import looks

digits = data.load("digits", flatten=True)
model = models.mlp(10, hidden=(16,))
networks = train.dense(model, digits.train, keys=jax.random.split(jax.random.key(0), 1), epochs=20, batch_size=126)
params = jax.tree.map(lambda leaf: leaf[0], networks.params)


# %%
# A row of gradients for each of 400 training images.
def loss(params, batch):
    x, y = batch
    logits = model.apply(params, {}, x, train=False)[0]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


some = digits.train.x[:400], digits.train.y[:400]
gradients = sparsity.example_gradients(loss, params, some, prunable=model.prunable)


# %%
# Both remove the same share of the weights, all layers compared.
def magnitude(share):
    return sparsity.one_shot(params, share, prunable=model.prunable, distribution=sparsity.global_)[0]


def chita(share):
    return sparsity.chita(params, gradients, share, prunable=model.prunable, ridge=1e-3)[0]


def accuracy(params):
    return 100 * np.mean(np.argmax(model.apply(params, {}, digits.test.x, train=False)[0], 1) == digits.test.y)


shares = np.array([0.5, 0.65, 0.8])
curves = {prune.__name__: [accuracy(prune(share)) for share in shares] for prune in (magnitude, chita)}

figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
for name, look in looks(curves).items():
    axes.plot(100 * shares, curves[name], color=look.color, marker=look.marker, linestyle=look.line, label=name)
axes.axhline(accuracy(params), color="black", linestyle=":", label="not pruned")
axes.set(xlabel="weights removed, %", ylabel="accuracy on test, %", title="Pruned at once, not trained on (digits)")
axes.legend(frameon=False)
plt.show()
