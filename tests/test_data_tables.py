"""Tables in files: the same table means the same in every format, and what was read and what was not is said."""

import csv
import datetime
import decimal
import json
import pathlib
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxfair import data

N = 40
CLASS = [i % 2 for i in range(N)]
GROUP = ["men" if i // 2 % 2 else "women" for i in range(N)]


def to_parquet(path, columns, types):
    table = pa.table({k: pa.array(v, types.get(k)) for k, v in columns.items()})
    pyarrow.parquet.write_table(table, path)


def to_parts(path, columns, types):
    path.mkdir()
    for part, rows in enumerate((slice(0, 10), slice(10, 11), slice(11, N))):
        to_parquet(path / f"part-{part}.parquet", {k: v[rows] for k, v in columns.items()}, types)


def to_csv(path, columns, types):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(["" if v is None else _text(v) for v in c] for c in columns.values()), strict=True))


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def to_npz(path, columns, types):
    arrays = {}
    for name, values in columns.items():
        kind = types.get(name)
        words = any(isinstance(v, str | bytes | datetime.date) for v in values)
        if kind is not None and pa.types.is_floating(kind) and not words:
            arrays[name] = np.array(values, kind.to_pandas_dtype())
        elif any(isinstance(v, datetime.date) for v in values):
            arrays[name] = np.array(values, "datetime64[s]")
        elif words:
            arrays[name] = np.array(["" if v is None else v for v in values])
        elif any(v is None for v in values):
            arrays[name] = np.array([np.nan if v is None else float(v) for v in values])
        elif kind is not None and pa.types.is_decimal(kind):
            arrays[name] = np.array([float(v) for v in values])
        elif kind is not None and pa.types.is_integer(kind):
            arrays[name] = np.array(values, kind.to_pandas_dtype())
        else:
            arrays[name] = np.array(values)
    np.savez(path, **arrays)


WRITERS = {"mine.parquet": to_parquet, "parts": to_parts, "mine.csv": to_csv, "mine.npz": to_npz}
LOADERS = [*WRITERS, "frame"]


def load(where, loader, columns, types=None, **options):
    """The table through a loader: a file of its own, or a data frame."""
    types = types or {}
    if loader == "frame":
        pandas = pytest.importorskip("pandas")
        y, group = options.pop("label", "y"), options.pop("groups", "group")
        of = {group} if isinstance(group, str) else {*group}
        frame = pandas.DataFrame(
            {k: pandas.Series(pa.array(v, types.get(k)).to_pandas()) for k, v in columns.items() if k not in {y} | of}
        )
        chosen = {k: columns[k] for k in columns if k in of}
        split = columns.get("split")
        return data.dataset(frame.drop(columns="split", errors="ignore"), columns[y], chosen, split=split, **options)
    WRITERS[loader](where / loader, columns, types)
    return data.load(where / loader, **options)


def numbers(count=N):
    return [(7 * i) % 13 - 4 for i in range(count)]


