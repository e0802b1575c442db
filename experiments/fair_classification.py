"""Equal treatment under a bound: rate constraints next to fairlearn's reductions, on Adult.

    python -m experiments.fair_classification

trains classifiers on UCI Adult whose groups (women and men) may differ from everybody's rate by at most a slack, in
selection rate (demographic parity) or in true- and false-positive rate (equalised odds). The question: is a linear
model under `constraints.rates` as accurate, at the same violation, as fairlearn's `ExponentiatedGradient` around
logistic regression, and faster? Its whole frontier, slacks and splits and candidate step sizes, is one compiled
program. Beside them an MLP, and fairlearn with gradient boosting.

Every seed is another split of Adult, the same for all. What both sides deliver is a randomised classifier: fairlearn's
mixture of its predictors, and the best feasible mixture of the iterates of ours (`constraints.stochastic`), those of
all slacks and step sizes of the multipliers together. The linear model's mixture is chosen on the training split, as
fairlearn's is. The MLP fits the training split too well for that: its accuracy is judged on the validation split, and
its rates, which take more people to know, on both together (:func:`judge`). Test is only measured.

What makes the linear model the equal of a reduction:

- The reduction fits *reweighted* cross entropy. So does ours with ``proxy="cost"`` (`rates.costs`): log-odds that were
  linear stay linear whatever the multipliers. A sigmoid in place of the rate bends them.
- It is trained on the full batch, preconditioned by a bound on the curvature, to the optimum of the same objective,
  scikit-learn's L2 penalty included (`optim.linear_preconditioner`). About 50 steps get there.
- Each constraint is scaled by the root of the share of people it speaks of, so that one step size suits a rate of all
  men and one of the few women who earn more.

It writes `runs/fair_classification/<id>/`: config.json, records.jsonl (one line per classifier; the same command goes
on where a killed run stopped), tables, a figure, report.html. On two free cores the linear model takes a minute, the
MLP and `eg_logistic` two each, and `eg_boosting` half an hour: `--methods linear,mlp,eg_logistic` leaves it for later.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import constraints, data, models, optim, report, study, train
from jaxfair.cli import flags
from jaxfair.constraints import rates
from jaxfair.report import figures
from jaxfair.typing import Batch

FAMILIES = {"demographic_parity": rates.demographic_parity, "equalized_odds": rates.equalized_odds}
FAMILIES_IN_WORDS = {
    "demographic_parity": "Demographic parity: each group is predicted to earn over $50,000 as often as everybody.",
    "equalized_odds": "Equalised odds: among those who do earn over $50,000, each group is predicted to as often as "
    "everybody, and so it is among those who do not.",
}
IN_WORDS = {
    "linear": "jaxfair: a linear model under rate constraints",
    "mlp": "jaxfair: a small MLP under rate constraints",
    "eg_logistic": "fairlearn: ExponentiatedGradient around logistic regression",
    "eg_boosting": "fairlearn: ExponentiatedGradient around histogram gradient boosting",
}
METHODS, PEER = tuple(IN_WORDS), "eg_logistic"
#: Ours, and fairlearn's reduction around a learner of scikit-learn.
OURS, THEIRS = METHODS[:2], METHODS[2:]
#: Stands for a classifier without constraints. Two rates differ by at most 1, so a slack of 1 is none.
FREE = float("inf")
NUM_CLASSES = 2
PROXIES = ("cost", "sigmoid", "hinge", "logistic")
CHOSEN_ON = {
    "train": "the training split",
    "validation": "the validation split",
    "both": "the validation split for accuracy and training and validation together for rates",
}
TIMES = {
    "cpu_seconds": "CPU seconds",
    "compile_cpu_seconds": "compiling, CPU seconds",
    "seconds": "seconds by the clock",
    "compile_seconds": "compiling, by the clock",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Classifiers whose groups are treated alike, beside fairlearn's."""

    # of demographic_parity, equalized_odds
    families: tuple[str, ...] = flags.several(tuple(FAMILIES), of=FAMILIES)
    # of linear, mlp, eg_logistic, eg_boosting
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # how far a group's rate may be from everybody's, as shares of 1
    slacks: tuple[float, ...] = flags.several((0.01, 0.02, 0.05), float, above=0, below=1)
    # attributes whose intersection makes the groups
    groups: tuple[str, ...] = flags.several(("sex",))
    # how many splits of the data
    seeds: int = flags.one(5, low=1)
    # examples of the training split that are used; 0 is all
    max_train: int = flags.one(0, low=0)
    # linear: how many times it is kept as a candidate
    linear_rounds: int = flags.one(30, low=1)
    # linear: steps on the full batch before each of these
    linear_steps: int = flags.one(4, low=1)
    # linear: step sizes of the multipliers, side by side; what is delivered is mixed from the candidates of all
    linear_dual_rates: tuple[float, ...] = flags.several((1.0, 3.0), float, above=0)
    # linear: what stands in for a rate where it is differentiated: cost, sigmoid, hinge or logistic
    linear_proxy: str = flags.one("cost", of=PROXIES)
    # linear: where the mixture is chosen: train, validation, or both, which is accuracy on validation and rates on both
    linear_chosen_on: str = flags.one("train", of=CHOSEN_ON)
    # mlp: epochs; it is kept as a candidate after each
    mlp_epochs: int = flags.one(12, low=1)
    # mlp: examples a step
    mlp_batch_size: int = flags.one(512, low=1)
    # mlp: of Adam, falling to 0 along a cosine
    mlp_learning_rate: float = flags.one(0.003, above=0)
    # mlp: weight_decay / 2 * |weights|^2 is added to the loss
    mlp_weight_decay: float = flags.one(0.0, low=0)
    # mlp: as of linear
    mlp_dual_rates: tuple[float, ...] = flags.several((0.03, 0.1, 0.3, 1.0), float, above=0)
    # mlp: as of linear
    mlp_proxy: str = flags.one("sigmoid", of=PROXIES)
    # mlp: as of linear
    mlp_chosen_on: str = flags.one("both", of=CHOSEN_ON)
    # mlp: widths of the hidden layers
    mlp_hidden: tuple[int, ...] = flags.several((64, 64), int, low=1, none=True)
    # fairlearn: most rounds of the reduction, 50 in fairlearn too; it stops earlier where it has converged
    eg_rounds: int = flags.one(50, low=1)
    # the run goes into a folder in here
    runs_dir: str = "runs/fair_classification"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        if self.max_train and self.max_train < self.mlp_batch_size:
            raise flags.UsageError(
                f"--max_train={self.max_train}: give 0 or at least --mlp_batch_size"
            )


