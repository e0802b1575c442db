"""The screening of the dynamics of multipliers: its design, its lanes, and a run that is killed."""

import itertools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import dual_dynamics, dual_dynamics_report
from experiments import dual_dynamics_design as design
from jaxfair import constraints, data, models, optim, train
from jaxfair.study import records as records_lib
from jaxfair.typing import Batch

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("compiled_once")

# --- the design --------------------------------------------------------------------------------------------------


def test_all_levels_and_all_pairs_of_levels_occur_equally_often():
    rows = design.read()
    assert len(rows) == 48
    assert len({tuple(row.values()) for row in rows}) == 48
    for a, b in itertools.combinations(design.LEVELS, 2):
        counts = {}
        for row in rows:
            counts[row[a], row[b]] = counts.get((row[a], row[b]), 0) + 1
        assert len(counts) == len(design.LEVELS[a]) * len(design.LEVELS[b])
        assert len(set(counts.values())) == 1, (a, b, counts)


def test_main_effects_are_orthogonal_and_the_model_can_be_fitted():
    rows = design.read()
    main, _ = design.model_matrix(rows, ())
    np.testing.assert_allclose(main.T @ main, 48 * np.eye(main.shape[1]), atol=1e-9)
    full, _ = design.model_matrix(rows)
    assert np.linalg.cond(full) < 3
    # What the docstring says of the aliases: none is complete over the three fractions.
    assert 0 < max(design.aliasing(rows).values()) < 0.7


def test_a_constructed_design_is_of_the_same_kind():
    rows = design.construct(3, np.random.default_rng(0))
    main, _ = design.model_matrix(rows, ())
    np.testing.assert_allclose(main.T @ main, 48 * np.eye(main.shape[1]), atol=1e-9)


def test_planted_effects_are_found_with_their_intervals():
    rows = design.read()
    rng = np.random.default_rng(0)
    response = np.array([
        0.7 * (r["mean"] == "prevalence") + 0.3 * math.log10(r["rate"])
        + 0.5 * (r["weights"] == "normalized" and r["mean"] == "prevalence")
        for r in rows
    ]) + 0.05 * rng.normal(size=48)  # fmt: skip
    found = dual_dynamics_report.fit(rows, response)
    column = found.terms.index("mean")
    # Contrasts are -1 and 1: the effect is twice the coefficient; half of the interaction is part of it.
    assert 2 * found.beta[column] == pytest.approx(0.7 + 0.25, abs=0.05)
    best = dual_dynamics_report.predicted_best(rows, response, [])
    assert (best["mean"], best["rate"]) == ("uniform", 0.001)


# --- lanes -------------------------------------------------------------------------------------------------------


def tiny_problem():
    """Two classes, three groups of unequal size, a linear model, and a dense network to compare with."""
    rng = np.random.default_rng(1)
    num = 96
    group = np.repeat(np.arange(3), (60, 28, 8)).astype(np.int32)
    x = rng.normal(size=(num, 4)).astype(np.float32)
    y = (x[:, 0] + np.where(group == 2, -2, 0.5) * x[:, 1] > 0).astype(np.int32)
    split = Batch(
        *map(jnp.asarray, (x, y, group, np.arange(num, dtype=np.int32), np.ones(num, np.float32)))
    )
    model = models.mlp(2, hidden=())
    params, _ = model.init(jax.random.key(0), split.x[:1])
    dense = constraints.Outcomes(
        jnp.asarray(rng.integers(0, 2, num), jnp.float32).at[:80].set(1.0), jnp.full(num, 0.1)
    )
    return split, model, params, dense


CORNERS = [
    {"weights": w, "mean": m, "start": s, "margin": margin, "estimate": e}
    for w, m, s, margin, e in (
        ("published", "uniform", "after", 1.0, "ring"),
        ("published", "prevalence", "before", 0.5, "memory"),
        ("normalized", "prevalence", "before", 0.5, "memory"),
        ("normalized", "uniform", "before", 1.0, "memory"),
    )
]  # fmt: skip


