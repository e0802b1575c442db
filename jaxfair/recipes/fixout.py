"""FixOut: an ensemble that leans less on sensitive features, by leaving them out in turn.

Of sensitive features a_1 .. a_F it trains F + 1 networks: one without each of them, and one without all. Their
probabilities are averaged. Each feature is read by F - 1 of the members only, and with it its Shapley values, which are
linear in the score, are about (F - 1) / (F + 1) of a network's: a third of two features'. Of one feature both kinds are
the same, and the one network without it is all there is.

It is a remedy for what a model *reads*; what other features say of the sensitive ones stays where it is, and a member
that lacks a feature may read its stand-ins more. Look at both: :func:`jaxfair.metrics.leaning`, and the audit.

Sources: Bhargava, Couceiro and Napoli, `LimeOut <https://arxiv.org/abs/2006.10531>`_, 2020; Alves, Amblard, Bernier,
Couceiro and Napoli, `Reducing unintended bias <https://arxiv.org/abs/2108.02662>`_, 2021. Differs from the authors'
code: the members are lanes of one training with masked inputs, and nothing is tuned on test.
"""

from collections.abc import Sequence
from typing import Any

from jaxfair.data import Dataset
from jaxfair.recipes._networks import Networks
from jaxfair.recipes.ensemble import ensemble
from jaxfair.typing import Model


def fixout(model: Model, dataset: Dataset, sensitive: Sequence[str], **options: Any) -> Networks:
    """Trains FixOut's ensemble, for each seed.

    Args:
      model: of the members.
      dataset: with ``feature_names``.
      sensitive: the features that the model should lean on less: all of them in FixOut's list of the most important,
        names of columns or of attributes, such as ``("race", "sex")``.
      **options: of :func:`ensemble`.

    Returns:
      The :class:`Networks`, as of :func:`ensemble`: members in the order of ``sensitive``, the one without all last.

    Raises:
      ValueError: for no feature, one twice, and as of :func:`ensemble`.

    Example:
      >>> import numpy as np
      >>> from jaxfair import data, models
      >>> x, half = np.random.default_rng(0).normal(size=(300, 3)), np.arange(300) % 2
      >>> mine = data.dataset(x, x.sum(1) > 0, half, feature_names=["pay", "age", "sex"])
      >>> found = fixout(models.mlp(2, hidden=(4,)), mine, ("age", "sex"), seeds=2, epochs=1, progress=False)
      >>> found, found.model_state["kept"][0].astype(int).tolist()
      (Networks(2 networks of 78 parameters), [[1, 0, 1], [1, 1, 0], [1, 0, 0]])
    """
    names = list(sensitive)
    if isinstance(sensitive, str) or not names or len(set(names)) < len(names):
        raise ValueError(f"sensitive={sensitive!r}: give the names of at least one feature, each once.")
    each = [(name,) for name in names]
    return ensemble(model, dataset, each if len(each) == 1 else [*each, tuple(names)], **{"name": "fixout", **options})
