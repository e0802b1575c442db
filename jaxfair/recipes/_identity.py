"""What a recipe is a function of, as text: by it a folder knows whether it holds this very job."""

import pathlib
from typing import Any

import jax
import numpy as np

from jaxfair.data import Dataset
from jaxfair.train.identity import abstract_lane as abstract_lane
from jaxfair.train.identity import digest as digest
from jaxfair.train.identity import model_facts as model_facts
from jaxfair.train.identity import of_array as of_array
from jaxfair.train.identity import of_function as of_function
from jaxfair.train.identity import of_key as of_key
from jaxfair.train.identity import of_optimizer as of_optimizer
from jaxfair.train.identity import paths as paths
from jaxfair.train.identity import plain as plain


def dataset_facts(dataset: Dataset, *, streamed: bool) -> dict[str, Any]:
    """What a dataset is known by: names, sizes, and a hash of its arrays; of features on a disk, of their source."""
    parts: list[str | np.ndarray] = []
    for name, split in dataset.splits.items():
        held = not streamed and isinstance(split.x, np.ndarray | jax.Array)
        read = [split.y, split.group, split.weight, split.x if held else dataset.rows.get(name, np.zeros(0))]
        parts += [name, str(split.x.shape), "" if held else dataset.source]
        parts += [part for array in read for part in of_array(array)]
    bound = np.asarray(dataset.constrained)
    return {
        # Without the folder that a file was in: the hash says whether it is the same.
        "dataset": pathlib.PurePath(dataset.name).name,
        "sizes": {name: len(split.y) for name, split in dataset.splits.items()},
        "classes": dataset.num_classes,
        "groups": list(dataset.group_names),
        "constrained": [name for name, has in zip(dataset.group_names, bound, strict=True) if has],
        "data": digest(parts),
    }
