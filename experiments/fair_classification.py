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

- The reduction fits *reweighted* cross entropy. So does ours with ``proxy="cost"``, see :func:`cost_proxy`: log-odds
  that were linear stay linear whatever the multipliers. A sigmoid in place of the rate bends them.
- It is trained on the full batch, preconditioned by a bound on the curvature, to the optimum of the same objective,
  scikit-learn's L2 penalty included (:func:`precondition`). About 50 steps get there.
- Each constraint is scaled by the root of the share of people it speaks of, so that one step size suits a rate of all
  men and one of the few women who earn more.

It writes `runs/fair_classification/<id>/`: config.json, records.jsonl (one line per classifier; the same command goes
on where a killed run stopped), tables, a figure, report.html. On two free cores the linear model takes a minute, the
MLP and `eg_logistic` two each, and `eg_boosting` half an hour: `--methods linear,mlp,eg_logistic` leaves it for later.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app

from experiments import fair_classification_report, flags, runs
from jaxfair import constraints, data, models, train
from jaxfair.constraints import rates
from jaxfair.study import records as records_lib
from jaxfair.typing import Batch

FAMILIES = {"demographic_parity": rates.demographic_parity, "equalized_odds": rates.equalized_odds}
#: Ours, and fairlearn's reduction around a learner of scikit-learn.
OURS = ("linear", "mlp")
THEIRS = ("eg_logistic", "eg_boosting")
#: Stands for a classifier without constraints. Two rates differ by at most 1, so a slack of 1 is none.
FREE = float("inf")
NUM_CLASSES = 2
PROXIES = ("cost", "sigmoid", "hinge", "logistic")
CHOSEN_ON = ("train", "validation", "both")


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
    # linear: how many times it is kept as a candidate
    linear_rounds: int = 30
    # linear: steps on the full batch before each of these
    linear_steps: int = 4
    # linear: step sizes of the multipliers, side by side; what is delivered is mixed from the candidates of all
    linear_dual_rates: tuple[float, ...] = flags.items((1.0, 3.0), float)
    # linear: what stands in for a rate where it is differentiated: cost, sigmoid, hinge or logistic
    linear_proxy: str = "cost"
    # linear: where the mixture is chosen: train, validation, or both, which is accuracy on validation and rates on both
    linear_chosen_on: str = "train"
    # mlp: epochs; it is kept as a candidate after each
    mlp_epochs: int = 12
    # mlp: examples a step
    mlp_batch_size: int = 512
    # mlp: of Adam, falling to 0 along a cosine
    mlp_learning_rate: float = 0.003
    # mlp: weight_decay / 2 * |weights|^2 is added to the loss
    mlp_weight_decay: float = 0.0
    # mlp: as of linear
    mlp_dual_rates: tuple[float, ...] = flags.items((0.03, 0.1, 0.3, 1.0), float)
    # mlp: as of linear
    mlp_proxy: str = "sigmoid"
    # mlp: as of linear
    mlp_chosen_on: str = "both"
    # mlp: widths of the hidden layers
    mlp_hidden: tuple[int, ...] = flags.items((64, 64), int)
    # fairlearn: most rounds of the reduction, 50 in fairlearn too; it stops earlier where it has converged
    eg_rounds: int = 50
    # the run goes into a folder in here
    runs_dir: str = "runs/fair_classification"
    # name of that folder; a hash of the settings by default
    id: str = ""


