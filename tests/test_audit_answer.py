"""The short answer and its verdicts: who is violated, who cannot be judged, and how many people that would take."""

import functools
import html
import re
import sys

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import balancing_act
from jaxfair import audit, data, files, metrics, report

pytestmark = pytest.mark.usefixtures("drawn_once")

# The package has a function of the module's name.
STYLE = sys.modules["jaxfair.report.figures.style"]
# What a user's file may have for a name.
NAMES = {
    "vertical tab": "a\x0bb",
    "escape": "a\x1b[31mred\x1b[0m",
    "nothing": "nul\x00",
    "newline": "two\nlines",
    "direction": "abc\u202efed",
    "half a pair": "a\ud800",
    "Chinese": "女性 高收入",
    "emoji": "😀 :smile:",
    "a letter of no font": "a\U0010fffd",
    "HTML": "<script>alert(1)</script> & \"q\"",
    "mathematics": r"$\frac{1}{2}$ x_y^2",
    "markup of a terminal": "[not stated]",
    "a closing tag": "[/red] [bold]",
    "Markdown": "a|b *c* `d`",
    "XML": "a--b]]>",
    "long word": "x" * 3000,
    "long": "one two " * 300,
    "sum": "=1+1",
}  # fmt: skip
#: What no text that is shown may have in it.
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def compared(lost, people=2000, groups=("big", "small"), share=(0.9, 0.1), seeds=2, **options):
    """Everybody was right; after it, of each group the share that ``lost`` says was not."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(len(groups)), (np.array(share) * people).astype(int))
    y = np.zeros(len(group), int)
    after = (rng.random((seeds, len(group))) < np.array(lost)[group]).astype(int)
    before = np.zeros_like(after)
    return audit.compare(before, {"pruned": after}, y, group, names=groups, **options)


# --- verdicts ---


def infer(counts):
    changes = metrics.Changes(np.array([-1.0, 0.0, 1.0]), np.array(counts))
    return metrics.infer(changes, key=jax.random.key(0), resamples=500)


def judged(counts, names="abc", bound=0.01, **options):
    frame = audit.group_frame(list(names)[: len(counts)], infer(counts), bound=bound, **options)
    return frame, audit.say_verdicts(frame, method="nft", split="test", bound=bound)


def test_a_group_of_nobody_does_not_vanish():
    frame, verdict = judged([[100, 29800, 100], [100, 29800, 100], [0, 0, 0]])
    assert verdict.state == "cannot tell"
    assert "holds for 2 of 3 groups and cannot be judged for 1 of 3: c (nobody; about " in str(verdict)
    assert frame.set_index("group").loc["c", "verdict"] == "cannot tell"
    table = audit.group_table(frame, caption="")
    assert [row[0] for row in table.rows] == ["a", "b", "c"]
    assert "nan" not in "".join(map(str, table.rows[-1]))


def test_one_group_alone_is_no_verdict():
    for counts in ([[5, 90, 5]], [[5, 90, 5], [0, 0, 0]]):
        frame, verdict = judged(counts)
        assert set(frame["verdict"]) == {"cannot tell"}
        assert verdict.state == "cannot tell"
        assert "a is the only group that has people, with nobody to compare it with: no verdict" in str(verdict)


def test_a_group_without_a_bound_is_not_violated():
    frame, verdict = judged([[20, 2960, 20], [5, 900, 95]], constrained=np.array([True, False]))
    assert frame.set_index("group").loc["b", "verdict"] == "no bound"
    assert verdict.state == "holds"
    assert "b" not in re.findall(r"\b\w\b", str(verdict).partition("1 group without a bound")[0])


def test_who_cannot_be_judged_is_named_and_not_the_one_that_holds():
    """A large group whose gap is the largest, and holds; a small one of which nobody can tell."""
    _, verdict = judged([[20, 2950, 30], [10, 80, 10]], names=["big", "small"])
    assert verdict.state == "cannot tell"
    assert "holds for 1 of 2 groups and cannot be judged for 1 of 2: small (100 people; about " in str(verdict)
    assert "big" not in str(verdict)


@pytest.mark.parametrize("counts", [[[20, 2950, 30], [10, 80, 10]], [[50, 2900, 50], [3, 494, 3], [0, 0, 0]]])
def test_with_as_many_people_as_are_needed_the_group_can_be_judged(counts):
    """Multiplied until it has them, at the same shares, no group is open that is at the average."""
    frame, _ = judged(counts)
    open_ = frame[(frame["verdict"] == "cannot tell") & (frame["people"] > 0)]
    assert len(open_)
    needed = float((open_["people_needed"] / open_["people"]).max())
    assert needed > 1
    times = int(np.ceil(1.15 * needed))  # normal quantiles in place of those of the bootstrap
    more, _ = judged((times * np.array(counts)).tolist())
    near = more[(more["people"] > 0) & (abs(more["excess_gap"]) < 0.004)]
    assert len(near)
    assert set(near["verdict"]) == {"holds"}
    fewer, _ = judged((max(times // 3, 1) * np.array(counts)).tolist())
    assert "cannot tell" in set(fewer["verdict"])


#: What a group of a few people looks like beside 3,000 others, of whom one in thirty changed.
FEW = [[0, 1, 0], [0, 20, 0], [1, 48, 1], [1, 148, 1], [3, 494, 3], [4, 60, 4], [0, 9, 1]]


@pytest.mark.parametrize("few", FEW, ids=str)
def test_a_handful_is_not_told_that_it_takes_far_more_than_it_does(few):
    """As many as are said to be needed are enough, and a fourth of them is not, at the share that changed.

    A handful cannot rule out that half of it was lost; the interval of more people shrinks faster than with the root
    of their number, which said 6,000 of twenty people of whom nobody changed, where 500 are enough.
    """
    rest, bound, size = [50, 2900, 50], 0.02, sum(few)
    frame, _ = judged([rest, few], bound=bound)
    row = frame.set_index("group").loc["b"]
    assert row["verdict"] == "cannot tell"
    changed = few[0] + few[2]
    share = (changed + 1) / (size + (3000 + size) / (100 + changed))

    def verdict_of(people):
        half = round(share * people / 2)
        frame, _ = judged([rest, [half, int(people) - 2 * half, half]], bound=bound)
        return frame.set_index("group").loc["b", "verdict"]

    assert verdict_of(1.25 * row["people_needed"]) == "holds"
    assert verdict_of(row["people_needed"] / 4) == "cannot tell"


def test_a_group_near_the_bound_would_take_more_people_than_it_has():
    frame, verdict = judged([[0, 19000, 0], [100, 19600, 300]], bound=0.005)
    row = frame.set_index("group").loc["b"]
    assert row["verdict"] == "cannot tell"
    assert row["smallest_visible_gap"] < 0.005
    assert row["people_needed"] > row["people"]
    assert "b (20,000 people; about " in str(verdict)


def test_a_bound_of_nothing_has_no_infinite_number_of_people():
    frame, verdict = judged([[20, 960, 20], [20, 960, 20]], bound=0.0)
    assert set(frame["verdict"]) == {"cannot tell"}
    assert "its gap lies at the bound" in str(verdict)
    assert "inf" not in str(verdict)


def test_many_groups_are_counted_and_three_are_named():
    counts = [[5, 80, 15]] * 30
    names = [f"group {i:02d}" for i in range(30)]
    frame = audit.group_frame(names, infer(counts), bound=0.01)
    said = str(audit.say_verdicts(frame, method="nft", split="test", bound=0.01))
    assert len(re.findall(r"group \d\d", said)) == 3
    assert "; and 27 more" in said


# --- the answer ---


def test_the_answer_is_the_numbers_of_the_tables():
    found = compared([0.005, 0.3], seeds=3, tolerance=0.02)
    short = found.answer({"before": "dense", "pruned": "pruned as usual"})
    dense, row = short.rows
    text, numbers = (found.shown()[0].frame, found.shown()[0].numbers)
    assert dense.words == "dense"
    assert (row.words, row.group) == ("pruned as usual", "small")
    assert row.accuracy == pytest.approx(numbers.set_index("method").loc["pruned", "accuracy"])
    frame = found.found.frames["pruned"][0].set_index("group")
    assert (row.gap, row.low, row.high) == tuple(frame.loc["small", ["excess_gap", "low", "high"]])
    assert f"met in {row.met} of {row.seeds}" == "met in 0 of 3"
    assert row.verdict.state == "violated"
    assert str(row.verdict).startswith("met in 0 of 3 seeds; the bound of 2 points is violated for 1 of 2 groups")
    assert f"pruned as usual: {row.verdict}" in str(short.verdicts()[0])
    assert "Violated: small (200 people), +" in str(row.verdict)
    assert text.columns[1] == "bound"


def test_by_default_it_is_about_what_the_details_show_and_labels_choose():
    rng = np.random.default_rng(0)
    y, group = np.zeros(900, int), np.arange(900) % 3
    of = {name: (rng.random(900) < 0.05).astype(int) for name in ("a", "b", "c")}
    assert [row.name for row in audit.compare(y, of, y, group).answer().rows] == ["before", "a", "c"]
    labels = {"c": "last", "a": "first", "before": "dense"}
    one = audit.compare(y, of, y, group, labels=labels)
    assert [(row.name, row.words) for row in one.answer().rows] == [("before", "dense"), ("c", "last"), ("a", "first")]
    assert [str(v).partition(":")[0] for v in one.answer().verdicts()] == ["last", "first"]


@pytest.mark.slow
def test_the_bound_may_be_on_what_a_group_itself_loses():
    """All lose five points: nobody more than the average, and everybody more than three."""
    options = {"lost": [0.05, 0.05], "people": 4000, "share": (0.5, 0.5), "tolerance": 0.03}
    excess, own = compared(**options), compared(**options, on_loss=["pruned"])
    assert [one.answer().rows[1].met for one in (excess, own)] == [2, 0]
    assert excess.met() == {"pruned": (2, 2)}
    assert "no group itself loses more than 3 points" in str(own.answer())
    assert own.shown()[0].frame["bound"].tolist()[-1] != excess.shown()[0].frame["bound"].tolist()


@pytest.mark.parametrize("on_loss", [[], ["after"]])
def test_met_is_what_it_is_in_training(on_loss):
    """Of ten people one is allowed, since no bound can be met to less than a person, and the page says so."""
    y, group = np.zeros(1010, int), np.repeat([0, 1], [1000, 10])
    after = np.stack([np.arange(1010) >= 1010 - lost for lost in (0, 1, 2)]).astype(int)
    found = audit.compare(np.zeros_like(after), after, y, group, tolerance=0.01, on_loss=on_loss)
    assert found.found.met("after").tolist() == [True, True, False]
    said = "A group of which one person is more than 1 point is allowed one person there."
    assert said in found.answer().where
    assert said in found.shown()[0].note
    large = audit.compare(np.zeros_like(after), after, y, group, tolerance=0.1, on_loss=on_loss)
    assert "one person" not in large.answer().where + large.shown()[0].note


def test_what_failed_and_what_is_inactive_is_said_once():
    y, group = np.zeros(3000, int), np.arange(3000) % 2
    after = audit.Variant({"test": np.zeros((5, 3000), int)}, np.array([True, True, True, True, False]))
    found = audit.compare(np.zeros((5, 3000), int), {"nft": after, "ceag": after}, y, group, naive="nft")
    said = str(found.answer())
    assert said.count("inactive") == 1
    assert "nft violates it in only 0 of 4 seeds, and 80 % of them would have to" in " ".join(said.split())
    assert "Training of nft failed in 1 of 5 seeds" in " ".join(said.split())
    assert not any("inactive" in text for text in found.shown()[0].frame["bound"])
    none = audit.compare(y, after._replace(labels={"test": after.labels["test"][:1]}, ok=np.zeros(1, bool)), y, group)
    assert "nothing to judge" in str(none.answer({"after": "pruned"}))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("width", [40, 80])
def test_every_line_fits_the_terminal(name, width):
    found = compared([0.005, 0.3], groups=("big", name), labels={"pruned": f"pruned {name}"})
    for line in found.answer().lines(width):
        assert report.text_columns(line) <= width or width < 80
        assert not UNSEEN.search(line)
        assert "\n" not in line
    assert max(map(report.text_columns, found.answer().lines())) <= 80


def test_the_answer_needs_neither_pandas_nor_rich_nor_matplotlib(monkeypatch):
    for module in ("pandas", "rich", "matplotlib", "jinja2"):
        monkeypatch.setitem(sys.modules, module, None)
    found = compared([0.005, 0.3])
    assert "Violated: small" in " ".join(str(found.answer()).split())
    assert "Violated: small" in str(found.verdicts[0])


# --- the page ---


@pytest.mark.slow
def test_the_page_leads_with_the_answer_in_people_too(tmp_path):
    found = compared([0.005, 0.3], labels={"before": "dense", "pruned": "pruned as usual"}, tolerance=0.02)
    page = found.write(tmp_path).read_text()
    text = html.unescape(re.sub(r"<[^>]+>", " ", page.partition("<body>")[2]))
    order = [text.index(words) for words in (
        "Does any group lose more accuracy", "pruned as usual: met in 0 of 2 seeds; the bound", "The answer in short.",
        "How many of a group", "Groups harmed most", "In points (percent of people)", "People in each group",
    )]  # fmt: skip
    assert order == sorted(order)
    frame = found.found.frames["pruned"][0].set_index("group")
    people = frame.loc["small"]
    assert (people["right_before"], people["people"]) == (200, 200)
    after = f"{people['right_after']:,.0f} ({people['right_after'] / 2:.1f} %)"
    assert f"of 200 people in small, the network was right about 200 (100.0 %) before and about {after} after" in (
        " ".join(text.split())
    )
    for heads in re.findall(r"<thead>(.*?)</thead>", page, re.DOTALL)[:2]:
        assert re.findall(r"<th[^>]*>(.*?)</th>", heads)[1] == "verdict"


@pytest.mark.slow
def test_every_figure_has_a_narrow_one(tmp_path):
    found = compared([0.005, 0.3])
    page = found.write(tmp_path).read_text()
    count = len(found.drawn())
    assert count == 3
    assert page.count('<source media="(max-width: 40rem)" srcset="data:image/svg+xml;base64,') == count
    for drawn in found.drawn():
        wide, narrow = drawn.figure.get_size_inches(), drawn.narrow.get_size_inches()
        assert narrow[0] == STYLE.NARROW < wide[0]
        assert (tmp_path / "figures" / f"{drawn.name}_narrow.svg").exists()


@pytest.mark.parametrize(
    "coded", [lambda a: a, lambda a: np.array(["repaid", "taken to court"])[a]], ids=["numbers", "words"]
)
@pytest.mark.slow
def test_without_a_good_outcome_no_class_is_taken_for_it(coded, tmp_path):
    """A table in which the first class is the good one, and women get it less often."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 3000), rng.choice(["men", "women"], 3000)
    after = np.where((group == "women") & (rng.random(3000) < 0.2), 1, y)
    silent = audit.compare(coded(y), coded(after), coded(y), group)
    page = silent.write(tmp_path / "silent").read_text()
    for words in ("TPR", "FPR", "selected"):
        assert words not in page
    good = coded(np.array([0]))[0]
    told = audit.compare(coded(y), coded(after), coded(y), group, positive=good)
    page = told.write(tmp_path / "told").read_text()
    name = str(good)
    assert f"selected as {name}" in page
    section = next(s for s in told.sections() if s.title == "Who is selected")
    (table,) = section.blocks
    rows = {row[0]: row for row in table.rows}
    assert rows["women"][1].state == "violated"
    counts = [(np.asarray(a)[group == "women"] == 0).sum() for a in (y, after)]
    share = [100 * c / (group == "women").sum() for c in counts]
    assert rows["women"][3:5] == [f"{c:,} ({s:.1f} %)" for c, s in zip(counts, share, strict=True)]
    lost = [(a[group == g] == 0).mean() for g in ("women",) for a in (y, after)]
    everybody = [(a == 0).mean() for a in (y, after)]
    expected = 100 * ((lost[0] - lost[1]) - (everybody[0] - everybody[1]))
    assert float(rows["women"][5]) == pytest.approx(expected, abs=0.006)
    with pytest.raises(ValueError, match="positive='nobody' is no class: choose from '"):
        audit.compare(coded(y), coded(after), coded(y), group, positive="nobody")


