"""Laws of min-max optimizers: one table x properties. A new optimizer is a line in the table.

Most laws are checked by tracing alone, which compiles nothing.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import optim
from jaxfair.optim.numbers import Rate

RNG = np.random.default_rng(7)
SHAPES = {"x": {"bias": (2,), "kernel": (2, 3)}, "y": {"a": (), "b": (4,)}}
is_shape = lambda s: isinstance(s, tuple)
START = jax.tree.map(lambda s: RNG.normal(size=s), SHAPES, is_leaf=is_shape)
SIZE = sum(leaf.size for leaf in jax.tree.leaves(START))
# Monotone: a symmetric positive part, and a skew part between the players. Two minibatches.
SKEW = np.triu(RNG.normal(size=(2, SIZE, SIZE)), 1) / 2
MATRIX = 0.3 * np.eye(SIZE) + SKEW - SKEW.transpose(0, 2, 1)


def make(dtype=jnp.float32):
    """The joint tree. With no dtype the leaves have four different ones."""
    tree = jax.tree.map(lambda w: jnp.asarray(w, dtype or jnp.float32), START)
    if dtype is None:
        tree["x"]["bias"] = tree["x"]["bias"].astype(jnp.bfloat16)
        tree["x"]["kernel"] = tree["x"]["kernel"].astype(jnp.float16)
        tree["y"]["a"] = tree["y"]["a"].astype(jnp.bfloat16)
    return tree


def field(i, w):
    """A linear field, each leaf in its own dtype."""
    leaves, treedef = jax.tree.flatten(w)
    dtype = jnp.result_type(*(leaf.dtype for leaf in leaves))
    flat = jnp.concatenate([leaf.astype(dtype).ravel() for leaf in leaves])
    flat = jnp.asarray(MATRIX[i], dtype) @ flat
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    pieces = jnp.split(flat, ends)
    return treedef.unflatten([p.reshape(leaf.shape).astype(leaf.dtype) for p, leaf in zip(pieces, leaves, strict=True)])


operator = lambda w: field(0, w)
independent = lambda w: field(1, w)


def mean(w):
    return jax.tree.map(lambda a, b: (a + b) / 2, operator(w), independent(w))


ORACLES = {
    "operator_fn": operator,
    "independent_operator_fn": independent,
    "mean_operator_fn": mean,
}


# A smaller tree and field, for the laws that compile.
COUPLING = RNG.normal(size=(2, 3, 3)).astype(np.float32)


def small():
    return {"x": jnp.asarray([0.7, -0.2, 1.1]), "y": jnp.asarray([-0.4, 0.9, 0.3])}


def small_field(i):
    return lambda w: {
        "x": 0.3 * w["x"] + COUPLING[i] @ w["y"],
        "y": 0.3 * w["y"] - COUPLING[i].T @ w["x"],
    }


SMALL = {
    "operator_fn": small_field(0),
    "independent_operator_fn": small_field(1),
    "mean_operator_fn": lambda w: jax.tree.map(lambda a, b: (a + b) / 2, small_field(0)(w), small_field(1)(w)),
}


class Entry(NamedTuple):
    factory: Callable[..., Any]
    options: dict[str, Any] = {}  # noqa: RUF012
    one_gradient: bool = False
    first_is_sgd: bool = False
    linear: bool = True  # defined on complex trees
    accumulates: bool = False  # takes accumulator_dtype
    periodic: bool = False
    parabola: Any = None  # the learning rate with which it solves it; None: not its business
    rosenbrock: Any = None

    def make(self, learning_rate, **more):
        return self.factory(learning_rate, **self.options, **more)


KEY = jax.random.key(3)


def lookahead(learning_rate, period, slow_rate=0.5, accumulator_dtype=None):
    options = {"period": period, "slow_rate": slow_rate, "accumulator_dtype": accumulator_dtype}
    return optim.lookahead(optax.sgd(learning_rate), **options)


def averaged(learning_rate, accumulator_dtype=None, **options):
    return optim.average_iterates(optim.omega(learning_rate), accumulator_dtype=accumulator_dtype, **options)


def sam(learning_rate, rho):
    return optax.chain(optim.scale_by_sam(rho), optim.scale_by_rate(learning_rate))


def asam(learning_rate, rho):
    return optax.chain(optim.scale_by_sam(rho, adaptive=True), optim.scale_by_rate(learning_rate))


def gcsam(learning_rate, rho, low, up):
    return optax.chain(optim.scale_by_gcsam(rho, low, up), optim.scale_by_rate(learning_rate))


def gcsam_of_all(learning_rate, rho, low, up):
    return optax.chain(optim.scale_by_gcsam(rho, low, up, per_tensor=False), optim.scale_by_rate(learning_rate))


PLAIN = {"one_gradient": True, "first_is_sgd": True, "accumulates": True}
SOLVES = {"parabola": 0.05, "rosenbrock": 5e-4}
TABLE = {
    "omega": Entry(optim.omega, **PLAIN, **SOLVES),
    "omegam": Entry(optim.omegam, **PLAIN, **SOLVES),
    "optimistic_gradient": Entry(optim.optimistic_gradient, **PLAIN, **SOLVES),
    "optimistic_adam": Entry(
        optim.optimistic_adam,
        one_gradient=True,
        accumulates=True,
        parabola=0.01,
        rosenbrock=1e-3,
    ),
    "nupi": Entry(optim.nupi, {"proportional": 3.0, "decay": 0.8}, **PLAIN, **SOLVES),
    "past_extragradient": Entry(optim.past_extragradient, {"extrapolation_rate": 5e-4}, **PLAIN, **SOLVES),
    "halpern": Entry(optim.halpern, one_gradient=True, parabola=0.2),
    "lookahead": Entry(
        lookahead,
        {"period": 2, "slow_rate": 0.5},
        **PLAIN,
        periodic=True,
        parabola=0.05,
        rosenbrock=1e-3,
    ),
    "lookahead of several": Entry(
        lambda learning_rate, period: optim.lookahead(optim.extragradient(learning_rate), period=period),
        {"period": 2},
        periodic=True,
    ),
    "average_iterates": Entry(
        lambda learning_rate, decay, accumulator_dtype=None: averaged(learning_rate, accumulator_dtype, decay=decay),
        {"decay": 0.9},
        **PLAIN,
    ),
    "average_iterates and jump": Entry(
        lambda learning_rate, period, accumulator_dtype=None: averaged(
            learning_rate, accumulator_dtype, period=period, jump=True
        ),
        {"period": 2},
        **PLAIN,
        periodic=True,
    ),
    "extragradient": Entry(optim.extragradient, **SOLVES),
    "extragradient, independent": Entry(
        functools.partial(optim.extragradient, samples="independent"),
        {"extrapolation_rate": 0.1},
    ),
    "anchored_extragradient": Entry(optim.anchored_extragradient, parabola=0.05),
    "anchored_extragradient, varying": Entry(optim.anchored_extragradient, {"lipschitz": 2.0}, parabola=0.3),
    "fast_extragradient": Entry(optim.fast_extragradient, {"comonotonicity": 0.01}, first_is_sgd=True, parabola=0.3),
    "svrg_extragradient": Entry(
        optim.svrg_extragradient,
        {"key": KEY, "snapshot_probability": 0.5},
        periodic=True,
        **SOLVES,
    ),
    "svrg_extragradient with restarts": Entry(
        functools.partial(optim.svrg_extragradient, samples="same"),
        {"key": KEY, "snapshot_probability": 0.5, "restart_probability": 0.5, "mean_cost": 2},
        periodic=True,
        parabola=0.05,
    ),
    "consensus": Entry(optim.consensus, {"regularization": 0.1}, linear=False, parabola=0.05),
    "consensus, independent": Entry(functools.partial(optim.consensus, samples="independent"), linear=False),
    "hamiltonian": Entry(optim.hamiltonian, linear=False, parabola=0.05),
    "symplectic_adjustment": Entry(optim.symplectic_adjustment, linear=False, **SOLVES),
    "competitive_gradient": Entry(optim.competitive_gradient, {"max_iterations": 7}, linear=False, **SOLVES),
    "sam": Entry(sam, {"rho": 0.01}, linear=False, parabola=0.05),
    "sam, adaptive": Entry(asam, {"rho": 0.01}, linear=False, parabola=0.05),
    "gcsam": Entry(gcsam, {"rho": 0.1, "low": 0.2, "up": 0.999}, linear=False),
    "gcsam of the whole": Entry(gcsam_of_all, {"rho": 0.01, "low": 0.5, "up": 0.8}, linear=False, parabola=0.05),
    "lead": Entry(optim.lead, {"coupling": 0.5, "momentum": 0.1}, first_is_sgd=True, **SOLVES),
}
each = pytest.mark.parametrize("name", TABLE)
SEVERAL = [name for name, entry in TABLE.items() if not entry.one_gradient]
LR = 0.125


def stepper(tx, oracles=ORACLES):
    """``(params, state) -> (params, state, updates)``, with an argument that nobody knows."""

    def step(params, state):
        grads = oracles["operator_fn"](params)
        updates, state = tx.update(grads, state, params, field=grads, **oracles, unknown=1)
        return optax.apply_updates(params, updates), state, updates

    return step


def run(tx, params, steps=3, oracles=ORACLES):
    """-> the updates of each step, the leaves ``[steps, ...]``, and the final state."""
    step = stepper(tx, oracles)

    def body(carry, _):
        params, state, updates = step(*carry)
        return (params, state), updates

    (_, state), path = lax.scan(body, (params, tx.init(params)), None, steps)
    return path, state


def types(tree):
    def of(a):
        return a.shape, a.dtype, getattr(a, "weak_type", False)

    return jax.tree.map(of, tree)


def assert_same(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(p.dtype, jax.dtypes.prng_key):
            p, q = jax.random.key_data(p), jax.random.key_data(q)
        np.testing.assert_allclose(np.asarray(p), np.asarray(q), **{"rtol": 0, **tolerance})


def assert_stable(tx, params):
    """Dtypes and shapes of updates and state; as a branch of a conditional, and as the body of a scan."""
    state = jax.eval_shape(tx.init, params)

    def one(params, state):
        new, new_state, updates = stepper(tx)(params, state)
        assert types(new) == types(params)
        assert types(updates) == types(params)
        assert types(new_state) == types(state)
        return new, new_state

    def several(pred, params, state):
        carry = lax.cond(pred, one, lambda *same: same, params, state)
        return lax.scan(lambda c, _: (one(*c), None), carry, None, 2)[0]

    out = jax.eval_shape(several, True, params, state)
    assert types(out) == types((jax.eval_shape(lambda p: p, params), state))


@each
def test_keeps_every_dtype(name):
    assert_stable(TABLE[name].make(LR), make(None))


@each
def test_promotes_nothing_implicitly(name):
    tx, params = TABLE[name].make(LR), make()
    grads, state = operator(params), tx.init(params)

    def update(grads, state, params):
        return tx.update(grads, state, params, field=grads, **ORACLES)

    if "adam" not in name:  # optax is not written for it
        with jax.numpy_dtype_promotion("strict"):
            jax.eval_shape(update, grads, state, params)


@each
def test_keeps_double_precision_and_its_own_numbers_do_not_lose_any(name):
    with jax.enable_x64(True):
        assert_stable(TABLE[name].make(LR), make(jnp.float64))
        assert_stable(TABLE[name].make(LR), {**make(None), "y": make(jnp.float64)["y"]})


@each
def test_complex_where_it_is_linear(name):
    tx, params = TABLE[name].make(LR), make(jnp.complex64)
    if TABLE[name].linear:
        assert_stable(tx, params)
    else:
        with pytest.raises(TypeError, match="real"):
            jax.eval_shape(stepper(tx), params, tx.init(make()))


@pytest.mark.parametrize("name", [n for n, entry in TABLE.items() if entry.accumulates])
def test_accumulator_dtype(name):
    params = make(None)
    tx = TABLE[name].make(LR, accumulator_dtype=jnp.float32)
    assert_stable(tx, params)
    kinds = [leaf.dtype for leaf in jax.tree.leaves(tx.init(params)) if leaf.dtype != jnp.int32]
    assert kinds.count(jnp.float32) >= 4
    complex_tree = make(jnp.complex64)
    assert_stable(tx, complex_tree)


@each
def test_compiles_once(name):
    tx = TABLE[name].make(LR)
    params = small()
    step, state = jax.jit(stepper(tx, SMALL)), tx.init(params)
    for _ in range(3):
        params, state, _ = step(params, state)
    assert step._cache_size() == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@each
def test_variants_are_the_same(name):
    """Injected numbers, and a lane of a batch with a constant schedule; one program per optimizer runs them all.

    Methods of one gradient also in `optax.MultiSteps`.
    """
    entry, params = TABLE[name], small()
    tx, play = entry.make(LR), functools.partial(run, oracles=SMALL)
    injected = optax.inject_hyperparams(entry.factory)(LR, **entry.options)
    scheduled = entry.make(lambda step: LR)

    def program(params):
        batch = jax.tree.map(lambda w: jnp.stack([-2 * w, w]), params)
        out = {
            "plain": play(tx, params),
            "injected": play(injected, params),
            "lane": jax.tree.map(lambda a: a[1], jax.vmap(lambda w: play(scheduled, w))(batch)),
        }
        if entry.one_gradient:
            out["every second"] = play(optax.MultiSteps(tx, 2), params, 2)
        return out

    runs = jax.jit(program)(params)
    path, state = runs["plain"]
    assert_same(runs["injected"][0], path, rtol=1e-4, atol=1e-6)
    assert_same(runs["injected"][1].inner_state, state, rtol=1e-4, atol=1e-6)
    assert_same(runs["lane"][0], path, rtol=1e-4, atol=1e-5)
    if entry.one_gradient:
        first, second = (jax.tree.map(lambda u, t=t: u[t], runs["every second"][0]) for t in (0, 1))
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(first))
        assert_same(second, jax.tree.map(lambda u: u[0], path), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n, entry in TABLE.items() if entry.one_gradient])
def test_after_a_clip_and_in_a_partition_it_is_the_same_bit_for_bit(name):
    """Operation by operation: compiled programs may fuse, and so round, each in its own way."""
    make_tx, params = TABLE[name].make, small()
    parts = {"x": make_tx(LR), "y": make_tx(lambda step: LR)}
    split = optax.chain(optax.clip(1e6), optax.partition(parts, {"x": "x", "y": "y"}))
    paths = []
    with jax.disable_jit():
        for tx in (make_tx(LR), split):
            here, state, path = params, tx.init(params), []
            for _ in range(3):
                here, state, updates = stepper(tx, SMALL)(here, state)
                path.append(updates)
            paths.append(path)
    assert_same(*paths)


@each
def test_init_of_shapes_alone(name):
    tx, params = TABLE[name].make(LR), make(None)
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    assert types(tx.init(abstract)) == types(tx.init(params))


@each
def test_map_params(name):
    tx, params = TABLE[name].make(LR), make()
    state = tx.init(params)
    assert_same(optax.tree.map_params(tx, lambda leaf: leaf, state), state)
    marked = optax.tree.map_params(tx, lambda leaf: leaf + 7, state)
    shapes = {p.shape for p in jax.tree.leaves(params)} - {()}
    own = [leaf.shape in shapes for leaf in jax.tree.leaves(state)]
    is_mark = lambda leaf: leaf.ndim > 0 and bool((leaf == 7).all())
    assert own == list(map(is_mark, jax.tree.leaves(marked)))


@each
def test_sharding_types_stay(name):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spec = jax.sharding.NamedSharding(mesh, jax.P("d"))
        params = jax.device_put({"x": jnp.ones(4), "y": jnp.ones(4)}, spec)
        oracles = dict.fromkeys(ORACLES, lambda w: {"x": w["x"] + w["y"], "y": w["y"] - w["x"]})
        tx = TABLE[name].make(LR)
        of = lambda tree: [jax.typeof(leaf).sharding.spec for leaf in jax.tree.leaves(tree)]
        state = tx.init(params)
        sharded = [s for s, leaf in zip(of(state), jax.tree.leaves(state), strict=True) if leaf.ndim]
        assert all(s == jax.P("d") for s in sharded)

        def check(params, state):
            new, new_state, _ = stepper(tx, oracles)(params, state)
            assert of(new) == of(params)
            assert of(new_state) == of(state)
            return new

        jax.eval_shape(check, params, state)


@pytest.mark.parametrize("name", SEVERAL)
def test_in_a_partition_it_raises(name):
    split = optax.partition({"m": TABLE[name].make(LR), "s": optax.sgd(0.1)}, {"x": "m", "y": "s"})
    with pytest.raises(ValueError, match=r"inside optax\.partition"):
        split.init(make())


@pytest.mark.parametrize("name", SEVERAL)
def test_after_a_clip_it_raises(name):
    def once(tx):
        return jax.eval_shape(lambda w: run(tx, w, 1), make())

    with pytest.raises(ValueError, match="must come first"):
        once(optax.chain(optax.clip(1e6), TABLE[name].make(LR)))
    once(optax.chain(TABLE[name].make(LR), optax.clip(1e6)))  # and before one it works


@pytest.mark.parametrize("name", SEVERAL)
def test_without_its_operators_it_raises(name):
    params = make()
    tx = TABLE[name].make(LR)
    with pytest.raises(ValueError, match=r"operator_fn=\.\.\."):
        tx.update(operator(params), tx.init(params), params)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(operator(params), tx.init(params), **ORACLES)


@pytest.mark.parametrize("name", SEVERAL)
def test_multi_steps_are_refused(name):
    steps = optax.MultiSteps(TABLE[name].make(LR), 2)
    with pytest.raises(ValueError, match="must come first"):
        jax.eval_shape(lambda w: run(steps, w, 1), make())


@pytest.mark.parametrize("name", [n for n, entry in TABLE.items() if entry.first_is_sgd])
def test_first_step_is_sgd(name):
    tx, params = TABLE[name].make(LR), small()
    _, _, first = stepper(tx, SMALL)(params, tx.init(params))
    assert_same(first, jax.tree.map(lambda g: -LR * g, SMALL["operator_fn"](params)))


@pytest.mark.parametrize("name", [n for n, entry in TABLE.items() if entry.periodic])
def test_periodic_work_stays_a_conditional_under_vmap(name):
    tx = TABLE[name].make(LR)
    states = jax.vmap(tx.init)(jax.tree.map(lambda w: jnp.stack([w, w]), make()))
    params = jax.tree.map(lambda w: jnp.stack([w, w]), make())
    program = str(jax.make_jaxpr(jax.vmap(stepper(tx)))(params, states))
    assert "cond[" in program


@pytest.mark.parametrize("name", [n for n, entry in TABLE.items() if entry.parabola])
def test_solves_the_problems_of_optax(name):
    """Its parabola and Rosenbrock's valley, as games of one player (or two, whose losses agree)."""
    entry = TABLE[name]
    parabola = lambda w: (w["x"] - 1) ** 2 + (w["y"] + 1) ** 2
    rosenbrock = lambda w: (1 - w["x"]) ** 2 + 100 * (w["y"] - w["x"] ** 2) ** 2

    def solve(loss, lr, x, y):
        tx, oracles = entry.make(lr), dict.fromkeys(ORACLES, jax.grad(loss))
        params = {"x": jnp.float32(x), "y": jnp.float32(y)}
        body = lambda carry, _: (stepper(tx, oracles)(*carry)[:2], None)
        return lax.scan(body, (params, tx.init(params)), None, 30_000)[0][0]

    def both():
        first = solve(parabola, entry.parabola, -1.0, 10.0)
        return first, entry.rosenbrock and solve(rosenbrock, entry.rosenbrock, 0.0, 0.0)

    first, second = jax.jit(both)()
    np.testing.assert_allclose([first["x"], first["y"]], [1, -1], rtol=3e-2)
    if entry.rosenbrock:
        np.testing.assert_allclose([second["x"], second["y"]], [1, 1], rtol=3e-2)


