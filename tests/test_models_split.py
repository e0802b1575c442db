"""A network cut before its last layer is the same network: bit for bit, in every form that a model comes in."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxfair import models, quant, recipes, tree
from jaxfair.typing import Model, Split, split_of

IMAGE, ROW = (2, 8, 8, 3), (2, 5)


class Body(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(6, name="last")(x)


class Net(nn.Module):
    """With BatchNorm, dropout, a nested body, and a layer that is called like the last one."""

    @nn.compact
    def __call__(self, x, *, train):
        x = Body(name="body")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(3, name="last")(nn.Dropout(0.5, deterministic=not train)(x))


class Nnx(nnx.Module):
    def __init__(self, *, rngs):
        self.hidden = nnx.Linear(5, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)])

    def __call__(self, x):
        x = self.drop(nnx.relu(self.norm(self.hidden(x))))
        return self.layers[1](self.layers[0](x))


def kernels(path):
    return path.endswith("kernel")


MODELS = {
    "mlp": (models.mlp(3, hidden=(4,)), ROW, "Dense_1"),
    "linear": (models.mlp(3, hidden=()), ROW, "Dense_0"),
    "linear_bfloat16": (models.mlp(3, hidden=(), dtype=jnp.bfloat16), ROW, "Dense_0"),
    "mlp_bfloat16": (models.mlp(3, hidden=(4,), dtype=jnp.bfloat16), ROW, "Dense_1"),
    "small_cnn": (models.small_cnn(3, widths=(4, 4)), IMAGE, "last"),
    "cifar_resnet": (models.cifar_resnet(8, 3), IMAGE, "Dense_0"),
    "resnet_bfloat16": (models.resnet18(3, small_images=True, dtype=jnp.bfloat16), IMAGE, "Dense_0"),
    "mobilenet_v2": (models.mobilenet_v2(3, width=0.35, small_images=True), IMAGE, "Dense_0"),
    "vit": (models.vit(3, patch=4, width=8, depth=1, heads=2), IMAGE, "Dense_0"),
    "linen": (models.linen(Net(), prunable=kernels, head="last"), ROW, "last"),
    "nnx": (models.nnx(Nnx, prunable=kernels, head="layers/1"), ROW, "layers/1"),
}
#: Compiled for seconds; the two largest in training only, which moves the state too.
SLOW, LARGE = ("cifar_resnet", "resnet_bfloat16", "mobilenet_v2", "vit"), ("resnet_bfloat16", "mobilenet_v2")
CASES = [
    pytest.param(name, train, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in MODELS
    for train in (False, True)
    if train or name not in LARGE
]


@functools.cache
def made(name):
    """The model, its last layer, parameters and a state that no initialiser would give, and an input."""
    model, shape, last = MODELS[name]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def fill(path, leaf):
        if path.endswith("var"):
            return jnp.asarray(rng.uniform(0.5, 2, leaf.shape), leaf.dtype)
        return jnp.asarray(rng.normal(size=leaf.shape) / 3, leaf.dtype)

    params, state = tree.map_with_path(fill, jax.eval_shape(model.init, jax.random.key(0), x))
    return model, last, params, state, x


def both(model, train):
    """The logits and the state of the whole, and of the two parts, as functions of what a model is called with."""

    def whole(params, state, x, key):
        return model.apply(params, state, x, train=train, key=key)

    def parts(params, state, x, key):
        z, state = model.split.features(params, state, x, train=train, key=key)
        return model.split.head(params, z), state

    return whole, parts


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(("name", "train"), CASES)
def test_the_two_parts_are_the_network(name, train):
    model, _, *arguments = made(name)
    whole, parts = (jax.jit(f)(*arguments, jax.random.key(7)) for f in both(model, train))
    same(whole, parts)
    assert whole[0].dtype == jnp.float32
    if train and arguments[1]:
        assert any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (whole[1], arguments[1])), strict=True))


@pytest.mark.parametrize("name", ["mlp", "linear_bfloat16", "mlp_bfloat16", "linen", "nnx"])
def test_the_two_parts_are_the_network_uncompiled(name):
    model, _, *arguments = made(name)
    for train in (False, True):
        whole, parts = (f(*arguments, jax.random.key(7)) for f in both(model, train))
        same(whole, parts)


@pytest.mark.parametrize("name", ["mlp", "small_cnn", "linen", "nnx"])
def test_the_head_knows_its_leaves_and_has_no_others(name):
    model, last, params, state, x = made(name)
    mine = [path for path in tree.paths(params) if model.split.in_head(path)]
    assert mine == [f"{last}/bias", f"{last}/kernel"]
    z = model.split.features(params, state, x, train=False)[0]
    assert z.ndim == 2
    gradient = jax.grad(lambda p, z: model.split.head(p, z).sum(), argnums=(0, 1))(params, z)
    moved = [path for path, leaf in zip(tree.paths(params), jax.tree.leaves(gradient[0]), strict=True) if leaf.any()]
    assert moved == mine


@pytest.mark.slow
def test_gradients_lanes_and_fake_quantisation_go_through():
    model, _, params, state, x = made("mlp")

    def loss(apply, params):
        return jnp.sum(apply(params, state, x, None)[0] ** 2)

    lanes = jax.tree.map(lambda a: jnp.stack([a, a + 1]), params)
    same(*(jax.jit(jax.vmap(jax.grad(functools.partial(loss, f))))(lanes) for f in both(model, False)))
    rounded = quant.model(model, 3)
    same(*(f(params, state, x, None) for f in both(rounded, False)))
    ones = jnp.ones((1, 4))
    assert bool((rounded.split.head(params, ones) != model.split.head(params, ones)).any())


def test_a_network_that_lost_channels_is_still_cut():
    model, _, params, state, x = made("mlp")
    params = {
        "Dense_0": {"bias": params["Dense_0"]["bias"][:3], "kernel": params["Dense_0"]["kernel"][:, :3]},
        "Dense_1": {"bias": params["Dense_1"]["bias"], "kernel": params["Dense_1"]["kernel"][:3]},
    }
    small = models.resized(model)
    same(*(f(params, state, x, None) for f in both(small, False)))
    assert small.split.features(params, state, x, train=False)[0].shape == (2, 3)


class Bent(nn.Module):
    """What follows the last layer is not the identity."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(4)(x)
        return nn.tanh(nn.Dense(4, name="twice")(nn.Dense(4, name="twice_too")(x)))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("Dense_9", "head='Dense_9' is no layer of the module: choose from Dense_0, twice_too, twice."),
        ("twice", "must be an nn.Dense that is called once"),
        ("Dense_0", "must be an nn.Dense that is called once"),
    ],
)
def test_a_head_that_is_none_is_one_line(head, said):
    model = models.linen(Bent(), prunable=kernels, head=head)
    with pytest.raises(ValueError, match=said.replace(".", r"\.")) as error:
        model.init(jax.random.key(0), jnp.ones((1, 4)))
    assert "\n" not in str(error.value)


def test_an_nnx_head_that_is_none_is_one_line():
    with pytest.raises(ValueError, match="head='end' is no layer of the module: choose from drop, hidden, norm"):
        models.nnx(Nnx, prunable=kernels, head="end")


def test_a_network_without_a_cut_is_told_so():
    model, _, _, _, _ = made("mlp")
    assert split_of(model) is model.split is split_of(model.split)
    with pytest.raises(ValueError, match="not cut before its last layer: give head="):
        split_of(models.linen(Net(), prunable=kernels))
    with pytest.raises(TypeError, match="str is no network"):
        split_of("mlp")
    assert Model(1, 2, 3).split is None
    assert recipes.pool(model, np.ones((2, 5), bool)).split is None  # the mean of probabilities has no one head
    assert isinstance(model.split, Split)
