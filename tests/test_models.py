"""Networks: exact parameter counts, purity, and the seam that any module system goes through."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxfair import models, sparsity, tree
from jaxfair.typing import Model

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def num_parameters(model, x):
    params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    return tree.size(params)


def resnet_size(depth, num_classes, shortcut):
    """Counted by hand from the table in He et al.: kernels, two numbers per BatchNorm channel, dense."""
    n = (depth - 2) // 6
    total, channels = 3 * 3 * 3 * 16 + 2 * 16, 16
    for width in (16, 32, 64):
        for _ in range(n):
            total += 9 * channels * width + 9 * width * width + 4 * width
            if width != channels and shortcut == "projection":
                total += channels * width + 2 * width
            channels = width
    return total + 64 * num_classes + num_classes


@pytest.mark.parametrize(
    ("depth", "num_classes", "shortcut", "number"),
    [
        (20, 10, "pad", 269_722),  # the paper's 0.27 M
        (32, 10, "pad", 464_154),  # 0.46 M
        (56, 10, "pad", 853_018),  # 0.85 M
        (20, 10, "projection", 272_474),
        (32, 10, "projection", 466_906),
        (56, 10, "projection", 855_770),
        (20, 100, "pad", 275_572),
        (56, 100, "pad", 858_868),
        (20, 100, "projection", 278_324),
        (56, 100, "projection", 861_620),
    ],
)
def test_resnet_parameters(depth, num_classes, shortcut, number):
    model = models.cifar_resnet(depth, num_classes, shortcut=shortcut)
    assert num_parameters(model, IMAGE) == number == resnet_size(depth, num_classes, shortcut)


def test_resnet_prunes_all_convolutions_but_the_first():
    model = models.cifar_resnet56(100)
    params, state = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    kept = [path for path in tree.paths(params) if not model.prunable(path)]
    chosen = [path for path in tree.paths(params) if model.prunable(path)]
    assert len(chosen) == 54 + 2  # 27 blocks of two, and two 1x1 convolutions
    assert all(path.endswith("kernel") for path in chosen)
    assert {p for p in kept if p.endswith("kernel")} == {"Conv_0/kernel", "Dense_0/kernel"}
    assert set(state) == {"batch_stats"}


@pytest.fixture(scope="module", params=["projection", "pad"])
def small_resnet(request):
    """A network with three blocks on small images: all kinds of layers, quick to compile."""
    model = models.cifar_resnet(8, 3, shortcut=request.param)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, 8, 8, 3)), jnp.float32)

    def fill(path, leaf):  # quicker than to compile the initializers
        value = {"kernel": rng.normal(size=leaf.shape) / 8, "scale": 1, "var": 1}
        return jnp.full(leaf.shape, value.get(path.split("/")[-1], 0), leaf.dtype)

    params, state = tree.map_with_path(fill, jax.eval_shape(model.init, jax.random.key(0), x))
    apply = jax.jit(model.apply, static_argnames="train")
    return model, apply, params, state, x


@pytest.mark.slow
def test_resnet_trains_statistics_and_only_then(small_resnet):
    _, apply, params, state, x = small_resnet
    logits, trained = apply(params, state, x, train=True)
    again, trained_again = apply(params, state, x, train=True)
    assert logits.shape == (4, 3)
    assert logits.dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, (logits, trained), (again, trained_again))  # pure
    assert jax.tree.structure(trained) == jax.tree.structure(state)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), trained, state)
    assert all(jax.tree.leaves(moved))
    _, same = apply(params, state, x, train=False)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    # An example's logits at test time do not depend on its batch; sums may be ordered differently.
    alone, _ = apply(params, trained, x[:1], train=False)
    together, _ = apply(params, trained, x, train=False)
    np.testing.assert_allclose(alone, together[:1], rtol=1e-4, atol=1e-5)


def test_resnet_statistics_are_a_moving_average(small_resnet):
    _, apply, params, state, x = small_resnet
    _, trained = apply(params, state, x, train=True)
    old, new = (s["batch_stats"]["BatchNorm_0"]["mean"] for s in (state, trained))
    first = jax.lax.conv_general_dilated(
        x, params["Conv_0"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = 0.9 * old + 0.1 * first.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(new, expected, rtol=1e-4, atol=1e-6)  # sums of 256 float32 numbers


def test_mlp_is_what_it_says():
    model = models.mlp(2, hidden=(8, 4))
    x = jax.random.normal(jax.random.key(1), (5, 3, 2))  # flattened to six features
    params, state = model.init(jax.random.key(0), x)
    assert state == {}
    assert tree.size(params) == 6 * 8 + 8 + 8 * 4 + 4 + 4 * 2 + 2
    assert [p for p in tree.paths(params) if model.prunable(p)] == [
        "Dense_0/kernel",
        "Dense_1/kernel",
    ]
    h = np.asarray(x).reshape(5, 6)
    for i in range(3):
        h = h @ np.asarray(params[f"Dense_{i}"]["kernel"]) + np.asarray(params[f"Dense_{i}"]["bias"])
        h = np.maximum(h, 0) if i < 2 else h
    logits, same = model.apply(params, state, x, train=True)
    np.testing.assert_allclose(logits, h, rtol=1e-5, atol=1e-6)  # float32 sums of at most 8 terms
    assert same == {}


def test_mlp_in_bfloat16_has_float32_parameters_and_logits():
    model = models.mlp(2, hidden=(8,), dtype=jnp.bfloat16)
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 5)))
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    logits, _ = model.apply(params, state, jnp.ones((3, 5)), train=False)
    assert logits.dtype == jnp.float32
    assert (logits == logits.astype(jnp.bfloat16).astype(jnp.float32)).all()


def test_dropout_takes_the_key():
    import flax.linen as nn

    class Dropped(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))

    model = models.linen(Dropped(), prunable=lambda path: False)
    x = jnp.ones((3, 40))
    params, state = model.init(jax.random.key(0), x)
    one, two, one_again = (model.apply(params, state, x, train=True, key=jax.random.key(k))[0] for k in (1, 2, 1))
    assert (one == one_again).all()
    assert (one != two).any()


@pytest.mark.parametrize("name", models.REGISTRY)
@pytest.mark.slow
def test_every_name_builds_a_model(name):
    model = models.build(name, 7)
    params, state = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    assert any(map(model.prunable, tree.paths(params)))
    logits, _ = jax.eval_shape(lambda *a: model.apply(*a, train=True), params, state, IMAGE)
    assert (logits.shape, logits.dtype) == ((1, 7), jnp.float32)


def test_what_cannot_be_built_says_so():
    with pytest.raises(models.UnknownModel, match="no model 'resnet'; choose from mlp, cifar_resnet20"):
        models.build("resnet", 10)
    with pytest.raises(ValueError, match=r"depth must be 6 n \+ 2 .* it is 18"):
        models.cifar_resnet(18, 10)
    with pytest.raises(ValueError, match="shortcut must be 'projection' or 'pad', but it is 'none'"):
        models.cifar_resnet(20, 10, shortcut="none")


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(6, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(jax.nn.relu(self.norm(self.hidden(x))))


def nnx_model() -> Model:
    """An NNX network as a `Model`: split it into plain dicts, merge them when it is called."""

    def split(net):
        graph, params, rest = nnx.split(net, nnx.Param, ...)
        return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def init(key, x):
        del x
        return split(NNXNet(nnx.Rngs(key)))[1:]

    def apply(params, state, x, *, train, key=None):
        net = nnx.eval_shape(lambda: NNXNet(nnx.Rngs(0)))
        nnx.update(net, nnx.merge_state(*(as_state(net, d) for d in (params, state))))
        net.train() if train else net.eval()
        logits = net(x)
        return logits, split(net)[2] if train else state

    def as_state(net, values):
        part = nnx.state(net)
        paths = {p for p, _ in nnx.traversals.flatten_mapping(values).items()}
        chosen = nnx.filter_state(part, lambda path, _: tuple(path) in paths)
        nnx.replace_by_pure_dict(chosen, values)
        return chosen

    return Model(init, apply, prunable=lambda path: path == "hidden/kernel")


def test_an_nnx_network_goes_through_the_same_seam():
    model = nnx_model()
    x = jax.random.normal(jax.random.key(1), (16, 6))
    y = jnp.arange(16) % 2
    params, state = model.init(jax.random.key(0), x)
    tx = sparsity.prune(optax.adam(0.05), sparsity.polynomial(0.5, begin=0, end=4, every=2), prunable=model.prunable)

    @jax.jit
    def step(params, state, opt_state):
        def loss(params):
            logits, new = model.apply(params, state, x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

        (value, state_), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), state_, opt_state, value

    opt_state, losses = tx.init(params), []
    start = state
    for _ in range(8):
        params, state, opt_state, value = step(params, state, opt_state)
        losses.append(float(value))
    assert losses[-1] < losses[0]
    assert int((params["hidden"]["kernel"] == 0).sum()) == 24
    assert (state["norm"]["mean"] != start["norm"]["mean"]).any()
