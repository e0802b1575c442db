"""Laws of states: whatever the library makes may be given away to the step that follows, and what it was given stays.

Two things make ``donate_argnums`` fail: a fresh state in which two arrays share memory, and one that holds an array of
somebody else, such as a key, which is then gone when a second state is made.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_optim import SMALL, TABLE, small

from jaxfair import bilevel, constraints, metrics, optim, robust, sparsity, train
from jaxfair.constraints import penalties, rates
from jaxfair.typing import Batch, Split

KEY = jax.random.key(5)
G, N = 3, 12
RNG = np.random.default_rng(0)


def apply(params, state, x, *, train, key=None):
    return x @ params["kernel"], {"seen": state["seen"] + x.sum()}


SPLIT = Batch(
    jnp.asarray(RNG.normal(size=(N, 4)), jnp.float32),
    jnp.asarray(RNG.integers(2, size=N), jnp.int32),
    jnp.arange(N, dtype=jnp.int32) % G,
    jnp.arange(N, dtype=jnp.int32),
    jnp.ones(N),
)
WEIGHTS = {"kernel": jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32)}
STATE = {"seen": jnp.zeros(())}
OUTCOMES = constraints.Outcomes(jnp.ones(N), jnp.zeros(N))


class Case(NamedTuple):
    """``given``: all arrays that ``init`` sees; ``init() -> state`` and ``step(state) -> state``."""

    given: Any
    init: Any
    step: Any


def of_optimizer(tx, params, oracles=None, given=()):
    """The state alone is given away: the parameters are somebody's."""
    oracles = {} if oracles is None else oracles

    def step(state):
        grads = oracles["operator_fn"](params) if oracles else jax.tree.map(jnp.ones_like, params)
        extra = {"field": grads, **oracles} if oracles else {}
        return optax.with_extra_args_support(tx).update(grads, state, params, **extra)[1]

    return Case((params, given), lambda: tx.init(params), step)


OPTIMIZERS = {name: lambda entry=entry: of_optimizer(entry.make(0.1), small(), SMALL) for name, entry in TABLE.items()}

BEGUN = {"begin": 1, "end": 6, "every": 2}
ALL = {"prunable": lambda path: True}
RISING, STEADY = sparsity.polynomial(0.5, **BEGUN), sparsity.periodic(0.5, end=8, every=2)
MOVED = sparsity.Score(value=lambda w, g, m: jnp.abs(w - m), init=lambda w, position: w)
PRUNERS = {
    "prune": lambda: sparsity.prune(optax.adam(0.1), RISING, **ALL),
    "prune at once": lambda: sparsity.prune(optax.sgd(0.1), sparsity.constant(0.5), **ALL),
    "prune by movement": lambda: sparsity.prune(optax.sgd(0.1, momentum=0.9), RISING, score=sparsity.movement(), **ALL),
    "prune at random": lambda: sparsity.prune(optax.sgd(0.1), RISING, score=sparsity.random(KEY), **ALL),
    "prune by where it began": lambda: sparsity.prune(optax.sgd(0.1), RISING, score=MOVED, **ALL),
    "rigl": lambda: sparsity.rigl(optax.sgd(0.1), STEADY, key=KEY, **ALL),
    "set": lambda: sparsity.set_(optax.sgd(0.1), STEADY, key=KEY, **ALL),
    "straight_through": lambda: sparsity.straight_through(optax.sgd(0.1), STEADY, **ALL),
}


def of_solver(problem, told=(), **options):
    solver = constraints.solver(problem, **{"primal": optax.sgd(0.1), "dual": optax.sgd(0.1)} | options)

    def init():
        return solver.init(WEIGHTS, problem.init(STATE, OUTCOMES, SPLIT, **dict(told)))

    return Case((WEIGHTS, STATE, OUTCOMES, SPLIT), init, lambda state: solver.step(state, SPLIT, KEY)[0])


def of_formulation(make, **options):
    problem = constraints.accuracy_gap(apply, num_groups=G, tolerance=0.01)
    return of_solver(problem, formulation=make, **options)


