"""Laws of pruners: a table of inner optimizers x properties. A new one is a line in the table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import optim, sparsity, train
from jaxfair.typing import Batch

RNG = np.random.default_rng(2)
WEIGHTS = {
    "Dense_0": {"bias": RNG.normal(size=4), "kernel": RNG.normal(size=(6, 4))},
    "Dense_1": {"kernel": RNG.normal(size=(4, 5))},
    "Dense_2": {"kernel": RNG.normal(size=(5, 2))},
}
TARGET = jax.tree.map(lambda w: RNG.normal(size=w.shape), WEIGHTS)
STEPS = 9
SCHEDULE = sparsity.polynomial(0.7, begin=1, end=6, every=2)
FINAL = {"Dense_0": 17, "Dense_1": 14}  # ceil(0.7 * 24), ceil(0.7 * 20)


def prunable(path):
    return path in {"Dense_0/kernel", "Dense_1/kernel"}


def by_rank(params):
    return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "vector", params)


INNER = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "decay": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9)),
    "adam": optax.adam(0.05),
    "adamw": optax.adamw(0.05, weight_decay=0.1),
    "lion": optax.lion(0.05, weight_decay=0.1),
    "rmsprop": optax.rmsprop(0.05),
    "lamb": optax.lamb(0.05),
    "muon": optax.contrib.muon(0.05),
    "chain of chains": optax.chain(
        optax.chain(optax.clip(0.5), optax.scale_by_adam()), optax.chain(optax.scale(-0.05))
    ),
    "inject sgd": optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.1, 0.01, 9)),
    "inject adamw": optax.inject_hyperparams(optax.adamw)(optax.linear_schedule(0.1, 0.01, 9)),
    "clip and adamw": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.05)),
    "partition": optax.partition({"matrix": optax.adam(0.05), "vector": optax.sgd(0.1)}, by_rank),
}
# optax promotes the bfloat16 moments of an optimizer whose rates are injected as float32 arrays.
FLOAT32_ONLY = {"inject adamw"}
each = pytest.mark.parametrize("name", INNER)


def make(name="sgd"):
    """Both precisions side by side, so that one program serves both: Dense_1 is bfloat16."""
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), WEIGHTS)
    if name in FLOAT32_ONLY:
        return params
    return {**params, "Dense_1": {"kernel": params["Dense_1"]["kernel"].astype(jnp.bfloat16)}}


def gradient(params):
    return jax.tree.map(lambda p, t: p - jnp.asarray(t, p.dtype), params, TARGET)


def dtypes(tree):
    return jax.tree.map(lambda x: x.dtype, tree)


@functools.cache  # the laws look at one run
def run(name):
    """-> the final state, and parameters and masks after each of the ``[STEPS]`` updates."""
    tx = sparsity.prune(INNER[name], SCHEDULE, prunable=prunable)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state.masks)

    start = make(name), tx.init(make(name))
    (_, state), path = jax.jit(lambda carry: lax.scan(step, carry, None, STEPS))(start)
    return state, *path


@pytest.mark.slow
@each
def test_pruned_weights_are_exactly_zero_after_apply_updates(name):
    _, params, masks = run(name)
    for layer in FINAL:
        w, m = (np.asarray(x[layer]["kernel"], np.float32) for x in (params, masks))
        assert (w[m == 0] == 0).all()
        assert (w[m == 1] != 0).all()


@each
def test_counts_are_those_of_the_schedule_and_masks_are_monotone(name):
    _, params, masks = run(name)
    for layer, final in FINAL.items():
        m = np.asarray(masks[layer]["kernel"])
        pruned = m[0].size - m.reshape(STEPS, -1).sum(axis=1)
        # Scheduled are 1, 3, 5, 6 updates, and the first of them leaves 0: row t is after t + 1.
        assert pruned[0] == pruned[1] == 0
        assert 0 < pruned[2] == pruned[3] < pruned[4] <= pruned[5]
        assert (pruned[5:] == final).all()
        assert (m[1:] <= m[:-1]).all()
    for layer, leaf in (("Dense_0", "bias"), ("Dense_2", "kernel")):
        assert np.asarray(masks[layer][leaf]).all()
        assert (np.asarray(params[layer][leaf]) != 0).all()


@each
def test_dtypes_shapes_and_structure_are_stable(name):
    state, params, _ = run(name)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    start = sparsity.prune(INNER[name], SCHEDULE, prunable=prunable).init(make(name))
    assert describe(state) == describe(start)
    assert describe(jax.tree.map(lambda p: p[0], params)) == describe(make(name))
    assert int(state.count) == STEPS


@pytest.mark.slow
@each
def test_sparsity_zero_is_the_inner_optimizer_bit_for_bit(name):
    inner, params = INNER[name], make(name)
    tx = sparsity.prune(inner, sparsity.constant(0.0, begin=99), prunable=prunable)
    state, inner_state = tx.init(params), inner.init(params)
    with jax.disable_jit():  # op by op: how a compiler rounds what it fuses is not the pruner's doing
        for _ in range(3):
            updates, state = tx.update(gradient(params), state, params)
            expected, inner_state = inner.update(gradient(params), inner_state, params)
            jax.tree.map(np.testing.assert_array_equal, updates, expected)
            assert dtypes(updates) == dtypes(expected)
            params = optax.apply_updates(params, updates)


@pytest.mark.parametrize(
    ("distribution", "zeros"),
    [(sparsity.uniform, 15 + 12), (sparsity.global_, 27)],  # ceil(0.6 * 24) + ceil(0.6 * 20), ...
    ids=["uniform", "global"],
)
def test_a_permutation_of_the_weights_permutes_the_masks(distribution, zeros):
    schedule = sparsity.constant(0.6)
    tx = sparsity.prune(optax.sgd(0.1), schedule, distribution=distribution, prunable=prunable)
    order = RNG.permutation(24)
    shuffle = lambda x: x.reshape(-1)[order].reshape(6, 4)
    params = make()
    first = {**params["Dense_0"], "kernel": shuffle(params["Dense_0"]["kernel"])}
    plain, moved = (sparsity.get_masks(tx.init(p)) for p in (params, {**params, "Dense_0": first}))
    np.testing.assert_array_equal(moved["Dense_0"]["kernel"], shuffle(plain["Dense_0"]["kernel"]))
    np.testing.assert_array_equal(moved["Dense_1"]["kernel"], plain["Dense_1"]["kernel"])
    assert sum(int((~np.asarray(plain[layer]["kernel"])).sum()) for layer in FINAL) == zeros


@pytest.mark.parametrize("distribution", [sparsity.uniform, sparsity.global_], ids=["uniform", "global"])
@pytest.mark.parametrize(
    "structure", [sparsity.unstructured, sparsity.n_by_m(1, 2), sparsity.block((2, 1)), sparsity.channel(-1)],
    ids=["unstructured", "n_by_m", "block", "channel"],
)  # fmt: skip
@pytest.mark.slow
def test_pruning_what_is_pruned_changes_nothing(distribution, structure):
    """Idempotence: zeros have the least magnitude, so the same sparsity takes the same weights again."""
    tx = sparsity.prune(
        optax.sgd(0.0), sparsity.constant(0.5), distribution=distribution, structure=structure,
        prunable=prunable,
    )  # fmt: skip
    params = make()
    masks = sparsity.get_masks(tx.init(params))
    once = sparsity.apply_masks(params, masks)
    again = sparsity.get_masks(tx.init(once))
    jax.tree.map(np.testing.assert_array_equal, again, masks)
    jax.tree.map(np.testing.assert_array_equal, sparsity.apply_masks(once, again), once)
    zeros = sum(int((~np.asarray(m)).sum()) for m in jax.tree.leaves(masks))
    assert 22 <= zeros <= 24  # 12 of 24 and 10 of 20; of 5 channels of 4 weights, 3


# Every pruner, whatever it is given. A transformation is run for some steps, what prunes at once is called.

KEY = jax.random.key(3)
SPARSE_AT_ONE = {"begin": 1, "every": 1, "end": 3}
#: ``make(sparsity, **options)``: transformations that prune at their first update.
TRAINED = {
    "prune": lambda s, inner=None, **more: sparsity.prune(
        inner or optax.sgd(0.1), sparsity.constant(s, begin=1), **more),
    "regrow": lambda s, inner=None, **more: sparsity.regrow(
        inner or optax.sgd(0.1), sparsity.periodic(s, **SPARSE_AT_ONE), key=KEY, grow=sparsity.at_random, **more),
    "set": lambda s, inner=None, **more: sparsity.set_(
        inner or optax.sgd(0.1), sparsity.periodic(s, **SPARSE_AT_ONE), key=KEY, **more),
    "rigl": lambda s, inner=None, **more: sparsity.rigl(
        inner or optax.sgd(0.1), sparsity.periodic(s, **SPARSE_AT_ONE), key=KEY, **more),
    "straight through": lambda s, inner=None, **more: sparsity.straight_through(
        inner or optax.sgd(0.1), sparsity.periodic(s, **SPARSE_AT_ONE), **more),
}  # fmt: skip


def trained(name):
    def prune(params, s, **more):
        tx = TRAINED[name](s, **more)
        _, state = jax.jit(tx.update)(params, tx.init(params), params)
        return sparsity.get_masks(state)

    return prune


def second_order(method):
    def prune(params, s, *, prunable):
        size = sparsity.flatten_prunable(params, prunable=prunable).size
        gradients = jnp.eye(size) * jnp.arange(1.0, size + 1)[None]
        return getattr(sparsity, method)(params, gradients, s, prunable=prunable)[1]

    return prune


def groups_of(params):
    return jax.tree.map(lambda p: jnp.stack([jnp.square(p.astype(jnp.float32)), jnp.ones(p.shape)]), params)


#: ``masks(params, sparsity, prunable=)``.
PRUNERS = {
    **{name: trained(name) for name in TRAINED},
    "one shot": lambda p, s, **more: sparsity.one_shot(p, s, **more)[1],
    "scores": lambda p, s, **more: sparsity.one_shot(p, s, scores=jax.tree.map(abs, p), **more)[1],
    "rounds": lambda p, s, **more: sparsity.one_shot(p, s, scores=lambda p: jax.tree.map(abs, p), rounds=3, **more)[1],
    "snip": lambda p, s, **more: sparsity.one_shot(p, s, scores=sparsity.snip(squares, p), **more)[1],
    "grasp": lambda p, s, **more: sparsity.one_shot(p, s, scores=sparsity.grasp(squares, p), **more)[1],
    "synflow": lambda p, s, **more: sparsity.one_shot(p, s, scores=sparsity.synflow(squares, p), **more)[1],
    "wanda": lambda p, s, prunable: sparsity.one_shot(
        p, s, scores=sparsity.wanda(lambda q: q["w"].reshape(1, -1)[:, :0] @ q["w"][:0], p, prunable=prunable),
        prunable=prunable)[1],
    "fairgrape": lambda p, s, **more: sparsity.fairgrape(p, groups_of(p), s, **more)[1],
    "edge popup": lambda p, s, **more: jax.tree.map(lambda m: m > 0, sparsity.edge_popup(p, s, **more)),
    "chita": second_order("chita"),
    "chita block": second_order("chita_block"),
    "woodfisher": second_order("woodfisher"),
}  # fmt: skip
del PRUNERS["wanda"]  # its network must read every kernel: see tests/test_sparsity_one_shot.py
DISTRIBUTIONS = {
    "uniform": sparsity.uniform,
    "global": sparsity.global_,
    "normalized": sparsity.global_normalized,
    "erk": sparsity.erk(),
    "erk of two": sparsity.erk(power=np.float32(0.5), kernel=False),
    "per path": sparsity.per_path({"*": np.float32(0.5)}),
}
every_pruner = pytest.mark.parametrize("name", PRUNERS)
every_trained = pytest.mark.parametrize("name", TRAINED)
EIGHT = {"w": jnp.array([3.0, -8.0, 1.0, 6.0, -2.0, 7.0, 4.0, 5.0])}


def squares(params):
    floats = [p for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.floating)]
    return sum(jnp.sum(jnp.square(p.astype(jnp.float32))) for p in floats)


def everything(path):
    return True


def weights(path):
    return path == "w"


def dead(masks):
    return int((~np.asarray(masks["w"])).sum())


@every_pruner
@pytest.mark.slow
def test_a_scalar_and_an_empty_leaf_are_never_pruned(name):
    params = {"empty": jnp.zeros((0, 3)), "t": jnp.float32(1e-3), **EIGHT}
    masks = PRUNERS[name](params, 0.5, prunable=everything)
    assert (dead(masks), masks["t"].shape, masks["empty"].shape) == (4, (), ())
    assert bool(masks["t"])
    assert bool(masks["empty"])
    with pytest.raises(ValueError, match="t are scalars or empty, which are never pruned"):
        PRUNERS[name]({"t": jnp.float32(1.0)}, 0.5, prunable=everything)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("scalar", [1e-3, np.float32(1e-3), jnp.float32(1e-3)], ids=["python", "numpy", "jax"])
def test_a_scalar_is_in_no_pool(distribution, scalar):
    params = {"empty": jnp.zeros((0, 3)), "t": scalar, **EIGHT}
    tx = TRAINED["prune"](0.5, prunable=everything, distribution=DISTRIBUTIONS[distribution])
    updates, state = tx.update(params, tx.init(params), params)
    assert (bool(state.masks["t"]), dead(state.masks)) == (True, 4)
    assert float(optax.apply_updates(params, updates)["t"]) == pytest.approx(9e-4, rel=1e-6)


@every_pruner
@pytest.mark.slow
def test_leaves_that_are_none_empty_or_integers_are_left_alone(name):
    params = {"gone": None, "nothing": {}, "none of it": (), "steps": jnp.arange(3), "flag": jnp.array(True), **EIGHT}
    masks = PRUNERS[name](params, 0.5, prunable=weights)
    assert jax.tree.structure(masks) == jax.tree.structure(params)
    assert dead(masks) == 4
    assert bool(masks["steps"])
    with pytest.raises(TypeError, match="steps has the dtype int32"):
        PRUNERS[name](params, 0.5, prunable=lambda path: path != "flag")


@every_pruner
@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float64])
@pytest.mark.slow
def test_every_precision_has_the_same_counts(name, dtype):
    array = jnp.arange if dtype != np.float64 else np.arange
    params = {"w": array(1, 301, dtype=dtype)}  # many ties: bfloat16 has 256 whole numbers in a row
    assert dead(PRUNERS[name](params, 0.9, prunable=everything)) == 270


@pytest.mark.slow
@every_pruner
def test_a_sparsity_is_a_number_of_any_library_and_no_percentage(name):
    compiled = name in TRAINED or "chita" in name or name == "woodfisher"  # anew for every number
    for make in (np.float32,) if compiled else (float, np.float32, np.float64, np.array, jnp.float32, jnp.bfloat16):
        half = make(0.5)
        assert dead(PRUNERS[name](EIGHT, half, prunable=everything)) == 4
    # In binary 1 - 0.7 is more than 3/10 of ten, and 0.9 in bfloat16 is 0.8984.
    ten = {"w": jnp.arange(1.0, 11.0)}
    shares = ((1 - 0.7, 3), (2 / 3, 7), (jnp.asarray(0.9, jnp.bfloat16), 9), (np.float32(0.9), 9))
    for share, number in shares[: 1 if compiled else None]:
        assert dead(PRUNERS[name](ten, share, prunable=everything)) == number
    for wrong in (50, 1, 1.0, -0.1, jnp.nan, np.inf, True, "50%", None, jnp.ones(2), np.array([0.5])):
        with pytest.raises(ValueError, match=r"sparsity is the share of weights .* write 0.9") as error:
            PRUNERS[name](EIGHT, wrong, prunable=everything)
        assert "\n" not in str(error.value)


@every_pruner
def test_what_is_no_function_is_no_prunable(name):
    with pytest.raises(TypeError, match="prunable"):
        PRUNERS[name](EIGHT, 0.5, prunable={"w"})


def test_a_traced_sparsity_says_that_it_cannot_be():
    with pytest.raises(ValueError, match="sparsity is traced"):
        jax.jit(lambda s: sparsity.one_shot(EIGHT, s, prunable=everything))(0.5)


SCORED = {**{name: trained(name) for name in TRAINED}, "one shot": PRUNERS["one shot"]}
every_scored = pytest.mark.parametrize("name", SCORED)
WRONG_SCORES = {
    "a sum": (lambda w, g: jnp.abs(w).sum(), ValueError, r"have the shape \(\), but its weights have \(8,\)"),
    "more axes": (lambda w, g: jnp.abs(w)[None], ValueError, r"have the shape \(1, 8\), but its weights have \(8,\)"),
    "fewer": (lambda w, g: jnp.abs(w)[:4], ValueError, r"have the shape \(4,\), but its weights have \(8,\)"),
    "a number": (lambda w, g: 1.0, ValueError, r"have the shape \(\), but its weights have \(8,\)"),
    "integers": (lambda w, g: jnp.abs(w).astype(jnp.int32), TypeError, "must be floats, but they are int32"),
    "flags": (lambda w, g: w > 2, TypeError, "must be floats, but they are bool"),
}


@every_scored
@pytest.mark.parametrize("kind", WRONG_SCORES)
def test_scores_that_are_not_a_float_for_each_weight_are_refused(name, kind):
    score, error, words = WRONG_SCORES[kind]
    with pytest.raises(error, match=f"scores of w {words}"):
        SCORED[name](EIGHT, 0.5, prunable=everything, score=score)


RANKED = {
    "unstructured": sparsity.unstructured, "n_by_m": sparsity.n_by_m(2, 4, axis=0), "block": sparsity.block((2, 1)),
    "channel": sparsity.channel(0), "balanced": sparsity.balanced(),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "structure"),
    [*(("prune", s) for s in RANKED), *((n, "unstructured") for n in TRAINED if n != "prune"), ("rigl", "block")],
)
def test_a_nan_ranks_first_and_the_lowest_score_is_still_a_weight(name, structure):
    """Under jit nobody can be told; counts are exact, and what lives is worth more than what is pruned."""
    params = {"w": EIGHT["w"].reshape(8, 1)}
    values = jnp.array([jnp.nan, -jnp.inf, -jnp.inf, 2.0, 1.0, -jnp.inf, -jnp.inf, jnp.inf])
    options = {"prunable": everything, "score": lambda w, g: values.reshape(8, 1), "structure": RANKED[structure]}
    if name in ("regrow", "set", "rigl"):
        options["drop"] = 0.0
    both = sparsity.uniform, sparsity.global_normalized
    for distribution in both if structure == "unstructured" else both[:1]:
        masks = SCORED[name](params, 0.5, distribution=distribution, **options)
        assert dead(masks) == 4
        if structure in ("unstructured", "balanced"):
            assert np.flatnonzero(masks["w"]).tolist() == [0, 3, 4, 7]
    if structure == "unstructured":  # everything at the bottom: none of the pruned counts as one that lives
        alive = {"w": jnp.arange(8).reshape(8, 1) >= 4}
        bottom = {**options, "score": lambda w, g: jnp.full(w.shape, -jnp.inf), "masks": alive}
        masks = SCORED[name](params, 0.75, **bottom)
        assert dead(masks) == 6
        if name in ("prune", "one shot"):
            assert not np.asarray(masks["w"])[:4].any()


def test_nan_scores_are_refused_where_they_can_be_seen():
    bad = {"w": EIGHT["w"].at[2].set(jnp.nan)}
    for name in PRUNERS:
        if name not in TRAINED:
            with pytest.raises(ValueError, match=r"1 (scores|importances) of w are NaN|1 of the weights are not"):
                PRUNERS[name](bad, 0.5, prunable=everything)
    with pytest.raises(ValueError, match="1 of the gradients are not finite"):
        sparsity.woodfisher(EIGHT, jnp.ones((3, 8)).at[0, 0].set(jnp.nan), 0.5, prunable=everything)


TREES = {
    "scores": lambda t: sparsity.one_shot(EIGHT, 0.5, scores=t, prunable=everything),
    "scores of masked weights": lambda t: sparsity.one_shot(EIGHT, 0.5, scores=lambda p: t, prunable=everything),
    "gradients": lambda t: sparsity.one_shot(EIGHT, 0.5, gradients=t, score=sparsity.saliency, prunable=everything),
    **{name: lambda t, n=name: (lambda tx: tx.update(t, tx.init(EIGHT), EIGHT))(TRAINED[n](0.5, prunable=everything))
       for name in TRAINED},
    **{f"{name}, score_grads": lambda t, n=name: (
        lambda tx: tx.update(EIGHT, tx.init(EIGHT), EIGHT, score_grads=t)
    )(TRAINED[n](0.5, score=sparsity.movement(), prunable=everything)) for name in TRAINED},
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_trees_that_do_not_fit_the_weights_are_refused(name):
    for wrong in (jnp.ones(()), jnp.ones(1), jnp.ones((1, 8)), jnp.ones(7)):
        with pytest.raises(ValueError, match=r"of w have the shape \(.*\), but its weights have \(8,\)"):
            TREES[name]({"w": wrong})
    for other in ({"v": jnp.ones(8)}, {"w": None}, {"w": jnp.ones(8), "b": jnp.ones(1)}, jnp.ones(8)):
        with pytest.raises(ValueError, match="have not the structure of the parameters"):
            TREES[name](other)


MASKED = {
    **{name: lambda m, n=name: TRAINED[n](0.5, prunable=everything, masks=m).init(EIGHT) for name in TRAINED},
    "one shot": lambda m: sparsity.one_shot(EIGHT, 0.5, masks=m, prunable=everything),
    "fairgrape": lambda m: sparsity.fairgrape(EIGHT, groups_of(EIGHT), 0.5, masks=m, prunable=everything),
    "apply": lambda m: sparsity.apply_masks(EIGHT, m),
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_that_do_not_fit_the_weights_are_refused(name):
    MASKED[name]({"w": np.arange(8) > 3})
    for wrong in (np.ones((2, 8), bool), np.ones(7, bool), np.ones((1, 8), bool)):
        with pytest.raises(ValueError, match=r"the mask of w has the shape \(.*\), but its weights have \(8,\)"):
            MASKED[name]({"w": wrong})
    for other in ({"v": np.ones(8, bool)}, {"w": None}, np.ones(8, bool)):
        with pytest.raises(ValueError, match="masks have not the structure of the parameters"):
            MASKED[name](other)


# The sparsity 0


@every_pruner
def test_nothing_is_pruned_where_the_sparsity_is_0(name):
    assert dead(PRUNERS[name](EIGHT, 0, prunable=everything)) == 0


def test_nothing_is_ranked_where_the_sparsity_is_0():
    def score(w, g):  # an own one, which has no word for a missing gradient
        return jnp.abs(w * g)

    rises = sparsity.polynomial(0.5, begin=0, end=4, every=2)
    options = {"score": score, "prunable": everything}
    grown = {"key": KEY, "grow": sparsity.by_gradient, "first": score, "prunable": everything}
    for tx in (
        sparsity.prune(optax.sgd(0.1), rises, **options),
        sparsity.straight_through(optax.sgd(0.1), rises, **options),
        sparsity.regrow(optax.sgd(0.1), rises, **grown),
    ):
        state, params = tx.init(EIGHT), EIGHT
        assert dead(state.masks) == 0
        for _ in range(4):
            updates, state = jax.jit(tx.update)(params, state, params)
            params = optax.apply_updates(params, updates)
        assert dead(state.masks) == 4
    assert dead(sparsity.one_shot(EIGHT, 0, rounds=3, **options)[1]) == 0
    late = {"score": score, "prunable": everything}
    for tx in (
        sparsity.prune(optax.sgd(0.1), sparsity.constant(0.5), **late),
        sparsity.straight_through(optax.sgd(0.1), sparsity.constant(0.5), **late),
        sparsity.regrow(optax.sgd(0.1), sparsity.constant(0.5), **grown),
    ):
        with pytest.raises(ValueError, match=r"the score needs gradients and there are none .*begin the"):
            tx.init(EIGHT)


# States that go on


@pytest.mark.slow
@pytest.mark.parametrize(("name", "begin"), [*((name, 0) for name in TRAINED), ("prune", 3)])
def test_a_state_behind_its_schedule_catches_up(name, begin):
    """Ten steps at 50 %, and then a schedule of 75 % whose only step has gone by; no weight is asked for twice."""
    params, first = EIGHT, TRAINED[name](0.5, prunable=everything)
    state = first.init(params)
    step = jax.jit(first.update)
    for _ in range(10):
        updates, state = step(params, state, params)
        params = optax.apply_updates(params, updates)
    assert dead(state.masks) == 4
    make = {"prune": sparsity.prune, "straight through": sparsity.straight_through}.get(name)
    behind = sparsity.constant(0.75, begin=begin)
    if make is None:
        tx = sparsity.regrow(optax.sgd(0.1), behind, key=KEY, grow=sparsity.by_gradient, prunable=everything)
    else:
        tx = make(optax.sgd(0.1), behind, prunable=everything)
    updates, state = jax.jit(tx.update)(params, state, params)
    params = optax.apply_updates(params, updates)
    assert dead(state.masks) == 6
    once = np.asarray(state.masks["w"])
    for _ in range(3):
        updates, state = jax.jit(tx.update)(params, state, params)
        np.testing.assert_array_equal(state.masks["w"], once)
    if name != "straight through":
        assert (np.asarray(params["w"]) != 0).sum() <= 2


def test_a_state_ahead_of_its_schedule_stays_as_it_is():
    tx = TRAINED["prune"](0.75, prunable=everything)
    updates, state = tx.update(EIGHT, tx.init(EIGHT), EIGHT)
    params = optax.apply_updates(EIGHT, updates)
    later = sparsity.prune(optax.sgd(0.1), sparsity.polynomial(0.5, begin=0, end=9, every=1), prunable=everything)
    for _ in range(9):
        updates, state = jax.jit(later.update)(params, state, params)
        params = optax.apply_updates(params, updates)
    assert dead(state.masks) == 6


ALIVE = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)


@every_trained
@pytest.mark.slow
def test_masks_at_the_start_stay_pruned(name):
    params = sparsity.apply_masks({**EIGHT, "b": jnp.ones(2)}, {"w": ALIVE, "b": True})
    for masks in ({"w": ALIVE, "b": True}, jax.tree.map(lambda w: w != 0, params)):
        begin = sparsity.constant(0.75, begin=4)
        options = {"prunable": weights, "masks": masks}
        grown = {"key": KEY, "grow": sparsity.by_gradient}
        make = {"prune": sparsity.prune, "straight through": sparsity.straight_through}.get(name)
        tx = (make or sparsity.regrow)(optax.sgd(0.1, momentum=0.9), begin, **options, **({} if make else grown))
        state, moved = tx.init(params), params
        for step in range(5):
            np.testing.assert_array_equal(state.masks["w"], ALIVE if step < 4 else state.masks["w"])
            if name != "straight through":
                assert (np.asarray(moved["w"])[~np.asarray(state.masks["w"])] == 0).all()
            updates, state = jax.jit(tx.update)(jax.tree.map(jnp.ones_like, params), state, moved)
            moved = optax.apply_updates(moved, updates)
        assert dead(state.masks) == 6
    # A schedule that begins sparse takes them from what lives.
    sparse = sparsity.constant(0.75)
    tx = (make or sparsity.regrow)(optax.sgd(0.1), sparse, **options, **({} if make else grown))
    first = np.asarray(tx.init(params).masks["w"])
    assert first.sum() == 2
    assert (first <= ALIVE).all()


def test_pruning_goes_on_from_a_file_and_without_masks_it_does_not(tmp_path):
    params, masks = sparsity.one_shot(EIGHT, 0.5, prunable=everything)
    sparsity.save(tmp_path / "network.safetensors", params, {}, masks)
    saved = sparsity.load(tmp_path / "network.safetensors")
    zeros = []
    for given in (saved.masks, None):
        tx = sparsity.prune(optax.sgd(0.1), sparsity.constant(0.75, begin=5), prunable=everything, masks=given)
        updates, _ = tx.update({"w": jnp.ones(8)}, tx.init(saved.params), saved.params)
        zeros.append(int((optax.apply_updates(saved.params, updates)["w"] == 0).sum()))
    assert zeros == [4, 0]


@pytest.mark.slow
@every_trained
@pytest.mark.parametrize(
    ("inner", "raw"), [("sgd", False), ("sgd", True), ("schedule free", False), ("average", False)]
)
def test_a_state_can_be_donated_and_made_again(name, inner, raw, monkeypatch):
    if raw:
        monkeypatch.setitem(globals(), "KEY", jax.random.PRNGKey(3))
    made = {
        "sgd": optax.sgd(0.1, momentum=0.9),
        "schedule free": optax.contrib.schedule_free_sgd(0.1), "average": optim.average_iterates(optax.sgd(0.1)),
    }[inner]  # fmt: skip
    start = {"b": jnp.ones(2), "t": jnp.float32(2.0), **EIGHT}
    tx = TRAINED[name](0.5, made, prunable=weights, masks={"b": True, "t": True, "w": jnp.asarray(ALIVE)})
    step = jax.jit(lambda p, s: tx.update(p, s, p), donate_argnums=(0, 1))
    for _ in range(2):
        params = jax.tree.map(jnp.copy, start)
        _, state = step(params, tx.init(params))
        jax.block_until_ready(state)
        assert int(state.count) == 1
    jax.random.split(KEY)


# Averages of iterates: what is evaluated is exactly as sparse as what is trained


AVERAGES = {
    "schedule free": (lambda tx: tx(optax.contrib.schedule_free_sgd(0.1)),
                      lambda s, p: optax.contrib.schedule_free_eval_params(s.inner, p)),
    "schedule free adamw": (lambda tx: tx(optax.contrib.schedule_free_adamw(0.1, weight_decay=0.1)),
                            lambda s, p: optax.contrib.schedule_free_eval_params(s.inner, p)),
    "in a chain": (lambda tx: tx(optax.chain(optax.clip(1.0), optax.contrib.schedule_free_sgd(0.1))),
                   lambda s, p: optax.contrib.schedule_free_eval_params(s.inner[1], p)),
    "around": (lambda tx: optim.average_iterates(tx(optax.sgd(0.1))), lambda s, p: optim.get_average(s)),
    "around, decaying": (lambda tx: optim.average_iterates(tx(optax.sgd(0.1, momentum=0.9)), decay=0.9),
                         lambda s, p: optim.get_average(s)),
    "around, jumping": (lambda tx: optim.average_iterates(tx(optax.sgd(0.1)), period=5, jump=True),
                        lambda s, p: p),
    "around a part": (lambda tx: optim.average_iterates(
        optax.partition({"it": tx(optax.sgd(0.1)), "rest": optax.sgd(0.1)}, {"w": "it", "b": "rest"})),
        lambda s, p: optim.get_average(s)),
    "inside": (lambda tx: tx(optim.average_iterates(optax.sgd(0.1, momentum=0.9))), lambda s, p: optim.get_average(s)),
    "beside": (lambda tx: tx(optax.sgd(0.1)), lambda s, p: sparsity.apply_masks(
        jax.tree.map(lambda old, new: 0.5 * old + 0.5 * new, START_OF_AVERAGES, p), sparsity.get_masks(s))),
}  # fmt: skip
START_OF_AVERAGES = {"b": jnp.ones(2), **EIGHT}


@pytest.mark.parametrize(
    ("name", "average"),
    [*(("prune", a) for a in AVERAGES), *((n, a) for n in ("set", "rigl") for a in list(AVERAGES)[::3])],
)
@pytest.mark.slow
def test_an_average_of_iterates_is_as_sparse_as_the_last(name, average):
    make, read = AVERAGES[average]
    tx = make(lambda inner: TRAINED[name](0.5, inner, prunable=weights))
    params, state = START_OF_AVERAGES, tx.init(START_OF_AVERAGES)
    for step in range(6):
        updates, state = jax.jit(tx.update)(params, state, params)
        params = optax.apply_updates(params, updates)
        dead = ~np.asarray(sparsity.get_masks(state)["w"])
        assert dead.sum() == 4, step
        assert (np.asarray(read(state, params)["w"])[dead] == 0).all()
        assert step < 3 or (np.asarray(read(state, params)["b"]) != 0).all()  # RigL does not train at an exchange


def test_an_average_that_cannot_be_sparse_is_refused():
    pruner = sparsity.prune(optax.sgd(0.1), sparsity.constant(0.5, begin=1), prunable=everything)
    around = optax.contrib.schedule_free(pruner, 0.1).init(EIGHT)
    with pytest.raises(ValueError, match="schedule_free stands around this pruner"):
        sparsity.get_masks(around)


def test_the_average_of_training_is_as_sparse_as_the_network():
    """Begun before the masks are final, it would hold every weight that was ever alive."""
    tx = sparsity.prune(optax.sgd(0.1), sparsity.polynomial(0.5, begin=2, end=8, every=2), prunable=weights)
    solver = train.descent(lambda p, s, x, **_: (x * p["w"][None, :2] + p["b"][None], s), tx)
    start = train.init_state(solver.init(START_OF_AVERAGES))
    step = jax.jit(train.make_step(solver.step, average_from=0, average_decay=0.9))
    zero = jnp.zeros(2, jnp.int32)
    batch = Batch(x=jnp.eye(2), y=zero, group=zero, index=jnp.arange(2), weight=jnp.ones(2))
    for _ in range(8):
        start = step(start, batch, KEY)
    np.testing.assert_array_equal(np.asarray(start.average.params["w"]) == 0, np.asarray(start.solver.params["w"]) == 0)
    assert int((start.average.params["w"] == 0).sum()) == 4


# Numbers of any library, and one line for what is none


@pytest.mark.slow
def test_whole_numbers_are_those_of_any_library():
    for number in (np.int64, np.int8, np.float32, jnp.int32, float):
        one = sparsity.polynomial(0.5, begin=number(0), end=number(6), every=number(2), power=number(3))
        assert one == sparsity.polynomial(0.5, begin=0, end=6, every=2)
        assert sparsity.periodic(0.5, begin=number(1), end=number(7), every=number(3)).steps == (1, 4, 7)
        assert sparsity.constant(0.5, begin=number(3)).steps == (3,)
        assert sparsity.alternating(0.5, begin=number(0), end=number(4), every=number(2)).steps == (0, 2, 4)
        assert dead(sparsity.one_shot(EIGHT, 0.5, rounds=number(2), prunable=everything)[1]) == 4
        structures = sparsity.n_by_m(number(2), number(4)), sparsity.block((number(2),)), sparsity.channel(number(0))
        for structure in (*structures, sparsity.balanced(number(0))):
            assert dead(sparsity.one_shot(EIGHT, 0.5, structure=structure, prunable=everything)[1]) == 4
        assert float(sparsity.cosine_drop(number(0), number(9))(3)) == 0


INNER_SGD = optax.sgd(0.1)
WRONG_NUMBERS = {
    "begin": lambda x: sparsity.constant(0.5, begin=x),
    "end": lambda x: sparsity.polynomial(0.5, begin=0, end=x, every=1),
    "every": lambda x: sparsity.periodic(0.5, end=9, every=x),
    "power": lambda x: sparsity.polynomial(0.5, begin=0, end=9, every=1, power=x),
    "tabulated": lambda x: sparsity.tabulated(lambda t: 0.5, begin=0, end=x, every=1),
    "alternating": lambda x: sparsity.alternating(0.5, begin=x, end=9, every=1),
    "a table": lambda x: sparsity.prune(INNER_SGD, sparsity.Schedule((x,), (0.5,)), prunable=everything),
    "rounds": lambda x: sparsity.one_shot(EIGHT, 0.5, rounds=x, prunable=everything),
    "lottery": lambda x: sparsity.lottery_ticket(lambda p, m: p, EIGHT, rounds=x, prunable=everything),
    "stages": lambda x: sparsity.stage_sparsities(0.5, x),
    "n": lambda x: sparsity.n_by_m(x, 4),
    "m": lambda x: sparsity.n_by_m(1, x),
    "axis": lambda x: sparsity.channel(x),
    "balanced": lambda x: sparsity.balanced(x),
    "block": lambda x: sparsity.block((x, 2)),
    "cosine": lambda x: sparsity.cosine_drop(0.3, x),
    "pack": lambda x: sparsity.pack_nm(jnp.ones((4, 4)), np.eye(4, dtype=bool), n=x),
}


@pytest.mark.parametrize("name", WRONG_NUMBERS)
def test_a_number_that_is_not_whole_is_refused(name):
    for wrong in (2.5, np.float32(0.5), float("nan"), float("inf"), "2", None, True, jnp.ones(2)):
        with pytest.raises(ValueError, match="is a whole number") as error:
            WRONG_NUMBERS[name](wrong)
        assert "\n" not in str(error.value)


WRONG_SHARES = {
    "drop": lambda x: sparsity.set_(
        INNER_SGD, sparsity.periodic(0.5, every=1, end=3), key=KEY, drop=x, prunable=everything),
    "cosine": lambda x: sparsity.cosine_drop(x, 10),
    "keep": lambda x: sparsity.lottery_ticket(lambda p, m: p, EIGHT, rounds=1, keep=x, prunable=everything),
    "fisher": lambda x: sparsity.fisher(x),
    "per path": lambda x: sparsity.per_path({"*": x}),
    "default": lambda x: sparsity.per_path({}, default=x),
    "table": lambda x: sparsity.prune(INNER_SGD, sparsity.Schedule((1,), (x,)), prunable=everything),
    "stages": lambda x: sparsity.stage_sparsities(x, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_SHARES)
def test_a_percentage_is_no_share(name):
    for wrong in (30, np.float32(1.5), -0.1, float("nan"), jnp.nan):
        with pytest.raises(ValueError, match=r"\[0, 1\)|between 0 and 1|\(0, 1\)") as error:
            WRONG_SHARES[name](wrong)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        sparsity.Schedule((), ()),
        sparsity.Schedule((1, 1), (0.1, 0.2)),
        sparsity.Schedule((3, 1), (0.1, 0.2)),
        sparsity.Schedule((1, 2), (0.1,)),
        sparsity.Schedule((2**31,), (0.1,)),
        sparsity.Schedule((-1,), (0.1,)),
    ],
)
def test_a_table_that_is_no_schedule_is_refused(wrong):
    for make in (sparsity.prune, sparsity.straight_through, lambda *a, **k: sparsity.rigl(*a, key=KEY, **k)):
        with pytest.raises(ValueError, match="schedule"):
            make(INNER_SGD, wrong, prunable=everything)


def test_numbers_may_be_traced():
    def run(drop, decay, pull):
        schedule = sparsity.periodic(0.5, every=1, end=2)
        scored = {"score": sparsity.fisher(decay), "prunable": everything}
        txs = (
            sparsity.set_(INNER_SGD, schedule, key=KEY, drop=drop, prunable=everything),
            sparsity.prune(INNER_SGD, sparsity.constant(0.5, begin=1), **scored),
            sparsity.straight_through(INNER_SGD, schedule, decay=pull, prunable=everything),
        )
        return [tx.update(EIGHT, tx.init(EIGHT), EIGHT)[1].masks["w"].sum() for tx in txs]

    assert [int(n) for n in jax.jit(run)(0.3, 0.9, 1e-3)] == [4, 4, 4]
    phi = jnp.array([0.5, -0.5])
    slope = jax.jit(jax.grad(lambda p, s: sparsity.sigmoid_mask(p, steep=1e5, smooth=s).sum()))(phi, 2.0)
    soft = jax.nn.sigmoid(2.0 * phi)
    np.testing.assert_allclose(slope, 2.0 * soft * (1 - soft), rtol=1e-6)
