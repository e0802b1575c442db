"""The recipes on one device of four, and on all of them, for `test_mesh.py`; devices are counted when JAX starts.

python tests/recipes_on_a_mesh.py OUT
"""

import pathlib
import sys

import jax
import numpy as np

from jaxfair import data, models, recipes, train

if __name__ == "__main__":
    digits, model = data.load("digits"), models.mlp(10, hidden=(8,))
    same = {"batch_size": 64, "progress": False}
    for name, mesh in (("1x1", train.mesh(1, 1)), ("2x2", train.mesh(2, 2))):
        dense = recipes.dense(model, digits, seeds=2, epochs=2, mesh=mesh, **same)
        pruned = recipes.prune(
            model, digits, dense, sparsity=0.5, bound=recipes.ceag(0.05), epochs=4, mesh=mesh, **same
        )
        at_levels = recipes.quantize(model, digits, dense, bits=4, epochs=2, mesh=mesh, **same)
        assert dense.params["Dense_0"]["kernel"].sharding.device_set == set(mesh.devices.flat)
        leaves = jax.tree.leaves([(found.params, found.epoch) for found in (dense, pruned, at_levels)])
        np.savez(pathlib.Path(sys.argv[1]) / f"{name}.npz", *leaves)
