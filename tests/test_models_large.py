"""Networks for large images: counts by hand and from the papers, purity, and what may be pruned."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import models, sparsity, tree

IMAGE = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
SMALL = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def num_parameters(model, x):
    params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    return tree.size(params)


def conv(size, inputs, outputs, side, groups=1):
    """(parameters with BatchNorm, multiply-adds) of a convolution whose output is side x side."""
    weights = size * size * inputs * outputs // groups
    return np.array([weights + 2 * outputs, weights * side * side])


def dense(inputs, outputs):
    return np.array([inputs * outputs + outputs, inputs * outputs])


def resnet_cost(depth, num_classes, stride_in="3x3", small=False):
    """Counted by hand from table 1 of He et al."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
    side = 32 if small else 56
    cost = conv(3, 3, 64, 32) if small else conv(7, 3, 64, 112)
    channels = 64
    for stage, repeats in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(repeats):
            stride = 2 if stage and not block else 1
            before, side = side, side // stride
            if depth == 50:
                middle = side if stride_in == "1x1" else before
                cost += conv(1, channels, width, middle) + conv(3, width, width, side)
                cost += conv(1, width, 4 * width, side)
                out = 4 * width
            else:
                cost += conv(3, channels, width, side) + conv(3, width, width, side)
                out = width
            if channels != out:
                cost += conv(1, channels, out, side)
            channels = out
    return tuple((cost + dense(channels, num_classes)).tolist())


def mobilenet_cost(num_classes, stem=32, widths=(16, 24, 32, 64, 96, 160, 320), last=1280):
    """Counted by hand from table 2 of Sandler et al."""
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    table += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    side, channels = 112, stem
    cost = conv(3, 3, stem, side)
    for (t, _, n, s), c in zip(table, widths, strict=True):
        for repeat in range(n):
            hidden = t * channels
            if t > 1:
                cost += conv(1, channels, hidden, side)
            side //= s if repeat == 0 else 1
            cost += conv(3, hidden, hidden, side, groups=hidden) + conv(1, hidden, c, side)
            channels = c
    return tuple((cost + conv(1, channels, last, side) + dense(last, num_classes)).tolist())


def vit_cost(num_classes, width=192, patch=16, depth=12, patches=196):
    tokens = patches + 1
    embedding = patch * patch * 3 * width
    weights = 4 * width * width + 2 * 4 * width * width  # attention; hidden layer of four times the width
    biases = 4 * width + 4 * width + width
    parameters = embedding + width + width + tokens * width  # bias, class token, positions
    parameters += depth * (weights + biases + 2 * 2 * width) + 2 * width
    products = embedding * patches + depth * (weights * tokens + 2 * tokens * tokens * width)
    return tuple((np.array([parameters, products]) + dense(width, num_classes)).tolist())


@pytest.mark.parametrize(
    ("name", "options", "by_hand", "parameters", "billions"),
    [
        # Parameters as of the published weights; multiply-adds as in the papers' tables, which call them FLOPs.
        ("resnet18", {}, resnet_cost(18, 1000), 11_689_512, 1.8),
        ("resnet34", {}, resnet_cost(34, 1000), 21_797_672, 3.6),
        ("resnet50", {"stride_in": "1x1"}, resnet_cost(50, 1000, "1x1"), 25_557_032, 3.8),
        ("resnet50", {}, resnet_cost(50, 1000), 25_557_032, 4.1),  # v1.5: others' count
        ("mobilenet_v2", {}, mobilenet_cost(1000), 3_504_872, 0.30),
        ("vit_tiny", {}, vit_cost(1000), 5_717_416, 1.3),  # of others; DeiT has no count
    ],
)
@pytest.mark.slow
def test_parameters_and_multiply_adds(name, options, by_hand, parameters, billions):
    model = models.build(name, 1000, **options)
    report = sparsity.cost_report(model, IMAGE)
    count = num_parameters(model, IMAGE), report.total.multiply_adds
    assert count == by_hand
    assert count[0] == parameters
    # The papers round down or to the nearest: 3.66 is "3.6", 1.25 is "1.3".
    assert abs(count[1] / 1e9 - billions) < 0.07
    assert report.total.dense_bytes == 4 * parameters


