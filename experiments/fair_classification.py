"""Equal treatment under a bound: rate constraints next to fairlearn's reductions, on Adult.

    python -m experiments.fair_classification

trains classifiers on UCI Adult whose groups (women and men) may differ from everybody's rate by at most a slack, in
selection rate (demographic parity) or in true- and false-positive rate (equalised odds). The question: is a linear
model under `constraints.rates` as accurate, at the same violation, as fairlearn's `ExponentiatedGradient` around
logistic regression? Its whole frontier, slacks and seeds and candidate step sizes, is one compiled program. Beside
them an MLP, and fairlearn with gradient boosting.

Every seed is another split of Adult, the same for all. What both sides deliver is a randomised classifier: fairlearn's
mixture of its predictors, and the best feasible mixture of the iterates of ours (`constraints.stochastic`), those of
all step sizes of the multipliers together. Both are chosen on the training split. Test is only measured.

It writes `runs/fair_classification/<id>/`: config.json, records.jsonl (one line per classifier; the same command goes
on where a killed run stopped), table.md and .csv, figures, report.html.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app

from experiments import fair_classification_report, flags
from jaxfair import constraints, data, models, train
from jaxfair.constraints import rates
from jaxfair.report import records as records_lib
from jaxfair.typing import Batch

FAMILIES = {"demographic_parity": rates.demographic_parity, "equalized_odds": rates.equalized_odds}
#: Ours, and fairlearn's reduction around a learner of scikit-learn.
OURS = ("linear", "mlp")
THEIRS = ("eg_logistic", "eg_boosting")
#: Stands for a classifier without constraints.
FREE = float("inf")
NUM_CLASSES = 2


@dataclasses.dataclass(frozen=True)
class Config:
    """Classifiers whose groups are treated alike, beside fairlearn's."""

    # of demographic_parity, equalized_odds
    families: tuple[str, ...] = flags.items(tuple(FAMILIES))
    # of linear, mlp, eg_logistic, eg_boosting
    methods: tuple[str, ...] = flags.items((*OURS, *THEIRS))
    # how far a group's rate may be from everybody's, as shares of 1
    slacks: tuple[float, ...] = flags.items((0.01, 0.02, 0.05), float)
    # attributes whose intersection makes the groups
    groups: tuple[str, ...] = flags.items(("sex",))
    # how many splits of the data
    seeds: int = 5
    # examples of the training split that are used; 0 is all
    max_train: int = 0
    # of ours
    epochs: int = 60
    # examples a step, of ours
    batch_size: int = 512
    # of Adam, falling to 0 along a cosine
    learning_rate: float = 0.003
    # step sizes of the multipliers, trained side by side; what is delivered is mixed from the iterates of all
    dual_rates: tuple[float, ...] = flags.items(
        (0.003, 0.01, 0.02, 0.03, 0.06, 0.1, 0.2, 0.3), float
    )
    # what stands in for a rate where it is differentiated: sigmoid, hinge or logistic
    proxy: str = "sigmoid"
    # widths of the mlp's hidden layers
    hidden: tuple[int, ...] = flags.items((64, 64), int)
    # the run goes into a folder in here
    runs_dir: str = "runs/fair_classification"
    # name of that folder; a hash of the settings by default
    id: str = ""


class UsageError(Exception):
    """A setting that cannot be used; the message is one line that says what to do."""


def check(config: Config) -> None:
    """Raises UsageError for what can be known to be wrong before anything is loaded."""
    for flag, allowed in {"families": tuple(FAMILIES), "methods": OURS + THEIRS}.items():
        for name in getattr(config, flag):
            if name not in allowed:
                raise UsageError(
                    f"--{flag}: there is no {name!r}; choose from {', '.join(allowed)}"
                )
    for flag in ("families", "methods", "slacks", "dual_rates"):
        if not getattr(config, flag):
            raise UsageError(f"--{flag}: give at least one")
    for flag in ("seeds", "epochs", "batch_size"):
        if getattr(config, flag) < 1:
            raise UsageError(f"--{flag}={getattr(config, flag)}: give a number of at least 1")
    for flag in ("slacks", "dual_rates"):
        if min(getattr(config, flag)) <= 0:
            raise UsageError(f"--{flag}={min(getattr(config, flag))}: give numbers above 0")
    if config.learning_rate <= 0:
        raise UsageError(f"--learning_rate={config.learning_rate}: give a number above 0")
    if config.proxy not in ("sigmoid", "hinge", "logistic"):
        raise UsageError(f"--proxy={config.proxy}: choose from sigmoid, hinge, logistic")
    if config.max_train and config.max_train < config.batch_size:
        raise UsageError(f"--max_train={config.max_train}: give 0 or at least --batch_size")


