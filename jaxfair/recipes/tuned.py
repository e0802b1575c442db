"""Numbers of a recipe, such as its learning rate, chosen on validation by a search of a given budget.

What is chosen is the setting whose networks are most accurate on validation, among those whose networks all met their
bound on train; the bound is a promise about train, and a gap of few people on validation is mostly noise. The test
split is never looked at.
"""

import math
import operator
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, SupportsIndex

import jax
import numpy as np

from jaxfair import metrics, search, study
from jaxfair.data import DataError, Dataset
from jaxfair.recipes import _identity
from jaxfair.recipes._bounds import Bound
from jaxfair.recipes._frame import key_facts
from jaxfair.recipes._judged import judge, unequal
from jaxfair.recipes._networks import Networks
from jaxfair.recipes.check_model import ModelError
from jaxfair.typing import Key

#: What `jaxfair prune --tune` searches: SGD's learning rate, and how far a multiplier can go in a run.
OVER: dict[str, Any] = {
    "learning_rate": search.Real(0.005, 0.5, log=True),
    "travel": search.Real(1.0, 100.0, log=True),
}
#: Deviation of a mean over seeds when a setting is played again, in deviations of all settings; a guess.
NOISE = 0.1


class Tuned(NamedTuple):
    """What was chosen; made by `tuned`.

    Attributes:
      chosen: the setting, ``name -> value``.
      met: whether all networks of it met the bound on train.
      networks: them; None where they were not asked for.
      row: of the setting among all that was played.
      settings: of all that was played, ``name -> [H]``.
      accuracy: ``[H]`` on validation, the mean over seeds; nan where a network diverged.
      over: ``[H]`` by how much the bound was exceeded on train by the seed that exceeds it most; at most 0 is met.
    """

    chosen: dict[str, Any]
    met: bool
    networks: Networks | None
    row: int
    settings: dict[str, np.ndarray]
    accuracy: np.ndarray
    over: np.ndarray


