"""Dead channels go, and the function stays."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import models, sparsity, tree
from jaxfair.sparsity import Channels, Stage


def network(model, x_shape, seed=0, shift=0.5):
    """Parameters and statistics that are all different, masks with everything kept, and inputs."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(x_shape, jnp.float32))

    def fill(path, leaf):
        name = path.split("/")[-1]
        if name == "var":
            value = rng.uniform(0.5, 2, leaf.shape)
        elif name in ("kernel", "scale"):
            value = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) or 1)
        else:
            value = rng.normal(shift, 1, leaf.shape)
        return jnp.asarray(value, jnp.float32)

    params, state = tree.map_with_path(fill, shapes)
    masks = tree.map_with_path(lambda path, p: np.ones(p.shape, bool) if model.prunable(path) else np.True_, params)
    return params, state, masks, jnp.asarray(rng.normal(size=x_shape), jnp.float32)


def at(masks, path):
    *folders, leaf = path.split("/")
    for folder in folders:
        masks = masks[folder]
    return masks[leaf]


def silence(masks, path, channels, axis=-1):
    """Masks all weights that make these channels."""
    np.moveaxis(at(masks, path), axis, 0)[channels] = False


def thin(masks, rng):
    """Half of the weights of every layer, at random."""
    for mask in jax.tree.leaves(masks):
        if mask.ndim:
            mask &= rng.random(mask.shape) < 0.5


def agree(model, params, state, masks, x, small, atol=2e-5):
    """The masked network and the small one say the same. Sums of some hundred float32 products of order 1."""
    masked = sparsity.apply_masks(params, masks)

    def run(apply, *args):
        return np.asarray(jax.jit(lambda *args: apply(*args, train=False)[0])(*args))

    expected = run(model.apply, masked, state, x)
    got = run(models.resized(model).apply, small.params, small.state, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=atol)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3  # it depends on its input
    structures = (params, small.params), (state, small.state), (masks, small.masks)
    for before, after in structures:
        assert jax.tree.structure(before) == jax.tree.structure(after)
    for path, p, m in zip(tree.paths(small.params), *map(jax.tree.leaves, (small.params, small.masks)), strict=True):
        assert m.shape in ((), p.shape), path


MODELS = {
    "mlp": (lambda: models.mlp(3, hidden=(7, 6)), (4, 5)),
    "cifar_resnet": (lambda: models.cifar_resnet(8, 3), (2, 6, 6, 3)),
    "resnet50": (lambda: models.resnet50(3, small_images=True), (2, 4, 4, 3)),
    "mobilenet_v2": (lambda: models.mobilenet_v2(3, small_images=True), (2, 6, 6, 3)),
}


@pytest.fixture(params=MODELS)
def model_and_shape(request):
    with pytest.MonkeyPatch.context() as patch:  # shallow ones: quicker to compile, all kinds of layers
        stages = ((1, 8, 1, 1), (6, 8, 2, 2))
        patch.setattr(sys.modules["jaxfair.models._mobilenet"], "_STAGES", stages)
        blocks = {18: (1, 1), 34: (1, 1), 50: (1, 1)}
        patch.setattr(sys.modules["jaxfair.models.resnet"], "_BLOCKS", blocks)
        make, x_shape = MODELS[request.param]
        yield make(), x_shape


@pytest.mark.slow
def test_the_function_stays(model_and_shape):
    model, x_shape = model_and_shape
    params, state, masks, x = network(model, x_shape)
    description = models.channels_of(params)
    assert description
    nothing = sparsity.remove_channels(params, state, masks, description)
    for before, after in ((params, nothing.params), (state, nothing.state), (masks, nothing.masks)):
        jax.tree.map(np.testing.assert_array_equal, before, after)
    assert all(row.before == row.after and row.kept == "" for row in nothing.report)

    thin(masks, np.random.default_rng(1))
    for group in description:  # a third of all channels
        for stage in group.stages:
            mask = at(masks, stage.kernel)
            if mask.ndim:
                silence(masks, stage.kernel, slice(None, None, 3), stage.axis)
    small = sparsity.remove_channels(params, state, masks, description)
    agree(model, params, state, masks, x, small)
    gone = [row.before - row.after for row in small.report]
    assert sum(n > 0 for n in gone) >= len(gone) / 2
    report = sparsity.cost_report(model, x, masks).total
    smaller = sum(
        sparsity.multiply_adds(
            lambda p, s, x: models.resized(model).apply(p, s, x, train=False)[0],
            small.params,
            small.state,
            x,
        ).values()
    )
    assert smaller < report.multiply_adds


