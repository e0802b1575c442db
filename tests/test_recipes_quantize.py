"""Quantisation in a call: what is delivered is on its grid and keeps its zeros, and training harms a group less."""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxfair import audit, data, metrics, models, quant, recipes, sparsity, study

MODEL = models.mlp(2, hidden=(6,))
TENSOR = quant.Quantizer()
SQUARES = quant.Quantizer(quant.signed, quant.per_channel(), quant.least_squares())
SHORT: Any = {"epochs": 6, "batch_size": 64, "progress": False}
#: Each is trained once.
CALLS = {
    "ptq": {"method": "ptq", "bits": 3},
    "mixed": {"method": "ptq", "bits": {"Dense_0/kernel": 2, "Dense_1/kernel": 5}},
    "least squares": {"method": "ptq", "bits": 4, "quantizer": SQUARES},
    "rounding": {"method": "rounding", "bits": 3},
    "rounding, bounded": {"method": "rounding", "bits": 3, "bound": recipes.ceag(0.02)},
    "qat": {"method": "qat", "bits": 3, "bound": recipes.ceag(0.02), "quantizer": TENSOR, **SHORT},
    "oscillation": {"method": "oscillation", "bits": 3, **SHORT},
}  # fmt: skip
TRAINED = ("qat", "oscillation")
SLOW = (*TRAINED, "rounding")
CASES = [pytest.param(call, marks=pytest.mark.slow if call in SLOW else ()) for call in CALLS]


@functools.cache
def people():
    """Two populations, of which the small one has most of its features turned around."""
    sizes: Any = {"num_train": 1200, "num_validation": 200, "num_test": 400, "minority_test": 100}
    return data.planted(key=jax.random.key(0), minority=0.1, **sizes)


@functools.cache
def before():
    """Three networks of floats."""
    options: Any = {"epochs": 12, "batch_size": 32, "learning_rate": 1e-2, "progress": False}
    return recipes.dense(MODEL, people(), seeds=3, **options)


@functools.cache
def pruned():
    """The same without a column of noise, and without a hidden unit: the last row of each kernel is zero."""
    dense = before()
    keep = lambda leaf: np.broadcast_to(np.arange(leaf.shape[1])[None, :, None] < leaf.shape[1] - 1, leaf.shape)
    masks = jax.tree.map(lambda leaf: keep(leaf) if leaf.ndim == 3 else np.ones(3, bool), dense.params)
    params = jax.vmap(sparsity.apply_masks)(dense.params, masks)
    return recipes.networks(params, masks=masks, model=MODEL, several=True)


@functools.cache
def after(call):
    return recipes.quantize(MODEL, people(), pruned(), **CALLS[call])


def largest_gaps(networks, dense):
    """``[S]``, on the training split, and the accuracy there."""
    y, group = people().train.y, people().train.group
    right = [of.predict(people().train) == y for of in (dense, networks)]
    gaps = [float(metrics.accuracy_gaps(b, a, group, 2).max_excess) for b, a in zip(*right, strict=True)]
    return np.array(gaps), right[1].mean(1)


@pytest.mark.parametrize("call", CASES)
def test_what_is_delivered_is_on_its_grid_and_keeps_its_zeros(call):
    found = after(call)
    assert found.seeds == (0, 1, 2)
    for one in (found, *found.iterates.values()):
        again = jax.vmap(quant.quantize_params)(one.params, one.grids)
        jax.tree.map(np.testing.assert_array_equal, again, one.params)
        for layer in ("Dense_0", "Dense_1"):
            np.testing.assert_array_equal(one.params[layer]["kernel"][:, -1], 0.0)
            assert one.params[layer]["kernel"][:, :-1].any()
    bits = CALLS[call]["bits"]
    widths = bits if isinstance(bits, dict) else dict.fromkeys(("Dense_0/kernel", "Dense_1/kernel"), bits)
    for path, b in widths.items():
        layer = path.split("/")[0]
        for kernel in np.asarray(found.params[layer]["kernel"]):
            assert all(len(np.unique(kernel[:, output])) <= 2**b for output in range(kernel.shape[1]))
    if call not in TRAINED:  # biases stay as they were
        np.testing.assert_array_equal(found.params["Dense_0"]["bias"], pruned().params["Dense_0"]["bias"])


@pytest.mark.slow
def test_training_at_the_levels_under_the_bound_harms_the_worst_group_less_than_rounding():
    """On average over the seeds; the reference is the float network, not that network rounded."""
    nearest = recipes.quantize(MODEL, people(), pruned(), bits=3, quantizer=TENSOR)
    (rounded, low), (trained, high) = (largest_gaps(of, pruned()) for of in (nearest, after("qat")))
    assert (rounded > 0.02).any()
    assert (trained <= 0.02 + 1e-6).all()  # the bound, in every seed
    assert trained.mean() < rounded.mean()
    assert high.mean() > low.mean()
    # What the run wrote of what it delivered is true of what is delivered.
    for place, seed in enumerate(after("qat").seeds):
        rows = [row for row in after("qat").history if row["seed"] == seed]
        which = "average" if after("qat").averaged[place] else "last"
        row = rows[int(after("qat").epoch[place])]
        assert row[f"{which}_train_gap"] == pytest.approx(trained[place], abs=1e-5)
        assert row[f"{which}_train_accuracy"] == pytest.approx(high[place], abs=1e-5)


