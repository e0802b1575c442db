"""Flags: what cannot be is one line and an exit code, before anything runs."""

import dataclasses
import errno
import math
import os
import pathlib
import shlex
import warnings

import jax
import pytest

from jaxfair import data, models, report, study
from jaxfair.cli import flags, programs
from jaxfair.cli.heard import heard


@dataclasses.dataclass(frozen=True)
class Config:
    """A program."""

    # how many
    seeds: int = flags.one(5, low=1, high=9)
    rate: float = flags.one(0.1, above=0)
    shares: tuple[float, ...] = flags.several((0.5,), float, low=0, below=1)
    methods: tuple[str, ...] = flags.several(("nft",), of=("nft", "ceag"))
    extra: tuple[str, ...] = flags.several((), of=lambda: ["a"], none=True)
    kind: str = flags.one("plain", of=("plain", "fancy"))
    name: str = ""

    def check(self):
        if self.seeds == 7 and self.name == "seven":
            raise flags.UsageError("--seeds=7, --name=seven: one of the two")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": 0}, "--seeds=0: give a number of at least 1 and of at most 9"),
        ({"seeds": 10}, "--seeds=10: give a number of at least 1 and of at most 9"),
        ({"rate": 0.0}, "--rate=0.0: give a number above 0"),
        ({"rate": math.nan}, "--rate=nan: give a number above 0"),
        ({"shares": (0.0, 1.0)}, "--shares=1.0: give a number of at least 0 and below 1"),
        ({"shares": ()}, "--shares: give at least one"),
        ({"methods": ("cegg",)}, "--methods: there is no 'cegg'; did you mean 'ceag'? choose from nft, ceag"),
        ({"methods": ("obs",)}, "--methods: there is no 'obs'; choose from nft, ceag"),
        ({"extra": ("b",)}, "--extra: there is no 'b'; choose from a"),
        ({"kind": ""}, "--kind: there is no ''; choose from plain, fancy"),
        ({"seeds": 7, "name": "seven"}, "--seeds=7, --name=seven: one of the two"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(change, said):
    with pytest.raises(flags.UsageError) as raised:
        flags.check(Config(**change))
    assert str(raised.value) == said


def test_what_can_be_passes():
    flags.check(Config())
    flags.check(Config(seeds=9, shares=(0.0, 0.99), methods=("nft", "ceag"), extra=("a",), name="seven"))


def test_words_become_a_config():
    seen = []
    main = flags.entry(seen.append, Config, prog="try")
    assert main(["--seeds=3", "--shares", "0.1,0.2", "--methods=nft, ceag"]) == 0
    assert seen == [Config(seeds=3, shares=(0.1, 0.2), methods=("nft", "ceag"))]


@pytest.mark.parametrize("words", [["--sedes=3"], ["--seeds=many"], ["--shares=0.1,x"], ["stray"]])
def test_what_cannot_be_parsed_is_one_line_and_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as raised:
        flags.entry(lambda config: 0, Config, prog="try")(words)
    assert raised.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_lists_the_flags_with_their_comments(capsys):
    with pytest.raises(SystemExit) as raised:
        flags.entry(lambda config: 0, Config, prog="try")(["--help"])
    assert raised.value.code == 0
    out = capsys.readouterr().out
    assert "how many" in out
    assert "--methods" in out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (flags.UsageError("--rate=-1: give a number above 0"), 2, "try: --rate=-1: give a number above 0\n"),
        (models.UnknownModel("no model 'x'"), 2, "try: no model 'x'\n"),
        (data.DataError("no file x.npz"), 2, "try: no file x.npz\n"),
        (study.FolderError("no room"), 2, "try: no room\n"),
        (study.Stopped("runs/1"), 0, ""),
        (OSError(errno.ENOSPC, "No space left on device", "w.npz"), 1,
         "try: No space left on device: w.npz; free some space, and the same command goes on from what is saved\n"),
    ],
    ids=["none", "usage", "model", "data", "folder", "stopped", "disk"],
)  # fmt: skip
def test_an_error_that_a_user_can_mend_is_one_line_and_an_exit_code(error, code, said, capsys):
    def run(config):
        if error is not None:
            raise error

    assert flags.entry(run, Config, prog="try")([]) == code
    out, err = capsys.readouterr()
    assert err == said
    assert ("the same command goes on from there" in out) == isinstance(error, study.Stopped)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "input/output error"), ZeroDivisionError()])
def test_an_error_of_ours_keeps_its_traceback(error):
    def run(config):
        raise error

    with pytest.raises(type(error)):
        flags.entry(run, Config, prog="try")([])


def test_the_command_of_a_page_is_the_one_that_goes_on(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Told:
        rates: tuple[float, ...] = flags.several((0.1,), float)
        free: tuple[str, ...] = flags.several((), none=True, separator=";")
        seeds: int = flags.one(2)
        runs_dir: str = "runs"
        id: str = ""

    config = Told(rates=(0.1, 1.0), free=("a, b", "c"), runs_dir=str(tmp_path), id="mine")
    command = report.repeat(study.Run(tmp_path, names=("seed",), config=config), "experiments.told")["command"]
    words = shlex.split(command)
    assert words[0].endswith("python")  # of the clone's environment, where this is one
    assert words[1:3] == ["-m", "experiments.told"]
    assert flags.parser(Told, prog="told")(["told", *words[3:]]) == config
    assert not any(word.startswith("--seeds") for word in words)


def test_programs_are_kept_in_a_folder_of_the_user_alone(tmp_path, monkeypatch):
    kept, settings = tmp_path / "jaxfair" / "programs", {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    with warnings.catch_warnings():
        assert programs.keep(environment) == str(kept)
        assert settings == {
            "jax_compilation_cache_dir": str(kept), "jax_persistent_cache_min_compile_time_secs": 0.2,
        }  # fmt: skip
        assert environment[programs.FOLDER] == str(kept)
        assert kept.stat().st_mode & 0o777 == 0o700
        settings.clear()
        assert programs.keep({programs.FOLDER: ""}) == ""  # as JAX has it: none
        kept.chmod(0o777)  # anybody's programs would be run
        assert programs.keep({"XDG_CACHE_HOME": str(tmp_path)}) == ""
        assert programs.keep({"HOME": "/dev/null"}) == ""
        assert programs.keep({}) == ""
    assert not settings


def test_the_oldest_programs_go_where_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda *setting: None)
    monkeypatch.setattr(programs, "MOST_BYTES", 250)
    with warnings.catch_warnings():
        folder = pathlib.Path(programs.keep({"XDG_CACHE_HOME": str(tmp_path)}))
        for age in range(4):
            (folder / f"{age}-cache").write_bytes(bytes(100))
            os.utime(folder / f"{age}-cache", (1000 - age, 1000 - age))
        (folder / "of_a_gpu").mkdir()  # where JAX keeps more
        programs.keep({"XDG_CACHE_HOME": str(tmp_path)})
    assert sorted(file.name for file in folder.iterdir()) == ["0-cache", "1-cache", "of_a_gpu"]


def test_ctrl_c_at_another_time_than_in_training_is_one_word(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert heard(interrupted) == 130
    assert capsys.readouterr().err == "interrupted\n"