class Splits(NamedTuple):
    """One split of the data: trained on, chosen by, and measured on; with G groups."""

    train: Batch
    validation: Batch
    test: Batch
    num_groups: int


@functools.cache
def load(config: Config, seed: int) -> Splits:
    """The data of a seed, with `max_train` people drawn at random where it is given."""
    adult = data.load("adult", groups=config.groups, split_seed=seed)
    split = adult.train
    if config.max_train:
        split = data.sample(split, config.max_train, seed=seed)
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


def measured(
    probability: Callable[[np.ndarray], np.ndarray], splits: Splits, family: str
) -> dict[str, float]:
    """Accuracy and violation on all three splits, of a function from features to probabilities."""
    found = {}
    for name in ("train", "validation", "test"):
        batch = getattr(splits, name)
        values = expected(probability(np.asarray(batch.x)), batch, family, splits.num_groups)
        found |= {f"{key}_{name}": value for key, value in values.items()}
    return found


def judge(splits: Splits, chosen_on: str) -> Batch:
    """The people by whom candidates are judged: rates by all of them, accuracy by those whose weight is 1.

    For equalised odds there are about a hundred women who earn more in the validation split: too few to know their
    rate by. Accuracy is known well enough there, and on the training split it flatters.
    """
    if chosen_on != "both":
        return getattr(splits, chosen_on)
    batches = splits.train._replace(weight=np.zeros(len(splits.train.y))), splits.validation
    return jax.tree.map(lambda *a: np.concatenate([np.asarray(v) for v in a]), *batches)


