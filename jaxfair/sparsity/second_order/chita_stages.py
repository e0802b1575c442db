r"""CHITA++: one-shot pruning in stages, with new gradients for each.

The second-order model is good near the weights that it was made at. A rising list of sparsities takes smaller steps,
and measures the curvature anew after each. Stage i of m, i from 0, with the final sparsity s and a base b:

.. code-block:: text

    constant       s                                              every stage prunes to s, from new gradients (*)
    linear         b + (s - b) (i + 1) / m
    polynomial     s + (b - s) (1 - (i + 1) / m)^3
    mfac           1 - (1 - b) r^(i + 1),  r = ((1 - s) / (1 - b))^(1 / m)
    exponential    1 - (1 - b) r^i,        r = ((1 - s) / (1 - b))^(1 / (m - 1))

``mfac`` keeps the same share of what is left at every stage; ``exponential`` does so, too, and begins with b itself
(our reading: the form of the authors' schedule of that name is not published). A stage may take back a weight that an
earlier one pruned, where that lowers the objective.

(*) Of use with a first-order term only: without it what has s zeros already is its own optimum, and later stages of
`chita` change nothing.

References:
  Benbaki, Chen, Meng, Hazimeh, Ponomareva, Zhao and Mazumder, *Fast as CHITA: neural network pruning with
  combinatorial optimization*, 2023, https://arxiv.org/abs/2302.14623.

  Frantar, Kurtic and Alistarh, *M-FAC: efficient matrix-free approximations of second-order information*, 2021.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity import _numbers
from jaxfair.typing import Array, Params

KINDS = ("constant", "linear", "polynomial", "mfac", "exponential")


def stage_sparsities(final: Any, stages: Any, *, kind: str = "exponential", base: Any = 0.0) -> tuple[float, ...]:
    """The sparsities of the stages; the last one is exactly the final one.

    Args:
      final: s, in ``[0, 1)``.
      stages: m, at least 1.
      kind: one of ``constant``, ``linear``, ``polynomial``, ``mfac``, ``exponential``.
      base: b, between 0 and s.

    Returns:
      m numbers, which do not fall; as decimals of seven digits.

    Raises:
      ValueError: an unknown kind, no stage, or a base that is not between 0 and s.

    Example:
      >>> [round(s, 4) for s in stage_sparsities(0.9, 3, kind="linear", base=0.3)]
      [0.5, 0.7, 0.9]
      >>> [round(s, 4) for s in stage_sparsities(0.99, 2, kind="mfac")]
      [0.9, 0.99]
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, but it is {kind!r}")
    stages = _numbers.whole("stages", stages, low=None)
    if stages < 1:
        raise ValueError(f"stages must be at least 1, but it is {stages}")
    final, base = float(counts.exact_sparsity(final)), float(counts.exact_sparsity(base))
    if not 0 <= base <= final:
        raise ValueError(f"base must be between 0 and the final sparsity {final}, but it is {base}")
    ratio = (1 - final) / (1 - base)

    def at(i: int) -> float:
        done = (i + 1) / stages
        if kind == "linear":
            return base + (final - base) * done
        if kind == "polynomial":
            return final + (base - final) * (1 - done) ** 3
        if kind == "mfac":
            return 1 - (1 - base) * ratio**done
        if kind == "exponential":
            return 1 - (1 - base) * ratio ** (i / (stages - 1))
        return final

    # Rounded: in binary, 1 - (1 - 0.3) is more than 0.3, and of ten weights that is one more.
    return (*(min(max(round(at(i), 7), base), final) for i in range(stages - 1)), final)


def chita_stages(
    gradients_of: Callable[[Params, int], Array],
    params: Params,
    sparsities: Sequence[Any],
    *,
    prune: Callable[[Params, Array, Any], tuple[Params, Any, Any]],
) -> tuple[Params, Any, list[Any]]:
    """Prunes in stages, each from the gradients of what the one before left.

    Args:
      gradients_of: ``gradients_of(params, stage) -> [n, p]``, as of `example_gradients`: of other examples at each
        stage, if you like. BatchNorm statistics may be estimated again in here.
      params: the tree of parameters, dense.
      sparsities: of the stages, from `stage_sparsities`; they do not fall.
      prune: ``prune(params, gradients, sparsity) -> (params, masks, found)``: `chita`, `chita_block` or `woodfisher`
        with their other arguments bound.

    Returns:
      The parameters, the masks of the last stage, and what each stage found.

    Raises:
      ValueError: no stage, or sparsities that fall.

    Example:
      A quadratic, whose gradients are the same everywhere:

      >>> import functools
      >>> import jax.numpy as jnp
      >>> from jaxfair import sparsity
      >>> prune = functools.partial(sparsity.chita, prunable=lambda path: True)
      >>> params = {"kernel": jnp.array([1.0, 2.0, 3.0, 4.0])}
      >>> params, masks, found = chita_stages(lambda params, stage: jnp.eye(4), params, (0.25, 0.5), prune=prune)
      >>> masks["kernel"].tolist(), len(found)
      ([False, False, True, True], 2)
    """
    if not sparsities:
        raise ValueError("sparsities is empty; give one per stage")
    if any(b < a for a, b in itertools.pairwise(sparsities)):
        raise ValueError(f"sparsities may not fall, but they are {tuple(sparsities)}")
    masks, found = None, []
    for stage, sparsity in enumerate(sparsities):
        params, masks, result = prune(params, gradients_of(params, stage), sparsity)
        found.append(result)
    return params, masks, found
