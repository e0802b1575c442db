"""Robust objectives: eight laws over a table, numbers computed by hand, and the published loops written out."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints, data, metrics, models, optim, robust, train
from jaxfair.typing import Batch

LOSSES = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
UNIFORM = np.full(4, 0.25, np.float32)
#: ``name -> (weights_of(losses, p, number), number, the number at which it is the mean)``.
ANSWERS = {
    "cvar": (robust.cvar_weights, 0.6, 1.0),
    "chi_square": (robust.chi_square_weights, 0.3, 0.0),
    "kl_ball": (robust.kl_ball_weights, 0.4, 0.0),
    "kl_penalty": (robust.kl_penalty_weights, 0.7, math.inf),
}
MAKERS = {"cvar": robust.cvar, "chi_square": robust.chi_square, "kl_ball": robust.kl_ball}
MAKERS["kl_penalty"] = robust.kl_penalty
# The bisections end at the rounding of float32; the laws hold to a few of its last places.
CLOSE = {"atol": 3e-6}


@pytest.fixture(scope="module")
def answer():
    """``answer(name, losses, p, number) -> weights`` in NumPy, compiled once for each length."""
    compiled = {name: jax.jit(made) for name, (made, _, _) in ANSWERS.items()}

    def of(name, losses, p, number=None):
        number = ANSWERS[name][1] if number is None else number
        arrays = (jnp.asarray(v, jnp.float32) for v in (losses, p, number))
        return np.asarray(compiled[name](*arrays))

    return of


def batch_of(weight, group=None, y=None):
    size = len(weight)
    zero = np.zeros(size, np.int32)
    group, y = (zero if v is None else np.asarray(v, np.int32) for v in (group, y))
    return Batch(np.zeros((size, 1), np.float32), y, group, np.arange(size, dtype=np.int32), np.asarray(weight))


# Some losses and nominal weights with padding, ties, and negative numbers.
CASES = [
    (LOSSES, UNIFORM),
    (np.array([3.0, 1.0, 3.0, -2.0]), np.array([0.1, 0.4, 0.2, 0.3])),
    (np.array([0.5, 99.0, 0.25, 0.5]), np.array([0.5, 0.0, 0.25, 0.25])),
]


@pytest.mark.parametrize(("losses", "p"), CASES, ids=["plain", "weighted", "padded"])
@pytest.mark.parametrize("name", ANSWERS)
def test_weights_are_a_distribution_that_does_not_know_the_order(name, losses, p, answer):
    weights = answer(name, losses, p)
    np.testing.assert_allclose(weights.sum(), 1.0, atol=1e-6)
    assert (weights >= 0).all()
    assert (weights[p == 0] == 0).all()
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(answer(name, losses[order], p[order]), weights[order], **CLOSE)


@pytest.mark.parametrize(("losses", "p"), CASES, ids=["plain", "weighted", "padded"])
@pytest.mark.parametrize("name", ANSWERS)
def test_the_worse_weigh_more_and_the_value_lies_between_mean_and_maximum(name, losses, p, answer):
    weights = answer(name, losses, p)
    there = p > 0
    ratio = weights[there] / p[there]
    order = np.argsort(losses[there])
    assert (np.diff(ratio[order]) >= -1e-5).all()
    value = weights[there] @ losses[there]
    assert p[there] @ losses[there] - 1e-5 <= value <= losses[there].max() + 1e-5


@pytest.mark.parametrize("name", ANSWERS)
def test_equal_losses_have_their_nominal_weights(name, answer):
    p = np.array([0.1, 0.2, 0.7, 0.0], np.float32)
    for constant in (0.0, -3.0, 1e4):
        np.testing.assert_allclose(answer(name, np.full(4, constant), p), p, atol=1e-6)


@pytest.mark.parametrize("name", ANSWERS)
def test_at_its_limit_it_is_ordinary_training_bit_for_bit(name, answer):
    batch = batch_of(np.array([1.0, 2.0, 0.0, 1.0], np.float32))
    limit = ANSWERS[name][2]
    plain, _, _ = robust.erm().weigh((), jnp.asarray(LOSSES), batch, None)
    weights, _, info = MAKERS[name](limit).weigh((), jnp.asarray(LOSSES), batch, None)
    np.testing.assert_array_equal(weights, plain)
    assert float(info.effective) == 1.0
    # Close to it the distance is of the order of the root of the radius; a temperature of 1e6 is as good as infinite.
    near = {"cvar": 1 - 1e-6, "kl_penalty": 1e6}.get(name, 1e-8)
    np.testing.assert_allclose(answer(name, LOSSES, UNIFORM, near), UNIFORM, atol=2e-4)


@pytest.mark.parametrize("name", ANSWERS)
def test_at_the_other_end_it_is_the_worst_example(name, answer):
    worst = {"cvar": 1e-6, "kl_penalty": 1e-3}.get(name, 50.0)
    np.testing.assert_allclose(answer(name, LOSSES, UNIFORM, worst), [0, 0, 0, 1], atol=1e-6)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_constant_changes_nothing_and_a_factor_only_what_is_measured_in_losses(name, answer):
    weights = answer(name, LOSSES, UNIFORM)
    np.testing.assert_allclose(answer(name, LOSSES + 7.0, UNIFORM), weights, **CLOSE)
    scaled = answer(name, 3.0 * LOSSES, UNIFORM)
    if name == "kl_penalty":
        assert np.abs(scaled - weights).max() > 0.05
    else:
        np.testing.assert_allclose(scaled, weights, **CLOSE)


@pytest.mark.parametrize("name", ANSWERS)
def test_whole_weights_are_rows_that_are_there_several_times(name, answer):
    losses, times = np.array([1.0, 2.0, 4.0]), np.array([5, 3, 2])
    weights = answer(name, losses, times / 10)
    rows = answer(name, np.repeat(losses, times), np.full(10, 0.1))
    np.testing.assert_allclose(np.add.reduceat(rows, [0, 5, 8]), weights, **CLOSE)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_weights_are_the_gradient_of_the_value(name):
    """Danskin's theorem, by central differences of the value as reported, in float32: good to a part in a thousand."""
    batch = batch_of(np.array([1.0, 2.0, 1.0, 0.5], np.float32))
    objective = MAKERS[name](ANSWERS[name][1])
    value = jax.jit(lambda losses: objective.weigh((), losses, batch, None)[2].value)
    weights = objective.weigh((), jnp.asarray(LOSSES), batch, None)[0]
    step = 0.05 * np.eye(4, dtype=np.float32)
    slope = [float(value(LOSSES + d) - value(LOSSES - d)) / 0.1 for d in step]
    np.testing.assert_allclose(slope, weights, atol=2e-3)


