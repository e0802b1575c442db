"""People to look at: who they are, and a gallery of them in a browser, whatever they are called.

The tests in a browser drive the system's Chromium by playwright. Without one of the two they are left out, and the end
of the run says so in a line (``tests/conftest.py``).
"""

import base64
import collections
import csv
import dataclasses
import functools
import hashlib
import html
import importlib.util
import io
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from jaxfair import audit, files, report
from jaxfair.audit._exemplars import CARDS, Exemplar, Seen, chosen, commonest, pictures
from jaxfair.audit._looked_at import read_marks, section, seen
from jaxfair.report.gallery import BUDGET, png, shrunk

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [
    *([] if CHROMIUM else ["Chromium is not installed (apt install chromium)"]),
    *([] if importlib.util.find_spec("playwright") else ["playwright is not installed (pip install playwright)"]),
]
in_browser = pytest.mark.skipif(bool(MISSING), reason=f"nothing was tried in a browser: {' and '.join(MISSING)}")

#: Names that would run, break out, turn or end something if they were taken for more than text.
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "' onfocus='window.hacked = 1' autofocus='",
    "javascript:window.hacked = 1",
    "\u202eevil\u2066",
    "nul\x00l, \x1b[31m\n\u2028line",
    "<!-- <![CDATA[ ]]>",
    "${window.hacked = 1}{{ 7 * 7 }}",
    '=HYPERLINK("https://example.com")',
    "-2+3",
    "__proto__",
    "https://example.com/<a href=https://example.com>",
    "&lt;b&gt; null",
)
KINDS = ("newly wrong", "newly right", "wrong both times")


def card(i: int) -> report.Card:
    """Some cards have pictures, some values; every name is hostile."""
    name = HOSTILE[i % len(HOSTILE)]
    return report.Card(
        row=i if i >= len(HOSTILE) else name, group=name, label=f"class {i % 3}", before=f"class {i % 3}",
        after=HOSTILE[(i + 1) % len(HOSTILE)], kind=KINDS[i % 3], score=(i % 10 + 1) / 10,
        image=np.full((8, 8, 3), i % 256, np.uint8) if i % 2 else None, values={name: name, "age": 20 + i},
    )  # fmt: skip


def gallery(count: int = 40) -> report.Gallery:
    return report.Gallery(cards=[card(i) for i in range(count)], caption=f"People {HOSTILE[0]}", note=HOSTILE[1])


def table() -> report.Table:
    verdicts = ("holds", "violated", "cannot tell")
    rows = [
        ["b10", report.Verdict(state=verdicts[0]), "1,234", "1.2 ± 0.3", "9.5 %", "0.001", "+0.5 to +2"],
        ["b9", report.Verdict(state=verdicts[1]), "99", "-3.0 ± 0.1", "98 %", "< 0.001", "-1 to +4"],
        ["</script>", report.Verdict(state=verdicts[2]), "–", "–", "100 %", "0.5", "–"],
        ["a", report.Verdict(state=verdicts[1]), "612 (61.2 %)", "10 ± 1", "7 %", "–", "-10 to 0"],
    ]
    columns = ["group", "verdict", "people", "gap", "share", "p", "interval"]
    return report.Table(columns=columns, rows=rows, caption="Gaps.")


@functools.cache
def page() -> str:
    one = report.Section(title=HOSTILE[0], blocks=[gallery(), table()])
    return report.render(report.Page(title=HOSTILE[1], summary=[HOSTILE[2]], sections=[one]))


# --- who is to be looked at ---


def modes(votes):
    count = collections.Counter(votes)
    return {c for c, n in count.items() if n == max(count.values())}


def voted(before, after):
    """The classes of one person, by counting: what both sides share, else the smallest; missing ones last."""
    first, then = modes(before), modes(after)
    last = lambda c: c if c >= 0 else 99
    shared = first & then
    return tuple(min(shared or side, key=last) for side in (first, then))


