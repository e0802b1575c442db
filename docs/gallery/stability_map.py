"""
Where an optimizer is stable
============================

Whether a min-max method converges depends on its step sizes. A sweep plays all of them in one compiled call: here
14 x 14 pairs of a learning rate and an optimism, of the optimistic gradient. Theory knows the boundary of the game
without noise, and the line shows it.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from jaxfair import games, optim
from jaxfair.report.figures import COLORS

game = games.bilinear(jax.random.key(0), dim=10, num_samples=50, min_singular=0.3)
rates, optimism = np.geomspace(0.01, 3, 14), np.geomspace(0.1, 30, 14)

# %%
# ``games.grid`` makes all pairs, ``games.sweep`` plays each with the same three seeds. A pair that diverges goes to
# infinity by itself, and disturbs no other.
grid = games.grid(learning_rate=rates, optimism=optimism)
keys = jax.random.split(jax.random.key(1), 3)
played = games.sweep(game, optim.optimistic_gradient, grid, keys=keys, num_steps=1000, record_every=100)
start = np.median([games.distance(game, game.init(key)) for key in keys])
end = np.median(np.nan_to_num(played.distance[:, :, -1], nan=np.inf), axis=1).reshape(14, 14)

# %%
# The radius of a step: below 1 the game without noise converges.
eigenvalues = games.spectrum(game).eigenvalues
radius = games.radius(eigenvalues, grid["learning_rate"], grid["optimism"], 0.0).reshape(14, 14)
print(f"{np.mean(end < start):.0%} of the pairs come nearer to the solution; at best {start / end.min():.0f} times")

figure, axes = plt.subplots(figsize=(5, 3.8), layout="constrained")
axes.set_facecolor("#dddddd")
shown = np.ma.masked_where(~(end < start), end)
mesh = axes.pcolormesh(rates, optimism, shown.T, norm=LogNorm(end.min(), start), cmap="viridis", shading="nearest")
axes.contour(rates, optimism, radius.T, levels=[1.0], colors=COLORS[1], linewidths=2)
axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="optimism")
axes.set_title("Distance to the solution after 1,000 steps\n(grey: farther than the start; line: theory)", fontsize=10)
figure.colorbar(mesh, label="distance", ticks=[1, 2, 4], format="%g").minorticks_off()
plt.show()