def test_seeds_side_by_side_are_seeds_one_by_one(answer):
    losses = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    p = jnp.asarray(UNIFORM)
    for name, (made, number, _) in ANSWERS.items():
        together = jax.vmap(lambda row, made=made, number=number: made(row, p, number))(jnp.asarray(losses))
        alone = [answer(name, row, UNIFORM) for row in losses]
        np.testing.assert_allclose(together, alone, **CLOSE)


# By hand: see Rockafellar and Uryasev for the first, the formulas of the docstrings for the others.
ORACLES = [
    ("cvar", LOSSES, UNIFORM, 0.5, (0, 0, 0.5, 0.5), 3.5),
    ("cvar", LOSSES, UNIFORM, 0.6, (0, 0.166667, 0.416667, 0.416667), 3.25),
    ("cvar", LOSSES, UNIFORM, 0.25, (0, 0, 0, 1), 4.0),
    ("chi_square", LOSSES, UNIFORM, 0.1, (0.1, 0.2, 0.3, 0.4), 3.0),
    ("chi_square", LOSSES, UNIFORM, 0.5, (0, 0.044658, 0.333333, 0.622008), 3.577350),
    ("chi_square", LOSSES, UNIFORM, 1.0, (0, 0, 0.146447, 0.853553), 3.853553),
    ("kl_ball", LOSSES, UNIFORM, 0.1, None, 2.994274),
    ("kl_ball", LOSSES, UNIFORM, 0.5, (0.024881, 0.074783, 0.224769, 0.675567), 3.551022),
    ("kl_ball", LOSSES, UNIFORM, 1.0, None, 3.877718),
    ("cvar", (1, 2, 4), (0.5, 0.3, 0.2), 0.4, (0, 0.5, 0.5), 3.0),
    ("chi_square", (1, 2, 4), (0.5, 0.3, 0.2), 0.2, (0.249419, 0.316705, 0.433875), 2.618331),
    ("kl_penalty", (1, 2, 4), (0.5, 0.3, 0.2), 1.0, (0.093763, 0.152925, 0.753312), None),
    ("kl_penalty", (0, 1, 0, 1), UNIFORM, 1.0, (0.134471, 0.365529, 0.134471, 0.365529), None),
]


