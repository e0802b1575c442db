"""The user's own files: what they mean, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxfair import data


def save(path, **arrays):
    columns = {
        "x": np.arange(60.0).reshape(20, 3) / 8, "y": np.arange(20) % 2, "group": np.arange(20) // 10
    }  # fmt: skip
    columns.update(arrays)
    np.savez(path, **{k: v for k, v in columns.items() if v is not None})
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


def rebuild(bundle):
    """row -> (x, class name, group name), from all splits."""
    return {
        int(row): (
            tuple(np.ravel(batch.x[i]).tolist()),
            bundle.class_names[batch.y[i]],
            bundle.group_names[batch.group[i]],
        )
        for split, batch in bundle.splits.items()
        for i, row in enumerate(bundle.rows[split])
    }


def test_nothing_is_lost_or_changed(path):
    label = np.array(["no", "yes"])[np.arange(20) % 2]
    group = np.array(["b", "a"])[np.arange(20) // 10]
    bundle = data.load(save(path, y=label, group=group))
    assert bundle.class_names == ("no", "yes")
    assert bundle.group_names == ("a", "b")
    expected = {i: ((3 * i / 8, (3 * i + 1) / 8, (3 * i + 2) / 8), str(label[i]), str(group[i])) for i in range(20)}
    assert rebuild(bundle) == expected


def test_integers_are_sorted_as_numbers(path):
    bundle = data.load(save(path, group=np.array([10, 9] * 10)))
    assert bundle.group_names == ("9", "10")


@pytest.mark.parametrize(
    "group",
    [
        np.array(["a", ""] * 10),
        np.array([0, -1] * 10),
        np.array([0.0, np.nan] * 10),
        np.array(["a", "unknown"] * 10),
    ],
)
def test_unknown_groups_are_a_group(path, group):
    bundle = data.load(save(path, group=group), unconstrained="unknown")
    assert bundle.group_names[-1] == "unknown"
    assert bundle.constrained.tolist() == [True, False]
    assert sum(sizes[-1] for sizes in bundle.group_sizes().values()) == 10


def test_a_given_split_is_kept(path):
    split = np.array(["train"] * 16 + ["test", "validation"] * 2)
    bundle = data.load(save(path, split=split, group=np.arange(20) % 2))
    for name, rows in bundle.rows.items():
        np.testing.assert_array_equal(rows, np.flatnonzero(split == name))


def test_names_may_be_given(path):
    group = np.array([0, 1, -1, 1] * 5)
    bundle = data.load(save(path, group=group, group_names=["old", "young"], class_names=["n", "y"]))
    assert bundle.group_names == ("old", "young", "unknown")
    assert bundle.class_names == ("n", "y")


def test_groups_by_class(path):
    bundle = data.load(save(path), groups=("group", "label"))
    assert bundle.group_names == ("0, 0", "0, 1", "1, 0", "1, 1")


def test_images_may_have_any_shape(path):
    assert data.load(save(path, x=np.ones((20, 4, 5, 1)))).train.x.shape[1:] == (4, 5, 1)


def test_parquet_means_the_same(tmp_path, path):
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    group = ["a", None, "b", "a"] * 5
    table = pa.table({"f": x[:, 0], "text": ["t"] * 20, "g": x[:, 1], "y": np.arange(20) % 2, "group": group})
    pyarrow.parquet.write_table(table, tmp_path / "mine.parquet")
    one = data.load(tmp_path / "mine.parquet", standardize=False)
    two = data.load(save(path, x=x, group=np.array([g or "" for g in group])))
    assert one.feature_names == ("f", "g")
    assert rebuild(one) == rebuild(two)


def nan(at):
    x = np.ones((20, 3))
    x[at] = np.nan
    return x


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": None}, ["no 'y'", "x, group"]),
        ({"x": np.ones(20)}, ["(20,)", "[N, ...]"]),
        ({"x": np.array([["a"]] * 20)}, ["<U1"]),
        ({"x": np.ones((19, 3))}, ["x 19", "y 20"]),
        ({"x": nan(7)}, ["row 7", "1 rows"]),
        ({"x": np.full((20, 3), 1e300)}, ["not finite"]),
        ({"y": np.ones((20, 2))}, ["(20, 2)"]),
        ({"y": np.array(["a", ""] * 10)}, ["row 1", "10 rows"]),
        ({"y": np.linspace(0, 1, 20)}, ["fractions"]),
        ({"group": np.arange(20) % 4, "group_names": ["a", "b"]}, ["2 names", "[0, 2)"]),
        ({"group_names": ["a", "b", "c"]}, ["'c'", "no example in the training split"]),
        ({"split": np.array(["train", "dev"] * 10)}, ["'dev'", "validation"]),
        ({"split": np.array(["test"] * 20), "group_names": ["0", "1"]}, ["no example"]),
        ({"split": np.array(["train"] * 3)}, ["(3,)"]),
        ({"group": np.array(["a", None] * 10, object)}, ["Python objects", "dtype=str"]),
    ],
)
def test_errors_are_one_line(path, arrays, words):
    with pytest.raises(data.DataError) as caught:
        data.load(save(path, **arrays))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in [str(path.name), *words]), message


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = save(tmp_path / "mine.npz")
    if suffix == ".parquet":
        path = tmp_path / "mine.parquet"
        pyarrow.parquet.write_table(pa.table({"f": [1.0], "y": [0], "group": [0]}), path)
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:size])
        with pytest.raises(data.DataError, match=rf"mine\{suffix}.*make or download it again"):
            data.load(path)


def test_a_missing_file_and_a_foreign_one(tmp_path):
    with pytest.raises(data.DataError, match=r"no file .*gone\.npz"):
        data.load(tmp_path / "gone.npz")
    with pytest.raises(data.DataError, match=r"no file .*gone\.csv"):
        data.load(tmp_path / "gone.csv")
    with pytest.raises(data.DataError, match=r"no dataset .*mine\.xlsx.*\.csv"):
        data.load(tmp_path / "mine.xlsx")


def test_pickles_are_never_loaded(tmp_path):
    path = tmp_path / "evil.npz"
    path.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(data.DataError, match=r"evil\.npz"):
        data.load(path)


class NA:
    """As pandas' NA: equal to nothing, and its comparisons have no truth value."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None