@pytest.mark.parametrize(
    ("positive", "place"), [(1, 0), (2, 1), ("2", 1), (np.int8(1), 0), (2.0, 1), (0, None), (3, None), (-1, None)]
)
def test_where_classes_are_called_by_numbers_a_number_is_no_place(positive, place):
    y = np.repeat([1, 2], 30)
    if place is None:
        with pytest.raises(ValueError, match=f"positive={positive} is no class: choose from '1', '2'"):
            audit.compare(y, y, y, y, positive=positive)
    else:
        assert audit.compare(y, y, y, y, positive=positive).found.positive == place


# --- names ---


@functools.cache
def everything():
    """An audit whose groups, classes and methods have all of these names."""
    rng = np.random.default_rng(0)
    num = 200 * len(NAMES)
    y, group = rng.integers(0, 2, num), rng.integers(0, len(NAMES), num)
    after = np.where(rng.random((2, num)) < 0.05, 1 - y, y)
    names = list(NAMES.values())
    return audit.compare(
        np.stack([y, y]), dict.fromkeys(names[:6], after), y, group, names=names, class_names=[names[0], names[1]],
        positive=names[1], focus=names[:2], labels={names[1]: names[2] + names[1]}, naive=names[0],
    )  # fmt: skip


@pytest.mark.slow
def test_names_are_text_in_every_file(tmp_path):
    """Warnings are errors here: a letter that the font lacks would be one."""
    everything().write(tmp_path)
    written = [path for path in tmp_path.rglob("*") if path.suffix in (".csv", ".md", ".svg", ".html")]
    assert len(written) > 20
    for path in written:
        assert not UNSEEN.search(path.read_text()), path
    page = (tmp_path / "report.html").read_text()
    run = re.findall(r"<script(.*?)>", page)  # the data of the gallery, and ours
    assert run == [' type="application/json"', ' id="page-script"']
    for name in ("[not stated]", "女性 高收入", r"a\x1b[31mred\x1b[0m", r"two\nlines", r"$\frac{1}{2}$ x_y^2"):
        assert html.escape(name, quote=False) in page
    (first, *_) = sorted((tmp_path / "groups").glob("*.csv"))
    assert set(pd.read_csv(first, keep_default_na=False)["group"]) == {files.visible(n) for n in NAMES.values()}


