"""BiP and BiFP against quadratics in closed form, the published identities, and the laws of a Solver."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from jaxfair import bilevel, constraints, implicit, optim, sparsity
from jaxfair.typing import Batch

EVERYTHING = {"prunable": lambda path: True}


def quadratic(hessian, target):
    """A model whose logits are its weights (and a 0 more), and the loss (z - a)' H (z - a) / 2 of every example."""

    def apply(params, state, x, *, train, key=None):
        z = jnp.concatenate([params["w"], jnp.zeros(1, params["w"].dtype)])
        return jnp.broadcast_to(z[None], (len(x), z.size)), state

    def loss(logits, batch):
        away = logits[:, :-1] - target[None]
        return 0.5 * jnp.einsum("bi,ij,bj->b", away, hessian, away)

    return apply, loss


def examples(n=4, num_groups=1):
    index = jnp.arange(n)
    return Batch(jnp.zeros((n, 1)), jnp.zeros(n, jnp.int32), index % num_groups, index, jnp.ones(n))


def hypergradient(hessian, target, theta, m, gamma, solve):
    """The field of the masks in one step of the solver, read off a climb of rate 1e-3, for which the box has room."""
    apply, loss = quadratic(hessian, target)
    solver = bilevel.bip(
        apply, sparsity.constant(0), **EVERYTHING, loss=loss, weights=optax.sgd(0.0), masks=optax.sgd(1e-3),
        gamma=gamma, hypergradient=solve, relaxed=True,
    )  # fmt: skip
    state = solver.init({"w": theta}, scores=[m])
    moved, _ = solver.step(state, examples(), None)
    return (np.asarray(state.scores[0], np.float64) - np.asarray(moved.scores[0])) / 1e-3


@pytest.mark.parametrize(
    ("gamma", "exact", "closed"), [(1.0, -0.25, -0.5), (10.0, -0.1503, -0.1653), (100.0, -0.01941, -0.01961)]
)
def test_the_closed_form_and_the_exact_one_on_a_parabola(gamma, exact, closed):
    """L = (z - 1)^2 / 2 at m = 1, where theta* = 1 / (1 + gamma); twice the field at half a mask."""
    # At m = 1 the box is in the way. Half a mask before twice the weight is the same network, for a quarter of gamma.
    one, half = jnp.ones(1), jnp.full(1, 0.5)
    theta = 2 * one / (1 + gamma)
    assert_allclose(hypergradient(jnp.eye(1), one, theta, half, gamma / 4, None), 2 * closed, rtol=2e-3)
    assert_allclose(hypergradient(jnp.eye(1), one, theta, half, gamma / 4, implicit.dense()), 2 * exact, rtol=2e-3)


HESSIAN = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 1.5]])
AIM = np.array([1.0, -2.0, 0.5])


def lowest(m, gamma):
    """The lower level in closed form, and the loss there."""
    theta = jnp.linalg.solve(gamma * jnp.eye(3) + jnp.diag(m) @ HESSIAN @ jnp.diag(m), m * (HESSIAN @ AIM))
    away = m * theta - AIM
    return theta, 0.5 * away @ HESSIAN @ away


@pytest.mark.parametrize(
    "solve",
    [implicit.dense(), implicit.conjugate_gradients(tolerance=1e-12), implicit.neumann(terms=200, rate=0.5)],
    ids=["dense", "cg", "neumann"],
)
def test_with_the_hessian_the_field_is_the_derivative_of_the_solved_lower_level(solve):
    m, gamma = jnp.array([0.5, 0.6, 0.7]), 0.5
    field = hypergradient(jnp.asarray(HESSIAN), jnp.asarray(AIM), lowest(m, gamma)[0], m, gamma, solve)
    expected = jax.grad(lambda m: lowest(m, gamma)[1])(m)
    # The masks are near 1 and the step 1e-3 of the field: float32 leaves four digits.
    assert_allclose(field, expected, atol=2e-4)
    # And without the Hessian it is another one: what is compared can differ.
    closed = hypergradient(jnp.asarray(HESSIAN), jnp.asarray(AIM), lowest(m, gamma)[0], m, gamma, None)
    assert np.abs(closed - np.asarray(expected)).max() > 0.1


def mlp_problem(num_groups=2, **options):
    return constraints.accuracy_parity(apply_mlp, num_groups=num_groups, tolerance=0.02, **options)


def apply_mlp(params, state, x, *, train, key=None):
    hidden = jax.nn.relu(x @ params["a"]["kernel"] + params["a"]["bias"][None])
    return hidden @ params["b"]["kernel"], state