@pytest.mark.parametrize(("name", "losses", "p", "number", "weights", "value"), ORACLES)
def test_numbers_by_hand(name, losses, p, number, weights, value, answer):
    found = answer(name, losses, p, number)
    if weights is not None:
        np.testing.assert_allclose(found, weights, atol=4e-6)
    if value is not None:
        np.testing.assert_allclose(found @ np.asarray(losses, np.float32), value, atol=5e-6)


def test_of_normal_losses_a_ball_adds_a_multiple_of_their_deviation(answer):
    """The value is mu + s sqrt(2 kappa); of 20,000 draws to a part in a hundred."""
    losses = np.random.default_rng(1).normal(1.0, 2.0, 20_000)
    weights = answer("kl_ball", losses, np.full(20_000, 1 / 20_000), 0.5)
    np.testing.assert_allclose(weights @ losses, 3.0, rtol=0.02)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_loss_that_is_not_a_number_is_never_left_out_in_silence(name, answer):
    assert np.isnan(answer(name, np.array([1.0, np.nan, 2.0, 3.0]), UNIFORM)).any()
    padded = answer(name, np.array([1.0, np.nan, 2.0, 3.0]), np.array([0.4, 0.0, 0.3, 0.3]))
    assert np.isfinite(padded).all()


def test_a_batch_of_nobody_has_no_weights():
    for name, make in MAKERS.items():
        batch = batch_of(np.zeros(4, np.float32))
        weights = make(ANSWERS[name][1]).weigh((), jnp.zeros(4), batch, None)[0]
        assert np.isfinite(weights).all()
        np.testing.assert_array_equal(weights, 0)


# --- groups ---------------------------------------------------------------------------------------------------------


def published_group_dro(x, y, group, rate, learning_rate, adjustment, sizes):
    """The authors' loop, with NumPy: q first, then the weights. Three features, squared loss, momentum 0.9."""
    theta, velocity, q = np.zeros(3), np.zeros(3), np.full(4, 0.25)
    for rows, labels, who in zip(x, y, group, strict=True):
        error = rows @ theta - labels
        means = np.array([(error[who == g] ** 2).mean() if (who == g).any() else 0.0 for g in range(4)])
        pressed = np.array([means[g] + adjustment / np.sqrt(sizes[g]) if (who == g).any() else 0.0 for g in range(4)])
        q = q * np.exp(rate * pressed)
        q = q / q.sum()
        gradient = np.zeros(3)
        for g in range(4):
            if (who == g).any():
                gradient += q[g] * 2 * (error[who == g][:, None] * rows[who == g]).mean(0)
        velocity = 0.9 * velocity + gradient
        theta = theta - learning_rate * velocity
    return theta, q