def test_rounding_without_a_bound_has_no_candidates_of_one():
    """Also where a tolerance says which of them is delivered: who is compared with the bounded must not be bounded."""
    free = recipes.quantize(MODEL, people(), pruned(), method="rounding", bits=3, tolerance=0.02)
    assert set(free.iterates) == {"nearest", "gptq"}


def test_bounded_rounding_delivers_the_best_of_its_candidates():
    found = after("rounding, bounded")
    assert {"nearest", "gptq"} < set(found.iterates)
    gaps, accuracy = largest_gaps(found, pruned())
    candidates = [largest_gaps(one, pruned()) for one in found.iterates.values()]
    for place in range(3):
        met = [a[place] for g, a in candidates if g[place] <= 0.02]
        if met:
            assert gaps[place] <= 0.02
            assert accuracy[place] == max(met)
        else:
            assert gaps[place] == min(g[place] for g, _ in candidates)
    jax.tree.map(np.testing.assert_array_equal, after("ptq").params, found.iterates["nearest"].params)
    # GPTQ is what it is of: less is lost at the outputs of the first layer than by the nearest levels.
    x = np.asarray(people().train.x)
    first = pruned().params["Dense_0"]["kernel"]
    lost = [
        ((x @ np.asarray(of.params["Dense_0"]["kernel"] - first)) ** 2).sum((1, 2))
        for of in (found.iterates["gptq"], found.iterates["nearest"])
    ]
    assert (lost[0] < lost[1]).all()


@pytest.mark.slow
def test_one_key_gives_one_result_and_a_folder_goes_on(tmp_path):
    """Stopped after the second epoch, and taken up again."""
    done = []

    def stop():
        done.append(None)
        return len(done) >= 2

    folder = {"folder": tmp_path, "save_every": 1, **CALLS["oscillation"]}
    with pytest.raises(study.Stopped):
        recipes.quantize(MODEL, people(), pruned(), stop=stop, **folder)
    found = recipes.quantize(MODEL, people(), pruned(), **folder)
    jax.tree.map(np.testing.assert_array_equal, found.params, after("oscillation").params)
    assert (tmp_path / "oscillation_nft" / "epochs.jsonl").exists()
    with pytest.raises(study.FolderError, match="bits is 3 there and 4 here"):
        recipes.quantize(MODEL, people(), pruned(), **{**folder, "bits": 4})


@pytest.mark.slow
def test_it_is_audited_and_written_small(tmp_path):
    found = after("ptq")
    rows = audit.compare(pruned(), {"ptq": found}, people(), tolerance=0.02)
    assert rows.verdicts
    params, grids = jax.tree.map(lambda leaf: leaf[1], (found.params, found.grids))
    quant.save(tmp_path / "one.safetensors", params, grids)
    read = quant.load(tmp_path / "one.safetensors")
    jax.tree.map(np.testing.assert_array_equal, read.params, params)
    one = found.take([1])
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda leaf: leaf[0], one.grids), grids)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(2, (3,), name="conv")(x[..., None])
        return nn.Dense(2, name="head")(x.reshape(len(x), -1))


@functools.cache
def convolutions():
    model = models.linen(Net(), prunable=lambda path: path.endswith("kernel"))
    params, state = model.init(jax.random.key(0), people().train.x[:1])
    return model, recipes.networks(params, state, model=model)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 0}, "Dense_0/kernel: bits=0: give a whole number from 2 to 32"),
        ({"bits": 1.5}, "bits=1.5: give a whole number from 2 to 32"),
        ({"bits": 33}, "bits=33: give a whole number from 2 to 32"),
        ({"bits": {"Dense_0/kernel": 4}}, "bits= has no number for Dense_1/kernel"),
        ({"method": "awq"}, "method='awq': choose one of ptq, qat, oscillation, rounding."),
        ({"bound": recipes.ceag(0.01)}, "bound=ceag with method='ptq', which trains nothing"),
        ({"bound": 0.01}, "bound=0.01: did you mean recipes.ceag(0.01)?"),
        ({"method": "qat", "epochs": 0}, "epochs=0: give a whole number of at least 1."),
        ({"method": "qat", "tolerance": 0.01, "naive": "dense"}, "naive= has no levels"),
        ({"quantizer": quant.Quantizer(scale=quant.learned)}, "learned steps are trained by quant.quantized"),
        ({"method": "oscillation", "strength": -1.0, **SHORT}, "strength=-1.0: give a number of at least 0"),
        ({"method": "rounding", "net": "conv"}, "conv/kernel of shape (3, 1, 2): method='rounding' is for kernels"),
    ],
)
def test_what_cannot_be_is_one_line(options, said):
    model, networks = convolutions() if options.get("net") else (MODEL, pruned())
    given = {name: value for name, value in options.items() if name != "net"}
    if "naive" in given:
        given["naive"] = pruned()
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        recipes.quantize(model, people(), networks, **given)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_what_is_no_dense_kernel_may_be_left_out():
    model, networks = convolutions()
    found = recipes.quantize(
        model, people(), networks, bits=3, method="rounding", quantized=lambda path: path == "head/kernel"
    )
    np.testing.assert_array_equal(found.params["conv"]["kernel"], networks.params["conv"]["kernel"])
    assert (found.params["head"]["kernel"] != networks.params["head"]["kernel"]).any()
