"""Adult, digits, splits and groups: counts, partitions, standardisation and leakage."""

import hashlib
import lzma
import subprocess
import sys
import warnings
from importlib import resources

import numpy as np
import pytest

from jaxfair import data
from jaxfair.data import _groups as grouping
from jaxfair.data._splits import apportion, cells, stratified

pytestmark = pytest.mark.filterwarnings("ignore::jaxfair.data.DataWarning")
#: SHA-256 of the row numbers: what was published must stay comparable.
DIGESTS = {
    "train": "be60a8c2bdbfabd8",
    "validation": "fe9a583be2885f05",
    "test": "44d49a39646a36a9",
}
PERCENT = {"train": 70, "validation": 10, "test": 20}


@pytest.fixture(scope="module")
def lines():
    """The file, parsed by other means than the loader's."""
    raw = resources.files("jaxfair.data").joinpath("files/adult.data.xz").read_bytes()
    text = lzma.decompress(raw).decode()
    return [[word.strip() for word in line.split(",")] for line in text.split("\n") if line]


def adult(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", data.DataWarning)
        return data.load("adult", **options)


@pytest.mark.slow
def test_every_person_is_in_one_split_once(lines):
    rows = adult().rows
    assert len(lines) == 32561
    np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(32561))
    for split, batch in adult().splits.items():
        assert {len(field) for field in batch} == {len(rows[split])}
        np.testing.assert_array_equal(batch.index, np.arange(len(rows[split])))
        assert (batch.weight == 1).all()
        assert [str(field.dtype) for field in batch] == [
            "float32", "int32", "int32", "int32", "float32",
        ]  # fmt: skip


def test_the_default_split_never_changes():
    rows = adult().rows
    assert {k: len(v) for k, v in rows.items()} == {
        "train": 22795,
        "validation": 3254,
        "test": 6512,
    }
    digest = {k: hashlib.sha256(v.astype("<i8").tobytes()).hexdigest()[:16] for k, v in rows.items()}
    assert digest == DIGESTS


def test_each_cell_of_sex_race_label_is_parted_within_one_person(lines):
    cell = np.array([f"{line[9]}{line[8]}{line[14]}" for line in lines])
    for split, rows in adult().rows.items():
        for value in np.unique(cell):
            exact = (cell == value).sum() * PERCENT[split] / 100
            assert abs((cell[rows] == value).sum() - exact) < 1


def test_groups_and_labels_are_those_of_the_rows(lines):
    bundle = adult(groups=("race", "sex"))
    assert bundle.num_groups == 10
    for split, batch in bundle.splits.items():
        for i in range(0, len(batch.y), 97):
            line = lines[bundle.rows[split][i]]
            assert bundle.group_names[batch.group[i]] == f"{line[8]}, {line[9]}"
            assert bundle.class_names[batch.y[i]] == line[14]


def test_features_say_what_the_file_says(lines):
    bundle = adult()
    assert bundle.train.x.shape[1] == 107 == len(bundle.feature_names)
    column = {name: i for i, name in enumerate(bundle.feature_names)}
    assert not any("fnlwgt" in name for name in column)
    for i in range(0, len(bundle.test.y), 211):
        line, x = lines[bundle.rows["test"][i]], bundle.test.x[i]
        on = {name for name, c in column.items() if "=" in name and x[c] == 1}
        assert {f"workclass={line[1]}", f"race={line[8]}", f"native-country={line[13]}"} <= on
        assert len(on) == 8
    age = np.array([int(line[0]) for line in lines], np.float64)
    train = age[bundle.rows["train"]]
    for split, batch in bundle.splits.items():
        expected = (age[bundle.rows[split]] - train.mean()) / train.std()
        np.testing.assert_allclose(batch.x[:, column["age"]], expected, atol=1e-6)