def check(config: Config) -> None:
    """Raises UsageError for what can be known to be wrong before anything is loaded."""
    for flag, allowed in {"families": tuple(FAMILIES), "methods": OURS + THEIRS}.items():
        for name in getattr(config, flag):
            if name not in allowed:
                raise runs.UsageError(
                    f"--{flag}: there is no {name!r}; choose from {', '.join(allowed)}"
                )
    rates_of = ("linear_dual_rates", "mlp_dual_rates")
    for flag in ("families", "methods", "slacks", *rates_of):
        if not getattr(config, flag):
            raise runs.UsageError(f"--{flag}: give at least one")
    for flag in ("slacks", *rates_of):
        if min(getattr(config, flag)) <= 0:
            raise runs.UsageError(f"--{flag}={min(getattr(config, flag))}: give numbers above 0")
    counts = ("seeds", "linear_rounds", "linear_steps", "mlp_epochs", "mlp_batch_size", "eg_rounds")
    for flag in counts:
        if getattr(config, flag) < 1:
            raise runs.UsageError(f"--{flag}={getattr(config, flag)}: give a number of at least 1")
    for flag, allowed in {"proxy": PROXIES, "chosen_on": CHOSEN_ON}.items():
        for method in OURS:
            value = getattr(config, f"{method}_{flag}")
            if value not in allowed:
                raise runs.UsageError(
                    f"--{method}_{flag}={value}: choose from {', '.join(allowed)}"
                )
    if config.mlp_learning_rate <= 0 or config.mlp_weight_decay < 0:
        raise runs.UsageError(
            f"--mlp_learning_rate={config.mlp_learning_rate}, --mlp_weight_decay={config.mlp_weight_decay}: "
            "give a learning rate above 0, and a decay of at least 0"
        )
    if config.max_train and config.max_train < config.mlp_batch_size:
        raise runs.UsageError(
            f"--max_train={config.max_train}: give 0 or at least --mlp_batch_size"
        )


class Splits(NamedTuple):
    """One split of the data.

    Attributes:
      train: on which weights and multipliers are trained.
      validation: by which the MLP's mixture is chosen.
      test: on which everything is measured.
      num_groups: G.
    """

    train: Batch
    validation: Batch
    test: Batch
    num_groups: int


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
    probability: Callable[[np.ndarray], np.ndarray], split: Splits, family: str
) -> dict[str, float]:
    """Accuracy and violation on all three splits, of a function from features to probabilities."""
    found = {}
    for name in ("train", "validation", "test"):
        batch = getattr(split, name)
        values = expected(probability(np.asarray(batch.x)), batch, family, split.num_groups)
        found |= {f"{key}_{name}": value for key, value in values.items()}
    return found