# Half a pair is nothing that a frame could hold.
@pytest.mark.parametrize("name", [name for kind, name in NAMES.items() if kind != "half a pair"])
def test_names_are_text_in_the_terminal(name, capsys):
    report.print_table(pd.DataFrame({"group": [name], name: [0.5]}), title=name)
    shown = capsys.readouterr().out
    assert not UNSEEN.search(shown)
    seen = files.visible(name)
    if report.text_columns(seen) < 40:
        assert shown.count(seen) == 3


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_what_is_drawn_is_short_and_can_be_drawn(name):
    drawn = STYLE.shorten(name, 30)
    assert len(drawn) <= 30
    assert STYLE.drawable(drawn) == drawn


def test_clean_names_stay_as_they_are():
    for name in ("Female, >50K", "Zürich", "東京", "a\\b", "", "naïve – 5 %"):
        assert files.visible(name) == name


# --- data sets ---


@pytest.mark.slow
def test_what_was_read_and_the_good_outcome_come_from_the_data_set(tmp_path):
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(600, 3)), rng.choice(["men", "women"], 600)
    mine = data.dataset(x, np.where(x[:, 0] > 0, "repaid", "defaults"), group)
    # The fields are the loader's; here they are as it would have set them.
    for name, value in {"read": ("dropped: name (text)",), "positive": mine.class_names.index("repaid")}.items():
        object.__setattr__(mine, name, value)
    right = {split: np.asarray(batch.y)[None] for split, batch in mine.splits.items()}
    one = audit.Variant(right, np.ones(1, bool))
    found = audit.compare(one, one, mine)
    page = found.write(tmp_path).read_text()
    assert "dropped: name (text)" in page.partition("The data</h2>")[2]
    assert "selected as repaid" in page
    other = audit.compare(one, one, mine, positive="defaults")
    assert other.found.class_names[other.found.positive] == "defaults"


