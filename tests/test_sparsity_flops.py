"""Multiply-adds and bytes: counts by hand, by loops, and by XLA; densities; the cost of training."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import models, sparsity, tree
from jaxfair.typing import Model


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def count(fn, params, *args):
    counts = sparsity.multiply_adds(fn, params, *args)
    return {path: number for path, number in counts.items() if number}


def test_an_mlp_by_hand():
    report = sparsity.cost_report(models.mlp(3, hidden=(8, 4)), shape(1, 5, 2))
    assert {row.path: row.multiply_adds for row in report.layers if row.multiply_adds} == {
        "Dense_0/kernel": 80,
        "Dense_1/kernel": 32,
        "Dense_2/kernel": 12,
    }
    assert report.total.multiply_adds == report.total.sparse_multiply_adds == 124
    assert report.total.dense_bytes == 4 * (80 + 8 + 32 + 4 + 12 + 3)
    assert [row.prunable for row in report.layers] == [
        False,
        True,
        False,
        True,
        False,
        False,
        False,
    ]


def test_xla_counts_twice_as_many():
    def two_products(params, x):
        return x @ params["a"] @ params["b"]

    params, x = {"a": shape(16, 32), "b": shape(32, 8)}, shape(5, 16)
    ours = sum(sparsity.multiply_adds(two_products, params, x).values())
    xla = jax.jit(two_products).lower(params, x).cost_analysis()["flops"]
    assert xla == 2 * ours == 2 * 5 * (16 * 32 + 32 * 8)


def convolved(**options):
    names = ("NHWC", "HWIO", "NHWC")
    return lambda p, x: jax.lax.conv_general_dilated(x, p["kernel"], dimension_numbers=names, **options)


def looped(batch, side, size, inputs, outputs, groups, stride, padding, spread):
    """Counts the products of a convolution one by one, those with the padding's zeros included."""
    extent = spread * (size - 1) + 1
    starts = range(0, side + 2 * padding - extent + 1, stride)
    places = itertools.product(range(batch), starts, starts, range(outputs))
    window = itertools.product(range(size), range(size), range(inputs // groups))
    return len(list(places)) * len(list(window))


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "stride", "padding", "spread"),
    [(3, 4, 1, 1, 0, 1), (4, 6, 2, 2, 1, 1), (6, 6, 6, 2, 1, 1), (2, 4, 1, 1, 2, 2)],
)
def test_a_convolution_one_by_one(inputs, outputs, groups, stride, padding, spread):
    fn = convolved(
        window_strides=(stride, stride),
        padding=((padding, padding),) * 2,
        rhs_dilation=(spread, spread),
        feature_group_count=groups,
    )
    params, x = {"kernel": shape(3, 3, inputs // groups, outputs)}, shape(2, 9, 9, inputs)
    expected = looped(2, 9, 3, inputs, outputs, groups, stride, padding, spread)
    assert count(fn, params, x) == {"kernel": expected}


def test_a_transposed_convolution_skips_its_zeros():
    fn = convolved(window_strides=(1, 1), padding=((2, 2), (2, 2)), lhs_dilation=(2, 2))
    # Every pixel of the input meets every weight once, but for what falls off the border.
    assert count(fn, {"kernel": shape(3, 3, 4, 5)}, shape(2, 7, 6, 4)) == {"kernel": 2 * 7 * 6 * 9 * 4 * 5}


def test_groups_of_the_batch():
    fn = convolved(window_strides=(1, 1), padding="VALID", batch_group_count=2)
    # Each half of the batch meets half of the outputs.
    assert count(fn, {"kernel": shape(3, 3, 3, 4)}, shape(6, 5, 5, 3)) == {"kernel": 3 * 3 * 3 * 4 * 27}


def test_attention_by_hand():
    model = models.vit(3, patch=4, width=8, depth=2, heads=2)
    report = sparsity.cost_report(model, shape(1, 8, 8, 3))
    rows = {row.path: row for row in report.layers}
    tokens = 5
    for name in ("query", "key", "value", "out"):
        row = rows[f"Block_1/MultiHeadDotProductAttention_0/{name}/kernel"]
        assert row.multiply_adds == tokens * 8 * 8
    assert rows["Conv_0/kernel"].multiply_adds == 4 * 48 * 8
    assert rows["Dense_0/kernel"].multiply_adds == 8 * 3
    # Queries with keys and attention with values, in two blocks.
    assert rows["(activations)"].multiply_adds == 2 * 2 * tokens * tokens * 8
    assert rows["position"].multiply_adds == 0
    assert report.total.multiply_adds == 2 * (12 * 64 * 5 + 2 * 25 * 8) + 4 * 48 * 8 + 24


PARAMS = {"w": shape(6, 4), "v": shape(3), "stack": shape(5, 4, 4)}


def loop(params, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params["stack"])[0]


def carried(params, x):
    """A kernel that arrives in the carry, and data that gets there in the second turn only."""

    def body(carry, _):
        h, w, late = carry
        return (h @ w, w, h), late @ w

    zeros = jnp.zeros((2, 6))
    return jax.lax.scan(body, (x, params["w"] @ jnp.ones((4, 6)), zeros), None, length=3)[1]


@jax.custom_vjp
def ruled(x, w):
    return x @ w


ruled.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))