def start_mlp(seed=0, hidden=8):
    a, b = jax.random.split(jax.random.key(seed))
    return {
        "a": {"kernel": jax.random.normal(a, (4, hidden)) / 2, "bias": jnp.zeros(hidden)},
        "b": {"kernel": jax.random.normal(b, (hidden, 3)) / 3},
    }


def prunable(path):
    return path.endswith("kernel")


def people(seed=0, n=96):
    keys = jax.random.split(jax.random.key(seed), 2)
    group = jnp.asarray(jax.random.uniform(keys[1], (n,)) < 0.2, jnp.int32)
    x = jax.random.normal(keys[0], (n, 4)).at[:, 3].set(2.0 * group - 1.0)
    # The minority, which the last feature names, goes by another rule.
    y = ((jnp.argmax(x[:, :3], axis=1) + group) % 3).astype(jnp.int32)
    return Batch(x, y, group, jnp.arange(n), jnp.ones(n))


PEOPLE = people()
TX = {"weights": optax.sgd(0.1, momentum=0.9), "masks": optax.sgd(0.5)}
NUMBERS = {"gamma": 10.0, "weight_decay": 1e-4, "renew": 1}


def mlp_solver(fair=("weights", "masks"), schedule=None, **options):
    schedule = sparsity.constant(0.5) if schedule is None else schedule
    given = {**TX, **NUMBERS, "dual": optax.sgd(0.5)} | options
    return bilevel.bifp(mlp_problem(), schedule, prunable=prunable, fair=fair, **given)


def run(solver, state, steps=6, batch=PEOPLE):
    return jax.lax.scan(lambda s, key: solver.step(s, batch, key), state, jax.random.split(jax.random.key(1), steps))


def begin(solver, seed=0):
    return solver.init(start_mlp(seed), mlp_problem().init({}, None, PEOPLE))


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_with_neither_level_constrained_it_is_bip_bit_for_bit():
    neither, info = jax.jit(functools.partial(run, mlp_solver(fair=())))(begin(mlp_solver(fair=())))
    plain = bilevel.bip(apply_mlp, sparsity.constant(0.5), prunable=prunable, **TX, **NUMBERS)
    other, _ = jax.jit(functools.partial(run, plain))(plain.init(start_mlp()))
    assert equal((neither.params, neither.scores), (other.params, other.scores))
    assert np.any(info.strict > 0), "a constraint that is never violated proves nothing"


def test_each_level_by_itself_is_another_run():
    ends = {}
    for fair in ((), ("weights",), ("masks",), ("weights", "masks")):
        state, _ = jax.jit(functools.partial(run, mlp_solver(fair=fair)))(begin(mlp_solver()))
        assert np.any(state.multipliers > 0)
        ends[fair] = np.concatenate([np.ravel(x) for x in jax.tree.leaves((state.params, state.scores))])
    names = list(ends)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not np.allclose(ends[one], ends[other], atol=1e-4), (one, other)


STRUCTURES = {
    "weights": {"distribution": sparsity.global_},
    "filters": {"structure": sparsity.channel(-1), "distribution": sparsity.uniform},
    "blocks": {"structure": sparsity.block((2, 1)), "distribution": sparsity.global_},
    "n of m": {"structure": sparsity.n_by_m(2, 4), "distribution": sparsity.uniform},
}