def test_a_shift_that_relu_stops_leaves_through_a_padded_layer_and_another_stays():
    model, group = models.cifar_resnet(8, 3), "Block_1_0"
    params, state, masks, x = network(model, (2, 6, 6, 3))
    silence(masks, f"{group}/Conv_0/kernel", slice(0, 8))
    norm, stats = params[group]["BatchNorm_0"], state["batch_stats"][group]["BatchNorm_0"]
    stats["mean"] = jnp.zeros(32)
    norm["bias"] = jnp.where(np.arange(32) < 5, -0.1, 0.1)  # five say 0, and three 0.1
    small = sparsity.remove_channels(params, state, masks, models.channels_of(params))
    rows = {row.path: row for row in small.report}
    row = rows.pop(f"{group}/Conv_0/kernel")
    assert row == (f"{group}/Conv_0/kernel", 32, 27, 0, "padding")
    assert all(row.before == row.after for row in rows.values())
    agree(model, params, state, masks, x, small)
    assert small.params[group]["Conv_1"]["kernel"].shape == (3, 3, 27, 32)


def test_what_goes_takes_others_with_it():
    """Layer 0 feeds one unit of layer 1 by one unit; when that goes, the other is constant, and so on."""
    model = models.mlp(2, hidden=(4, 4, 4))
    params, state, masks, x = network(model, (3, 5))
    silence(masks, "Dense_0/kernel", [0])
    masks["Dense_1"]["kernel"][1:, 0] = False  # unit 0 hears unit 0 only
    masks["Dense_2"]["kernel"][1:, 0] = False
    masks["Dense_2"]["kernel"][3, :] = False  # nobody hears unit 3 of layer 1
    masks["Dense_1"]["kernel"][2, :3] = False  # unit 2 of layer 0 speaks to it alone
    small = sparsity.remove_channels(params, state, masks, models.channels_of(params))
    agree(model, params, state, masks, x, small)
    assert [(row.after, row.unread) for row in small.report] == [(2, 1), (2, 1), (3, 0)]


def test_a_layer_keeps_one_channel():
    model = models.mlp(2, hidden=(3,))
    params, state, masks, x = network(model, (3, 5))
    masks["Dense_0"]["kernel"][:] = False
    small = sparsity.remove_channels(params, state, masks, models.channels_of(params))
    assert small.report[0] == ("Dense_0/kernel", 3, 1, 0, "the last one")
    expected, _ = model.apply(sparsity.apply_masks(params, masks), state, x, train=False)
    got, _ = models.mlp(2, hidden=(1,)).apply(small.params, small.state, x, train=False)
    np.testing.assert_allclose(got, expected, rtol=1e-5)  # sums of four float32 numbers


def test_a_pruned_bias_that_takes_up_a_constant_lives():
    model = models.mlp(2, hidden=(3,))
    params, state, masks, x = network(model, (3, 5), shift=2.0)
    silence(masks, "Dense_0/kernel", [1])
    masks["Dense_0"]["bias"] = np.array([True, True, False])
    masks["Dense_1"]["bias"] = np.array([False, True])
    small = sparsity.remove_channels(params, state, masks, models.channels_of(params))
    agree(model, params, state, masks, x, small)
    assert small.masks["Dense_1"]["bias"].tolist() == [True, True]
    assert small.masks["Dense_0"]["bias"].tolist() == [True, False]


def test_heads_that_repeat_their_bias_go_and_hidden_units():
    model = models.vit(3, patch=4, width=8, depth=1, heads=4)
    params, state, masks, x = network(model, (2, 8, 8, 3))
    description = models.channels_of(params)
    attention = "Block_0/MultiHeadDotProductAttention_0"
    nothing = sparsity.remove_channels(params, state, masks, description)
    jax.tree.map(np.testing.assert_array_equal, params, nothing.params)
    thin(masks, np.random.default_rng(1))
    silence(masks, "Block_0/Dense_0/kernel", slice(0, 12))
    silence(masks, f"{attention}/value/kernel", [1], axis=1)
    silence(masks, f"{attention}/out/kernel", [2], axis=0)
    small = sparsity.remove_channels(params, state, masks, description)
    agree(model, params, state, masks, x, small)
    rows = {row.path: row for row in small.report}
    assert rows["Block_0/Dense_0/kernel"][1:] == (32, 20, 0, "")
    assert rows[f"{attention}/value/kernel"][1:] == (4, 2, 1, "")
    kept = small.params["Block_0"]["MultiHeadDotProductAttention_0"]
    assert kept["query"]["kernel"].shape == kept["key"]["kernel"].shape == (8, 2, 2)
    assert (kept["key"]["bias"].shape, kept["out"]["kernel"].shape) == ((2, 2), (2, 2, 8))


