"""Sparse networks on disk."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

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
        sparsity.save(tmp_path / name, PARAMS, STATE, MASKS, metadata={"x": "1", "y": "2", "z": "3"})
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


def masks_of(structure, params):
    rng = np.random.default_rng(0)
    if structure == "unstructured":
        return {name: rng.random(p.shape) < 0.4 for name, p in params.items()}
    if structure == "channel":
        keep = {name: rng.random(p.shape[-1]) < 0.5 for name, p in params.items()}
        return {name: np.broadcast_to(keep[name], p.shape) for name, p in params.items()}
    if structure == "scalar":
        return dict.fromkeys(params, np.True_)
    if structure == "by_channel":  # not of the weights' shape: written as it is
        return {name: rng.random(p.shape[-1:]) < 0.5 for name, p in params.items()}
    return {name: np.full(p.shape, structure == "all") for name, p in params.items()}


@pytest.mark.parametrize("structure", ["unstructured", "channel", "scalar", "by_channel", "all", "none"])
def test_every_mask_comes_back(tmp_path, structure):
    # Sizes 54, 7, 1 and 64: with and without a rest in the last byte.
    shapes = {"conv": (3, 3, 2, 3), "odd": (7,), "one": (1, 1), "even": (8, 8)}
    params = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    masks = masks_of(structure, params)
    sparsity.save(tmp_path / "file", params, {}, masks)
    loaded = sparsity.load(tmp_path / "file").masks
    chex.assert_trees_all_equal(loaded, masks)
    chex.assert_trees_all_equal_shapes_and_dtypes(loaded, jax.tree.map(np.asarray, masks))
    assert all(mask.flags.writeable for mask in loaded.values())


def test_a_mask_takes_a_bit_for_every_weight(tmp_path):
    path, weights = tmp_path / "file", 1001 * 13
    params = {"kernel": jnp.ones((1001, 13), jnp.bfloat16), "bias": jnp.ones(13)}
    masks = {"kernel": np.arange(weights).reshape(1001, 13) % 3 == 0, "bias": jnp.array(True)}
    sparsity.save(path, params, {}, masks)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert len(content) - header == 2 * weights + 4 * 13 + -(-weights // 8) + 1
    assert header < 600  # names, shapes and types
    raw = safetensors.numpy.load_file(path)["masks/kernel"]
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(np.unpackbits(raw)[:weights], masks["kernel"].ravel())


def write(path, **arrays):
    safetensors.numpy.save_file({name.replace("__", "/"): a for name, a in arrays.items()}, path)


def test_files_from_before_masks_were_packed_still_load(tmp_path):
    mask = np.array([True, False, True])
    write(tmp_path / "old", params__w=np.ones(3), masks__w=mask)
    np.testing.assert_array_equal(sparsity.load(tmp_path / "old").masks["w"], mask)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"masks__w": np.zeros(3, np.uint8)},
            "a mask of w that does not fit",
        ),  # nine weights: two bytes
        ({"masks__w": np.zeros(2, np.int8)}, "a mask of w that does not fit"),
        ({"masks__v": np.zeros(2, np.uint8)}, "a mask of v that does not fit"),
        ({"masks__v": np.array(True)}, "a mask of v that does not fit"),
        ({}, "weights without masks"),
    ],
    ids=["long", "type", "of_nothing", "scalar_of_nothing", "missing"],
)
def test_masks_that_do_not_fit_are_named(tmp_path, arrays, message):
    write(tmp_path / "file", params__w=np.ones((3, 3), np.float32), **arrays)
    with pytest.raises(ValueError, match=f"file has {message}"):
        sparsity.load(tmp_path / "file")


@pytest.mark.parametrize(
    "params",
    [{"a/b": jnp.ones(1)}, {"a": [jnp.ones(1)]}, {0: jnp.ones(1)}, {"a": {"": jnp.ones(1)}}],
)
def test_what_could_not_be_given_back_is_not_written(tmp_path, params):
    masks = jax.tree.map(lambda p: jnp.array(True), params)
    with pytest.raises(ValueError, match="a file has nested dicts with names without '/'"):
        sparsity.save(tmp_path / "network.safetensors", params, {}, masks)
    assert list(tmp_path.iterdir()) == []


def test_masks_of_numbers_are_bits_all_the_same(tmp_path):
    params = {"w": jnp.arange(1.0, 7.0).reshape(2, 3), "v": jnp.ones((2, 3))}
    masks = {
        "w": np.array([[1.0, 0, 1], [0, 1, 0]], np.float32),
        "v": np.array([1, 0, 1], np.uint8),
    }
    sparsity.save(tmp_path / "network.safetensors", params, {}, masks)
    saved = sparsity.load(tmp_path / "network.safetensors")
    np.testing.assert_array_equal(saved.params["w"], [[1, 0, 3], [0, 5, 0]])
    np.testing.assert_array_equal(saved.masks["v"], [True, False, True])


DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_as_it_was(tmp_path, dtype):
    values = np.array([[1, 0, 3], [2, 5, 1]]).astype(jnp.dtype(dtype))
    params = {"w": values, "t": values[0, 2], "zero": values[:0], "turned": values.T, "big": values.real.astype(">f4")}
    masks = {"w": values != 1, "t": True, "zero": np.ones((0, 3), bool), "turned": True, "big": True}
    sparsity.save(tmp_path / "file", params, {"count": values}, masks)
    saved = sparsity.load(tmp_path / "file")
    expected = {**params, "w": np.where(values != 1, values, np.zeros((), values.dtype)), "t": np.asarray(params["t"])}
    for name, array in saved.params.items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.shape == expected[name].shape
        assert array.dtype == expected[name].dtype.newbyteorder("=")
    np.testing.assert_array_equal(saved.state["count"], values)
    assert saved.state["count"].dtype == values.dtype


def test_float64_keeps_its_digits_and_so_does_a_number_of_python(tmp_path):
    third = np.float64(1) / 3
    sparsity.save(tmp_path / "file", {"w": np.full(3, third), "t": 1 / 3}, {"n": 7}, {"w": True, "t": True})
    saved = sparsity.load(tmp_path / "file")
    assert (saved.params["w"].dtype, saved.params["w"].tolist()) == (np.float64, [third] * 3)
    assert (saved.params["t"].item(), saved.state["n"].item()) == (1 / 3, 7)


def test_none_and_empty_dicts_come_back(tmp_path):
    more = {"none": None, "deep": {"er": {"still": {}}}}
    params = {"a": {"w": np.ones(2), "bias": None, "dropout": {}}, **more}
    masks = {"a": {"w": np.array([True, False]), "bias": None, "dropout": {}}, **more}
    state = {"batch_stats": {}, "rng": None, "mean": {"x": np.zeros(0), "y": None}}
    sparsity.save(tmp_path / "file", params, state, masks)
    saved = sparsity.load(tmp_path / "file")
    assert saved.params["a"]["w"].tolist() == [1.0, 0.0]
    for got, wanted in ((saved.params, params), (saved.state, state), (saved.masks, masks)):
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        assert jax.tree.structure(got, is_leaf=lambda x: x is None) == jax.tree.structure(
            wanted, is_leaf=lambda x: x is None
        )
    sparsity.save(tmp_path / "again", saved.params, saved.state, saved.masks)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()


class Pair(NamedTuple):
    first: Any = None
    second: Any = None


ONE = np.ones(2)
UNSAVED = {
    "a bare array": (ONE, {}, np.ones(2, bool), "params must be nested dicts"),
    "nothing": ({}, {}, {}, "params must be nested dicts"),
    "a tuple": ((ONE,), {}, (True,), "params must be nested dicts"),
    "a bare state": ({"w": ONE}, ONE, {"w": True}, "the state must be nested dicts"),
    "no state": ({"w": ONE}, None, {"w": True}, "the state must be nested dicts"),
    "an empty tuple": ({"w": ONE, "t": ()}, {}, {"w": True, "t": ()}, "params/t: .* no tuple"),
    "an empty list": ({"w": ONE}, {"l": []}, {"w": True}, "state/l: .* no list"),
    "a named tuple": ({"w": ONE}, {"p": Pair(ONE)}, {"w": True}, "state/p: .* no Pair"),
    "an empty one": ({"w": ONE}, {"p": optax.EmptyState()}, {"w": True}, "state/p: .* no EmptyState"),
    "a key": ({"w": ONE}, {"rng": jax.random.key(0)}, {"w": True}, r"state/rng is a key<fry>.*key_data"),
    "a string": ({"w": ONE}, {"name": "mine"}, {"w": True}, "state/name is <U4, which no file has"),
    "objects": ({"w": np.array([None, 1])}, {}, {"w": True}, "params/w is object, which no file has"),
    "eight bits": ({"w": jnp.ones(2, jnp.float8_e4m3fn)}, {}, {"w": True}, "params/w is float8_e4m3fn"),
    "four bits": ({"w": jnp.ones(2, jnp.int4)}, {}, {"w": True}, "params/w is int4"),
    "wide complex": ({"w": ONE.astype(np.complex128)}, {}, {"w": True}, "params/w is complex128"),
    "more digits": ({"w": ONE.astype(np.longdouble)}, {}, {"w": True}, "params/w is (float128|longdouble)"),
    "a large integer": ({"w": ONE}, {"n": 2**70}, {"w": True}, "state/n is object"),
    "no mask": ({"w": ONE, "b": ONE}, {}, {"w": True}, "the masks have not the structure of the parameters: b"),
    "a mask of nothing": ({"w": ONE}, {}, {"w": True, "b": True}, "the masks have not the structure"),
    "None for a mask": ({"w": ONE}, {}, {"w": None}, "the masks have not the structure of the parameters: w"),
    "a mask of None": ({"w": ONE, "b": None}, {}, {"w": True, "b": True}, "the masks have not the structure"),
    "a larger mask": ({"w": ONE}, {}, {"w": np.ones((3, 2), bool)}, r"the mask of w has the shape \(3, 2\)"),
    "another mask": ({"w": ONE}, {}, {"w": np.ones(3, bool)}, r"the mask of w has the shape \(3,\)"),
    "a dot for a name": ({"w": ONE, "": ONE}, {}, {"w": True, "": True}, "names without '/'"),
    "an empty dict of a bad name": ({"w": ONE, "a/b": {}}, {}, {"w": True, "a/b": {}}, "names without '/'"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSAVED)
def test_what_would_come_back_as_something_else_is_refused_before_it_is_written(tmp_path, what):
    params, state, masks, words = UNSAVED[what]
    with pytest.raises(ValueError, match=words) as error:
        sparsity.save(tmp_path / "new" / "network.safetensors", params, state, masks)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("metadata", [{"a": float("nan")}, {"a": (1, 2)}, {1: "a"}])
def test_metadata_that_would_come_back_as_something_else_are_refused(tmp_path, metadata):
    with pytest.raises(ValueError, match="metadata are strings by names"):
        sparsity.save(tmp_path / "file", PARAMS, STATE, MASKS, metadata=metadata)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"params/a": ONE, "params/a/b": ONE, "masks/a": np.array(True)}, "two things named params/a"),
        ({"params/w": ONE, "masks/w": np.array(True), "none/params/w": np.zeros(0, bool)}, "two things named params/w"),
    ],
)
def test_a_file_with_two_things_of_one_name_is_named(tmp_path, content, words):
    safetensors.numpy.save_file(content, tmp_path / "file")
    with pytest.raises(ValueError, match=words):
        sparsity.load(tmp_path / "file")


def test_damaged_metadata_are_named(tmp_path):
    safetensors.numpy.save_file({"params/w": ONE, "masks/w": np.array(True)}, tmp_path / "file", {"jaxfair": "{broken"})
    with pytest.raises(ValueError, match="file has metadata that cannot be read"):
        sparsity.load(tmp_path / "file")
