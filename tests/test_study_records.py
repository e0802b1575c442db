"""Records survive what happens to files: being killed at any byte, being resumed, and holding nan."""

import json
import math
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.files import atomic_write
from jaxfair.study import append, dumps, loads, read, truncate


@pytest.mark.parametrize(
    "record",
    [
        {"loss": 0.1, "step": 3, "name": "über 50 ☃", "none": None, "on": True},
        {"loss": math.inf, "low": -math.inf, "words": ["nan", "inf", None]},
        {"nested": {"a": [1, [2.5, {"b": "line\nbreak"}]]}, "empty": [{}, [], ""]},
        {"tiny": 5e-324, "big": 2**70, "third": 1 / 3},
    ],
)
def test_what_is_written_comes_back(record):
    assert loads(dumps(record)) == record


def test_nan_comes_back_and_the_line_is_valid_json():
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    line = dumps({"loss": math.nan, "gaps": jnp.array([jnp.nan, 1.0])})
    json.loads(line, parse_constant=refuse)
    back = loads(line)
    assert math.isnan(back["loss"])
    assert math.isnan(back["gaps"][0])
    assert back["gaps"][1] == 1.0


def test_arrays_come_back_bit_for_bit():
    values = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    for array in (values, jnp.asarray(values)):
        back = np.array(loads(dumps({"x": array}))["x"], np.float32)
        np.testing.assert_array_equal(back, values)
    assert loads(dumps({"n": np.int64(3), "ok": np.bool_(True)})) == {"n": 3, "ok": True}


@pytest.mark.parametrize("bad", [{"x": object()}, {1: 2}, {"x": {"$float": "nan"}}])
def test_what_would_not_come_back_is_refused_before_anything_is_written(bad, tmp_path):
    path = tmp_path / "records.jsonl"
    with pytest.raises(TypeError):
        append(path, {"step": 1}, bad)
    assert not path.exists()


def test_killed_at_any_byte_no_whole_record_is_lost_and_the_file_goes_on(tmp_path):
    path = tmp_path / "records.jsonl"
    append(path, {"step": 1, "name": "ü"}, {"step": 2, "name": "ü"})
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        done = (cut >= first) + (cut == len(whole))
        assert [r["step"] for r in read(path)] == [1, 2][:done]
        append(path, {"step": 9})
        assert [r["step"] for r in read(path)] == [*[1, 2][:done], 9]


def test_damage_elsewhere_is_not_passed_over(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2"):
        read(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1"):
        read(path)


def test_truncate_cuts_back_to_a_checkpoint(tmp_path):
    path = tmp_path / "records.jsonl"
    assert truncate(path, lambda r: True) == 0
    assert not path.exists()
    append(path, *({"step": i, "loss": math.nan} for i in range(6)))
    before = path.read_bytes()
    assert truncate(path, lambda r: True) == 0
    assert path.read_bytes() == before
    assert truncate(path, lambda r: r["step"] <= 3) == 2
    assert before.startswith(path.read_bytes())
    append(path, {"step": 4, "loss": math.nan}, {"step": 5, "loss": math.nan})
    assert path.read_bytes() == before  # resumed, it is the same file


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = atomic_write(tmp_path / "table.md", "old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["table.md"]
    assert path.read_text() == "old"


def test_report_imports_without_its_extra_and_says_what_to_install(tmp_path):
    code = """
import sys
for name in ("pandas", "matplotlib", "jinja2", "rich"):
    sys.modules[name] = None                       # as if it were not installed
import jaxfair.report as report
import jaxfair.study as study
study.append(sys.argv[1] + "/r.jsonl", {"a": 1})
for use in (lambda: report.tables.cell(1.0), lambda: report.figures.new_figure(height=1),
            lambda: report.render(report.Page(title="", summary=[]))):
    try:
        use()
    except ModuleNotFoundError as error:
        assert "pip install 'jaxfair[report]'" in str(error), error
    else:
        raise AssertionError("no error")
"""
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
