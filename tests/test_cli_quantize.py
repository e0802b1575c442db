"""The command ``jaxfair quantize``: from a table of one's own to networks of few bits, in one call."""

import csv

import jax
import numpy as np
import pytest

from jaxfair import cli, data, models, quant, recipes, sparsity
from jaxfair.cli import prune

pytestmark = pytest.mark.usefixtures("compiled_once", "drawn_once")
FLAGS = ("--bits=2", "--tolerance=0.03", "--seeds=2", "--dense_epochs=2", "--epochs=3")


@pytest.fixture
def table(tmp_path):
    """A folder with a table of 400 people in two regions."""
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(400, 4)), rng.choice(["north", "south"], 400, p=[0.8, 0.2])
    y = np.where(x[:, 0] + 0.3 * rng.normal(size=400) > 0, "yes", "no")
    np.savez(tmp_path / "my.npz", x=x, y=y, group=group)
    return tmp_path


def words(folder, *more):
    return ["quantize", f"--data={folder / 'my.npz'}", f"--out={folder / 'small'}", *FLAGS, *more]


@pytest.mark.slow
def test_what_is_shipped_are_levels_that_predict_what_was_said(table, capsys):
    assert cli.main(words(table)) == 0
    said, out = capsys.readouterr().out, table / "small"
    assert "2-bit as usual" in said
    assert "2-bit under the bound" in said
    mine, model = data.load(table / "my.npz"), models.build("mlp", 2)
    with (out / "networks.csv").open() as file:
        rows = list(csv.DictReader(file))
    predicted = np.load(out / "predictions.npz")
    for number, row in enumerate(rows):
        network = quant.load(out / row["file"])
        dense = out / f"dense_seed{number}.safetensors"
        assert (out / row["file"]).stat().st_size < dense.stat().st_size / 8  # 2 bits of 32, and what is told of it
        kernel = network.params["Dense_0"]["kernel"]
        assert max(len(np.unique(column)) for column in kernel.T) <= 3
        logits, _ = model.apply(network.params, network.state, mine.test.x, train=False)
        np.testing.assert_array_equal(np.asarray(logits).argmax(-1), predicted["after_test"][number])
        assert (network.metadata["bits"], network.metadata["quantised_by"]) == ("2", "qat")
        assert "bits" not in sparsity.load(dense).metadata
    assert (out / "report.html").read_text().count("What quantisation did to each group") >= 1
    # The same command again reads what is there, and writes the same; another one is refused.
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert cli.main(words(table)) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    assert cli.main(words(table, "--bits=3")) == 2
    assert "bits is 2 there and 3 here" in capsys.readouterr().err


@pytest.mark.slow
def test_the_nearest_levels_take_no_training(table, capsys):
    job = words(table, "--method=ptq", "--bound=none", "--seeds=1")
    assert cli.main(job) == 0
    network = quant.load(table / "small" / "nft_seed0.safetensors")
    dense = sparsity.load(table / "small" / "dense_seed0.safetensors")
    grids = quant.grids(dense.params, 2, quantizer=quant.Quantizer(granularity=quant.per_channel()),
                        quantized=lambda path: path.endswith("kernel"))  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, network.params, quant.quantize_params(dense.params, grids))
    assert "2-bit as usual" in capsys.readouterr().out


def test_a_bound_without_training_is_one_line(table, capsys):
    assert cli.main(words(table, "--method=ptq")) == 2
    said = "--bound=ceag: --method=ptq trains nothing and keeps no bound: --method=qat, or --bound=none"
    assert capsys.readouterr().err == f"jaxfair quantize: {said}\n"
    assert not (table / "small").exists()


def test_where_nothing_met_the_bound_the_advice_is_of_bits():
    row = {"failed_at": -1, "bound_met": False, "violation_train": 0.02, "seed": 0, "accuracy_train": 0.8, "file": "a"}
    assert recipes.to_ship([{**row, "recommended": True}], less="take more bits").endswith(
        "2.00 points beyond it: take more bits, or allow more"
    )
    assert prune.COMMAND.less == "prune less"
