"""Quantised networks in files, and grids of streams of activations."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import models, quant, sparsity

RNG = np.random.default_rng(7)
MODEL = models.mlp(3, hidden=(9,))
PARAMS, _ = MODEL.init(jax.random.key(0), np.zeros((1, 5), np.float32))


def header(path):
    """A reader of the format itself: where each array lies, and the metadata."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), file.read()


@pytest.mark.parametrize("bits", [1, 3, 4, 7, 8, 12, 16])
def test_codes_come_back_from_their_bytes(bits):
    low = -(2 ** (bits - 1))
    codes = RNG.integers(low, low + 2**bits, (5, 7))
    packed = quant.pack(codes, bits, low)
    assert packed.nbytes == -(-35 * bits // 8)
    np.testing.assert_array_equal(quant.unpack(packed, bits, low, (5, 7)), codes)


@pytest.mark.parametrize(("bits", "scheme"), [(4, "symmetric"), (3, "signed"), (4, "affine"), (8, "affine")])
def test_a_network_comes_back_as_its_levels_in_as_many_bytes_as_its_bits_have(tmp_path, bits, scheme):
    quantizer = quant.Quantizer(getattr(quant, scheme), quant.per_channel())
    params = {**PARAMS, "Dense_1": jax.tree.map(lambda w: w.astype(jnp.bfloat16), PARAMS["Dense_1"])}
    grids = quant.grids(params, bits, quantizer=quantizer)
    quant.save(tmp_path / "net", params, grids, state={"norm": {"mean": np.ones(3, np.float32)}}, metadata={"a": "b"})
    found = quant.load(tmp_path / "net")
    expected = quant.quantize_params(params, grids)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)
    assert jax.tree.map(lambda w: w.dtype, found.params) == jax.tree.map(lambda w: w.dtype, expected)
    again = quant.quantize_params(found.params, found.grids)
    jax.tree.map(np.testing.assert_array_equal, again, expected)
    np.testing.assert_array_equal(found.state["norm"]["mean"], np.ones(3))
    assert found.metadata == {"a": "b"}

    said, content = header(tmp_path / "net")
    arrays = {name: entry for name, entry in said.items() if name.startswith(("codes/", "scale/", "zero/", "params/"))}
    stored = sum(np.subtract(*entry["data_offsets"][::-1]) for entry in arrays.values())
    assert stored == sum(quant.stored_bytes(params, grids).values())
    begin, end = arrays["codes/Dense_0/kernel"]["data_offsets"]
    assert end - begin == -(-45 * bits // 8)
    if bits == 4:  # read by hand: two weights a byte, the first in the high half
        half = np.frombuffer(content[begin:end], np.uint8)
        codes = np.stack([half >> 4, half & 15], axis=1).ravel()[:45].astype(int)
        low = {"symmetric": -7, "signed": -8, "affine": 0}[scheme]
        np.testing.assert_array_equal(codes + low, np.asarray(quant.codes(*pair(params, grids))).ravel())


def pair(params, grids):
    return params["Dense_0"]["kernel"], grids["Dense_0"]["kernel"]


def test_what_a_file_cannot_hold_or_is_not_is_one_line(tmp_path):
    path, grids = tmp_path / "net", quant.grids(PARAMS, 4)
    for call, word in (
        (lambda: quant.save(path, PARAMS, quant.grids(PARAMS, 20)), "bits=20: 1 to 16"),
        (lambda: quant.save(path, PARAMS["Dense_0"], grids), "of another network"),
        (lambda: quant.save(path, PARAMS, grids, metadata={"a": 1}), "metadata are strings"),
        (lambda: quant.save(path, [jnp.ones(2)], quant.grids([jnp.ones(2)], 4)), "nested dicts"),
        (lambda: quant.pack([9], 3, 0), "are not of 3 bits"),
        (lambda: quant.unpack(np.zeros(3, np.uint8), 4, 0, (3,)), "3 bytes are not 3 codes of 4 bits"),
    ):
        with pytest.raises(ValueError, match=word):
            call()
    assert not path.exists()
    quant.save(path, PARAMS, grids)
    whole = path.read_bytes()
    for damage in (
        whole[:-5],
        whole[:100],
        b"",
        whole.replace(b"layers", b"layars"),
        whole.replace(b"scale/", b"scole/"),
    ):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match="is no whole file") as caught:
            quant.load(path)
        assert "\n" not in str(caught.value)