@pytest.mark.parametrize("relaxed", [False, True], ids=["hard", "relaxed"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_budget_holds_at_every_step(name, relaxed):
    axes = STRUCTURES[name]
    schedule = sparsity.constant(0.5) if name == "n of m" else sparsity.polynomial(0.5, begin=0, end=4, every=2)
    problem, start = mlp_problem(), start_mlp()
    solver = bilevel.bifp(
        problem, schedule, prunable=prunable, dual=optax.sgd(0.5), relaxed=relaxed, **TX, **NUMBERS, **axes
    )
    state = solver.init(start, problem.init({}, None, PEOPLE))

    @jax.jit
    def step(state):
        state, _ = solver.step(state, PEOPLE, None)
        return state, solver.network(state)

    for t in range(1, 6):
        state, (params, masks) = step(state)
        given = sparsity.one_shot(start, float(schedule(t)), prunable=prunable, **axes)[1]
        for path in ("a", "b"):
            kept = masks[path]["kernel"]
            assert kept.dtype == bool
            assert np.all(np.asarray(params[path]["kernel"])[~np.asarray(kept)] == 0)
        ours, theirs = (sum(int(m[p]["kernel"].sum()) for p in ("a", "b")) for m in (masks, given))
        assert ours == theirs
        assert masks["a"]["bias"].shape == ()
        if relaxed:
            every = np.concatenate([np.ravel(s) for s in state.scores]).astype(np.float64)
            units = sum(np.size(s) for s in state.scores)
            assert every.min() >= 0
            assert every.max() <= 1
            assert every.sum() <= units - int(units * float(schedule(t))) + 1e-6 * units


def test_filters_move_by_the_sum_over_their_weights():
    """The derivative by a mask that many weights share is the sum of theirs."""
    fields = {}
    for name, structure in (("weights", sparsity.unstructured), ("filters", sparsity.channel(-1))):
        solver = bilevel.bip(
            apply_mlp, sparsity.constant(0), prunable=prunable, structure=structure, weights=optax.sgd(0.0),
            masks=optax.sgd(1.0), **NUMBERS,
        )  # fmt: skip
        state = solver.init(start_mlp())
        moved, _ = solver.step(state, PEOPLE, None)
        fields[name] = [b - a for a, b in zip(state.scores, moved.scores, strict=True)]
    for single, whole in zip(fields["weights"], fields["filters"], strict=True):
        assert_allclose(np.sum(single, axis=0), whole, atol=1e-6)


def test_lower_and_upper_minibatches_are_the_parts_of_the_batch():
    """The weights' step is that of the first half alone; the masks' field that of the second."""
    first, second = jax.tree.map(lambda a: a[:48], PEOPLE), jax.tree.map(lambda a: a[48:], PEOPLE)
    solver = bilevel.bip(apply_mlp, sparsity.constant(0.5), prunable=prunable, **TX, **NUMBERS)
    state = solver.init(start_mlp())
    moved, info = solver.step(state, PEOPLE, None)

    def loss(z, batch):
        return jnp.mean(constraints.cross_entropy(apply_mlp(z, {}, batch.x, train=True)[0], batch))

    def masked(params, seen):
        return jax.tree.map(lambda m, w: jnp.where(m, w, 0), seen, params)

    g = jax.grad(loss)(masked(state.params, state.masks), first)
    down = jax.tree.map(lambda m, g, w: m * g + 1e-4 * w, state.masks, g, state.params)
    params = jax.tree.map(lambda w, d: w - 0.1 * d, state.params, down)
    for path in ("a", "b"):
        assert_allclose(moved.params[path]["kernel"], params[path]["kernel"], atol=1e-6)
    g = jax.grad(loss)(masked(params, state.masks), second)
    for number, path in enumerate(("a", "b")):
        w, m, h = params[path]["kernel"], state.masks[path]["kernel"], g[path]["kernel"]
        expected = state.scores[number] - 0.5 * (w - m * h / 10.0) * h
        assert_allclose(moved.scores[number], expected, atol=1e-6)
    assert_allclose(info.loss, loss(masked(state.params, state.masks), first), rtol=1e-6)
    assert info.aux.correct.shape == (96,)


def test_more_steps_of_a_level_take_more_parts():
    solver = bilevel.bip(
        apply_mlp, sparsity.constant(0.5), prunable=prunable, weight_steps=3, mask_steps=1,
        weights=optax.adam(0.01), masks=optax.adam(0.01), **NUMBERS,
    )  # fmt: skip
    state, _ = solver.step(solver.init(start_mlp()), PEOPLE, None)
    assert state.weights_state[0].count == 3
    assert state.masks_state[0].count == 1
    with pytest.raises(ValueError, match="a batch of 95 examples cannot be cut into the 4 parts of a step"):
        solver.step(solver.init(start_mlp()), jax.tree.map(lambda a: a[:95], PEOPLE), None)


JOINT = {"extragradient": optim.extragradient(0.05), "omega": optim.omega(0.05), "descent": optax.sgd(0.05)}


@pytest.mark.parametrize("tx", JOINT.values(), ids=JOINT)
def test_one_optimizer_plays_both_levels(tx):
    solver = bilevel.bip(apply_mlp, sparsity.constant(0.5), prunable=prunable, joint=tx, **NUMBERS)
    ended, info = jax.jit(functools.partial(run, solver, steps=300))(solver.init(start_mlp()))
    assert info.loss[-1] < 0.9 * info.loss[0]
    assert sum(int(ended.masks[path]["kernel"].sum()) for path in ("a", "b")) == 28


def test_plain_descent_of_both_moves_the_masks_by_the_weights_before_the_step():
    """The weights as when they move first; the masks as when the weights stay."""
    both = bilevel.bip(apply_mlp, sparsity.constant(0.5), prunable=prunable, joint=optax.sgd(0.05), **NUMBERS)
    moved, _ = both.step(both.init(start_mlp()), PEOPLE, None)
    for name, rates in (("params", (0.05, 0.0)), ("scores", (0.0, 0.05))):
        tx = {"weights": optax.sgd(rates[0]), "masks": optax.sgd(rates[1])}
        solver = bilevel.bip(apply_mlp, sparsity.constant(0.5), prunable=prunable, **tx, **NUMBERS)
        alone, _ = solver.step(solver.init(start_mlp()), PEOPLE, None)
        ours, theirs = (jax.tree.leaves(getattr(state, name)) for state in (moved, alone))
        for a, b in zip(ours, theirs, strict=True):
            assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_seeds_side_by_side_are_seeds_by_themselves():
    solver = mlp_solver(relaxed=True)
    states = [begin(solver, seed) for seed in range(2)]
    both = jax.tree.map(lambda *a: jnp.stack(a), *states)
    together, _ = jax.jit(jax.vmap(functools.partial(run, solver)))(both)
    alone, _ = jax.jit(functools.partial(run, solver))(states[1])
    for a, b in zip(
        jax.tree.leaves((together.params, together.scores)), jax.tree.leaves((alone.params, alone.scores)), strict=True
    ):
        assert_allclose(a[1], b, rtol=1e-4, atol=1e-5)  # products of a batch of lanes are summed in another order


def test_numbers_may_be_traced():
    def last(gamma, decay):
        solver = bilevel.bip(
            apply_mlp, sparsity.constant(0.5), prunable=prunable, **TX, gamma=gamma, weight_decay=decay
        )
        return run(solver, solver.init(start_mlp()))[0].scores

    lanes = jax.jit(jax.vmap(last, (0, None)))(jnp.array([1.0, 100.0]), 1e-4)
    one = jax.jit(last)(100.0, 1e-4)
    for a, b in zip(lanes, one, strict=True):
        assert_allclose(a[1], b, rtol=1e-4, atol=1e-5)
        assert not np.allclose(a[0], a[1], atol=1e-3)


def test_bfloat16_weights_stay_bfloat16():
    small = jax.tree.map(lambda a: a.astype(jnp.bfloat16), start_mlp())
    solver = bilevel.bip(apply_mlp, sparsity.constant(0.5), prunable=prunable, **TX, **NUMBERS)
    state = solver.init(small)
    batch = PEOPLE._replace(x=PEOPLE.x.astype(jnp.bfloat16))
    after, _ = jax.jit(lambda s: solver.step(s, batch, None))(state)
    assert jax.tree.map(lambda a: a.dtype, after) == jax.tree.map(lambda a: a.dtype, state)
    assert after.params["b"]["kernel"].dtype == jnp.bfloat16


def test_under_the_constraint_the_gap_is_smaller():
    """The minority goes by another rule, and a small network learns that of the others, unless it must not."""
    gaps = {}
    for fair in ((), ("weights", "masks")):
        solver = mlp_solver(fair=fair)
        state, _ = jax.jit(functools.partial(run, solver, steps=400))(begin(solver))
        params, _ = solver.network(state)
        right = np.argmax(apply_mlp(params, {}, PEOPLE.x, train=False)[0], axis=1) == PEOPLE.y
        gaps[fair] = right[PEOPLE.group == 0].mean() - right[PEOPLE.group == 1].mean()
    assert gaps[()] > 0.1, gaps
    assert gaps[("weights", "masks")] < 0.5 * gaps[()], gaps


BAD = [
    ({"weights": None}, "give weights= and masks=, one optimizer for each level, or joint= for both."),
    ({"joint": optax.sgd(0.1)}, "joint= plays both levels at once"),
    ({"weight_steps": 0}, "weight_steps=0: give at least 1."),
    ({"mask_steps": -1}, "mask_steps=-1: give at least 1."),
    ({"fair": ("mask",)}, "fair=('mask',): 'mask' is no level"),
    ({"dual": None}, "give dual=, the optimizer of the multipliers, or a formulation that is a penalty."),
    ({"gamma": 0.0}, "gamma=0.0: give a curvature above 0."),
    ({"gamma": float("nan")}, "gamma=nan: give a curvature above 0."),
    ({"weight_decay": -1.0}, "weight_decay=-1.0: give a number of at least 0."),
]


@pytest.mark.parametrize(("given", "said"), BAD, ids=[said[:20] for _, said in BAD])
def test_what_cannot_be_is_one_line(given, said):
    with pytest.raises((ValueError, TypeError)) as refused:
        mlp_solver(**given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_scores_of_another_network_are_one_line():
    solver = mlp_solver()
    with pytest.raises(
        ValueError, match=r"scores have 1 arrays of shapes \[\(2,\)\]: .* shapes \[\(4, 8\), \(8, 3\)\]"
    ):
        solver.init(start_mlp(), mlp_problem().init({}, None, PEOPLE), scores=[jnp.ones(2)])
