"""One run on several devices and in several processes: the numbers of one device, a stop of all, and one that dies."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxfair import study, train
from jaxfair.train._layout import Layout, layout

mesh_lib = sys.modules["jaxfair.train.mesh"]  # the package has a function of its name
SCRIPT = pathlib.Path(__file__).with_name("on_a_mesh.py")
#: Sums over devices are taken in another order, and what comes of them goes through 32 steps: a few units in the last
#: place of numbers up to 1 in float32, 6e-8 each.
CLOSE = {"rtol": 1e-5, "atol": 5e-6}


#: What was started and has not been asked for its words yet: a test that fails leaves none behind.
RUNNING = []


@pytest.fixture(autouse=True)
def ended():
    yield
    while RUNNING:
        RUNNING[-1].kill()
        said(RUNNING[-1])


def started(*arguments, devices=4, script=SCRIPT):
    """On stdout gloo tells of its connections, from several threads into one line: nothing else is written there."""
    count = f"--xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}"}
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, cwd=SCRIPT.parents[1],
    )  # fmt: skip
    RUNNING.append(process)
    return process


def two(*arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [started(*arguments, "--of", i, 2, port, devices=2) for i in range(2)]


def said(process):
    """What a process says at its end."""
    _, text = process.communicate(timeout=300)
    RUNNING.remove(process)
    return text.splitlines()


def check_same(found, wanted, names):
    found, wanted = np.load(found), np.load(wanted)
    assert {name.split("/")[0] for name in found.files} == set(names)
    for name in found.files:
        np.testing.assert_allclose(found[name], wanted[name], **CLOSE, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """On one device of four, and on all of them; no matter what a mesh is called."""
    folder = tmp_path_factory.mktemp("alone")
    assert said(started(folder, "1x1", "2x2")) == []
    return folder


@pytest.mark.slow
def test_lanes_and_batches_over_four_devices_are_those_of_one(alone):
    check_same(alone / "2x2.npz", alone / "1x1.npz", ("ceag", "bifp", "qat"))


@pytest.mark.slow
def test_two_processes_compute_what_one_does_and_all_stop_where_one_is_asked_to(alone, tmp_path):
    for process in two(tmp_path, "1x4", "--stop", tmp_path / "stopped"):
        assert said(process) == ["stopped"]
    check_same(tmp_path / "1x4.npz", alone / "1x1.npz", ("ceag", "streamed", "bifp", "qat"))
    assert (tmp_path / "stopped" / "ceag" / "16").exists()


@pytest.mark.slow
def test_one_is_killed_and_the_rest_of_the_run_needs_one_process_only(alone, tmp_path):
    """The other ends at once with one line; what was saved goes on elsewhere, to the same end."""
    names = "--names", "ceag", "--folder", tmp_path
    first, second = two(tmp_path, "2x2", *names, "--wait_after", 1)
    began = time.monotonic()
    while not (tmp_path / "ceag" / "16").exists():
        assert time.monotonic() - began < 240
        assert second.poll() is None
        time.sleep(0.1)
    second.kill()
    assert said(first) == ["another process has ended: start all again, and the run goes on from its last checkpoint."]
    assert first.returncode == 1
    said(second)
    assert said(started(tmp_path, "1x4", *names)) == []
    check_same(tmp_path / "1x4.npz", alone / "1x1.npz", ("ceag",))
    assert len((tmp_path / "ceag.jsonl").read_text().splitlines()) == 2 * 2


@pytest.mark.slow
def test_an_error_of_one_process_is_told_and_ends_all(tmp_path):
    """At once: JAX alone lets the others wait for minutes."""
    first, second = two(tmp_path, "1x4", "--names", "ceag", "--fails")
    assert said(second)[-1] == "RuntimeError: a bug"
    assert said(first) == ["another process has ended: start all again, and the run goes on from its last checkpoint."]
    assert (first.returncode, second.returncode) == (1, 1)


@pytest.mark.slow
def test_recipes_on_four_devices_deliver_what_they_do_on_one(tmp_path):
    assert said(started(tmp_path, script=SCRIPT.with_name("recipes_on_a_mesh.py"))) == []
    one, four = (np.load(tmp_path / f"{name}.npz") for name in ("1x1", "2x2"))
    assert len(one.files) == 3 * (4 + 1)
    for name in one.files:
        np.testing.assert_allclose(four[name], one[name], **CLOSE, err_msg=name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lanes": 0}, "lanes=0, batch=None: give whole numbers"),
        ({"lanes": 2, "batch": -1}, "lanes=2, batch=-1: give whole numbers"),
        ({"batch": 3, "devices": [0, 1]}, "a mesh of 3 devices, and 2 are there"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        train.mesh(**given)


class Many:
    """A mesh of devices that are not here: only its shape is looked at."""

    def __new__(cls, lanes, batch):
        return Mesh(np.array([jax.devices()[0]] * lanes * batch).reshape(lanes, batch), ("lanes", "batch"))


@pytest.mark.parametrize(
    ("mesh", "plan", "message"),
    [
        ((1, 3), train.Plan(), "batch_size=16 over a mesh of batch=3: give a multiple of 3"),
        ((3, 1), train.Plan(), "4 lanes over a mesh of lanes=3"),
        ((2, 1), train.Plan(mapped=False), "lanes run one after another here"),
    ],
)
def test_what_does_not_divide_is_refused_before_anything_is_trained(mesh, plan, message):
    with pytest.raises(ValueError, match=message):
        layout(Many(*mesh), plan, lanes=4, people=32, batch_size=16)


def test_a_mesh_of_other_axes_is_refused():
    with pytest.raises(ValueError, match=r"axes \('d',\): give train.mesh"):
        layout(Mesh(np.array(jax.devices()[:1]), ("d",)), train.Plan(), lanes=4, people=32, batch_size=16)


def test_each_process_reads_its_part_of_a_batch():
    """With one process that is all of it, in its order."""
    lies = Layout(train.mesh(1, 1), mapped=False, people=8)
    order = np.arange(8).reshape(2, 4)[:, ::-1]
    np.testing.assert_array_equal(lies.mine(order), order)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), jax.errors.JaxRuntimeError("no memory")])
def test_a_process_ends_at_once_after_an_error_of_its_own_that_nobody_catches(error, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: told.append(error))
    monkeypatch.setattr(os, "_exit", told.append)
    with pytest.raises(type(error)), mesh_lib.told_of_lost(several=True):
        raise error
    sys.excepthook(type(error), error, None)
    assert told == [(type(error), error, None), 1]


def test_a_stop_of_all_is_no_error(monkeypatch):
    before = sys.excepthook
    with pytest.raises(study.Stopped), mesh_lib.told_of_lost(several=True):
        raise study.Stopped("folder")
    assert sys.excepthook is before
