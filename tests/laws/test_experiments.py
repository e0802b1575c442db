"""What every experiment does: it runs, it goes on after a kill, it refuses what cannot be, and it says if we are worse.

A new experiment is one line in the table.
"""

import ast
import contextlib
import dataclasses
import html
import importlib
import io
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

from jaxfair.study import records as records_lib

# What is known of Adult's harms is a warning.
pytestmark = [
    pytest.mark.filterwarnings("ignore::jaxfair.data.DataWarning"),
    pytest.mark.usefixtures("compiled_once", "drawn_once"),
]
ROOT = pathlib.Path(__file__).parents[2]


class Tiny(NamedTuple):
    """The smallest run of an experiment that has everything.

    Attributes:
      flags: of the run.
      more: asked for more afterwards; what is recorded stays.
      other: a setting that makes it another run.
    """

    flags: tuple[str, ...]
    more: tuple[str, ...]
    other: str


#: Games of a few numbers, for the two experiments that play them.
GAMES = (
    "--games=bilinear",
    "--dim=4",
    "--samples=6",
    "--budget=60",
    "--seeds=3",
    "--tuning_seeds=2",
    "--rates=0.01,0.05,0.2",
    "--optimism=0,1,10",
)
EXPERIMENTS = {
    "calibration_bias": Tiny(
        (
            "--seeds=2",
            "--curves=calibrated",
            "--sizes=20,60",
            "--bins=5",
            "--methods=mass,debiased",
            "--repetitions=4",
            "--at_once=4",
        ),
        more=("--seeds=3",),
        other="--repetitions=5",
    ),
    "balancing_act": Tiny(
        (
            "--seeds=2",
            "--epochs=3",
            "--prune_epochs=1",
            "--decay_epochs=2",
            "--dense_epochs=2",
            "--hidden=8",
            "--methods=nft,ceag",
            "--sparsity=0.9",
        ),
        more=("--methods=nft,nft_es,ceag,dense_retrained",),
        other="--tolerance=0.02",
    ),
    "bits_and_zeros": Tiny(
        (
            "--data_sets=digits",
            "--max_train=100",
            "--epochs=2",
            "--tune_epochs=1",
            "--hidden=4",
            "--bits=4",
            "--seeds=2",
            "--examples=20",
            "--methods=bits,zeros,fit_bits,second",
        ),
        more=("--seeds=3",),
        other="--learning_rate=0.1",
    ),
    "bits_under_bound": Tiny(
        (
            "--data_sets=planted",
            "--size=0.1",
            "--bits=2",
            "--splits=1",
            "--seeds=2",
            "--width=4",
            "--dense_epochs=1",
            "--epochs=1",
            "--methods=qat_last,rounding,rounding_ceag",
        ),
        more=("--methods=qat_last,rounding,rounding_ceag,ptq",),
        other="--tolerance=0.02",
    ),
    "complaints": Tiny(
        ("--seeds=2", "--criteria=2", "--lengths=20", "--methods=threshold,optimistic,commit,never"),
        more=("--lengths=20,40",),
        other="--burst=7",
    ),
    "compression_audit": Tiny(
        (
            "--data_sets=planted",
            "--size=0.1",
            "--seeds=2",
            "--networks=4",
            "--hidden=4",
            "--epochs=1",
            "--prune_epochs=3",
            "--sparsities=0.9",
            "--methods=pruned,int8",
            "--halves=2",
        ),
        more=("--seeds=3",),
        other="--tolerance=0.02",
    ),
    "coresets": Tiny(
        (
            "--seeds=2",
            "--data_sets=digits",
            "--examples=60",
            "--start=10",
            "--steps=5",
            "--fit_steps=5",
            "--draws=2",
            "--evaluations=8",
            "--methods=random,herding,swap,random_same",
        ),
        more=("--methods=random,herding,swap,gradient,random_same",),
        other="--steps=6",
    ),
    "designs_by_diffusion": Tiny(
        (
            "--seeds=2",
            "--problems=simulation",
            "--labels=8,64",
            "--targets=1,2",
            "--unlabelled=64",
            "--dim=6",
            "--latent=2",
            "--hidden=8",
            "--steps=5",
            "--batch_size=16",
            "--samples=16",
            "--sampler_steps=3",
        ),
        more=("--problems=simulation,digits",),
        other="--learning_rate=0.1",
    ),
    "fair_pruning": Tiny(
        (
            "--datasets=planted",
            "--structures=weights",
            "--sparsities=0.5",
            "--methods=joint,bifp",
            "--seeds=2",
            "--hidden=4",
            "--dense_epochs=1",
            "--epochs=1",
            "--more_epochs=1",
            "--max_train=1024",
            "--batch_size=128",
        ),
        more=("--methods=joint,bifp,bip",),
        other="--gamma=5",
    ),
    "dual_dynamics": Tiny(
        (
            "--data_sets=planted",
            "--size=0.1",
            "--epochs=3",
            "--stage=confirm",
            "--settings=nft,recipe",
            "--seeds=2",
            "--splits=1",
            "--frontier_seeds=1",
            "--rates=0.1",
            "--tolerances=0.02",
            "--lanes=1",
        ),
        more=("--splits=2",),
        other="--tolerance=0.02",
    ),
    "bound_holds": Tiny(
        (
            "--data_sets=planted",
            "--size=0.1",
            "--epochs=3",
            "--widths=8",
            "--sparsities=0.9",
            "--splits=2",
            "--seeds=2",
            "--settings=nft,ceag",
            "--lanes=1",
        ),
        more=("--splits=3",),
        other="--tolerance=0.02",
    ),
    "fair_classification": Tiny(
        (
            "--seeds=2",
            "--max_train=600",
            "--slacks=0.1",
            "--families=demographic_parity",
            "--methods=linear,eg_logistic",
            "--linear_rounds=4",
            "--linear_dual_rates=1",
            "--eg_rounds=5",
        ),
        more=("--seeds=3",),
        other="--linear_steps=5",
    ),
    "inverse_problems": Tiny(
        (
            "--seeds=2",
            "--measurements=4",
            "--examples=60",
            "--images=20",
            "--hidden=4",
            "--latents=2",
            "--train_steps=5",
            "--search_steps=5",
            "--restarts=1",
            "--penalties=0.1",
            "--methods=mean,csgm,csgm_plus,conditional",
        ),
        more=("--seeds=3",),
        other="--noise=0.2",
    ),
    "omega_gain": Tiny(GAMES, more=("--seeds=4",), other="--tuning_seeds=3"),
    "game_studies": Tiny(
        (*GAMES, "--optimizers=optimistic_gradient,omega", "--map_size=3", "--batches=1,3"),
        more=("--seeds=4",),
        other="--tuning_seeds=3",
    ),
    "dynamic_sparse": Tiny(
        (
            "--seeds=2",
            "--epochs=2",
            "--hidden=8",
            "--sparsities=0.9",
            "--methods=magnitude,fairgrape,ceag",
            "--fairgrape_keep=0.2",
            "--importance_batches=1",
        ),
        more=("--seeds=3",),
        other="--tolerance=0.1",
    ),
    "one_shot": Tiny(
        (
            "--seeds=2",
            "--epochs=2",
            "--gradients=20",
            "--sparsities=0.9",
            "--methods=magnitude,chita_block",
        ),
        more=("--seeds=3",),
        other="--ridge=0.1",
    ),
    "joint_inference": Tiny(
        (
            "--seeds=2",
            "--methods=jiio_1,nested_1",
            "--evaluations=8,16",
            "--targets=0.5",
            "--examples=16",
            "--width=4",
            "--latent=2",
            "--epochs=1",
            "--batch_size=600",
        ),
        more=("--seeds=3",),
        other="--bound=0.5",
    ),
    "process_fairness": Tiny(
        (
            "--seeds=2",
            "--max_train=400",
            "--hidden=4",
            "--epochs=1",
            "--methods=network,ensemble,fixout",
            "--explained=3",
            "--background=2",
            "--pairs=1",
        ),
        more=("--seeds=3",),
        other="--explained=4",
    ),
    "pseudo_bayes": Tiny(
        (
            "--functions=branin",
            "--methods=kriging,process,sobol",
            "--seeds=2",
            "--budget=9",
            "--candidates=30",
        ),
        more=("--methods=kriging,process,sobol,random",),
        other="--candidates=40",
    ),
    "selective_mixup": Tiny(
        (
            "--seeds=2",
            "--hidden=8",
            "--pretrain_steps=20",
            "--steps=4",
            "--rates=0.01,0.1",
            "--methods=balanced,worst_mixed,selmix",
        ),
        more=("--seeds=3",),
        other="--temperature=1",
    ),
    "oscillations": Tiny(
        (
            "--data_sets=digits",
            "--max_train=100",
            "--epochs=2",
            "--hidden=4",
            "--bits=2,3",
            "--seeds=2",
            "--strengths=1",
            "--methods=ptq,qat,oscillation",
        ),
        more=("--seeds=3",),
        other="--learning_rate=0.1",
    ),
    "price_of_accuracy": Tiny(
        (
            "--data_sets=digits",
            "--widths=4,16",
            "--sparsities=0.9",
            "--seeds=2",
            "--epochs=1",
            "--predicted=64",
            "--repeats=2",
        ),
        more=("--seeds=3",),
        other="--alpha=0.5",
    ),
    "sensing": Tiny(
        (
            "--seeds=2",
            "--examples=100",
            "--hidden=4",
            "--every=2",
            "--before=1",
            "--rounds=1",
            "--after=1",
            "--calibration=20",
            "--sparsities=0.5",
            "--methods=magnitude,wanda,csp",
        ),
        more=("--seeds=3",),
        other="--calibration=30",
    ),
    "sharpness": Tiny(
        (
            "--seeds=2",
            "--noises=0.4",
            "--sparsities=0.5",
            "--examples=100",
            "--hidden=4",
            "--epochs=10",
            "--methods=sgd,sgd_twice,sam_0.5",
        ),
        more=("--seeds=3",),
        other="--momentum=0.5",
    ),
    "memorisation": Tiny(
        (
            "--data_sets=planted",
            "--people=60",
            "--batch_size=30",
            "--networks=4",
            "--seeds=2",
            "--epochs=2",
            "--short=1",
            "--prune_epochs=2",
            "--sparsities=0.5",
            "--width=8",
        ),
        more=("--seeds=3",),
        other="--share=0.5",
    ),
    "tuning": Tiny(
        (
            "--datasets=planted",
            "--methods=default,search",
            "--seeds=2",
            "--budget=2",
            "--networks=1",
            "--max_train=60",
            "--hidden=4",
            "--dense_epochs=1",
            "--epochs=2",
        ),
        more=("--methods=default,search,grid",),
        other="--tolerance=0.02",
    ),
    "worst_groups": Tiny(
        (
            "--datasets=planted",
            "--methods=erm,group_dro,dfr",
            "--sparsities=0.5",
            "--seeds=2",
            "--decays=0.001",
            "--hidden=4",
            "--steps=8",
            "--prune_steps=6",
            "--batch_size=16",
            "--max_train=1000",
        ),
        more=("--methods=erm,group_dro,dfr,cvar",),
        other="--learning_rate=0.1",
    ),
}
NAMES = sorted(EXPERIMENTS)
#: Scripts that do more than `main()` when they are started; and one of those that do not.
MORE_THAN_MAIN = ("game_studies", "omega_gain", "one_shot")


