"""Residual networks for 32 x 32 images.

.. code-block:: text

    conv 3x3, 16 - BN - ReLU
    3 stages of n = (depth - 2) / 6 blocks with 16, 32, 64 channels; stages 2 and 3 begin with stride 2
    block:  relu(shortcut(x) + BN(conv(relu(BN(conv(x))))))
    mean over the image - dense

Two shortcuts are in use where the shape changes. ``"projection"`` (option B of the paper) is a 1x1
convolution with BatchNorm: common in released weights, and in published work on pruning. ``"pad"``
(option A, what the paper has on CIFAR-10) strides and pads channels with zeros, half of them on
either side; it has no parameters.

=====  ============  ==========
depth  projection    pad
=====  ============  ==========
20     272,474       269,722
32     466,906       464,154
56     855,770       853,018
=====  ============  ==========

(10 classes; each further class adds 65.)

References:
  He, Zhang, Ren, Sun, *Deep residual learning for image recognition*, 2016, section 4.2.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxfair.models.linen import linen
from jaxfair.typing import Model

# He et al. 2015; counted over the outputs, as the networks whose weights are published were.
_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class _Block(nn.Module):
    channels: int
    stride: int
    shortcut: str
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train):
        conv = partial(nn.Conv, self.channels, use_bias=False, kernel_init=_conv_init, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        stride = (self.stride, self.stride)
        y = conv((3, 3), strides=stride, padding=1)(x)
        y = nn.relu(norm()(y))
        y = conv((3, 3), padding=1)(y)
        y = norm()(y)
        if y.shape != x.shape and self.shortcut == "projection":
            x = norm()(conv((1, 1), strides=stride)(x))
        elif y.shape != x.shape:
            missing = self.channels - x.shape[-1]
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))
        return nn.relu(x + y)


class _CifarResNet(nn.Module):
    num_classes: int
    blocks: int
    shortcut: str
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(16, (3, 3), padding=1, use_bias=False, kernel_init=_conv_init, dtype=self.dtype)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x)
        x = nn.relu(x)
        for stage, channels in enumerate((16, 32, 64)):
            for block in range(self.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"Block_{stage}_{block}"
                x = _Block(channels, stride, self.shortcut, self.dtype, name=name)(x, train=train)
        x = nn.Dense(self.num_classes, dtype=self.dtype)(jnp.mean(x, axis=(1, 2)))
        return x.astype(jnp.float32)


def cifar_resnet(
    depth: int,
    num_classes: int,
    *,
    shortcut: str = "projection",
    dtype: Any = jnp.float32,
) -> Model:
    """A CIFAR ResNet with BatchNorm.

    Prunable are all convolutions but the first, the 1x1 ones of the shortcuts included. The first
    convolution, the last dense layer, biases and BatchNorm stay dense.

    Args:
      depth: 6 n + 2 for n blocks per stage: 20, 32, 44, 56, 110.
      num_classes: C.
      shortcut: ``"projection"`` or ``"pad"``, where the shape changes.
      dtype: of the computation, ``jnp.bfloat16`` on an accelerator. Parameters and statistics are
        float32 always, and so are the logits.

    Returns:
      The `Model`: ``[B, H, W, 3] -> [B, C]``, with the state ``{"batch_stats": ...}``, which
      ``train=True`` updates with a momentum of 0.9.

    Raises:
      ValueError: for a depth that is not 6 n + 2, or an unknown shortcut.

    Example:
      >>> import jax
      >>> from jaxfair import tree
      >>> model = cifar_resnet(20, 10)
      >>> x = jnp.zeros((1, 32, 32, 3))
      >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
      >>> tree.size(params)
      272474
      >>> [path for path in tree.paths(params) if path.endswith("kernel")][-2:]
      ['Conv_0/kernel', 'Dense_0/kernel']
      >>> [model.prunable(p) for p in ("Conv_0/kernel", "Block_1_0/Conv_2/kernel", "Dense_0/kernel")]
      [False, True, False]
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth must be 6 n + 2 (20, 32, 44, 56, 110), but it is {depth}")
    if shortcut not in ("projection", "pad"):
        raise ValueError(f"shortcut must be 'projection' or 'pad', but it is {shortcut!r}")
    return linen(
        _CifarResNet(num_classes, blocks, shortcut, dtype),
        prunable=lambda path: path.startswith("Block_") and path.endswith("/kernel"),
        head="Dense_0",
    )


#: `cifar_resnet` of depth 20: ``cifar_resnet20(num_classes)``.
cifar_resnet20 = partial(cifar_resnet, 20)
#: `cifar_resnet` of depth 32: ``cifar_resnet32(num_classes)``.
cifar_resnet32 = partial(cifar_resnet, 32)
#: `cifar_resnet` of depth 56: ``cifar_resnet56(num_classes)``.
cifar_resnet56 = partial(cifar_resnet, 56)