def test_the_commonest_class_is_that_of_counting():
    rng = np.random.default_rng(0)
    for seeds in (1, 2, 5, 30):
        before, after = rng.integers(-1, 4, (2, seeds, 300))
        found = np.stack(commonest(before, after), axis=1)
        expected = [voted(before[:, i].tolist(), after[:, i].tolist()) for i in range(300)]
        np.testing.assert_array_equal(found, expected)


@functools.cache
def compared(seeds: int = 5) -> audit.Comparison:
    """Three classes; names that are hostile, and people whose group nobody knows."""
    rng = np.random.default_rng(1)
    num = 600
    y, group = rng.integers(0, 3, num), rng.choice(np.array([*HOSTILE[:3], ""], object), num)
    before = np.where(rng.random((seeds, num)) < 0.2, (y + 1) % 3, y)
    after = np.where(rng.random((seeds, num)) < 0.3, rng.integers(-1, 3, (seeds, num)), before)
    rows = [f"{HOSTILE[9]} {i}" if i % 2 else str(i) for i in range(num)]
    return audit.compare(before, {"x": before, HOSTILE[0]: after}, y, group, class_names=list("abc"), rows=rows)


@pytest.mark.parametrize("seeds", [1, 4, 5])
def test_people_are_those_whose_commonest_class_changed(seeds):
    one = compared(seeds)
    found, name = one.found, files.visible(HOSTILE[0])
    first, then = found.before.labels["test"], found.after[name].labels["test"]
    y, people = found.people["test"].y, {person.place: person for person in one.people()}
    assert [*people] == [person.place for person in one.people(name)]
    assert one.people("x") == []
    classes = [*found.class_names, "–"]
    for i in range(len(y)):
        top, now = voted(first[:, i].tolist(), then[:, i].tolist())
        assert (i in people) == (top != now)
        if top != now:
            person = people[i]
            assert (person.before, person.after) == (classes[top], classes[now])
            assert person.score == pytest.approx((then[:, i] != top).mean())
            assert person.agreed == pytest.approx((first[:, i] == top).mean())
            kind = 0 if top == y[i] else 1 if now == y[i] else 2
            assert person.kind == KINDS[kind]
    order = [(person.kind != KINDS[0], -person.score, person.place) for person in people.values()]
    assert order == sorted(order)
    assert {person.kind for person in people.values()} == set(KINDS)


def test_cards_are_the_largest_scores_and_groups_take_turns():
    def of(i, group, score, kind=KINDS[0]):
        return Exemplar(i, group, "a", "a", "b", kind, score, 1.0, i)

    many = [of(i, "large", 1.0) for i in range(500)] + [of(500 + i, "small", 1.0) for i in range(20)]
    many += [of(520 + i, "large", 1.0, KINDS[1]) for i in range(40)] + [of(560 + i, "small", 0.9) for i in range(40)]
    some = chosen(many, {"599": "fine"})
    count = collections.Counter((one.group, one.kind, one.score) for one in some)
    assert len(some) == CARDS
    assert count == {
        ("large", KINDS[0], 1.0): 239,
        ("small", KINDS[0], 1.0): 20,
        ("large", KINDS[1], 1.0): 40,
        ("small", KINDS[0], 0.9): 1,  # the one who was marked
    }
    assert [one.row for one in some] == sorted(one.row for one in some)


def test_what_is_shown_is_one_for_each_person():
    found = compared().found
    with pytest.raises(ValueError, match=r"^images has 5 and test has 600 people: give one for each"):
        seen(found, images=np.zeros((5, 8, 8)))
    with pytest.raises(ValueError, match=r"^a\\nge has 5 and test has 600 people"):
        seen(found, table={"a\nge": np.zeros(5)})
    with pytest.raises(ValueError, match=r"^age has one value and test has 600 people"):
        seen(found, table={"age": 5})
    with pytest.raises(ValueError, match=r"images has shape \(600, 8\): give \[N, H, W\]"):
        seen(found, images=np.zeros((600, 8)))
    with pytest.raises(ValueError, match=r"^table is list: give a mapping"):
        seen(found, table=[1, 2])


