"""The settings that `dual_dynamics` screens: eight factors in 48 cells, and what such a design can tell apart.

All combinations of the levels are 1,536. The 48 of `dual_dynamics_design.csv` are three regular fractions of 16 cells,
one for each level of `estimate`. Each fraction lives on the 15 columns of a two-level 16-run design (all sums of four
basic columns): three columns that sum to zero make a factor of four levels, so `optimizer` takes {1, 2, 12} and `rate`
{3, 4, 34}, and the five factors of two levels take five of the nine columns that are left. Which five, the signs, and
the order of the four levels were drawn at random for each fraction, 20,000 times, and the draw with the largest
determinant of the model below (main effects and `INTERACTIONS`) was kept. What was kept is stored, not drawn again.

So in the 48 cells, and in the 16 of every estimate, all levels of a factor occur equally often, and so do all pairs of
levels of two factors: main effects are orthogonal to each other. They are aliased with two-factor interactions, wholly
within a fraction, in part over the three, whose aliases differ; `aliasing` has the numbers.
"""

import csv
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Each factor with its levels; the first is the published one.
LEVELS: dict[str, tuple[Any, ...]] = {
    "estimate": ("ring", "memory", "exact"),
    "weights": ("published", "normalized"),
    "mean": ("uniform", "prevalence"),
    "start": ("after", "before"),
    "margin": (1.0, 0.5),
    "batches": ("plain", "balanced"),
    "optimizer": ("ascent", "optimistic", "omega", "nupi"),
    "rate": (0.001, 0.01, 0.1, 1.0),
}
#: The two-factor interactions that the design was chosen for.
INTERACTIONS = (
    ("weights", "rate"),
    ("weights", "mean"),
    ("weights", "start"),
    ("estimate", "mean"),
    ("estimate", "rate"),
    ("estimate", "optimizer"),
    ("estimate", "batches"),
)
FILE = pathlib.Path(__file__).with_name("dual_dynamics_design.csv")


def read() -> list[dict[str, Any]]:
    """The 48 settings, in the order of the file."""
    with open(FILE, newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: next(v for v in levels if str(v) == row[name]) for name, levels in LEVELS.items()}
        for row in rows
    ]


def contrasts(name: str, values: Sequence[Any]) -> np.ndarray:
    """``[R, levels - 1]`` orthonormal contrasts of a factor, the linear one first.

    That is for the rate, whose levels are equally far apart in the logarithm.
    """
    count = len(LEVELS[name])
    power = np.arange(count)[:, None] ** np.arange(count)
    basis = np.linalg.qr(power.astype(float))[0] * np.sqrt(count)
    basis *= np.sign(basis[-1])
    return basis[[LEVELS[name].index(v) for v in values]][:, 1:]


def model_matrix(
    settings: Sequence[dict[str, Any]], interactions: Sequence[tuple[str, str]] = INTERACTIONS
) -> tuple[np.ndarray, list[str]]:
    """``[R, P]``: the intercept, all main effects, and the interactions; with the term of each column."""
    columns, terms = [np.ones((len(settings), 1))], ["mean of all"]
    coded = {name: contrasts(name, [s[name] for s in settings]) for name in LEVELS}
    for name, block in coded.items():
        columns.append(block)
        terms += [name] * block.shape[1]
    for a, b in interactions:
        block = np.einsum("ri,rj->rij", coded[a], coded[b]).reshape(len(settings), -1)
        columns.append(block)
        terms += [f"{a} x {b}"] * block.shape[1]
    return np.concatenate(columns, axis=1), terms


def aliasing(settings: Sequence[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """(factor, interaction) -> the largest correlation of their contrasts, where it is not 0."""
    pairs = list(itertools.combinations(LEVELS, 2))
    matrix, terms = model_matrix(settings, pairs)
    scaled = matrix / np.linalg.norm(matrix, axis=0).clip(1e-12)
    found: dict[tuple[str, str], float] = {}
    for i, term in enumerate(terms):
        if term not in LEVELS:
            continue
        for j, other in enumerate(terms):
            if " x " in other and term not in other.split(" x "):
                size = abs(float(scaled[:, i] @ scaled[:, j]))
                if size > 1e-9:
                    found[term, other] = max(size, found.get((term, other), 0.0))
    return found


def construct(draws: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """How the file was made: the best of so many draws. Another generator gives another design of the same kind."""
    basic = np.array(list(itertools.product((0, 1), repeat=4)))
    products = [(a, b) for a in ((1, 0), (0, 1), (1, 1)) for b in ((1, 0), (0, 1), (1, 1))]
    two = [name for name, levels in LEVELS.items() if len(levels) == 2]
    best, best_score = [], -np.inf
    for _ in range(draws):
        settings = []
        for estimate in LEVELS["estimate"]:
            chosen = generator.permutation(len(products))[: len(two)]
            flips = generator.integers(2, size=len(two))
            orders = {name: generator.permutation(4) for name in ("optimizer", "rate")}
            for run in basic:
                setting = {"estimate": estimate}
                for name, column, flip in zip(two, chosen, flips, strict=True):
                    a, b = products[column]
                    bit = (run[:2] @ a + run[2:] @ b + flip) % 2
                    setting[name] = LEVELS[name][bit]
                for name, pair in (("optimizer", run[:2]), ("rate", run[2:])):
                    setting[name] = LEVELS[name][orders[name][2 * pair[0] + pair[1]]]
                settings.append({name: setting[name] for name in LEVELS})
        matrix, _ = model_matrix(settings)
        sign, score = np.linalg.slogdet(matrix.T @ matrix)
        if sign > 0 and score > best_score:
            best, best_score = settings, score
    return best
