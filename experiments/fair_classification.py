"""Equal treatment under a bound: rate constraints next to fairlearn's reductions, on Adult.

    .venv/bin/python -m experiments.fair_classification

trains classifiers on UCI Adult whose groups (women and men) may differ from everybody's rate by at most a slack, in
selection rate (demographic parity) or in true- and false-positive rate (equalised odds). The question: is a linear
model under `constraints.rates` as accurate, at the same violation, as fairlearn's `ExponentiatedGradient` around
logistic regression, and faster? Its whole frontier, slacks and splits and candidate step sizes, is one compiled
program. Beside them an MLP, and fairlearn with gradient boosting.

Every seed is another split of Adult, the same for all. What both sides deliver is a randomised classifier: fairlearn's
mixture of its predictors, and the best feasible mixture of the iterates of ours (`constraints.stochastic`), those of
all slacks and step sizes of the multipliers together. The linear model's mixture is chosen on the training split, as
fairlearn's is. The MLP fits the training split too well for that: its accuracy is judged on the validation split, and
its rates, which take more people to know, on both together. There the bound holds; violations on test scatter around
it, widely for equalised odds: few women earn more. Test is only measured. fairlearn and scikit-learn have their own
defaults; the settings of ours were chosen on ten other splits of the same people, after an earlier version, which was
worse, had been measured on those shown.

What makes the linear model the equal of a reduction: it fits reweighted cross entropy as a reduction does, on the
full batch, preconditioned by a bound on the curvature, to the optimum of scikit-learn's penalised objective, in about
50 steps; and each constraint is scaled by the root of the share of people it speaks of, so that one step size suits a
rate of all men and one of the few women who earn more.

It writes `runs/fair_classification/<id>/`: config.json, records.jsonl (one line per classifier; the same command goes
on where a killed run stopped), tables, a figure, report.html. On two free cores the linear model takes a minute, the
MLP and `eg_logistic` two each, and `eg_boosting` half an hour: `--methods linear,mlp,eg_logistic` leaves it for later.
"""

import dataclasses
import functools
import types
import warnings
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
IN_WORDS = {
    "demographic_parity": "each group is predicted to earn over $50,000 as often as everybody",
    "equalized_odds": "each group is, of those who do earn that as of those who do not, as often as everybody",
    "linear": "jaxfair: a linear model under rate constraints",
    "mlp": "jaxfair: a small MLP under rate constraints",
    "eg_logistic": "fairlearn: ExponentiatedGradient around logistic regression",
    "eg_boosting": "fairlearn: ExponentiatedGradient around histogram gradient boosting",
}
#: Ours; beside them fairlearn's reduction around learners of scikit-learn, of which one is the peer.
OURS, PEER = ("linear", "mlp"), "eg_logistic"
METHODS = (*OURS, PEER, "eg_boosting")
#: Stands for a classifier without constraints. Two rates differ by at most 1, so a slack of 1 is none.
FREE = float("inf")
NUM_CLASSES = 2
PROXIES = ("cost", "sigmoid", "hinge", "logistic")
CHOSEN_ON = ("train", "validation", "both")


@dataclasses.dataclass(frozen=True)
class Config:
    """Classifiers whose groups are treated alike, beside fairlearn's."""

    # of demographic_parity, equalized_odds
    families: tuple[str, ...] = flags.several(tuple(FAMILIES), of=FAMILIES)
    # of linear, mlp, eg_logistic, eg_boosting
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # how far a group's rate may be from everybody's, as shares of 1
    slacks: tuple[float, ...] = flags.several((0.01, 0.02, 0.05), float, above=0, below=1)
    # attributes whose intersection makes the groups, of sex, race, age, education
    groups: tuple[str, ...] = flags.several(("sex",), of=("sex", "race", "age", "education"))
    # how many splits of the data
    seeds: int = flags.one(5, low=1, high=10_000)
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
        """What two flags say together."""
        if 0 < self.max_train < self.mlp_batch_size:
            few = f"--max_train={self.max_train}: give 0 or at least --mlp_batch_size"
            raise flags.UsageError(few)


