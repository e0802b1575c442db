"""Sparse networks on disk."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import sparsity

PARAMS = {
    "Conv_0": {"kernel": jnp.arange(1.0, 9.0).reshape(2, 4), "bias": jnp.ones(4)},
    "Dense_0": {"kernel": jnp.arange(1.0, 7.0).reshape(2, 3).astype(jnp.bfloat16)},
}
MASKS = {
    "Conv_0": {"kernel": jnp.arange(8).reshape(2, 4) % 2 == 0, "bias": jnp.array(True)},
    "Dense_0": {"kernel": jnp.array([[True, False, True], [False, True, False]])},
}
STATE = {"BatchNorm_0": {"mean": jnp.zeros(4)}}


@pytest.mark.parametrize("state", [STATE, {}])
def test_what_is_written_comes_back(tmp_path, state):
    path = tmp_path / "deep" / "network.safetensors"
    sparsity.save(path, PARAMS, state, MASKS, metadata={"method": "ceag", "seed": "3"})
    saved = sparsity.load(path)
    chex.assert_trees_all_equal(saved.params, sparsity.apply_masks(PARAMS, MASKS))
    chex.assert_trees_all_equal_shapes_and_dtypes(saved.params, PARAMS)
    chex.assert_trees_all_equal(saved.masks, MASKS)
    chex.assert_trees_all_equal(saved.state, state)
    assert saved.metadata == {"method": "ceag", "seed": "3"}
    assert [p.name for p in path.parent.iterdir()] == ["network.safetensors"]


def test_equal_networks_make_equal_files(tmp_path):
    for name in "ab":
        sparsity.save(
            tmp_path / name, PARAMS, STATE, MASKS, metadata={"x": "1", "y": "2", "z": "3"}
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_broken_file_is_named(tmp_path, keep):
    path = tmp_path / "network.safetensors"
    sparsity.save(path, PARAMS, STATE, MASKS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"network\.safetensors is not a whole safetensors file"):
        sparsity.load(path)


def test_a_file_of_something_else_is_named(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weights": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no sparse network"):
        sparsity.load(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        sparsity.load(tmp_path / "none.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "network.safetensors"
    sparsity.save(path, PARAMS, STATE, MASKS)
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        sparsity.save(path, PARAMS, STATE, MASKS, metadata={"unwritable": object()})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["network.safetensors"]
