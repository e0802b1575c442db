"""What reads a program that JAX made finds the same in it, however this version of JAX writes it down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import sparsity
from jaxfair.recipes import _identity
from jaxfair.train import backend

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)), jnp.float32)
KERNEL = np.ones((6, 4), np.float32)
FACTORS = np.arange(1, 7, dtype=np.float32)[None]


@jax.custom_vjp
def ruled(x, w):
    return x @ w


ruled.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))


@jax.custom_jvp
def soft(w):
    return w.astype(jnp.float32)


soft.defjvps(lambda tangent, _, w: tangent)

#: A product of x, or of twice x, with a kernel: name -> (function, factor).
PRODUCTS = {
    "plain": (lambda w: X @ w, 1.0),
    "jit": (lambda w: jax.jit(lambda w: X @ w)(w), 1.0),
    "jit of a jit": (lambda w: jax.jit(lambda w: jax.jit(jnp.matmul)(2.0 * X, w))(w), 2.0),
    "constant inside": (lambda w: jax.jit(lambda w: (X * np.float32(2.0)) @ w)(w), 2.0),
    "remat": (lambda w: jax.checkpoint(lambda w: X @ w)(w), 1.0),
    "custom_vjp": (lambda w: ruled(X, w), 1.0),
    "custom_jvp": (lambda w: X @ soft(w), 1.0),
    "after a scan": (lambda w: jax.lax.scan(lambda h, _: (h + X, None), X, None, length=1)[0] @ w, 2.0),
    "after a fori_loop": (lambda w: jax.lax.fori_loop(0, 1, lambda i, h: 2.0 * h, X) @ w, 2.0),
    "after a while_loop": (lambda w: jax.lax.while_loop(lambda h: h.max() < 1e-3, lambda h: h, X) @ w, 1.0),
    "after a cond": (lambda w: jax.lax.cond(w.sum() > 0, lambda: X, lambda: -X) @ w, 1.0),
    "after a map": (lambda w: jax.lax.map(lambda row: 2.0 * row, X) @ w, 2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_wanda_measures_what_a_kernel_is_multiplied_with(name):
    forward, factor = PRODUCTS[name]
    found = sparsity.input_norms(lambda p: forward(p["w"]), {"w": KERNEL}, prunable=lambda path: True)["w"]
    np.testing.assert_allclose(found[:, 0], factor * np.linalg.norm(X, axis=0), rtol=1e-6)


@pytest.mark.parametrize("name", PRODUCTS)
def test_multiply_adds_of_a_product_are_those_of_its_kernel(name):
    forward, _ = PRODUCTS[name]
    found = sparsity.multiply_adds(lambda p, x: forward(p["w"]) + x.sum(), {"w": KERNEL}, X)
    assert found == {"w": 2 * 6 * 4, "(activations)": 0}


def convolve(image):
    return jax.lax.conv(image, np.ones((1, 1, 2, 2), np.float32), (1, 1), "SAME")


IMAGE = np.ones((1, 1, 4, 4), np.float32)
#: A convolution at the bottom of what JAX nests.
NESTED = {
    "plain": convolve,
    "jit": jax.jit(convolve),
    "remat": jax.checkpoint(convolve),
    "scan": lambda x: jax.lax.scan(lambda h, _: (convolve(h), None), x, None, length=2)[0],
    "fori_loop": lambda x: jax.lax.fori_loop(0, 2, lambda i, h: convolve(h), x),
    "while_loop": lambda x: jax.lax.while_loop(lambda h: h.sum() < 99, convolve, x),
    "cond": lambda x: jax.lax.cond(x.sum() > 0, convolve, lambda x: x, x),
    "switch": lambda x: jax.lax.switch(x.sum().astype(int) % 3, [lambda x: x, jnp.tanh, jax.jit(convolve)], x),
    "gradient": jax.grad(lambda x: convolve(x).sum()),
    "vmap": jax.vmap(convolve),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_convolution_is_found_wherever_it_is_nested(name):
    image = IMAGE[None] if name == "vmap" else IMAGE
    assert backend.has_convolution(NESTED[name], image)


def test_products_are_no_convolutions():
    for forward, _ in PRODUCTS.values():
        assert not backend.has_convolution(forward, KERNEL)


def test_a_function_is_the_same_function_when_it_is_traced_again():
    def make(factor):
        @jax.custom_jvp
        def scaled(x):
            return factor * x

        scaled.defjvps(lambda tangent, _, x: factor * tangent)
        return lambda x: jax.lax.scan(lambda h, _: (scaled(h) + FACTORS, None), x, None, length=3)[0]

    one, same, other = (_identity.of_function(make(factor), X) for factor in (2.0, 2.0, 3.0))
    assert one == same != other


def test_what_a_jitted_function_closes_over_is_a_part_of_it():
    """Its arrays stand neither in its text nor among the constants of who calls it."""

    def make(first):
        inner = jax.jit(lambda x: x - np.float32([first, 1.0, 2.0]))
        return lambda x: jax.lax.cond(x[0] > 0, jax.checkpoint(inner), jax.jit(inner), x)

    shape = jax.ShapeDtypeStruct((3,), np.float32)
    one, same, other = (_identity.of_function(make(first), shape) for first in (0.0, 0.0, 5.0))
    assert one == same != other