@jax.custom_jvp
def soft(w):
    return jnp.sign(w) * jnp.maximum(jnp.abs(w) - 1, 0)


soft.defjvps(lambda tangent, _, w: tangent)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda p, x: x @ p["w"], {"w": 48}),
        (
            lambda p, x: x @ (p["w"].T.reshape(4, 6).T * (np.arange(24).reshape(6, 4) > 3)),
            {"w": 48},
        ),
        (lambda p, x: x @ p["w"].astype(jnp.bfloat16).astype(jnp.float32), {"w": 48}),
        (lambda p, x: jax.jit(lambda a, b: b @ a)(p["w"], x), {"w": 48}),
        (lambda p, x: jax.checkpoint(lambda a, b: b @ a)(p["w"], x), {"w": 48}),
        (lambda p, x: ruled(x, p["w"]), {"w": 48}),
        (lambda p, x: x @ soft(p["w"]), {"w": 48}),
        (lambda p, x: jax.vmap(lambda r: r @ p["w"])(x), {"w": 48}),
        (lambda p, x: jnp.einsum("bi,io->bo", x, p["w"] * p["v"].sum()), {"w": 48}),
        (lambda p, x: (x * p["v"].sum()) @ x.T, {"(activations)": 24}),
        (lambda p, x: x @ np.ones((6, 3), np.float32), {"(activations)": 36}),
        (lambda p, x: loop(p, x[:, :4]), {"stack": 5 * 2 * 4 * 4}),
        # the kernel itself is a product of six by four by six, then two products in each of three turns
        (carried, {"w": 6 * 4 * 6 + 3 * 2 * (2 * 6 * 6)}),
        (
            lambda p, x: jax.lax.fori_loop(0, 3, lambda i, h: h @ p["stack"][0], x[:, :4]),
            {"stack": 96},
        ),
        (lambda p, x: jax.lax.map(lambda r: r @ p["w"], x), {"w": 48}),
        (lambda p, x: jax.vmap(lambda r: loop(p, r))(x[:, :4]), {"stack": 5 * 2 * 4 * 4}),
        (lambda p, x: jax.lax.scan(lambda n, r: (n + 1, r @ p["w"] * n), 0.0, x, reverse=True)[1], {"w": 48}),
        (lambda p, x: jax.lax.scan(lambda n, _: (n, None), x @ p["w"], None, length=3)[0], {"w": 48}),
        # what is sliced is a vector of one, so that no length tells it from a constant
        (
            lambda p, x: jax.lax.scan(lambda h, s: (h * s, h @ p["w"]), x, jnp.ones(1))[1],
            {"w": 48},
        ),
        (
            lambda p, x: jax.lax.scan(lambda h, w: (loop({"stack": w[None]}, h), None), x[:, :4], p["stack"])[0],
            {"stack": 5 * 2 * 4 * 4},
        ),
        # forwards, and twice backwards: by the data in the carry, by the kernel
        (
            lambda p, x: jax.grad(lambda p: loop(p, x[:, :4]).sum())(p)["stack"],
            {"stack": 2 * 5 * 2 * 4 * 4, "(activations)": 5 * 2 * 4 * 4},
        ),
        (
            lambda p, x: jax.lax.cond(x.sum() > 0, lambda: x @ p["w"], lambda: x[:, :1] @ p["w"][:1]),
            {"w": 48},
        ),
    ],
    ids=[
        *("plain", "reshaped_and_masked", "cast", "jit", "remat", "custom_vjp", "custom_jvp"),
        *("vmap", "largest_leaf", "scaled_data", "constant", "scan", "carry", "fori"),
        *("map", "vmapped_scan", "reverse", "only_carry", "one_turn", "nested", "gradient", "cond"),
    ],
)
def test_a_product_finds_its_leaf(fn, expected):
    assert count(fn, PARAMS, shape(2, 6)) == expected


def test_a_loop_without_a_length_is_refused():
    def endless(params, x):
        return jax.lax.while_loop(lambda h: h.sum() < 9, lambda h: h @ params["stack"][0], x)

    with pytest.raises(ValueError, match=r"cannot count the products inside 'while'.*lax\.scan"):
        sparsity.multiply_adds(endless, PARAMS, shape(2, 4))

    def harmless(params, x):
        return jax.lax.while_loop(lambda h: h.sum() < 9, lambda h: h + 1, x) @ params["w"]

    assert count(harmless, PARAMS, shape(2, 6)) == {"w": 48}