@pytest.mark.parametrize("corner", CORNERS, ids=lambda c: "-".join(map(str, c.values())))
def test_a_lane_is_the_librarys_own_problem_at_each_corner(corner):
    """The switches as data, through the ordinary solver: the steps of `excess_accuracy_gap`, bit for bit."""
    split, model, params, dense = tiny_problem()
    normalized = corner["weights"] == "normalized"
    start = 3 if corner["start"] == "after" else 0
    memory = (
        constraints.replay_buffer(3, 4) if corner["estimate"] == "ring" else constraints.example_memory(3)
    )  # fmt: skip
    problem = constraints.excess_accuracy_gap(
        model.apply, num_groups=3, tolerance=0.02, memory=memory, mean=corner["mean"],
        proxy="prevalence" if normalized else "batch", margin=corner["margin"], start=start,
    )  # fmt: skip
    formulation = constraints.normalized_lagrangian() if normalized else constraints.lagrangian()
    setting = dual_dynamics.RECIPE | corner | {"rate": 3.0}
    lane = dual_dynamics.lane_of(setting, 0, 0.02, steps=6, prune=3)
    shared = {"multipliers": constraints.dense(3), "primal": optax.sgd(0.5, momentum=0.9)}
    theirs = constraints.solver(
        problem.evaluate, dual=optax.sgd(3.0), formulation=formulation, **shared
    )

    def run_lane(lane, order):
        mine = constraints.solver(
            dual_dynamics.make_evaluate(model.apply, memory, lane, None),
            dual=optim.nupi(lane.rate, lane.proportional, 1.0, lane.decay),
            formulation=dual_dynamics.blended(lane.normalized), **shared,
        )  # fmt: skip
        return run(mine, order)

    def run(solver, order):
        state = solver.init(params, problem.init({}, dense, split))

        def body(state, index):
            state, info = solver.step(state, jax.tree.map(lambda a: a[index], split))
            return state, (info.strict, info.weights)

        state, seen = jax.lax.scan(body, state, order)
        return state.params, state.multipliers, seen

    order = train.epoch_order(jax.random.key(2), 0, num_examples=96, batch_size=16, num_steps=6)
    # One operation after the other: compiled, XLA fuses two programs in two ways, and the last digit may differ.
    with jax.disable_jit():
        expected, found = run(theirs, order), run_lane(lane, order)
    assert np.max(np.asarray(expected[2][1])) > 0  # some constraint had weight
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    # And compiled, beside another lane: up to rounding.
    lanes = jax.tree.map(
        lambda *a: jnp.stack(a), lane, lane._replace(normalized=1 - lane.normalized)
    )
    mapped = jax.jit(jax.vmap(run_lane, (0, None)))(lanes, order)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=2e-4, atol=2e-5), mapped, expected
    )


def test_the_dual_optimizers_are_those_of_the_library():
    steps, rng = 60, np.random.default_rng(0)
    field = jnp.asarray(rng.normal(size=(40, 3)), jnp.float32)
    tau = steps / 2
    for name, reference in {
        "ascent": optax.sgd(0.1),
        "optimistic": optim.optimistic_gradient(0.1, tau),
        "omega": optim.omega(0.1, 1.0, 1 - 1 / tau),
        "nupi": optim.nupi(0.1, tau, 1.0, 1 - 10 / tau),
    }.items():
        proportional, decay = dual_dynamics.gains(name, steps)
        family = optim.nupi(0.1, proportional, 1.0, decay)
        a, b = family.init(field[0]), reference.init(field[0])
        for g in field:
            x, a = family.update(g, a)
            y, b = reference.update(g, b)
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5, err_msg=name)


def test_the_gain_cancels_the_lag():
    """A violation of 1 since step 0, seen through a lag of tau: how far a multiplier is behind one that saw it."""
    steps, rate = 200, 0.01
    tau = steps / 2
    seen = 1 - np.exp(-np.arange(101) / tau)
    behind = {}
    for name in design.LEVELS["optimizer"]:
        proportional, decay = dual_dynamics.gains(name, steps)
        tx = optim.nupi(rate, proportional, 1.0, decay)
        state, total = tx.init(jnp.zeros(())), 0.0
        for value in seen:
            update, state = tx.update(jnp.float32(-value), state)
            total += float(update)
        behind[name] = 1 - total / (rate * 100)
    # After tau steps, the integral of the lagging signal is 1 / e of the true one's.
    assert behind["ascent"] == pytest.approx(1 - np.exp(-1), abs=0.01)
    assert abs(behind["optimistic"]) < 0.02
    assert abs(behind["nupi"]) < 0.1
    assert 0.1 < behind["omega"] < 0.4