def test_a_frame_is_a_table_and_a_card_has_its_first_columns():
    frame = pd.DataFrame({f"column {i}": np.arange(600) / 7 for i in range(30)} | {"said": ["word " * 500] * 600})
    found = compared().found
    (made,) = section(found, seen(found, table=frame[["said", *frame.columns[:30]]]))
    one = made.blocks[-1].cards[0]
    place = found.people["test"].rows.tolist().index(one.row)
    assert [*one.values] == ["said", *frame.columns[:23]]
    assert one.values["column 3"] == f"{place / 7:.6g}"
    assert 590 < len(one.values["said"]) <= 600
    assert made.blocks[-1].note == "Of 31 columns the first 24 are shown."


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_pictures_have_their_channels_last_and_their_range(dtype):
    rng = np.random.default_rng(0)
    images = rng.random((7, 6, 5, 3)) < 0.5 if dtype is bool else (255 * rng.random((7, 6, 5, 3))).astype(dtype)
    last, first = pictures(images, [2, 5]), pictures(np.moveaxis(images, 3, 1), [2, 5])
    np.testing.assert_array_equal(last, first)
    expected = images[[2, 5]].astype(float)
    expected = 255 * expected if dtype is bool else 255 * expected / (255 if dtype is np.uint8 else images.max())
    np.testing.assert_array_equal(last, np.round(expected))
    damaged = np.where(np.arange(6)[:, None, None] == 1, np.nan, images.astype(np.float32) - 1)
    assert pictures(damaged, [0])[0].dtype == np.uint8


def test_a_picture_is_a_png_that_others_read():
    image_lib = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for shape in ((5, 9), (5, 9, 1), (5, 9, 3), (5, 9, 4), (1, 1)):
        image = rng.integers(0, 256, shape).astype(np.uint8)
        read = np.asarray(image_lib.open(io.BytesIO(png(image))))
        np.testing.assert_array_equal(read, image.squeeze(2) if shape[2:] == (1,) else image)
    with pytest.raises(ValueError, match=r"a picture has shape \(5, 9, 2\)"):
        png(np.zeros((5, 9, 2), np.uint8))


def test_shrinking_is_the_mean_of_squares():
    image = np.random.default_rng(0).integers(0, 256, (11, 6, 3)).astype(np.uint8)
    small = shrunk(image, 4)
    assert small.shape == (4, 2, 3)
    for i, j in np.ndindex(4, 2):
        square = image[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].reshape(-1, 3)
        np.testing.assert_array_equal(small[i, j], np.round(square.mean(0)))


@pytest.mark.slow
def test_a_page_of_300_photographs_is_small():
    """Noise, which no compression helps."""
    rng = np.random.default_rng(0)
    made = [card(i) for i in range(CARDS)]
    photographs = [rng.integers(0, 256, (128, 128, 3)).astype(np.uint8) for _ in made]
    cards = [dataclasses.replace(one, image=image) for one, image in zip(made, photographs, strict=True)]
    block = report.Gallery(cards=cards, caption="Noise.")
    assert sum(len(one) for one in block.pictures) < 1.4 * BUDGET
    one = report.Page(title="a", summary=[], sections=[report.Section(title="b", blocks=[block])])
    assert len(report.render(one)) < 5_000_000


# --- marks come back ---


def written(tmp_path, text: str):
    path = tmp_path / "marks.csv"
    path.write_bytes(text.encode())
    return path


def test_marks_are_counted_by_group_and_kind_and_stand_on_the_cards(tmp_path):
    one = compared()
    marked, same = one.people()[0], next(iter(set(range(600)) - {person.place for person in one.people()}))
    other = one.found.people["test"].rows[same]
    lines = [["row", "mark"], [marked.row, "harmed"], [other, "fine"], [one.people()[1].row, ""]]
    file = io.StringIO()
    csv.writer(file).writerows(lines)
    marks = read_marks(written(tmp_path, file.getvalue()), one.found)
    assert marks == {marked.row: "harmed", other: "fine"}
    (made,) = section(one.found, Seen(marks=marks))
    _, said, shown = made.blocks
    assert {c.row: c.mark for c in shown.cards if c.mark} == {marked.row: "harmed"}
    assert [row[1:] for row in said.rows] == [
        ["newly wrong", 0, 0, 0, 0, 1],
        ["not changed", 0, 0, 0, 1, 0],
    ]
    assert said.note == "In all 1 fine, 1 harmed. Not changed: marked once, and predicted now as before."
    assert said.rows[0][0] == report.shorten(marked.group, 80)