def tuned(
    play: Callable[[dict[str, Any]], Networks],
    over: search.Space,
    dataset: Dataset,
    dense: Networks,
    *,
    bound: Bound | None = None,
    tolerance: Any = None,
    budget: int = 20,
    start: Mapping[str, Any] | None = None,
    key: Key | SupportsIndex = 0,
    folder: str | os.PathLike[str] | None = None,
    facts: Mapping[str, Any] | None = None,
    deliver: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Plays a recipe with several settings, chosen one after another by `jaxfair.search.minimize`, and keeps the best.

    Args:
      play: ``play(setting) -> Networks``, of ``name -> value``.
      over: what is searched.
      dataset: on whose validation split accuracy is compared.
      dense: what the networks come from.
      bound: that must be met on train; None asks for accuracy alone. A seed whose dense network diverged has no part.
      tolerance: on the bound's gap; the bound's own by default.
      budget: how many settings are played; each costs a whole run.
      start: the first of them, ``name -> [Q]``: the one in use; or, as many as the budget, all of them.
      key: of the search.
      folder: where what was played is kept, so that a search that was killed goes on.
      facts: what ``play`` is a function of, beside the setting: a folder with other ones is refused.
      deliver: whether the networks of the chosen setting are given; those of a search that goes on are played again.
      say: is given a line after each.

    Returns:
      The `Tuned`.

    Raises:
      DataError: for a dataset without validation.
      ModelError: where all dense networks diverged, or with every setting one.
      ValueError: for settings or a budget that cannot be.
      FolderError: for a folder of another search, or of one that proposed other settings.

    Example:
      >>> from jaxfair import data, models, recipes
      >>> mine, model = data.load("digits"), models.mlp(10, hidden=(16,))
      >>> before = recipes.dense(model, mine, seeds=1, epochs=2, progress=False)
      >>> def play(setting):
      ...     return recipes.prune(model, mine, before, sparsity=0.5, epochs=2, prune_epochs=1, progress=False,
      ...                          **setting)
      >>> found = tuned(play, {"learning_rate": OVER["learning_rate"]}, mine, before, budget=2)
      >>> best = found.settings["learning_rate"][found.accuracy.argmax()].item()
      >>> best == found.chosen["learning_rate"], found.met
      (True, True)
    """
    if not len(dataset.validation.y):
        raise DataError(f"{dataset.name} has no validation split, on which settings are compared: give it one")
    sound = np.flatnonzero(dense.failed_at < 0)
    if not len(sound):
        raise ModelError("all dense networks diverged: there is nothing to compare settings on")
    root = key if isinstance(key, jax.Array) else jax.random.key(operator.index(key))
    limit = None if bound is None else bound.tolerance if tolerance is None else tolerance
    log = None if folder is None else pathlib.Path(folder) / "settings.jsonl"
    if log is not None:
        study.check_folder(log.parent)
        space = {name: [type(of).__name__, *of] for name, of in over.items()}
        asked = {} if bound is None else {**bound.known(dataset.num_groups), "chosen by": limit}
        study.claim_folder(log.parent, _identity.plain({
            "over": space, "budget": budget, "start": {name: [*values] for name, values in (start or {}).items()},
            "key": key_facts(root), **asked, "dense": dense.digest(), "facts": dict(facts or {}),
            **_identity.dataset_facts(dataset, streamed=False),
        }))  # fmt: skip
    rows = [] if log is None else study.read(log)
    seen: list[tuple[float, float]] = []
    best: dict[str, Any] = {}

    def measured(settings: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        setting, number, networks = search.setting_of(settings, 0), len(seen), None
        if number == len(rows):
            networks = play(setting)
            rows.append({"setting": setting, **_worth(networks, dataset, dense, sound, bound, limit)})
            if log is not None:
                study.append(log, rows[-1])
        row = rows[number]
        if not _alike(row["setting"], setting):
            raise study.FolderError(
                f"{log}, line {number + 1} was played with {row['setting']}, and this search proposes {setting}: "
                f"remove {log and log.parent}, or choose another folder"
            )
        seen.append((-row["accuracy"], row["over"]))
        if search.best_row(*np.array(seen).T)[0] == number:
            best["networks"] = networks
        say(_line(len(seen), budget, setting, row, bounded=bound is not None))
        return np.array([-row["accuracy"]]), np.array([row["over"]])

    found = search.minimize(
        over, measured, budget=budget, constrained=True, noise=NOISE, key=jax.random.fold_in(root, 7), start=start
    )
    if not np.isfinite(found.values).any():
        raise ModelError(f"with all {budget} settings a network diverged: search smaller learning rates")
    networks = best["networks"] if deliver else None
    if deliver and networks is None:  # it was played before this search was stopped
        networks = play(found.chosen)
    return Tuned(found.chosen, found.met, networks, found.row, found.settings, -found.values, found.excess)


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two settings are the same but for what a file and another machine make of the last digits."""
    return one.keys() == other.keys() and all(
        math.isclose(value, other[name], rel_tol=1e-6) if isinstance(value, float) else value == other[name]
        for name, value in one.items()
    )


def _worth(
    networks: Networks, dataset: Dataset, dense: Networks, sound: np.ndarray, bound: Bound | None, tolerance: Any
) -> dict[str, float]:
    """Over seeds the mean accuracy on validation, and the largest excess on train; nan where one diverged."""
    if (networks.failed_at[sound] >= 0).any():
        return {"accuracy": math.nan, "over": math.nan}
    before, after = (of.predict(dataset.train)[sound] for of in (dense, networks))
    over = [
        0.0 if bound is None else judge(dataset, *both, bound, tolerance).over
        for both in zip(before, after, strict=True)
    ]
    split = dataset.validation
    right = [np.asarray(metrics.correct(label, np.asarray(split.y))) for label in networks.predict(split)[sound]]
    return {
        "accuracy": float(np.average(right, axis=1, weights=unequal(split)).mean()),
        "over": max((0.0 if one is None or math.isnan(one) else one) for one in over),
    }


def _line(number: int, budget: int, setting: Mapping[str, Any], row: Mapping[str, Any], *, bounded: bool) -> str:
    words = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in setting.items())
    if not math.isfinite(row["accuracy"]):
        return f"setting {number} of {budget}: {words}: a network diverged"
    said = f"setting {number} of {budget}: {words}: {100 * row['accuracy']:.2f} % on validation"
    if not bounded:
        return said
    beyond = f"exceeded by {100 * row['over']:.2f} points"
    return f"{said}, the bound {'met' if row['over'] <= 0 else beyond}"