# --- ours ----------------------------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """How one of our models is trained, and kept as a candidate after each of its rounds.

    Without a batch size every step sees the whole split, and the descent is preconditioned; else it is Adam's.
    """

    hidden: tuple[int, ...]
    proxy: str
    dual_rates: tuple[float, ...]
    rounds: int
    steps: int
    batch_size: int | None
    learning_rate: float
    weight_decay: float
    chosen_on: str


def recipe(config: Config, method: str, size: int) -> Recipe:
    """The recipe of a method, for a training split of this size."""
    c, batch_size = config, config.mlp_batch_size
    if method == "linear":
        # scikit-learn's penalty |w|^2 / 2 beside a sum of N losses, for the difference of the two logits' weights.
        return Recipe((), c.linear_proxy, c.linear_dual_rates, c.linear_rounds, c.linear_steps,
                      None, 0.5, 2.0 / size, c.linear_chosen_on)  # fmt: skip
    return Recipe(c.mlp_hidden, c.mlp_proxy, c.mlp_dual_rates, c.mlp_epochs, max(1, size // batch_size),
                  batch_size, c.mlp_learning_rate, c.mlp_weight_decay, c.mlp_chosen_on)  # fmt: skip


class Frontier(NamedTuple):
    """What the training of one method under one family of constraints leaves: ``[S, H, D, E]`` candidates.

    S splits, H slacks, D step sizes of the multipliers, E rounds. Their parameters; their error among those who judge
    them; their constraints among them, without the slack, ``[S, H, D, E, K]``; and the seconds that it took.
    """

    params: Any
    error: np.ndarray
    gaps: np.ndarray
    spent: dict[str, float]


def make_lane(how: Recipe, family: str, num_groups: int, size: int) -> Callable[..., Any]:
    """The training of one split, slack and step size of the multipliers, and what it leaves after each round."""
    model = models.mlp(NUM_CLASSES, hidden=how.hidden)
    sizes = {"num_groups": num_groups, "num_classes": NUM_CLASSES}

    def lane(split: Batch, judges: Batch, known: Any, key: Any, slack: Any, dual_rate: Any) -> Any:
        problem = rates.problem(
            model.apply,
            FAMILIES[family](slack, num_groups=num_groups),
            **sizes,
            proxy="sigmoid" if how.proxy == "cost" else how.proxy,
            memory="examples" if how.batch_size else "batch",
            weight_decay=how.weight_decay,
            decayed=lambda path: path.endswith("kernel"),
        )
        if how.proxy == "cost":
            problem = rates.costs(problem, model.apply, known["influence"])
        problem = constraints.scaled(problem, known["scale"])
        primal = optax.adam(
            optax.cosine_decay_schedule(how.learning_rate, how.rounds * how.steps)
        )
        if not how.batch_size:
            primal = optax.chain(
                optim.linear_preconditioner(known["inverse"]),
                optax.sgd(how.learning_rate, 0.9, nesterov=True),
            )
        solver = constraints.solver(problem, primal=primal, dual=optax.sgd(dual_rate))
        start, batches = jax.random.split(key)
        params, model_state = model.init(start, split.x[:1])
        if not how.batch_size:
            params = jax.tree.map(jnp.zeros_like, params)  # the problem is convex

        def candidate(state: Any, epoch: Any) -> Any:
            del epoch
            params = state.solver.params
            logits = model.apply(params, model_state, judges.x, train=False)[0]
            prediction = logits.argmax(axis=-1).astype(jnp.int32)
            found = rates.measure(
                FAMILIES[family](0.0, num_groups=num_groups), prediction, judges.y, judges.group, **sizes
            )  # fmt: skip
            error = jnp.sum(judges.weight * (prediction != judges.y)) / jnp.sum(judges.weight)
            return params, error, found.value

        def order(key: Any, epoch: Any) -> Any:
            return train.epoch_order(
                key, epoch, num_examples=size, batch_size=how.batch_size, num_steps=how.steps
            )

        return train.run(
            solver, solver.init(params, problem.init(model_state, None, split)), split, batches,
            epochs=how.rounds, batch_size=how.batch_size, num_steps=how.steps,
            order=order if how.batch_size else None, look=candidate,
        )[1]  # fmt: skip

    return lane


def train_frontier(how: Recipe, family: str, splits: Sequence[Splits], slacks: Any) -> Frontier:
    """Splits x slacks x step sizes of the multipliers, all of them lanes of one program."""
    began, cpu_began = time.perf_counter(), time.process_time()
    num_groups, size = splits[0].num_groups, len(splits[0].train.y)
    lanes = make_lane(how, family, num_groups, size)
    for axes in ((None, None, None, None, None, 0), (None, None, None, None, 0, None), (0, 0, 0, 0, None, None)):  # fmt: skip
        lanes = jax.vmap(lanes, in_axes=axes)
    bounds = FAMILIES[family](0.0, num_groups=num_groups)

    def known(split: Batch) -> dict[str, np.ndarray]:
        people = rates.people(bounds, split, num_groups=num_groups)
        found = {"scale": np.sqrt(people).astype(np.float32)}
        if how.proxy == "cost":
            found["influence"] = rates.influence(bounds, split, num_groups=num_groups)
        if not how.batch_size:
            found["inverse"] = optim.linear_curvature(split.x, weight_decay=how.weight_decay)
        return found

    def stack(of: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *a: jnp.stack([jnp.asarray(v) for v in a]), *of)

    arguments = (
        stack([s.train for s in splits]),
        stack([judge(s, how.chosen_on) for s in splits]),
        stack([known(s.train) for s in splits]),
        jax.vmap(jax.random.key)(jnp.arange(len(splits))),
        jnp.minimum(jnp.asarray(slacks), 1.0),
        jnp.asarray(how.dual_rates),
    )
    compiled = jax.jit(lanes).lower(*arguments).compile()
    ready, cpu = time.perf_counter(), time.process_time()
    found = jax.tree.map(np.asarray, compiled(*arguments))
    return Frontier(*found, spent={
        "seconds": time.perf_counter() - ready,
        "cpu_seconds": time.process_time() - cpu,
        "compile_seconds": ready - began,
        "compile_cpu_seconds": cpu - cpu_began,
    })  # fmt: skip


def choose(frontier: Frontier, split: int, slack: float) -> tuple[constraints.Solution, Any]:
    """The mixture that a split and a slack deliver, and the parameters ``[M, ...]`` of its members.

    The candidates are all that were trained on this split, towards whatever slack and with whatever step size; of
    a classifier without constraints, those that were trained without, which are the last of the slacks.
    """
    lanes = slice(-1, None) if np.isinf(slack) else slice(None)
    error = frontier.error[split, lanes].reshape(-1)
    gaps = frontier.gaps[split, lanes].reshape(len(error), -1)
    if np.isinf(slack):
        mixture = constraints.best_feasible(error, np.zeros((len(error), 0)))
    else:
        # The signed differences of rates, not their largest absolute value, are what averages over a mixture.
        mixture = constraints.stochastic(error, gaps, slack=slack)

    def members(values: np.ndarray) -> np.ndarray:
        return values[split, lanes].reshape(len(error), *values.shape[4:])[mixture.iterates]

    return mixture, jax.tree.map(members, frontier.params)


def run_ours(config: Config, method: str, family: str) -> Iterator[tuple[study.Cell, Any]]:
    """The classifiers of a method under a family of constraints, one per slack and split."""
    splits = [load(config, seed) for seed in range(config.seeds)]
    slacks = (*config.slacks, FREE)
    how = recipe(config, method, len(splits[0].train.y))
    frontier = train_frontier(how, family, splits, slacks)
    began, cpu = time.perf_counter(), time.process_time()
    chosen = {(h, s): choose(frontier, s, slack) for h, slack in enumerate(slacks) for s in range(len(splits))}  # fmt: skip
    # The lanes run together: every classifier gets the same share of what all of them took, the choice included.
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    spent = {k: (v + took.get(k, 0.0)) / len(chosen) for k, v in frontier.spent.items()}
    model = models.mlp(NUM_CLASSES, hidden=how.hidden)
    for (h, s), (mixture, params) in chosen.items():
        members = [jax.tree.map(lambda a, m=m: a[m], params) for m in range(len(mixture.iterates))]

        def probability(x: Any, members: Any = members, mixture: Any = mixture) -> np.ndarray:
            votes = [model.apply(p, {}, jnp.asarray(x), train=False)[0].argmax(-1) for p in members]
            return mixture.probabilities @ np.array(votes, float)

        cell = {"family": family, "method": method, "slack": slacks[h], "seed": s}
        numbers = {"feasible": mixture.feasible, "mixed": len(members), "chosen_on": how.chosen_on}
        yield cell, numbers | spent | measured(probability, splits[s], family)


# --- theirs --------------------------------------------------------------------------------------------------------


def run_theirs(
    config: Config, method: str, family: str, slack: float, seed: int
) -> dict[str, Any]:
    """The record of one fairlearn classifier, with fairlearn's and scikit-learn's own defaults."""
    from fairlearn import reductions
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    splits = load(config, seed)
    if method == "eg_logistic":
        learner = LogisticRegression(max_iter=1000)
    else:
        learner = HistGradientBoostingClassifier(random_state=0)
    parity = family == "demographic_parity"
    bound = reductions.DemographicParity if parity else reductions.EqualizedOdds
    x, y, group = (np.asarray(a) for a in (splits.train.x, splits.train.y, splits.train.group))
    # One thread: on problems of this size more of them wait for each other, and on a busy machine for ever.
    with threadpool_limits(1):
        began, cpu = time.perf_counter(), time.process_time()
        if np.isinf(slack):
            learner.fit(x, y)
            found = {"mixed": 1, "calls": 1}

            def probability(x: np.ndarray) -> np.ndarray:
                return learner.predict(x).astype(float)
        else:
            reduction = reductions.ExponentiatedGradient(
                learner, bound(difference_bound=slack), max_iter=config.eg_rounds
            )
            reduction.fit(x, y, sensitive_features=group)
            mixed = int((np.asarray(reduction.weights_) > 0).sum())
            found = {"mixed": mixed, "calls": int(reduction.n_oracle_calls_)}

            def probability(x: np.ndarray) -> np.ndarray:
                # What its `predict` draws from; there is no public way to the probabilities.
                return np.asarray(reduction._pmf_predict(x))[:, 1]

        found |= {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
            "compile_seconds": 0.0,
            "compile_cpu_seconds": 0.0,
        }
        found |= {"chosen_on": "train", **measured(probability, splits, family)}
    return found | {"feasible": found["violation_train"] <= slack + 1e-6}


# --- the run -------------------------------------------------------------------------------------------------------


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the page."""
    names = ("family", "method", "slack", "seed")

    def wanted(methods: Sequence[str]) -> list[study.Cell]:
        return study.grid(
            family=config.families,
            method=[m for m in methods if m in config.methods],
            slack=(*config.slacks, FREE),
            seed=range(config.seeds),
        )

    with study.opened(config, names, grows=("families", "methods", "seeds")) as this:
        for shared, _ in this.missing(wanted(OURS), together=("family", "method"), whole=True):
            for cell, numbers in run_ours(config, **shared):
                this.record(cell, numbers)
        for cell, _ in this.missing(wanted(THEIRS), together=names):
            this.record(cell, run_theirs(config, **cell))
        tell(this)


