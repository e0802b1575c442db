"""Text that people call a table: each is read right, or one line says what to do."""

import numpy as np
import pytest

from jaxfair import data

N = 24


def text(row, head="a,y,group", sep=",", rows=N):
    """A header and the values that ``row(i)`` gives."""
    lines = [head.split(","), *(row(i) for i in range(rows))]
    return "\n".join(sep.join(map(str, line)) for line in lines) + "\n"


def plain(i):
    return f"{i}.5", i % 2, "ab"[i // 2 % 2]


PLAIN = text(plain)
SAME = {
    "as it is": PLAIN,
    "byte order mark": PLAIN.encode("utf-8-sig"),
    "UTF-16": PLAIN.encode("utf-16"),
    "new lines of another system": PLAIN.replace("\n", "\r\n"),
    "new lines of an old system": PLAIN.replace("\n", "\r"),
    "no new line at the end": PLAIN.rstrip(),
    "semicolons": text(plain, sep=";"),
    "semicolons and decimal commas": text(plain, sep=";").replace(".5", ",5"),
    "decimal commas in all columns": text(lambda i: [f"{i},5", f"{i % 2},0", "ab"[i // 2 % 2]], sep=";"),
    "a column of NaN": text(lambda i: [*plain(i), "NaN"], head="a,y,group,gone"),
    "a column of nan and nothing": text(lambda i: [*plain(i), ["Nan", ""][i % 2]], head="a,y,group,gone"),
    "tabs": text(plain, sep="\t"),
    "pipes": text(plain, sep="|"),
    "a spreadsheet's first line": "sep=;\n" + text(plain, sep=";"),
    "quotes": text(lambda i: [f'"{v}"' for v in plain(i)]),
    "spaces": text(lambda i: [f" {v} " for v in plain(i)], head=" a, y ,group "),
    "exponents": text(lambda i: [f"{i}5e-1", *plain(i)[1:]]),
    "signs": text(lambda i: [f"+{i}.5", *plain(i)[1:]]),
    "empty lines": "\n\n" + PLAIN.replace("\n", "\n\n") + " ,,\n,,\n",
    "an index without a name": text(lambda i: [i, *plain(i)], head=",a,y,group"),
    "an index as pandas names it": text(lambda i: [i, *plain(i)], head="Unnamed: 0,a,y,group"),
    "a separator at the end of lines": text(lambda i: [*plain(i), ""], head="a,y,group,"),
    "text beside": text(lambda i: [*plain(i), '"x, ""y""\nz"'], head="a,y,group,words"),
    "dates beside": text(lambda i: ["2020-01-01", *plain(i)], head="when,a,y,group"),
}


def load(tmp_path, content, **options):
    path = tmp_path / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return data.load(path, **options)


@pytest.mark.filterwarnings("ignore:.*a reaches:jaxfair.data.DataWarning")  # taken as it is
@pytest.mark.parametrize("name", SAME)
def test_the_same_table_is_read_however_it_is_written(tmp_path, name):
    mine = load(tmp_path, SAME[name], standardize=False)
    assert mine.feature_names == ("a",)
    assert mine.class_names == ("0", "1")
    assert mine.group_names == ("a", "b")
    for split, batch in mine.splits.items():
        rows = mine.rows[split]
        np.testing.assert_array_equal(batch.x[:, 0], rows + np.float32(0.5))
        assert batch.y.tolist() == (rows % 2).tolist()
        assert batch.group.tolist() == (rows // 2 % 2).tolist()


def first(value, other=lambda i: i):
    """A table whose first column is a number but in row 7."""
    return text(lambda i: [value if i == 7 else other(i), *plain(i)], head="f,a,y,group")


REFUSED = {
    "nothing": ("", ["is empty"]),
    "no rows": ("a,y,group\n", ["no rows"]),
    "no names": (text(plain, head="0.5,0,1"), ["no names of columns", "first line"]),
    "a name twice": (text(plain, head="y,y,group"), ["more than one column 'y'"]),
    "too few values": (PLAIN + "1,0\n", ["line 26 has 2 values and the header 3"]),
    "too many values": (PLAIN + "1,0,a,b\n", ["line 26 has 4 values and the header 3"]),
    "a quote that is not closed": (PLAIN + '"1,0,a\n' + PLAIN, ["quote"]),
    "a very long value": (PLAIN + "1,0," + "x" * 200_000 + "\n", ["field limit", "quote"]),
    "another encoding": (PLAIN.replace("b", "é").encode("latin-1"), ["UTF-8", "0xe9"]),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), ["UTF-8"]),
    "no class": (PLAIN.replace("y", "z"), ["no 'y', only a, z, group", "label="]),
    "no group": (PLAIN.replace("group", "sex"), ["no 'group', only a, y, sex", "groups="]),
    "a word in numbers": (first("?"), ["column 'f'", "'?' in row 7", "drop='f'"]),
    "many words in numbers": (first("?", lambda i: "?" if i % 5 == 0 else i), ["'?' in row 0, the first of 6"]),
    "a truth value in numbers": (first("True"), ["column 'f'", "'True'"]),
    "a missing number": (first("NA"), ["row 7, column 'f', is missing"]),
    "an infinite number": (first("inf"), ["row 7, column 'f', is infinite"]),
    "a number too large": (first("1e39"), ["row 7, column 'f', is 1e+39"]),
    "commas and points": (
        text(lambda i: [f"{i},5", *plain(i)], sep=";", head="f,a,y,group"),
        ["decimal comma in column 'f'", "point in 'a'"],
    ),
    "groups that are measured": (text(lambda i: [1, i % 2, i / 4]), ["group", "fractions (0.25 in row 1)"]),
    "groups with commas": (text(lambda i: [1, i % 2, f"{i},5"], sep=";"), ["group", "fractions (0.5 in row 0)"]),
    "groups without a zero": (text(lambda i: [1, i % 2, f".{i}"]), ["group", "fractions (0.1 in row 1)"]),
    "an infinite group": (text(lambda i: [1, i % 2, "-inf" if i == 7 else 1]), ["group", "infinite (-inf in row 7)"]),
    "an infinite class": (text(lambda i: [i, "inf" if i == 7 else 1, "a"]), ["y", "infinite (inf in row 7)"]),
    "minus infinity": (first("-inf"), ["row 7, column 'f', is infinite"]),
    "a word that is missing": (text(lambda i: [i, ["a", "NA"][i % 2], "x"]), ["y", "missing (as 'NA') in row 1"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_line(tmp_path, name):
    content, words = REFUSED[name]
    with pytest.raises(data.DataError) as caught:
        load(tmp_path, content)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ["mine.csv", *words]), message


@pytest.mark.parametrize("written", ['"1,{:03d}"', "{}%", "${}", '"{},5"', "1'{:03d}"])
def test_numbers_that_are_words_here_are_not_lost_in_silence(tmp_path, written):
    mine = load(tmp_path, text(lambda i: [written.format(i), *plain(i)], head="f,a,y,group"))
    assert mine.feature_names == ("a",)
    assert f"f (text: {written.format(0).strip(chr(34))!r} is no number here)" in mine.read[1]


@pytest.mark.parametrize("word", ["1_{}", "0x{}", "{}e", "--{}", "{}.5.1"])
def test_what_only_a_programmer_calls_a_number_is_text(tmp_path, word):
    mine = load(tmp_path, text(lambda i: [word.format(i), *plain(i)], head="f,a,y,group"))
    assert mine.feature_names == ("a",)


def test_words_among_few_numbers_are_text(tmp_path):
    mine = load(tmp_path, text(lambda i: [f"w{i}" if i % 3 else i, *plain(i)], head="f,a,y,group"))
    assert "dropped: f (text), group (a group); categorical= learns from words" in mine.read


def test_a_file_of_many_pieces_is_one_table(tmp_path, monkeypatch):
    whole = load(tmp_path, PLAIN)
    monkeypatch.setattr("jaxfair.data._csv._ROWS", 5)
    pieces = load(tmp_path, PLAIN)
    np.testing.assert_array_equal(whole.train.x, pieces.train.x)
    assert whole.read == pieces.read


def test_names_in_a_file_steer_no_terminal_and_break_no_line(tmp_path):
    mine = load(tmp_path, text(plain, head="a\x1b[31m\x0bb,y,group"))
    assert mine.read[0] == r"features: a\x1b[31m\x0bb (1 of 3 columns)"
    with pytest.raises(data.DataError) as caught:
        load(tmp_path, text(plain, head='"a\nb",z,group'))
    assert str(caught.value).isprintable()


def test_a_table_needs_no_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert load(tmp_path, PLAIN).feature_names == ("a",)


@pytest.mark.parametrize("more", [{"drop": "code"}, {"features": "a"}])
@pytest.mark.parametrize("odd", ["?", "1,5"], ids=["a word", "a decimal comma"])
def test_a_column_that_nobody_wants_may_hold_anything(tmp_path, odd, more):
    """As the error says that stands there otherwise."""
    path = tmp_path / "mine.csv"
    path.write_text(text(lambda i: (f"{i}.5", odd if i == 7 else i, *plain(i)[1:]), head="a,code,y,group", sep=";"))
    with pytest.raises(data.DataError, match="code"):
        data.load(path)
    assert data.load(path, **more).feature_names == ("a",)
