"""Tables, figures and the page: nothing of a user's text is ever markup, and equal results are equal files."""

import html.parser
import io
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pandas as pd
import pytest

from jaxfair import audit, metrics, report
from jaxfair.report import figures
from jaxfair.report.tables import NOTHING

EVIL = '<script>alert(1)</script> "x" \' & | $\\frac{1}{2}$ [red] `a` *b*'
METHODS = ["nft", "el", "ceag"]


def fake(groups, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"group {g}" for g in range(groups)]
    names[0] = EVIL
    size = rng.integers(30, 400, groups)
    psi = rng.normal(0, 0.03, groups)
    half = 1.0 / np.sqrt(size)
    return (
        names,
        size,
        {m: (psi / (i + 1), psi / (i + 1) - half, psi / (i + 1) + half) for i, m in enumerate(METHODS)},
    )


def seeds(count=5):
    rng = np.random.default_rng(1)
    return {m: (rng.random(count) * 0.04, 0.85 + rng.random(count) * 0.01) for m in METHODS}


def all_figures():
    names, size, results = fake(5)
    paths = np.random.default_rng(2).normal(0, 0.01, (20, 5))
    return {
        "tradeoff": figures.accuracy_against_gap({EVIL: seeds(), "test": seeds()}, tolerance=0.01),
        "frontier": figures.frontier(
            {EVIL: {m: [pair, pair] for m, pair in seeds().items()}},
            x="gap (points)",
            y=EVIL,
            bounds=[0.01],
            hollow=True,
        ),
        "pictures": figures.pictures({EVIL: np.ones((5, 3, 4)), "two\nlines": np.zeros((2, 3, 4))}),
        "groups": figures.gaps_by_group(names, size, results, tolerance=0.01),
        "trajectories": figures.trajectories(
            np.arange(20),
            {"nft": figures.Trajectory(paths), EVIL: figures.Trajectory(paths, np.abs(paths))},
            tolerance=0.01,
            pruning_end=8,
            names=names,
        ),
    }


# --- tables ---


def test_markdown_shows_text_as_it_is():
    text = report.markdown(pd.DataFrame({EVIL: [EVIL, "a\nb"]}))
    assert "<script" not in text
    assert len(text.splitlines()) == 4
    for line in text.splitlines():  # no cell may open another column
        assert line.replace("\\|", "").count("|") == 2


def test_the_csv_has_all_digits_and_the_markdown_is_for_reading(tmp_path):
    found = {method: metrics.t_interval(gap) for method, (gap, _) in seeds().items()}
    text = pd.DataFrame(
        {
            "method": list(found),
            "gap": [report.mean_and_half_width(f.mean, f.half_width) for f in found.values()],
        }
    )
    numbers = pd.DataFrame({"method": list(found), "gap": [float(f.mean) for f in found.values()]})
    md, csv = report.write_table(text, tmp_path, numbers=numbers)
    back = pd.read_csv(csv)
    pd.testing.assert_frame_equal(back, numbers)
    for name, (gap, _) in seeds().items():
        row = back[back["method"] == name].iloc[0]
        assert row["gap"] == pytest.approx(gap.mean(), rel=1e-12)
        words = f"| {100 * found[name].mean:.2f} ± {100 * found[name].half_width:.2f} |"
        assert words in md.read_text()


def test_one_seed_has_no_interval_and_a_failed_seed_shows():
    found = [metrics.t_interval(np.array(gaps)) for gaps in ([0.02], [0.02, np.nan])]
    text = [report.mean_and_half_width(f.mean, f.half_width) for f in found]
    assert text == ["2.00", NOTHING]


def test_the_terminal_shows_markup_as_text():
    import rich.console

    out = io.StringIO()
    console = rich.console.Console(file=out, width=200)
    report.print_table(pd.DataFrame({"group": ["[red]x[/red]"], "gap": [0.5]}), console=console)
    assert "[red]x[/red]" in out.getvalue()


# --- figures ---


@pytest.fixture(scope="module")
def drawn():
    return all_figures()


def test_figures_are_valid_svg_without_anything_that_runs(drawn):
    for name, figure in drawn.items():
        root = ET.fromstring(figures.svg(figure))
        tags = {element.tag.split("}")[-1] for element in root.iter()}
        assert not tags & {"script", "foreignObject", "a"}, name
        assert b"<script" not in figures.svg(figure)