def test_a_spreadsheet_may_have_been_between(tmp_path):
    """A byte-order mark, semicolons, an apostrophe before what would be a formula, other columns."""
    one = compared()
    row = one.found.people["test"].rows[1]
    assert row.startswith("=")
    quoted = "\"'" + row.replace('"', '""') + '"'
    path = written(tmp_path, f"\ufeffgroup;mark;row\r\n{HOSTILE[0]};fine;{quoted}\r\n;;\r\nx;;no such row\r\n")
    assert read_marks(path, one.found) == {row: "fine"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("row,marks\n0,fine\n", "line 1: no column 'mark'"),
        ("", "line 1: no column 'row'"),
        (
            "row,mark\n0,fine\n2,nice\n",
            "line 3: mark 'nice': choose from mislabelled, ambiguous, ",
        ),
        ("row,mark\n600,fine\n", "line 2: row '600' is nobody of test: remove that line."),
        ("row,mark\n0,fine\n0,harmed\n", "line 3: row '0' has the mark 'fine' as well: keep one."),
        ("row,mark\n0,\x1b]\n", r"line 2: mark '\\x1b]'"),
        ("row,mark\n0\n\xff,fine\n", "line 3: row 'ÿ' is nobody"),
    ],
)
def test_marks_that_do_not_fit_are_one_line(tmp_path, text, words):
    with pytest.raises(ValueError, match=re.escape(words).replace(r"\\\\", r"\\+")) as error:
        read_marks(written(tmp_path, text), compared().found)
    assert "marks.csv, line" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_does_not_fit_leaves_no_half_written_report(tmp_path):
    one, folder = compared(), tmp_path / "report"
    with pytest.raises(ValueError, match="mark 'nice'"):
        one.write(folder, marks=written(tmp_path, "row,mark\n0,nice\n"))
    with pytest.raises(ValueError, match="images has 5"):
        one.write(folder, images=np.zeros((5, 8, 8)))
    assert not folder.exists()


@pytest.mark.slow
def test_the_page_of_an_audit_has_the_gallery_and_the_file_all_of_it(tmp_path):
    one = compared()
    images = np.random.default_rng(0).random((600, 4, 4))
    person = one.people()[3]
    path = one.write(tmp_path, images=images, marks=written(tmp_path, f"row,mark\n'{person.row},fine\n"))
    text = path.read_text()
    assert text.count("<article") == len(one.people())
    assert text.count("marked: fine") == 1
    assert "People to look at" in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "exemplars.csv").read_text(), newline="")))
    assert [row["row"] for row in rows] == [files.visible(p.row) for p in one.people()]
    assert [row["mark"] for row in rows] == ["fine" if p == person else "" for p in one.people()]
    assert read_marks(tmp_path / "exemplars.csv", one.found) == {files.visible(person.row): "fine"}


# --- the file of the page ---


def scripts(text: str) -> list[tuple[str, str]]:
    return re.findall(r"<script([^>]*)>(.*?)</script>", text, re.S)


def test_the_policy_names_our_script_and_no_other_may_run():
    (data_tag, data), (ours_tag, ours) = scripts(page())
    digest = base64.b64encode(hashlib.sha256(ours.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page())
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert "application/json" in data_tag
    assert "type" not in ours_tag
    assert not re.search("innerHTML|outerHTML|insertAdjacent|document.write|eval|Function|fetch|XMLHttp", ours)
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data)["cards"][0]["group"] == HOSTILE[0]
    assert not re.search("[\x00-\x08\x0b-\x1f\u200e\u200f\u2028-\u202e\u2066-\u2069]", page())


