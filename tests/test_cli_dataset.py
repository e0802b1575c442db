"""From flags to a dataset: alike in every program that takes a table, and what is said of it."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

from experiments import balancing_act
from jaxfair import report
from jaxfair.cli import prune
from jaxfair.cli.dataset import in_flags

PROGRAMS = {"jaxfair prune": (prune, "--out"), "balancing_act": (balancing_act, "--runs_dir")}
NOBODY_READS = [("jaxfair prune", "stdout"), ("balancing_act", "stderr"), ("jaxfair prune", "both")]


class Reached(Exception):
    """Training would begin here."""


@pytest.fixture
def up_to_training(tmp_path, monkeypatch):
    """``up_to_training(program, *flags) -> (dataset, notes)``: what would be trained on, and what was warned of."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main sets its own

    def of(program, *flags):
        module, place = PROGRAMS[program]
        found = []

        def dense(model, dataset, **options):
            found.append(dataset)
            raise Reached

        monkeypatch.setattr(module.recipes, "dense", dense)
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("default")  # as a person has it
            with pytest.raises(Reached):
                module.main([f"{place}={tmp_path / str(len(list(tmp_path.iterdir())))}", *flags])
        return found[0], [str(note.message) for note in noted]

    return of


def table(path, header="age,income,number,sex,region,repaid", name="men"):
    rows = [f"{20 + i % 50},{i % 7},{i},{name if i % 2 else 'women'},{i // 2 % 3},{'yes' if i % 3 else 'no'}"
            for i in range(240)]  # fmt: skip
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_table_is_read_as_the_flags_say(program, up_to_training, tmp_path):
    of_file = [f"--data={table(tmp_path / 'people.csv')}", "--label=repaid", "--groups=sex,region", "--positive=yes"]
    mine, _ = up_to_training(program, *of_file, "--drop=number,age", "--standardize", "--unconstrained=men, 0")
    assert mine.feature_names == ("income",)
    assert mine.class_names[mine.positive] == "yes"
    assert mine.num_groups == 6
    assert mine.constrained.sum() == 5
    np.testing.assert_allclose(np.asarray(mine.train.x).mean(), 0, atol=1e-6)
    other, _ = up_to_training(program, *of_file, "--features=age,number", "--min_group_size=1000")
    assert (other.feature_names, other.group_names, len(other.scaling)) == (("age", "number"), ("other",), 2)
    kinds, _ = up_to_training(program, *of_file, "--features=age", "--categorical=region,sex")
    assert kinds.feature_names == ("age", "region=0", "region=1", "region=2", "sex=men", "sex=women")
    raw, _ = up_to_training(program, *of_file, "--features=age,number", "--standardize=false")
    assert raw.scaling is None
    assert raw.train.x[:, 0].min() >= 20


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.slow
def test_what_was_read_is_said_once_in_lines_that_fit(program, up_to_training, tmp_path, capsys):
    name = "m\x1b[31m" + " very long name" * 20
    path = table(tmp_path / "people.csv", "a\x0bge,income,number,sex,region,repaid", name)
    text = path.read_text().replace("\n20,", "\n2e9,")
    path.write_text(text)
    mine, notes = up_to_training(
        program, f"--data={path}", "--label=repaid", "--groups=sex", "--tolerance=0.001", "--standardize=false"
    )
    out = capsys.readouterr().out
    assert all(report.text_columns(line) <= 80 and line.isprintable() for line in out.splitlines())
    said = " ".join(out.split())
    for sentence in mine.read:
        assert " ".join(in_flags(sentence).split()) in said
    assert r"a\x0bge reaches 2e+09" in said
    assert "groups too small to be judged" in said
    assert not notes
    # What stands in no sentence is still said.
    flags = (f"--data={path}", "--label=repaid", "--groups=sex", "--min_group_size=1000")
    assert ["there is one group, 'other'" in note for note in up_to_training(program, *flags)[1]] == [True]


@pytest.mark.parametrize(("program", "closed"), NOBODY_READS)
@pytest.mark.slow
def test_an_output_that_nobody_reads_any_more_is_no_traceback(program, closed, tmp_path):
    """As of ``| head -0``: the pipe is closed before anything is printed."""
    module, place = PROGRAMS[program]
    path = table(tmp_path / "people.csv")
    code = (
        "import sys, os\n"
        f"from {module.__name__} import main\n"
        "from jaxfair import recipes\n"
        "def dense(*a, **k): sys.stderr.write('a line'); sys.stderr.flush(); return 1 / 0\n"
        "recipes.dense = dense\n"
        "read, write = os.pipe(); os.close(read)\n"
        + "".join(f"os.dup2(write, {n})\n" for n, s in ((1, "stdout"), (2, "stderr")) if closed in (s, "both"))
        + "main()\n"
    )  # fmt: skip
    flags = [f"--data={path}", f"{place}={tmp_path / 'out'}", "--label=repaid", "--groups=sex"]
    run = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)
    assert run.returncode == 141, run.stderr
    assert "Traceback" not in run.stderr
    assert "Error" not in run.stderr
