"""``jaxfair prune``: networks for a table of one's own, pruned under a bound on what each group loses.

    jaxfair prune --data my.npz --model my_model.py:make --sparsity 0.95 --tolerance 0.02 --out pruned/

trains dense networks, prunes them as usual and under the bound, and writes into ``--out`` what may be shipped
(``ceag_seed0.safetensors``, ..., and the dense ones), what each of them is worth (``networks.csv``), what they predict
(``predictions.npz``), and the page of the audit (``report.html``; needs ``jaxfair[report]``). The same command goes on
where it was stopped.

A network that the bound made worse on the people trained on, in both the largest gap and the accuracy, is not written:
the one that is pruned as usual stands in its place, and the command says so. Where a bound was not met, the last lines
say why, and what to do.
"""

import dataclasses
from typing import Any

from jaxfair import data, recipes
from jaxfair.cli import flags, job
from jaxfair.cli.failures import one_line
from jaxfair.cli.job import BOUNDS
from jaxfair.typing import Model


@dataclasses.dataclass(frozen=True)
class Config(job.Flags):
    """Prune networks under a bound on what each group loses."""

    # share of the weights that is removed
    sparsity: float = flags.one(0.95, low=0, below=1)
    # share of the loss that follows the dense network's predictions in place of the labels: 0.5 changes fewer of them
    distill: float = flags.one(0.0, low=0, high=1)
    # settings of the learning rate, and of how fast multipliers move, of which the best on validation is taken; each
    # costs as much as a whole run; 0 takes what is given here
    tune: int = flags.one(0, low=0, high=10_000)


def run(config: Config) -> int:
    """From the flags to the whole job; the exit code is 1 if a network diverged."""
    return job.run(config, COMMAND)


def make(config: Config, *given: Any, bound: recipes.Bound | None, naive: Any, **same: Any) -> recipes.Networks:
    """Networks pruned; the ones that the bounded are compared with follow nobody."""
    distill = config.distill if bound is not None or config.bound == "none" else 0.0
    return recipes.prune(*given, sparsity=config.sparsity, bound=bound, naive=naive, distill=distill, **same)


def settled(
    config: Config,
    model: Model,
    dataset: data.Dataset,
    dense: recipes.Networks,
    bound: recipes.Bound | None,
    same: dict[str, Any],
) -> tuple[Config, recipes.Bound | None]:
    """With the learning rate and the bound that are best on validation, where ``--tune`` asks for it."""
    if not config.tune:
        return config, bound
    bound, rate = tuned(config, model, dataset, dense, bound, same)
    return dataclasses.replace(config, learning_rate=rate), bound


def tuned(
    config: Config,
    model: Model,
    dataset: data.Dataset,
    dense: recipes.Networks,
    bound: recipes.Bound | None,
    same: dict[str, Any],
) -> tuple[recipes.Bound | None, float]:
    """The bound and the learning rate that are best on validation, of ``--tune`` settings, the given one first."""
    over, start = dict(recipes.OVER), {"learning_rate": [config.learning_rate], "travel": [recipes.TRAVEL]}
    rate = over["learning_rate"]
    low, high = min(rate.low, config.learning_rate), max(rate.high, config.learning_rate)
    over["learning_rate"] = rate._replace(low=low, high=high)
    moves = config.bound in ("ceag", "accuracy_gap")
    if not moves:
        over.pop("travel")
        start.pop("travel")
    options = {name: value for name, value in same.items() if name not in ("folder", "learning_rate")}

    def bounded(setting: dict[str, Any]) -> recipes.Bound | None:
        return BOUNDS[config.bound](config.tolerance, travel=setting["travel"]) if moves else bound

    def play(setting: dict[str, Any]) -> recipes.Networks:
        return recipes.prune(
            model, dataset, dense, sparsity=config.sparsity, bound=bounded(setting), distill=config.distill,
            progress=False, learning_rate=setting["learning_rate"], **options,
        )  # fmt: skip

    try:
        found = recipes.tuned(
            play, over, dataset, dense, bound=bound, tolerance=config.tolerance, budget=config.tune, start=start,
            key=config.seed, folder=same["folder"] / "tuning", deliver=False,
            say=lambda line: print(one_line(line), flush=True),
        )  # fmt: skip
    except recipes.ModelError as error:
        raise flags.UsageError(f"--tune={config.tune}: {error}, from --learning_rate={low / 5:g} on") from None
    chosen = ", ".join(f"{name} {value:.3g}" for name, value in found.chosen.items())
    print(f"chosen on validation, of {config.tune} settings: {chosen}\n", flush=True)
    return bounded(found.chosen), found.chosen["learning_rate"]


COMMAND = job.Command(
    make,
    done=lambda config: "pruned",
    doing="pruning",
    less="prune less",
    size=lambda config: f"{100 * config.sparsity:g} % zeros",
    facts=lambda config: {"sparsity": config.sparsity},
    prunes=lambda config: config.sparsity > 0,
    settle=settled,
)

main = flags.entry(run, Config, prog="jaxfair prune")
