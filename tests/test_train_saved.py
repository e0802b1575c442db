"""Checkpoints, files of networks and snapshots: what is saved is what is loaded."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import train


class Pair(NamedTuple):
    first: Any
    second: Any


SAVED = {
    "a slash in a name": {"a/b": jnp.ones(2), "a": {"b": jnp.zeros(2)}},
    "an escaped slash": {"a%2Fb": jnp.ones(2), "a/b": jnp.zeros(2), "a": {"b": jnp.full(2, 2.0), "%2F": jnp.ones(1)}},
    "a slash at an end": {"a/": jnp.ones(2), "a": {"": jnp.zeros(2)}, "/": jnp.full(2, 3.0), "": {"": jnp.ones(1)}},
    "dots": {"a.b": jnp.ones(2), "a": {"b": jnp.zeros(2)}, "..": jnp.full(2, 4.0), ".": {".": jnp.ones(1)}},
    "none and empty": {"n": None, "d": {}, "t": (), "s": optax.EmptyState(), "w": jnp.ones(2), "z": jnp.ones((0, 3))},
    "containers": [jnp.ones(1), (jnp.zeros(2), Pair(jnp.ones(3), None)), {"x": Pair((), jnp.ones(2))}],
    "a bare array": jnp.arange(3.0),
    "nothing": {"n": None, "t": ()},
    "a scalar": {"s": jnp.float32(2.5), "n": np.int64(3)},
    "numbers of Python": {"f": 1 / 3, "i": 7, "b": True, "c": 1 + 2j},
    "float64": {"w": np.array([1 / 3]), "n": np.array([2**40])},
    **{dtype: {"w": jnp.array([1, 0, 3]).astype(dtype)} for dtype in ("bool", "int8", "uint8", "bfloat16", "float16")},
    "keys": {"k": jax.random.key(3), "several": jax.random.split(jax.random.key(1), 2)},
}


def same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert getattr(a, "dtype", type(a)) == getattr(b, "dtype", type(b))
        if hasattr(b, "dtype") and jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def blank(leaf):
    """Something like a leaf that has none of its values."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(99), leaf.shape) if leaf.shape else jax.random.key(99)
    return type(leaf)(0) if isinstance(leaf, (bool, int, float, complex)) else leaf * 0


@pytest.mark.parametrize("what", SAVED)
def test_a_checkpoint_gives_back_what_it_was_given(tmp_path, what):
    state = SAVED[what]
    like = jax.tree.map(lambda leaf: leaf if np.size(leaf) == 0 else blank(leaf), state)
    if what == "bool":
        like = {"w": jnp.zeros(3, bool)}
    with train.Checkpoints(tmp_path) as store:
        store.save(3, state)
        step, got = store.restore(like)
    assert step == 3
    same(got, state)


@pytest.mark.parametrize("leaf", ["mine", np.array(["a"]), np.array([None]), 2**70])
def test_a_checkpoint_of_what_is_no_number_is_refused_before_it_is_written(tmp_path, leaf):
    with train.Checkpoints(tmp_path) as store:
        with pytest.raises(ValueError, match="a checkpoint has arrays of numbers, but a%2Fb is") as error:
            store.save(3, {"w": jnp.ones(2), "a/b": leaf})
        assert "\n" not in str(error.value)
        assert store.latest() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", [w for w in SAVED if w not in ("keys", "numbers of Python", "float64", "a scalar")])
def test_a_file_of_networks_gives_back_what_it_was_given(tmp_path, what):
    train.save(tmp_path / "networks.npz", SAVED[what])
    like = jax.eval_shape(lambda: SAVED[what])
    same(train.load(tmp_path / "networks.npz", like), SAVED[what])


def test_a_snapshot_keeps_none_keys_and_dtypes():
    params = {"w": jnp.ones(2, jnp.bfloat16), "n": None, "i": jnp.arange(3), "t": ()}
    state = {"key": jax.random.key(1), "on": jnp.array(True)}
    kept = train.empty_snapshot(params, state)
    other = {**params, "w": jnp.zeros(2, jnp.bfloat16)}
    for replace in (True, False):
        found = train.keep_if(jnp.array(replace), kept, other, state, jnp.float32(0.5), 1, averaged=False)
        same(found.params, other if replace else params)
        same(found.model_state, state)


def test_a_snapshot_of_another_network_is_refused():
    kept = train.empty_snapshot({"w": jnp.ones(3)}, {})
    with pytest.raises(ValueError, match=r"a leaf of shape \(1,\), but what was kept has \(3,\)"):
        train.keep_if(jnp.array(True), kept, {"w": jnp.ones(1)}, {}, jnp.float32(0.5), 1, averaged=False)