def test_a_rate_of_zero_is_naive_fine_tuning():
    lane = dual_dynamics.lane_of(dual_dynamics.NFT, 0, 0.01, 10, 3)
    assert float(lane.rate) == 0
    assert dual_dynamics.blended(lane.normalized).weights(
        jnp.zeros(3), None, (), None
    ).tolist() == [0, 0, 0]


def test_chunks_are_a_function_of_the_jobs_and_hold_every_job_once():
    config = dual_dynamics.Config(data_sets=("adult_label", "planted"))
    best = {"best_1": design.read()[0], "best_2": design.read()[40]}
    for jobs in (dual_dynamics.screen_jobs(config), dual_dynamics.confirm_jobs(config, best)):
        assert len({job.at for job in jobs}) == len(jobs)
        found = dual_dynamics.chunks(jobs, 8)
        assert sorted(job.at for c in found for job in c) == sorted(job.at for job in jobs)
        assert all(
            len(c) <= 8 and len({(j.stage, j.data_set, j.split, j.program) for j in c}) == 1 for c in found
        )  # fmt: skip
    assert len(dual_dynamics.screen_jobs(config)) == 2 * 2 * 54


def test_the_confirmation_plays_what_is_named_in_the_same_order():
    config = dual_dynamics.Config(data_sets=("planted",))
    best = {"best_1": design.read()[0]}
    some = config.__class__(data_sets=("planted",), settings=("nft", "recipe_root"))
    every, named = (dual_dynamics.confirm_jobs(c, best) for c in (config, some))
    assert named == [job for job in every if job.cell.split()[0] in some.settings]
    assert {job.stage for job in named} == {"confirm", "frontier"}
    assert {job.split for job in every} == {1, 2, 3, 4}
    later = config.__class__(data_sets=("planted",), first_split=3, splits=2)
    jobs = dual_dynamics.confirm_jobs(later, best)
    assert [j for j in jobs if j.stage == "confirm"] == [
        j for j in every if j.stage == "confirm" and j.split > 2
    ]
    assert {job.split for job in jobs if job.stage == "frontier"} == {3}
    assert not dual_dynamics.needs_choice(some)
    assert dual_dynamics.needs_choice(config)