@pytest.fixture(scope="module")
def in_groups():
    """Sixty batches of six people in four groups, of which some are absent at times."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6, 3)).astype(np.float32)
    group = rng.integers(0, 4, (60, 6)).astype(np.int32)
    y = (x @ np.array([1.0, -1.0, 0.5]) * (1 + group) + rng.normal(size=(60, 6))).astype(np.float32)
    assert sum(len(set(row)) < 4 for row in group) > 20
    index = np.broadcast_to(np.arange(6, dtype=np.int32), (60, 6))
    # The targets travel as a feature more, since y is a class elsewhere.
    return Batch(np.concatenate([x, y[..., None]], -1), np.zeros((60, 6), np.int32), group, index, np.ones((60, 6)))


def linear(params, state, x, *, train, key=None):
    error = x[:, :3] @ params - x[:, 3]
    return jnp.stack([error, error], 1), state


def squared(logits, batch):
    return logits[:, 0] ** 2


@pytest.mark.parametrize("adjustment", [0.0, 2.0])
def test_group_dro_is_the_published_loop_and_so_is_the_game(adjustment, in_groups):
    sizes = [40, 30, 20, 10]
    x, y = in_groups.x[..., :3].astype(float), in_groups.x[..., 3].astype(float)
    theta, q = published_group_dro(x, y, in_groups.group, 0.05, 0.01, adjustment, sizes)
    tx = optax.sgd(0.01, momentum=0.9)
    objective = robust.group_dro(4, rate=0.05, sizes=sizes, adjustment=adjustment)
    solver = robust.solver(linear, objective, tx, loss=squared)
    first = jax.tree.map(lambda leaf: leaf[0], in_groups)
    start = solver.init(jnp.zeros(3), {}, objective.init(jax.random.key(0), first))
    state, _ = jax.lax.scan(lambda s, b: solver.step(s, b, None), start, in_groups)
    # Sixty steps in float32 beside float64.
    np.testing.assert_allclose(state.params, theta, rtol=2e-5)
    np.testing.assert_allclose(jnp.exp(state.adversary.log_q), q, rtol=2e-5)

    pressure = adjustment / np.sqrt(np.array(sizes, np.float32))
    problem = constraints.worst_group(linear, num_groups=4, loss=squared, adjustment=pressure)
    game = constraints.solver(problem, primal=tx, dual=optax.sgd(0.05))
    played, _ = jax.lax.scan(lambda s, b: game.step(s, b), game.init(jnp.zeros(3), problem.init({})), in_groups)
    np.testing.assert_allclose(played.params, theta, rtol=2e-5)
    np.testing.assert_allclose(jax.nn.softmax(played.multipliers), q, rtol=2e-5)


@pytest.mark.parametrize(
    "method",
    [optim.extragradient(0.05), optim.optimistic_gradient(0.05), optim.omega(0.05)],
    ids=["eg", "ogd", "omega"],
)
def test_every_min_max_optimizer_plays_the_worst_group(method):
    """Losses t^2 and 4 (t - 1)^2: at 2/3 both are 4/9, with weights of 2/3 and 1/3."""

    def apply(params, state, x, *, train, key=None):
        return jnp.tile(params, (len(x), 2)), state

    def loss(logits, batch):
        return jnp.where(batch.y == 0, 1.0, 4.0) * (logits[:, 0] - batch.y) ** 2

    problem = constraints.worst_group(apply, num_groups=2, loss=loss)
    game = constraints.solver(problem, joint=method)
    batch = batch_of(np.ones(2, np.float32), group=[0, 1], y=[0, 1])
    start = game.init(jnp.zeros(1), problem.init({}))
    state, info = jax.lax.scan(lambda s, _: game.step(s, batch), start, length=4000)
    np.testing.assert_allclose(state.params, 2 / 3, atol=1e-3)
    np.testing.assert_allclose(info.strict[-1], 4 / 9, atol=1e-3)
    np.testing.assert_allclose(info.weights[-1], [2 / 3, 1 / 3], atol=2e-3)


def test_one_group_is_ordinary_training_and_so_are_weights_that_stay_at_the_shares():
    losses = jnp.array([1.0, 5.0, 2.0, 4.0])
    batch = batch_of(np.ones(4, np.float32), group=[0, 0, 0, 1])
    one = robust.group_dro(1, rate=0.5)
    alone = batch._replace(group=np.zeros(4, np.int32))
    np.testing.assert_allclose(one.weigh(one.init(None, alone), losses, alone, None)[0], UNIFORM, rtol=1e-6)
    for still in (robust.group_dro(2, rate=0, sizes=[3, 1]), robust.group_cvar(2, sizes=[3, 1], alpha=1.0)):
        np.testing.assert_allclose(still.weigh(still.init(None, batch), losses, batch, None)[0], UNIFORM, rtol=1e-6)


def test_who_has_no_group_and_who_is_absent():
    """Nobody's example has no weight; the weights of those present sum to their share of q."""
    objective = robust.group_dro(3, rate=0.0)
    batch = batch_of(np.ones(4, np.float32), group=[0, 1, 1, -1])
    weights, _, info = objective.weigh(objective.init(None, batch), jnp.asarray(LOSSES), batch, None)
    np.testing.assert_allclose(weights, [1 / 3, 1 / 6, 1 / 6, 0], rtol=1e-6)
    np.testing.assert_allclose(info.group_loss, [1.0, 2.5, 0.0])


