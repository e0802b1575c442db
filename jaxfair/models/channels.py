"""Which layers of these networks make and read which channels, for `sparsity.remove_channels`."""

import itertools

from jaxfair.typing import Channels, Params, Stage


def channels_of(params: Params) -> list[Channels]:
    """What `sparsity.remove_channels` needs to know of the networks of `jaxfair.models`.

    Described are the hidden units of `mlp`; the channels inside the blocks of `cifar_resnet` and `resnet`; the expanded
    channels and the last 1280 of `mobilenet_v2`; the heads and hidden units of `vit`. Names and shapes do not tell an
    activation: a network of your own that is named alike is taken to have ReLU. With another one, write the list.

    Args:
      params: of such a network; shapes are enough.

    Returns:
      The list; ``[]`` for a network that it does not know.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxfair import models
      >>> params, _ = jax.eval_shape(models.mlp(2, hidden=(4, 4)).init, jax.random.key(0), jnp.ones((1, 3)))
      >>> [group.readers[0].kernel for group in channels_of(params)]
      ['Dense_1/kernel', 'Dense_2/kernel']
    """

    def conv(at, number, axis=-1, activation="relu", padded=False):
        norm = f"{at}BatchNorm_{number}"
        return Stage(f"{at}Conv_{number}/kernel", axis, None, norm, activation, padded)

    def dense(at, axis=-1, activation="relu"):
        return Stage(f"{at}/kernel", axis, f"{at}/bias", None, activation)

    found, blocks = [], [name for name in params if name.startswith("Block_")]
    for name, block, at in ((name, params[name], f"{name}/") for name in blocks):
        if "Dense_0" in block:  # vit
            hidden = (dense(f"{at}Dense_0", activation="gelu"),)
            found.append(Channels(hidden, (dense(f"{at}Dense_1", axis=-2),)))
            at += "MultiHeadDotProductAttention_0/"
            # Attention sums to one: a head whose values are all the bias gives the bias.
            value = dense(f"{at}value", axis=1, activation="identity")
            shares = [(f"{at}{part}/kernel", 1) for part in ("query", "key")]
            shares += [(f"{at}{part}/bias", 0) for part in ("query", "key")]
            found.append(Channels((value,), (dense(f"{at}out", axis=0),), tuple(shares)))
        elif name.count("_") == 2:  # cifar_resnet, resnet
            found.append(Channels((conv(at, 0),), (conv(at, 1, axis=-2, padded=True),)))
            if block["Conv_0"]["kernel"].shape[0] == 1:  # a bottleneck
                found.append(Channels((conv(at, 1),), (conv(at, 2, axis=-2),)))
        else:  # mobilenet_v2; without an expansion the stem makes the channels
            last = 2 if "Conv_2" in block else 1
            first = conv(at if last == 2 else "", 0, activation="relu6")
            each = conv(at, last - 1, activation="relu6", padded=True)
            found.append(Channels((first, each), (conv(at, last, axis=-2),)))
    if blocks and "Conv_1" in params:
        found.append(Channels((conv("", 1, activation="relu6"),), (dense("Dense_0", axis=-2),)))
    layers = len(params) if all(f"Dense_{i}" in params for i in range(len(params))) else 0
    shapes = [[leaf.shape for _, leaf in sorted(params[f"Dense_{i}"].items())] for i in range(layers)]
    joined = all(len(a) == len(b) == 2 and a[0] == b[1][:1] for a, b in itertools.pairwise(shapes))
    layers = layers if joined else 0  # a bias and a kernel each, and each reads the one before
    hidden = ((dense(f"Dense_{i}"), dense(f"Dense_{i + 1}", axis=-2)) for i in range(layers - 1))
    return found + [Channels((maker,), (reader,)) for maker, reader in hidden]  # mlp