@pytest.mark.parametrize("missing", [None, np.nan, "", "-1", -1, np.float32("nan"), NA()])
@pytest.mark.parametrize("kind", [list, lambda v: np.array(v, object)])
def test_what_is_missing_in_a_list_is_unknown(missing, kind):
    mine = data.dataset(np.ones((40, 2)), [0, 1] * 20, kind(["a", missing] * 20))
    assert mine.group_names == ("a", "unknown")


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array([-1, 1] * 20), ("-1", "1")),
        ([-1.0, 1.0] * 20, ("-1", "1")),
        ([True, False] * 20, ("0", "1")),
        (np.array([b"no", b"yes"] * 20), ("no", "yes")),
    ],
)
def test_classes_may_be_any_integers_and_words(y, names):
    mine = data.dataset(np.ones((40, 2)), y, np.array([b"a", b"b"] * 20))
    assert mine.class_names == names
    assert mine.group_names == ("a", "b")


def test_pandas_columns_are_read():
    pandas = pytest.importorskip("pandas")
    group = pandas.Series([1, None] * 20, dtype="Int64")
    assert data.dataset(np.ones((40, 2)), pandas.Series([0, 1] * 20), group).group_names == ("1", "unknown")
    words = pandas.Series(["a", None] * 20, dtype="string")
    assert data.dataset(np.ones((40, 2)), [0, 1] * 20, words).group_names == ("a", "unknown")
    with pytest.raises(data.DataError, match="y of mine is missing in row 1"):
        data.dataset(np.ones((40, 2)), group, [0, 1] * 20)
