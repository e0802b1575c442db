"""Weights in PyTorch's layout: its products on its axes give our logits, and what comes back is what went.

PyTorch itself loads them in `benchmarks/test_peers.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import models, tree

MODELS = {
    "mlp": (lambda: models.mlp(3, hidden=(8,)), (5,)),
    "small_cnn": (lambda: models.small_cnn(3, widths=(4, 8)), (8, 8, 3)),
    "cifar_resnet": (lambda: models.cifar_resnet(8, 3), (8, 8, 3)),
    "vit": (lambda: models.vit(3, patch=4, width=8, depth=2, heads=2), (8, 8, 3)),
}


def network(name):
    make, shape = MODELS[name]
    model, rng = make(), np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *shape)), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    fill = lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape) / np.sqrt(leaf.size), leaf.dtype)
    params, state = jax.tree.map(fill, shapes)
    return model, params, state, x


@pytest.mark.parametrize("name", MODELS)
def test_what_went_comes_back(name):
    _, params, state, _ = network(name)
    theirs = models.to_torch(params, state)
    found, found_state = models.from_torch(theirs, *jax.tree.map(jnp.zeros_like, (params, state)))
    assert jax.tree.structure((found, found_state)) == jax.tree.structure((params, state))
    jax.tree.map(np.testing.assert_array_equal, (found, found_state), (params, state))
    assert all(array.flags.c_contiguous and array.flags.writeable for array in theirs.values())
    counts = sum(array.size for name, array in theirs.items() if not name.endswith("num_batches_tracked"))
    assert counts == tree.size((params, state))


def test_a_dense_network_is_theirs():
    model, params, state, x = network("mlp")
    w = models.to_torch(params)
    x = np.asarray(x)
    hidden = np.maximum(x @ w["Dense_0.weight"].T + w["Dense_0.bias"], 0)
    logits = hidden @ w["Dense_1.weight"].T + w["Dense_1.bias"]
    np.testing.assert_allclose(logits, model.apply(params, state, x, train=False)[0], rtol=1e-5)


def convolved(x, w):
    """As torch.nn.Conv2d(padding=1) has it."""
    return jax.lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NCHW", "OIHW", "NCHW"))


def normed(x, w, name):
    """As torch.nn.BatchNorm2d.eval() has it."""
    mean, var, scale, bias = (
        w[f"{name}.{own}"][None, :, None, None] for own in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def test_a_residual_network_is_theirs_to_its_first_block():
    """Channels first. What is not the input of the network is what the layer is called with here."""
    model, params, state, x = network("cifar_resnet")
    w, seen = models.to_torch(params, state), {}
    import flax.linen as nn

    def watch(call, args, kwargs, context):
        out = call(*args, **kwargs)
        seen["/".join(context.module.path)] = jnp.moveaxis(out, -1, 1) if getattr(out, "ndim", 0) == 4 else out
        return out

    with nn.intercept_methods(watch):
        model.apply(params, state, x, train=False)
    theirs = convolved(jnp.moveaxis(x, -1, 1), w["Conv_0.weight"])
    np.testing.assert_allclose(theirs, seen["Conv_0"], rtol=1e-5)
    theirs = np.maximum(normed(theirs, w, "BatchNorm_0"), 0)
    inner = np.maximum(normed(convolved(theirs, w["Block_0_0.Conv_0.weight"]), w, "Block_0_0.BatchNorm_0"), 0)
    inner = normed(convolved(inner, w["Block_0_0.Conv_1.weight"]), w, "Block_0_0.BatchNorm_1")
    np.testing.assert_allclose(np.maximum(theirs + inner, 0), seen["Block_0_0"], rtol=1e-4)
    assert w["BatchNorm_0.num_batches_tracked"] == 0


def test_attention_is_theirs():
    """As torch.nn.MultiheadAttention(D, heads, batch_first=True) has it: rows of query, key and value, by heads."""
    import flax.linen as nn

    module, rng, heads, width = nn.MultiHeadDotProductAttention(2), np.random.default_rng(0), 2, 6
    x = jnp.asarray(rng.normal(size=(3, 5, width)), jnp.float32)
    params = module.init(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
    w = models.to_torch({"at": params})
    assert sorted(w) == ["at.in_proj_bias", "at.in_proj_weight", "at.out_proj.bias", "at.out_proj.weight"]
    q, k, v = (
        part.reshape(3, 5, heads, width // heads).transpose(0, 2, 1, 3)
        for part in np.split(np.asarray(x) @ w["at.in_proj_weight"].T + w["at.in_proj_bias"], 3, axis=-1)
    )
    share = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(width // heads), axis=-1)
    joined = np.asarray(share @ v).transpose(0, 2, 1, 3).reshape(3, 5, width)
    theirs = joined @ w["at.out_proj.weight"].T + w["at.out_proj.bias"]
    # Two products of 6 and a softmax, in float32.
    ours = np.asarray(module.apply({"params": params}, x))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_attention_may_be_the_whole_network_and_have_neighbours():
    heads = {name: {"kernel": np.ones((2, 3, 6) if name == "out" else (6, 2, 3))} for name in HEADS}
    assert sorted(models.to_torch(heads)) == ["in_proj_weight", "out_proj.weight"]
    more = heads | {"query_ln": {"scale": np.ones(3)}, "prequery": {"kernel": np.ones((6, 5))}}
    found = models.to_torch({"at": more}, names={"at": "a", "at/prequery": "p"})
    assert sorted(found) == ["a.in_proj_weight", "a.out_proj.weight", "at.query_ln.weight", "p.weight"]
    back, _ = models.from_torch(found, {"at": more}, names={"at": "a", "at/prequery": "p"})
    jax.tree.map(np.testing.assert_array_equal, back, {"at": more})


class Tensor:
    """What of torch.Tensor is asked for: numbers with gradients in bfloat16, which numpy refuses."""

    def __init__(self, values, dtype="torch.bfloat16"):
        self.values, self.dtype = values, dtype

    def __array__(self, dtype=None, copy=None):
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return np.asarray(self.values, dtype)

    detach = cpu = lambda self: self

    def float(self):
        return Tensor(self.values, "torch.float32")


def test_tensors_come_as_they_are():
    found, _ = models.from_torch({"a.weight": Tensor([[1.0], [2.0]])}, {"a": {"kernel": jnp.zeros((1, 2))}})
    assert found["a"]["kernel"].tolist() == [[1.0, 2.0]]


def test_layers_have_the_names_of_the_module():
    _, params, _, _ = network("mlp")
    names = {"Dense_0": "net.0", "Dense_1": "net.2"}
    theirs = models.to_torch(params, names=names)
    assert sorted(theirs) == ["net.0.bias", "net.0.weight", "net.2.bias", "net.2.weight"]
    back, _ = models.from_torch(theirs, params, names=names)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize(("depth", "entries"), [(18, 122), (34, 218), (50, 320)])
def test_a_residual_network_has_the_names_of_torchvision(depth, entries):
    """As many entries as its state_dict has: a convolution, and five of its norm; and the last layer."""
    model = models.resnet(depth, 1000)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    params, state = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    theirs = models.to_torch(params, state, names=models.torchvision_names(depth))
    assert len(theirs) == entries
    last = {18: "conv2", 34: "conv2", 50: "conv3"}[depth]
    assert f"layer4.1.{last}.weight" in theirs
    assert theirs["layer2.0.downsample.1.running_var"].shape == (128 if depth < 50 else 512,)
    assert ("layer1.0.downsample.0.weight" in theirs) == (depth == 50)
    assert all(name.startswith(("conv1.", "bn1.", "layer", "fc.")) for name in theirs)
    found = models.from_torch(theirs, *shapes, names=models.torchvision_names(depth))
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, shapes)


def test_an_unknown_depth_has_no_names():
    with pytest.raises(ValueError, match="depth must be one of 18, 34, 50, but it is 101"):
        models.torchvision_names(101)


def test_an_embedding_a_scalar_and_sixteen_bits():
    params = {"table": {"embedding": jnp.ones((4, 2), jnp.bfloat16)}, "temperature": jnp.float32(0.3)}
    theirs = models.to_torch(params)
    assert {name: (array.shape, array.dtype.name) for name, array in theirs.items()} == {
        "table.weight": ((4, 2), "float32"),
        "temperature": ((), "float32"),
    }
    back, state = models.from_torch(theirs, params)
    assert back["table"]["embedding"].dtype == jnp.bfloat16
    assert state == {}


KERNEL = {"a": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}}
HEADS = {
    name: {"kernel": np.zeros((2, 3, 4) if name == "out" else (6, 2, 3))} for name in ("query", "key", "value", "out")
}
SQUARE = HEADS | {"out": {"kernel": np.zeros((2, 3, 6))}}
BIASED = SQUARE | {"query": {"kernel": np.zeros((6, 2, 3)), "bias": np.zeros((2, 3))}}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.to_torch(KERNEL, names={"b": "c"}), "names= has 'b', which is no layer here: there are a"),
        (
            lambda: models.to_torch({"a": {"kernel": np.zeros((2, 3)), "scale": np.zeros(3)}}),
            "a/kernel and a/scale are both 'a.weight' in PyTorch",
        ),
        (lambda: models.to_torch(KERNEL, names={"a": ""}), "names= has '' for 'a': give a name, such as 'net.0'"),
        (
            lambda: models.to_torch(KERNEL, {"batch_stats": {"a": {"bias": np.ones(3)}}}),
            "a/bias is in the parameters and",
        ),
        (lambda: models.to_torch({"a": {"bias": np.zeros((2, 3))}}), "of several networks side by side take one"),
        (lambda: models.to_torch({"a": jax.ShapeDtypeStruct((2,), np.float32)}), "a is no array, but ShapeDtypeStruct"),
        (
            lambda: models.to_torch({"at": BIASED}),
            "'at.in_proj_bias' in PyTorch is of query, key, value together, and here is at/query/bias alone",
        ),
        (lambda: models.to_torch({"at": HEADS}), r"at/out/kernel is \[2, 3, 4\]: attention of PyTorch has"),
        (lambda: models.from_torch({"a.bias": np.zeros(3)}, KERNEL), "no 'a.weight' for a/kernel: it has nothing more"),
        (
            lambda: models.from_torch({"a.weight": np.zeros((2, 3)), "a.bias": np.zeros(3)}, KERNEL),
            r"'a.weight' is \[2, 3\], where a/kernel makes it \[3, 2\]",
        ),
        (
            lambda: models.from_torch({**models.to_torch(KERNEL), "b.weight": np.zeros(1)}, KERNEL),
            "no layer here takes 'b.weight' of the module",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