@pytest.mark.slow
def test_equal_results_give_equal_files(drawn, tmp_path):
    again = all_figures()
    for name, figure in drawn.items():
        first = figures.save(figure, tmp_path / "a", name, formats=("svg", "png", "pdf"))
        second = figures.save(again[name], tmp_path / "b", name, formats=("svg", "png", "pdf"))
        for kind, path in first.items():
            assert path.read_bytes() == second[kind].read_bytes(), (name, kind)


def test_every_letter_is_large_enough_for_print(drawn):
    import matplotlib.text

    for name, figure in drawn.items():
        for text in figure.findobj(matplotlib.text.Text):
            assert text.get_fontsize() >= 8 or not text.get_text(), (name, text.get_text())


def test_axes_say_what_they_show_and_in_which_unit(drawn):
    for name, figure in drawn.items():
        if name == "pictures":  # which have no axes
            continue
        labels = " ".join(a.get_xlabel() + a.get_ylabel() for a in figure.axes)
        assert "(points)" in labels or "(%)" in labels


def test_many_groups_become_the_worst_twenty_and_the_title_says_so():
    names, size, results = fake(100)
    axes = figures.gaps_by_group(names, size, results, tolerance=0.01, by="ceag").axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    worst = np.argsort(-results["ceag"][0])[:20]
    assert [s.split(" (")[0] for s in shown] == [figures.groups.shorten(names[g]) for g in worst]
    assert "20 groups, of 100" in axes.get_title(loc="left")


def test_empty_groups_and_failed_seeds_are_left_out_openly():
    names, size, results = fake(4)
    results["nft"][0][2] = np.nan
    axes = figures.gaps_by_group(names, size, results, tolerance=0.01).axes[0]
    assert len(axes.get_yticklabels()) == 3
    some = seeds()
    some["el"][0][0] = np.nan
    figure = figures.accuracy_against_gap({"train": some})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["nft", "el (4 of 5 seeds)", "ceag"]


def test_a_method_looks_the_same_in_every_figure():
    names, size, results = fake(3)
    only = {"ceag": results["ceag"]}
    figure = figures.gaps_by_group(names, size, only, tolerance=0.01, methods=METHODS)
    assert figure.legends[0].legend_handles[0].get_color() == figures.looks(METHODS)["ceag"].color
    looks = figures.looks([str(i) for i in range(14)])
    assert len({(look.color, look.marker) for look in looks.values()}) == 14


def test_what_is_hardly_there_is_drawn_without_a_warning():
    figures.svg(figures.accuracy_against_gap({"train": seeds(1)}, tolerance=0.01))
    zero = np.zeros(1)
    figures.svg(figures.gaps_by_group(["a"], np.array([3]), {"x": (zero, zero, zero)}, tolerance=0.0))
    unknown = figures.Trajectory(np.full((5, 3), np.nan), np.zeros((5, 3)))
    figures.svg(figures.trajectories(np.arange(5), {"diverged": unknown}))


# --- the audit ---


def inference(groups=3):
    rng = np.random.default_rng(4)
    counts = np.stack([rng.multinomial(n, [0.02, 0.94, 0.04]) for n in (3000, 400, 50)][:groups])
    changes = metrics.Changes(np.array([-1.0, 0.0, 1.0]), np.vstack([counts, np.zeros((1, 3), int)]))
    return metrics.infer(changes, key=jax.random.key(0), resamples=500)


def test_the_group_frame_is_sorted_and_agrees_with_the_inference():
    found, names = inference(), ["a", "b", EVIL, "nobody"]
    frame = audit.group_frame(names, found, bound=0.01)
    assert set(frame["group"]) == set(names)
    nobody = frame.iloc[-1]
    assert (nobody["group"], nobody["people"], nobody["verdict"]) == ("nobody", 0, "cannot tell")
    frame = frame[:-1]
    assert frame["excess_gap"].is_monotonic_decreasing
    for row in frame.to_dict("records"):
        g = names.index(row["group"])
        assert (row["people"], row["low"], row["high"]) == (
            found.size[g],
            found.low[g],
            found.high[g],
        )
        assert row["verdict"] == metrics.verdict(found.low[g], found.high[g], 0.01)


