"""Laws of quantisers: scheme x granularity x scale, in two dtypes, under jit, vmap and grad, bits traced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import quant

SCHEMES = {"symmetric": quant.symmetric, "signed": quant.signed, "affine": quant.affine}
GRANULARITIES = {
    "tensor": quant.per_tensor, "channel": quant.per_channel(), "group": quant.per_group(4),
    "group of all": quant.per_group(2, axis=0, channel=None),
}  # fmt: skip
SCALES = {
    "extremes": quant.extremes, "percentile": quant.percentile(95), "least squares": quant.least_squares(16),
    "learned": quant.learned,
}  # fmt: skip
#: Every scheme with every granularity, and the scales in turn: each stands beside each of the others.
TABLE = {
    f"{s}, {g}, {list(SCALES)[(i + j) % (3 if s == 'affine' else 4)]}": None
    for i, s in enumerate(SCHEMES) for j, g in enumerate(GRANULARITIES)
}  # fmt: skip
for name in TABLE:
    scheme, granularity, scale = name.split(", ")
    TABLE[name] = quant.Quantizer(SCHEMES[scheme], GRANULARITIES[granularity], SCALES[scale])
each = pytest.mark.parametrize("name", TABLE)
some = pytest.mark.parametrize("name", list(TABLE)[::5])
BITS = (2, 3, 4, 8)
RNG = np.random.default_rng(5)
#: Three arrays side by side: a plain one, one whose entries have one sign, and one with a group of zeros.
ARRAYS = RNG.standard_t(3, size=(3, 8, 6)).astype(np.float32)
ARRAYS[1] = np.abs(ARRAYS[1]) + 0.1
ARRAYS[2, :4, :3] = 0


@functools.cache
def compiled(name):
    """Bits and arrays are data: one program for all of them."""

    def run(x, bits):
        grid = quant.calibrate(x, bits, TABLE[name])
        level = quant.quantize(x, grid)
        again = quant.quantize(level, quant.calibrate(level, bits, TABLE[name]))
        slope = jax.grad(lambda x: jnp.sum(quant.fake_quantize(x, grid) * jnp.arange(1.0, 7)[None]))(x)
        return {
            "grid": grid, "level": level, "fake": quant.fake_quantize(x, grid),
            "codes": quant.codes(x, grid), "twice": quant.quantize(level, grid),
            "anew": again, "inside": quant.inside(x, grid), "slope": slope, "zero": quant.quantize(x * 0, grid),
            "sorted": quant.quantize(jnp.sort(x, axis=0), grid._replace(
                scale=grid.scale.ravel()[:1, None], zero=grid.zero.ravel()[:1, None])),
            "step": quant.values(quant.codes(x, grid) * 0 + 1, grid._replace(zero=grid.zero * 0)),
        }  # fmt: skip

    return jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))


@functools.cache
def run(name, dtype=jnp.float32):
    found = compiled(name)(jnp.asarray(ARRAYS, dtype), jnp.array(BITS))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)


def each_case():
    for b, bits in enumerate(BITS):
        for a in range(len(ARRAYS)):
            yield (b, a), bits


@each
def test_zero_is_zero_and_a_second_time_changes_nothing(name):
    found = run(name)
    assert (found["zero"] == 0).all()
    np.testing.assert_array_equal(found["twice"], found["level"])
    np.testing.assert_array_equal(found["fake"], found["level"])
    scheme, _, scale = name.split(", ")
    if (scheme, scale) == ("symmetric", "extremes"):  # also with the grid found again
        np.testing.assert_allclose(found["anew"], found["level"], rtol=1e-6)


@each
def test_levels_are_no_more_than_bits_have(name):
    found = run(name)
    for at, bits in each_case():
        low, high = found["grid"].low[at], found["grid"].high[at]
        assert high - low + 1 == (2**bits - 1 if name.startswith("symmetric") else 2**bits)
        assert (found["codes"][at] >= low).all()
        assert (found["codes"][at] <= high).all()
        np.testing.assert_allclose(
            found["level"][at] / found["step"][at],
            np.round(found["level"][at] / found["step"][at]), atol=1e-4,
        )  # fmt: skip


@each
def test_levels_rise_with_the_weights_and_lie_within_half_a_step(name):
    found = run(name)
    for at, _ in each_case():
        assert (np.diff(found["sorted"][at], axis=0) >= 0).all()
        error = np.abs(found["level"][at] - ARRAYS[at[1]])
        within = found["inside"][at].astype(bool)
        assert (error[within] <= 0.5001 * found["step"][at][within]).all()
        if name.endswith("extremes"):
            assert within.all()


@each
def test_the_gradient_goes_straight_through_and_stops_where_a_weight_is_clipped(name):
    found = run(name)
    for at, _ in each_case():
        np.testing.assert_array_equal(found["slope"][at], found["inside"][at] * np.arange(1.0, 7))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_more_bits_are_never_worse_and_no_range_is_better(scheme):
    """Of squared errors: the candidates and the levels of b + 1 bits contain those of b."""
    rules = {scale: quant.Quantizer(SCHEMES[scheme], quant.per_channel(), SCALES[scale]) for scale in SCALES}

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def errors(bits, x):
        grids = [quant.calibrate(x, bits, rules[r]) for r in ("extremes", "least squares")]
        return [*(jnp.mean((quant.quantize(x, grid) - x) ** 2) for grid in grids), grids[1].zero.ravel()]

    # Six numbers each, not centred: where a zero that is rounded to the nearest would break the promise.
    x = np.random.default_rng(8).normal(0.5, 1, size=(60, 6, 1)).astype(np.float32)
    *found, zero = errors(jnp.arange(2, 9), jnp.asarray(x))
    # The reason: half the step, and a zero whose levels hold those of one bit less.
    assert set(np.unique(np.asarray(zero[1:] - 2 * zero[:-1]))) <= {0.0, 1.0}
    squared = dict(zip(("extremes", "least squares"), map(np.asarray, found), strict=True))
    assert (np.diff(squared["least squares"], axis=0) <= 1e-6 * squared["least squares"][:-1]).all()
    if scheme != "affine":  # whose zeros differ: rounded here, rounded down there
        assert (squared["least squares"] <= squared["extremes"] * (1 + 1e-6)).all()


@some
def test_one_program_serves_all_bits_and_gives_what_is_computed_one_by_one(name):
    """Compiled, in lanes, with traced bits: the same as with numbers."""
    found = run(name)
    before = compiled(name)._cache_size()
    compiled(name)(jnp.asarray(ARRAYS) + 1, jnp.array((3, 5, 6, 7)))
    assert compiled(name)._cache_size() == before
    grid = quant.calibrate(jnp.asarray(ARRAYS[0]), 4, TABLE[name])
    alone = jax.tree.map(lambda leaf: leaf[2, 0], found["grid"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), alone, grid)


@pytest.mark.slow
@some
def test_bfloat16_has_the_levels_of_its_own_weights(name):
    """The work is in float32, also for narrow weights: only what comes out is rounded."""
    x = jnp.asarray(ARRAYS, jnp.bfloat16)
    narrow = run(name, jnp.bfloat16)
    wide = compiled(name)(x.astype(jnp.float32), jnp.array(BITS))
    np.testing.assert_array_equal(narrow["codes"], np.asarray(wide["codes"], np.float64))
    np.testing.assert_array_equal(narrow["level"], np.asarray(wide["level"].astype(jnp.bfloat16), np.float64))
    np.testing.assert_array_equal(narrow["twice"], narrow["level"])
    level = quant.quantize(x[0], quant.calibrate(x[0], 4, TABLE[name]))
    assert level.dtype == jnp.bfloat16


def test_a_quantizer_by_hand():
    """NumPy, a line each: per channel, three schemes, four bits."""
    x = ARRAYS[0].astype(np.float64)
    top = np.abs(x).max(axis=0, keepdims=True)
    by_hand = {
        "symmetric": np.round(x / (top / 7)) * (top / 7),
        "signed": np.clip(np.round(x / (top / 7.5)), -8, 7) * (top / 7.5),
    }
    least, most = np.minimum(x.min(axis=0), 0), np.maximum(x.max(axis=0), 0)
    step = (most - least) / 15
    zero = np.round(-least / step)
    by_hand["affine"] = (np.clip(np.round(x / step) + zero, 0, 15) - zero) * step
    for scheme, expected in by_hand.items():
        rule = quant.Quantizer(SCHEMES[scheme], quant.per_channel())
        found = quant.quantize(ARRAYS[0], quant.calibrate(ARRAYS[0], 4, rule))
        off = np.abs(found - expected) > 1e-5
        # The extreme below zero of `signed` is half way between two levels: either is right.
        assert not off.any() if scheme != "signed" else (np.abs(np.abs(x / top) - 1)[off] < 1e-6).all()


def test_the_learned_step_begins_and_slopes_as_lsq_has_it():
    x = jnp.array([0.3, -0.2, 4.0, -0.9])
    grid = quant.calibrate(x, 3, quant.Quantizer(scale=quant.learned))
    np.testing.assert_allclose(grid.scale, [2 * np.abs(x).mean() / np.sqrt(3)], rtol=1e-6)
    grid = quant.grid([0.5], 3)
    slope = jax.grad(lambda s: quant.fake_quantize(x, grid._replace(scale=s), scale_gradient=True).sum())(grid.scale)
    v = np.asarray(x) / 0.5
    by_hand = np.where(np.abs(v) <= 3, np.round(v) - v, np.sign(v) * 3)
    np.testing.assert_allclose(slope, [by_hand.sum()], rtol=1e-6)


#: What cannot be -> a word of the one line that says so.
BAD = [
    (lambda: quant.calibrate(ARRAYS[0], 0), "bits=0: give a whole number from 2 to 32"),
    (lambda: quant.calibrate(ARRAYS[0], 1.5), "bits=1.5"),
    (lambda: quant.calibrate(ARRAYS[0], 33), "bits=33"),
    (lambda: quant.calibrate(ARRAYS[0], np.nan), "bits=nan"),
    (lambda: quant.calibrate(ARRAYS[0], "4"), "bits=4: give"),
    (lambda: quant.calibrate(ARRAYS[0], 1), "bits=1: give a whole number from 2"),
    (lambda: quant.calibrate(np.zeros((0, 3), np.float32), 4), "no entries"),
    (lambda: quant.calibrate(np.array([np.nan, 1.0]), 4), "nan or infinity"),
    (lambda: quant.calibrate(np.array([1, 2]), 4), "only floats"),
    (lambda: quant.calibrate(ARRAYS[0], 4, quant.Quantizer(granularity=quant.per_group(3))), "no multiple of 3"),
    (lambda: quant.calibrate(np.ones(4, np.float32), 4, quant.Quantizer(granularity=quant.per_group(2))), "no axis -2"),
    (lambda: quant.calibrate(ARRAYS[0], 4, quant.Quantizer(scheme=4)), "scheme=4: choose from quant.symmetric"),
    (lambda: quant.calibrate(ARRAYS[0], 4, quant.Quantizer(scale=quant.percentile)), "scale=percentile: choose"),
    (lambda: quant.grid([0.0], 4), "scale=[0.0]: a step is above 0"),
    (lambda: quant.grid([0.5], 4, scheme=quant.affine, zero=16), "zero=16: the code of 0 is a whole number from 0"),
    (lambda: quant.percentile(101), "percentile=101: give a number from 50 to 100"),
    (lambda: quant.least_squares(0), "candidates=0"),
    (lambda: quant.per_group(0), "size=0"),
    (lambda: quant.per_channel(1.5), "axis=1.5"),
    (lambda: quant.quantize(ARRAYS[0], quant.grid([0.5], 4)), "do not fit an array of shape (8, 6)"),
    (lambda: quant.grids({"w": ARRAYS[0]}, {"v": 4}), "no number for w"),
    (lambda: quant.grids({"w": ARRAYS[0]}, {"w": 4, "v": 4}), "a number for v"),
    (lambda: quant.grids({"bias": ARRAYS[0]}, 4), "no leaf is quantised"),
    (lambda: quant.grids({"a": {"w": ARRAYS[0] * np.inf}}, 4), "a/w: x has nan"),
    (lambda: quant.quantize_params({"v": ARRAYS[0]}, quant.grids({"w": ARRAYS[0]}, 4)), "of another network"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "word"), BAD, ids=[word for _, word in BAD])
def test_bad_input_is_one_line(call, word):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_traced_is_not_looked_at_and_nan_stays():
    level = jax.jit(lambda x: quant.quantize(x, quant.calibrate(x, 4)))(jnp.array([jnp.nan, 1.0]))
    assert np.isnan(level).all()  # nobody takes a run that diverged for a good one
