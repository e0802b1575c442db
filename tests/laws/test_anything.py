"""Whatever a person gives: the right answer, or one line that says what is wrong, and exit code 2.

Flags, files and predictions are made up by hypothesis. Each has an oracle of its own: Python's own reading of a number,
a recount of the table that was written, gaps in fractions. `make fuzz` tries twenty thousand, CI some two thousand.
"""

import collections
import contextlib
import csv
import dataclasses
import fractions
import functools
import importlib
import io
import math
import os
import pathlib
import tempfile
import types
import typing

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from jaxfair import audit
from jaxfair.cli import flags, prune

#: Inputs of each kind. The default is what CI has time for.
INPUTS = int(os.environ.get("JAXFAIR_INPUTS", "200"))
many = settings(
    max_examples=INPUTS,
    deadline=None,
    derandomize=INPUTS <= 200,  # CI tries the same ones every time; a longer hunt has new ones
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
pytestmark = [
    pytest.mark.filterwarnings("ignore::jaxfair.data.DataWarning"),
    pytest.mark.usefixtures("parsers_built_once"),
]


class Outcome(typing.NamedTuple):
    """What a command did: its exit code, what it was to run, and what it wrote on stderr."""

    code: int
    config: object
    err: str


@functools.cache
def noting(module):
    """A command whose job is only to note with what it was called, and its notes."""
    seen = []
    return flags.entry(seen.append, module.Config, prog=module.__name__), seen


def typed(module, argv):
    """Types a command that only notes it."""
    entered, seen = noting(module)
    seen.clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = entered(list(argv))
        except SystemExit as stopped:
            code = stopped.code
    return Outcome(code, seen[0] if seen else None, err.getvalue())


def one_line(outcome):
    """Exit code 2, and one line that can be read in a terminal."""
    assert outcome.code == 2, outcome
    lines = [line for line in outcome.err.split("\n") if line and not line.startswith("note: ")]
    assert len(lines) == 1, outcome.err
    assert lines[0].isprintable(), outcome.err
    assert "Traceback" not in lines[0]


# --- flags ---------------------------------------------------------------------------------------------------------

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
PROGRAMS = (
    *("jaxfair.cli.prune", "jaxfair.cli.audit"),
    *sorted(f"experiments.{path.stem}" for path in EXPERIMENTS.glob("[a-z]*.py")),
)
NUMBERS = (
    "0", "1", "2", "7", "-1", "-0", "+3", "00012", "0.5", ".5", "5.", "1e-3", "1E3", "1e400", "-1e400", "nan", "inf",
    "-inf", "1_000", " 3 ", "٣", "½", "0x10", "1,5", "1e", "--", "", " ", "true", "None", "9" * 30,
    "0.99999999999999999",
)  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(
        ["", " ", ",", ",,", ";", "nft", "ceag", "adult", "..", ".", "/", "a/b", "\x1b[31m", "[red]", "-1"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6),
)


def field_types(config_class):
    """Flag -> the type that its field says, of a tuple the type of its items."""
    hints = typing.get_type_hints(config_class)
    found = {}
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        several = typing.get_origin(hint) is tuple
        found[field.name] = (typing.get_args(hint)[0] if several else hint, several)
    return found


@st.composite
def lines(draw, config_class):
    """A command line: flags with values that may be wrong, and now and then one that there is not."""
    kinds = field_types(config_class)
    argv = []
    for name in draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=4)):
        kind, _ = kinds[name]
        guard = next(f for f in dataclasses.fields(config_class) if f.name == name).metadata.get("guard")
        values = [st.sampled_from(NUMBERS), WORDS]
        if guard is not None and guard.of is not None:
            values.append(st.sampled_from(sorted(map(str, guard.of() if callable(guard.of) else guard.of))))
        if kind in (int, float):
            values.append(st.integers(-5, 2000).map(str))
            values.append(st.floats().map(str))
        value = draw(st.one_of(values))
        argv.append(draw(st.sampled_from([f"--{name}={value}", f"--{name}={value},{value}", f"--{name}"])))
        if "=" not in argv[-1]:
            argv.append(value)
    if draw(st.integers(0, 9)) == 0:
        argv.insert(
            draw(st.integers(0, len(argv))), draw(st.sampled_from(["--sed=1", "-x", "more", "--", "--seed", "="]))
        )
    return argv