# --- low precision, two precisions, long runs, wrong numbers ---

STEPS = 200
# A path for the parameters that every precision is led along, exact in bfloat16: it moves, and then stands still.
SWING = 1 + 0.25 * np.sin(np.minimum(np.arange(STEPS), STEPS // 2) / 7)
PATH = jax.tree.map(lambda w: jnp.asarray(SWING[:, None] * np.asarray(w), jnp.bfloat16), small())


def as_dtype(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype), tree)


def rounded(oracle, dtype):
    """The field in another precision: computed in float32, and rounded once."""
    return lambda w: as_dtype(oracle(as_dtype(w, jnp.float32)), dtype)


def led(tx, params_dtype, field_dtype=None, steps=STEPS):
    """-> the updates ``[steps, ...]`` and the final state of an optimizer that is led along the path."""
    oracles = {key: rounded(oracle, field_dtype or params_dtype) for key, oracle in SMALL.items()}

    def body(state, params):
        grads = oracles["operator_fn"](params)
        updates, state = tx.update(grads, state, params, field=grads, **oracles)
        return state, updates

    path = jax.tree.map(lambda a: a[:steps].astype(params_dtype), PATH)
    state, updates = lax.scan(body, tx.init(jax.tree.map(lambda a: a[0], path)), path)
    return updates, state


def assert_within(found, expected, eps):
    """Every float leaf is as near as a few roundings of the largest number in it allow."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(b.dtype, jnp.floating):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            np.testing.assert_allclose(a, b, rtol=0, atol=8 * eps * np.abs(b).max())


@each
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_two_hundred_steps_in_low_precision_are_those_of_float32(name, dtype):
    tx = TABLE[name].make(LR)
    low, high = jax.jit(lambda: (led(tx, dtype), led(tx, jnp.float32)))()
    assert_within(low, high, float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("name", ["omega", "omegam", "nupi", "optimistic_gradient"])
def test_a_constant_gradient_is_followed_exactly_whatever_the_accumulator(name):
    """The optimism of something that does not change is nothing, also where the average is kept in bfloat16."""
    options = {"proportional": 100.0, "decay": 0.9} if name == "nupi" else {"optimism": 10.0}
    tx = getattr(optim, f"scale_by_{name}")(**options, accumulator_dtype=jnp.bfloat16)
    grad = jnp.asarray(0.3, jnp.bfloat16)
    _, directions = lax.scan(lambda s, _: tx.update(grad, s)[::-1], tx.init(grad), None, 200)
    assert (directions == grad).all()


KINDS = [jnp.bfloat16, jnp.float16, jnp.float32]


@each
@pytest.mark.parametrize("kinds", [(p, f) for p in KINDS for f in KINDS if p != f], ids=str)
def test_field_and_parameters_may_have_different_dtypes(name, kinds):
    """The updates have the dtype of the field, the state keeps its own, and it stays so in a scan."""
    tx = TABLE[name].make(LR)
    updates, _ = jax.eval_shape(lambda: led(tx, *kinds, steps=3))
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(kinds[1])}


@each
def test_a_field_that_is_wider_than_the_parameters_gives_the_same_updates(name):
    tx = TABLE[name].make(LR)
    runs = jax.jit(lambda: [led(tx, *kinds, steps=3)[0] for kinds in ((jnp.bfloat16, jnp.float32), (jnp.float32,))])()
    assert_within(*runs, float(jnp.finfo(jnp.bfloat16).eps))


@each
def test_counters_stay_at_the_largest_number(name):
    tx, most = TABLE[name].make(LR), np.iinfo(np.int32).max
    counts = lambda leaf: leaf.dtype == jnp.int32
    full = jax.tree.map(lambda leaf: jnp.full_like(leaf, most) if counts(leaf) else leaf, tx.init(small()))
    _, state, _ = stepper(tx, SMALL)(small(), full)
    left = [int(leaf) for leaf in jax.tree.leaves(state) if counts(leaf)]
    assert left
    assert set(left) <= {most, 0}  # 0: what a restart begins anew
    assert optax.tree.get_all_with_path(state, "count")[0][1] == most
    assert all(count == most for _, count in optax.tree.get_all_with_path(state, "oracle_calls"))


@pytest.mark.parametrize("cost", [10**9, 1e9, 10**12, np.int64(10**12), np.float32(1e12), jnp.float32(1e9)])
def test_a_full_pass_may_cost_any_number_of_calls(cost):
    tx = optim.svrg_extragradient(LR, key=KEY, snapshot_probability=1.0, mean_cost=cost)
    params = small()
    state, seen = tx.init(params), []
    for _ in range(5):
        params, state, _ = stepper(tx, SMALL)(params, state)
        seen.append(int(state.oracle_calls))
    assert seen == [min(t * (4 + int(cost)), np.iinfo(np.int32).max) for t in range(1, 6)]


#: option -> numbers that it cannot be, for every method that has it.
WRONG = {
    "learning_rate": [np.nan, np.inf, None, "fast", "0.5", np.str_("0.5"), 0.5j, np.complex64(0.5)],
    "optimism": [np.nan, None],
    "decay": [1.0, 1.5, -1.5, np.nan],
    "proportional": [np.nan],
    "integral": [np.inf],
    "b1": [1.0, -0.1, np.nan],
    "b2": [1.0, np.nan],
    "eps": [-1e-8, np.nan],
    "extrapolation_rate": [np.nan],
    "period": [0, -2, 2.5, np.nan],
    "slow_rate": [0.0, 1.5, np.nan],
    "lipschitz": [0.0, -1.0, np.nan],
    "comonotonicity": [np.nan],
    "snapshot_probability": [-0.1, 1.1, np.nan],
    "restart_probability": [2.0, np.nan],
    "mean_cost": [-1, np.nan, np.inf],
    "regularization": [np.nan],
    "adjustment": [np.inf],
    "max_iterations": [0, 2.5, np.nan],
    "tolerance": [-1.0, np.nan],
    "coupling": [np.nan],
    "momentum": [np.nan],
    "rho": [-0.1, np.nan, np.inf],
    "low": [-1.5, np.nan],
    "up": [1.5, np.nan],
}


@each
def test_wrong_numbers_are_named_whoever_made_them(name):
    entry = TABLE[name]
    factory = entry.factory.func if isinstance(entry.factory, functools.partial) else entry.factory
    parameters = inspect.signature(factory).parameters
    known = set(parameters)
    if name.startswith(("average", "lookahead")):
        known -= {"learning_rate"}  # that of what is wrapped
    assert known & set(WRONG)
    for option in known & set(WRONG):
        for wrong in WRONG[option]:
            numeric = isinstance(wrong, int | float)
            values = [wrong, np.float32(wrong), jnp.float32(wrong)] if numeric else [wrong]
            for value in [*values, {"x": wrong}] if parameters[option].annotation is Rate else values:
                options = {"learning_rate": LR, **entry.options, option: value}
                with pytest.raises(ValueError, match=rf"^{option} must be .*, but it is ") as raised:
                    entry.factory(**options)
                assert "\n" not in str(raised.value)
