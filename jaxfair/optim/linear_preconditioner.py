r"""Descent of a linear layer in the metric of a bound on its curvature, which does not move.

Cross entropy of a linear model with features :math:`x` (a 1 for the bias among them) has the Hessian
:math:`\mathbb{E}[x x^\top \otimes (\mathrm{diag}(p) - p p^\top)]`, and whatever the weights are,
:math:`\mathrm{diag}(p) - p p^\top \preceq \tfrac12 I`. So with

.. math:: B = \tfrac12\, \mathbb{E}[x x^\top] + \text{decay} \cdot I

the step :math:`W \leftarrow W - \eta B^{-1} \nabla` descends for every :math:`\eta \le 1`, and about fifty of them,
with momentum, reach an optimum that plain gradient descent does not reach in thousands: what is slow there is the
spread of the eigenvalues of the features, which is gone here.

How this differs from Newton's method: the bound is made and inverted once, before training, and stays right for other
weights of the examples (multipliers that move, say) up to their size.

References:
  Böhning, `Multinomial logistic regression algorithm <https://doi.org/10.1007/BF00048682>`_, 1992.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import ArrayLike, Float


def linear_curvature(x: ArrayLike, *, weight_decay: float = 0.0) -> np.ndarray:
    """The inverse of a bound on the curvature of cross entropy in a linear layer. Made once, with NumPy.

    Args:
      x: ``[N, D]`` features.
      weight_decay: of a penalty ``weight_decay / 2 * |kernel|^2`` beside the mean loss. The bias is taken to have it
        too: the little that is added makes the bound invertible where some features add up to 1.

    Returns:
      ``[D + 1, D + 1]`` float32, the bias last.

    Raises:
      ValueError: for features that are not ``[N, D]``, and where the bound has no inverse.

    Example:
      >>> linear_curvature(np.array([[1.0], [-1.0]]), weight_decay=0.5)
      array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"features of shape {x.shape}: give [N, D].")
    features = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64)
    bound = 0.5 * features.T @ features / len(x) + weight_decay * np.eye(features.shape[1])
    # Where it is singular but for rounding, an inverse is found, and is noise.
    if np.linalg.matrix_rank(bound, hermitian=True) < len(bound):
        raise ValueError(f"weight_decay={weight_decay}: some features are sums of others, so give a number above 0.")
    return np.linalg.inv(bound).astype(np.float32)


def linear_preconditioner(
    inverse: Float[ArrayLike, "F F"],
) -> optax.GradientTransformation:
    """Multiplies the gradient of a linear layer, kernel and bias together, by a matrix. Put it first in a chain.

    Args:
      inverse: ``[D + 1, D + 1]``, such as :func:`linear_curvature` gives; may be traced.

    Returns:
      The transformation, of parameters with one layer, ``{"kernel": [D, C], "bias": [C]}``, under any name.

    Raises:
      ValueError: when updating, for parameters with something else.

    Example:
      Features of very different sizes, and labels that follow the small one. Both steps are as long as is safe:

      >>> x = jnp.array([[100.0, 0.1], [100.0, -0.1], [-100.0, 0.1], [-100.0, -0.1]])
      >>> y = jnp.array([1, 0, 1, 0])
      >>> def loss(params):
      ...     logits = x @ params["kernel"] + params["bias"][None]
      ...     return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
      >>> for first, rate in ((optax.identity(), 1e-4), (linear_preconditioner(linear_curvature(x)), 1.0)):
      ...     tx = optax.chain(first, optax.sgd(rate))
      ...     params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
      ...     state = tx.init(params)
      ...     for _ in range(20):
      ...         updates, state = tx.update(jax.grad(loss)(params), state)
      ...         params = optax.apply_updates(params, updates)
      ...     print(f"{loss(params):.3f}")
      0.693
      0.012
    """

    def update(updates: Any, params: Any = None) -> Any:
        del params
        layer = updates
        while isinstance(layer, dict) and len(layer) == 1:
            (layer,) = layer.values()
        if not isinstance(layer, dict) or set(layer) != {"kernel", "bias"}:
            raise ValueError(
                f"{jax.tree.structure(updates)}: give the parameters of one linear layer, a kernel and a bias."
            )
        moved = inverse @ jnp.concatenate([layer["kernel"], layer["bias"][None]])
        treedef = jax.tree.structure(updates)  # keys in order: the bias comes first
        return jax.tree.unflatten(treedef, [moved[-1], moved[:-1]])

    return optax.stateless(update)
