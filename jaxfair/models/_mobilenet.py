"""MobileNetV2: inverted residuals with depthwise convolutions.

.. code-block:: text

    conv 3x3, 32, stride 2 - BN - ReLU6
    blocks (expansion t, channels c, repeats n, first stride s):
        1, 16, 1, 1    6, 24, 2, 2    6, 32, 3, 2    6, 64, 4, 2    6, 96, 3, 1    6, 160, 3, 2    6, 320, 1, 1
    block:  conv 1x1 to t x channels (not where t = 1) - BN - ReLU6
            depthwise conv 3x3, stride s               - BN - ReLU6
            conv 1x1 to c                              - BN              + x, where the shape is the same
    conv 1x1, 1280 - BN - ReLU6 - mean over the image - dense

The width multiplier scales the channels c and the 32 of the stem, each to the nearest multiple of 8 (the next one up,
if that loses more than a tenth); the 1280 grow with it, but never shrink.

=====  ==========  ===========================
width  parameters  multiply-adds at 224 x 224
=====  ==========  ===========================
1.0    3,504,872   300,774,272
1.4    6,108,776   582,195,824
=====  ==========  ===========================

(1000 classes. The authors say of their checkpoints: 3.47 and 6.06 million parameters, 300 and 582 million products;
their paper, of the wider one: 6.9 and 585. One multiplication with its addition counts once; products with the zeros of
the padding count, norms do not.)

How this differs from the authors' code: convolutions are padded by one on both sides alike, and there is no dropout
before the last layer.

References:
  Sandler, Howard, Zhu, Zhmoginov, Chen, *MobileNetV2: inverted residuals and linear bottlenecks*, 2018, tables 2 and 4.
  The checkpoints: https://github.com/tensorflow/models/tree/master/research/slim/nets/mobilenet
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxfair.models.linen import linen
from jaxfair.typing import Model

_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _scaled(channels: int, width: float) -> int:
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class _Block(nn.Module):
    expansion: int
    channels: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train):
        conv = partial(nn.Conv, use_bias=False, kernel_init=_conv_init, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        hidden, y = self.expansion * x.shape[-1], x
        if self.expansion != 1:
            y = nn.relu6(norm()(conv(hidden, (1, 1))(y)))
        stride = (self.stride, self.stride)
        y = conv(hidden, (3, 3), strides=stride, padding=1, feature_group_count=hidden)(y)
        y = nn.relu6(norm()(y))
        y = norm()(conv(self.channels, (1, 1))(y))
        return x + y if y.shape == x.shape else y


class _MobileNetV2(nn.Module):
    num_classes: int
    width: float
    small_images: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train):
        conv = partial(nn.Conv, use_bias=False, kernel_init=_conv_init, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        stride = 1 if self.small_images else 2
        x = conv(_scaled(32, self.width), (3, 3), strides=(stride, stride), padding=1)(x)
        x = nn.relu6(norm()(x))
        index = 0
        for stage, (expansion, channels, repeats, first) in enumerate(_STAGES):
            for repeat in range(repeats):
                stride = first if repeat == 0 and not (self.small_images and stage == 1) else 1
                x = _Block(
                    expansion,
                    _scaled(channels, self.width),
                    stride,
                    self.dtype,
                    name=f"Block_{index}",
                )(x, train=train)
                index += 1
        x = nn.relu6(norm()(conv(_scaled(1280, max(1.0, self.width)), (1, 1))(x)))
        x = nn.Dense(self.num_classes, dtype=self.dtype)(jnp.mean(x, axis=(1, 2)))
        return x.astype(jnp.float32)


def mobilenet_v2(
    num_classes: int,
    *,
    width: float = 1.0,
    small_images: bool = False,
    dtype: Any = jnp.float32,
) -> Model:
    """A MobileNetV2 with BatchNorm.

    Prunable are all convolutions but the first, the depthwise ones included: they have few weights
    and bear much, so a pruner that is to spare them asks ``prunable`` and its own rule. The last
    dense layer, biases and BatchNorm stay dense.

    Args:
      num_classes: C.
      width: multiplier of the channels; 0.35, 0.5, 0.75, 1.0, 1.4 are in the paper.
      small_images: no stride in the stem and in the second stage, for images of 32 to 64 pixels.
      dtype: of the computation, ``jnp.bfloat16`` on an accelerator. Parameters and statistics are
        float32 always, and so are the logits.

    Returns:
      The `Model`: ``[B, H, W, 3] -> [B, C]``, with the state ``{"batch_stats": ...}``, which
      ``train=True`` updates with a momentum of 0.9.

    Raises:
      ValueError: for a width that is not positive.

    Example:
      >>> import jax
      >>> from jaxfair import tree
      >>> model = mobilenet_v2(1000)
      >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
      >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
      >>> tree.size(params)
      3504872
      >>> params["Block_1"]["Conv_1"]["kernel"].shape      # depthwise: one input each
      (3, 3, 1, 96)

    References:
      Sandler et al., *MobileNetV2: inverted residuals and linear bottlenecks*, 2018.
    """
    if not width > 0:
        raise ValueError(
            f"width multiplies the channels and must be positive, but it is {width}; 1.0 is the paper's network"
        )
    return linen(
        _MobileNetV2(num_classes, width, small_images, dtype),
        prunable=lambda path: path.endswith("/kernel") and path not in ("Conv_0/kernel", "Dense_0/kernel"),
        head="Dense_0",
    )
