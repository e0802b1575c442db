r"""How much a metric of the confusion would rise by one mixed pair of classes: the gain that SelMix selects by.

Take a pair of classes (i, j), the mixture :math:`z_{ij} = m z_i + (1 - m) z_j` of their mean features, and a step of
the last layer down the cross entropy at :math:`z_{ij}` with the label i. In logits of an example with the features
z it is :math:`(\mathbb{1}[l = i] - p_{ij,l})\, \langle z_{ij}, z \rangle`, with
:math:`p_{ij} = \mathrm{softmax}(W z_{ij} + b)`. What a metric :math:`\psi` of the confusion gains by it, to first
order, if the logits of each class q move like those of its mean :math:`z_q`:

.. math::

   G_{ij} = \sum_{q, l} D_{ql}\, (\mathbb{1}[l = i] - p_{ij,l})\, \langle z_{ij}, z_q \rangle, \qquad
   D_{ql} = \frac{\partial \psi(\mathrm{softmax}_\mathrm{rows}(\tilde C))}{\partial \tilde C_{ql}}
   \ \text{at}\ \tilde C = \log R

D comes from automatic differentiation, so that any :math:`\psi` will do. Its rows sum to 0. G is linear in D, does not
change if a constant is added to all logits, and is the derivative of :math:`\psi` along the step, to rounding.

Differs from the authors' code: there :math:`\mathbb{1}[l = i]` is multiplied by :math:`\langle z_i, z_q \rangle`,
which opens pairs that lower the metric; and D is written by hand for rows that have equal weight.

Source: Ramasubramanian et al., `Selective Mixup Fine-Tuning for Optimizing Non-Decomposable Objectives
<https://arxiv.org/abs/2403.18301>`_, ICLR 2024.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from jaxfair.metrics._rows import Numbers, as_float

#: A share in R is at least this: the logarithm of an empty cell would be infinite.
LEAST = 1e-6


def metric_gain(
    psi: Callable[[Any], Any],
    recall: Numbers,
    prototypes: Numbers,
    weights: Numbers,
    bias: Numbers,
    mix: ArrayLike = 0.8,
) -> tuple[Float[Array, "C C"], Float[Array, "C C"]]:
    r"""What each pair of classes would add to a metric, if features of the two were mixed and learnt as the first.

    Args:
      psi: a metric of R, ``psi(R) -> scalar``, to be raised: :func:`mean_recall`, :func:`min_recall`, or your own.
      recall: R, ``[C, C]``: of each true class (row) the shares that are taken for each class. Cells below 1e-6 count
        as 1e-6, and rows are brought to the sum 1: a class that is never right has a finite geometric mean.
      prototypes: ``[C, F]``, the mean features of each class.
      weights: W, ``[C, F]``, of the last layer: the transpose of a Flax kernel.
      bias: b, ``[C]``.
      mix: m, in (0, 1], the part of the class whose label is kept.

    Returns:
      D and G, ``[C, C]`` each: the derivative of psi by the logarithms of R, and the gain of each pair: the row is the
      class that is learnt, the column the class that is mixed in.

    Raises:
      ValueError: for shapes that do not fit, a mix that is none, and a metric that is no number.

    Example:
      Three classes; the last is right in 40 % of cases. It gains most, and most with the first two mixed in:

      >>> R = jnp.array([[0.8, 0.15, 0.05], [0.1, 0.85, 0.05], [0.3, 0.3, 0.4]])
      >>> Z, W = jnp.array([[2.0, 0], [0, 2], [1, 1]]), jnp.array([[1.0, -1], [-1, 1], [0, 0]])
      >>> from jaxfair import metrics
      >>> D, G = metric_gain(metrics.mean_recall, R, Z, W, jnp.zeros(3))
      >>> np.asarray(G)[2].round(4).astype(str).tolist(), (G > 0)[1].tolist()
      (['0.0937', '0.1047', '0.105'], [False, True, False])
    """
    _check(recall, prototypes, weights, bias, mix)
    recall, prototypes, weights, bias = map(as_float, (recall, prototypes, weights, bias))

    def of(logarithms: Any) -> Any:
        value = jnp.asarray(psi(jax.nn.softmax(logarithms, axis=-1)))
        if value.shape != ():
            raise ValueError(f"psi gave shape {value.shape}: give one number, the metric that is to rise.")
        return value

    derivative = jax.grad(of)(jnp.log(jnp.maximum(recall, LEAST)))
    # Logits and inner products of a mixture are mixtures: three axes of classes, and none of features.
    logits = prototypes @ weights.T + bias[None]
    likely = jax.nn.softmax(mix * logits[:, None] + (1 - mix) * logits[None], axis=-1)
    moved = jnp.eye(len(recall))[:, None] - likely  # [i, j, l]
    along = prototypes @ prototypes.T @ derivative  # [i, l], the sum over q
    first, second = (jnp.einsum(what, moved, along) for what in ("ijl,il->ij", "ijl,jl->ij"))
    return derivative, jnp.asarray(mix * first + (1 - mix) * second)


def _check(recall: Any, prototypes: Any, weights: Any, bias: Any, mix: Any) -> None:
    shapes = np.shape(recall), np.shape(prototypes), np.shape(weights), np.shape(bias)
    count = shapes[0][0] if shapes[0] else 0
    if shapes[0] != (count, count) or len(shapes[1]) != 2 or shapes[1] != shapes[2] or shapes[3] != (count,):
        raise ValueError(
            f"recall of shape {shapes[0]}, prototypes {shapes[1]}, weights {shapes[2]} and bias {shapes[3]}: "
            "give [C, C], [C, F], [C, F] and [C]; W is the transpose of a Flax kernel."
        )
    if shapes[1][0] != count:
        raise ValueError(f"prototypes of {shapes[1][0]} classes and a confusion of {count}: give one for each class.")
    if not isinstance(mix, Tracer) and not (np.shape(mix) == () and 0 < mix <= 1):
        raise ValueError(f"mix={mix}: give the part of the class that is learnt, above 0 and at most 1.")