@functools.cache
def load(config: Config, seed: int) -> data.Dataset:
    """The data of a seed, with `max_train` people drawn at random where it is given."""
    adult = data.load("adult", groups=config.groups, split_seed=seed)
    if not config.max_train:
        return adult
    return dataclasses.replace(adult, train=data.sample(adult.train, config.max_train, seed=seed))


def measured(probability: Callable[[np.ndarray], np.ndarray], splits: data.Dataset, family: str) -> dict[str, float]:
    """Accuracy and largest violation on all splits of a function from features to the probability of predicting 1."""
    wanted = [rates.accuracy(), *FAMILIES[family](0.0, num_groups=splits.num_groups)]
    found = {}
    for name, split in splits.splits.items():
        predicted = probability(np.asarray(split.x))
        accuracy, *gaps = rates.expected(wanted, predicted, split, num_groups=splits.num_groups)
        found |= {f"accuracy_{name}": float(accuracy), f"violation_{name}": float(max(gaps))}
    return found


def judge(splits: data.Dataset, chosen_on: str) -> Batch:
    """The people by whom candidates are judged: rates by all of them, accuracy by those whose weight is 1.

    For equalised odds there are about a hundred women who earn more in the validation split: too few to know their
    rate by. Accuracy is known well enough there, and on the training split it flatters.
    """
    if chosen_on != "both":
        return getattr(splits, chosen_on)
    batches = splits.train._replace(weight=np.zeros(len(splits.train.y))), splits.validation
    return jax.tree.map(lambda *a: np.concatenate([np.asarray(v) for v in a]), *batches)


