"""Sharpness: the oracles of SAM and GC-SAM, what they are special cases of, and where they may stand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import constraints, optim, sparsity, train
from jaxfair.typing import Batch

H = np.array([1.0, 10.0])
quadratic = lambda w: jnp.asarray(H, w.dtype) * w


def once(tx, w, field=quadratic, **more):
    """-> the update at `w`, and the state after it."""
    g = field(w)
    return tx.update(g, tx.init(w), w, operator_fn=field, field=g, **more)


def given(here, there, tx):
    """What a transformation makes of two gradients, whatever the point."""
    w = jax.tree.map(jnp.zeros_like, here)
    return tx.update(here, tx.init(w), w, operator_fn=lambda _: there, field=here)


# --- SAM ---


def test_one_step_of_sam_and_asam_by_hand():
    w = jnp.array([2.0, 1.0])
    adaptive = once(optax.chain(optim.scale_by_sam(0.05, adaptive=True), optax.sgd(0.1)), w)[0]
    np.testing.assert_allclose(adaptive, [-0.203714, -1.046424], atol=2e-6)
    found = once(optax.chain(optim.scale_by_sam(0.05), optax.sgd(0.1)), jnp.ones(2))[0]
    np.testing.assert_allclose(found, [-0.100498, -1.049752], atol=2e-6)


def test_the_perturbation_is_where_the_field_is_asked():
    asked = []
    w = jnp.array([2.0, 1.0])
    tx = optim.scale_by_sam(0.05, adaptive=True)
    tx.update(quadratic(w), tx.init(w), w, operator_fn=lambda at: asked.append(at) or at)
    np.testing.assert_allclose(asked[0] - w, [0.037139, 0.046424], atol=1e-6)


ORBITS = [(10, 0.1, 0.05, 0.05), (1, 0.1, 0.05, 0.00263158), (4, 0.3, 0.2, 0.3)]


@pytest.mark.parametrize(("h", "eta", "rho", "size"), ORBITS)
def test_on_a_parabola_it_ends_in_an_orbit_of_two(h, eta, rho, size):
    tx, field = optax.chain(optim.scale_by_sam(rho), optax.sgd(eta)), lambda w: h * w

    def body(carry, _):
        w, state = carry
        updates, state = tx.update(field(w), state, w, operator_fn=field)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    start = jnp.array([0.7])
    path = np.asarray(lax.scan(body, (start, tx.init(start)), None, 400)[1])[-2:, 0]
    np.testing.assert_allclose(np.abs(path), size, rtol=1e-5)
    assert path[0] * path[1] < 0


def test_where_optax_is_right_it_is_the_same():
    """Forty steps with momentum; `optax.contrib.sam` in its opaque mode takes the function by another name."""
    ours = optax.chain(optim.scale_by_sam(0.05), optax.sgd(0.02, momentum=0.9))
    climb = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(optax.sgd(0.02, momentum=0.9), climb, sync_period=2, opaque_mode=True)

    def run(tx, **more):
        def body(carry, _):
            w, state = carry
            updates, state = tx.update(quadratic(w), state, w, **more)
            return (optax.apply_updates(w, updates), state), w

        w = jnp.array([1.0, -0.6])
        return lax.scan(body, (w, tx.init(w)), None, 40)[1]

    found, other = jax.jit(lambda: (run(ours, operator_fn=quadratic), run(theirs, grad_fn=lambda w, i: quadratic(w))))()
    np.testing.assert_allclose(found, other, atol=1e-6)
    assert np.abs(np.asarray(found[-1])).max() > 1e-3  # the orbit: not both of them at 0


MAKERS = {
    "sam": optim.scale_by_sam,
    "asam": functools.partial(optim.scale_by_sam, adaptive=True),
    "gcsam": optim.scale_by_gcsam,
    "gcsam of the whole": functools.partial(optim.scale_by_gcsam, per_tensor=False),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
TREE = {"a": jnp.array([0.7, -0.2]), "b": jnp.array([[1.1], [0.4]])}
curved = lambda w: jax.tree.map(lambda a: a**3 + 0.5 * jnp.sum(w["a"]) * a, w)


@every
def test_no_rho_is_what_stands_behind_it_bit_for_bit(make):
    behind = optax.adamw(0.1)
    tx, w = optax.chain(make(0.0), behind), TREE
    ours, plain = tx.init(w), behind.init(w)
    for _ in range(3):
        updates, ours = tx.update(curved(w), ours, w, operator_fn=curved)
        expected, plain = behind.update(curved(w), plain, w)
        jax.tree.map(np.testing.assert_array_equal, updates, expected)
        w = optax.apply_updates(w, updates)


@every
def test_a_gradient_of_zero_is_finite(make):
    flat = jax.tree.map(jnp.zeros_like, TREE)
    still = lambda w: jax.tree.map(lambda a: 0 * a, w)  # which is nan where it is asked at nan
    found, _ = make(0.1).update(flat, make(0.1).init(TREE), TREE, operator_fn=still)
    jax.tree.map(np.testing.assert_array_equal, found, flat)


@every
def test_the_scale_of_the_loss_does_not_change_the_perturbation(make):
    seen = []
    for scale in (1.0, 2.0**20, 2.0**-20):
        field = lambda w, scale=scale: jax.tree.map(lambda g: scale * g, curved(w))
        make(0.1).update(field(TREE), make(0.1).init(TREE), TREE, operator_fn=lambda w: seen.append(w) or w)
    for other in seen[1:]:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), other, seen[0])


@every
def test_of_a_linear_loss_nothing_changes(make):
    g = jax.tree.map(lambda a: 2 * a, TREE)
    found, _ = make(0.3).update(g, make(0.3).init(TREE), TREE, operator_fn=lambda w: g)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found, g)


@every
def test_where_and_integers(make):
    """What is not chosen stays where it was; integers always do; the length is that of what moves."""
    w, seen = {**TREE, "steps": jnp.array(3)}, []
    field = lambda w: {**curved({k: w[k] for k in TREE}), "steps": jnp.array(0)}
    tx = make(0.1, where=lambda path: path != "a")
    tx.update(field(w), tx.init(w), w, operator_fn=lambda w: seen.append(w) or field(w))
    np.testing.assert_array_equal(seen[0]["a"], w["a"])
    np.testing.assert_array_equal(seen[0]["steps"], 3)
    if getattr(make, "keywords", {}).get("adaptive") is None:
        np.testing.assert_allclose(np.linalg.norm(seen[0]["b"] - w["b"]), 0.1, rtol=1e-5)


# --- GC-SAM ---


@pytest.mark.parametrize(
    ("here", "there", "low", "expected"),
    [
        ((1, 0), (0.6, 0.8), 0.5, (0.8, 0.4)),
        ((2, 0), (0.6, 0.8), 0.5, (0.772973, 0.237838)),
        ((1, 0), (0.9, 0.435890), 0.5, (0.9, 0.435890)),
        ((1, 0), (0, 1), 0.5, (1, 0)),
        ((1, 0), (-0.5, 0.866025), 0.0, (0.25, 0.433013)),
        ((1, 0), (-1, 0), 0.0, (0, 0)),  # there is no direction that both agree on
        ((0, 0), (1, 0), 0.5, (0, 0)),
    ],
)
@pytest.mark.parametrize("per_tensor", [True, False])
def test_the_rule_by_hand(here, there, low, expected, per_tensor):
    tx = optim.scale_by_gcsam(0.1, low, 0.8, per_tensor)
    found, state = given(jnp.array(here, jnp.float32), jnp.array(there, jnp.float32), tx)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert int(state.judged) == 1
    a, b = np.array(here, float), np.array(there, float)
    if a.any():
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert int(state.fell_back) == (cosine <= low and low > 0)
        assert int(state.projected) == (cosine < 0.8 and not state.fell_back)


@pytest.mark.parametrize("per_tensor", [True, False])
def test_its_ends_are_sam_and_plain_descent(per_tensor):
    rng = np.random.default_rng(5)
    here, there = ({k: jnp.asarray(rng.normal(size=(3, 2)), jnp.float32) for k in "ab"} for _ in range(2))
    sam, _ = given(here, there, optim.scale_by_gcsam(0.1, 0.0, -1.0, per_tensor))
    plain, state = given(here, there, optim.scale_by_gcsam(0.1, 1.0, 1.0, per_tensor))
    jax.tree.map(np.testing.assert_array_equal, sam, there)
    jax.tree.map(np.testing.assert_array_equal, plain, here)
    assert int(state.fell_back) == int(state.judged) == (2 if per_tensor else 1)


def test_per_tensor_and_whole_differ_and_are_counted():
    here = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([1.0, 0.0]), "c": jnp.array([1.0, 0.0])}
    there = {"a": jnp.array([0.0, 1.0]), "b": jnp.array([0.6, 0.8]), "c": jnp.array([1.0, 0.0])}
    found, state = given(here, there, optim.scale_by_gcsam(0.1))
    np.testing.assert_allclose(np.stack([found[k] for k in "abc"]), [[1, 0], [0.8, 0.4], [1, 0]], atol=1e-6)
    assert (int(state.judged), int(state.projected), int(state.fell_back)) == (3, 1, 1)
    whole, state = given(here, there, optim.scale_by_gcsam(0.1, per_tensor=False))  # a cosine of 1.6 / 3
    a, b = (np.stack([g[k] for k in "abc"]).ravel() for g in (here, there))
    u = (a + b) / np.linalg.norm(a + b)
    np.testing.assert_allclose(np.stack([whole[k] for k in "abc"]).ravel(), (b @ u) * u, rtol=1e-6)
    assert (int(state.judged), int(state.projected), int(state.fell_back)) == (1, 1, 0)


@every
def test_of_no_tensor_there_is_nothing_to_perturb(make):
    found, _ = given({}, {}, make(0.1))
    assert found == {}


# --- what cannot be ---


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: optim.scale_by_sam(-0.1), ValueError, "rho must be in"),
        (lambda: optim.scale_by_gcsam(0.1, 0.9, 0.5), ValueError, "low must be at most up"),
        (lambda: optim.scale_by_gcsam(0.1, 0.5, 1.5), ValueError, "up must be in"),
        (lambda: optim.scale_by_sam(0.1, where=lambda path: False).init(TREE), ValueError, "none of the 2 leaves"),
        (lambda: once(optim.scale_by_sam(0.1), jnp.ones(2, jnp.complex64)), TypeError, "real"),
        (
            lambda: optim.scale_by_sam(0.1).update(TREE, optim.scale_by_sam(0.1).init(TREE), TREE),
            ValueError,
            "operator_fn=",
        ),
    ],
)
def test_what_cannot_be_is_one_line(make, error, words):
    with pytest.raises(error, match=words) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_no_fall_back_goes_with_any_upper_end():
    optim.scale_by_gcsam(0.1, 0.0, -1.0)
    optim.scale_by_gcsam(0.1, -0.5, -0.9)


# --- where it may stand: plain training, a pruner, a game ---

RNG = np.random.default_rng(3)
BATCH = Batch(
    x=jnp.asarray(RNG.normal(size=(12, 4)), jnp.float32),
    y=jnp.asarray(RNG.integers(0, 3, 12), jnp.int32),
    group=jnp.zeros(12, jnp.int32), index=jnp.arange(12), weight=jnp.ones(12),
)  # fmt: skip
PARAMS = {"kernel": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), "shift": jnp.zeros((1, 3))}


def apply(params, state, x, *, train, key=None):
    """Counts how often it was asked in training, and is noisy by the key."""
    noise = 0.0 if key is None else 0.1 * jax.random.normal(key, (1, 3))
    return jnp.tanh(x @ params["kernel"]) + params["shift"] + noise, {"seen": state["seen"] + 1}


def descended(tx, steps=3, **options):
    solver = train.descent(apply, tx, **options)
    state, step = solver.init(PARAMS, {"seen": jnp.zeros(())}), jax.jit(solver.step)
    for i in range(steps):
        state, _ = step(state, BATCH, jax.random.key(i))
    return state


def test_training_takes_the_gradient_again_on_the_same_batch_key_and_model_state():
    state = descended(optax.chain(optim.scale_by_sam(0.1), optax.sgd(0.5)))
    params = PARAMS
    for i in range(3):
        noise = 0.1 * jax.random.normal(jax.random.key(i), (1, 3))
        loss = lambda p, noise=noise: optax.softmax_cross_entropy_with_integer_labels(
            jnp.tanh(BATCH.x @ p["kernel"]) + p["shift"] + noise, BATCH.y
        ).mean()
        g = jax.grad(loss)(params)
        norm = optax.tree.norm(g)
        g = jax.grad(loss)(jax.tree.map(lambda w, g, norm=norm: w + 0.1 * g / norm, params, g))
        params = jax.tree.map(lambda w, g: w - 0.5 * g, params, g)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), state.params, params)
    assert float(state.model_state["seen"]) == 3


def test_plain_training_is_the_program_that_it_was():
    """A transformation that takes nothing gets nothing, and one that takes what it does not use pays nothing."""
    told = []

    def update(updates, state, params=None, **extra):
        told.append(sorted(extra))
        return jax.tree.map(lambda g: -0.5 * g, updates), state

    init = lambda params: ()
    plain = optax.GradientTransformation(init, lambda g, s, p=None: update(g, s, p))
    both = [train.descent(apply, t) for t in (plain, optax.GradientTransformationExtraArgs(init, update))]
    begun = both[0].init(PARAMS, {"seen": jnp.zeros(())})
    programs = [str(jax.make_jaxpr(s.step)(begun, BATCH, jax.random.key(0))) for s in both]
    assert programs[0] == programs[1]
    assert told == [[], ["field", "operator_fn"]]
    # optax's own refuses arguments that it does not know.
    theirs = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1), sync_period=2)
    alone = descended(theirs, steps=1).params
    # Nor do they stop a chain, which takes everything; here all that is before it changes nothing.
    jax.tree.map(np.testing.assert_array_equal, alone, descended(optax.chain(optax.identity(), theirs), steps=1).params)


MASKS = {"kernel": jnp.arange(12).reshape(4, 3) % 3 != 0, "shift": jnp.array(True)}
WRAPPERS = {
    "prune": lambda inner: sparsity.prune(
        inner, sparsity.constant(0), prunable=lambda path: path == "kernel", masks=MASKS
    ),
    "regrow": lambda inner: sparsity.regrow(
        inner, sparsity.periodic(1 / 3, every=50, end=100), key=jax.random.key(0), grow=sparsity.by_gradient,
        prunable=lambda path: path == "kernel", first=sparsity.magnitude,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["prune", pytest.param("regrow", marks=pytest.mark.slow)])
def test_in_a_pruner_it_is_that_of_the_sparse_network(name):
    """The same as to train the living weights alone; the moments of pruned ones never hear of a gradient."""
    inner = optax.chain(optim.scale_by_sam(0.1), optax.sgd(0.2, momentum=0.9))
    tx = WRAPPERS[name](inner)
    masks = sparsity.get_masks(tx.init(PARAMS))
    start = sparsity.apply_masks(PARAMS, masks)
    solver = train.descent(apply, tx)
    state = solver.init(start, {"seen": jnp.zeros(())})
    state = state._replace(opt_state=tx.init(PARAMS))
    masked = lambda params, state, x, **kw: apply(sparsity.apply_masks(params, masks), state, x, **kw)
    alone = train.descent(masked, inner)
    other, steps = alone.init(start, {"seen": jnp.zeros(())}), [jax.jit(s.step) for s in (solver, alone)]
    for i in range(3):
        state, _ = steps[0](state, BATCH, jax.random.key(i))
        other, _ = steps[1](other, BATCH, jax.random.key(i))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), state.params, other.params)
    assert not np.asarray(state.params["kernel"])[~np.asarray(masks["kernel"])].any()
    trace = optax.tree.get(state.opt_state, "trace")["kernel"]
    assert not np.asarray(trace)[~np.asarray(masks["kernel"])].any()


@pytest.mark.slow
def test_straight_through_takes_it_at_the_masked_weights():
    tx = sparsity.straight_through(
        optax.chain(optim.scale_by_sam(0.1), optax.sgd(0.2)), sparsity.periodic(1 / 3, every=50, end=100), decay=0.1,
        prunable=lambda path: path == "kernel",
    )  # fmt: skip
    state = descended(tx, 1, at=lambda params, opt: sparsity.apply_masks(params, sparsity.get_masks(opt)))
    masks = sparsity.get_masks(tx.init(PARAMS))
    noise = 0.1 * jax.random.normal(jax.random.key(0), (1, 3))

    def pulled(params):
        there = sparsity.apply_masks(params, masks)
        loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(
            jnp.tanh(BATCH.x @ p["kernel"]) + p["shift"] + noise, BATCH.y
        ).mean()
        away = jax.tree.map(lambda m, w: jnp.where(m, 0.0, 0.1 * w), masks, params)
        return optax.tree.add(jax.grad(loss)(there), away)

    g = pulled(PARAMS)
    norm = optax.tree.norm(g)
    g = pulled(jax.tree.map(lambda w, g: w + 0.1 * g / norm, PARAMS, g))
    expected = jax.tree.map(lambda w, g: w - 0.2 * g, PARAMS, g)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), state.params, expected)


def game(params, carry, batch, key):
    loss = jnp.sum(jnp.asarray(H, params.dtype) * params**2) / 2
    bound = params[:1] - 3.0  # never binds
    return constraints.Evaluation(loss=loss, proxy=bound, strict=bound)


def test_as_the_joint_player_of_a_game_it_is_optax_on_the_weights():
    """Without a constraint that binds: forty steps as `optax.contrib.sam`, and a multiplier of 0 at the end."""
    tx = optax.chain(
        optim.scale_by_sam(0.05, where=lambda path: path.startswith("params")), optax.sgd(0.02, momentum=0.9)
    )
    solver = constraints.solver(game, joint=tx, multipliers=constraints.dense(1))
    climb = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    peer = optax.contrib.sam(optax.sgd(0.02, momentum=0.9), climb, sync_period=2, opaque_mode=True)

    def both():
        def ours(state, _):
            state, _ = solver.step(state)
            return state, state.params

        def theirs(carry, _):
            w, state = carry
            updates, state = peer.update(quadratic(w), state, w, grad_fn=lambda w, i: quadratic(w))
            w = optax.apply_updates(w, updates)
            return (w, state), w

        start = jnp.array([1.0, -0.6])
        ended, path = lax.scan(ours, solver.init(start), None, 40)
        return ended.multipliers, path, lax.scan(theirs, (start, peer.init(start)), None, 40)[1]

    multipliers, found, other = jax.jit(both)()
    np.testing.assert_allclose(found, other, atol=1e-6)
    assert multipliers.tolist() == [0.0]