def pair(problem):
    both = constraints.held_out(problem, problem)
    solver = constraints.solver(both, primal=optax.sgd(0.1), dual=optax.sgd(0.1))

    def init():
        return solver.init(WEIGHTS, both.init(STATE, (OUTCOMES, OUTCOMES), (SPLIT, SPLIT)))

    return Case((WEIGHTS, STATE, OUTCOMES), init, lambda state: solver.step(state, (SPLIT, SPLIT), KEY)[0])


def of_space(space, given=(), **fields):
    def evaluate(params, carry, batch, key):
        v = params[:3]
        return constraints.Evaluation(jnp.sum(params**2), v, v, **fields)

    solver = constraints.solver(evaluate, multipliers=space, primal=optax.sgd(0.1), dual=optax.adam(0.1))
    params = jnp.ones(4)
    return Case((params, given), lambda: solver.init(params), lambda state: solver.step(state)[0])


GROUPS = {"num_groups": G}
BOUNDS = [*rates.equalized_odds(0.05, num_groups=G), rates.error() <= 0.5]
START, FEATURES = jnp.ones(3), jnp.eye(3)
C = constraints
CONSTRAINTS = {
    "unconstrained": lambda: of_solver(C.unconstrained(apply, **GROUPS)),
    "excess_accuracy_gap": lambda: of_solver(C.excess_accuracy_gap(apply, tolerance=0.01, **GROUPS)),
    "accuracy_gap": lambda: of_solver(C.accuracy_gap(apply, tolerance=0.01, **GROUPS)),
    "equalized_loss": lambda: of_solver(C.equalized_loss(apply, **GROUPS)),
    "churn": lambda: of_solver(C.churn(apply, limit=0.01, **GROUPS), told={"prediction": SPLIT.y}),
    "published": lambda: of_solver(C.published_excess_accuracy_gap(apply, tolerance=0.01, **GROUPS)),
    "two_sided": lambda: of_solver(C.two_sided(C.excess_accuracy_gap(apply, tolerance=0.01, **GROUPS))),
    "held_out": lambda: pair(C.excess_accuracy_gap(apply, tolerance=0.01, **GROUPS)),
    "rates": lambda: of_solver(rates.problem(apply, BOUNDS, num_classes=2, **GROUPS)),
    "rates of batches": lambda: of_solver(rates.problem(apply, BOUNDS, num_classes=2, memory="batch", **GROUPS)),
    "minibatch": lambda: of_solver(C.accuracy_gap(apply, tolerance=0.01, memory=C.minibatch(G), **GROUPS)),
    "joint": lambda: of_solver(C.accuracy_gap(apply, tolerance=0.01, **GROUPS), primal=None, dual=None,
                               joint=optim.extragradient(0.1)),
    "parameters in the optimizer": lambda: of_solver(
        C.accuracy_gap(apply, tolerance=0.01, **GROUPS), primal=optax.contrib.schedule_free_sgd(0.1)
    ),
    "nupi": lambda: of_solver(C.accuracy_gap(apply, tolerance=0.01, **GROUPS), dual=optim.nupi(0.1, decay=0.5)),
    "augmented": lambda: of_formulation(C.augmented_lagrangian(1.0)),
    "multiplicative": lambda: of_formulation(C.augmented_lagrangian(penalties.multiplicative(1.0, restart=True))),
    "additive": lambda: of_formulation(C.quadratic_penalty(penalties.additive(jnp.ones(G)))),
    "by_feasibility": lambda: of_formulation(C.quadratic_penalty(penalties.by_feasibility(1.0, every=1))),
    "dense": lambda: of_space(C.dense(3, initial=START), START),
    "indexed": lambda: of_space(C.indexed(3, initial=START), START, index=jnp.arange(3)),
    "implicit": lambda: of_space(C.implicit(lambda: START, lambda w, f: f @ w), START, features=FEATURES),
    "extragradient": lambda: of_solver(C.accuracy_gap(apply, tolerance=0.01, **GROUPS), order="extragradient"),
}  # fmt: skip

