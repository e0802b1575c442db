"""Sparse networks for other programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

from jaxfair import models, sparsity, tree
from jaxfair.sparsity import _export as export


def random(shape, density, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape), dtype), rng.random(shape) < density


def test_products_with_bcoo_agree():
    kernel, mask = random((30, 20), 0.2)
    kernel = kernel.at[tuple(np.argwhere(mask)[0])].set(0)  # alive and zero: stored
    x, _ = random((5, 30), 1, seed=1)
    params = {"a": {"kernel": kernel, "bias": jnp.ones(20)}, "conv": jnp.ones((1, 1, 2, 2))}
    masks = {"a": {"kernel": mask, "bias": np.True_}, "conv": np.zeros((1, 1, 2, 2), bool)}
    converted = sparsity.to_bcoo(params, masks)
    matrix = converted["a"]["kernel"]
    assert isinstance(matrix, sparse.BCOO)
    assert matrix.nse == mask.sum()
    np.testing.assert_array_equal(matrix.todense(), np.where(mask, kernel, 0))
    # The same products of float32 numbers, summed in another order.
    expected = np.asarray(x) @ np.where(mask, kernel, 0)
    np.testing.assert_allclose(x @ matrix, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda w, x: x @ w)(matrix, x), expected, rtol=1e-5, atol=1e-5)
    assert isinstance(converted["a"]["bias"], jax.Array)
    assert not converted["conv"].any()  # not a matrix: an array, masked


def test_a_matrix_without_living_weights():
    empty = sparsity.to_bcoo(jnp.ones((3, 2)), np.zeros((3, 2), bool))
    assert empty.nse == 0
    assert not (jnp.ones((1, 3)) @ empty).any()


def nm_mask(shape, n, m, axis, seed=0, short=False):
    """n of every m along an axis at random; with `short`, of some groups fewer."""
    rng = np.random.default_rng(seed)
    scores = np.moveaxis(rng.random(shape), axis, -1)
    groups = scores.reshape(*scores.shape[:-1], -1, m)
    mask = np.argsort(np.argsort(groups)) < n
    if short:
        mask &= rng.random(mask.shape) < 0.7
    return np.moveaxis(mask.reshape(scores.shape), -1, axis)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(
    ("shape", "n", "m", "axis"),
    [
        ((16, 5), 2, 4, -2),
        ((12, 3), 1, 4, 0),
        ((3, 3, 8, 6), 2, 4, -2),
        ((5, 16), 3, 8, -1),
        ((4,), 2, 4, -1),
    ],
)
def test_n_of_m_comes_back(shape, n, m, axis, short):
    kernel, _ = random(shape, 1)
    mask = nm_mask(shape, n, m, axis, short=short)
    packed = sparsity.pack_nm(kernel, mask, n=n, m=m, axis=axis)
    assert packed.values.size * m == kernel.size * n
    assert packed.positions.shape[-1] == n
    assert (np.diff(packed.positions.astype(int)) > 0).all()
    dense = sparsity.unpack_nm(packed)
    np.testing.assert_array_equal(dense, np.where(mask, kernel, 0))
    assert dense.dtype == kernel.dtype


def test_a_product_from_values_and_positions():
    """What a sparse tensor core does: it picks those inputs that the positions name."""
    kernel, _ = random((32, 6), 1)
    mask = nm_mask((32, 6), 2, 4, 0)
    x, _ = random((5, 32), 1, seed=1)
    packed = sparsity.pack_nm(kernel, mask)
    rows = (4 * np.arange(8)[:, None] + np.asarray(packed.positions)).reshape(6, 16)
    product = np.einsum("bok,ok->bo", np.asarray(x)[:, rows], packed.values)
    np.testing.assert_allclose(product, x @ np.where(mask, kernel, 0), rtol=1e-5, atol=1e-5)


def test_metadata_words():
    kernel = jnp.arange(1.0, 17.0).reshape(1, 16)
    kept = [0, 1, 4 + 0, 4 + 2, 8 + 1, 8 + 3, 12 + 2, 12 + 3]
    packed = sparsity.pack_nm(kernel, np.isin(np.arange(16), kept)[None], axis=-1)
    # Two bits each, the first lowest: 0 1 | 0 2 | 1 3 | 2 3.
    assert [hex(word) for word in packed.metadata[0]] == [hex(0b11_10_11_01_10_00_01_00)]
    assert packed.metadata.dtype == jnp.uint16
    assert packed.values.tolist() == [[k + 1.0 for k in kept]]
    assert sparsity.pack_nm(kernel[:, :8], np.isin(np.arange(8), kept)[None], axis=-1).metadata is None


def test_half_precision_is_packed():
    kernel, _ = random((8, 3), 1, dtype=jnp.bfloat16)
    mask = nm_mask((8, 3), 2, 4, 0)
    packed = sparsity.pack_nm(kernel, mask)
    assert packed.values.dtype == jnp.bfloat16
    np.testing.assert_array_equal(sparsity.unpack_nm(packed), jnp.where(mask, kernel, 0))


def test_what_is_not_n_of_m():
    kernel, _ = random((8, 3), 1)
    with pytest.raises(ValueError, match=r"has 4 living weights, more than 2: prune with n_by_m"):
        sparsity.pack_nm(kernel, np.ones((8, 3), bool))
    with pytest.raises(ValueError, match=r"axis -1 of a kernel of shape \(8, 3\) is not a multiple"):
        sparsity.pack_nm(kernel, np.ones((8, 3), bool), axis=-1)


MODELS = {
    "mlp": (lambda: models.mlp(3, hidden=(8,)), (4, 2)),
    "cifar_resnet": (lambda: models.cifar_resnet(8, 3), (8, 8, 3)),
    "vit": (lambda: models.vit(3, patch=4, width=8, depth=1, heads=2), (8, 8, 3)),
}


def network(name):
    make, shape = MODELS[name]
    model = make()
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        value = np.abs(rng.normal(size=leaf.shape)) if path.endswith("var") else rng.normal(size=leaf.shape)
        return jnp.asarray(value / 4, jnp.float32)

    x = jnp.asarray(rng.normal(size=(3, *shape)), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    params, state = tree.map_with_path(fill, shapes)
    masks = tree.map_with_path(lambda path, p: rng.random(p.shape) < 0.5 if model.prunable(path) else np.True_, params)
    return model, params, state, masks, x


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_an_exported_network_is_the_masked_one_for_any_batch(name):
    model, params, state, masks, x = network(name)
    options = (masks, None, jnp.float32, ("cpu", "cuda", "tpu"))
    exported = export._exported(model, params, state, x.shape[1:], *options)
    assert [str(size) for size in exported.in_avals[0].shape] == ["b", *map(str, x.shape[1:])]
    assert [str(size) for size in exported.out_avals[0].shape] == ["b", "3"]
    assert exported.platforms == ("cpu", "cuda", "tpu")
    masked = sparsity.apply_masks(params, masks)
    run = jax.jit(lambda x: model.apply(masked, state, x, train=False)[0])
    for batch in (1, 3) if name == "mlp" else (3,):
        # The same program but for the order of sums.
        np.testing.assert_allclose(exported.call(x[:batch]), run(x[:batch]), rtol=1e-4, atol=1e-5)


@pytest.fixture
def file(tmp_path):
    model, params, state, masks, x = network("mlp")
    path = tmp_path / "deep" / "network.jaxfair"
    sparsity.export_network(path, model, params, state, x.shape[1:], masks=masks)
    return path, model, sparsity.apply_masks(params, masks), state, x


def test_a_file_comes_back_without_its_model(file):
    path, model, params, state, x = file
    load = sparsity.load_exported(path)
    for batch in (1, 3):
        expected, _ = model.apply(params, state, x[:batch], train=False)
        np.testing.assert_allclose(load(x[:batch]), expected, rtol=1e-5, atol=1e-6)
    assert [p.name for p in path.parent.iterdir()] == ["network.jaxfair"]
    assert b"pickle" not in path.read_bytes()
    with pytest.raises((TypeError, ValueError), match="shape"):
        load(x[:, :2])


def test_a_batch_size_may_be_fixed(file):
    path, model, params, state, x = file
    sparsity.export_network(path, model, params, state, x.shape[1:], batch_size=3)
    load = sparsity.load_exported(path)
    np.testing.assert_allclose(load(x), model.apply(params, state, x, train=False)[0], rtol=1e-5, atol=1e-6)
    with pytest.raises((TypeError, ValueError), match="shape"):
        load(x[:1])


@pytest.mark.parametrize("change", ["cut", "flip", "header"])
def test_a_broken_file_is_named(file, change):
    path, *_ = file
    content = bytearray(path.read_bytes())
    if change == "cut":
        content = content[:-5]
    else:
        content[-100 if change == "flip" else 0] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"network\.jaxfair is (not a whole|no) exported network"):
        sparsity.load_exported(path)


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    path, model, params, state, x = file
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        sparsity.export_network(path, model, params, state, x.shape[1:])
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["network.jaxfair"]


def test_without_flatbuffers_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    model, params, state, _, x = network("mlp")
    with pytest.raises(ImportError, match=r"pip install jaxfair\[export\]"):
        sparsity.export_network(tmp_path / "file", model, params, state, x.shape[1:])
    assert not (tmp_path / "file").exists()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        sparsity.load_exported(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty is no exported network"):
        sparsity.load_exported(tmp_path / "empty")
    (tmp_path / "short").write_bytes(export._MAGIC)
    with pytest.raises(ValueError, match="short is not a whole exported network"):
        sparsity.load_exported(tmp_path / "short")


def test_masks_of_numbers_and_vectors_are_taken():
    kernel = jnp.arange(1.0, 9.0).reshape(2, 4)
    mask = np.array([[1, 0, 0, 1], [0, 1, 1, 0]])
    for kind in (int, float, bool):
        sparse_kernel = sparsity.to_bcoo({"k": kernel}, {"k": mask.astype(kind)})["k"]
        np.testing.assert_array_equal(sparse_kernel.todense(), kernel * mask)
        packed = sparsity.pack_nm(kernel, mask.astype(kind), axis=-1)
        np.testing.assert_array_equal(sparsity.unpack_nm(packed), kernel * mask)
    packed = sparsity.pack_nm(kernel[0], mask[0])
    np.testing.assert_array_equal(sparsity.unpack_nm(packed), kernel[0] * mask[0])


def test_positions_fit_a_byte():
    kernel = jnp.arange(512.0)
    packed = sparsity.pack_nm(kernel, kernel % 256 > 253, n=2, m=256)
    np.testing.assert_array_equal(np.flatnonzero(sparsity.unpack_nm(packed)), [254, 255, 510, 511])
    with pytest.raises(ValueError, match="m <= 256, but it got n=2, m=512"):
        sparsity.pack_nm(kernel, kernel > 509, n=2, m=512)