# --- adversaries with parameters ------------------------------------------------------------------------------------


def table(size):
    """An adversary that sees nothing but the class: of a linear network on inputs of 0 the biases are its scores."""
    return models.mlp(size, hidden=())


#: Nine in ten people are in cell 0, half with a loss of 0 and half of 2; in cell 1 everybody loses 1.1.
CELL = np.array([0] * 18 + [1] * 2, np.int32)
CELL_LOSSES = np.array([0.0, 2.0] * 9 + [1.1] * 2, np.float32)


@pytest.mark.parametrize(
    ("temperature", "hard", "noisy"), [(1.0, 0.109367, 0.073713), (0.5, 0.119495, 0.034816), (0.2, 0.154828, 0.002462)]
)
def test_one_adversary_runs_to_hard_cells_and_the_other_to_noisy_ones(temperature, hard, noisy):
    batch = batch_of(np.ones(20, np.float32), group=CELL, y=CELL)
    losses = jnp.asarray(CELL_LOSSES)
    tx = optax.sgd(2.0 / max(temperature, 0.5))
    ratio = robust.ratio_dro(table(2), tx, temperature=temperature)
    density = robust.cells(lambda b: b.group, [18, 2])
    fitted = robust.parametric_dro(density, optax.sgd(1.0), temperature=temperature)
    zero_sum = robust.parametric_dro(density, tx, temperature=temperature, fit="zero_sum")
    for objective, mass in ((ratio, hard), (zero_sum, hard), (fitted, noisy)):

        def one(carry, _, objective=objective):
            weights, carry, _ = objective.weigh(carry, losses, batch, None)
            return carry, weights

        _, weights = jax.lax.scan(one, objective.init(jax.random.key(0), batch), length=3000)
        np.testing.assert_allclose(weights[0], 0.05, rtol=1e-5)  # it starts as ordinary training
        np.testing.assert_allclose(weights[-1][18:].sum(), mass, atol=2e-4)


def test_an_adversary_that_can_say_anything_says_the_answer_of_the_penalty():
    batch = batch_of(np.ones(4, np.float32), y=[0, 1, 2, 3])
    objective = robust.ratio_dro(table(4), optax.sgd(1.0), temperature=1.0)

    def one(carry, _):
        weights, carry, info = objective.weigh(carry, jnp.asarray(LOSSES), batch, None)
        return carry, (weights, info)

    _, (weights, info) = jax.lax.scan(one, objective.init(jax.random.key(0), batch), length=1000)
    np.testing.assert_allclose(weights[-1], (0.032059, 0.087144, 0.236883, 0.643914), atol=1e-5)
    assert float(info.divergence[0]) == 0.0
    assert float(info.divergence[-1]) > 0.3


def test_a_density_of_a_ball_finds_its_temperature_and_one_of_features_finds_who_is_lost():
    density = robust.cells(lambda b: b.group, [1, 1, 1, 1])
    batch = batch_of(np.ones(4, np.float32), group=[0, 1, 2, 3])
    objective = robust.parametric_dro(density, optax.sgd(1.0), radius=0.5)

    def play(objective, batch, losses):
        def one(carry, _):
            weights, carry, _ = objective.weigh(carry, losses, batch, None)
            return carry, weights

        return jax.lax.scan(one, objective.init(None, batch), length=1000)[1][-1]

    weights = play(objective, batch, jnp.asarray(LOSSES))
    np.testing.assert_allclose(weights, (0.024881, 0.074783, 0.224769, 0.675567), atol=1e-4)
    x = np.array([[0.0], [1.0], [0.0], [1.0]], np.float32)
    y = np.array([0, 0, 1, 1], np.int32)
    lost = Batch(x, y, y, y, np.ones(4, np.float32))
    features = robust.parametric_dro(robust.gaussians(x, y, 2), optax.sgd(0.05), temperature=1.0)
    weights = play(features, lost, jnp.array([0.0, 1.0, 0.0, 0.0]))
    assert int(jnp.argmax(weights)) == 1


