"""The command ``jaxfair audit``: files of any framework in, a page out; or one line that names file, row and remedy."""

import csv
import dataclasses
import importlib.util
import pathlib
import re
import shlex
import warnings

import numpy as np
import pytest

from jaxfair import audit, cli, data
from jaxfair.cli import audit as command
from jaxfair.cli import predictions, sources

pytestmark = pytest.mark.usefixtures("drawn_once")

PEOPLE = 600


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six hundred people of two sexes and two ages; the network after fails a third of the old women."""
    folder = tmp_path_factory.mktemp("said")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, PEOPLE)
    sex, age = rng.choice(["men", "women"], PEOPLE), rng.choice(["old", "young"], PEOPLE)
    before = np.where(rng.random(PEOPLE) < 0.1, 1 - y, y)
    after = np.where((sex == "women") & (age == "old") & (rng.random(PEOPLE) < 0.4), 1 - before, before)
    chance = {name: np.where(label == 1, 0.8, 0.3) for name, label in (("p0", before), ("p1", after))}
    words = np.array(["no", "yes"])
    columns = {
        "id": np.arange(PEOPLE) + 100, "y": words[y], "sex": sex, "age": age, **chance,
        "c0": words[before], "c1": words[after], "l1_no": -chance["p1"] * 9, "l1_yes": chance["p1"] * 9 - 9,
    }  # fmt: skip
    table = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    write(folder / "table.csv", table)
    np.save(folder / "y.npy", y)
    np.save(folder / "probabilities.npy", np.stack([1 - chance["p0"], chance["p0"]], 1))
    np.savez(folder / "after.npz", predictions=np.stack([after, after]))
    np.savez(folder / "before.npz", predictions=np.stack([before, before]), other=y)
    write(folder / "groups.csv", [{"sex": row["sex"], "age": row["age"]} for row in table])
    return folder, table, (before, after, y, {"sex": sex, "age": age})


def write(path, rows):
    with path.open("w", newline="") as file:
        lines = csv.DictWriter(file, rows[0])
        lines.writeheader()
        lines.writerows(rows)


@pytest.fixture
def asked(made, monkeypatch, capsys, tmp_path):
    """Runs the command in the folder of the files, and gives the findings, the exit code and what was printed."""
    monkeypatch.chdir(made[0])
    seen = []
    # The page takes seconds, and the whole command is tried once below.
    monkeypatch.setattr(audit.Comparison, "write", lambda self, out, **more: seen.append(self) or pathlib.Path(out))

    def ask(*words):
        seen.clear()
        try:
            code = cli.main(["audit", f"--out={tmp_path / 'report'}", *words])
        except SystemExit as stopped:
            code = stopped.code
        out, err = capsys.readouterr()
        return seen[0].found if seen else None, code, out, err

    return ask


FILES = ("--labels=y.npy", "--groups=groups.csv")
BY_ID = ("--labels=table.csv:y", "--groups=table.csv:sex,age", "--id=id")
TABLE = ("--table=table.csv", "--label=y", "--groups=sex,age")


@pytest.mark.parametrize(
    "words",
    [
        ("--before=before.npz", "--after=after.npz", *FILES),
        ("--before=probabilities.npy", "--after=after.npz:predictions", *FILES),
        ("--before=p0", "--after=p1", *TABLE),
        ("--before=c0", "--after=l1", *TABLE),
        ("--before=table.csv:p0", "--after=reversed.csv:c1", *BY_ID),
        ("--before=c0", "--after=p1", "--threshold=0.7", *TABLE),
    ],
)  # fmt: skip
def test_every_form_says_the_same(words, asked, made):
    folder, table, (before, after, y, attributes) = made
    write(folder / "reversed.csv", [{"id": 99, "c1": "no"}, *({k: r[k] for k in ("id", "c1")} for r in table[::-1])])
    found, code, out, _ = asked(*words)
    assert code == 0
    expected = audit.compare(before, after, y, attributes).found
    assert (
        list(found.group_names)
        == list(expected.group_names)
        == ["men, old", "men, young", "women, old", "women, young"]
    )
    np.testing.assert_array_equal(found.people["test"].y, y)
    for name, predicted in (("before", before), ("after", after)):
        np.testing.assert_array_equal(found.of(name).labels["test"], np.tile(predicted, (len(found.of(name).ok), 1)))
    np.testing.assert_array_equal(found.largest("after", "test")[0], expected.largest("after", "test")[0])
    assert "women, old" in out
    assert ("1 person without a label left out" in out) == ("--id=id" in words)


def test_several_kinds_and_several_networks(asked):
    found, code, *_ = asked("--before=p0", "--after=usual=p0,pruned=p1,pruned=c1", "--name_before=last week", *TABLE)
    assert code == 0
    assert found.name_before == "last week"
    assert {name: one.labels["test"].shape for name, one in found.after.items()} == {
        "usual": (2, PEOPLE), "pruned": (2, PEOPLE)
    }  # fmt: skip
    assert (found.largest("usual", "test") == 0).all()
    assert (found.largest("pruned", "test") > 0.1).all()


def test_a_pipeline_may_stop_at_a_violation(asked):
    assert asked("--before=p0", "--after=p1", "--fail_if_violated", *TABLE)[1] == 1
    assert asked("--before=p0", "--after=p0", "--fail_if_violated", "--tolerance=0.2", *TABLE)[1] == 0


def test_a_folder_in_which_the_table_lies_is_refused(asked):
    """A file of the page could have its name."""
    written, code, _, said = asked("--before=p0", "--after=p1", *TABLE, "--out=.")
    assert (written, code) == (None, 2)
    assert said == "jaxfair audit: --out=.: table.csv lies there, and files are written: choose another folder\n"


def test_without_the_packages_of_a_page_there_is_the_answer(asked, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    written, code, said, _ = asked("--before=p0", "--after=p1", "--fail_if_violated", *TABLE)
    assert written is None
    assert code == 1
    assert "Does any group lose more accuracy than all people do on average" in said
    assert said.endswith("pip install 'jaxfair[report]'\n")


def test_small_groups_are_merged_and_unbound_ones_left(asked):
    found, *_ = asked("--before=p0", "--after=p1", "--min_group_size=148", "--unconstrained=women, young", *TABLE)
    sizes = {name: int(n) for name, n in zip(found.group_names, found.sizes("test"), strict=True)}
    assert sum(sizes.values()) == PEOPLE
    assert "other" in sizes
    assert all(size >= 148 for name, size in sizes.items() if name != "other")
    assert [name for name, bound in zip(found.group_names, found.constrained, strict=True) if not bound] == [
        "women, young"
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("short.npy", "after.npz", *FILES), "short.npy has 599 people and y.npy 600: give the same people"),
        (("sum.npy", "after.npz", *FILES), "sum.npy, row 17: probabilities sum to 1.2 and not to 1"),
        (("nan.npy", "after.npz", *FILES), "nan.npy, row 17: a number is missing"),
        (("cut.npz", "after.npz", *FILES), "cut.npz is truncated or damaged"),
        (("objects.npy", "after.npz", *FILES), "objects.npy holds Python objects, which are never unpickled"),
        (("nope.npy", "after.npz", *FILES), "no file nope.npy: give the path of a .csv"),
        (("what.txt", "after.npz", *FILES), "what.txt is none of .csv, .tsv"),
        (("two.npz", "after.npz", *FILES), "the file has 'a', 'b': say which, as two.npz:a"),
        (("odd.csv:p0", "after.npz", *FILES), "odd.csv:p0, row 3: the score 1.5 is no probability of '1'"),
        (("odd.csv:c0", "after.npz", "--labels=table.csv:y", FILES[1]), "row 5: 'mayby' is no class (no, yes)"),
        (("odd.csv:p0", "table.csv:p1", *BY_ID), "odd.csv, row 5: 'id' '104' stands in row 4 as well: keep one"),
        (("less.csv:p0", "table.csv:p1", *BY_ID), "less.csv lacks 'id' '100', which table.csv:y has in row 0"),
        (("p0", "p9", *TABLE), "table.csv has no column 'p9' (--after), only 'id', 'y'"),
        (("c1", "p1", "--table=odd.csv", "--label=y", "--groups=sex"), "'x' is one person"),
        (("p0", "p1", "--table=odd.csv", "--label=gap", "--groups=sex"), "row 2: the label is missing"),
        (("p0", "p1", *TABLE[:2], "--groups=p0"), "table.csv:p0 holds fractions"),
        (("p0", "p1", *TABLE[:2], "--groups=nope"), "no column 'nope' (--groups)"),
        (("p0", "p1", *TABLE[:2], "--groups=sex,sex"), "--groups: 'sex' is named twice"),
        (("p0", "p1", "--table=table.csv", "--label=p0", "--groups=sex"), "row 0: 0.8 is no class"),
        (("p0", "p1", "--table=table.csv", "--label=one", "--groups=sex"), "no column 'one' (--labels)"),
        (("far", "p1", "--table=odd.csv", "--label=y", "--groups=sex"), "far, row 4: the prediction is infinite"),
        (("p0", "p1", "--table=odd.csv", "--label=far", "--groups=sex"), "odd.csv:far, row 4: -inf is no class"),
        (("p1", "p1", "--table=odd.csv", "--label=y", "--groups=far"), "far holds infinite numbers (-inf in row 4)"),
        (("part", "p1", "--table=odd.csv", "--label=y", "--groups=sex"), "'0,5' is no class (no, yes): write numbers"),
        (("p0,p1,p0", "p1,p0", *TABLE), "after: 2 networks where 3 are compared"),
        (("p0", "before=p1", *TABLE), "a variant 'before', as those before are called"),
        (("p0", "p1", "--positive=maybe", *TABLE), "--positive='maybe' is no class"),
        (("p0", "p1", "--unconstrained=cats", *TABLE), "--unconstrained='cats' is no group"),
        (("p0", "p1", "--classes=no,maybe", *TABLE), "'yes' is none of the 2 classes of --classes"),
        (("p0", "p1"), "--labels: give one"),
        (("p0", "p1", "--labels=y.npy", *TABLE), "--labels: with --table, name the column"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(words, said, asked, made, tmp_path):
    damage(*made[:2])
    before, after, *rest = words
    found, code, out, err = asked(f"--before={before}", f"--after={after}", *rest)
    assert (found, code, out) == (None, 2, "")
    assert err.startswith("jaxfair audit: ")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "report").exists()


def damage(folder, table):
    """Files with one thing wrong in each column."""
    if (folder / "odd.csv").exists():
        return
    right = np.load(folder / "probabilities.npy")
    np.save(folder / "short.npy", right[:-1])
    for name, row in (("sum", [0.9, 0.3]), ("nan", [np.nan, 1.0])):
        wrong = right.copy()
        wrong[17] = row
        np.save(folder / f"{name}.npy", wrong)
    (folder / "cut.npz").write_bytes((folder / "before.npz").read_bytes()[:-40])
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    (folder / "what.txt").write_text("no")
    np.savez(folder / "two.npz", a=right, b=right)
    odd = [dict(row, gap=row["y"], far=0.0, part="0,5") for row in table]
    odd[4]["far"] = "-inf"
    odd[5] |= {"c0": "mayby", "id": 104, "sex": "x"}
    odd[3]["p0"] = 1.5
    odd[2]["gap"] = ""
    write(folder / "odd.csv", odd)
    write(folder / "less.csv", table[3:])


def test_a_folder_of_another_program_is_left_alone(asked, made):
    other = made[0] / "run"
    other.mkdir()
    (other / "config.json").write_text("{}")
    *_, err = asked("--before=p0", "--after=p1", "--out=run", *TABLE)
    assert "run holds a run of another program" in err
    assert [path.name for path in other.iterdir()] == ["config.json"]


@pytest.mark.slow
def test_the_page_of_the_command_has_each_attribute_by_itself(made, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(made[0])
    out = tmp_path / "report"
    assert cli.main(["audit", "--before=p0", "--after=p1", "--positive=yes", "--id=id", f"--out={out}", *TABLE]) == 0
    assert f"page: {out / 'report.html'}" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    for words in ("women, old", "By attribute", "By age alone", "By sex alone", "selected as yes"):
        assert words in page
    changed = [row["row"] for row in csv.DictReader((out / "people.csv").read_text().splitlines())]
    assert changed
    table = {str(row["id"]): row for row in made[1]}
    assert all(table[row]["c0"] != table[row]["c1"] for row in changed[:20])


def test_what_the_command_of_pruning_wrote_is_read_with_its_names(tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez(
        path, before_test=np.array([[0, 1, 1, 0]]), y_test=np.array([0, 1, 1, 0]), group_test=np.array([0, 1, 0, 1]),
        group_names=np.array(["men", "women"]), class_names=np.array(["no", "yes"]),
    )  # fmt: skip
    files = sources.Files()
    files.start(sources.named_sources("labels", [f"{path}:y_test"], "")[0])
    found = predictions.attributes(files, sources.named_sources("groups", [f"{path}:group_test"], ""), 4)
    assert found["group_test"].tolist() == ["men", "women", "men", "women"]


# --- the columns of a file ---


def test_columns_are_what_is_written(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("code,whole,part,truth,gone,word\n007,1,0.5,True,1,a\n010,2,1,False,,\n")
    found = {name: (values.dtype.kind, values.tolist()) for name, values in data.columns(path).items()}
    assert found["code"] == ("O", ["007", "010"])
    assert found["whole"] == ("i", [1, 2])
    assert found["part"] == ("f", [0.5, 1.0])
    assert found["truth"] == ("O", [True, False])
    assert found["gone"][0] == "f"
    assert np.isnan(found["gone"][1][1])
    assert found["word"] == ("O", ["a", None])


def test_numbers_with_a_comma_are_numbers_where_another_sign_parts_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("score;class;place;far\n0,25;1,0;,5;-inf\n1;0,0;-2,5;1e3\n")
    found = {name: (values.dtype.kind, values.tolist()) for name, values in data.columns(path).items()}
    assert found == {
        "score": ("f", [0.25, 1.0]), "class": ("i", [1, 0]), "place": ("f", [0.5, -2.5]),
        "far": ("f", [-np.inf, 1000.0]),
    }  # fmt: skip


def test_an_identity_that_no_float_can_hold_is_kept(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [2**60 + 1, 2**60 + 2], "word": ["a", None]})
    frame.to_parquet(tmp_path / "t.parquet")
    found = data.columns(tmp_path / "t.parquet")
    assert found["id"].tolist() == [2**60 + 1, 2**60 + 2]
    assert found["word"].tolist() == ["a", None]


# --- the page of documentation ---


@pytest.mark.slow
def test_the_example_of_the_page_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    page = (pathlib.Path(__file__).parents[1] / "docs" / "audit.md").read_text()
    python = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shell = re.search(r"^```bash\njaxfair (.*?)\n```$", page, re.MULTILINE).group(1)
    said = re.search(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", data.DataWarning)
        exec(python[0], names)
    assert cli.main(shlex.split(shell)) == 0
    printed = capsys.readouterr().out
    assert printed.partition("\npage: ")[0].strip() == said.strip()
    exec(python[1], names)
    assert names["found"].found.num_groups == 4


def test_every_flag_of_the_page_is_one():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "audit.md").read_text()
    known = {field.name for field in dataclasses.fields(command.Config)}
    assert set(re.findall(r"--(\w+)", page)) <= known
    assert {"before", "after", "labels", "groups", "table", "id"} <= set(re.findall(r"--(\w+)", page))