def test_a_page_without_a_gallery_or_sortable_tables_has_no_script():
    for blocks in ([], [table()]):
        plain = report.Page(title="a", summary=[], sections=[report.Section(title="b", blocks=blocks)])
        text = report.render(plain)
        assert scripts(text) == []
        assert "script-src" not in text
        assert ".cards" not in text
        text = report.render(dataclasses.replace(plain, sortable=True))
        assert len(scripts(text)) == 1
        assert text.count('class="sortable"') == len(blocks)


def test_equal_cards_keep_their_marks_and_others_have_their_own():
    assert gallery().id == gallery().id
    other = report.Gallery(cards=[card(i) for i in range(39)], caption="")
    last = dataclasses.replace(card(39), mark="fine")
    marked = report.Gallery(cards=[*gallery().cards[:-1], last], caption="")
    assert len({gallery().id, other.id, marked.id}) == 3


# --- in a browser ---


class Watched:
    """A page, and everything that it said, asked and opened."""

    def __init__(self, context, path):
        self.page = context.new_page()
        self.page.set_default_timeout(5000)
        self.seen = []
        self.page.on("console", lambda message: self.seen.append(message.text))
        self.page.on("pageerror", lambda error: self.seen.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.seen.append(dialog.message), dialog.dismiss()))
        asked = lambda request: request.url.startswith(("data:", "blob:")) or request.url == path.as_uri()
        self.page.on("request", lambda request: asked(request) or self.seen.append(request.url))
        self.page.on("popup", lambda popup: self.seen.append(popup.url))
        self.page.goto(path.as_uri())

    def shown(self):
        """The rows of the cards that are seen, in their order."""
        return self.page.locator(".card:visible .title strong").all_inner_texts()

    def says(self):
        return self.page.get_by_role("status").inner_text()

    def mark(self, i, name):
        self.page.locator(".card").nth(i).get_by_role("button", name=name).click()

    def saved(self):
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Save marks as CSV").click()
        assert download.value.suggested_filename == "marks.csv"
        return download.value.path().read_bytes().decode()

    def focused(self):
        return self.page.evaluate("document.activeElement.querySelector('.title strong')?.textContent")


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("page") / "report.html"
    found.write_text(page(), encoding="utf-8")
    return found


@pytest.fixture
def opened(chromium, path):
    """Opens the page in a browser that knows nothing yet; at the end nothing was said, asked or opened."""
    contexts, pages = [], []

    def open_(where=path, **settings):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings}))
        pages.append(Watched(contexts[-1], where))
        return pages[-1]

    yield open_
    said = [text for one in pages for text in one.seen]
    for context in contexts:
        context.close()
    assert said == []


def title(i: int) -> str:
    return f"row {files.visible(card(i).row)}"


@in_browser
def test_a_filter_shows_whoever_fits(opened):
    one = opened()
    assert one.shown() == [title(i) for i in range(24)]
    assert one.says() == "40 cards. 0 marked."
    one.page.get_by_role("button", name="Show 16 more of 16").click()
    assert one.shown() == [title(i) for i in range(40)]
    assert one.focused() == title(24)
    for i, name in enumerate(HOSTILE):
        one.page.get_by_label("group").select_option(label=files.visible(name))
        assert one.shown() == [title(j) for j in range(40) if j % len(HOSTILE) == i]
    one.page.get_by_label("group").select_option(label="all")
    one.page.get_by_label("true class").select_option(label="class 1")
    one.page.get_by_label("least score").fill("0.75")
    fits = [i for i in range(40) if i % 3 == 1 and card(i).score >= 0.75]
    assert one.shown() == [title(i) for i in fits]
    one.page.get_by_label("change").select_option(label="newly wrong")
    assert one.shown() == []
    assert one.says() == "0 of 40 cards fit the filter. 0 marked."
    one.page.get_by_label("change").select_option(label="newly right")
    assert one.says() == f"{len(fits)} of 40 cards fit the filter. 0 marked."