def test_density_scales_each_layer():
    model = models.cifar_resnet(8, 4)
    x = shape(1, 8, 8, 3)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    masks = tree.map_with_path(lambda path, p: rng.random(p.shape) < 0.3 if model.prunable(path) else np.True_, params)
    report = sparsity.cost_report(model, x, masks)
    total = 0
    for row, p, m in zip(report.layers, jax.tree.leaves(params), jax.tree.leaves(masks), strict=False):
        kept = np.broadcast_to(m, p.shape).sum()
        uses, rest = divmod(row.multiply_adds, p.size)  # every weight of a kernel is used equally often
        assert rest == 0
        assert row.sparse_multiply_adds == uses * kept
        total += uses * kept
        assert row.density == kept / p.size
    assert report.total.sparse_multiply_adds == total < report.total.multiply_adds / 2
    ones = jax.tree.map(lambda m: np.ones_like(m), masks)
    dense = sparsity.cost_report(model, x, ones)
    assert dense.total.sparse_multiply_adds == dense.total.multiply_adds


def test_bytes_of_each_format():
    def init(key, x):
        return {"kernel": jnp.zeros((9, 5), jnp.bfloat16), "bias": jnp.zeros(5)}, {}

    model = Model(init, lambda p, s, x, train: (x @ p["kernel"], s), lambda path: path == "kernel")
    mask = np.zeros((9, 5), bool)
    mask[:2, :3] = True
    masks = {"kernel": mask, "bias": np.True_}
    bias, kernel, _ = sparsity.cost_report(model, shape(1, 9), masks).layers
    assert bias[-4:] == (20, 20, 20, 20)
    # 45 weights of 2 bytes; 6 of them and 6 bytes of bits; 6 of them, 6 indices and 5 + 1 pointers.
    assert kernel[-4:] == (90, 12 + 6, 12 + 4 * (6 + 6), 18)
    kernel = sparsity.cost_report(model, shape(1, 9), masks, index_bytes=1).layers[1]
    assert kernel.csr_bytes == 12 + 12
    masks["kernel"] = np.ones((9, 5), bool)
    kernel = sparsity.cost_report(model, shape(1, 9), masks).layers[1]
    assert (kernel.bitmask_bytes, kernel.smallest_bytes) == (96, 90)  # a full mask only costs


def test_masks_of_a_batch_are_refused():
    model = models.mlp(2, hidden=(3,))
    params, _ = jax.eval_shape(model.init, jax.random.key(0), shape(1, 4))
    masks = tree.map_with_path(lambda path, p: np.ones((2, *p.shape), bool), params)
    with pytest.raises(ValueError, match="mask of Dense_0/bias has the shape"):
        sparsity.cost_report(model, shape(1, 4), masks)


def test_the_report_prints_as_a_table():
    lines = str(sparsity.cost_report(models.mlp(3, hidden=(8,)), shape(1, 5))).splitlines()
    assert [line.split()[0] for line in lines] == [
        "layer",
        "Dense_0/kernel",
        "Dense_1/kernel",
        "total",
    ]
    assert lines[-1].split()[2:4] == ["64", "64"]


@pytest.fixture(scope="module")
def report():
    return sparsity.cost_report(models.mlp(3, hidden=(10, 10)), shape(1, 5))


def test_training_by_steps(report):
    prunable, head = 50 + 100, 30
    density = np.array([1.0, 0.75, 0.5, 0.5])
    by_hand = sum(3 * (prunable * d + head) for d in density)
    assert sparsity.training_cost(report, density) == pytest.approx(by_hand, rel=1e-12)
    each = np.tile([row.prunable for row in report.layers], (4, 1)) * density[:, None]
    each += np.tile([not row.prunable for row in report.layers], (4, 1))
    assert sparsity.training_cost(report, each) == pytest.approx(by_hand, rel=1e-12)
    assert sparsity.training_cost(report, np.ones(7)) == 7 * 3 * 180


@pytest.mark.parametrize("every", [0, 1, 9])
def test_rigl_is_the_mean_of_its_steps(report, every):
    """every sparse steps and one with a dense gradient: the printed formula, times the steps."""
    density, turns = 0.2, 4
    dense_gradient = np.tile([*[False] * every, True], turns)
    total = sparsity.training_cost(report, np.full(dense_gradient.size, density), dense_gradient=dense_gradient)
    sparse, dense = 150 * density + 30, 180.0
    mean = (3 * sparse * every + 2 * sparse + dense) / (every + 1)
    assert total == pytest.approx(mean * dense_gradient.size, rel=1e-12)


def test_densities_that_fit_nothing(report):
    with pytest.raises(ValueError, match=r"densities must be \[T\] or.*\[T, 7\].* \(4, 2\)"):
        sparsity.training_cost(report, np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"densities must lie in \[0, 1\]"):
        sparsity.training_cost(report, [90.0])


def test_products_that_are_not_counted_say_so():
    kernel = sparsity.to_bcoo({"w": jnp.eye(3)}, {"w": jnp.eye(3, dtype=bool)})
    with pytest.raises(ValueError, match="cannot count products by 'bcoo_dot_general'"):
        sparsity.multiply_adds(lambda p, x: x @ p["w"], kernel, jnp.ones((2, 3)))
    ragged = lambda p, x: jax.lax.ragged_dot(x, p["w"], jnp.array([2]))
    with pytest.raises(ValueError, match="cannot count products by 'ragged_dot"):
        sparsity.multiply_adds(ragged, {"w": jnp.ones((1, 3, 4))}, jnp.ones((2, 3)))