def module(name):
    return importlib.import_module(f"experiments.{name}")


def timeless(records):
    """What a clock or another machine does not change."""
    clocks = ("seconds", "memory", "joules")
    return [{k: v for k, v in r.items() if not any(word in k for word in clocks)} for r in records]


def as_a_process(name, flags):
    """What it prints, where a script does more than its `main` when it is started: settings of XLA, say."""
    command = [sys.executable, "-m", f"experiments.{name}", *flags]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    return run.stdout


def in_here(name, flags):
    """What it prints: to start a process and to import everything anew would take longer than most tiny runs."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert module(name).main(flags) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """``finished(name) -> (folder, out)``: the tiny run of an experiment, once."""
    done = {}

    def of(name):
        if name not in done:
            runs = tmp_path_factory.mktemp(name)
            start = in_here if name not in MORE_THAN_MAIN else as_a_process
            out = start(name, [f"--runs_dir={runs}", "--id=tiny", *EXPERIMENTS[name].flags])
            done[name] = runs / "tiny", out
        return done[name]

    return of


@pytest.fixture
def copied(finished, tmp_path):
    """``copied(name) -> (before, folder)``: the records of the tiny run, and a copy of its folder to go on in."""

    def of(name):
        folder, _ = finished(name)
        shutil.copytree(folder, tmp_path / "tiny")
        return records_lib.read(folder / "records.jsonl"), tmp_path / "tiny"

    return of


def go_on(name, folder, *more):
    """The same command in a folder, and the exit code."""
    flags = [f"--runs_dir={folder.parent}", f"--id={folder.name}", *EXPERIMENTS[name].flags]
    return module(name).main([*flags, *more])


def test_every_experiment_is_in_the_table():
    there = {p.stem for p in (ROOT / "experiments").glob("*.py")} - {"__init__"}
    assert there == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_started_it_is_its_main(name):
    """So what runs in here is what a person starts; the others are started below."""
    last = ast.parse((ROOT / "experiments" / f"{name}.py").read_text()).body[-1]
    assert ast.unparse(last.test) == "__name__ == '__main__'"
    assert ast.unparse(last.body[-1]) == "main()"
    assert len(last.body) == 1 or name in MORE_THAN_MAIN


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_writes_all_files_and_a_page_that_leads_with_what_was_found(name, finished):
    folder, out = finished(name)
    assert {"config.json", "records.jsonl", "table.md", "table.csv", "report.html"} <= {
        p.name for p in folder.iterdir()
    }
    assert list((folder / "figures").glob("*.svg"))
    page = (folder / "report.html").read_text()
    places = [
        page.index(f"<h2>{title}</h2>")
        for title in ("Figures", "Numbers", "What was done", "How to repeat this", "Settings")
    ]
    assert places == sorted(places)
    assert f"python -m experiments.{name} --" in page
    assert f"report: {folder / 'report.html'}" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_killed_goes_on_with_the_same_numbers(name, copied, capsys):
    """Half of the records are there, and half of a line."""
    before, folder = copied(name)
    log, half = folder / "records.jsonl", len(before) // 2
    assert half
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:half]) + lines[half][:10])
    code = go_on(name, folder)
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "going on with the run" in out
    after = records_lib.read(log)
    assert after[:half] == before[:half]
    assert timeless(after) == timeless(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("undrawn")
def test_asked_for_more_it_keeps_what_it_has(name, copied):
    before, folder = copied(name)
    assert go_on(name, folder, *EXPERIMENTS[name].more) == 0
    after = records_lib.read(folder / "records.jsonl")
    assert after[: len(before)] == before
    assert len(after) > len(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("undrawn")
def test_the_page_says_it_if_we_are_worse(name, copied, capsys):
    """Every number that a claim is about, turned against it, in records that are all there: nothing is made again."""
    records, folder = copied(name)
    claims = module(name).claims(records)
    assert claims
    for claim in claims:
        for record in records:
            if claim.column in record and record.get(claim.of) in (claim.method, claim.peer):
                ours = record[claim.of] == claim.method
                loss = 0.3 + 0.001 * sum(record[name] for name in claim.over)
                record[claim.column] = 0.5 - claim.good * loss * ours
    (folder / "records.jsonl").write_text("".join(records_lib.dumps(r) + "\n" for r in records))
    # Where the answer comes first, the claims are for who asks for all that is on the page.
    all_of_it = [f"--{field.name}" for field in dataclasses.fields(module(name).Config) if field.name == "verbose"]
    assert go_on(name, folder, *all_of_it) == 0
    out, page = capsys.readouterr().out, html.unescape((folder / "report.html").read_text())
    for claim in claims:
        said = [line for line in out.splitlines() if line.startswith(f"That {claim.method} is ")]
        said = [line for line in said if f"is {claim.words[0]} than {claim.peer}" in line]
        assert said
        for line in said:
            assert ": violated. " in line
            assert line in page


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_another_config_is_refused(name, finished, capsys):
    folder, _ = finished(name)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert go_on(name, folder, EXPERIMENTS[name].other) == 2
    said = capsys.readouterr().err
    assert "holds a run with another config" in said
    assert said.count("\n") == 1
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def wrong_flags(name):
    """A value that each guarded field refuses."""
    for field in dataclasses.fields(module(name).Config):
        guard = field.metadata.get("guard")
        if guard is not None and guard[:-1] != (None,) * (len(guard) - 1):  # else it may be anything
            if guard.of is not None:
                value = "nothing_of_the_kind"
            elif guard.low is not None or guard.above is not None:
                value = (guard.low if guard.low is not None else guard.above) - 1
            else:
                value = (guard.high if guard.high is not None else guard.below) + 1
            yield field.name, value


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_flag_is_one_line_and_leaves_nothing_behind(name, tmp_path, capsys):
    flags = list(wrong_flags(name))
    assert len(flags) > 3
    for flag, value in flags:
        assert module(name).main([f"--runs_dir={tmp_path / 'runs'}", f"--{flag}={value}"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"{name}: --{flag}")
        assert said.count("\n") == 1
    for words in (["--no_such_flag=1"], ["--seeds=many"]):
        with pytest.raises(SystemExit) as raised:
            module(name).main(words)
        assert raised.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


class Reached(Exception):
    """The run would begin here."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::jaxfair.data.DataWarning")
def test_each_choice_alone_is_run_or_refused_in_one_line(name, tmp_path, capsys, monkeypatch):
    def opened(config, names, **options):
        assert set(options.get("grows", ())) <= {field.name for field in dataclasses.fields(config)}
        raise Reached

    monkeypatch.setattr(module(name).study, "opened", opened)
    choices = [
        f"--{field.name}={word}"
        for field in dataclasses.fields(module(name).Config)
        if (guard := field.metadata.get("guard")) is not None and guard.of is not None
        for word in (guard.of() if callable(guard.of) else guard.of)
    ]
    assert len(choices) > 3
    for choice in choices:
        try:
            code = module(name).main([f"--runs_dir={tmp_path / 'runs'}", *EXPERIMENTS[name].flags, choice])
        except Reached:
            continue
        said = capsys.readouterr().err
        assert (code, said.count("\n")) == (2, 1), (choice, said)
        assert said.startswith(f"{name}: "), choice
    assert not (tmp_path / "runs").exists()