def test_the_flag_names_the_good_outcome_to_whoever_reads_the_data(monkeypatch):
    def load(name, **options):
        raise data.DataError(f"asked for {options}")

    monkeypatch.setattr(balancing_act.data, "load", load)
    with pytest.raises(data.DataError, match="'positive': 'repaid'"):
        balancing_act.load(balancing_act.Config(data="my.npz", positive="repaid"))
    with pytest.raises(data.DataError, match=r"asked for \{\}"):
        balancing_act.load(balancing_act.Config(data="my.npz"))


def test_networks_that_name_one_class_are_of_no_use_and_it_is_said():
    """Nobody lost anything, every gap is 0, and yet there is nothing to ship."""
    y, group = np.arange(1000) % 5 // 4, np.arange(1000) % 2
    good = np.tile(y, (2, 1))
    found = audit.compare(good, {"one class": 0 * good, "fine": good}, y, group, tolerance=0.01)
    (said,) = found.remarks()
    assert said.startswith("Hardly better than one answer for everybody: one class. Whoever names the commonest class ")
    assert "is right about 80.00 % on test" in said
    assert " ".join(said.split()) in " ".join(str(found.answer()).split())
    assert (
        audit.compare(0 * good, {"fine": good}, y, group, tolerance=0.01)
        .remarks()[0]
        .startswith("Hardly better than one answer for everybody: before.")
    )
    assert audit.compare(good, {"fine": good}, y, group, tolerance=0.01).remarks() == []
    # Of a thousand people 820 may be chance, and 830 are not.
    for right, told in ((820, True), (830, False)):
        some = np.where(np.arange(1000) < 5 * (right - 800), y, 0)
        assert (some == y).sum() == right
        assert bool(audit.compare(good[:1], {"some": some}, y, group, tolerance=0.01).remarks()) == told