@in_browser
def test_cards_are_sorted_and_equal_ones_stay(opened):
    one = opened()
    scores = [card(i).score for i in range(40)]
    for label, sign in (("largest score", -1), ("smallest score", 1)):
        one.page.get_by_label("order").select_option(label=label)
        assert one.shown() == [title(i) for i in np.argsort(sign * np.array(scores), kind="stable")[:24]]
    one.mark(5, "fine")
    one.page.get_by_label("order").select_option(label="mark")
    assert one.shown()[0] != title(0)
    one.page.get_by_label("order").select_option(label="as listed")
    assert one.shown()[:3] == [title(i) for i in range(3)]


@in_browser
def test_marks_are_kept_counted_and_saved(opened, path, tmp_path):
    one = opened()
    one.mark(0, "harmed")
    one.mark(1, "fine")
    one.mark(2, "fine")
    one.mark(9, "atypical")
    one.mark(2, "fine")  # a second press takes it away
    counted = "40 cards. 3 marked: 1 atypical, 1 fine, 1 harmed."
    assert one.says() == counted
    one.page.reload()
    assert one.says() == counted
    pressed = one.page.locator('button[aria-pressed="true"]')
    assert pressed.all_inner_texts() == ["5 harmed", "4 fine", "3 atypical"]
    one.page.get_by_label("mark", exact=True).select_option(label="fine")
    assert one.shown() == [title(1)]
    rows = list(csv.reader(io.StringIO(one.saved())))
    assert rows[0] == ["row", "mark", "group", "label", "before", "after", "kind", "score"]
    assert [row[1] for row in rows[1:]] == ["harmed", "fine", "atypical"]
    assert [row[0] for row in rows[1:]] == [*map(files.visible, HOSTILE[:2]), "'" + HOSTILE[9]]
    assert [row[2] for row in rows[1:]] == [*map(files.visible, HOSTILE[:2]), "'" + HOSTILE[9]]
    assert [row[7] for row in rows[1:]] == ["0.1", "0.2", "1"]
    # Another report, in the same browser, has its own; so has another browser.
    other = tmp_path / "other.html"
    block = report.Gallery(cards=gallery(39).cards, caption="Others.")
    report.write_page(report.Page(title="", summary=[], sections=[report.Section(title="", blocks=[block])]), other)
    again = Watched(one.page.context, other)
    assert again.says() == "39 cards. 0 marked."
    assert again.seen == []
    assert opened().says() == "40 cards. 0 marked."
    one.page.get_by_label("mark", exact=True).select_option(label="any or none")
    twin = Watched(one.page.context, path)
    twin.mark(3, "ambiguous")
    one.page.get_by_text("1 ambiguous").wait_for()  # in the other window


@in_browser
def test_what_a_page_saves_is_what_the_next_audit_reads(opened, tmp_path):
    one = compared()
    first = report.Page(title="", summary=[], sections=section(one.found, Seen()))
    browser = opened(report.write_page(first, tmp_path / "first.html"))
    people = one.people()
    for i in (0, 1, 2):
        browser.mark(i, "mislabelled")
    saved = written(tmp_path, browser.saved())
    marks = read_marks(saved, one.found)
    assert marks == {files.visible(person.row): "mislabelled" for person in people[:3]}
    second = report.Page(title="", summary=[], sections=section(one.found, Seen(marks=marks)))
    again = opened(report.write_page(second, tmp_path / "second.html"))
    assert again.says().endswith("3 marked: 3 mislabelled.")
    again.mark(0, "mislabelled")
    again.page.reload()  # a mark that came with the page may be taken away
    assert again.says().endswith("2 marked: 2 mislabelled.")