def test_numbers_are_standardised_on_train_only():
    bundle = adult()
    np.testing.assert_allclose(bundle.train.x[:, :5].mean(0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(bundle.train.x[:, :5].std(0, dtype=np.float64), 1, atol=1e-6)
    assert (abs(bundle.test.x[:, :5].mean(0, dtype=np.float64)) > 1e-4).all()


def test_the_split_does_not_depend_on_the_groups_but_on_the_seed():
    one, other = adult(groups="age"), adult(groups=("education", "race"))
    np.testing.assert_array_equal(one.rows["test"], other.rows["test"])
    np.testing.assert_array_equal(one.train.x, other.train.x)
    assert not np.array_equal(adult(split_seed=1).rows["test"], one.rows["test"])


def test_age_and_education_bands(lines):
    bundle = adult(groups=("age", "education"), min_group_size=0)
    for i in range(0, len(bundle.test.y), 53):
        line = lines[bundle.rows["test"][i]]
        band, school = bundle.group_names[bundle.test.group[i]].split(", ")
        low, high = [*band.rstrip("+").split("-"), "99"][:2]
        assert int(low) <= int(line[0]) <= int(high)
        years = int(line[4])
        expected = ("no diploma", "high school", "some college", "degree")
        assert school == expected[(years >= 9) + (years >= 10) + (years >= 13)]


def test_excluded_attributes_leave_no_column():
    bundle = adult(exclude=("sex", "education"))
    assert bundle.train.x.shape[1] == 107 - 2 - 16 - 1
    assert not any(n.startswith(("sex", "education")) for n in bundle.feature_names)


def test_small_cells_are_merged_and_named_and_nobody_is_lost():
    whole, merged = (adult(groups=("race", "sex"), min_group_size=m) for m in (0, 200))
    small = {n: s for n, s in zip(whole.group_names, whole.group_sizes()["train"], strict=True) if s < 200}
    assert merged.merged == {"other": small}
    assert merged.group_names[-1] == "other"
    assert merged.group_sizes()["train"][-1] == sum(small.values())
    for split in PERCENT:
        assert merged.group_sizes()[split].sum() == len(merged.rows[split])
    assert adult(groups=("race", "sex")).merged == {}


def test_the_warning_is_polite_and_shown_once_per_process():
    code = (
        "import warnings\nfrom jaxfair import data\n"
        "for _ in range(3):\n    data.load('adult')\n"
        "    with warnings.catch_warnings():\n        warnings.simplefilter('always')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("Retiring Adult") == 1


def test_the_warning_does_not_depend_on_what_ran_before():
    for _ in range(2):
        adult()
        with pytest.warns(data.DataWarning, match="1994"):
            data.load("adult")


def test_only_adult_itself_is_needed_to_load_it():
    code = (
        "import sys, warnings\nwarnings.simplefilter('ignore')\nfrom jaxfair import data\n"
        "data.load('adult')\n"
        "heavy = {'tensorflow_datasets', 'grain', 'sklearn', 'pyarrow', 'PIL', 'flax', 'pandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(data.DataError, match=r"digits needs sklearn.*pip install 'jaxfair\[data\]'"):
        data.load("digits")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("adlut", {}, ["'adlut'", "'adult'", "cifar10"]),
        ("adult", {"groups": "religion"}, ["'religion'", "race", "sex"]),
        ("adult", {"groups": ("sex", "sex")}, ["twice"]),
        ("adult", {"groups": ()}, ["at least one"]),
        ("adult", {"group": "sex"}, ["'group'", "groups", "exclude"]),
        ("adult", {"exclude": "gender"}, ["'gender'", "sex"]),
        ("adult", {"unconstrained": "Women"}, ["'Women'", "Female, >50K"]),
        ("adult", {"split_seed": -1}, ["-1", "0 or more"]),
        ("adult", {"groups": ("race", "sex", "age", "education", "label"), "min_group_size": 0},
         ["no example in the training split", "min_group_size"]),
    ],
)  # fmt: skip
def test_errors_are_one_line_that_says_what_to_do(name, options, words):
    with pytest.raises(data.DataError) as caught:
        data.load(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_unconstrained_groups():
    bundle = adult(unconstrained=("Male, <=50K", "Male, >50K"))
    assert bundle.constrained.tolist() == [True, True, False, False]


def test_digits_are_the_ones_of_scikit_learn():
    from sklearn.datasets import load_digits

    bundle, raw = data.load("digits"), load_digits()
    assert sorted(np.concatenate(list(bundle.rows.values()))) == list(range(1797))
    for split, batch in bundle.splits.items():
        np.testing.assert_array_equal(batch.x[..., 0] * 16, raw.images[bundle.rows[split]])
        np.testing.assert_array_equal(batch.y, raw.target[bundle.rows[split]])
        np.testing.assert_array_equal(batch.group, batch.y)
        assert batch.x.min() == 0
        assert batch.x.max() == 1


def test_apportion_sums_up_and_stays_within_one():
    for total in range(300):
        parts = apportion(total, (70, 10, 20))
        assert sum(parts) == total
        assert all(abs(p * 100 - total * q) < 100 for p, q in zip(parts, (70, 10, 20), strict=True))


def test_stratified_is_a_partition_for_any_strata():
    strata = np.random.default_rng(0).integers(0, 40, 500)
    for seed in range(5):
        parts = stratified(strata, seed=seed)
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(500))
    assert [len(p) for p in stratified(np.zeros(0, int), seed=0)] == [0, 0, 0]
    # A single person of a kind is a person to learn from.
    assert [len(p) for p in stratified(np.array([3]), seed=0)] == [1, 0, 0]


def test_cells_tell_rows_apart_exactly_by_their_values():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 7, 200), rng.integers(0, 3, 200)
    cell = cells(a, b)
    same = (a[:, None] == a) & (b[:, None] == b)
    np.testing.assert_array_equal(cell[:, None] == cell, same)


def test_a_group_that_is_called_other_takes_the_small_ones_in():
    kind = grouping.Attribute(np.array([0, 0, 0, 1, 2]), ("many", "few", "other"))
    found = grouping.intersect({"train": [kind]}, min_group_size=2)
    assert found.names == ("many", "other")
    assert found.merged == {"other": {"few": 1, "other": 1}}


def test_it_says_what_was_read_and_which_class_is_the_good_outcome(recwarn):
    adult = data.load("adult", exclude=("education", "fnlwgt"))
    assert adult.class_names[adult.positive] == ">50K"
    assert data.load("adult", positive="<=50K").positive == 0
    assert adult.read[0].startswith("features: age, capital-gain")
    assert "(11 of 14 columns" in adult.read[0]
    assert adult.read[1] == "dropped: fnlwgt (sampling weight), education (excluded), education-num (excluded)"