def recipe(config: Config, method: str, size: int) -> Any:
    """How one of our models is trained on so many people: its own flags, without their prefix, and the rest."""
    start = f"{method}_"
    mine = {k.removeprefix(start): v for k, v in vars(config).items() if k.startswith(start)}
    if method == "linear":
        # scikit-learn's penalty |w|^2 / 2 beside a sum of N losses, for the difference of the two logits' weights.
        mine |= {"hidden": (), "batch_size": None, "learning_rate": 0.5, "weight_decay": 2.0 / size}
    else:
        mine |= {"rounds": config.mlp_epochs, "steps": max(1, size // config.mlp_batch_size)}
    return types.SimpleNamespace(**mine)


class Frontier(NamedTuple):
    """What is left by S splits, H slacks, D dual step sizes, E rounds: ``[S, H, D, E]`` candidates.

    Their parameters; their error and their constraints ``[..., K]`` without the slack, by their judges; the seconds.
    """

    params: Any
    error: np.ndarray
    gaps: np.ndarray
    spent: dict[str, float]


def make_lane(how: Any, family: str, num_groups: int) -> Callable[..., Any]:
    """The training of one split towards one slack, with one step size of the multipliers: its candidates."""
    model = models.mlp(NUM_CLASSES, hidden=how.hidden)
    sizes: dict[str, Any] = {"num_groups": num_groups, "num_classes": NUM_CLASSES}

    def lane(known: dict[str, Any], slack: Any, dual_rate: Any) -> Any:
        split, judges = known["split"], known["judges"]
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
        start, batches = jax.random.split(known["key"])
        params, model_state = model.init(start, split.x[:1])
        plan = {"batch_size": how.batch_size, "num_steps": how.steps}
        if how.batch_size:  # else every step sees the whole split
            order = functools.partial(train.epoch_order, num_examples=len(split.y), **plan)
            total = how.rounds * how.steps
            primal = optax.adam(optax.cosine_decay_schedule(how.learning_rate, total))
        else:
            order, primal = None, optax.sgd(how.learning_rate, 0.9, nesterov=True)
            primal = optax.chain(optim.linear_preconditioner(known["inverse"]), primal)
            params = jax.tree.map(jnp.zeros_like, params)  # the problem is convex
        problem = constraints.scaled(problem, known["scale"])
        solver = constraints.solver(problem, primal=primal, dual=optax.sgd(dual_rate))
        begun = solver.init(params, problem.init(model_state, None, split))

        def candidate(state: Any, _: Any) -> Any:
            logits, _ = model.apply(state.solver.params, model_state, judges.x, train=False)
            prediction = logits.argmax(axis=-1).astype(jnp.int32)
            bounds = FAMILIES[family](0.0, num_groups=num_groups)
            found = rates.measure(bounds, prediction, judges.y, judges.group, **sizes)
            error = jnp.sum(judges.weight * (prediction != judges.y)) / jnp.sum(judges.weight)
            return state.solver.params, error, found.value

        more = {"order": order, "look": candidate, **plan}
        return train.run(solver, begun, split, batches, epochs=how.rounds, **more)[1]

    return lane


def train_frontier(how: Any, family: str, splits: Sequence[data.Dataset], slacks: Any) -> Frontier:
    """Splits x slacks x step sizes of the multipliers, all of them lanes of one program."""
    compiling, num_groups = study.clock(), splits[0].num_groups
    lanes = make_lane(how, family, num_groups)
    for axes in ((None, None, 0), (None, 0, None), (0, None, None)):
        lanes = jax.vmap(lanes, in_axes=axes)
    bounds = FAMILIES[family](0.0, num_groups=num_groups)

    def known(seed: int, s: data.Dataset) -> dict[str, Any]:
        people = rates.people(bounds, s.train, num_groups=num_groups)
        found = {"split": s.train, "judges": judge(s, how.chosen_on), "key": jax.random.key(seed)}
        found["scale"] = np.sqrt(people).astype(np.float32)
        if how.proxy == "cost":
            found["influence"] = rates.influence(bounds, s.train, num_groups=num_groups)
        if not how.batch_size:
            found["inverse"] = optim.linear_curvature(s.train.x, weight_decay=how.weight_decay)
        return found

    numbers = jnp.minimum(jnp.asarray(slacks), 1.0), jnp.asarray(how.dual_rates)
    arguments = train.stack([known(*pair) for pair in enumerate(splits)]), *numbers
    compiled = jax.jit(lanes).lower(*arguments).compile()
    spent, training = {f"compile_{k}": v for k, v in compiling().items()}, study.clock()
    found = jax.tree.map(np.asarray, compiled(*arguments))
    return Frontier(*found, spent=spent | training())


def choose(frontier: Frontier, split: int, slack: float) -> tuple[constraints.Solution, list[Any]]:
    """The mixture that a split and a slack deliver, and the parameters of its members.

    Of all candidates of the split; without a slack, of those that were trained without, which are the last.
    """
    lanes = slice(-1, None) if np.isinf(slack) else slice(None)
    params, error, gaps = jax.tree.map(lambda a: a[split, lanes].reshape(-1, *a.shape[4:]), tuple(frontier)[:3])
    if np.isinf(slack):
        mixture = constraints.best_feasible(error, np.zeros((len(error), 0)))
    else:
        # The signed differences of rates, not their largest absolute value, are what averages over a mixture.
        mixture = constraints.stochastic(error, gaps, slack=slack)
    return mixture, [jax.tree.map(lambda a, i=i: a[i], params) for i in mixture.iterates]


def run_ours(config: Config, method: str, family: str) -> Iterator[tuple[study.Cell, Any]]:
    """The classifiers of a method under a family of constraints, one per slack and split."""
    splits = [load(config, seed) for seed in range(config.seeds)]
    slacks = (*config.slacks, FREE)
    how = recipe(config, method, len(splits[0].train.y))
    frontier = train_frontier(how, family, splits, slacks)
    choosing, seeds = study.clock(), range(config.seeds)
    chosen = {(slack, s): choose(frontier, s, slack) for slack in slacks for s in seeds}
    # The lanes run together: every classifier gets the same share of what all of them took, the choice included.
    took = choosing()
    spent = {k: (v + took.get(k, 0.0)) / len(chosen) for k, v in frontier.spent.items()}
    model = models.mlp(NUM_CLASSES, hidden=how.hidden)
    for (slack, s), (mixture, members) in chosen.items():

        def probability(x: Any, members: Any = members, mixture: Any = mixture) -> np.ndarray:
            votes = [model.apply(p, {}, jnp.asarray(x), train=False)[0].argmax(-1) for p in members]
            return mixture.probabilities @ np.array(votes, float)

        cell = {"family": family, "method": method, "slack": slack, "seed": s}
        numbers = {"feasible": mixture.feasible, "mixed": len(members), "chosen_on": how.chosen_on}
        yield cell, numbers | spent | measured(probability, splits[s], family)


def run_theirs(config: Config, method: str, family: str, slack: float, seed: int) -> dict[str, Any]:
    """The record of one fairlearn classifier, with fairlearn's and scikit-learn's own defaults."""
    from fairlearn import reductions
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    splits, free = load(config, seed), np.isinf(slack)
    learner: Any = LogisticRegression(max_iter=1000)
    if method == "eg_boosting":
        learner = HistGradientBoostingClassifier(random_state=0)
    bound = reductions.EqualizedOdds
    if family == "demographic_parity":
        bound = reductions.DemographicParity
    x, y, group = (np.asarray(a) for a in (splits.train.x, splits.train.y, splits.train.group))
    # One thread: on problems of this size more of them wait for each other, and on a busy machine for ever.
    quiet = warnings.catch_warnings(action="ignore", category=DeprecationWarning)  # of pandas
    with threadpool_limits(1), quiet:
        fitting = study.clock()
        if free:
            learner.fit(x, y)
            found: dict[str, Any] = {"mixed": 1, "calls": 1}
        else:
            learner = reductions.ExponentiatedGradient(
                learner, bound(difference_bound=slack), max_iter=config.eg_rounds
            )
            learner.fit(x, y, sensitive_features=group)
            mixed = int((np.asarray(learner.weights_) > 0).sum())
            found = {"mixed": mixed, "calls": int(learner.n_oracle_calls_)}

        def probability(x: np.ndarray) -> np.ndarray:
            # What a reduction's `predict` draws from; there is no public way to the probabilities.
            return learner.predict(x).astype(float) if free else learner._pmf_predict(x)[:, 1]

        found |= {**fitting(), "compile_seconds": 0.0, "compile_cpu_seconds": 0.0}
        found |= {"chosen_on": "train", **measured(probability, splits, family)}
    return found | {"feasible": found["violation_train"] <= slack + 1e-6}


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the page."""
    names = ("family", "method", "slack", "seed")
    wanted = study.grid(
        family=config.families,
        method=config.methods,
        slack=(*config.slacks, FREE),
        seed=range(config.seeds),
    )
    ours = [cell for cell in wanted if cell["method"] in OURS]
    theirs = [cell for cell in wanted if cell not in ours]
    with study.opened(config, names, grows=("families", "methods", "seeds")) as this:
        for shared, _ in this.missing(ours, together=("family", "method"), whole=True):
            for cell, numbers in run_ours(config, **shared):
                this.record(cell, numbers)
        for cell, _ in this.missing(theirs, together=names):
            this.record(cell, run_theirs(config, **cell))
        tell(this)


def said(level: Any) -> str:
    """A slack in points."""
    return "none" if np.isinf(level) else f"{100 * level:g}"


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of the linear model, beside fairlearn's around logistic regression, at every slack."""
    points: dict[str, Any] = {"margin": -0.005}  # less than splits differ by
    seconds = {"scale": 1.0, "unit": "CPU seconds a classifier"}
    columns = [
        ("accuracy_test", ("no less accurate", "less accurate"), 1, points),
        ("violation_test", ("no further from equal rates", "further from them"), -1, points),
        ("cpu_seconds", ("quicker to fit, once compiled,", "slower"), -1, seconds),
    ]
    more = {
        "at": ("family", "slack"),
        "level": lambda v: v.replace("_", " ") if isinstance(v, str) else f"slack {said(v)}",
    }
    there = {"linear", PEER} <= set(study.values(records, "method"))
    return [study.Claim("linear", PEER, *c, **kind, **more) for *c, kind in columns if there]


def tell(this: study.Run) -> None:
    """The page."""
    records, slacks = this.records, this.settings["slacks"]
    family = report.Name("family", say=lambda f: f.replace("_", " "))
    method = report.Name("method", order=METHODS)
    names = [family, report.Name("slack", say=said), method]
    measures = ("accuracy_test", "violation_test", "accuracy_train", "violation_train")
    columns = {
        **{name.replace("_", ", "): report.in_points(name) for name in measures},
        "met": lambda rows: f"{sum(r['feasible'] for r in rows)}/{len(rows)}",
        "mixed": report.number("mixed", ".1f"),
        "chosen on": lambda rows: rows[0]["chosen_on"],
    }
    times = {
        "CPU seconds": report.number("cpu_seconds", ",.0f", of=np.sum),
        "compiling": report.number("compile_cpu_seconds", ",.0f", of=np.sum),
    }
    compared = {"accuracy": "accuracy_test", "violation": "violation_test"}
    paired = report.paired_table(records, names, compared, peers=lambda method: [PEER])
    families = {f: study.chosen(records, family=f) for f in study.values(records, "family")}
    both = ("violation_test", "accuracy_test")
    panels = {family.say(f): report.pairs(m, *both, along="slack") for f, m in families.items()}
    drawn = figures.frontier(
        panels, x="violation on test (points)", y="accuracy on test (%)", bounds=slacks, hollow=True
    )
    there = {*families, *study.values(records, "method")}
    bounded = [r for r in records if r["slack"] < FREE]
    summary = (
        f"Classifiers were trained on {len(study.values(records, 'seed'))} splits of UCI Adult, the same for all "
        f"methods. Groups ({' x '.join(this.settings['groups'])}) may differ from everybody's rate by at most "
        f"{', '.join(map(said, slacks))} points, the slack."
    )
    report.study(
        this,
        prog="experiments.fair_classification",
        title="Equal treatment under a bound",
        subtitle="jaxfair next to fairlearn on UCI Adult",
        found=[summary, *(study.judge(bounded, claim) for claim in claims(records))],
        drawn=[report.Drawn(
            "frontier", drawn,
            "From the tightest slack to the loosest, and on to no constraint at all (hollow). Dotted: the slacks. Up "
            "and left is better. Bars are 95 % intervals over splits, which differ more than the methods do: these are "
            "compared split by split in the second table.",
            alt="accuracy against the largest violation on test; the numbers are in the table",
        )],
        shown=[
            report.Shown(
                "table", report.table(records, names, columns), "Every method at every slack.",
                "In points; mean and half-width of the 95 % t interval over splits. Violation: the largest difference "
                "of a group's rate from everybody's. Met: in how many splits the slack is kept where the mixture was "
                "chosen (both: accuracy on validation, rates on training and validation). Mixed: how many predictors "
                "the randomised classifier draws from.",
                numbers=pd.DataFrame(records), title="in points, mean ± 95 % over splits",
            ),
            report.Shown(
                "paired", paired, "Paired differences on the same splits, in points.",
                "An interval without 0 is a difference. More accuracy is better, less violation is better; read both.",
            ),
            report.Shown(
                "time", report.table(records, [family, method], times), "What fitting all of a family took.",
                "Of all threads, without predicting. Ours are with all candidate step sizes and the choice of the "
                "mixtures. fairlearn's learners run on one thread, their fastest here.", title="what fitting took",
            ),
        ],
        done=[f"{name}: {words}." for name, words in IN_WORDS.items() if name in there],
        paragraphs=(__doc__ or "").replace("`", "").split("\n\n")[3:5],
    )  # fmt: skip


main = flags.entry(run, Config, prog="fair_classification")


if __name__ == "__main__":
    main()