MEMORIES = {
    "memory: minibatch": C.minibatch(G),
    "memory: replay_buffer": C.replay_buffer(G, 2),
    "memory: exponential_average": C.exponential_average(G),
    "memory: example_memory": C.example_memory(G),
    "memory: unweighted": C.unweighted(C.example_memory(G)),
}


def of_memory(memory):
    given = SPLIT.group, OUTCOMES.correct, SPLIT.weight
    return Case(given, lambda: memory.init(*given), lambda state: memory.push(state, SPLIT, OUTCOMES.loss))


def of_training(tx, **options):
    solver = train.descent(apply, tx)
    meter = train.group_meter(G)
    step = train.make_step(solver.step, meter=meter, **options)

    def init():
        begun = solver.init(WEIGHTS, STATE)
        return train.init_state(begun, meter, average=bool(options), kept=WEIGHTS, settings=START)

    return Case((WEIGHTS, STATE, START), init, lambda state: step(state, SPLIT, KEY))


def of_descent(tx):
    solver = train.descent(apply, tx)
    return Case((WEIGHTS, STATE), lambda: solver.init(WEIGHTS, STATE), lambda s: solver.step(s, SPLIT, KEY)[0])


TRAINING = {
    "descent": lambda: of_descent(optax.adam(0.1)),
    "descent, schedule-free": lambda: of_descent(optax.contrib.schedule_free_sgd(0.1)),
    "descent of a pruner": lambda: of_descent(PRUNERS["prune"]()),
    "train state": lambda: of_training(optax.adam(0.1)),
    "train state with an average": lambda: of_training(optax.adam(0.1), average_from=0, average_decay=0.5),
}


def of_coreset(make, begin):
    solver = make(lambda weight, key: {"mean": jnp.sum(weight)}, lambda params: params["mean"] ** 2, num_examples=N)
    return Case((begin,), lambda: solver.init(KEY, begin), lambda state: solver.step(state, None, KEY)[0])


FEW, SHARES = jnp.arange(N) < 4, jnp.linspace(0.1, 0.9, N)
CORESETS = {
    "swap": lambda: of_coreset(partial(bilevel.coreset, start=4), FEW),
    "flow": lambda: of_coreset(partial(bilevel.coreset, start=4, proposal=bilevel.flow()), FEW),
    "relaxed": lambda: of_coreset(partial(bilevel.relaxed_coreset, size=4), SHARES),
}


def of_selmix():
    """A network that is all head."""
    split = Split(lambda params, state, x, **_: (x, state), lambda params, z: z @ params["kernel"], lambda path: True)
    solver = robust.selmix(split, metrics.min_recall, optax.adam(0.1), SPLIT, batch_size=4)
    step = partial(solver.step, batch=SPLIT, key=KEY)
    return Case((WEIGHTS, STATE, SPLIT), lambda: solver.init(WEIGHTS, STATE, SPLIT), lambda state: step(state)[0])


STATES = {
    "robust: selmix": of_selmix,
    **{f"optim: {name}": make for name, make in OPTIMIZERS.items()},
    **{f"sparsity: {name}": lambda make=make: of_optimizer(make(), WEIGHTS) for name, make in PRUNERS.items()},
    **{f"constraints: {name}": make for name, make in CONSTRAINTS.items()},
    **{name: lambda memory=memory: of_memory(memory) for name, memory in MEMORIES.items()},
    **{f"train: {name}": make for name, make in TRAINING.items()},
    **{f"coreset: {name}": make for name, make in CORESETS.items()},
}


def places(tree):
    """Where the arrays are; empty ones are nowhere."""
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array) and x.size]
    data = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    return [x.unsafe_buffer_pointer() for x in data]


@pytest.mark.parametrize("name", STATES)
@pytest.mark.slow
def test_a_state_may_be_given_away_twice_and_made_again(name):
    given, init, step = STATES[name]()
    donated = jax.jit(step, donate_argnums=0)
    for _ in "ab":
        state = init()
        at = places(state)
        assert len(at) == len(set(at))
        assert not set(at) & set(places((given, KEY)))
        for _ in range(3):
            state = donated(state)
    for leaf in jax.tree.leaves((given, state, KEY)):
        assert not (isinstance(leaf, jax.Array) and leaf.is_deleted())
