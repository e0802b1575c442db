"""A vision transformer with a class token.

.. code-block:: text

    patches of p x p pixels - dense to D - class token in front - position embeddings
    depth blocks:   x = x + attention(LN(x));   x = x + dense(gelu(dense(LN(x))))
    LN - dense of the class token

The kernels of queries, keys and values are ``[D, heads, D / heads]`` and that of the output is
``[heads, D / heads, D]``, so that a structure can prune whole heads. Counted in weights this is the usual network:

========  =====  =====  =====  =====  ==========  ===========================
name      patch  D      depth  heads  parameters  multiply-adds at 224 x 224
========  =====  =====  =====  =====  ==========  ===========================
vit_tiny  16     192    12     3      5,717,416   1,253,683,200
========  =====  =====  =====  =====  ==========  ===========================

(1000 classes. The paper: 5 million parameters; 1.3 billion is what others report. One multiplication with its addition
counts once; of them 178,831,872 are products of activations: queries with keys, attention with values.)

References:
  Dosovitskiy et al., *An image is worth 16x16 words: transformers for image recognition at scale*, 2021; Touvron et
  al., *Training data-efficient image transformers and distillation through attention*, 2021, table 1 (DeiT-Ti).
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxfair.models.linen import linen
from jaxfair.typing import Model

# DeiT's; cut off at two standard deviations.
_init = nn.initializers.truncated_normal(0.02)


class _Block(nn.Module):
    heads: int
    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        norm = partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        dense = partial(nn.Dense, kernel_init=_init, dtype=self.dtype)
        attention = nn.MultiHeadDotProductAttention(self.heads, kernel_init=_init, dtype=self.dtype, deterministic=True)
        x = x + attention(norm()(x))
        y = nn.gelu(dense(self.hidden)(norm()(x)), approximate=False)
        return x + dense(x.shape[-1])(y)


class _ViT(nn.Module):
    num_classes: int
    patch: int
    width: int
    depth: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train):
        del train  # nothing here depends on it
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"images must be a multiple of the patch of {self.patch} pixels, but they are "
                f"{x.shape[1]} x {x.shape[2]}; resize them, or choose another patch"
            )
        size = (self.patch, self.patch)
        x = nn.Conv(self.width, size, strides=size, padding="VALID", dtype=self.dtype)(x)
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param("class_token", _init, (1, 1, self.width)).astype(x.dtype)
        token = jnp.broadcast_to(token, (x.shape[0], 1, self.width))
        x = jnp.concatenate([token, x], axis=1)
        position = self.param("position", _init, (1, x.shape[1], self.width))
        x = x + position.astype(x.dtype)
        for block in range(self.depth):
            x = _Block(self.heads, 4 * self.width, self.dtype, name=f"Block_{block}")(x)
        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)(x[:, 0])
        x = nn.Dense(self.num_classes, kernel_init=_init, dtype=self.dtype)(x)
        return x.astype(jnp.float32)


def vit(
    num_classes: int,
    *,
    patch: int = 16,
    width: int = 192,
    depth: int = 12,
    heads: int = 3,
    small_images: bool = False,
    dtype: Any = jnp.float32,
) -> Model:
    """A vision transformer; with the defaults DeiT-Ti.

    Prunable are the kernels of attention (``query``, ``key``, ``value``, ``out``) and of the two
    dense layers in every block. The embedding of the patches, the last dense layer, norms, biases,
    the class token and the position embeddings stay dense.

    Args:
      num_classes: C.
      patch: pixels of a patch, in either direction; it divides the images.
      width: D, the size of the embedding.
      depth: number of blocks; the hidden layer of each has 4 D units.
      heads: of attention; it divides `width`.
      small_images: patches of 4 pixels instead of `patch`, for images of 32 to 64 pixels.
      dtype: of the computation, ``jnp.bfloat16`` on an accelerator. Parameters are float32 always,
        and so are the logits.

    Returns:
      The `Model`: ``[B, H, W, 3] -> [B, C]``, with the state ``{}``. There are as many position embeddings as the
      images of ``init`` have patches, so that all images have one size.

    Raises:
      ValueError: where heads do not divide the width; in ``init``, where the patch does not divide the image.

    Example:
      >>> import jax
      >>> from jaxfair import tree
      >>> model = vit_tiny(1000)
      >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
      >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
      >>> tree.size(params)
      5717416
      >>> params["Block_0"]["MultiHeadDotProductAttention_0"]["query"]["kernel"].shape
      (192, 3, 64)

    References:
      Touvron et al., *Training data-efficient image transformers and distillation through attention*, 2021.
    """
    if heads < 1 or width % heads:
        raise ValueError(f"heads must divide the width, but there are {heads} for a width of {width}")
    return linen(
        _ViT(num_classes, 4 if small_images else patch, width, depth, heads, dtype),
        prunable=lambda path: path.startswith("Block_") and path.endswith("/kernel"),
        head="Dense_0",
    )


#: `vit` with patches of 16, 192 dimensions, 12 blocks and 3 heads: ``vit_tiny(num_classes)``.
vit_tiny = partial(vit, patch=16, width=192, depth=12, heads=3)
