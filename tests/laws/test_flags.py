"""Every flag of every program x its edges: a value is taken for what it says, or refused in one line with exit code 2.

Parsing only: nothing is loaded, trained or written.
"""

import dataclasses
import functools
import importlib
import math
import pathlib

import pytest

from experiments import balancing_act
from jaxfair.cli import audit, flags, prune, quantize

pytestmark = pytest.mark.usefixtures("parsers_built_once")
FOLDER = pathlib.Path(balancing_act.__file__).parent
EXPERIMENTS = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
PROGRAMS = {"jaxfair prune": prune.Config, "jaxfair quantize": quantize.Config, "jaxfair audit": audit.Config} | {
    name: importlib.import_module(f"experiments.{name}").Config for name in EXPERIMENTS
}
#: Flags without which a program does nothing.
NEEDED = {
    "jaxfair prune": ["--data=a.npz", "--out=b"],
    "jaxfair quantize": ["--data=a.npz", "--out=b"],
    "jaxfair audit": ["--before=a.npz", "--after=b.npz", "--labels=y.npy", "--groups=g.csv", "--out=b"],
}
#: What somebody may type, or a script may hand on.
EDGES = (
    *("", " ", "-", "--", ",", "1,,2", "1;2", "nft,nft", "@file", "--seeds=1", "True", "0x10", "1_0", "\u0663", "\xe9"),
    *("-1", "-3", "0", "1", "0.5", "2147483648", "4294967296", "9" * 25),
    *("nan", "-nan", "inf", "-inf", "1e400", "-1e400", "1e-400"),
    *("..", ".", "/", "a/b", "a\nb", "a\x1b[31mb", "a\0b"),
)
#: In which a value may be larger than 2**31.
BYTES = ("max_data_bytes",)


@functools.cache
def program(config_class):
    """A program that notes what it is to run, and its notes."""
    seen = []
    return flags.entry(seen.append, config_class, prog="try"), seen


def parsed(config_class, capsys, *words):
    """The config, or None where it was refused: then it was one line, and the exit code was 2."""
    main, seen = program(config_class)
    seen.clear()
    try:
        code = main(words)
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    assert code in (0, 2), (words, code)
    if code == 0:
        assert len(seen) == 1
        assert err == ""
        return seen[0]
    assert not seen, (words, err)
    assert err.startswith("try: "), (words, err)
    assert err.count("\n") == 1, (words, err)
    assert err.rstrip("\n").isprintable(), (words, err)
    assert out == ""
    return None


def means(text, value, name):
    """Whether a value is what the text says."""
    if isinstance(value, tuple):
        words = [word.strip() for by in (",", ";") for word in text.split(by) if word.strip()]
        return all(any(means(word, item, name) for word in words) for item in value)
    if isinstance(value, bool):
        return text.strip().lower() in ("true", "1", "yes", "y", "t", "on") if value else True
    if isinstance(value, int):
        return int(text) == value and (name in BYTES or abs(value) < 2**31)
    if isinstance(value, float):
        return float(text) == value and math.isfinite(value)
    return text == value and "\0" not in value


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.slow
def test_an_edge_is_taken_for_what_it_says_or_refused_in_one_line(program, capsys):
    config_class = PROGRAMS[program]
    needed = NEEDED.get(program, [])
    for field in dataclasses.fields(config_class):
        for text in EDGES:
            config = parsed(config_class, capsys, *needed, f"--{field.name}={text}")
            if config is not None:
                assert means(text, getattr(config, field.name), field.name), (field.name, text, config)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.slow
def test_a_value_may_stand_behind_a_space(program, capsys):
    """A negative number is one, and no flag."""
    config_class = PROGRAMS[program]
    needed = NEEDED.get(program, [])
    for field in dataclasses.fields(config_class):
        for text in ("-3", "-inf", "1", "a"):
            if field.type is bool:
                continue
            one = parsed(config_class, capsys, *needed, f"--{field.name}={text}")
            other = parsed(config_class, capsys, *needed, f"--{field.name}", text)
            assert other in (one, None), (field.name, text)


@pytest.mark.parametrize(
    "words",
    [
        ["--decay_epochs", "-3"], ["--decay_epochs=-3"], ["--decay_epochs=3,-3"], ["--learning_rate=inf"],
        ["--learning_rate=1e400"], ["--tolerance=nan"], ["--id=.."], ["--id=a/b"], ["--id=/etc"], ["--id=."],
        ["--id= "],
        ["--id=a\nb"], ["--runs_dir="], ["--seeds=" + "9" * 30], ["--epochs=4294967297"], ["--seed=-1"],
        ["--hidden=9999999999"], ["--min_group_size=-2"], ["--max_data_bytes=-1"], ["--weight_decay=inf"],
        ["--flagfile=/no/such/file"], ["--verbosity=many"], ["--seeds"], ["--seeds", "1", "2"], ["--id=" + "../" * 3],
    ],
    ids=lambda words: " ".join(words)[:40],
)  # fmt: skip
def test_what_was_let_pass_is_refused(words, capsys):
    assert parsed(balancing_act.Config, capsys, *words) is None


def test_what_is_meant_is_let_pass(capsys):
    config = parsed(
        balancing_act.Config, capsys, "--id=..mine", "--max_data_bytes=40000000000", "--decay_epochs=", "--seed=7"
    )
    assert (config.id, config.max_data_bytes, config.decay_epochs, config.seed) == ("..mine", 40_000_000_000, (), 7)