# --- ours ----------------------------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """How one of our models is trained.

    Attributes:
      hidden: widths of its hidden layers.
      proxy: one of PROXIES.
      dual_rates: D of them.
      rounds: E, after each of which it is kept as a candidate.
      steps: in each round.
      batch_size: 0 for the whole split.
      learning_rate: of the preconditioned descent on the whole split, or of Adam on batches.
      weight_decay: of the weights, not of the biases.
      chosen_on: one of CHOSEN_ON.
    """

    hidden: tuple[int, ...]
    proxy: str
    dual_rates: tuple[float, ...]
    rounds: int
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    chosen_on: str


def recipe(config: Config, method: str, size: int) -> Recipe:
    """The recipe of a method, for a training split of this size."""
    if method == "linear":
        return Recipe(
            hidden=(),
            proxy=config.linear_proxy,
            dual_rates=config.linear_dual_rates,
            rounds=config.linear_rounds,
            steps=config.linear_steps,
            batch_size=0,
            learning_rate=0.5,
            # scikit-learn's penalty |w|^2 / 2 beside a sum of N losses, for the difference of the two logits' weights.
            weight_decay=2.0 / size,
            chosen_on=config.linear_chosen_on,
        )
    return Recipe(
        hidden=config.mlp_hidden,
        proxy=config.mlp_proxy,
        dual_rates=config.mlp_dual_rates,
        rounds=config.mlp_epochs,
        steps=max(1, size // config.mlp_batch_size),
        batch_size=config.mlp_batch_size,
        learning_rate=config.mlp_learning_rate,
        weight_decay=config.mlp_weight_decay,
        chosen_on=config.mlp_chosen_on,
    )


def conditions(split: Batch, family: str, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """``[2, K, N]`` bool: the people whose rate a constraint bounds, and those it is compared with; ``[K]`` its sign.

    In the order of the families of `rates`: groups above everybody, then groups below.
    """
    y, group = np.asarray(split.y), np.asarray(split.group)
    labels = {"demographic_parity": [y >= 0], "equalized_odds": [y == 1, y == 0]}[family]
    people, sign = [], []
    for among in labels:
        for direction in (1.0, -1.0):
            for g in range(num_groups):
                people.append((among & (group == g), among))
                sign.append(direction)
    return np.array(people).swapaxes(0, 1), np.array(sign)


def influence(split: Batch, family: str, num_groups: int) -> np.ndarray:
    """``[K, N]``: what predicting 1 for a person adds to each constraint; all together they are its value."""
    (members, everybody), sign = conditions(split, family, num_groups)

    def share(people: np.ndarray) -> np.ndarray:
        return people / np.maximum(people.sum(axis=1, keepdims=True), 1)

    return (sign[:, None] * (share(members) - share(everybody))).astype(np.float32)


def cost_proxy(logits: jax.Array, y: jax.Array, influence: jax.Array) -> jax.Array:
    r"""``[K]``: constraints with cross entropies in place of mistakes, which is what a reduction minimises.

    Whether a person is predicted 1 is :math:`y + (1 - 2 y) [\text{wrong}]`. Where *wrong* is counted by the cross
    entropy, the Lagrangian is cross entropy with other weights: a person's is :math:`1/N + (1 - 2 y) \sum_k \lambda_k
    a_k` with the influences a. Its optimum for known probabilities moves their log-odds by a constant per group
    and label, so a logistic model that was right stays right; with a sigmoid it does not.

    Args:
      logits: ``[B, 2]``.
      y: ``[B]``.
      influence: ``[K, B]``.
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return influence @ jnp.where(y == 1, 1.0 - loss, loss)


def curvature(x: np.ndarray, weight_decay: float) -> np.ndarray:
    """``[F + 1, F + 1]``: the inverse of a bound on the Hessian of penalised cross entropy, intercept last.

    No probability has a variance above 1/4, so the Hessian of each of the two logits is at most half of the second
    moments of the features, plus the penalty.
    """
    features = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64)
    bound = 0.5 * features.T @ features / len(x)
    # The intercept bears no penalty; the little that is added makes the bound invertible where the indicators of an
    # attribute add up to the intercept.
    return np.linalg.inv(bound + weight_decay * np.eye(len(bound))).astype(np.float32)


def precondition(inverse: jax.Array) -> optax.GradientTransformation:
    """Multiplies the gradient of the linear layer, kernel and bias, by this matrix."""

    def update(updates: Any, params: Any = None) -> Any:
        del params
        (name,) = updates
        kernel, bias = updates[name]["kernel"], updates[name]["bias"]
        moved = inverse @ jnp.concatenate([kernel, bias[None]])
        return {name: {"kernel": moved[:-1], "bias": moved[-1]}}

    return optax.stateless(update)


def judge(split: Splits, chosen_on: str) -> Batch:
    """The people by whom candidates are judged: rates by all of them, accuracy by those whose weight is 1.

    For equalised odds there are about a hundred women who earn more in the validation split: too few to know their
    rate by. Accuracy is known well enough there, and on the training split it flatters.
    """
    if chosen_on != "both":
        return getattr(split, chosen_on)
    batches = split.train._replace(weight=np.zeros(len(split.train.y))), split.validation
    return jax.tree.map(lambda *a: np.concatenate([np.asarray(v) for v in a]), *batches)


class Frontier(NamedTuple):
    """What the training of one method under one family of constraints leaves: ``[S, H, D, E]`` candidates.

    S splits, H slacks, D step sizes of the multipliers, E rounds.

    Attributes:
      params: of each candidate.
      error: of each, among those who judge it.
      gaps: ``[S, H, D, E, K]``, its constraints among them, without the slack.
      seconds: of training, by the clock.
      cpu_seconds: of training, all threads together.
      compile_seconds: before that, by the clock.
      compile_cpu_seconds: before that, all threads together.
    """

    params: Any
    error: np.ndarray
    gaps: np.ndarray
    seconds: float
    cpu_seconds: float
    compile_seconds: float
    compile_cpu_seconds: float


def train_frontier(how: Recipe, family: str, splits: Sequence[Splits], slacks: Any) -> Frontier:
    """Splits x slacks x step sizes of the multipliers, all of them lanes of one program."""
    began, cpu_began = time.perf_counter(), time.process_time()
    num_groups, size = splits[0].num_groups, len(splits[0].train.y)
    full = not how.batch_size
    bounds = FAMILIES[family](0.0, num_groups=num_groups)
    sizes = {"num_groups": num_groups, "num_classes": NUM_CLASSES}
    model = models.mlp(NUM_CLASSES, hidden=how.hidden)
    problem = rates.problem(
        model.apply,
        bounds,
        **sizes,
        proxy="sigmoid" if how.proxy == "cost" else how.proxy,
        memory="batch" if full else "examples",
        weight_decay=how.weight_decay,
        decayed=lambda path: path.endswith("kernel"),
    )

    class Lane(NamedTuple):
        """What a lane knows beside the weights; the slack is data, so that all slacks are one program."""

        slack: Any
        scale: Any
        influence: Any

    def evaluate(params: Any, carry: Any, batch: Batch, key: Any) -> constraints.Evaluation:
        inner, lane = carry
        found = problem.evaluate(params, inner, batch, key)
        proxy = found.proxy
        if how.proxy == "cost":
            logits, _ = model.apply(params, inner.model_state, batch.x, train=True, key=key)
            # On a batch the sum over people is estimated by as many times that of the batch.
            here = lane.influence[:, batch.index] * (size / len(batch.y))
            proxy = cost_proxy(logits, batch.y, lane.influence if full else here)
        return found._replace(
            proxy=lane.scale * proxy,
            strict=lane.scale * (found.strict - lane.slack),
            carry=(found.carry, lane),
        )

    def lane(split: Batch, judges: Batch, known: Any, key: Any, slack: Any, dual_rate: Any) -> Any:
        if full:
            primal = optax.chain(
                precondition(known["inverse"]), optax.sgd(how.learning_rate, 0.9, nesterov=True)
            )
        else:
            primal = optax.adam(
                optax.cosine_decay_schedule(how.learning_rate, how.rounds * how.steps)
            )
        solver = constraints.solver(
            evaluate,
            multipliers=constraints.dense(problem.num_constraints),
            primal=primal,
            dual=optax.sgd(dual_rate),
        )
        start, batches = jax.random.split(key)
        params, model_state = model.init(start, split.x[:1])
        if full:
            params = jax.tree.map(jnp.zeros_like, params)  # the problem is convex
        carry = Lane(slack, known["scale"], known["influence"])
        state = solver.init(params, (problem.init(model_state, None, split), carry))

        def one(state: Any, number: jax.Array) -> Any:
            if full:
                state, _ = jax.lax.scan(
                    lambda state, _: (solver.step(state, split)[0], None), state, length=how.steps
                )
            else:
                order = train.epoch_order(
                    batches, number, num_examples=size, batch_size=how.batch_size, num_steps=how.steps
                )  # fmt: skip
                state, _ = jax.lax.scan(
                    lambda state, index: (
                        solver.step(state, jax.tree.map(lambda a: a[index], split))[0],
                        None,
                    ),
                    state,
                    order,
                )
            logits = model.apply(state.params, model_state, judges.x, train=False)[0]
            prediction = logits.argmax(axis=-1).astype(jnp.int32)
            measured = rates.measure(bounds, prediction, judges.y, judges.group, **sizes)
            error = jnp.sum(judges.weight * (prediction != judges.y)) / jnp.sum(judges.weight)
            return state, (state.params, error, measured.value)

        return jax.lax.scan(one, state, jnp.arange(how.rounds))[1]

    lanes = jax.vmap(lane, in_axes=(None, None, None, None, None, 0))
    lanes = jax.vmap(lanes, in_axes=(None, None, None, None, 0, None))
    lanes = jax.jit(jax.vmap(lanes, in_axes=(0, 0, 0, 0, None, None)))

    def stack(*of: Any) -> Any:
        return jax.tree.map(lambda *a: jnp.stack([jnp.asarray(v) for v in a]), *of)

    def known(split: Batch) -> dict[str, np.ndarray]:
        (members, _), _ = conditions(split, family, num_groups)
        found = {"scale": np.sqrt(members.mean(axis=1)).astype(np.float32)}
        if how.proxy == "cost":
            found["influence"] = influence(split, family, num_groups)
        else:
            found["influence"] = np.zeros((0, size), np.float32)
        if full:
            found["inverse"] = curvature(np.asarray(split.x), how.weight_decay)
        return found

    def arguments() -> tuple[Any, ...]:
        return (
            stack(*[s.train for s in splits]),
            stack(*[judge(s, how.chosen_on) for s in splits]),
            stack(*[known(s.train) for s in splits]),
            jax.vmap(jax.random.key)(jnp.arange(len(splits))),
            jnp.minimum(jnp.asarray(slacks), 1.0),
            jnp.asarray(how.dual_rates),
        )

    compiled = lanes.lower(*arguments()).compile()
    ready, cpu = time.perf_counter(), time.process_time()
    params, error, gaps = jax.tree.map(np.asarray, compiled(*arguments()))
    return Frontier(
        params,
        error,
        gaps,
        seconds=time.perf_counter() - ready,
        cpu_seconds=time.process_time() - cpu,
        compile_seconds=ready - began,
        compile_cpu_seconds=cpu - cpu_began,
    )


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


def run_ours(
    config: Config, method: str, family: str, splits: Sequence[Splits]
) -> Iterator[dict[str, Any]]:
    """The records of a method under a family of constraints, one per slack and split."""
    slacks = (*config.slacks, FREE)
    how = recipe(config, method, len(splits[0].train.y))
    frontier = train_frontier(how, family, splits, slacks)
    began, cpu = time.perf_counter(), time.process_time()
    chosen = {
        (s, h): choose(frontier, s, slack)
        for h, slack in enumerate(slacks)
        for s in range(len(splits))
    }
    # The lanes run together: every classifier gets the same share of what all of them took, the choice included.
    spent = {
        "seconds": frontier.seconds + time.perf_counter() - began,
        "cpu_seconds": frontier.cpu_seconds + time.process_time() - cpu,
        "compile_seconds": frontier.compile_seconds,
        "compile_cpu_seconds": frontier.compile_cpu_seconds,
    }
    spent = {name: value / len(chosen) for name, value in spent.items()}
    model = models.mlp(NUM_CLASSES, hidden=how.hidden)
    for (s, h), (mixture, params) in chosen.items():
        members = [jax.tree.map(lambda a, m=m: a[m], params) for m in range(len(mixture.iterates))]

        def probability(x: Any, members: Any = members, mixture: Any = mixture) -> np.ndarray:
            votes = [model.apply(p, {}, jnp.asarray(x), train=False)[0].argmax(-1) for p in members]
            return mixture.probabilities @ np.array(votes, float)

        record = cell(method, family, slacks[h], s)
        record |= {"feasible": mixture.feasible, "mixed": len(members), "chosen_on": how.chosen_on}
        yield record | spent | measured(probability, splits[s], family)


# --- theirs --------------------------------------------------------------------------------------------------------


def run_theirs(
    method: str, family: str, slack: float, seed: int, split: Splits, rounds: int
) -> dict[str, Any]:
    """The record of one fairlearn classifier, with fairlearn's and scikit-learn's own defaults."""
    from fairlearn import reductions
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    learner = {
        "eg_logistic": lambda: LogisticRegression(max_iter=1000),
        "eg_boosting": lambda: HistGradientBoostingClassifier(random_state=0),
    }[method]()
    bound = {
        "demographic_parity": reductions.DemographicParity,
        "equalized_odds": reductions.EqualizedOdds,
    }[family]
    x, y, group = (np.asarray(a) for a in (split.train.x, split.train.y, split.train.group))
    record = cell(method, family, slack, seed) | {"chosen_on": "train"}
    # One thread: on problems of this size more of them wait for each other, and on a busy machine for ever.
    with threadpool_limits(1):
        began, cpu = time.perf_counter(), time.process_time()
        if np.isinf(slack):
            learner.fit(x, y)
            record |= {"mixed": 1, "calls": 1}

            def probability(x: np.ndarray) -> np.ndarray:
                return learner.predict(x).astype(float)
        else:
            reduction = reductions.ExponentiatedGradient(
                learner, bound(difference_bound=slack), max_iter=rounds
            )
            reduction.fit(x, y, sensitive_features=group)
            mixed = int((np.asarray(reduction.weights_) > 0).sum())
            record |= {"mixed": mixed, "calls": int(reduction.n_oracle_calls_)}

            def probability(x: np.ndarray) -> np.ndarray:
                # What its `predict` draws from; there is no public way to the probabilities.
                return np.asarray(reduction._pmf_predict(x))[:, 1]

        record |= {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
            "compile_seconds": 0.0,
            "compile_cpu_seconds": 0.0,
        }
        record |= measured(probability, split, family)
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
    with runs.opened(config, settings, 10_000_000) as folder:
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
                        record = run_theirs(
                            method, family, slack, seed, splits[seed], config.eg_rounds
                        )
                        records_lib.append(log, record)
                        say(record)
        fair_classification_report.write(folder, settings, records_lib.read(log))


main = runs.entry(run, "fair_classification")


if __name__ == "__main__":
    app.run(main, flags_parser=flags.parser(Config, prog="fair_classification"))
