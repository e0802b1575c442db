"""The benchmark of pruning runs, and what it compares computes the same thing. No time is asserted here."""

import jax
import numpy as np
import pytest

from benchmarks import pruning, timing
from jaxfair import models, sparsity

SHAPES = [(3, 3, 4, 8), (40, 7), (11,)]


@pytest.fixture(scope="module")
def masks():
    """Every contender for new masks, on three small layers."""
    return pruning.masks(SHAPES)


def test_shapes_are_those_of_a_resnet50():
    shapes = pruning.resnet50_shapes()
    assert len(shapes) == 54
    # 25,557,032 parameters as published, less 53,120 of BatchNorm and 1,000 biases.
    assert sum(int(np.prod(shape)) for shape in shapes) == 25_557_032 - 53_120 - 1_000


def test_contenders_keep_a_tenth_and_sort_the_same_numbers(masks):
    scores = pruning.scores_of(SHAPES)
    sizes = [score.size for score in scores]
    uniform = masks.calls["uniform"]()
    assert [int(mask.sum()) for (mask,) in uniform] == [size // 10 for size in sizes]
    flat = np.concatenate([np.ravel(score) for score in scores])
    (together,) = masks.calls["global"]()
    kept = np.concatenate([np.ravel(mask) for mask in together])
    ascending = np.asarray(masks.calls["sort"]())
    np.testing.assert_array_equal(np.sort(flat[kept]), ascending[-(sum(sizes) // 10) :])
    # Sums in another order, of the sizes of single precision.
    sums = [score.sum() for score in scores]
    np.testing.assert_allclose(masks.calls["read"](), sums, rtol=1e-6)
    assert masks.scores == flat.nbytes


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.slow
def test_a_step_that_prunes_nothing_is_the_step_of_the_optimizer(lanes):
    network = pruning.Network(models.mlp(10, hidden=(8,)), (4, 5))
    runs = pruning.contenders(network, lanes=lanes, num_steps=3)
    runs["plain"]()
    plain, pruned = runs["plain"](), runs["pruned"]()  # 7 steps, and 4
    assert not np.array_equal(plain[0]["Dense_0"]["kernel"], pruned[0]["Dense_0"]["kernel"])
    pruned = runs["pruned"]()
    # The same sums, but compiled in two programs.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), plain[0], pruned[0])
    assert np.all(sparsity.get_masks(pruned[2])["Dense_0"]["kernel"])
    assert np.shape(plain[0]["Dense_0"]["kernel"])[:-2] == ((lanes,) if lanes > 1 else ())


def test_rows_have_the_ratios_of_pairs(masks):
    seconds = {"uniform": 0.2, "global": 0.4, "read": 0.05, "sort": 6.0}
    seconds = {name: np.full(3, value) for name, value in seconds.items()}
    assert str(pruning.against_sort(seconds, "uniform")) == "30.000 (30.000 to 30.000)"
    assert str(pruning.against_reads(seconds, "global")) == "4.000 (4.000 to 4.000)"
    rows = list(pruning.mask_rows(masks, seconds))
    assert [row.split("|")[1].strip() for row in rows] == list(seconds)
    del seconds["sort"]  # as on an accelerator
    assert pruning.against_sort(seconds, "uniform") is None
    price = {"plain": np.full(3, 0.1), "pruned": np.full(3, 0.102)}
    row = pruning.step_row("mlp", 4, price)
    assert row == "| mlp | 4 | 100.00 | 102.00 | 1.020 (1.020 to 1.020) | 1.03 |"


def test_main_prints_both_tables(masks, capsys, monkeypatch):
    small = pruning.Network(models.mlp(10, hidden=(8,)), (4, 5))
    monkeypatch.setattr(pruning, "masks", lambda shapes, sort: masks)
    monkeypatch.setattr(pruning, "networks", lambda smallest: {"small": small})
    pruning.main(["--mask_rounds", "2", "--rounds", "2", "--steps", "1", "--lanes", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(timing.machine())
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert rows == ["new masks", *masks.calls, "step of", "small"]