@pytest.mark.parametrize(
    ("verdicts", "state", "words"),
    [
        (["holds", "holds"], "holds", "holds for all 2 groups"),
        (
            ["holds", "cannot tell"],
            "cannot tell",
            "holds for 1 of 2 groups and cannot be judged for 1 of 2: a (1 person",
        ),
        (["cannot tell"] * 2, "cannot tell", "cannot be judged for 2 of 2 groups"),
        (
            ["violated", "cannot tell"],
            "violated",
            "violated for 1 of 2 groups and cannot be judged for 1 of 2. Violated: a (1 person), ",
        ),
        (["holds"], "cannot tell", "a is the only group that has people, with nobody to compare it with: no verdict."),
        (["no bound", "no bound"], "cannot tell", "no group that has people has a bound"),
        (["no bound", "holds"], "holds", "holds for the 1 group. Nearest to it: a (1 person), "),
    ],
)
def test_the_verdict_claims_no_more_than_the_groups(verdicts, state, words):
    n = len(verdicts)
    frame = pd.DataFrame(
        {
            "group": ["a"] * n,
            "people": [1] * n,
            "excess_gap": 0.0,
            "low": 0.0,
            "high": 0.0,
            "verdict": verdicts,
        }
    )
    said = audit.say_verdicts(frame, method="nft", split="test", bound=0.01)
    assert said.state == state
    assert words in said.text


# --- the page ---


class Outline(html.parser.HTMLParser):
    """The tags of a page, its headings in order, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.open = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in {"meta", "img", "br", "hr"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(drawn):
    verdict = report.Verdict(state="violated", text=EVIL)
    frame = audit.group_frame([EVIL, "b", "c", "nobody"], inference(), bound=0.01)
    sections = [
        report.Section(
            title=EVIL,
            paragraphs=[EVIL],
            folded=folded,
            blocks=[
                audit.group_table(frame, caption=EVIL),
                report.Picture.from_figure(drawn["groups"], caption=EVIL, alt=EVIL),
                report.Picture(data=figures.png(drawn["groups"]), kind="png", caption="", alt=EVIL),
                report.Facts(items={EVIL: EVIL}, caption=EVIL),
                report.Points(items=[EVIL, verdict]),
            ],
        )
        for folded in (False, True, False)
    ]
    return report.render(
        report.Page(
            title=EVIL,
            subtitle=EVIL,
            summary=[EVIL],
            verdicts=[verdict],
            sections=sections,
            footer=EVIL,
        )
    )


def test_no_text_of_a_user_is_markup(page):
    outline = Outline(page)
    assert outline.open == []  # every tag is closed, in order
    assert "script" not in outline.tags
    assert not [a for a in outline.attributes if a[1].startswith("on")]
    assert sum(EVIL in text for text in outline.text) > 20
    assert {a[2] for a in outline.attributes if a[1] == "alt"} == {EVIL}


def test_the_page_fetches_nothing(page):
    outline = Outline(page)
    sources = [value for _, name, value in outline.attributes if name in {"src", "href"}]
    assert sources
    assert all(value.startswith(("data:image/", "#section-")) for value in sources)
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_can_be_heard(page):
    outline = Outline(page)
    assert outline.tags.count("h1") == 1
    headings = [tag for tag in outline.tags if tag in {"h1", "h2", "h3"}]
    assert headings == ["h1", "h2", "h2", "h2"]
    scopes = [a for a in outline.attributes if a[1] == "scope"]
    assert len(scopes) == outline.tags.count("th")
    assert ("html", "lang", "en") in outline.attributes
    assert {a[2] for a in outline.attributes if a[1] == "href"} == {
        "#" + a[2] for a in outline.attributes if a[1] == "id"
    }


def test_numbers_are_set_to_the_right_and_words_are_not():
    table = report.Table(
        columns=["name", "a", "b", "c", "d"],
        rows=[
            ["1", "1,200", "< 0.001", "1.2 ± 0.3", "together"],
            ["2", NOTHING, "0.5", "-1 to +4", "3"],
        ],
        caption="",
    )
    assert table.numeric == [False, True, True, True, False]


def test_equal_pages_are_equal_files(page, tmp_path):
    plain = report.Page(title="a", summary=["b"])
    first, second = (report.write_page(plain, tmp_path / n) for n in ("1.html", "2.html"))
    assert first.read_bytes() == second.read_bytes()
