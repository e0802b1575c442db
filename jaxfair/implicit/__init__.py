r"""Derivatives of what is defined by an equation: products with the inverse of a Jacobian, and what follows from them.

Where x solves :math:`F(x, a) = 0`, its derivative by a follows from the equation alone, however x was found:

.. math:: \frac{dx}{da} = -\Big(\frac{\partial F}{\partial x}\Big)^{-1} \frac{\partial F}{\partial a}

===========================  =================================  ======================================
x is                         F                                  function
===========================  =================================  ======================================
a minimum of f(x, a)         :math:`\nabla_x f`                 `at_minimum`, `hypergradient`
a fixed point of T(x, a)     :math:`T(x, a) - x`                `fixed_point`
n steps of an iteration      nothing: the steps are followed    `unroll`
===========================  =================================  ======================================

Nobody forms the Jacobian: a *solve* is ``solve(product, target) -> Solution`` for a linear function ``product``, made
by `conjugate_gradients` (symmetric, positive definite: Hessians), `neumann` (whatever contracts), `anderson_solve` (the
rest, as GMRES) or `dense` (small, exact). Each is a loop inside the compiled program: it jits and vmaps.

`anderson` finds fixed points in few evaluations, and where the plain iteration runs off; `mixing` is one step of it,
for a loop of one's own.

Of the linear solves of JAX (`jax.scipy.sparse.linalg.cg`) and lineax these differ in what a minibatch needs: they count
their products, their scalars are float32 whatever the leaves are, and a nan ends a lane and costs the others nothing.

References:
  Lorraine, Vicol, Duvenaud, `Optimizing millions of hyperparameters by implicit differentiation
  <https://arxiv.org/abs/1911.02590>`_, 2020 (Neumann). Pedregosa, `Hyperparameter optimization with approximate
  gradient <https://arxiv.org/abs/1602.02355>`_, 2016 (CG). Blondel et al., `Efficient and modular implicit
  differentiation <https://arxiv.org/abs/2105.15183>`_, 2022.
"""

from jaxfair.implicit.anderson import Accelerated as Accelerated
from jaxfair.implicit.anderson import anderson as anderson
from jaxfair.implicit.anderson import anderson_solve as anderson_solve
from jaxfair.implicit.hypergradient import Hypergradient as Hypergradient
from jaxfair.implicit.hypergradient import hypergradient as hypergradient
from jaxfair.implicit.implied import at_minimum as at_minimum
from jaxfair.implicit.implied import fixed_point as fixed_point
from jaxfair.implicit.mixing import Kind as Kind
from jaxfair.implicit.mixing import Mixing as Mixing
from jaxfair.implicit.mixing import MixingState as MixingState
from jaxfair.implicit.mixing import mixing as mixing
from jaxfair.implicit.mixing import unfinished as unfinished
from jaxfair.implicit.solves import Product as Product
from jaxfair.implicit.solves import Solution as Solution
from jaxfair.implicit.solves import Solve as Solve
from jaxfair.implicit.solves import conjugate_gradients as conjugate_gradients
from jaxfair.implicit.solves import dense as dense
from jaxfair.implicit.solves import neumann as neumann
from jaxfair.implicit.unroll import unroll as unroll
