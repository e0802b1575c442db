import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.models import small_cnn


def test_the_small_convolutional_network():
    """Its convolutions as products of patches are XLA's own."""
    model = small_cnn(10, (4, 8))
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    x = jax.random.normal(jax.random.key(1), (5, 8, 8, 3))
    logits, _ = model.apply(params, state, x, train=False)
    assert logits.shape == (5, 10)
    hidden = x
    for i, width in enumerate((4, 8)):
        kernel = params[f"Conv_{i}"]["kernel"].reshape(3, 3, -1, width)
        hidden = jax.nn.relu(jax.lax.conv_general_dilated(
            hidden, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")))  # fmt: skip
    expected = hidden.reshape(5, -1) @ params["last"]["kernel"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert [p for p in ("Conv_0/kernel", "Conv_1/kernel", "last/kernel") if model.prunable(p)] == ["Conv_1/kernel"]
