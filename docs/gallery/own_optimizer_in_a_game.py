"""
Your own optimizer in a game
============================

In a game one player minimises what the other one maximises, and plain gradient descent spirals outwards. Whatever is
an optax transformation can play. Here is one that the library does not have: a spring that pulls the players to a
moving average of where they were.
"""

import jax
import matplotlib.pyplot as plt
import optax

from jaxfair import games, optim
from jaxfair.report.figures import looks

# %%
# The optimizer gets the gradients of both players as one tree, that of the maximising player with its sign turned.
# So it descends for both.


def spring(learning_rate, stiffness, decay):
    def update(field, mean, players):
        mean = jax.tree.map(lambda m, w: decay * m + (1 - decay) * w, mean, players)
        move = jax.tree.map(lambda g, w, m: -learning_rate * (g + stiffness * (w - m)), field, players, mean)
        return move, mean

    return optax.GradientTransformation(lambda players: players, update)


# %%
# Each step sees one sample of 100. The paths are drawn in the plane in which the game turns most. The settings were
# chosen for this game, so that the picture says nothing of others.
game = games.bilinear(jax.random.key(0), dim=10, num_samples=100, min_singular=0.1, bias=0.3)
methods = {
    "gradient descent": optax.sgd(0.05),
    "optimistic gradient": optim.optimistic_gradient(0.05, optimism=3.0),
    "spring": spring(0.05, 0.3, 0.98),
}
paths = {
    name: games.in_the_plane(game, method, num_steps=800, key=jax.random.key(1)) for name, method in methods.items()
}

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
for name, look in looks(methods).items():
    axes.plot(*paths[name].T, color=look.color, linewidth=0.9, label=name)
axes.plot(*paths["spring"][0], "o", color="black", label="start")
axes.plot(0, 0, "+", color="black", markersize=12, markeredgewidth=2, label="solution")
limit = 1.9 * abs(paths["spring"][0]).max()
axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="x, minimises", ylabel="y, maximises")
axes.set_title("800 steps of three optimizers in a stochastic game")
axes.legend(loc="lower left", fontsize=8, framealpha=0.9)
plt.show()
