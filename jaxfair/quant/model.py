r"""A network that is quantised in its forward pass, as a `Model` like any other.

`model` works on the tree of parameters, so that it takes any `Model`: Linen, NNX, plain functions. Each call finds the
grids of its weights, rounds them, and gives gradients straight through: whatever trains a network (a solver with
constraints, `jaxfair.train`, a recipe) then trains for the quantised one, and judges that one.

`qwix_rule` hands the same quantiser to qwix, which replaces the products inside of a Flax module, and so quantises
activations too, and multiplies integers where the hardware has them:

.. code-block:: python

    provider = qwix.QtProvider([quant.qwix_rule(4, activation_bits=8)])
    network = models.linen(qwix.quantize_model(module, provider), prunable=...)                          # Linen
    network = models.nnx(lambda rngs: qwix.quantize_model(Net(rngs=rngs), provider, x), prunable=...)    # NNX

With weights alone both give the same logits, and the same gradients.
"""

import re
from collections.abc import Callable
from typing import Any

from jaxfair.quant import _numbers
from jaxfair.quant._granularity import per_channel
from jaxfair.quant._quantizer import Quantizer
from jaxfair.quant._scales import extremes
from jaxfair.quant._schemes import affine, signed
from jaxfair.quant._trees import fake_quantize_params, quantizable
from jaxfair.quant._trees import grids as grids_of
from jaxfair.typing import Model, whole


def model(
    model: Model,
    bits: Any,
    *,
    quantizer: Quantizer = Quantizer(),  # noqa: B008, a constant
    quantized: Callable[[str], bool] = quantizable,
    grids: Any = None,
) -> Model:
    """The same network with its weights at their levels in every call.

    Args:
      model: any `Model`.
      bits: b, for all leaves or by path; may be traced.
      quantizer: how.
      quantized: which leaves, from a path; by default weights, but no norms and biases.
      grids: those to use, as of :func:`jaxfair.quant.grids`; found anew in each call by default.

    Returns:
      The `Model`; parameters stay float ones, and have the gradient at the quantised weights. `prunable` stays, and a
      zero stays zero.

    Raises:
      TypeError: for what is no `Model`.
      ValueError: in ``apply``, as `grids`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> apply = lambda params, state, x, *, train, key=None: (x @ params["w"], state)
      >>> plain = Model(lambda key, x: ({"w": jnp.array([[1.0], [0.4]])}, {}), apply, lambda path: True)
      >>> params, state = plain.init(jax.random.key(0), jnp.ones((1, 2)))
      >>> [net.apply(params, state, jnp.ones((1, 2)), train=False)[0].item() for net in (plain, model(plain, 2))]
      [1.399999..., 1.0]
    """
    if not isinstance(model, Model):
        raise TypeError(f"model={model!r}: give a jaxfair.typing.Model, as those of jaxfair.models are")
    quantizer.checked()

    def rounded(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(params: Any, *args: Any, **kwargs: Any) -> Any:
            found = grids_of(params, bits, quantizer=quantizer, quantized=quantized) if grids is None else grids
            return function(fake_quantize_params(params, found), *args, **kwargs)

        return called

    split = model.split
    if split is not None:
        split = split._replace(features=rounded(split.features), head=rounded(split.head))
    return model._replace(apply=rounded(model.apply), split=split)


#: qwix's names of integers.
_TYPES = {2: "int2", 3: "int3", 4: "int4", 5: "int5", 6: "int6", 7: "int7", 8: "int8"}
_SIGNED = Quantizer(signed, per_channel(), extremes)


def qwix_rule(
    bits: Any,
    *,
    activation_bits: Any = None,
    quantizer: Quantizer = _SIGNED,
    layers: str = ".*",
) -> Any:
    """A quantiser as a rule for qwix's quantised training (``qwix.QtProvider``).

    Args:
      bits: b of the weights, 2 to 8 (4 or 8 for an affine scheme).
      activation_bits: b of what they are multiplied with, whose scales are found in each call; None leaves it as it is.
      quantizer: of the weights. What qwix has: `signed` or `affine`; `per_tensor`, `per_channel` of a kernel's outputs,
        or `per_group` along its inputs (dense layers only); `extremes`.
      layers: of which modules, a regular expression that fits the whole of a module's path, such as ``Dense_[01]``.

    Returns:
      The ``qwix.QtRule``. Its gradient is that at the quantised weights, as ours is; qwix's own default multiplies with
      the float ones on the way back.

    Raises:
      ImportError: without qwix.
      ValueError: for what qwix does not have, and an expression that is none.

    Example:
      >>> rule = qwix_rule(4, activation_bits=8)
      >>> rule.weight_qtype, rule.act_qtype, rule.weight_calibration_method
      ('int4', 'int8', 'absmax')
    """
    try:
        import qwix
    except ImportError:
        raise ImportError("this takes qwix, which is not there: pip install 'jaxfair[quant]'") from None
    quantizer.checked()
    types = [
        None if given is None else _type(name, given)
        for name, given in (("bits", bits), ("activation_bits", activation_bits))
    ]
    who = quantizer.granularity
    if quantizer.scheme not in (signed, affine) or quantizer.scale is not extremes:
        raise ValueError(
            "qwix has no such levels: give quant.signed or quant.affine with quant.extremes, or use quant.model"
        )
    if quantizer.scheme is affine and types[0] not in ("int4", "int8"):
        raise ValueError(f"bits={bits}: qwix has affine levels of 4 and 8 bits only; use quant.signed, or quant.model")
    if who.channel not in (None, -1) or who.axis not in (None, -2) or (who.axis is not None and who.channel is None):
        raise ValueError(f"{who}: qwix has per_tensor, per_channel(-1) and per_group(size); use quant.model")
    try:
        re.compile(layers)
    except re.error as error:
        raise ValueError(f"layers={layers!r} is no regular expression ({error}): write '.*' for all of them") from None
    return qwix.QtRule(
        module_path=layers,
        weight_qtype=types[0],
        act_qtype=types[1],
        tile_size=None if who.axis is None else who.size,
        weight_calibration_method="minmax" if quantizer.scheme is affine else "absmax",
        disable_channelwise_axes=who.channel is None,
        additional_qt_config={"use_original_residuals": False},
    )


def _type(name: str, bits: Any) -> str:
    _numbers.bits(bits)
    number = whole(bits)
    if number not in _TYPES:
        raise ValueError(f"{name}={bits}: qwix has 2 to 8 bits; use quant.model for others, and for traced ones")
    return _TYPES[number]