def test_thresholds_repair_a_shift_of_a_cell():
    """Logits of one cell are shifted by 3: its threshold undoes it."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400).astype(np.int32)
    cell = (np.arange(400) % 2).astype(np.int64)
    margin = 4.0 * (2 * y - 1) + rng.normal(size=400)
    shifted = margin + 3 * (cell == 1) + 3 * (cell == 1) * (rng.random(400) < 0.5)
    dense = np.stack([np.zeros(400), margin], axis=1)[None]
    batch = Batch(None, y, cell, None, None)
    dataset = type("Data", (), dict.fromkeys(("train", "validation", "test"), batch))
    splits = ("train", "validation", "test")
    setup = dual_dynamics.Setup(**dict.fromkeys(dual_dynamics.Setup._fields) | {
        "dataset": dataset, "logits": dict.fromkeys(splits, dense), "cells": dict.fromkeys(splits, cell)})  # fmt: skip
    logits = dict.fromkeys(splits, np.stack([np.zeros(400), shifted], axis=1))
    before = (shifted > 0) == y
    after = dual_dynamics.thresholded(setup, 0, logits)["test"] == y
    assert before[cell == 1].mean() < 0.95 < after[cell == 1].mean()
    np.testing.assert_array_equal(after[cell == 0], before[cell == 0])


# --- runs --------------------------------------------------------------------------------------------------------

TINY = ("--data_sets=planted", "--size=0.03", "--epochs=3", "--cells=23,34", "--screen_seeds=1", "--lanes=1",
        "--stage=screen", "--id=tiny")  # fmt: skip


def start(folder, *flags, **environment):
    """A run that is going to be killed: it must not leave half an executable in the cache that others read."""
    command = [sys.executable, "-m", "experiments.dual_dynamics", f"--runs_dir={folder}", *flags]
    reads_only = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | reads_only | environment,
    )


def finish(folder, *flags):
    process = start(folder, *flags, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    try:
        out, err = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


@pytest.fixture(scope="module")
def screened(tmp_path_factory):
    """A screening of two cells and the controls."""
    folder = tmp_path_factory.mktemp("screened")
    code, out, err = finish(folder, *TINY)
    assert code == 0, err
    return folder / "tiny", out, err


@pytest.mark.slow
def test_a_screening_writes_everything(screened):
    folder, out, err = screened
    written = {p.name for p in folder.iterdir()}
    assert {
        "config.json",
        "records.jsonl",
        "times.jsonl",
        "report.html",
        "figures",
        "dense",
    } <= written
    assert "report.html" in out
    assert "to go" in err
    records = records_lib.read(folder / "records.jsonl")
    runs = [r for r in records if r["of"] == "run"]
    assert {r["cell"] for r in runs} == {
        "nft", "recipe", "recipe_balanced", "recipe_root", "recipe_epoch", "published", "23", "34",
    }  # fmt: skip
    assert sum(r["of"] == "choice" for r in records) == 1
    for run in runs:
        assert run["failed_at"] == -1
        for which in ("last", "delivered"):
            for split in ("train", "validation", "test"):
                assert (
                    0 <= run[which][split]["gap"] <= 1
                )  # the largest of gaps whose weighted sum is 0
        assert len(run["path"]["gaps"]) == 3
        assert run["path"]["epochs"] == [1, 2, 3]
    (nft,) = (r for r in runs if r["cell"] == "nft")
    assert nft["multipliers"] == 0
    times = records_lib.read(folder / "times.jsonl")
    assert sum(t["lanes"] for t in times) == 8  # two cells and six controls
    assert not any(
        "seconds" in line for line in (folder / "records.jsonl").read_text().splitlines()
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_without_computing_anything_again(screened, tmp_path):
    """kill -9 after the first cell: the same records bit for bit, and each run was computed once."""
    whole, _, _ = screened
    process = start(tmp_path, *TINY)
    file = tmp_path / "tiny" / "records.jsonl"
    while not (file.exists() and '"of": "run"' in file.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = file.read_bytes()
    assert before != (whole / "records.jsonl").read_bytes()
    code, out, err = finish(tmp_path, *TINY)
    assert code == 0, err
    assert "going on with the run in" in out
    assert file.read_bytes() == (whole / "records.jsonl").read_bytes()
    assert file.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    done = sum(
        json.loads(line)["of"] == "run" for line in before.splitlines() if line.endswith(b"}")
    )
    assert err.count("to go") == 8 - done


@pytest.mark.slow
def test_the_confirmation_with_baselines_and_its_page(tmp_path):
    """In this process, with a choice that was made before: one program per kind of lane."""
    config = dual_dynamics.Config(
        data_sets=("planted",), size=0.03, epochs=3, stage="confirm", seeds=1, splits=1, frontier_seeds=1,
        rates=(0.002,), tolerances=(), lanes=2, runs_dir=str(tmp_path), id="tiny",
    )  # fmt: skip
    file = tmp_path / "tiny" / "records.jsonl"
    best = {"best_1": dual_dynamics.RECIPE | {"rate": 0.1}}
    records_lib.append(file, {"of": "choice", "settings": best})
    assert dual_dynamics.run(config) == 0
    runs = [r for r in records_lib.read(file) if r["of"] == "run"]
    assert {r["cell"] for r in runs if r["stage"] == "confirm"} == {
        "nft", "recipe", "recipe_balanced", "recipe_root", "recipe_epoch", "published", "nft_balanced", "nft_distilled",
        "nft_threshold", "best_1",
    }  # fmt: skip
    assert {r["cell"] for r in runs if r["stage"] == "frontier"} == {
        "recipe rate 0.002",
        "recipe_balanced rate 0.002",
        "recipe_root rate 0.002",
        "best_1 rate 0.002",
    }
    page = (tmp_path / "tiny" / "report.html").read_text()
    for words in ("Targets", "nft_threshold", "How to repeat this", "The design"):
        assert words in page
    written = {p.name for p in (tmp_path / "tiny").iterdir()}
    assert {"methods.csv", "targets.csv", "paired.csv"} <= written
    of = {r["cell"]: r for r in runs}
    for other in ("nft_balanced", "nft_distilled"):
        assert of["nft"]["last"] != of[other]["last"]


def made_up(rng):
    """Records as a whole run would leave them, without training anything."""

    def judged(gap):
        # The loss of accuracy that is allowed, 0.003, is seven standard deviations of a difference.
        one = {"accuracy": 0.86 + 0.0003 * rng.normal(), "gap": gap, "violation": gap - 0.01, "gap_large": gap,
               "by_chance": 0.004,
               "both": True, "psi": [gap, -gap]}  # fmt: skip
        return {w: dict(one) for w in ("train", "validation", "test")}

    def record(stage, data_set, split, seed, cell, setting, gap):
        path = {
            "epochs": [1, 2],
            "gaps": [[gap, -gap]] * 2,
            "estimate": [gap] * 2,
            "multipliers": [[1.0, 0.0]] * 2,
        }
        return {"of": "run", "stage": stage, "data_set": data_set, "split": split, "seed": seed, "cell": cell,
                "setting": setting, "failed_at": -1, "epoch": 1, "averaged": True, "multipliers": 1.0, "path": path,
                "last": judged(gap), "delivered": judged(gap * 0.8)}  # fmt: skip

    config = dual_dynamics.Config(data_sets=("adult_label", "planted"), splits=2, seeds=2)
    rows = [{"of": "dense", "data_set": d, "split": s, "seed": 0, "dense": judged(0.0), "retrained": judged(0.02),
             "groups": ["a", "b"], "num_groups": 2, "prune": 1, "steps": 5}
            for d in config.data_sets for s in range(3)]  # fmt: skip
    effect = {"nft": 0.03, "published": 0.02, "recipe": 0.005}
    for job in dual_dynamics.screen_jobs(config):
        gap = effect.get(job.cell) or 0.02 * (0.5 if job.setting["mean"] == "prevalence" else 1)
        rows.append(record(*job, gap * np.exp(0.1 * rng.normal())))
    best = {"best_1": design.read()[3]}
    rows.append({"of": "choice", "settings": best})
    for job in dual_dynamics.confirm_jobs(config, best):
        gap = 0.03 if job.cell.startswith("nft") else effect.get(job.cell.split()[0], 0.008)
        rows.append(record(*job, gap * np.exp(0.1 * rng.normal())))
    return rows


@pytest.mark.parametrize("part", [1.0, 0.5, 0.03])
def test_the_page_works_from_parts_of_the_records(part, tmp_path):
    rows = made_up(np.random.default_rng(0))
    settings = {"tolerance": 0.01, "seeds": 2}
    dual_dynamics_report.write(tmp_path, settings, rows[: int(part * len(rows))])
    page = (tmp_path / "report.html").read_text()
    assert "Which constraints hold" in page
    if part == 1.0:
        targets = dual_dynamics_report.target_rows(dual_dynamics_report.Runs(rows), 0.01)
        assert {t["state"] for t in targets} == {"reached"}
        assert "What optimism brings" in page
        mean = dual_dynamics_report.effects_table(dual_dynamics_report.Runs(rows))
        mean = mean[(mean["factor"] == "mean") & (mean["response"] == "gap")]
        # Half the gap is one less, of base 2. Twice the half-width of 95 % is missed once in some ten thousand draws.
        middle, half = (mean["low"] + mean["high"]) / 2, (mean["high"] - mean["low"]) / 2
        assert (abs(middle + 1) < 2 * half).all()
        assert (half < 0.1).all()


def test_a_confirmation_without_a_screening_does_not_wait_for_one(tmp_path):
    rows = made_up(np.random.default_rng(0))
    unfinished = "The screening is not finished"
    for kept, said in (("confirm", False), ("screen", True)):
        some = [r for r in rows if r["of"] == "dense" or r.get("stage") == kept]
        dual_dynamics_report.write(tmp_path, {"tolerance": 0.01, "seeds": 2}, some)
        assert (unfinished in (tmp_path / "report.html").read_text()) == said


def test_a_run_that_failed_reaches_no_target_over_rates():
    rows = made_up(np.random.default_rng(0))
    for row in rows:
        if row["of"] == "run" and row["cell"] in ("recipe rate 0.1", "recipe rate 1"):
            for which in ("last", "delivered"):
                row[which]["train"] |= {"gap": np.nan, "violation": np.nan, "accuracy": np.nan}
    targets = dual_dynamics_report.target_rows(dual_dynamics_report.Runs(rows), 0.01)
    over_rates = [
        t
        for t in targets
        if t["method"] == "recipe" and ("rate" in t["target"] or "from" in t["target"])
    ]
    assert len(over_rates) == 6
    assert {t["state"] for t in over_rates} == {"not reached"}


def test_naive_fine_tuning_may_be_the_best_baseline():
    rows = [r for r in made_up(np.random.default_rng(0)) if r.get("stage") == "confirm"]
    best = dual_dynamics_report.best_baseline
    named = ("nft", "nft_balanced")
    for worse in named:
        some = [json.loads(json.dumps(r)) for r in rows if r["cell"] in named]
        for row in some:
            row["delivered"]["test"]["gap_large"] += 0.1 * (row["cell"] == worse)
        assert best(dual_dynamics_report.Runs(some), "planted") != worse
    assert best(dual_dynamics_report.Runs([]), "planted") is None


def test_the_choice_looks_at_train_and_validation_only():
    rng = np.random.default_rng(0)
    config = dual_dynamics.Config(data_sets=("adult_label", "planted"))
    rows = [r for r in made_up(rng) if r.get("stage") == "screen"]
    chosen = dual_dynamics.choose(config, rows)
    assert list(chosen) == ["best_1", "best_2", "best_3"]
    assert all(setting["mean"] == "prevalence" for setting in chosen.values())
    assert chosen["best_3"] not in (chosen["best_1"], chosen["best_2"])
    for row in rows:
        for which in ("last", "delivered"):
            row[which]["test"] = dict.fromkeys(row[which]["test"], math.nan)
    assert dual_dynamics.choose(config, rows) == chosen


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--data_sets=adlut",), "there is no 'adlut'; choose from adult_label"),
        (("--stage=both",), "choose from screen, confirm, all"),
        (("--spilts=3",), "unrecognized arguments: --spilts=3"),
        (("--epochs=1",), "--epochs=1: give at least 3"),
        (("--cells=48",), "give numbers from 0 to 47"),
        (("--stage=confirm",), "run --stage=screen first"),
        (("--stage=confirm", "--settings=nft,best_1"), "run --stage=screen first"),
        (("--settings=nft,best_4",), "there is no 'best_4'; choose from nft, recipe"),
        (("--settings=recipe",), "all is measured against nft"),
        (("--data_sets=cifar10", "--data_dir=nowhere"), "cifar10"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_used_gives_one_line_and_exit_code_2(
    flags, words, tmp_path, capsys, monkeypatch
):
    def refuse(*args, **options):
        raise data.DataError("no cifar10 there")

    from experiments import flags as flags_lib

    monkeypatch.setitem(
        dual_dynamics.DATA_SETS, "cifar10", dual_dynamics.DATA_SETS["cifar10"]._replace(load=refuse)
    )
    monkeypatch.setattr(dual_dynamics, "_cifar10", refuse)
    parse = flags_lib.parser(dual_dynamics.Config, prog="dual_dynamics")
    try:
        code = dual_dynamics.main(
            parse(["dual_dynamics", f"--runs_dir={tmp_path / 'runs'}", *flags])
        )
    except SystemExit as error:
        code = error.code
    err = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert code == 2
    assert len(err) == 1
    assert words in err[0]
    assert not (tmp_path / "runs").exists()