# --- training -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted():
    return data.planted(key=jax.random.key(0), num_train=1000, num_validation=100, num_test=100, minority_test=20)


def trained(planted, objective, tx=None, epochs=1, seeds=2):
    model = models.mlp(planted.num_classes, hidden=(4,))
    solver = robust.solver(model.apply, objective, tx or optax.sgd(0.1))
    keys = jax.random.split(jax.random.key(0), seeds)
    some = jax.tree.map(lambda leaf: leaf[:32], planted.train)

    def start(key):
        params, state = model.init(key, some.x)
        return solver.init(params, state, objective.init(key, some))

    return model, train.fit(solver, jax.vmap(start)(keys), planted.train, keys=keys, epochs=epochs, batch_size=32)


def test_without_an_adversary_it_is_plain_training(planted):
    model, state = trained(planted, robust.erm())
    solver = train.descent(model.apply, optax.sgd(0.1))
    keys = jax.random.split(jax.random.key(0), 2)
    start = jax.vmap(lambda key: solver.init(*model.init(key, planted.train.x[:32])))(keys)
    plain = train.fit(solver, start, planted.train, keys=keys, epochs=1, batch_size=32)
    # The mean as a sum of weighted losses is rounded otherwise.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.solver.params, plain.solver.params)


@pytest.mark.parametrize("name", ["cvar", "group", "ratio", "density"])
def test_each_kind_trains_in_lanes(name, planted):
    groups = planted.num_groups
    classifier = models.mlp(planted.num_classes, hidden=(2,))
    objective = {
        "cvar": robust.cvar(0.5),
        "group": robust.group_dro(groups, rate=0.1),
        "ratio": robust.ratio_dro(classifier, optax.adam(1e-3), temperature=1.0),
        "density": robust.parametric_dro(
            robust.cells(lambda b: b.group, np.bincount(planted.train.group, minlength=groups)),
            optax.sgd(0.1),
            temperature=1.0,
        ),
    }[name]
    model, state = trained(planted, objective)
    assert (state.failed_at == -1).all()
    first = jax.tree.map(lambda leaf: leaf[0], state.solver)
    logits, _ = model.apply(first.params, first.model_state, planted.train.x, train=False)
    share = float(metrics.correct(logits, planted.train.y).mean())
    assert share > 0.6, share


def test_a_transformation_that_looks_again_sees_the_weights_of_this_step():
    """SAM by hand: half a step up along the weighted gradient, and the weighted gradient there."""

    def climbs(rho):
        def update(updates, state, params=None, *, operator_fn, **_):
            norm = optax.tree.norm(updates)
            return operator_fn(jax.tree.map(lambda p, g: p + rho * g / norm, params, updates)), state

        return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    batch = batch_of(np.ones(2, np.float32), y=[0, 1])._replace(x=np.eye(2, dtype=np.float32))

    def apply(params, state, x, *, train, key=None):
        return x @ params, state

    start = jnp.array([[1.0, 0.0], [0.5, 0.0]])
    solver = robust.solver(apply, robust.cvar(0.5), optax.chain(climbs(0.1), optax.scale(-1.0)))
    state, info = solver.step(solver.init(start), batch, jax.random.key(0))
    assert info.aux.weights.tolist() == [0.0, 1.0]

    def worst(params):
        return optax.softmax_cross_entropy_with_integer_labels(params[1], 1)

    gradient = jax.grad(worst)(start)
    there = start + 0.1 * gradient / jnp.linalg.norm(gradient)
    np.testing.assert_allclose(state.params, start - jax.grad(worst)(there), atol=1e-6)


# --- what cannot be -------------------------------------------------------------------------------------------------