@pytest.mark.slow
def test_small_images_keep_their_size():
    report = sparsity.cost_report(models.resnet18(10, small_images=True), SMALL)
    assert report.total.multiply_adds == resnet_cost(18, 10, small=True)[1]
    last = {}
    for small in (False, True):
        model = models.mobilenet_v2(10, small_images=small)
        rows = {row.path: row for row in sparsity.cost_report(model, SMALL).layers}
        last[small] = rows["Conv_1/kernel"].multiply_adds // (320 * 1280)
    assert last == {False: 1, True: 16}  # positions before the mean
    assert num_parameters(models.vit_tiny(10, small_images=True), SMALL) == (vit_cost(10, patch=4, patches=64)[0])


@pytest.mark.slow
def test_width_of_a_mobilenet():
    # Multiples of 8 by hand: 22.4 -> 24, 33.6 -> 32, 44.8 -> 48, 89.6 -> 88, 134.4 -> 136; the last layer grows.
    by_hand = mobilenet_cost(1000, 48, (24, 32, 48, 88, 136, 224, 448), 1792)
    assert by_hand == (6_108_776, 582_195_824)  # the authors' checkpoints: 6.06 and 582 million
    report = sparsity.cost_report(models.mobilenet_v2(1000, width=1.4), IMAGE)
    assert (report.total.dense_bytes // 4, report.total.multiply_adds) == by_hand
    params, _ = jax.eval_shape(models.mobilenet_v2(1000, width=0.35).init, jax.random.key(0), IMAGE)
    assert params["Conv_0"]["kernel"].shape[-1] == 16  # 11.2: rounded to 8 it would lose too much
    assert params["Conv_1"]["kernel"].shape[-1] == 1280  # never less


@pytest.mark.parametrize(
    ("name", "number", "dense_kernels"),
    [
        ("resnet18", 16 + 3, {"Conv_0/kernel", "Dense_0/kernel"}),
        ("resnet34", 32 + 3, {"Conv_0/kernel", "Dense_0/kernel"}),
        ("resnet50", 48 + 4, {"Conv_0/kernel", "Dense_0/kernel"}),
        ("mobilenet_v2", 17 * 3 - 1 + 1, {"Conv_0/kernel", "Dense_0/kernel"}),
        ("vit_tiny", 12 * 6, {"Conv_0/kernel", "Dense_0/kernel"}),
    ],
)
def test_all_kernels_but_the_first_and_the_last_are_prunable(name, number, dense_kernels):
    model = models.build(name, 1000)
    params, state = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    chosen = [path for path in tree.paths(params) if model.prunable(path)]
    assert len(chosen) == number
    assert all(path.endswith("kernel") for path in chosen)
    kernels = {path for path in tree.paths(params) if path.endswith("kernel")}
    assert kernels - set(chosen) == dense_kernels
    assert set(state) == (set() if name == "vit_tiny" else {"batch_stats"})


def test_heads_are_an_axis_of_their_own():
    params, _ = jax.eval_shape(models.vit_tiny(10).init, jax.random.key(0), IMAGE)
    attention = params["Block_3"]["MultiHeadDotProductAttention_0"]
    shapes = {name: attention[name]["kernel"].shape for name in attention}
    assert shapes == {
        "query": (192, 3, 64),
        "key": (192, 3, 64),
        "value": (192, 3, 64),
        "out": (3, 64, 192),
    }
    assert params["position"].shape == (1, 197, 192)


def filled(model, x, seed=0):
    """Parameters from NumPy: quicker than to compile the initializers."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path.split("/")[-1]
        fan_in = np.prod(leaf.shape[:-1]) or 1
        value = {"kernel": rng.normal(size=leaf.shape) / np.sqrt(fan_in), "scale": 1, "var": 1}
        return jnp.full(leaf.shape, value.get(name, 0), leaf.dtype)

    return tree.map_with_path(fill, jax.eval_shape(model.init, jax.random.key(0), x))


@pytest.fixture(
    params=[
        lambda: models.resnet18(3, small_images=True),
        lambda: models.resnet50(3),
        lambda: models.mobilenet_v2(3, width=0.1, small_images=True),
        lambda: models.vit(3, patch=4, width=8, depth=2, heads=2),
    ],
    ids=["resnet18", "resnet50", "mobilenet_v2", "vit"],
)
def network(request):
    model = request.param()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)
    apply = jax.jit(model.apply, static_argnames="train")
    with pytest.MonkeyPatch.context() as patch:  # shallow ones: quicker to compile, all kinds of layers
        stages = ((1, 16, 1, 1), (6, 24, 2, 2))
        patch.setattr(sys.modules["jaxfair.models._mobilenet"], "_STAGES", stages)
        blocks = {18: (1, 1), 50: (1, 1)}
        patch.setattr(sys.modules["jaxfair.models.resnet"], "_BLOCKS", blocks)
        yield (apply, *filled(model, x), x)


@pytest.mark.slow
def test_statistics_move_in_training_and_only_then(network):
    apply, params, state, x = network
    logits, trained = apply(params, state, x, train=True)
    again = apply(params, state, x, train=True)
    assert logits.shape == (4, 3)
    assert logits.dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, (logits, trained), again)  # pure
    assert jax.tree.structure(trained) == jax.tree.structure(state)
    means = [a != b for a, b in zip(*map(jax.tree.leaves, (trained, state)), strict=True)]
    assert all(bool(moved.any()) for moved in means)
    together, same = apply(params, trained, x, train=False)
    jax.tree.map(np.testing.assert_array_equal, same, trained)
    # An example's logits at test time do not depend on its batch; sums may be ordered differently. Padded, for
    # another batch size would be another compilation.
    alone, _ = apply(params, trained, jnp.concatenate([x[:1], 0 * x[1:]]), train=False)
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-4, atol=1e-5)
    assert (jnp.abs(together[0] - together[1]) > 1e-3).any()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "vit_tiny"])
def test_bfloat16_computes_in_it_and_keeps_float32(name):
    model = models.build(name, 10, dtype=jnp.bfloat16)
    params, state = jax.eval_shape(model.init, jax.random.key(0), SMALL)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} == {jnp.dtype("float32")}
    jaxpr = jax.make_jaxpr(lambda p, s, x: model.apply(p, s, x, train=True))(params, state, SMALL)
    assert (jaxpr.out_avals[0].shape, jaxpr.out_avals[0].dtype) == ((1, 10), jnp.float32)
    products = [line for line in str(jaxpr).splitlines() if "= conv_general" in line or "= dot_gen" in line]
    # Attention sums its scores in float32 whatever it multiplies.
    assert all(":bf16[" in line or name == "vit_tiny" for line in products)
    assert sum(":bf16[" in line for line in products) >= len(products) * 2 / 3


def test_what_cannot_be_built_says_so():
    with pytest.raises(ValueError, match="depth must be one of 18, 34, 50, but it is 20"):
        models.resnet(20, 10)
    with pytest.raises(ValueError, match="stride_in must be '3x3' or '1x1', but it is '2x2'"):
        models.resnet50(10, stride_in="2x2")
    with pytest.raises(ValueError, match=r"width multiplies the channels .* it is 0"):
        models.mobilenet_v2(10, width=0.0)
    with pytest.raises(ValueError, match="there are 5 for a width of 192"):
        models.vit_tiny(10, heads=5)
    init, x = models.vit_tiny(10).init, jax.ShapeDtypeStruct((1, 20, 32, 3), jnp.float32)
    with pytest.raises(ValueError, match="multiple of the patch of 16 pixels, but they are 20 x"):
        jax.eval_shape(init, jax.random.key(0), x)


def test_a_resized_network_needs_no_change_where_nothing_was_removed():
    model = models.vit(3, patch=4, width=8, depth=1, heads=2)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    params, state = filled(model, x)
    programs = [
        str(jax.make_jaxpr(lambda *a, m=m: m.apply(*a, train=False))(params, state, x))
        for m in (model, models.resized(model))
    ]
    assert programs[0] == programs[1]
