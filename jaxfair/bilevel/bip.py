r"""BiP: bilevel pruning, masks above and weights below.

.. math::

   \min_{m \in S} \; \ell(m \odot \theta^*(m)), \qquad
   \theta^*(m) = \arg\min_\theta \; \ell(m \odot \theta) + \tfrac{\gamma}{2} |\theta|^2, \qquad
   S = \{m \in \{0, 1\}^n : \mathbf 1^\top m \le k\}

With :math:`z = m \odot \theta`, :math:`g = \partial \ell / \partial z`, H its Hessian and M, T the diagonal matrices of
m and :math:`\theta`, the implicit function theorem gives

.. math:: \frac{d \theta^*}{d m} = -(\gamma I + M H M)^{-1} (\mathrm{diag}(g) + M H T)

and leaving H out, the closed form of the paper,

.. math:: \frac{d \ell}{d m} = \big(\theta - \tfrac{1}{\gamma} m \odot g\big) \odot g

for which one backward pass is enough, as :math:`\nabla_\theta \ell = m \odot g` and :math:`\nabla_m \ell = \theta \odot
g`. On a quadratic of curvature 1 at m = 1 it is -0.5 for -0.25 at gamma 1, and -0.01961 for -0.01941 at gamma 100: the
sign is right, and the error vanishes with 1 / gamma. ``hypergradient=`` keeps H, by CG or a Neumann series.

A step takes two minibatches:

.. code-block:: text

    theta <- theta - alpha (m * g_A + gamma theta)
    m     <- P(m - beta (theta - m * g_B / gamma) * g_B)        P: the box, and the budget k

and the network sees the k best scores as zeros and ones, with the gradient passed straight through; or, ``relaxed``,
the scores themselves, projected on the box and a sum of at most k.

===========================  ==================================================================================
paper                        here
===========================  ==================================================================================
alpha, beta                  the rates of ``weights`` and ``masks``
gamma                        ``gamma`` in the closed form, ``weight_decay`` in the lower level
k                            ``schedule``: at once, or gradually
S for filters, channels      ``structure=sparsity.channel(-1)``, ``channel(-2)``: the sum over a filter's weights
===========================  ==================================================================================

How this differs from the authors' code: there the implicit term is the square of the scores' gradient, not the product
with the weights' gradient (weights are frozen while masks move); scores begin in the very memory of the weights; the
masks' schedule has the weights' rate. Here the update is the paper's, and the exact one is there to compare with.

References:
  Zhang et al., `Advancing model pruning via bi-level optimization <https://arxiv.org/abs/2210.04092>`_, 2022.
"""

from collections.abc import Callable
from typing import Any

from jaxfair import constraints, sparsity
from jaxfair.bilevel._state import Bilevel
from jaxfair.bilevel.bifp import bifp
from jaxfair.typing import ModelState, Params


def bip(
    apply: Callable[..., Any],
    schedule: sparsity.Schedule,
    *,
    prunable: Callable[[str], bool],
    loss: Any = constraints.cross_entropy,
    **options: Any,
) -> Bilevel:
    """Makes the solver that finds masks and weights together.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      schedule: the sparsity per step, of `jaxfair.sparsity`.
      prunable: which leaves may be pruned, by path; a `Model` has it.
      loss: of one example, ``loss(logits [B, C], batch) -> [B]``.
      **options: ``weights``, ``masks``, ``joint``, ``gamma``, ``weight_decay``, ``hypergradient``, ``relaxed``,
        ``renew``, ``weight_steps``, ``mask_steps``, ``distribution`` and ``structure``, see `bifp`.

    Returns:
      The :class:`Bilevel`; ``init(params, model_state={}, scores=None)``.

    Raises:
      TypeError: as `bifp`.
      ValueError: as `bifp`.

    Example:
      Of three inputs the last says everything. Its weight begins as the smallest, and magnitude pruning would lose it:

      >>> import jax, jax.numpy as jnp, optax
      >>> from jaxfair.typing import Batch
      >>> def apply(params, state, x, *, train, key=None):
      ...     logit = x @ params["w"]
      ...     return jnp.stack([-logit, logit], axis=-1), state
      >>> x = jax.random.normal(jax.random.key(0), (64, 3))
      >>> y = jnp.asarray(x[:, 2] > 0, jnp.int32)
      >>> batch = Batch(x, y, jnp.zeros(64, jnp.int32), jnp.arange(64), jnp.ones(64))
      >>> solver = bip(apply, sparsity.constant("2/3"), prunable=lambda path: True,
      ...              weights=optax.sgd(1.0), masks=optax.sgd(1.0), gamma=1.0, weight_decay=1e-3)
      >>> state = solver.init({"w": jnp.array([0.3, 0.2, 0.1])})
      >>> state.masks["w"].tolist()
      [True, False, False]
      >>> step = jax.jit(solver.step)
      >>> for _ in range(50):
      ...     state, info = step(state, batch, None)
      >>> solver.network(state)[1]["w"].tolist(), bool(info.loss < 0.2)
      ([False, False, True], True)
    """
    problem = constraints.unconstrained(apply, num_groups=1, loss=loss)
    solver = bifp(problem, schedule, prunable=prunable, fair=(), **options)

    def init(params: Params, model_state: ModelState | None = None, scores: Any = None) -> Any:
        return solver.init(params, problem.init({} if model_state is None else model_state), scores)

    return solver._replace(init=init)
