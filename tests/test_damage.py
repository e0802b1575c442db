"""What a disk can do to a run: a damaged file and a full disk are one line each, and what to do helps."""

import errno
import logging
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experiments import balancing_act
from jaxfair import audit, cli, files, sparsity, study, train

pytestmark = pytest.mark.usefixtures("compiled_once")
FLAGS = ("--seeds=2", "--sparsity=0.5", "--dense_epochs=2", "--epochs=3", "--batch_size=32", "--nonaive")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "my.npz"
    x, group = rng.normal(size=(300, 4)), rng.choice(["north", "south"], 300)
    np.savez(path, x=x, y=(x[:, 0] > 0).astype(int), group=group)
    return path


def words(table, out, *more):
    return ["prune", f"--data={table}", f"--out={out}", *FLAGS, *more]


def shipped(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".safetensors", ".csv", ".npz")}


@pytest.fixture(scope="module", autouse=True)
def without_the_page():
    """Networks and tables matter here; the page would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit.Comparison, "write", lambda self, out, **words: None)
        yield


@pytest.fixture(scope="module")
def pruned(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("pruned") / "out"
    assert cli.main(words(table, out)) == 0
    return out


def checkpoint(out):
    (found,) = [p for p in (out / "training" / "ceag" / "checkpoints").iterdir() if p.name.isdigit()]
    return found


def cut(path):
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without_data(path):
    shutil.rmtree(path / "default" / "d")


def broken_line(path, line):
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, line, *rest[1:]]))


def lined(line):
    return lambda out: broken_line(out / "training" / "ceag" / "epochs.jsonl", line)


#: What is done to a run that is over -> what the line names.
DAMAGES = {
    "a cut checkpoint": (lambda out: cut(checkpoint(out)), "checkpoints/"),
    "a checkpoint without its data": (lambda out: without_data(checkpoint(out)), "checkpoints/"),
    "a broken line": (lined(b"{broken\n"), "epochs.jsonl is damaged (line 2 is no record"),
    "a line of something else": (lined(b"{}\n"), "epochs.jsonl is damaged (line 2 has no epoch"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line_and_what_it_says_to_remove_mends_it(damage, table, pruned, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(pruned, out)
    do, named = DAMAGES[damage]
    do(out)
    assert cli.main(words(table, out)) == 2
    err = capsys.readouterr().err
    line = err.splitlines()[-1]
    assert line.startswith("jaxfair prune: ")
    assert named in line
    assert "Traceback" not in err
    assert f"remove {out / 'training' / 'ceag'}, and it is trained again" in line
    shutil.rmtree(out / "training" / "ceag")
    assert cli.main(words(table, out)) == 0
    assert shipped(out) == shipped(pruned)


READ = """
import sys
import jax.numpy as jnp
from jaxfair import files, train
for folder in sys.argv[1:]:
    try:
        with train.Checkpoints(folder) as store:
            store.restore({"w": jnp.zeros(3000), "v": jnp.zeros(2)})
    except files.DamagedError:
        print("damaged")