def within(guard, value):
    """Whether a guard lets a value pass, said another way than in the library."""
    if guard.of is not None:
        return (guard.none and not value) or value in list(guard.of() if callable(guard.of) else guard.of)
    low = -math.inf if guard.low is None else guard.low
    high = math.inf if guard.high is None else guard.high
    inside = not isinstance(value, int | float) or low <= value <= high
    inside &= guard.above is None or value > guard.above
    return inside and (guard.below is None or value < guard.below)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.slow
def test_any_line_is_refused_in_one_line_or_means_what_it_says(name):
    module = importlib.import_module(name)
    kinds = field_types(module.Config)
    defaults = module.Config()

    @settings(many, max_examples=max(20, INPUTS // 4))
    @given(lines(module.Config))
    def holds(argv):
        outcome = typed(module, argv)
        if outcome.config is None:
            one_line(outcome)
            return
        assert outcome.code == 0
        said = dict(word[2:].split("=", 1) for word in argv if word.startswith("--") and "=" in word)
        last = {}
        for place, word in enumerate(argv):
            if word.startswith("--") and "=" not in word and place + 1 < len(argv):
                last[word[2:]] = argv[place + 1]
        for field in dataclasses.fields(outcome.config):
            value, (kind, several) = getattr(outcome.config, field.name), kinds[field.name]
            guard = field.metadata.get("guard")
            items = value if several else (value,)
            if guard is not None:
                assert all(within(guard, item) for item in items), (field.name, value)
            # No setting is nan or infinite: nothing could be trained with it.
            assert all(math.isfinite(item) for item in items if kind in (int, float)), (field.name, value)
            if field.name not in said and field.name not in last:
                assert value == getattr(defaults, field.name)
            elif kind in (int, float) and not several and field.name in said and field.name not in last:
                assert value == kind(said[field.name])

    holds()


# --- files ---------------------------------------------------------------------------------------------------------


class Reached(Exception):
    """Training would begin here."""


def up_to_training(argv):
    """What `jaxfair prune` does before it trains: the dataset that it would train on, or what it says."""
    found = []

    def dense(model, dataset, **options):
        found.append(dataset)
        raise Reached

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune.recipes, "dense", dense)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = prune.main(list(argv))
            except SystemExit as stopped:
                code = stopped.code
            except Reached:
                code = 0
    return Outcome(code, found[0] if found else None, err.getvalue())


CELLS = {
    "integer": st.integers(-3, 3).map(str),
    "big": st.sampled_from(["9007199254740993", "1e39", "-1e39", "1e-50", "18446744073709551615"]),
    "real": st.floats(-1e6, 1e6, width=32).map(str),
    "odd": st.sampled_from(["nan", "inf", "", " ", "NA", "None", "null", "?", "1,5", "-"]),
    "truth": st.sampled_from(["True", "False"]),
    "word": st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=5),
}


@st.composite
def tables(draw):
    """Columns of text as a person may have them: features, a class, a group, and perhaps a split."""
    rows = draw(st.integers(0, 40))

    def column(*kinds):
        kind = draw(st.sampled_from(kinds))
        return draw(st.lists(CELLS[kind], min_size=rows, max_size=rows))

    found = {}
    for number in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from([f"f{number}", "x", "age", "Unnamed: 0", "", "a,b", "名"]))
        found[name] = column("integer", "real", "integer", "real", "big", "odd", "truth", "word")
    few = st.sampled_from([["0", "1"], ["-1", "1"], ["no", "yes"], ["a", "b", "c"], ["True", "False"], ["0.0", "1.0"]])
    if draw(st.integers(0, 9)):
        found["y"] = draw(st.lists(st.sampled_from(draw(few)), min_size=rows, max_size=rows))
    else:
        found["y"] = column(*CELLS)
    if draw(st.integers(0, 9)):
        words = draw(st.sampled_from([["a", "b"], ["0", "1"], ["a", "", "b"], ["north", "None"], ["-1", "1"]]))
        found["group"] = draw(st.lists(st.sampled_from(words), min_size=rows, max_size=rows))
    else:
        found["group"] = column(*CELLS)
    if draw(st.integers(0, 4)) == 0:
        splits = draw(
            st.sampled_from([["train", "validation", "test"], ["train", "test"], ["train", "val"], ["train"]])
        )
        found["split"] = draw(st.lists(st.sampled_from(splits), min_size=rows, max_size=rows))
    for name in list(found):
        if draw(st.integers(0, 30)) == 0:
            del found[name]
    return found