class Splits(NamedTuple):
    """One split of the data.

    Attributes:
      train: on which weights and multipliers are trained.
      validation: measured only.
      test: on which everything is measured.
      num_groups: G.
    """

    train: Batch
    validation: Batch
    test: Batch
    num_groups: int


def load(config: Config, seed: int) -> Splits:
    """The data of a seed, with the first `max_train` people of a fixed random order where it is given."""
    adult = data.load("adult", groups=config.groups, split_seed=seed)
    split = adult.train
    if config.max_train:
        kept = np.random.Generator(np.random.PCG64(seed)).permutation(len(split.y))[
            : config.max_train
        ]
        split = jax.tree.map(lambda a: np.asarray(a)[kept], split)
        split = split._replace(index=np.arange(len(kept)))
    return Splits(split, adult.validation, adult.test, adult.num_groups)


# --- how a randomised classifier is measured -----------------------------------------------------------------------


def expected(
    probability: np.ndarray, split: Batch, family: str, num_groups: int
) -> dict[str, float]:
    """Accuracy and largest violation of a classifier that predicts 1 with these probabilities ``[N]``."""
    y, group = np.asarray(split.y), np.asarray(split.group)
    conditions = {"demographic_parity": [y >= 0], "equalized_odds": [y == 1, y == 0]}[family]
    return {
        "accuracy": float(np.where(y == 1, probability, 1 - probability).mean()),
        "violation": max(
            abs(float(probability[who & (group == g)].mean() - probability[who].mean()))
            for who in conditions
            for g in range(num_groups)
        ),
    }


# --- ours ----------------------------------------------------------------------------------------------------------


