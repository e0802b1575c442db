"""Residual networks for 224 x 224 images.

.. code-block:: text

    conv 7x7, 64, stride 2 - BN - ReLU - maximum 3x3, stride 2      small_images: conv 3x3, 64, no maximum
    4 stages of blocks with 64, 128, 256, 512 channels; stages 1 to 3 begin with stride 2
    basic block:       relu(shortcut(x) + BN(conv3x3(relu(BN(conv3x3(x))))))
    bottleneck block:  relu(shortcut(x) + BN(conv1x1(relu(BN(conv3x3(relu(BN(conv1x1(x)))))))))
    mean over the image - dense

A bottleneck gives out four times its channels. Where the shape changes, the shortcut is a 1x1 convolution with
BatchNorm (option B of the paper). The paper's bottleneck has its stride in the first 1x1 convolution; most code since
has it in the 3x3 one (called v1.5), which reads every position of its input. Convolutions are padded on both
sides alike.

=====  ==========  ============  ==========  =============================
depth  block       blocks        parameters  multiply-adds at 224 x 224
=====  ==========  ============  ==========  =============================
18     basic       2, 2, 2, 2    11,689,512  1,814,073,344
34     basic       3, 4, 6, 3    21,797,672  3,663,761,408
50     bottleneck  3, 4, 6, 3    25,557,032  4,089,184,256; 3,857,973,248 with ``stride_in="1x1"``
=====  ==========  ============  ==========  =============================

(1000 classes. One multiplication with its addition counts once, as in the paper's 1.8, 3.6 and 3.8 billion "FLOPs";
products with the zeros of the padding count, norms and additions do not.)

References:
  He, Zhang, Ren, Sun, *Deep residual learning for image recognition*, 2016, table 1.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxfair.models.linen import linen
from jaxfair.typing import Model

# He et al. 2015; counted over the outputs, as the networks whose weights are published were.
_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class _Block(nn.Module):
    channels: int
    stride: int
    bottleneck: bool
    stride_in: str
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train):
        conv = partial(nn.Conv, use_bias=False, kernel_init=_conv_init, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        stride, one = (self.stride, self.stride), (1, 1)
        if self.bottleneck:
            out = 4 * self.channels
            first, second = (stride, one) if self.stride_in == "1x1" else (one, stride)
            y = nn.relu(norm()(conv(self.channels, (1, 1), strides=first)(x)))
            y = nn.relu(norm()(conv(self.channels, (3, 3), strides=second, padding=1)(y)))
            y = norm()(conv(out, (1, 1))(y))
        else:
            out = self.channels
            y = nn.relu(norm()(conv(out, (3, 3), strides=stride, padding=1)(x)))
            y = norm()(conv(out, (3, 3), padding=1)(y))
        if y.shape != x.shape:
            x = norm()(conv(out, (1, 1), strides=stride)(x))
        return nn.relu(x + y)


class _ResNet(nn.Module):
    num_classes: int
    depth: int
    stride_in: str
    small_images: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train):
        size, stride, border = (3, 1, 1) if self.small_images else (7, 2, 3)
        x = nn.Conv(
            64,
            (size, size),
            strides=(stride, stride),
            padding=border,
            use_bias=False,
            kernel_init=_conv_init,
            dtype=self.dtype,
        )(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x)
        x = nn.relu(x)
        if not self.small_images:
            # Flax documents pairs, but annotates a string.
            padding: Any = ((1, 1), (1, 1))
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
        for stage, blocks in enumerate(_BLOCKS[self.depth]):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = _Block(
                    64 * 2**stage,
                    stride,
                    self.depth >= 50,
                    self.stride_in,
                    self.dtype,
                    name=f"Block_{stage}_{block}",
                )(x, train=train)
        x = nn.Dense(self.num_classes, dtype=self.dtype)(jnp.mean(x, axis=(1, 2)))
        return x.astype(jnp.float32)


def resnet(
    depth: int,
    num_classes: int,
    *,
    stride_in: str = "3x3",
    small_images: bool = False,
    dtype: Any = jnp.float32,
) -> Model:
    """A ResNet for ImageNet, with BatchNorm.

    Prunable are all convolutions but the first, the 1x1 ones of the shortcuts included. The first
    convolution, the last dense layer, biases and BatchNorm stay dense.

    Args:
      depth: 18, 34 (basic blocks) or 50 (bottlenecks).
      num_classes: C.
      stride_in: which convolution of a bottleneck has the stride, ``"3x3"`` (v1.5) or ``"1x1"`` (the paper). Basic
        blocks have it in their first convolution always.
      small_images: a 3x3 stem without stride and maximum, for images of 32 to 64 pixels.
      dtype: of the computation, ``jnp.bfloat16`` on an accelerator. Parameters and statistics are
        float32 always, and so are the logits.

    Returns:
      The `Model`: ``[B, H, W, 3] -> [B, C]``, with the state ``{"batch_stats": ...}``, which
      ``train=True`` updates with a momentum of 0.9.

    Raises:
      ValueError: for an unknown depth or place of the stride.

    Example:
      >>> import jax
      >>> from jaxfair import tree
      >>> model = resnet18(1000)
      >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
      >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
      >>> tree.size(params)
      11689512
      >>> [model.prunable(p) for p in ("Conv_0/kernel", "Block_1_0/Conv_2/kernel", "Dense_0/kernel")]
      [False, True, False]

    References:
      He, Zhang, Ren, Sun, *Deep residual learning for image recognition*, 2016.
    """
    _known(depth)
    if stride_in not in ("3x3", "1x1"):
        raise ValueError(f"stride_in must be '3x3' or '1x1', but it is {stride_in!r}")
    return linen(
        _ResNet(num_classes, depth, stride_in, small_images, dtype),
        prunable=lambda path: path.startswith("Block_") and path.endswith("/kernel"),
        head="Dense_0",
    )


#: `resnet` of depth 18: ``resnet18(num_classes)``.
resnet18 = partial(resnet, 18)
#: `resnet` of depth 34: ``resnet34(num_classes)``.
resnet34 = partial(resnet, 34)
#: `resnet` of depth 50: ``resnet50(num_classes)``.
resnet50 = partial(resnet, 50)


def _known(depth: int) -> int:
    if depth not in _BLOCKS:
        raise ValueError(f"depth must be one of {', '.join(map(str, _BLOCKS))}, but it is {depth!r}")
    return depth


def torchvision_names(depth: int) -> dict[str, str]:
    """What the layers of :func:`resnet` are called in torchvision, for :func:`from_torch` and :func:`to_torch`.

    With them the weights of ``torchvision.models.resnet18`` and the like, of an image with channels last, give here the
    logits that they give there; bottlenecks with ``stride_in="3x3"``.

    Args:
      depth: 18, 34 or 50.

    Returns:
      Names by paths.

    Raises:
      ValueError: for another depth.

    Example:
      >>> names = torchvision_names(18)
      >>> names["Block_1_0/Conv_0"], names["Block_1_0/Conv_2"], names["Dense_0"]
      ('layer2.0.conv1', 'layer2.0.downsample.0', 'fc')
    """
    found = {"Conv_0": "conv1", "BatchNorm_0": "bn1", "Dense_0": "fc"}
    convolutions = 3 if _known(depth) >= 50 else 2
    for stage, blocks in enumerate(_BLOCKS[depth]):
        for block in range(blocks):
            ours, theirs = f"Block_{stage}_{block}", f"layer{stage + 1}.{block}"
            for i in range(convolutions):
                found |= {f"{ours}/Conv_{i}": f"{theirs}.conv{i + 1}", f"{ours}/BatchNorm_{i}": f"{theirs}.bn{i + 1}"}
            if block == 0 and (stage > 0 or convolutions == 3):  # the shape changes
                found |= {
                    f"{ours}/{name}_{convolutions}": f"{theirs}.downsample.{place}"
                    for place, name in enumerate(("Conv", "BatchNorm"))
                }
    return found