def as_csv(path, table):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def numbers_of(column):
    """A column as numbers where all of it are numbers."""
    with contextlib.suppress(ValueError):
        return [float(value) if "." in value or "e" in value.lower() else int(value) for value in column]
    return column


def as_parquet(path, table):
    columns = {}
    for name, column in table.items():
        try:
            columns[name] = pa.array(numbers_of(column))
        except (OverflowError, pa.ArrowInvalid):
            columns[name] = pa.array(column)
    pyarrow.parquet.write_table(pa.table(columns), path)


def as_npz(path, table):
    features = [name for name in table if name not in ("y", "group", "split")]
    arrays = {name: np.array(numbers_of(table[name])) for name in ("y", "group", "split") if name in table}
    if features:
        arrays["x"] = np.array([numbers_of(table[name]) for name in features]).T
    with path.open("wb") as file:
        np.savez(file, **arrays)


WRITERS = {".csv": as_csv, ".parquet": as_parquet, ".npz": as_npz}


def recounted(dataset, table):
    """Whether the dataset is the table: everyone in one split, with the class and the group of their row."""
    rows = len(table["y"])
    assert sorted(np.concatenate(list(dataset.rows.values())).tolist()) == list(range(rows))
    assert all(np.isfinite(np.asarray(split.x)).all() for split in dataset.splits.values())
    codes = {"y": {}, "group": {}}
    for name, split in dataset.splits.items():
        # Only the file itself may say that nobody is tested.
        assert len(split.y) or (name == "test" and "test" not in table.get("split", ["test"])), f"nobody in {name}"
        for row, y, group in zip(dataset.rows[name].tolist(), split.y.tolist(), split.group.tolist(), strict=True):
            assert 0 <= y < dataset.num_classes
            assert 0 <= group < dataset.num_groups
            codes["y"].setdefault(table["y"][row], set()).add(dataset.class_names[y])
            codes["group"].setdefault(table["group"][row], set()).add(dataset.group_names[group])
            if "split" in table and table["split"][row] in ("train", "test") and "validation" in table["split"]:
                assert table["split"][row] == name
    assert all(len(names) == 1 for of in codes.values() for names in of.values()), codes
    assert dataset.num_classes >= 2


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.slow
def test_any_table_is_read_as_it_is_or_refused_in_one_line(suffix):
    @many
    @given(tables())
    def holds(table):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, f"mine{suffix}")
            try:
                WRITERS[suffix](path, table)
            except (pa.ArrowException, ValueError):
                return  # no such file can be
            outcome = up_to_training([f"--data={path}", f"--out={folder}/out"])
        if outcome.config is None:
            one_line(outcome)
        else:
            recounted(outcome.config, table)

    holds()


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.slow
def test_any_damage_is_noticed_or_does_no_harm(suffix):
    table = {
        "f0": [str(i % 7) for i in range(60)],
        "f1": [str(i / 3) for i in range(60)],
        "y": ["no", "yes", "yes"] * 20,
        "group": ["a", "b"] * 30,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"whole{suffix}")
        WRITERS[suffix](path, table)
        whole = path.read_bytes()

    @many
    @given(st.integers(0, len(whole)), st.binary(max_size=3), st.booleans())
    def holds(place, instead, cut):
        damaged = whole[:place] if cut else whole[:place] + instead + whole[place + len(instead) :]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, f"mine{suffix}")
            path.write_bytes(damaged)
            outcome = up_to_training([f"--data={path}", f"--out={folder}/out"])
        if outcome.config is None:
            one_line(outcome)
        else:
            assert all(np.isfinite(np.asarray(split.x)).all() for split in outcome.config.splits.values())

    holds()