class Flattened(nn.Module):
    """A convolution without padding, read by a dense layer position by position, and by another beside it."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(nn.Conv(6, (3, 3), padding="VALID", name="first")(x))
        flat = x.reshape(x.shape[0], -1)
        return nn.Dense(3, name="flat")(flat) + nn.Dense(3, name="mean")(x.mean((1, 2)))


def test_a_description_of_ones_own():
    model = models.linen(Flattened(), prunable=lambda path: path == "first/kernel")
    params, state, masks, x = network(model, (2, 5, 5, 2))
    silence(masks, "first/kernel", [0, 4])
    readers = tuple(Stage(f"{name}/kernel", -2, f"{name}/bias") for name in ("flat", "mean"))
    description = [Channels((Stage("first/kernel", bias="first/bias"),), readers)]
    small = sparsity.remove_channels(params, state, masks, description)
    agree(model, params, state, masks, x, small)
    assert small.params["flat"]["kernel"].shape == (3 * 3 * 4, 3)
    assert models.channels_of(params) == []

    # Without a place for the constant the channel stays, and says why.
    readers = tuple(reader._replace(bias=None) for reader in readers)
    kept = sparsity.remove_channels(params, state, masks, [description[0]._replace(readers=readers)])
    silent = np.maximum(params["first"]["bias"], 0)[jnp.array([0, 4])] == 0
    assert kept.report[0].after == 6 - silent.sum()
    assert kept.report[0].kept == ("" if silent.all() else "no bias")


def test_numbers_keep_their_type():
    model = models.mlp(2, hidden=(3,))
    params, state, masks, _ = network(model, (3, 5), shift=2.0)
    silence(masks, "Dense_0/kernel", [1])
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    small = sparsity.remove_channels(params, state, masks, models.channels_of(params))
    assert {p.dtype for p in jax.tree.leaves(small.params)} == {jnp.dtype("bfloat16")}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(small[:3]))


def test_a_wrong_description_says_so():
    model = models.mlp(2, hidden=(3,))
    params, state, masks, _ = network(model, (3, 5))
    (group,) = models.channels_of(params)
    wrong = group._replace(readers=(Stage("Dense_9/kernel", -2),))
    with pytest.raises(ValueError, match="the network has no 'Dense_9/kernel'"):
        sparsity.remove_channels(params, state, masks, [wrong])
    wrong = group._replace(stages=(group.stages[0]._replace(activation="swish"),))
    with pytest.raises(ValueError, match=r"one of identity, relu, relu6, gelu, but it is 'swish'"):
        sparsity.remove_channels(params, state, masks, [wrong])


def test_a_network_pruned_by_units_gets_smaller():
    model = models.mlp(2, hidden=(16,))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, 6)), jnp.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    params, state, _, _ = network(model, (64, 6), shift=0)
    tx = sparsity.prune(
        optax.adam(0.01),
        sparsity.polynomial(0.5, begin=0, end=40, every=10),
        structure=sparsity.channel(),
        prunable=model.prunable,
    )

    @jax.jit
    def step(params, opt_state):
        def loss(params):
            logits, _ = model.apply(params, state, x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    opt_state, values = tx.init(params), []
    for _ in range(60):
        params, opt_state, value = step(params, opt_state)
        values.append(float(value))
    assert values[-1] < values[0]
    masks = sparsity.get_masks(opt_state)
    small = sparsity.remove_channels(params, state, masks, models.channels_of(params))
    agree(model, params, state, masks, x, small)
    assert [row.after for row in small.report] == [8]
    assert small.params["Dense_0"]["bias"].shape == (8,)
    assert all(m.all() for m in jax.tree.leaves(small.masks))  # nothing masked is left


def test_a_channel_multiplier_is_refused():
    shapes = {"a": (1, 1, 3, 2), "b": (1, 1, 1, 4), "c": (1, 1, 4, 2)}
    params = {k: {"kernel": jnp.ones(s), "bias": jnp.ones(s[-1])} for k, s in shapes.items()}
    masks = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    layer = lambda k, axis=-1: Stage(f"{k}/kernel", axis, f"{k}/bias")
    channels = [Channels((layer("a"), layer("b")), (layer("c", -2),))]
    with pytest.raises(ValueError, match="'b/kernel' has not the 2 channels"):
        sparsity.remove_channels(params, {}, masks, channels)


def test_a_network_that_is_not_known_has_no_description():
    def layers(*shapes, bias=True):
        return {
            f"Dense_{i}": {"kernel": jnp.ones(s)} | ({"bias": jnp.ones(s[-1])} if bias else {})
            for i, s in enumerate(shapes)
        }

    assert len(models.channels_of(layers((3, 4), (4, 2)))) == 1
    assert models.channels_of(layers((3, 4), (4, 2), bias=False)) == []
    # Flax numbers by construction: in Dense(2)(tanh(Dense(4)(x))), the outer one is the first.
    assert models.channels_of(layers((4, 2), (3, 4))) == []
    assert models.channels_of({"Dense_0": layers((3, 4))["Dense_0"], "head": {}}) == []


@pytest.mark.parametrize(("shift", "said"), [(9.0, 6.0), (5.0, 5.0), (-1.0, 0.0)])
def test_relu6_says_six_at_most(shift, said):
    params = {
        "a": {"kernel": jnp.ones((2, 2)), "bias": jnp.array([0.0, shift])},
        "b": {"kernel": jnp.array([[1.0], [2.0]]), "bias": jnp.zeros(1)},
    }
    masks = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    masks["a"]["kernel"] = masks["a"]["kernel"].at[:, 1].set(False)
    stages = Stage("a/kernel", bias="a/bias", activation="relu6"), Stage("b/kernel", -2, "b/bias")
    small = sparsity.remove_channels(params, {}, masks, [Channels(stages[:1], stages[1:])])
    assert small.params["a"]["kernel"].shape == (2, 1)
    assert small.params["b"]["bias"].tolist() == [2 * said]