def test_one_person_is_a_person_and_half_of_one_is_not_nobody():
    y, group = np.arange(1001) % 2, (np.arange(1001) == 1000).astype(int)
    before = np.tile(y, (2, 1))
    before[0, -1] = 1 - y[-1]
    found = audit.compare(before, {"pruned": before}, y, group, names=["many", "one"], tolerance=0.01)
    text = str(found.answer()) + audit._sections._in_people(found.found)[0]
    assert "of 1 person in one, the network was right about 0.5 (50.0 %) before and about 0.5 (50.0 %) after" in text
    assert " 1 people" not in text.replace("\n", " ")


@pytest.mark.parametrize("narrow", [False, True])
def test_no_text_of_the_gaps_is_cut_off_beside_long_names(narrow):
    names = [f"a rather long name of a group of people, {i}" for i in range(24)]
    psi = np.linspace(0.02, -0.01, 24)
    figure = report.figures.gaps_by_group(
        names, np.full(24, 1234), {"pruned under the bound": (psi, psi - 0.5, psi + 0.5)}, tolerance=0.01, narrow=narrow
    )
    figure.draw_without_rendering()
    axes, room = figure.axes[0], figure.bbox
    for text in (axes.title, axes._left_title, axes.xaxis.label):
        box = text.get_window_extent()
        assert room.x0 <= box.x0, text.get_text()
        assert box.x1 <= room.x1, text.get_text()
