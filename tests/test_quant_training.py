"""Training under quantisers: identities, what composes, oscillation and its remedies, and qwix beside ours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import constraints, data, models, quant, sparsity, train
from jaxfair.typing import Batch

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(64, 6)).astype(np.float32), RNG.integers(0, 3, 64)
MODEL = models.mlp(3, hidden=(8,))
PARAMS, _ = MODEL.init(jax.random.key(0), X)
INT4 = quant.Quantizer(quant.signed, quant.per_channel())


def loss(params, apply=MODEL.apply):
    return optax.softmax_cross_entropy_with_integer_labels(apply(params, {}, X, train=True)[0], Y).mean()


def descend(tx, *, steps=8, at=None, apply=MODEL.apply, start=PARAMS):
    """-> the parameters and the state after some steps, in one program."""

    def step(carry, _):
        params, state = carry
        gradients = jax.grad(loss)(params if at is None else at(params, state), apply)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda: lax.scan(step, (start, tx.init(start)), None, steps)[0])()


def close(one, other, rtol=2e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-6), one, other)


# One weight: what the regulariser is.


def toy(wanted, eta, steps, *, regularised):
    """Levels at the whole numbers, and the loss E[(w x - y)^2] with S = 2."""
    x = jnp.array([1.0, -1.0, 2.0, -2.0, 1.0, 0.0, 2.0, -1.0])[:, None]
    power = jnp.mean(x**2)
    quantizer = quant.Quantizer(scale=quant.fixed(1.0))
    rule = {"bits": 4, "quantizer": quantizer}

    def of(params):
        return jnp.mean((x @ params["w"] - x[:, 0] * wanted) ** 2)

    if regularised:
        tx = optax.chain(quant.add_oscillation(power, **rule), optax.sgd(eta))
    else:
        tx = quant.quantized(optax.sgd(eta), **rule)

    def step(carry, _):
        params, state = carry
        at = params if regularised else quant.quantized_params(params, state)
        updates, state = tx.update(jax.grad(of)(at), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["w"][0]

    start = {"w": jnp.array([0.125])}
    return np.asarray(jax.jit(lambda: lax.scan(step, (start, tx.init(start)), None, steps)[1])())


def test_with_the_strength_of_the_inputs_the_regulariser_is_training_under_the_quantiser_step_for_step():
    # All numbers are sums of a few powers of two, so that both ways of adding them give the same bits.
    trained = toy(0.375, 2.0**-6, 400, regularised=False)
    np.testing.assert_array_equal(toy(0.375, 2.0**-6, 400, regularised=True), trained)
    assert (np.diff(np.round(trained)) != 0).sum() > 20  # it oscillates


def test_the_share_of_time_at_the_upper_level_is_where_the_weight_wants_to_be():
    trained = toy(0.37, 0.01, 2000, regularised=False)
    share = np.round(trained).mean()
    assert abs(share - 0.37) < 0.01  # .364 in the published toy, of fewer steps
    assert set(np.round(trained)) == {0.0, 1.0}


# The regulariser's gradient, by hand.


def test_the_oscillation_gradient_by_hand_with_and_without_the_step():
    w, lam, n = np.asarray(PARAMS["Dense_0"]["kernel"], np.float64), 0.7, 3
    s = np.abs(w).max() / n
    q = s * np.round(w / s)
    plain = 2 * lam / w.size * (q - w)
    through = plain.copy()
    top = np.unravel_index(np.abs(w).argmax(), w.shape)
    through[top] += 2 * lam / w.size * np.sum(q * (q - w) / s) * np.sign(w[top]) / n
    nothing = jax.tree.map(jnp.zeros_like, PARAMS)
    for step, expected in ((False, plain), (True, through)):
        tx = quant.add_oscillation(lam, 3, scale_gradient=step)
        updates, _ = jax.jit(tx.update)(nothing, tx.init(PARAMS), PARAMS)
        np.testing.assert_allclose(updates["Dense_0"]["kernel"], expected, rtol=1e-4, atol=1e-7)
        assert not np.asarray(updates["Dense_0"]["bias"]).any()
    close(updates, jax.tree.map(lambda g: lam * g, jax.jit(jax.grad(quant.oscillation))(PARAMS, 3)))


def test_dampening_by_hand_and_a_strength_that_is_scheduled_or_traced():
    w = np.asarray(PARAMS["Dense_0"]["kernel"], np.float64)
    s = np.abs(w).max()
    nothing = jax.tree.map(jnp.zeros_like, PARAMS)

    @jax.jit
    def damped(strength):
        tx = quant.add_dampening(strength, 2)
        return tx.update(nothing, tx.init(PARAMS), PARAMS)[0]["Dense_0"]["kernel"]

    np.testing.assert_allclose(damped(0.5), w - s * np.round(w / s), rtol=1e-4, atol=1e-6)
    tx = quant.add_dampening(lambda step: 0.5 * step, 2)
    first, state = tx.update(nothing, tx.init(PARAMS), PARAMS)
    second, _ = tx.update(nothing, state, PARAMS)
    assert not np.asarray(first["Dense_0"]["kernel"]).any()
    np.testing.assert_allclose(second["Dense_0"]["kernel"], damped(0.5), rtol=1e-6)


# Training under a quantiser.


def test_the_gradient_at_the_levels_is_the_one_that_goes_straight_through():
    """The transformation, and the network that is quantised in its forward pass, train alike."""
    around, state = descend(quant.quantized(optax.sgd(0.3), bits=3), at=quant.quantized_params)
    inside, _ = descend(optax.sgd(0.3), apply=quant.model(MODEL, 3).apply)
    close(around, inside)
    levels = quant.quantized_params(around, state)["Dense_0"]["kernel"]
    assert len(np.unique(np.asarray(levels))) <= 7
    close(levels, quant.quantize_params(around, quant.grids(around, 3))["Dense_0"]["kernel"], rtol=1e-6)


@pytest.mark.parametrize("order", ["prune around", "prune inside"])
def test_pruned_weights_stay_exactly_zero_at_the_levels_too(order):
    schedule = sparsity.polynomial(0.75, begin=0, end=6, every=2)
    if order == "prune around":
        tx = sparsity.prune(quant.quantized(optax.adam(0.05), bits=4), schedule, prunable=MODEL.prunable)
    else:
        tx = quant.quantized(sparsity.prune(optax.adam(0.05), schedule, prunable=MODEL.prunable), bits=4)
    params, state = descend(tx, at=quant.quantized_params)
    mask = np.asarray(sparsity.get_masks(state)["Dense_0"]["kernel"])
    assert (~mask).sum() == 36  # of 48
    for tree in (params, quant.quantized_params(params, state)):
        assert not np.asarray(tree["Dense_0"]["kernel"])[~mask].any()


@pytest.mark.slow
def test_a_quantised_and_pruned_network_is_trained_under_a_bound_on_each_group():
    network = quant.model(MODEL, 4)
    problem = constraints.excess_accuracy_gap(
        network.apply, num_groups=2, tolerance=0.01, loss=constraints.cross_entropy
    )
    group = RNG.integers(0, 2, len(Y)).astype(np.int32)
    batch = Batch(X, Y.astype(np.int32), group, np.arange(len(Y), dtype=np.int32), np.ones(len(Y), np.float32))
    tx = sparsity.prune(optax.adam(0.05), sparsity.constant(0.5), prunable=MODEL.prunable)
    solver = constraints.solver(problem, primal=tx, dual=optax.sgd(0.1))
    state = solver.init(PARAMS, problem.init({}, constraints.outcomes(np.zeros((64, 3), np.float32), Y), batch))
    step = jax.jit(solver.step)
    for _ in range(3):
        state, info = step(state, batch, jax.random.key(0))
    kernel = np.asarray(state.params["Dense_0"]["kernel"])
    assert (kernel == 0).sum() == 24
    assert np.isfinite(info.loss)
    levels = quant.quantize_params(state.params, quant.grids(state.params, 4))
    logits = [net.apply(tree, {}, X, train=False)[0] for net, tree in ((network, state.params), (MODEL, levels))]
    np.testing.assert_array_equal(*logits)


def test_learned_steps_have_the_gradient_of_lsq_and_move_by_their_own_optimizer():
    quantizer = quant.Quantizer(scale=quant.learned)
    tx = quant.quantized(optax.sgd(0.0), bits=3, quantizer=quantizer, learning=optax.sgd(1.0))
    state = tx.init(PARAMS)
    grids = quant.get_grids(state)

    def at(scale):
        grid = grids["Dense_0"]["kernel"]._replace(scale=scale)
        params = jax.tree.map(lambda w: w, PARAMS)
        params["Dense_0"]["kernel"] = quant.fake_quantize(PARAMS["Dense_0"]["kernel"], grid, scale_gradient=True)
        params["Dense_1"] = quant.quantize_params(PARAMS, grids)["Dense_1"]
        return loss(params)

    scale = grids["Dense_0"]["kernel"].scale
    gradients = jax.jit(jax.grad(loss))(quant.quantized_params(PARAMS, state))
    _, after = jax.jit(tx.update)(gradients, state, PARAMS)
    expected = scale - jax.jit(jax.grad(at))(scale) / np.sqrt(48 * 3)
    np.testing.assert_allclose(quant.get_grids(after)["Dense_0"]["kernel"].scale, expected, rtol=1e-5)


@pytest.mark.slow
def test_bits_are_lanes_of_one_program():
    def final(bits):
        tx = quant.quantized(optax.sgd(0.1), bits=bits)
        state = tx.init(PARAMS)
        gradients = jax.grad(loss)(quant.quantized_params(PARAMS, state))
        updates, state = tx.update(gradients, state, PARAMS)
        params = optax.apply_updates(PARAMS, updates)
        return quant.quantized_params(params, state)

    lanes = jax.jit(jax.vmap(final))(jnp.array([2, 4]))
    for lane, bits in enumerate((2, 4)):
        # Sums in lanes are taken in another order, which moves a weight over a threshold hardly ever.
        close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes), jax.jit(final)(bits), rtol=1e-4)


def test_what_does_not_go_together_is_one_line():
    lsq = quant.Quantizer(scale=quant.learned)
    with pytest.raises(ValueError, match="learned scales need learning="):
        quant.quantized(optax.sgd(0.1), bits=4, quantizer=lsq)
    with pytest.raises(ValueError, match="learning= is of learned scales"):
        quant.quantized(optax.sgd(0.1), bits=4, learning=optax.sgd(0.1))
    with pytest.raises(ValueError, match="needs the parameters"):
        quant.quantized(optax.sgd(0.1), bits=4).update(PARAMS, quant.quantized(optax.sgd(0.1), bits=4).init(PARAMS))
    with pytest.raises(ValueError, match=r"bits=0"):
        quant.add_oscillation(1.0, 0).update(PARAMS, quant.add_oscillation(1.0, 2).init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"strength=-1.0"):
        quant.add_oscillation(-1.0, 3)
    with pytest.raises(ValueError, match="threshold=0"):
        quant.watch(quant.quantized(optax.sgd(0.1), bits=4), threshold=0)
    with pytest.raises(ValueError, match="found 0"):
        quant.get_grids(optax.sgd(0.1).init(PARAMS))


# Oscillation measured and frozen.


def test_flips_frequencies_and_freezing_by_hand():
    """A weight is led along a path of codes; NumPy follows it."""
    path = np.array([0, 1, 0, 1, 1, 2, 1, 0, 0, 1, 0, 1, 0, 1])
    momentum, threshold = 0.25, 0.6
    rule = quant.Quantizer(scale=quant.fixed(1.0))
    tx = quant.watch(quant.quantized(optax.sgd(1.0), bits=4, quantizer=rule), threshold=threshold, momentum=momentum)
    params = {"w": jnp.array([0.0, 3.0])}
    state = tx.init(params)
    code, last, frequency, average, frozen = 0, 0, 0.0, 0.0, False
    for wanted in path[1:]:
        gradients = {"w": params["w"] - jnp.array([wanted, 3.0])}
        updates, state = jax.jit(tx.update)(gradients, state, params)
        params = optax.apply_updates(params, updates)
        now = code if frozen else wanted
        turn = np.sign(now - code)
        frequency = momentum * (turn != 0 and turn == -last) + (1 - momentum) * frequency
        average = momentum * now + (1 - momentum) * average
        if frequency > threshold and not frozen:
            frozen, now = True, round(average)
        last, code = (turn or last), now
        seen = state.seen[0]
        np.testing.assert_allclose(seen.frequency[0], frequency, rtol=1e-6)
        np.testing.assert_allclose(state.flips, (turn != 0) / 2)
        assert (int(seen.code[0]), bool(seen.frozen[0])) == (code, frozen)
        assert float(params["w"][0]) == code
    assert frozen
    found = quant.oscillations(state)
    assert (float(found.frozen), float(found.oscillating)) == (0.5, 0.5)
    assert float(params["w"][1]) == 3.0


@pytest.mark.slow
def test_weights_under_a_quantiser_gather_at_thresholds_and_dampened_ones_at_levels():
    """The regulariser drives weights away from their level, dampening to it: seen in the histogram of the bin."""
    found = {}
    for name, extra in (("osc", quant.add_oscillation(20.0, 3)), ("damp", quant.add_dampening(0.5, 3))):
        params, _ = descend(optax.chain(extra, optax.sgd(0.1)), steps=60)
        found[name] = np.asarray(quant.bin_histogram(params, quant.grids(params, 3), bins=10))
    near = slice(4, 6)
    assert found["damp"][near].sum() > 0.5 > found["osc"][near].sum()
    assert found["osc"][[0, 9]].sum() > 0.3


@pytest.mark.slow
def test_training_under_two_bits_beats_rounding_to_them_afterwards():
    digits = data.load("digits")
    network = models.mlp(10, hidden=(32,))
    params, _ = network.init(jax.random.key(0), digits.train.x[:1])
    accuracy = {}
    for name, tx, at in (
        ("float", optax.adam(3e-3), None),
        ("trained", quant.quantized(optax.adam(3e-3), bits=2), quant.quantized_params),
    ):
        solver = train.descent(network.apply, tx, at=at)
        step = lambda state, _, solver=solver: solver.step(state, digits.train, None)
        state, _ = jax.jit(lambda s, step=step: lax.scan(step, s, None, 300))(solver.init(params))
        rounded = quant.quantize_params(state.params, quant.grids(state.params, 2))
        logits, _ = network.apply(rounded, {}, digits.test.x, train=False)
        accuracy[name] = float((jnp.argmax(logits, 1) == digits.test.y).mean())
    assert accuracy["trained"] > 0.85
    assert accuracy["trained"] > accuracy["float"] + 0.05


# qwix, where it does the same.

# What it calls of flax has newer names by now.
qwixed = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@qwixed
@pytest.mark.parametrize(
    ("bits", "quantizer"),
    [
        (4, INT4), (8, quant.Quantizer(quant.affine, quant.per_channel())),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((3, INT4), (4, quant.Quantizer(quant.signed)))),
    ],
    ids=["int4", "affine int8", "int3", "int4 per tensor"],
)  # fmt: skip
def test_ours_and_qwix_give_the_same_logits_and_gradients(bits, quantizer):
    import flax.linen as nn
    import qwix

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            x = nn.relu(nn.Dense(8)(x))
            return nn.Dense(3)(x)

    provider = qwix.QtProvider([quant.qwix_rule(bits, quantizer=quantizer)])
    theirs = models.linen(qwix.quantize_model(Net(), provider), prunable=MODEL.prunable)
    ours = quant.model(models.linen(Net(), prunable=MODEL.prunable), bits, quantizer=quantizer)
    both = [jax.jit(jax.value_and_grad(functools.partial(loss, apply=net.apply)))(PARAMS) for net in (ours, theirs)]
    close(*both, rtol=1e-5)


@pytest.mark.slow
@qwixed
def test_an_nnx_network_goes_through_both_as_well():
    import qwix
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, *, rngs):
            self.hidden = nnx.Linear(6, 8, rngs=rngs)
            self.last = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.last(jax.nn.relu(self.hidden(x)))

    provider = qwix.QtProvider([quant.qwix_rule(4)])
    theirs = models.nnx(lambda rngs: qwix.quantize_model(Net(rngs=rngs), provider, X), prunable=MODEL.prunable)
    plain = models.nnx(Net, prunable=MODEL.prunable)
    params, state = plain.init(jax.random.key(0), X)
    logits = [
        net.apply(params, state, X, train=False)[0] for net in (quant.model(plain, 4, quantizer=INT4), theirs, plain)
    ]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-6)
    assert np.abs(logits[0] - logits[2]).max() > 0.01


@qwixed
def test_the_arrays_of_qwix_are_ours():
    import qwix

    w = jnp.asarray(RNG.normal(size=(16, 5)), jnp.float32)
    for bits, kind, axes in ((4, "int4", {}), (8, "int8", {}), (3, "int3", {}), (4, "int4", {0: 4})):
        theirs = qwix.quantize(w, kind, channelwise_axes=[1], tiled_axes=axes)
        who = quant.per_group(4) if axes else quant.per_channel()
        grid = quant.calibrate(w, bits, quant.Quantizer(quant.signed, who))
        np.testing.assert_allclose(grid.scale, theirs.scale, rtol=1e-6)
        off = np.asarray(quant.codes(w, grid) != theirs.qvalue.astype(jnp.int32))
        # The extreme below zero of each scale lies half way between two levels: either is right.
        assert off.sum() <= grid.scale.size
        edge = np.asarray(w / jnp.repeat(grid.scale, 16 // grid.scale.shape[0], axis=0))[off]
        np.testing.assert_allclose(edge, 0.5 - 2.0 ** (bits - 1), rtol=1e-5)


def test_what_qwix_does_not_have_is_one_line():
    for options, word in (
        ({"bits": 9}, "qwix has 2 to 8 bits"),
        ({"bits": 4, "quantizer": quant.Quantizer()}, "qwix has no such levels"),
        ({"bits": 5, "quantizer": quant.Quantizer(quant.affine)}, "of 4 and 8 bits only"),
        ({"bits": 4, "quantizer": INT4._replace(granularity=quant.per_channel(0))}, "qwix has per_tensor"),
        ({"bits": 4, "layers": "("}, "no regular expression"),
    ):
        with pytest.raises(ValueError, match=word):
            quant.qwix_rule(**options)
    with pytest.raises(Exception, match="model"):
        quant.model(MODEL.apply, 4)
