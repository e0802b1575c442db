"""What every experiment begins and ends with."""

import dataclasses
import errno
import json

import pytest

from experiments import runs
from jaxfair import data, models, study


@dataclasses.dataclass(frozen=True)
class Config:
    runs_dir: str
    id: str = ""
    rate: float = 0.1


def settings_of(config):
    return {"rate": config.rate}


def test_a_run_has_a_folder_of_its_settings_and_comes_back_to_it(tmp_path, capsys):
    config = Config(str(tmp_path / "runs"))
    with runs.opened(config, settings_of(config), 1) as folder:
        assert json.loads((folder / "config.json").read_text()) == {"rate": 0.1}
    assert capsys.readouterr().out == ""
    with runs.opened(config, settings_of(config), 1) as again:
        assert again == folder
    assert capsys.readouterr().out == f"going on with the run in {folder}\n"
    other = dataclasses.replace(config, rate=0.2)
    with runs.opened(other, settings_of(other), 1) as elsewhere:
        assert elsewhere != folder
    named = dataclasses.replace(other, id=folder.name)
    with (
        pytest.raises(study.FolderError, match=r"rate is 0.1 there and 0.2 here"),
        runs.opened(named, settings_of(named), 1),
    ):
        pass
    assert (folder / "config.json").exists()


def test_a_second_process_is_kept_out(tmp_path):
    config = Config(str(tmp_path))
    with (
        runs.opened(config, {}, 1) as folder,
        pytest.raises(study.FolderError, match="another process"),
        runs.opened(config, {}, 1),
    ):
        pass
    assert (folder / "config.json").exists()


@pytest.mark.parametrize("error", [runs.UsageError, data.DataError, study.FolderError])
def test_what_cannot_be_used_leaves_no_empty_folder_and_no_loss(tmp_path, error):
    config = Config(str(tmp_path / "runs"), id="mine")

    def fail(records):
        with runs.opened(config, {}, 1) as folder:
            if records:
                (folder / "records.jsonl").write_text("{}\n")
            raise error("no such file")

    with pytest.raises(error):
        fail(records=False)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(error):
        fail(records=True)
    assert (tmp_path / "runs" / "mine" / "records.jsonl").read_text() == "{}\n"
    with pytest.raises(error):
        fail(records=False)
    assert (tmp_path / "runs" / "mine" / "records.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (runs.UsageError("--rate=-1: give a number above 0"), 2, "try: --rate=-1: give a number above 0\n"),
        (models.UnknownModel("no model 'x'"), 2, "try: no model 'x'\n"),
        (OSError(errno.ENOSPC, "No space left on device", "w.npz"), 1,
         "try: No space left on device: w.npz; free some space, and the same command goes on from what is saved\n"),
    ],
    ids=["none", "usage", "model", "disk"],
)  # fmt: skip
def test_an_error_that_a_user_can_mend_is_one_line_and_an_exit_code(
    error, code, said, capsys, monkeypatch
):
    monkeypatch.setattr("warnings.formatwarning", None)  # the entry sets its own

    def run(config):
        if error is not None:
            raise error

    assert runs.entry(run, "try")(Config("runs")) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [OSError(errno.EIO, "input/output error"), ZeroDivisionError()])
def test_an_error_of_ours_keeps_its_traceback(error, monkeypatch):
    monkeypatch.setattr("warnings.formatwarning", None)

    def run(config):
        raise error

    with pytest.raises(type(error)):
        runs.entry(run, "try")(Config("runs"))