@in_browser
def test_the_keyboard_reaches_everything(opened):
    one = opened()
    one.page.get_by_label("order").focus()
    one.page.keyboard.press("Tab")  # a button that can do nothing is no stop
    assert one.focused() == title(0)
    for key, i in (("ArrowRight", 1), ("End", 23), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1)):
        one.page.keyboard.press(key)
        assert one.focused() == title(i)
    columns = len(one.page.locator(".cards").evaluate("e => getComputedStyle(e).gridTemplateColumns").split())
    assert columns == 4
    one.page.keyboard.press("ArrowDown")
    assert one.focused() == title(1 + columns)
    one.page.keyboard.press("ArrowUp")
    assert one.focused() == title(1)
    one.page.keyboard.press("5")
    assert one.says() == "40 cards. 1 marked: 1 harmed."
    one.page.keyboard.press("2")
    assert one.says() == "40 cards. 1 marked: 1 ambiguous."
    for key in ("9", "x", "Control+1"):
        one.page.keyboard.press(key)
    assert one.says() == "40 cards. 1 marked: 1 ambiguous."
    one.page.keyboard.press("0")
    assert one.says() == "40 cards. 0 marked."
    one.page.keyboard.press("Tab")
    one.page.keyboard.press("Enter")  # the first button of this card
    assert one.says() == "40 cards. 1 marked: 1 mislabelled."
    for _ in range(5):
        one.page.keyboard.press("Tab")
    assert one.page.evaluate("document.activeElement.textContent") == "Show 16 more of 16"  # one card is a stop


@in_browser
def test_a_screen_reader_hears_what_is_there(opened):
    one = opened()
    assert one.page.get_by_role("article", name=f"{title(20)}, {files.visible(card(20).group)}").count() == 1
    assert one.page.get_by_role("list", name="People").get_by_role("listitem").count() == 24
    group = one.page.get_by_role("group", name=f"mark {title(0)}", exact=True)
    assert group.get_by_role("button").all_inner_texts() == [f"{i + 1} {m}" for i, m in enumerate(report.MARKS)]
    group.get_by_role("button", name="fine", exact=True).click()
    assert group.get_by_role("button", name="fine", pressed=True).count() == 1
    assert one.page.get_by_role("img", name=title(21), exact=True).count() == 1
    assert one.page.get_by_role("status").get_attribute("aria-live") == "polite"