"""


def test_of_a_damaged_checkpoint_nothing_else_is_said(tmp_path):
    """By threads that end later, and by what logs: in a process of its own, which they outlive."""
    with train.Checkpoints(tmp_path / "whole") as store:
        store.save(1, {"w": np.ones(3000, np.float32), "v": np.ones(2, np.float32)})
    folders = {name: tmp_path / name for name in ("none", "cut", "empty")}
    for folder in folders.values():
        shutil.copytree(tmp_path / "whole", folder)
    without_data(folders["none"] / "1")
    cut(folders["cut"])
    (folders["empty"] / "1" / "default" / "manifest.ocdbt").write_bytes(b"")
    run = subprocess.run(
        [sys.executable, "-c", READ, *map(str, folders.values())], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["damaged"] * 3
    assert run.stderr == ""


@pytest.mark.parametrize("content", [b"{", b"[]", b"3", b"\xff", b""])
def test_a_damaged_config_is_one_line(content, tmp_path):
    study.claim_folder(tmp_path, {"sparsity": 0.9})
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(study.FolderError, match=r"config\.json cannot be read: choose another folder"):
        study.claim_folder(tmp_path, {"sparsity": 0.9})


@pytest.mark.parametrize("line", ["{broken", "[1]", "", "{}", '{"accuracy": 1}', "\x00"])
def test_a_line_that_records_nothing_is_named(line, tmp_path):
    names = ("seed",)
    run = study.Run(tmp_path, names=names)
    for seed in range(3):
        run.record({"seed": seed}, {"accuracy": 0.5})
    log = tmp_path / "records.jsonl"
    whole = log.read_text().splitlines()
    log.write_text("\n".join([whole[0], line, whole[2]]) + "\n")
    with pytest.raises(files.DamagedError, match=r"records\.jsonl is damaged \(line 2 .*remove that line"):
        study.Run(tmp_path, names=names)
    log.write_text("\n".join([whole[0], whole[2]]) + "\n")
    assert [record["seed"] for record in study.Run(tmp_path, names=names).records] == [0, 2]


def test_damaged_predictions_and_networks_of_a_run_are_one_line(tmp_path):
    path = tmp_path / "predictions" / "nft.npz"
    path.parent.mkdir()
    for content in (b"", b"PK\x03\x04", b"nothing of the kind"):
        path.write_bytes(content)
        with pytest.raises(files.DamagedError, match=r"nft\.npz is damaged .*remove .*records\.jsonl"):
            balancing_act.predictions(tmp_path, "nft")
        with pytest.raises(files.DamagedError, match="remove it, and the networks are trained again"):
            train.load(path, {"w": np.zeros(2)})


def test_damaged_weights_of_a_run_are_one_line(tmp_path):
    path = tmp_path / "weights" / "nft_seed0.safetensors"
    path.parent.mkdir()
    weights = {"w": np.arange(6.0, dtype=np.float32)}
    sparsity.save(path, weights, {}, {"w": weights["w"] > 1})
    whole, run = path.read_bytes(), study.Run(tmp_path, names=("job", "method", "seed"))
    for content in (b"", whole[:7], whole[:40], whole[:-1], b"nothing of the kind", whole.replace(b"F32", b"F99")):
        path.write_bytes(content)
        with pytest.raises(files.DamagedError, match=r"seed0\.safetensors is damaged .*remove .*records\.jsonl"):
            balancing_act.variant(balancing_act.Config(), run, "nft", "nft")


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, {bytes}))
from jaxfair import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [60_000])
def test_a_checkpoint_that_does_not_fit_is_the_last_line_alone(size, table, pruned, tmp_path, monkeypatch):
    """By a limit on the size of a file, which tensorstore meets in its threads as it does a full disk."""
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1e9")  # what is compiled would not fit either
    out = tmp_path / "out"
    command = [sys.executable, "-c", LIMITED.format(bytes=size), *words(table, out)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    *before, last = run.stderr.splitlines()
    assert last.startswith("jaxfair prune: File too large: ")
    assert last.endswith("free some space, and the same command goes on from what is saved")
    assert all(line.startswith(("dense: ", "ceag: ")) for line in before), run.stderr
    assert cli.main(words(table, out)) == 0
    assert shipped(out) == shipped(pruned)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != size


def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("write", [
    lambda path: files.atomic_write(path, "text"),
    lambda path: study.append(path, {"seed": 1}),
    lambda path: train.save(path, {"w": np.zeros(3)}),
])  # fmt: skip
def test_a_write_that_fails_says_where_and_leaves_nothing_broken(write, tmp_path, monkeypatch):
    path = tmp_path / "file"
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '.*/file'"):
        write(path)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_checkpoint_asks_for_room_before_it_is_written(tmp_path, monkeypatch):
    with train.Checkpoints(tmp_path) as store:
        store.save(1, {"w": np.zeros(1000)})
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 100, 100))
        with pytest.raises(OSError, match="No space left on device"):
            store.save(2, {"w": np.zeros(1000)})
        assert store.latest() == 1
    assert not logging.getLogger("absl").filters