def test_what_is_seen_of_a_stream_is_what_all_of_it_would_give():
    batches = [RNG.normal(size=(6, 4)).astype(np.float32) * scale for scale in (1, 3, 2)]
    seen = quant.Range.empty((1, 4))
    watch = jax.jit(quant.observe)
    for batch in batches:
        seen = watch(seen, batch)
    everything = np.concatenate(batches)
    for scheme in (quant.symmetric, quant.signed, quant.affine):
        expected = quant.calibrate(everything, 8, quant.Quantizer(scheme, quant.per_channel()))
        found = quant.calibrated(seen, 8, scheme=scheme)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert int(seen.count) == 3


def test_moving_averages_of_extremes_by_hand_and_nothing_seen_is_one_line():
    seen, least = quant.Range.empty((1,)), None
    for batch in ([-1.0, 2.0], [-3.0, 1.0], [0.0, 5.0]):
        seen = quant.observe(seen, jnp.array(batch), momentum=0.25)
        least = min(batch) if least is None else 0.25 * min(batch) + 0.75 * least
    np.testing.assert_allclose(seen.least, [least])
    with pytest.raises(ValueError, match="nothing was seen"):
        quant.calibrated(quant.Range.empty((1,)), 8)
    with pytest.raises(ValueError, match="does not fit"):
        quant.observe(quant.Range.empty((1,)), jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="momentum=0"):
        quant.observe(seen, jnp.ones(2), momentum=0)


@pytest.mark.parametrize(
    ("bits", "scheme", "per"),
    [(1, "affine", "channel"), (3, "signed", "tensor"), (4, "affine", "group"), (8, "symmetric", "channel"),
     (16, "signed", "channel")],
)  # fmt: skip
def test_a_packed_network_computes_what_its_levels_do_bit_for_bit(bits, scheme, per):
    granularity = {"channel": quant.per_channel(), "tensor": quant.per_tensor, "group": quant.per_group(3)}[per]
    quantizer = quant.Quantizer(getattr(quant, scheme), granularity)
    params = {**PARAMS, "Dense_0": jax.tree.map(lambda w: w.astype(jnp.bfloat16), PARAMS["Dense_0"])}
    grids = quant.grids(params, bits, quantizer=quantizer, quantized=lambda path: path == "Dense_1/kernel")
    grids |= {"Dense_0": quant.grids(params["Dense_0"], 4)}
    small, held = quant.packed(MODEL, params, grids)
    assert held["Dense_1"]["kernel"].nbytes == -(-27 * bits // 8)
    assert held["Dense_1"]["bias"] is params["Dense_1"]["bias"]
    x = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
    expected, _ = MODEL.apply(quant.quantize_params(params, grids), {}, x, train=False)
    np.testing.assert_array_equal(small.apply(held, {}, x, train=False)[0], expected)
    np.testing.assert_array_equal(jax.jit(lambda p: small.apply(p, {}, x, train=False)[0])(held), expected)
    assert not any(map(small.prunable, ("Dense_0/kernel", "Dense_1/kernel")))


def test_a_packed_network_is_exported_in_its_bits(tmp_path):
    model = models.mlp(3, hidden=(128, 128))
    params, _ = model.init(jax.random.key(0), np.zeros((1, 5), np.float32))
    grids = quant.grids(params, 4)
    small, held = quant.packed(model, params, grids)
    sparsity.export_network(tmp_path / "small", small, held, {}, (5,))
    sparsity.export_network(tmp_path / "whole", model, params, {}, (5,))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    # Seven bytes in eight of 17,408 float32 are not there; the program that unpacks takes some of that.
    assert sizes["whole"] - sizes["small"] > 0.75 * 4 * 17_408
    x = RNG.normal(size=(4, 5)).astype(np.float32)
    expected, _ = model.apply(quant.quantize_params(params, grids), {}, x, train=False)
    # The same products, fused otherwise.
    np.testing.assert_allclose(sparsity.load_exported(tmp_path / "small")(x), expected, rtol=1e-5, atol=1e-6)


def test_the_grids_of_another_network_are_no_codes():
    with pytest.raises(ValueError, match="these grids are of another network"):
        quant.packed(MODEL, PARAMS, {"w": quant.grids(PARAMS, 4)})


def test_several_networks_are_not_packed_as_one():
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    with pytest.raises(ValueError, match="these are several networks side by side: take one"):
        quant.packed(MODEL, both, jax.vmap(lambda params: quant.grids(params, 4))(both))
