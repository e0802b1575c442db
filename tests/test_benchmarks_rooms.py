"""The benchmarks of bilevel, robust and quant run, with a row for each contender. No time is asserted here."""

import pytest

from benchmarks import accelerator, bilevel, quantisation, robust, timing
from benchmarks.pruning import Network
from jaxfair import models


@pytest.mark.slow
def test_a_step_of_bip_runs_beside_the_plain_one(capsys, monkeypatch):
    small = Network(models.mlp(10, hidden=(8,)), (4, 5))
    monkeypatch.setattr(bilevel, "networks", lambda smallest: {"small": small})
    bilevel.main(["--smallest"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(timing.machine())
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines if line.startswith("| small")]
    assert rows == [["small", kind] for kind in bilevel.KINDS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what qwix calls of flax has newer names by now
def test_a_step_under_a_quantiser_runs_beside_qwix(capsys):
    quantisation.main(["--smallest"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(timing.machine())
    assert any("qwix" in line for line in lines[1:])


@pytest.mark.slow
def test_robust_steps_run_beside_the_plain_one(capsys, monkeypatch):
    small = Network(models.mlp(10, hidden=(8,)), (4, 5))
    monkeypatch.setattr(robust, "networks", lambda smallest: {"small": small})
    robust.main(["--smallest"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(timing.machine())
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines if line.startswith("| small")]
    assert rows == [["small", kind] for kind in robust.KINDS]


@pytest.mark.slow
def test_without_an_accelerator_all_parts_are_played_at_the_smallest_size(capsys):
    accelerator.main([])
    first, machine, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("There is no accelerator")
    assert timing.machine() in machine
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][1:]
    said = [row[0] for row in rows]
    for part in ("CEAG step", "new masks", "pruned step", "sweep of 1 settings x 32 seeds", "side by side", "CEAG on"):
        assert any(part in what for what in said), part
    assert all(figure and (met in ("yes", "no")) == bool(asked) for _, figure, asked, met in rows)
    assert "Left out" not in "".join(lines)


def test_what_there_is_no_time_for_is_named(capsys, monkeypatch):
    monkeypatch.setattr(accelerator, "PARTS", {"one": lambda args: iter([accelerator.Row("one", "1")])})
    accelerator.main(["--parts", "one", "--seconds=-1", "--smallest"])
    assert "Left out after -1 seconds: --parts one" in capsys.readouterr().out
