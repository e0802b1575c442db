"""Which of some networks to keep when nobody's group is known: the best against all adversaries that were met."""

import numpy as np
from jaxtyping import Float

#: KL from the data within which an adversary counts: a tenth of the people may be all that it looks at.
RADIUS = float(np.log(10.0))


def minimax_choice(
    losses: Float[np.ndarray, "M N"], ratios: Float[np.ndarray, "A N"], *, radius: float = RADIUS
) -> tuple[int, Float[np.ndarray, " M"]]:
    r"""The network whose worst weighted loss is the least: argmin over m of max over a of mean(w_a l_m).

    Adversaries are the uniform one and every given one whose :math:`\mathrm{mean}(w \log w)` is within the radius.

    How this differs from P-DRO's code: the uniform adversary is there once, and all networks are compared with all
    adversaries at the end, so that the choice does not depend on the order in which they came.

    Args:
      losses: ``[M, N]`` of each network on a validation split, or its errors.
      ratios: ``[A, N]`` of each adversary: at least 0, with a mean of 1.
      radius: in nats, at least 0.

    Returns:
      The number of the network, and ``[M]`` worst weighted losses, infinite for one that has diverged.

    Raises:
      ValueError: for ratios that are negative or whose mean is not 1, shapes that do not fit, and networks of which
        none has finite losses.

    Example:
      >>> losses = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])
      >>> best, worst = minimax_choice(losses, np.array([[1.0, 1.0, 1.0], [0.0, 0.5, 2.5]]))
      >>> best, worst.round(3).tolist()
      (1, [2.833, 2.0])

    References:
      Michel et al., `Modeling the second player in distributionally robust optimization
      <https://arxiv.org/abs/2103.10282>`_, 2021, section 3.3.
    """
    losses, ratios = np.asarray(losses, np.float64), np.asarray(ratios, np.float64)
    if losses.ndim != 2 or ratios.ndim != 2 or ratios.shape[1] != losses.shape[1]:
        raise ValueError(f"losses of shape {losses.shape} and ratios {ratios.shape}: give [M, N] and [A, N].")
    means = ratios.mean(1)
    # Float32 ratios of a thousand examples sum up to within 1e-5.
    if not ((ratios >= 0).all() and np.allclose(means, 1.0, atol=1e-4)):
        worst = int(np.argmax(np.abs(means - 1.0)))
        raise ValueError(
            f"ratios of adversary {worst} have the mean {means[worst]:.6g}: give ratios of at least 0 with a mean of "
            "1, such as weights times the number of examples."
        )
    if not radius >= 0:
        raise ValueError(f"radius={radius}: give a number of at least 0.")
    logs = np.where(ratios > 0, np.log(np.where(ratios > 0, ratios, 1.0)), 0.0)
    # A tenth of the people is exactly at the default radius, and has its rounding.
    near = ratios[(ratios * logs).mean(1) <= radius + 1e-4]
    values = losses @ np.concatenate([np.ones((1, losses.shape[1])), near]).T / losses.shape[1]
    worst_of = values.max(1)
    if not np.isfinite(worst_of).any():
        raise ValueError("no network has finite losses: there is none to choose.")
    worst_of = np.where(np.isfinite(worst_of), worst_of, np.inf)
    return int(np.argmin(worst_of)), worst_of