# --- predictions ---------------------------------------------------------------------------------------------------


@st.composite
def predictions(draw):
    """Labels, predictions before and after, and groups, in any coding, perhaps with something missing or wrong."""
    people, seeds = draw(st.sampled_from([1, 2, 12])), draw(st.sampled_from([1, 1, 3]))
    names = draw(st.sampled_from([[0, 1], [-1, 1], ["no", "yes"], [0, 1, 2], [False, True], [0.0, 1.0], [200, 300]]))
    code = draw(st.sampled_from([np.array, list, lambda v: np.array(v, object)]))
    places = st.integers(0, len(names) - 1)

    def column(odd):
        found = [names[place] for place in draw(st.lists(places, min_size=people, max_size=people))]
        if draw(st.integers(0, 7)) == 0:
            found[draw(st.integers(0, people - 1))] = draw(st.sampled_from(odd))
        return found

    y = column([None, float("nan"), 0.5, "?", 7])
    several = [[column([None, float("nan"), -1, 0.5, 9]) for _ in range(seeds)] for _ in range(2)]
    before, after = (rows[0] if seeds == 1 else rows for rows in several)
    groups = draw(st.sampled_from([["a", "b"], [0, 1], ["a", "", "b"], [-1, 0, 1], ["only"], [1, 5]]))
    group = draw(st.lists(st.sampled_from(groups), min_size=people, max_size=people))
    if draw(st.integers(0, 9)) == 0:
        group = group[:-1]
    return types.SimpleNamespace(
        y=code(y), before=code(before), after=code(after), group=group, raw=(y, several, group)
    )


def exact_gaps(raw):
    """Seed -> group -> its excess accuracy gap as a fraction."""
    y, (before, after), group = raw
    known = [g for g in dict.fromkeys(group) if g not in ("", -1)]
    found = []
    for dense, sparse in zip(before, after, strict=True):
        lost = [int(d == t) - int(s == t) for d, s, t in zip(dense, sparse, y, strict=True)]
        cells = {g: [one for one, of in zip(lost, group, strict=True) if of == g] for g in known}
        overall = fractions.Fraction(sum(map(sum, cells.values())), sum(map(len, cells.values())))
        found.append({str(g): fractions.Fraction(sum(c), len(c)) - overall for g, c in cells.items()})
    return found


@pytest.mark.slow
def test_any_predictions_are_audited_right_or_refused_in_one_line():
    @many
    @given(predictions())
    def holds(of):
        try:
            one = audit.compare(of.before, of.after, of.y, of.group, tolerance=0.1)
            said = [str(verdict) for verdict in one.verdicts]
        except ValueError as error:
            refused = str(error)
        else:
            refused = ""
        if refused:
            assert refused.isprintable()
            return
        found, exact = one.found, exact_gaps(of.raw)
        assert set(found.group_names) == set(exact[0])
        for seed, gaps in enumerate(exact):
            if found.ok("after")[seed]:
                psi = dict(zip(found.group_names, found.measured["after", "test"].psi[seed].tolist(), strict=True))
                # Sums of at most a dozen people in float32.
                assert psi == pytest.approx({name: float(gap) for name, gap in gaps.items()}, abs=1e-6)
        for line in said:
            assert line.isprintable()
        states = collections.Counter(found.frames["after"][0]["verdict"]) if found.ok("after").any() else {}
        assert sum(states.values()) in (0, len(found.group_names))
        # Nobody is called harmed whose gap is within the bound in the mean, nor safe whose gap is beyond it.
        if states:
            ok = np.flatnonzero(found.ok("after"))
            for name, state in zip(found.frames["after"][0]["group"], found.frames["after"][0]["verdict"], strict=True):
                mean = sum((exact[s][name] for s in ok), fractions.Fraction(0)) / len(ok)
                assert not (state == "violated" and mean <= fractions.Fraction(1, 10)), (name, mean, state)
                assert not (state == "holds" and mean > fractions.Fraction(1, 10)), (name, mean, state)

    holds()