BAD = {
    "share 0": (lambda: robust.cvar(0.0), "alpha=0.0: give a share above 0 and at most 1."),
    "share nan": (lambda: robust.cvar(math.nan), "alpha=nan"),
    "radius": (lambda: robust.chi_square(-1.0), "rho=-1.0: give a radius of at least 0."),
    "ball": (lambda: robust.kl_ball(-0.1), "kappa=-0.1"),
    "temperature": (lambda: robust.kl_penalty(0.0), "temperature=0.0: give a number above 0."),
    "ratio": (
        lambda: robust.ratio_dro(table(2), optax.sgd(1.0), temperature=0.0),
        "temperature=0.0",
    ),
    "no head": (
        lambda: robust.ratio_dro(models.mlp(2)._replace(split=None), optax.sgd(1.0), temperature=1.0),
        "not cut before its last layer",
    ),
    "absent group": (lambda: robust.group_dro(2, sizes=[3, 0]), "group 1 has 0 training examples"),
    "sizes": (lambda: robust.group_dro(2, sizes=[3, 1, 1]), "sizes has shape (3,)"),
    "no sizes": (lambda: robust.group_dro(2, adjustment=1.0), "adjustment=1.0: give sizes="),
    "rate": (lambda: robust.group_dro(2, rate=-1.0), "rate=-1.0"),
    "no group": (lambda: robust.group_dro(0), "num_groups=0"),
    "group share": (lambda: robust.group_cvar(2, sizes=[1, 1], alpha=2.0), "alpha=2.0"),
    "both": (
        lambda: robust.parametric_dro(
            robust.cells(lambda b: b.group, [1, 1]), optax.sgd(1.0), temperature=1.0, radius=1.0
        ),
        "temperature=1.0 and radius=1.0: give one of them.",
    ),
    "fit": (
        lambda: robust.parametric_dro(
            robust.cells(lambda b: b.group, [1, 1]), optax.sgd(1.0), temperature=1.0, fit="exp"
        ),
        "fit='exp': choose 'reversed'",
    ),
    "cell": (lambda: robust.cells(lambda b: b.group, [1, 0]), "number only those there are"),
    "class": (lambda: robust.gaussians(np.zeros((2, 1)), np.zeros(2, int), 2), "class 1 has no training example"),
    "unnormalised": (
        lambda: robust.minimax_choice(np.ones((1, 2)), np.array([[1.0, 3.0]])),
        "ratios of adversary 0 have the mean 2",
    ),
    "maker": (
        lambda: inspect.unwrap(robust.solver)(linear, robust.group_dro, optax.sgd(1.0)),
        "did you mean robust.group_dro(...)?",
    ),
    "worst group": (lambda: constraints.worst_group(linear, num_groups=2, adjustment=-1.0), "adjustment=-1.0"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_one_line(name):
    make, words = BAD[name]
    with pytest.raises((ValueError, TypeError)) as error:
        make()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_loss_for_the_whole_batch_is_refused():
    solver = robust.solver(linear, robust.erm(), optax.sgd(1.0), loss=lambda logits, batch: jnp.mean(logits))
    with pytest.raises(ValueError, match="one number per example"):
        solver.step(solver.init(jnp.zeros(3)), batch_of(np.ones(2))._replace(x=np.zeros((2, 4))), None)


def test_the_choice_without_groups_counts_near_adversaries_only():
    losses = np.array([[0.0, 10.0], [4.0, 4.0]])
    far = np.array([[0.0, 2.0]])
    assert robust.minimax_choice(losses, far)[0] == 1
    assert robust.minimax_choice(losses, far, radius=0.5)[1].tolist() == [5.0, 4.0]
    assert robust.minimax_choice(losses + np.array([[0.0], [2.0]]), far, radius=0.5)[0] == 0


# --- what a stranger found ------------------------------------------------------------------------------------------


def test_who_has_no_class_has_no_part_in_a_second_look_either():
    """At a radius of 0 SAM is the chain behind it: the gradient again, of the same people."""

    def apply(params, state, x, *, train, key=None):
        return x @ params, state

    batch = batch_of(np.ones(4, np.float32), y=[0, 1, 0, -1])._replace(x=np.eye(4, 2, dtype=np.float32) + 1)
    plain, again = (
        robust.solver(apply, robust.erm(), tx)
        for tx in (optax.sgd(0.1), optax.chain(optim.scale_by_sam(0.0), optax.sgd(0.1)))
    )
    start = jnp.array([[1.0, 0.0], [0.5, 0.25]])
    found = [s.step(s.init(start), batch, jax.random.key(0))[0].params for s in (plain, again)]
    np.testing.assert_array_equal(*found)
    clipped = optax.chain(optax.clip_by_global_norm(0.1), optim.scale_by_sam(0.1), optax.sgd(0.1))
    last = robust.solver(apply, robust.erm(), clipped)
    with pytest.raises(ValueError, match="first"):
        last.step(last.init(start), batch, jax.random.key(0))


def test_the_value_of_a_penalty_at_any_temperature():
    """Against float64; at 1e8 the logarithm of nearly 1 has no digits left in float32."""
    batch = batch_of(np.ones(4, np.float32))
    for temperature in (1e-2, 0.5, 3.0, 1e3, 1e6, 1e8):
        exact = temperature * np.log(np.mean(np.exp((LOSSES.astype(float) - 4.0) / temperature))) + 4.0
        value = robust.kl_penalty(temperature).weigh((), jnp.asarray(LOSSES), batch, None)[2].value
        np.testing.assert_allclose(value, exact, rtol=1e-6)
    traced = jax.jit(lambda t: robust.kl_penalty(t).weigh((), jnp.asarray(LOSSES), batch, None)[2].value)
    assert float(traced(jnp.inf)) == 2.5
    nobody = batch_of(np.zeros(4, np.float32))
    assert float(robust.kl_penalty(1.0).weigh((), jnp.zeros(4), nobody, None)[2].value) == 0.0


def test_a_network_that_diverged_is_never_chosen_and_the_radius_holds_a_tenth_of_the_people():
    diverged = np.array([[np.nan, 1.0], [2.0, 2.0]])
    assert robust.minimax_choice(diverged, np.ones((1, 2)))[0] == 1
    with pytest.raises(ValueError, match="none to choose"):
        robust.minimax_choice(np.full((1, 2), np.nan), np.ones((1, 2)))
    for people in (100, 1000, 10_000):
        tenth = np.arange(people) < people // 10
        losses = np.stack([np.where(tenth, 5.0, 0.0), np.ones(people)])
        assert robust.minimax_choice(losses, np.where(tenth, 10.0, 0.0)[None])[0] == 1


def test_who_is_in_no_cell_does_not_move_a_density():
    batch = batch_of(np.ones(4, np.float32), group=[0, 1, 0, -1])
    objective = robust.parametric_dro(robust.cells(lambda b: b.group, [3, 1]), optax.sgd(0.5), temperature=1.0)
    state = objective.init(None, batch)
    for _ in range(20):
        weights, state, _ = objective.weigh(state, jnp.array([0.0, 0.0, 0.0, 5.0]), batch, None)
    assert float(state.params[0]) > float(state.params[1]), weights


def test_an_adversary_that_was_not_begun_and_a_group_past_the_last_are_one_line():
    batch = batch_of(np.ones(2))._replace(x=np.zeros((2, 4)))
    solver = robust.solver(linear, robust.group_dro(2), optax.sgd(1.0), loss=squared)
    with pytest.raises(ValueError, match=r"objective.init\(key, batch\)"):
        solver.step(solver.init(jnp.zeros(3)), batch, None)
    for objective in (robust.group_dro(2), robust.group_cvar(2, sizes=[1, 1])):
        with pytest.raises(ValueError, match="group 2 is none of 2"):
            objective.init(None, batch._replace(group=np.array([1, 2])))


def test_a_rare_group_weighs_from_when_it_is_first_seen():
    objective = robust.group_cvar(2, sizes=[90, 10], alpha=0.1, decay=0.9)
    people = lambda group: Batch(jnp.zeros((2, 1)), jnp.zeros(2, int), jnp.array(group), jnp.arange(2), jnp.ones(2))
    state = objective.init(jax.random.key(0), people([0, 0]))
    for _ in range(20):
        _, state, _ = objective.weigh(state, jnp.ones(2), people([0, 0]), jax.random.key(0))
    _, state, info = objective.weigh(state, jnp.array([1.0, 5.0]), people([0, 1]), jax.random.key(0))
    np.testing.assert_allclose(state, [1.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(info.q, [0.0, 1.0], atol=1e-6)