class Frontier(NamedTuple):
    """What the training of one method under one family of constraints leaves, for every lane ``[S, H, D]``.

    Attributes:
      train: ``[S, H, D, E, N]`` bool, predictions after each epoch.
      validation: the same on the validation split.
      test: the same on the test split.
      seconds: of all of it, compilation included.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    seconds: float


def train_frontier(config: Config, method: str, family: str, splits: Sequence[Splits]) -> Frontier:
    """Seeds x slacks x step sizes of the multipliers, all of them lanes of one program."""
    began = time.perf_counter()
    num_groups, size = splits[0].num_groups, len(splits[0].train.y)
    steps = max(1, size // config.batch_size)
    model = models.mlp(NUM_CLASSES, hidden=config.hidden if method == "mlp" else ())
    problem = rates.problem(
        model.apply,
        FAMILIES[family](0.0, num_groups=num_groups),
        num_groups=num_groups,
        num_classes=NUM_CLASSES,
        proxy=config.proxy,
    )

    def evaluate(params: Any, carry: Any, batch: Batch, key: Any) -> constraints.Evaluation:
        # The slack is data, so that all slacks are one program.
        inner, slack = carry
        found = problem.evaluate(params, inner, batch, key)
        return found._replace(
            proxy=found.proxy - slack, strict=found.strict - slack, carry=(found.carry, slack)
        )

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.epochs * steps)

    def lane(split: Batch, others: Any, key: Any, slack: Any, dual_rate: Any) -> Any:
        solver = constraints.solver(
            evaluate,
            multipliers=constraints.dense(problem.num_constraints),
            primal=optax.adam(schedule),
            dual=optax.sgd(dual_rate),
        )
        start, batches = jax.random.split(key)
        params, model_state = model.init(start, split.x[:1])
        state = solver.init(params, (problem.init(model_state, None, split), slack))

        def predict(params: Any, x: jax.Array) -> jax.Array:
            return model.apply(params, model_state, x, train=False)[0].argmax(axis=-1) == 1

        def epoch(state: Any, number: jax.Array) -> Any:
            order = train.epoch_order(
                batches, number, num_examples=size, batch_size=config.batch_size, num_steps=steps
            )

            def step(state: Any, index: jax.Array) -> tuple[Any, None]:
                return solver.step(state, jax.tree.map(lambda a: a[index], split))[0], None

            state, _ = jax.lax.scan(step, state, order)
            return state, tuple(predict(state.params, x) for x in (split.x, *others))

        return jax.lax.scan(epoch, state, jnp.arange(config.epochs))[1]

    lanes = jax.vmap(lane, in_axes=(None, None, None, None, 0))
    lanes = jax.vmap(lanes, in_axes=(None, None, None, 0, None))
    lanes = jax.jit(jax.vmap(lanes, in_axes=(0, 0, 0, None, None)))
    stacked = jax.tree.map(
        lambda *a: jnp.stack([jnp.asarray(v) for v in a]), *[s.train for s in splits]
    )
    others = tuple(
        jnp.stack([jnp.asarray(getattr(s, name).x) for s in splits])
        for name in ("validation", "test")
    )
    keys = jax.vmap(jax.random.key)(jnp.arange(len(splits)))
    predictions = lanes(
        stacked, others, keys, jnp.array([*config.slacks, FREE]), jnp.array(config.dual_rates)
    )
    found = [np.asarray(p) for p in predictions]
    return Frontier(*found, seconds=time.perf_counter() - began)


def choose(
    frontier: Frontier, lane: tuple[int, int], split: Splits, slack: float, family: str
) -> dict[str, Any]:
    """The mixture that a seed and slack deliver, of the iterates of all step sizes, by the training split alone."""
    iterates = {
        name: getattr(frontier, name)[lane].reshape(-1, getattr(frontier, name).shape[-1])
        for name in ("train", "validation", "test")
    }
    error = (iterates["train"] != (np.asarray(split.train.y) == 1)).mean(axis=1)
    if np.isinf(slack):
        mixture = constraints.best_feasible(error, np.zeros((len(error), 0)))
    else:
        # The signed differences of rates, not their largest absolute value, are what averages over a mixture.
        signed = _signed(iterates["train"], split.train, family, split.num_groups)
        mixture = constraints.stochastic(error, signed, slack=slack)
    found: dict[str, Any] = {"feasible": mixture.feasible, "mixed": len(mixture.iterates)}
    for name, predictions in iterates.items():
        probability = mixture.probabilities @ predictions[mixture.iterates].astype(float)
        values = expected(probability, getattr(split, name), family, split.num_groups)
        found |= {f"{key}_{name}": value for key, value in values.items()}
    return found


def _signed(predictions: np.ndarray, split: Batch, family: str, num_groups: int) -> np.ndarray:
    """``[E, K]``: the constraints of a family, for each of E iterates, without the slack."""
    y, group = jnp.asarray(split.y), jnp.asarray(split.group)
    return np.asarray(_measure(family, num_groups)(jnp.asarray(predictions, jnp.int32), y, group))


@functools.cache
def _measure(family: str, num_groups: int) -> Callable[..., jax.Array]:
    """Compiled once for all slacks and seeds."""
    bounds = FAMILIES[family](0.0, num_groups=num_groups)

    def values(prediction: jax.Array, y: jax.Array, group: jax.Array) -> jax.Array:
        sizes = {"num_groups": num_groups, "num_classes": NUM_CLASSES}
        return rates.measure(bounds, prediction, y, group, **sizes).value

    return jax.jit(jax.vmap(values, in_axes=(0, None, None)))


def run_ours(
    config: Config, method: str, family: str, splits: Sequence[Splits]
) -> Iterator[dict[str, Any]]:
    """The records of a method under a family of constraints, one per slack and seed."""
    frontier = train_frontier(config, method, family, splits)
    slacks = (*config.slacks, FREE)
    share = frontier.seconds / (len(slacks) * len(splits))
    for h, slack in enumerate(slacks):
        for s, split in enumerate(splits):
            found = choose(frontier, (s, h), split, slack, family)
            yield cell(method, family, slack, s) | found | {"seconds": share}


# --- theirs --------------------------------------------------------------------------------------------------------


def run_theirs(method: str, family: str, slack: float, seed: int, split: Splits) -> dict[str, Any]:
    """The record of one fairlearn classifier, with fairlearn's and scikit-learn's own defaults."""
    from fairlearn import reductions
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    learner = {
        "eg_logistic": lambda: LogisticRegression(max_iter=1000),
        "eg_boosting": lambda: HistGradientBoostingClassifier(random_state=0),
    }[method]()
    bound = {
        "demographic_parity": reductions.DemographicParity,
        "equalized_odds": reductions.EqualizedOdds,
    }[family]
    x, y, group = (np.asarray(a) for a in (split.train.x, split.train.y, split.train.group))
    began = time.perf_counter()
    if np.isinf(slack):
        learner.fit(x, y)
        size = 1

        def probability(x: np.ndarray) -> np.ndarray:
            return learner.predict(x).astype(float)
    else:
        reduction = reductions.ExponentiatedGradient(learner, bound(difference_bound=slack))
        reduction.fit(x, y, sensitive_features=group)
        size = int((np.asarray(reduction.weights_) > 0).sum())

        def probability(x: np.ndarray) -> np.ndarray:
            # What its `predict` draws from; there is no public way to the probabilities.
            return np.asarray(reduction._pmf_predict(x))[:, 1]

    seconds = time.perf_counter() - began
    record = cell(method, family, slack, seed) | {"mixed": size, "seconds": seconds}
    for name in ("train", "validation", "test"):
        batch = getattr(split, name)
        values = expected(probability(np.asarray(batch.x)), batch, family, split.num_groups)
        record |= {f"{k}_{name}": v for k, v in values.items()}
    record["feasible"] = record["violation_train"] <= slack + 1e-6
    return record


# --- the run -------------------------------------------------------------------------------------------------------


def cell(method: str, family: str, slack: float, seed: int) -> dict[str, Any]:
    """What names a record."""
    return {"method": method, "family": family, "slack": slack, "seed": seed}


def identity(config: Config) -> dict[str, Any]:
    """The settings that a record is a function of: a run may be asked for more methods later, and keeps what it has."""
    of_the_run = ("runs_dir", "id", "methods", "families")
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in of_the_run}


def names_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record[k] for k in ("method", "family", "slack", "seed"))


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the report."""
    check(config)
    splits = [load(config, seed) for seed in range(config.seeds)]
    settings = identity(config)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    folder = pathlib.Path(config.runs_dir) / (config.id or digest)
    train.check_folder(folder, 10_000_000)
    with train.alone_in(folder):
        if train.claim_folder(folder, settings):
            print(f"going on with the run in {folder}")
        log = folder / "records.jsonl"
        done = {names_of(r) for r in records_lib.read(log)} if log.exists() else set()

        def say(record: Mapping[str, Any]) -> None:
            accuracy, violation = 100 * record["accuracy_test"], 100 * record["violation_test"]
            print(
                f"{record['family']}, {record['method']}, slack {record['slack']:g}, seed {record['seed']}: "
                f"test accuracy {accuracy:.2f} %, violation {violation:.2f} points",
                flush=True,
            )

        for family in config.families:
            for method in config.methods:
                wanted = [
                    names_of(cell(method, family, slack, seed))
                    for slack in (*config.slacks, FREE)
                    for seed in range(config.seeds)
                ]
                missing = [names for names in wanted if names not in done]
                if not missing:
                    continue
                if method in OURS:
                    found = [
                        r
                        for r in run_ours(config, method, family, splits)
                        if names_of(r) in missing
                    ]
                    records_lib.append(log, *found)
                    for record in found:
                        say(record)
                else:
                    for _, _, slack, seed in missing:
                        record = run_theirs(method, family, slack, seed, splits[seed])
                        records_lib.append(log, record)
                        say(record)
        fair_classification_report.write(folder, settings, records_lib.read(log))


def main(config: Config) -> int:
    warnings.formatwarning = lambda message, *where, **more: f"note: {message}\n"
    try:
        run(config)
    except (UsageError, data.DataError, train.FolderError) as error:
        print(f"fair_classification: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=flags.parser(Config, prog="fair_classification"))
