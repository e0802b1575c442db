"""
Predictions of another framework, audited
=========================================

Only predictions are needed to see what compression did to each group. They may come from PyTorch, from scikit-learn or
from a vendor; here an ``.npz`` file stands between the two worlds.
"""

import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np

from jaxfair import audit
from jaxfair.report.figures import COLORS

# %%
# In PyTorch, with the network ``net`` and the pruned one ``small``, two lines write the file:
#
# .. code-block:: python
#
#     with torch.no_grad():
#         np.savez("said.npz", before=net(x).numpy(), after=small(x).numpy(), y=y.numpy(), group=group)
#
# torch is not needed to read it. Logits of 6,000 people, in which pruning blurred what is known of one group:
rng = np.random.default_rng(0)
y, group = rng.integers(0, 2, 6000), rng.choice(["north", "south", "islands"], 6000, p=[0.45, 0.45, 0.1])
before = 3 * np.eye(2)[y] + rng.normal(size=(6000, 2))
blurred = np.where(group == "islands", 1.2, 0.5)[:, None]
path = pathlib.Path(tempfile.mkdtemp()) / "said.npz"
np.savez(path, before=before, after=before + blurred * rng.normal(size=(6000, 2)), y=y, group=group)

# %%
# The audit: does any group lose more accuracy than everybody does on average, by more than 1 point?
said = np.load(path)
compared = audit.compare(said["before"], said["after"], said["y"], said["group"], tolerance=0.01)
print(*compared.verdicts, sep="\n")

# %%
# ``compared.write("report/")`` writes the page. Its numbers are here, too: the intervals hold for all groups together.
gaps = compared.found.inferred["after"]
names = compared.found.group_names
middle, low, high = (100 * np.asarray(a) for a in (gaps.psi, gaps.low, gaps.high))

figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
axes.errorbar(middle, range(len(names)), xerr=[middle - low, high - middle], fmt="o", color=COLORS[0], capsize=4)
axes.axvline(1, color="black", linestyle="--", linewidth=1, label="the bound")
axes.axvline(0, color="#bbbbbb", linewidth=1, zorder=0)
axes.set_yticks(range(len(names)), names)
axes.set(xlabel="points of accuracy", title="Lost by a group beyond the average, 95 % intervals", ylim=(-0.5, 2.5))
axes.legend(frameon=False, loc="lower right")
plt.show()