#: name -> (values, type in Arrow, what they are as a feature: numbers, or why there are none, or words of the error)
TYPES = {
    "int": (numbers(), pa.int64(), "number"),
    "int8": (numbers(), pa.int8(), "number"),
    "uint64": ([abs(v) for v in numbers()], pa.uint64(), "number"),
    "float": ([v / 4 for v in numbers()], pa.float64(), "number"),
    "float16": ([v / 4 for v in numbers()], pa.float16(), "number"),
    "float32": ([v / 4 for v in numbers()], pa.float32(), "number"),
    "decimal": ([decimal.Decimal(v) / 4 for v in numbers()], pa.decimal128(20, 2), "number"),
    "wide decimal": ([decimal.Decimal(v) for v in numbers()], pa.decimal256(50, 0), "number"),
    "bool": ([v > 0 for v in numbers()], pa.bool_(), "number"),
    "string": ([f"w{v}" for v in numbers()], pa.string(), "text"),
    "large string": ([f"w{v}" for v in numbers()], pa.large_string(), "text"),
    "dictionary": ([f"w{v}" for v in numbers()], pa.dictionary(pa.int32(), pa.string()), "text"),
    "bytes": ([f"w{v}".encode() for v in numbers()], pa.binary(), None),
    "date": ([datetime.date(2020, 1, 1 + v + 4) for v in numbers()], pa.date32(), None),
    "timestamp": ([datetime.datetime(2020, 1, 1 + v + 4) for v in numbers()], pa.timestamp("us"), None),
    "nothing": ([None] * N, pa.float64(), "empty"),
    "with None": ([None if v == 3 else v for v in numbers()], pa.int64(), ["row 1,", "missing"]),
    "nan": ([float("nan") if v == 3 else float(v) for v in numbers()], pa.float64(), ["row 1,", "missing"]),
    "bool with None": ([None if v == 3 else v > 0 for v in numbers()], pa.bool_(), ["row 1,", "missing"]),
    "infinite": ([float("-inf") if v == 3 else float(v) for v in numbers()], pa.float64(), ["row 1,", "infinite"]),
    "large": ([1e39 if v == 3 else float(v) for v in numbers()], pa.float64(), ["row 1,", "1e+39", "float32"]),
    "larger decimal": (
        [decimal.Decimal(10) ** 45 if v == 3 else decimal.Decimal(v) for v in numbers()],
        pa.decimal256(50, 0),
        ["row 1,", "1e+45", "float32"],
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", TYPES)
def test_a_column_is_the_same_feature_in_every_format(tmp_path, name, loader):
    values, kind, meaning = TYPES[name]
    columns = {"f": values, "other": [v / 8 for v in numbers()], "y": CLASS, "group": GROUP}
    if isinstance(meaning, list):
        with pytest.raises(data.DataError) as caught:
            load(tmp_path, loader, columns, {"f": kind})
        message = str(caught.value)
        assert "\n" not in message
        assert all(word in message for word in ["column 'f'", *meaning]), message
        return
    mine = load(tmp_path, loader, columns, {"f": kind}, standardize=False)
    used = ("f", "other") if meaning == "number" else ("other",)
    assert mine.feature_names == used
    x = np.array([[float(columns[k][i]) for k in used] for i in range(N)], np.float32)
    for split, batch in mine.splits.items():
        np.testing.assert_array_equal(batch.x, x[mine.rows[split]])
        assert batch.y.tolist() == [CLASS[i] for i in mine.rows[split]]
    assert f"features: {', '.join(used)} ({len(used)} of " in mine.read[0]
    if meaning != "number":
        assert f"f ({meaning or ''}" in mine.read[1]


@pytest.mark.parametrize("loader", [*LOADERS, "array"])
def test_the_columns_of_a_table_are_standardised_and_an_array_is_taken_as_it_is(tmp_path, loader):
    columns = {"age": [20 + v for v in range(N)], "share": [v / N for v in numbers()], "y": CLASS, "group": GROUP}
    x = np.stack([columns["age"], columns["share"]], axis=1).astype(float)
    if loader == "array":
        with pytest.warns(data.DataWarning, match="column 0 reaches 59: a network may learn nothing"):
            mine = data.dataset(x, CLASS, GROUP)
        assert mine.scaling is None
        np.testing.assert_array_equal(mine.train.x, x[mine.rows["train"]].astype(np.float32))
        return
    mine = load(tmp_path, loader, columns)
    train = x[mine.rows["train"]]
    np.testing.assert_allclose(mine.scaling, [train.mean(axis=0), train.std(axis=0)], rtol=1e-12)
    for split, batch in mine.splits.items():
        expected = (x[mine.rows[split]] - train.mean(axis=0)) / train.std(axis=0)
        np.testing.assert_allclose(batch.x, expected, rtol=1e-6, atol=1e-6)  # float32


@pytest.mark.parametrize("loader", LOADERS)
def test_each_value_of_a_categorical_column_is_a_feature_of_0_and_1(tmp_path, loader):
    work = [("clerk", "nurse", "", "NA")[i % 7 % 4] for i in range(N)]
    columns = {
        "work": work, "age": numbers(), "district": [(7, 70)[i % 3 // 2] for i in range(N)], "y": CLASS, "group": GROUP,
    }  # fmt: skip
    mine = load(tmp_path, loader, columns, categorical=("district", "work"))
    assert mine.feature_names == ("age", "district=7", "district=70", "work=clerk", "work=nurse", "work=unknown")
    assert mine.read[1] == "features of 0 and 1 of each value: district (2 values), work (3 values)"
    for split, batch in mine.splits.items():
        rows = mine.rows[split]
        known = np.array([{"clerk": 0, "nurse": 1}.get(work[row], 2) for row in rows])
        np.testing.assert_array_equal(batch.x[:, 3:], np.eye(3)[known])  # not divided by anything
        np.testing.assert_array_equal(batch.x[:, 1], np.array(columns["district"])[rows] == 7)
    np.testing.assert_array_equal(mine.scaling[0][1:], 0)
    np.testing.assert_array_equal(mine.scaling[1][1:], 1)


def test_a_group_is_a_category_where_it_is_asked_for_and_words_alone_are_enough(tmp_path):
    columns = {"age": numbers(), "work": ["a", "b"] * (N // 2), "y": CLASS, "group": ["m", "w", "w", ""] * (N // 4)}
    mine = load(tmp_path, "mine.csv", columns, features="age", categorical="group")
    assert mine.feature_names == ("age", "group=m", "group=w", "group=unknown")
    words = load(tmp_path, "mine.npz", {k: columns[k] for k in ("work", "y", "group")}, categorical="work")
    assert words.feature_names == ("work=a", "work=b")
    assert words.read[0] == "features of 0 and 1 of each value: work (2 values)"


@pytest.mark.parametrize(
    ("categorical", "said"),
    [
        ("wrok", "categorical='wrok' is no column of .*: choose from"),
        ("y", "categorical='y' is the class of"),
        ("split", "categorical='split' is the split of"),
        (("work", "work"), "categorical='work' is named twice"),
        ("gone", "categorical='gone' is named twice, or dropped"),
        ("person", "categorical='person' of .* has 400 values"),
        ("share", "share of .* holds fractions"),
    ],
)
def test_what_is_no_category_is_one_line(tmp_path, categorical, said):
    rows = 400
    columns = {
        "work": ["a", "b"] * 200, "gone": ["a"] * rows, "person": [f"p{i}" for i in range(rows)],
        "share": [i + 0.5 for i in range(rows)], "split": ["train", "train", "validation", "test"] * 100,
        "y": [i % 3 // 2 for i in range(rows)], "group": ["a", "b", "b", "a", "b"] * 80,
    }  # fmt: skip
    with pytest.raises(data.DataError, match=said) as caught:
        load(tmp_path, "mine.csv", columns, categorical=categorical, drop="gone")
    assert "\n" not in str(caught.value)


def test_an_array_without_names_has_no_categories():
    with pytest.raises(data.DataError, match="give feature_names, or leave out features=, drop= and categorical="):
        data.dataset(np.eye(N), CLASS, GROUP, categorical="a")
    named = data.dataset(
        np.stack([np.arange(N) % 3, np.arange(N) / N], 1), CLASS, GROUP, feature_names=["code", "b"], categorical="code"
    )
    assert named.feature_names == ("b", "code=0", "code=1", "code=2")


#: name -> (values, type in Arrow, their names as classes; None where they are refused)
LABELS = {
    "int": (CLASS, pa.int64(), ("0", "1")),
    "minus one": ([2 * v - 1 for v in CLASS], pa.int64(), ("-1", "1")),
    "float": ([float(v) for v in CLASS], pa.float64(), ("0", "1")),
    "bool": ([v == 1 for v in CLASS], pa.bool_(), ("0", "1")),
    "decimal": ([decimal.Decimal(v) for v in CLASS], pa.decimal128(10, 2), ("0", "1")),
    "words": (["yes" if v else "no" for v in CLASS], pa.string(), ("no", "yes")),
    "padded": ([" yes" if v else "no " for v in CLASS], pa.string(), ("no", "yes")),
    "categories": (["yes" if v else "no" for v in CLASS], pa.dictionary(pa.int8(), pa.string()), ("no", "yes")),
    "bytes": ([b"yes" if v else b"no" for v in CLASS], pa.binary(), ("no", "yes")),
    "ten and nine": ([9 + v for v in CLASS], pa.int32(), ("9", "10")),
    "fractions": ([v / 7 for v in range(N)], pa.float64(), None),
    "many numbers": ([float(1000 * v) for v in range(N)], pa.float64(), None),
    "many words": ([f"p{v}" for v in range(N)], pa.string(), None),
    "one": ([1] * N, pa.int64(), None),
    "missing": ([None if v == 7 else v % 2 for v in range(N)], pa.int64(), None),
    "missing word": (["nan" if v else "no" for v in CLASS], pa.string(), None),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", LABELS)
def test_a_column_is_the_same_class_in_every_format(tmp_path, name, loader):
    values, kind, names = LABELS[name]
    columns = {"age": numbers(), "outcome": values, "group": GROUP}
    if names is None:
        with pytest.raises(data.DataError) as caught:
            load(tmp_path, loader, columns, {"outcome": kind}, label="outcome")
        assert "\n" not in str(caught.value)
        return
    mine = load(tmp_path, loader, columns, {"outcome": kind}, label="outcome", positive=names[1])
    assert mine.class_names == names
    assert mine.positive == 1
    rows = np.concatenate([*mine.rows.values()])
    y = np.concatenate([batch.y for batch in mine.splits.values()])
    assert y.tolist() == [CLASS[row] for row in rows]


#: values, type in Arrow, names as groups
GROUPS = {
    "words": (["a", "b", "a", "b"], pa.string(), ("a", "b")),
    "int": ([10, 9, 10, 9], pa.int64(), ("9", "10")),
    "bool": ([True, False, True, False], pa.bool_(), ("0", "1")),
    "int with None": ([1, None, 2, None], pa.int64(), ("1", "2", "unknown")),
    "bool with None": ([True, None, False, None], pa.bool_(), ("0", "1", "unknown")),
    "minus one": ([1, -1, 2, -1], pa.int64(), ("1", "2", "unknown")),
    "words with None": (["a", None, "b", None], pa.string(), ("a", "b", "unknown")),
    **{
        f"written {word!r}": (["a", word, "b", word], pa.string(), ("a", "b", "unknown"))
        for word in ("None", "nan", "NaN", "", " ", "NA", "<NA>", "null", "unknown")
    },
    "none is a word": (["none", "blind", "none", "blind"], pa.string(), ("blind", "none")),
    "leading zeros": (["01", "1", "01", "1"], pa.string(), ("01", "1")),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", GROUPS)
def test_a_column_is_the_same_group_in_every_format(tmp_path, name, loader):
    values, kind, names = GROUPS[name]
    columns = {"age": numbers(), "y": CLASS, "kind": values * (N // 4)}
    mine = load(tmp_path, loader, columns, {"kind": kind}, groups=("kind",))
    assert sorted(mine.group_names) == sorted(names)
    assert mine.group_names[-1] == names[-1]
    if "unknown" in names:
        assert sum(sizes[-1] for sizes in mine.group_sizes().values()) == N // 2
        assert any("20 people have no kind: they are in 'unknown'" in sentence for sentence in mine.read)
    if name in ("written 'None'", "written 'NA'"):
        assert any(f"{values[1]!r} in the data is read as missing" in sentence for sentence in mine.read)


@pytest.mark.parametrize("loader", LOADERS)
def test_several_columns_make_the_groups_and_are_no_features(tmp_path, loader):
    columns = {
        "age": numbers(),
        "y": CLASS,
        "sex": [i // 2 % 2 for i in range(N)],
        "race": ["b", "w"] * 10 + ["a"] * 20,
    }
    mine = load(tmp_path, loader, columns, groups=("sex", "race"))
    assert mine.group_names == ("0, a", "0, b", "0, w", "1, a", "1, b", "1, w")
    assert mine.feature_names == ("age",)
    assert "groups: sex (0, 1) x race (a, b, w)" in mine.read
    if loader != "frame":
        assert "dropped: sex (a group), race (a group)" in mine.read


def test_a_split_is_drawn_in_every_intersection_of_groups():
    rng = np.random.default_rng(0)
    columns = {"sex": rng.integers(0, 2, 2000), "race": rng.integers(0, 5, 2000)}
    mine = data.dataset(np.ones((2000, 1)), rng.integers(0, 2, 2000), columns)
    sizes = np.stack([mine.group_sizes()[split] for split in ("train", "validation", "test")])
    assert np.abs(sizes - sizes.sum(axis=0) * [[0.7], [0.1], [0.2]]).max() <= 1.5


ODD = ["a", "", "NA", "None", " x ", "é", "a,b", 'q"q', "l\nm", "\x1b[31m", "0", "01", "-1", "1.0", "True", "1,5", "?"]
ODD += ["other", "unknown", "inf", "1e39", "1_0", "<b>"]
MAKERS = [
    lambda rng, n: rng.integers(-3, 4, n).tolist(),
    lambda rng, n: rng.normal(size=n).tolist(),
    lambda rng, n: rng.choice([True, False], n).tolist(),
    lambda rng, n: [str(v) for v in rng.choice(rng.choice(ODD, 3), n)],
    lambda rng, n: [[0, 1, None][v] for v in rng.integers(0, 3, n)],
    lambda rng, n: [[1e39, float("nan"), float("-inf"), 2.0][v] for v in rng.integers(0, 4, n)],
    lambda rng, n: [datetime.date(2020, 1, v) for v in rng.integers(1, 4, n).tolist()],
]


def read_or_refused(path, **options):
    """The dataset, or the message."""
    try:
        return data.load(path, **options)
    except data.DataError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore::jaxfair.data.DataWarning")
@pytest.mark.parametrize("seed", range(60))
def test_any_table_is_read_right_or_refused_in_a_line(tmp_path, seed):
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([1, 3, 8, 30, 30, 30]))
    names = ["y", "group", *rng.choice(["split", "age", "Unnamed: 0", "", "a\nb", "label", "x"], 3, replace=False)]
    columns = {str(name): MAKERS[rng.integers(len(MAKERS))](rng, rows) for name in names}
    columns |= {"y": rng.integers(0, 2, rows).tolist()} if seed % 4 else {}
    columns |= {"group": rng.choice(["a", "b"], rows).tolist()} if seed % 5 else {}
    columns |= {"good": rng.integers(0, 9, rows).tolist()} if seed % 3 else {}
    for loader, write in WRITERS.items():
        if loader == "parts" or (loader == "mine.npz" and "" in columns):
            continue
        write(tmp_path / loader, columns, {})
        mine = read_or_refused(tmp_path / loader, standardize=bool(seed % 2))
        if isinstance(mine, str):
            assert mine.isprintable()
            continue
        assert all(sentence.isprintable() for sentence in mine.read)
        np.testing.assert_array_equal(np.sort(np.concatenate([*mine.rows.values()])), np.arange(rows))
        assert len(set(mine.group_names)) == mine.num_groups
        assert all(map(str.isprintable, (*mine.group_names, *mine.class_names, *mine.feature_names)))
        by_name = {name.replace("\n", r"\n"): name for name in columns}
        for split, batch in mine.splits.items():
            assert np.isfinite(batch.x).all()
            if mine.scaling is None:
                for name, x in zip(mine.feature_names, batch.x.T, strict=True):
                    of_file = [columns[by_name.get(name, "")][row] for row in mine.rows[split]]
                    np.testing.assert_array_equal(x, np.array(of_file, float).astype(np.float32))


@pytest.mark.parametrize("loader", list(WRITERS))
def test_features_may_be_chosen(tmp_path, loader):
    columns = {
        "a": numbers(),
        "b": numbers()[::-1],
        "sex": [i // 2 % 2 for i in range(N)],
        "y": CLASS,
        "word": ["w"] * N,
    }
    WRITERS[loader](tmp_path / loader, columns, {})

    def names(**options):
        return data.load(tmp_path / loader, groups="sex", **options).feature_names

    assert names() == ("a", "b")
    assert names(features=("b", "sex")) == ("b", "sex")
    assert names(drop="a") == ("b",)
    for options, words in (
        ({"features": "word"}, "no number but text"),
        ({"features": "y"}, "is the class"),
        ({"features": "c"}, "choose from a, b, sex, y, word"),
        ({"drop": "c"}, "choose from a, b, sex, y, word"),
        ({"features": "a", "drop": "a"}, "named twice"),
        ({"drop": ("a", "b")}, "no numeric column"),
        ({"label": "z"}, "has no 'z', only a, b, sex, y, word"),
    ):
        with pytest.raises(data.DataError, match=words):
            names(**options)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_index_of_a_frame_is_no_feature(tmp_path, shuffled):
    """Sorted by class before it was shuffled, the old index says which class a row has."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": numbers(), "y": sorted(CLASS), "group": GROUP})
    frame = frame.sample(frac=1, random_state=0) if shuffled else frame
    frame.to_parquet(tmp_path / "mine.parquet")
    mine = data.load(tmp_path / "mine.parquet")
    assert mine.feature_names == ("age",)
    assert ("__index_level_0__ (index)" in mine.read[1]) == shuffled
    frame.rename_axis("person").to_parquet(tmp_path / "named.parquet", index=True)
    assert data.load(tmp_path / "named.parquet").feature_names == ("age",)
    asked = data.load(tmp_path / "named.parquet", features=("person", "age"))
    assert asked.feature_names == ("person", "age")
    frame.set_index("group").to_parquet(tmp_path / "group.parquet")
    assert data.load(tmp_path / "group.parquet").group_names == ("men", "women")
    frame.to_csv(tmp_path / "mine.csv")
    again = data.load(tmp_path / "mine.csv")
    assert again.feature_names == ("age",)
    assert "Unnamed: 0 (index)" in again.read[1]


def test_metadata_by_another_hand_is_no_obstacle(tmp_path):
    for metadata in (b"[1]", b"{", b"\xff", b'{"index_columns": null}', b'{"index_columns": [{"kind": "range"}, 3]}'):
        table = pa.table({"age": numbers(), "y": CLASS, "group": GROUP}).replace_schema_metadata({b"pandas": metadata})
        pyarrow.parquet.write_table(table, tmp_path / "mine.parquet")
        assert data.load(tmp_path / "mine.parquet").feature_names == ("age",)


def test_what_looks_like_a_number_of_the_row_is_said(tmp_path):
    columns = {"id": [(7 * i) % N for i in range(N)], "age": numbers(), "y": CLASS, "group": GROUP}
    mine = load(tmp_path, "mine.csv", columns)
    assert mine.feature_names == ("id", "age")
    assert "looks like a number of the row: id; drop= leaves it out" in mine.read


def test_a_column_twice_is_said_so(tmp_path):
    arrays = [pa.array(v) for v in (numbers(), numbers(), CLASS, GROUP)]
    pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, names=["a", "a", "y", "group"]), tmp_path / "mine.parquet")
    with pytest.raises(data.DataError, match="more than one column 'a': rename"):
        data.load(tmp_path / "mine.parquet")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.ones((N, 2)), columns=["a", "a"])
    with pytest.raises(data.DataError, match="more than one column 'a': rename"):
        data.dataset(frame, CLASS, GROUP)


def part(path, rows, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"age": numbers(rows), "y": [i % 2 for i in range(rows)]} | columns
    pyarrow.parquet.write_table(pa.table(table), path)


def test_a_folder_of_parts_is_one_table(tmp_path):
    whole = tmp_path / "mine"
    part(whole / "sex=men" / "area=1" / "b.parquet", 10, rate=[0.5] * 10)
    part(whole / "sex=men" / "area=1" / "a.parquet", 10, rate=[1] * 10)
    part(whole / "sex=a%20b" / "area=2" / "a.parquet", 20, rate=[True] * 20)
    part(whole / "_old" / "a.parquet", 20)
    (whole / "_SUCCESS").write_text("")
    mine = data.load(whole, groups=("sex", "area"), standardize=False)
    assert mine.group_names == ("a b, 2", "men, 1")
    assert mine.feature_names == ("age", "rate")
    rate = np.concatenate([batch.x[:, 1] for batch in mine.splits.values()])
    row = np.concatenate([*mine.rows.values()])
    assert (rate[row < 30] == 1).all()  # sorted by name: sex=a%20b, then a and b of men
    assert (rate[row >= 30] == 0.5).all()


def test_parts_that_do_not_fit_are_named(tmp_path):
    whole = tmp_path / "mine"
    part(whole / "a.parquet", 20, group=["a"] * 20)
    part(whole / "b.parquet", 20, group=["b"] * 20, age=["old"] * 20)
    with pytest.raises(data.DataError, match=r"column 'age' of .* is number in one part and text in another"):
        data.load(whole)
    (whole / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(data.DataError, match=r"b\.parquet is truncated or damaged"):
        data.load(whole)
    part(whole / "b.parquet", 20, group=["b"] * 20, rate=numbers(20))
    with pytest.raises(data.DataError, match=r"row 0, column 'rate', is missing \(20 rows in all\)"):
        data.load(whole)
    (tmp_path / "none").mkdir()
    with pytest.raises(data.DataError, match=r"holds no \.parquet file"):
        data.load(tmp_path / "none")


def test_the_columns_of_an_npz_file_may_stand_beside_x(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"sex": rng.integers(0, 2, N), "race": rng.choice(["a", "b"], N), "outcome": rng.integers(0, 2, N)}
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(N, 3)), **arrays, feature_names=["p", "q", "r"])
    mine = data.load(tmp_path / "mine.npz", label="outcome", groups=("sex", "race"), features=("r", "p"))
    assert mine.feature_names == ("r", "p")
    assert mine.group_names == ("0, a", "0, b", "1, a", "1, b")
    one = data.load(tmp_path / "mine.npz", label="outcome", groups="race")
    assert "dropped: sex (beside x)" in one.read
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(N, 3)), **arrays)
    with pytest.raises(data.DataError, match=r"no names of columns: give feature_names"):
        data.load(tmp_path / "mine.npz", label="outcome", groups="race", drop="p")


def test_a_frame_is_a_table_and_several_groups_may_be_given():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"age": pandas.array(numbers(), "Int64"), "word": ["w"] * N, "flag": np.arange(N) % 3 == 0}
    )
    mine = data.dataset(frame, CLASS, pandas.DataFrame({"sex": GROUP, "old": [i // 4 % 2 for i in range(N)]}))
    assert mine.feature_names == ("age", "flag")
    assert mine.group_attributes == ("sex", "old")
    assert mine.num_groups == 4
    assert mine.read[:2] == (
        "features: age, flag (2 of 3 columns)",
        "dropped: word (text); categorical= learns from words",
    )
    assert data.dataset(frame, CLASS, {"sex": GROUP, "old": GROUP}, groups=("sex", "label")).num_groups == 4
    with pytest.raises(data.DataError, match="group_names of mine name one group"):
        data.dataset(frame, CLASS, {"a": CLASS, "b": CLASS}, group_names=["x", "y"])


def test_names_may_be_numbers():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.stack([numbers(), numbers()[::-1], numbers()], axis=1))
    assert data.dataset(frame, CLASS, GROUP).feature_names == ("0", "1", "2")
    assert data.dataset(frame, CLASS, GROUP, features=(2, 0)).feature_names == ("2", "0")
    assert data.dataset(frame, CLASS, GROUP, drop=1).feature_names == ("0", "2")
    assert data.dataset(frame, CLASS, CLASS[::-1], unconstrained=0).constrained.tolist() == [False, True]
    for options, words in (({"groups": 3}, "no group attribute '3'|no '3'"), ({"unconstrained": 7}, "'7' is no group")):
        with pytest.raises(data.DataError, match=words):
            data.dataset(frame, CLASS, GROUP, **options)
    with pytest.raises(data.DataError, match="mine has no 'group'"):
        data.dataset(frame, CLASS)


def test_what_is_masked_is_missing():
    mask = [i % 4 == 0 for i in range(N)]
    group = np.ma.MaskedArray([i // 2 % 2 for i in range(N)], mask)
    assert data.dataset(np.ones((N, 2)), CLASS, group).group_names == ("0", "1", "unknown")
    with pytest.raises(data.DataError, match="y of mine is missing in row 0"):
        data.dataset(np.ones((N, 2)), np.ma.MaskedArray(CLASS, mask), GROUP)
    with pytest.raises(data.DataError, match="x of row 0 is missing"):
        data.dataset(np.ma.MaskedArray(np.ones((N, 2)), np.stack([mask, mask], axis=1)), CLASS, GROUP)


def test_many_values_in_several_columns_make_only_the_groups_that_occur():
    """All combinations of their values would be ten to the twelfth."""
    many = np.arange(10_000) * 100
    columns = {name: np.concatenate([many, many]) for name in "abc"}
    mine = data.dataset(np.ones((20_000, 1)), np.arange(20_000) // 10_000, columns, groups=("a", "b", "c"))
    assert mine.num_groups == 10_000
    assert mine.group_names[1] == "100, 100, 100"


def test_one_group_is_warned_of():
    with pytest.warns(data.DataWarning, match="one group, 'all': it cannot lose more than all do"):
        data.dataset(np.random.default_rng(0).normal(size=(N, 2)), CLASS, ["all"] * N)


@pytest.mark.parametrize(
    ("scale", "words"),
    [((1, 1e6), "column 1 reaches"), ((1, 1e-6), "column 0 differs"), ((1e5, 1e5), "reaches")],
)
def test_features_of_very_different_scale_are_warned_of(scale, words):
    x = np.random.default_rng(0).normal(size=(N, 2)) * scale
    with pytest.warns(data.DataWarning, match=words) as caught:
        mine = data.dataset(x, CLASS, GROUP)
    assert any(words in sentence for sentence in mine.read)
    assert len(caught) == 1
    assert mine.scaling is None
    scaled = data.dataset(x, CLASS, GROUP, standardize=True)
    mean, deviation = scaled.scaling
    np.testing.assert_allclose(scaled.train.x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.train.x.std(axis=0), 1, atol=1e-6)
    for split, batch in scaled.splits.items():
        np.testing.assert_array_equal(batch.x, ((x[mine.rows[split]] - mean) / deviation).astype(np.float32))


def test_a_feature_that_is_the_same_for_everybody_is_said_and_stays_finite():
    x = np.stack([np.array(numbers(), float), np.full(N, 0.1)], axis=1)
    mine = data.dataset(x, CLASS, GROUP, feature_names=["age", "year"], standardize=True)
    assert "the same for everybody in train: year; says nothing" in mine.read
    assert not mine.train.x[:, 1].any()


@pytest.mark.parametrize("kind", [object, "U8", "datetime64[s]", complex])
def test_an_x_that_is_no_numbers_is_one_line(kind):
    with pytest.raises(data.DataError, match=r"x of mine has shape \(40, 2\) and type .*: give numbers"):
        data.dataset(np.ones((N, 2), int).astype(kind), CLASS, GROUP)


@pytest.mark.parametrize(("positive", "number"), [("yes", 1), ("no", 0), (None, None)])
def test_the_good_outcome_has_a_name(positive, number):
    y = np.array(["no", "yes"])[CLASS]
    assert data.dataset(np.ones((N, 2)), y, GROUP, positive=positive).positive == number
    with pytest.raises(data.DataError, match="positive='maybe' is no class of mine: choose from no, yes"):
        data.dataset(np.ones((N, 2)), y, GROUP, positive="maybe")


@pytest.mark.parametrize("positive", [1, 1.0, True, np.int64(1), "1", "True", "TRUE"])
def test_the_good_outcome_of_numbers_and_truth_values(positive):
    assert data.dataset(np.ones((N, 2)), CLASS, GROUP, positive=positive).positive == 1


def test_every_dataset_takes_a_good_outcome():
    assert data.load("digits", positive="7").positive == 7
    assert data.load("digits").positive is None
    with pytest.raises(data.DataError, match="positive='x' is no class of digits"):
        data.load("digits", positive="x")


def test_groups_of_different_people_have_different_names():
    mine = data.dataset(np.ones((N, 2)), CLASS, {"a": ["p, q", "p"] * (N // 2), "b": (["r", "q, r"] * (N // 2))[:N]})
    assert mine.group_names == ("'p', 'q, r'", "'p, q', 'r'")


def test_the_page_on_data_shows_what_happens(tmp_path, monkeypatch, capsys):
    page = (pathlib.Path(__file__).parents[1] / "docs" / "data.md").read_text()
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    assert capsys.readouterr().out == shown.group(1)
    assert names["mine"].class_names[names["mine"].positive] == "high"


ESCAPED = {
    "a\x1b[31m": r"a\x1b[31m",
    "b\nc": r"b\nc",
    "\u202ed": r"\u202ed",
    "é 日\u200d本\u00a0f": "é 日\u200d本\u00a0f",
}


@pytest.mark.parametrize("name", ESCAPED)
def test_names_can_be_seen_and_are_taken_as_they_are_shown_or_as_they_are(name):
    shown, code = ESCAPED[name], np.arange(60)
    for options in (
        {"group": np.where(code % 2, name, "z"), "y": np.where(code % 3, name, "z"), "unconstrained": (name,)},
        {"group": np.where(code % 2, name, "z"), "y": np.where(code % 3, name, "z"), "unconstrained": (shown,)},
        {"group": code % 2, "group_names": ["z", name], "y": code % 3 > 0, "class_names": ["z", name]},
    ):
        for positive in (name, shown):
            mine = data.dataset(np.eye(60)[:, :2], feature_names=[name, "z"], positive=positive, **options)
            assert {*mine.group_names} == {*mine.class_names} == {*mine.feature_names} == {shown, "z"}
            assert mine.class_names[mine.positive] == shown
            assert f"of which {shown} is the good outcome" in " ".join(mine.read)
            if "unconstrained" in options:
                assert [n for n, bound in zip(mine.group_names, mine.constrained, strict=True) if not bound] == [shown]


def test_names_that_would_be_shown_alike_are_told_apart():
    mine = data.dataset(np.eye(60)[:, :2], np.arange(60) % 2, ["a\n", r"a\n"] * 30)
    assert mine.num_groups == len({*mine.group_names}) == 2
    assert all(map(str.isprintable, mine.group_names))


def test_the_good_outcome_is_called_by_the_name_of_its_class():
    for positive, name in ((True, "1"), ("1.0", "1"), (0, "0")):
        mine = data.dataset(np.eye(60)[:, :2], np.arange(60) % 2 == 0, ["a", "b"] * 30, positive=positive)
        assert f"class: y (0, 1), of which {name} is the good outcome" in mine.read


@pytest.mark.parametrize("loader", [*WRITERS, "frame"])
def test_new_people_are_what_they_would_have_been_in_training(tmp_path, loader):
    pandas = pytest.importorskip("pandas")
    columns = {
        "age": [20 + v for v in range(N)], "a=b": [("p", "q\n", "")[i % 3] for i in range(N)], "words": ["w"] * N,
        "old": [i % 2 == 0 for i in range(N)], "y": CLASS, "group": GROUP,
    }  # fmt: skip
    mine = load(tmp_path, loader, columns, categorical="a=b")
    new = {name: columns[name] for name in ("a=b", "words", "age", "old")}
    if loader == "frame":
        table = pandas.DataFrame(new)
    else:
        table = tmp_path / f"new_{loader}"
        WRITERS[loader](table, new, {})
    x = data.inputs(table, mine)
    for split, batch in mine.splits.items():
        np.testing.assert_array_equal(x[mine.rows[split]], batch.x)
    known = {
        "feature_names": json.dumps(mine.feature_names),
        "scaling_mean": json.dumps(mine.scaling[0].tolist()),
        "scaling_deviation": json.dumps(mine.scaling[1].tolist()),
    }
    np.testing.assert_array_equal(data.inputs(table, known), x)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"age": [1.0]}, "has no column for the feature 'work=a', only age: add it"),
        ({"work": ["a"]}, "has no column for the feature 'age'"),
        ({"work": ["a"], "age": ["old"]}, "column 'age' is no number but text"),
        ({"work": ["a", "b"], "age": [1.0, np.nan]}, "x of row 1, column 'age', is missing"),
    ],
)
def test_new_people_without_what_a_network_wants_are_one_line(new, said):
    table = {"age": numbers(), "work": ["a", "b"] * (N // 2)}
    mine = data.dataset(table, CLASS, GROUP, categorical="work")
    with pytest.raises(data.DataError, match=said):
        data.inputs(new, mine)
    with pytest.raises(data.DataError, match="an array without names of columns"):
        data.inputs(new, data.dataset(np.eye(N), CLASS, GROUP))


def test_a_value_is_known_however_it_is_written_and_a_new_one_is_said():
    split = ["train"] * 36 + ["validation", "test"] * 2
    table = {
        "code": ["1.0", "2.0", "n.k.", "2.0"] * 10, "flag": ["True", "False", "maybe", "True"] * 10, "age": numbers(),
        "seldom": ["a"] * 39 + ["z"],
    }  # fmt: skip
    mine = data.dataset(table, CLASS, GROUP, split=split, categorical=("code", "flag", "seldom"))
    assert "seldom=z" not in mine.feature_names  # its weights would never be trained
    assert "no feature, since nobody in train has it: seldom=z" in mine.read
    one = {"code": [1, 2], "flag": [True, False], "age": [0, 0], "seldom": ["a", "a"]}
    names = dict(zip(mine.feature_names, data.inputs(one, mine).T.tolist(), strict=True))
    assert [names[f"code={v}"] for v in ("1.0", "2.0", "n.k.")] == [[1, 0], [0, 1], [0, 0]]
    assert [names[f"flag={v}"] for v in ("True", "False", "maybe")] == [[1, 0], [0, 1], [0, 0]]
    with pytest.warns(data.DataWarning, match="nobody in training had code 3, n.a.: no feature says so"):
        new = data.inputs({**one, "code": ["3", "n.a."]}, mine)
    assert not new[:, [name.startswith("code=") for name in mine.feature_names]].any()
    with pytest.raises(data.DataError, match=r"x of row 1, column 'age', is missing"):
        data.inputs({**one, "age": np.ma.array([3.0, 999.0], mask=[False, True])}, mine)
    with pytest.raises(data.DataError, match="give the path of a table, or its columns by name"):
        data.inputs([{"age": 3}], mine)


def test_two_features_of_one_name_are_refused():
    with pytest.raises(data.DataError, match="makes a feature 'r=n', and there is one of that name: rename a column"):
        data.dataset({"r=n": numbers(), "r": ["n", "s"] * (N // 2)}, CLASS, GROUP, categorical="r")


def test_new_people_of_arrays_are_found_by_the_names_of_their_columns(tmp_path):
    x = np.random.default_rng(0).normal(size=(N, 2))
    arrays = {"x": x, "y": CLASS, "group": GROUP, "feature_names": ["a", "b"]}
    np.savez(tmp_path / "a.npz", **arrays)
    mine = data.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.inputs(tmp_path / "a.npz", mine), x.astype(np.float32))
