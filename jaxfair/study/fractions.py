"""Regular fractions of a factorial design: 16 settings that are balanced in all levels and all pairs of levels."""

import itertools
from typing import Any

import numpy as np

from jaxfair.study.factorial import Levels, Pairs, model_matrix


def fractions(
    levels: Levels, *, by: str, interactions: Pairs, draws: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """A design of 16 settings for each level of one factor: the best of so many draws of regular fractions.

    Each fraction lives on the 15 columns of a two-level 16-run design (all sums of four basic columns). Three columns
    that sum to zero make a factor of four levels: the first such factor takes {1, 2, 12}, the second {3, 4, 34}. The
    factors of two levels take some of the nine columns that are left. Which of them, the signs, and the order of the
    four levels are drawn for each fraction. So in each of them all levels of a factor occur equally often, and all
    pairs of levels of two factors, too: main effects are orthogonal to each other.

    Args:
      levels: of each factor: any number for ``by``, two of four levels, and at most nine of two.
      by: the factor that has a fraction for each of its levels.
      interactions: of the model whose determinant is to be large.
      draws: how many designs are drawn.
      generator: of random numbers. Another one gives another design of the same kind.

    Returns:
      The design.

    Example:
      >>> from jaxfair.study import factorial
      >>> levels = {"estimate": ("ring", "memory"), "mean": (0, 1), "margin": (0, 1), "rate": range(4), "tx": range(4)}
      >>> design = fractions(levels, by="estimate", interactions=[("mean", "rate")], draws=2,
      ...                    generator=np.random.default_rng(0))
      >>> matrix, _ = factorial.model_matrix(design, levels)
      >>> len(design), bool(np.allclose(matrix.T @ matrix, 32 * np.eye(10)))
      (32, True)
    """
    basic = np.array(list(itertools.product((0, 1), repeat=4)))
    products = [(a, b) for a in ((1, 0), (0, 1), (1, 1)) for b in ((1, 0), (0, 1), (1, 1))]
    two = [name for name, of in levels.items() if len(of) == 2 and name != by]
    four = [name for name, of in levels.items() if len(of) == 4 and name != by]
    best, best_score = [], -np.inf
    for _ in range(draws):
        settings = []
        for level in levels[by]:
            chosen = generator.permutation(len(products))[: len(two)]
            flips = generator.integers(2, size=len(two))
            orders = {name: generator.permutation(4) for name in four}
            for run in basic:
                setting = {by: level}
                for name, column, flip in zip(two, chosen, flips, strict=True):
                    a, b = products[column]
                    setting[name] = levels[name][int(run[:2] @ a + run[2:] @ b + flip) % 2]
                for name, pair in zip(four, (run[:2], run[2:]), strict=True):
                    setting[name] = levels[name][int(orders[name][2 * pair[0] + pair[1]])]
                settings.append({name: setting[name] for name in levels})
        matrix, _ = model_matrix(settings, levels, interactions)
        sign, score = np.linalg.slogdet(matrix.T @ matrix)
        if sign > 0 and score > best_score:
            best, best_score = settings, score
    return best