def said(level: Any) -> str:
    """A slack in points."""
    return "none" if np.isinf(level) else f"{100 * level:g}"


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of the linear model, beside fairlearn's around logistic regression, at every slack.

    Half a point is less than the splits differ by.
    """
    if not {"linear", PEER} <= set(study.values(records, "method")):
        return []
    alike = {"margin": -0.005, "level": lambda slack: f"slack {said(slack)}"}
    apart = ("no further from equal rates", "further from equal rates")
    found = []
    for family in study.values(records, "family"):
        at: dict[str, Any] = {"at": ("slack",), "among": {"family": family}}
        found += [
            study.Claim("linear", PEER, "accuracy_test", ("no less accurate", "less accurate"), 1, **at, **alike),
            study.Claim("linear", PEER, "violation_test", apart, -1, **at, **alike),
        ]  # fmt: skip
    return found


def headline(this: study.Run) -> list[str]:
    """What was done, and what it took."""
    records, settings = this.records, this.settings
    totals = {m: {t: sum(r[t] for r in study.chosen(records, method=m)) for t in TIMES} for m in METHODS}  # fmt: skip
    return [
        f"Classifiers were trained on UCI Adult ({len(study.values(records, 'seed'))} splits, the same for all methods) "
        f"whose groups ({' x '.join(settings['groups'])}) may differ from everybody's rate by at most "
        f"{', '.join(map(said, sorted(settings['slacks'])))} points, the slack."
    ]