@in_browser
def test_tables_are_sorted_by_what_they_say(opened):
    one = opened()
    orders = {  # once and twice; what is equal stays, and what is not known comes last
        "group": ("</script> a b9 b10", "b10 b9 a </script>"),
        "verdict": ("b9 a </script> b10", "b10 </script> b9 a"),  # worst first
        "people": ("b10 a b9 </script>", "b9 a b10 </script>"),
        "gap": ("a b10 b9 </script>", "b9 b10 a </script>"),
        "share": ("</script> b9 b10 a", "a b10 b9 </script>"),
        "p": ("</script> b10 b9 a", "b9 b10 </script> a"),
        "interval": ("b10 b9 a </script>", "a b9 b10 </script>"),
    }
    names = one.page.locator("table.sortable tbody th")
    for column, (once, twice) in orders.items():
        head = one.page.get_by_role("columnheader", name=column, exact=True)
        head.get_by_role("button").focus()
        one.page.keyboard.press("Enter")
        assert names.all_inner_texts() == once.split(), column
        first = "ascending" if column in ("group", "verdict") else "descending"
        assert head.get_attribute("aria-sort") == first
        assert one.page.locator("[aria-sort]").count() == 1
        head.get_by_role("button").click()
        assert names.all_inner_texts() == twice.split(), column
        head.get_by_role("button").click()
        assert names.all_inner_texts() == ["b10", "b9", "</script>", "a"]
        assert head.get_attribute("aria-sort") is None


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_does_not_scroll_sideways(opened, scheme):
    one = opened(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 400
    boxes = one.page.locator(".tools :not(option), .card:visible, .card:visible *").evaluate_all(
        "all => all.map((e) => e.getBoundingClientRect()).filter((box) => box.width).map((b) => [b.left, b.right])"
    )
    assert len(boxes) > 500
    assert min(left for left, _ in boxes) >= 0
    assert max(right for _, right in boxes) <= 400
    colors = one.page.locator(".card").first.evaluate(
        "e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
    )
    ink, paper = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
    assert (ink < paper) == (scheme == "light")


@in_browser
def test_on_paper_are_all_cards_and_marks_as_words(opened):
    one = opened()
    one.mark(1, "harmed")
    assert one.page.locator(".mark:visible").count() == 0  # on the screen the button says it
    one.page.emulate_media(media="print")
    assert one.shown() == [title(i) for i in range(40)]
    assert one.page.locator(".mark:visible").all_inner_texts() == ["marked: harmed"]
    assert one.page.locator(".gallery button:visible, .gallery select:visible, .gallery input:visible").count() == 0
    assert one.page.locator("noscript:visible").count() == 0
    assert len(one.page.pdf(format="A4")) > 10_000
    one.page.emulate_media(media="print", color_scheme="dark")
    paper = "getComputedStyle(document.documentElement).getPropertyValue('--good-tint')"
    assert one.page.evaluate(paper) == "#dff3ec"  # on paper it is never dark


@in_browser
def test_without_scripts_everything_is_read(opened):
    one = opened(java_script_enabled=False)
    assert one.shown() == [title(i) for i in range(40)]
    assert one.page.locator("button, select, input").count() == 0
    assert "need JavaScript" in one.page.locator("noscript").inner_text()


@in_browser
def test_where_nothing_is_kept_the_page_says_so(opened, path):
    """In a frame whose origin is nobody's, reading localStorage is an error."""
    around = path.with_name("around.html")
    around.write_text('<iframe sandbox="allow-scripts" src="report.html" width=1200 height=800></iframe>')
    one = opened(path)
    one.page.goto(around.as_uri())
    frame = one.page.frame_locator("iframe")
    frame.locator(".card").first.get_by_role("button", name="fine").click()
    assert frame.get_by_role("alert").inner_text().startswith("This browser keeps nothing for this page")
    assert frame.get_by_role("status").inner_text() == "40 cards. 1 marked: 1 fine."
    assert set(one.seen) <= {around.as_uri()}
    one.seen.clear()


@in_browser
def test_damaged_marks_in_the_browser_are_no_marks(opened):
    one = opened()
    key = one.page.evaluate("Object.keys(localStorage)[0]")
    for text in ("{", "null", '"x"', '{"0": "x", "999": 2, "__proto__": 3, "1": 77, "2": 4}', "[[1]]"):
        one.page.evaluate("([key, text]) => localStorage.setItem(key, text)", [key, text])
        one.page.reload()
        assert one.shown()[0] == title(0)
        assert one.says() == f"40 cards. {'1 marked: 1 fine' if '4' in text else '0 marked'}."


@in_browser
def test_names_are_text_and_run_nothing(opened):
    """All is pressed, chosen and saved; then the policy is tried: a script that is not ours does not run."""
    one = opened()
    titles = one.page.locator(".card .title").all_inner_texts()
    assert titles == [f"{title(i)}, {files.visible(card(i).group)}" for i in range(40)]
    for i in range(len(HOSTILE)):
        one.mark(i, report.MARKS[i % 5])
    choose = "one => { one.parentElement.value = one.value; one.parentElement.dispatchEvent(new Event('change')); }"
    options = one.page.locator("select option").evaluate_all(f"all => all.map({choose}).length")
    assert options > 30
    for select in one.page.locator("select").all():
        select.select_option(index=0)
    assert one.page.locator("table button").evaluate_all("all => all.map((one) => one.click()).length") == 7
    text = one.saved()
    assert not re.search(r'(^|,)"?[=@]', text)
    assert one.page.evaluate("window.hacked") is None
    assert one.page.title() == files.visible(HOSTILE[1])
    assert one.page.locator("iframe, object, embed, a[href^=javascript], [onerror], [onfocus]").count() == 0
    assert one.seen == []
    one.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 1'}))"
    )
    with one.page.expect_event("requestfailed") as failed:
        one.page.evaluate(
            "document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.com'}))"
        )
    assert failed.value.failure == "csp"
    assert one.page.evaluate("window.hacked") is None
    assert sum("Content Security Policy" in said for said in one.seen) == 2
    one.seen.clear()


@pytest.mark.slow
def test_escaped_names_stand_in_the_cards():
    """The same without a browser: what the file holds is text of ours."""
    for name in HOSTILE:
        assert html.escape(files.visible(name)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page()
