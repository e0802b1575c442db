r"""Takes dead channels out of a network: the same function by smaller matrices.

Masks make zeros, and dense hardware multiplies them. A channel (hidden unit, attention head) can leave for good when

.. code-block:: text

    nobody hears it    every weight that reads it is masked;
    it says one thing  every weight that makes it is masked, so its value is a constant v = activation(norm(bias)).

A constant that is zero leaves without a trace. Another one is moved into the next layer: each of its outputs gains
:math:`\sum v K` over the weights K that read the channel, which is added to its bias, or taken from the mean of the
BatchNorm behind it. Behind a zero padding the border would gain less than the middle; such a channel stays, and the
report says so. A layer keeps at least one channel.

Which layer feeds which is told by plain data, a list of `Channels`, which `channels_of` makes for the networks of
`jaxfair.models`; write your own for yours. Channels of a residual sum stay. The outputs with ``train=False`` agree;
with ``train=True`` BatchNorm sees other numbers. Not for use under ``jit``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxfair import tree
from jaxfair.sparsity._masks import apply_masks
from jaxfair.typing import Channels, ModelState, Params

_ACTIVATIONS = {
    "identity": lambda v: v,
    "relu": lambda v: np.maximum(v, 0),
    "relu6": lambda v: np.clip(v, 0, 6),
    "gelu": lambda v: v * scipy.special.ndtr(v),
}


class RemovedChannels(NamedTuple):
    """One row of the report.

    Attributes:
      path: of the kernel that makes the channels.
      before: how many there were; after: how many are left.
      unread: how many went because nobody reads them.
      kept: why constant channels stayed, such as ``"padding"``; ``""`` if none did.
    """

    path: str
    before: int
    after: int
    unread: int
    kept: str


class Removed(NamedTuple):
    """What `remove_channels` returns.

    Attributes:
      params: the smaller parameters, exactly zero where masked.
      state: the smaller model state.
      masks: the smaller masks; a bias that took up a constant lives.
      report: one row for each `Channels`.
    """

    params: Params
    state: ModelState
    masks: Any
    report: tuple[RemovedChannels, ...]


def remove_channels(params: Params, state: ModelState, masks: Any, channels: Sequence[Channels]) -> Removed:
    """The network without its dead channels.

    Args:
      params: nested dicts of arrays.
      state: with ``{"batch_stats": ...}`` where the description names norms, else ``{}``.
      masks: in the structure of ``params``, True = kept.
      channels: which layers make, hand on and read which channels.

    Returns:
      The smaller network; `jaxfair.models.resized` lets a model run it.

    Raises:
      ValueError: for a path that the network does not have, or an unknown activation.

    Example:
      Unit 1 has no weights left and says relu(0.5) always, which goes into the next bias:

      >>> from jaxfair.models import channels_of
      >>> params = {"Dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.array([0.0, 0.5, 0.0])},
      ...           "Dense_1": {"kernel": jnp.ones((3, 1)), "bias": jnp.zeros(1)}}
      >>> masks = jax.tree.map(lambda p: jnp.array(True), params)
      >>> masks["Dense_0"]["kernel"] = jnp.array([[True, False, True]] * 2)
      >>> small = remove_channels(params, {}, masks, channels_of(params))
      >>> small.params["Dense_0"]["kernel"].shape, small.params["Dense_1"]["bias"].tolist()
      ((2, 2), [0.5])
      >>> small.report[0]
      RemovedChannels(path='Dense_0/kernel', before=3, after=2, unread=0, kept='')
    """
    net = _Network(apply_masks(params, masks), state, masks)
    before = [net.size(group) for group in channels]
    unread, kept, again = [0] * len(before), [""] * len(before), True
    while again:  # what went may leave others without weights, before it and behind it
        again = False
        for i, group in enumerate(channels):
            gone, unheard, value, kept[i] = _dead(net, group)
            _move(net, group, gone, value)
            net.take(group, ~gone)
            unread[i] += int((gone & unheard).sum())
            again |= bool(gone.any())
    first, after = (group.stages[0].kernel for group in channels), map(net.size, channels)
    report = tuple(map(RemovedChannels, first, before, after, unread, kept))
    params, state = _unflat(params, net.params), _unflat(state, net.state)
    return Removed(params, state, _unflat(masks, net.masks), report)


def _flat(given):
    return dict(zip(tree.paths(given), map(np.asarray, jax.tree.leaves(given)), strict=True))


def _unflat(given, flat):
    return jax.tree.unflatten(jax.tree.structure(given), map(jnp.asarray, flat.values()))


class _Network:
    # Parameters, statistics and masks as flat dicts of numpy arrays by path, which it changes.
    def __init__(self, *given):
        self.params, self.state, self.masks = map(_flat, given)

    def get(self, path):
        array = self.params.get(path, self.state.get(path))
        if array is None:
            raise ValueError(f"the network has no {path!r}: correct what describes its channels")
        return array

    def size(self, group):
        return self.get(group.stages[0].kernel).shape[group.stages[0].axis]

    def weights(self, path, axis, size, depth=1):
        # [C, n, depth, out] float64, the weights of a kernel by channel; out is the last other axis.
        array = _by_channel(self.get(path).astype(float), axis, size)
        return array.reshape(size, -1, depth, array.shape[-1])

    def lives(self, path, axis, size):  # [C] bool, whether any weight of the channel is kept
        shape = self.get(path).shape
        mask = np.broadcast_to(self.masks[path], shape)
        return _by_channel(mask, axis, size).reshape(size, -1).any(axis=1)

    def take(self, group, stay):
        for path, axis in _leaves(group):
            for place in (self.params, self.state, self.masks):
                if path in place and place[path].ndim:
                    chosen = np.tile(stay, place[path].shape[axis] // len(stay))
                    place[path] = np.compress(chosen, place[path], axis)


def _by_channel(array, axis, size):
    """The channels in front; flattened images have them innermost."""
    array = np.moveaxis(array, axis, 0)
    return array.reshape(-1, size, *array.shape[1:]).swapaxes(0, 1)


def _norm(path):
    statistics = (f"batch_stats/{path}/{name}" for name in ("mean", "var"))
    return [f"{path}/scale", f"{path}/bias", *statistics] if path else []


def _leaves(group):
    for stage in group.stages:
        yield stage.kernel, stage.axis
        if stage.bias:
            yield stage.bias, 0
        yield from ((path, 0) for path in _norm(stage.norm))
    yield from ((reader.kernel, reader.axis) for reader in group.readers)
    yield from group.shares


def _dead(net, group):
    """Which channels can go, which of all nobody reads, what they say ``[C, depth]``, and why others stay."""
    size, why = net.size(group), ""
    for s in group.stages:
        if net.get(s.kernel).shape[s.axis] != size:
            raise ValueError(f"{s.kernel!r} has not the {size} channels of its group")
    unread = ~np.any([net.lives(r.kernel, r.axis, size) for r in group.readers], axis=0)
    constant, value = np.zeros(size, bool), np.zeros((size, 1))
    for number, stage in enumerate(group.stages):
        silent = ~net.lives(stage.kernel, stage.axis, size)
        # The first makes them. Depthwise zero stays zero, another constant only without a border.
        border = constant & ~silent & value.any(axis=1) & stage.padded
        why = "padding" if (border & ~unread).any() else why
        if number:
            value = value * net.weights(stage.kernel, stage.axis, size).sum(axis=(1, 2, 3))[:, None]
        constant = (constant | silent) & ~border
        value = _after(net, stage, np.where(silent[:, None], 0, value))
    for reader in group.readers:
        heard = _gain(net, reader, value).any(axis=1) & constant
        if heard.any() and (reader.padded or not (reader.bias or reader.norm)):
            why = "padding" if reader.padded else "no bias"
            constant &= ~heard
    gone = unread | constant
    if gone.all():
        gone[0], why = False, why or "the last one"
    return gone, unread, value, why


def _after(net, stage, value):  # bias, norm and activation
    if stage.activation not in _ACTIVATIONS:
        allowed = ", ".join(_ACTIVATIONS)
        raise ValueError(f"activation must be one of {allowed}, but it is {stage.activation!r}")
    if stage.bias:
        value = value + net.get(stage.bias).astype(float).reshape(len(value), -1)
    if stage.norm:
        scale, shift, mean, var = (net.get(p).astype(float)[:, None] for p in _norm(stage.norm))
        value = (value - mean) / np.sqrt(var + stage.epsilon) * scale + shift
    return _ACTIVATIONS[stage.activation](value)


def _gain(net, reader, value):
    # [C, out], what each constant channel adds to the outputs of a reader.
    return np.einsum("cd,cndo->co", value, net.weights(reader.kernel, reader.axis, *value.shape))


def _move(net, group, gone, value):
    for reader in group.readers:
        gain = _gain(net, reader, value)[gone].sum(axis=0)  # of those that go
        if reader.bias and gain.any():
            bias, mask = net.get(reader.bias), net.masks[reader.bias]
            net.params[reader.bias] = (bias + gain).astype(bias.dtype)
            net.masks[reader.bias] = mask | (gain != 0) if mask.ndim else mask
        elif gain.any():
            mean = net.get(f"batch_stats/{reader.norm}/mean")
            net.state[f"batch_stats/{reader.norm}/mean"] = (mean - gain).astype(mean.dtype)
