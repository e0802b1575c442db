"""The site: every public name has a page, links lead somewhere, signatures read as they were written."""

import doctest
import pathlib
import sys

import pytest
from test_public import NAMES

DOCS = pathlib.Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))
try:
    import build
    import links
    import mathml
    import reference
finally:
    sys.path.remove(str(DOCS))

PUBLIC = reference.names()


@pytest.mark.parametrize("module", [links, mathml, reference], ids=lambda module: module.__name__)
def test_the_examples_of_the_machinery_run(module):
    done = doctest.testmod(module)
    assert done.attempted
    assert not done.failed


def test_what_a_room_exports_is_what_has_a_page():
    """The tests of docstrings and the reference find the public names each in its own way."""
    mine = {(one.room, one.name) for one in PUBLIC}
    assert len(mine) == len(PUBLIC)
    assert {(module, name) for module, name, _ in NAMES} <= mine
    pages = [one.page.lower() for one in PUBLIC]
    assert len(set(pages)) == len(pages), "two pages are one file where capitals do not count"
    assert {f"{one.page}.rst" for one in PUBLIC} <= set(reference.pages(PUBLIC))


def test_the_check_of_the_reference_sees_what_is_missing():
    pages = {one.full: one.page for one in PUBLIC}
    found = [*pages.values(), "reference/index", "reference/tree/index", "index"]
    assert reference.gaps(PUBLIC, pages, found) == []
    gone = pages.pop("jaxfair.constraints.solver")
    (line,) = reference.gaps(PUBLIC, pages, found)
    assert line.startswith("jaxfair.constraints.solver has no page of its own")
    pages["jaxfair.constraints.solver"] = "reference/constraints/index"  # a line on another page is not its own
    assert len(reference.gaps(PUBLIC, pages, found)) == 1
    pages["jaxfair.constraints.solver"] = gone
    assert reference.gaps(PUBLIC, pages, [*found, "reference/tree/old"]) == [
        "reference/tree/old is a page of nothing that is public."
    ]
    bare = reference.Name("tree", "bare", 1.5, "jaxfair.tree")
    (line,) = reference.gaps([bare], {bare.full: bare.page}, [bare.page])
    assert "has no words" in line


def test_signatures_read_as_they_were_written():
    from jaxfair import constraints, metrics

    arguments, result = reference.signature("function", constraints.solver)
    assert "primal: optax.GradientTransformation | None=None" in arguments
    assert result == "Solver"
    assert reference.signature("class", metrics.Bounds) == ("(low: np.ndarray, high: np.ndarray)", None)
    assert reference.source_link(constraints.solver).split("#")[0].endswith("blob/main/jaxfair/constraints/solver.py")


def test_the_file_of_an_algorithm_tells_how_it_works_on_one_page():
    written = reference.pages(PUBLIC)
    assert "Both players are optax chains" in written["reference/constraints/solver.rst"]
    assert "Both players are optax chains" not in written["reference/constraints/Info-class.rst"]
    assert "~jaxfair.constraints.solver`" in written["reference/constraints/Info-class.rst"]


@pytest.fixture
def repository(tmp_path):
    for name in ("README.md", "docs/own.md", "docs/a.svg", "jaxfair/typing.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[t](../README.md#more)", "[t](index.md#more)"),
        ("[t](own.md), [u](#here)", "[t](own.md), [u](#here)"),
        ("[t](../jaxfair/typing.py)", f"[t]({links.REPOSITORY}/blob/main/jaxfair/typing.py)"),
        ("[t](../jaxfair)", f"[t]({links.REPOSITORY}/tree/main/jaxfair)"),
        ('<img src="a.svg">', '<img src="a.svg">'),
        ("[t](https://x.org)", "[t](https://x.org)"),
        ("`f[x](y)`", "`f[x](y)`"),
        ("```python\nf[x](y)\n```", "```python\nf[x](y)\n```"),
    ],
)
def test_links_of_a_guide_lead_to_pages_or_to_the_repository(repository, text, expected):
    pages = {"README.md": "index.md", "docs/own.md": "own.md"}
    assert links.rewritten(text, "docs/own.md", "own.md", pages, repository) == expected


def test_a_link_of_a_guide_to_nothing_is_an_error(repository):
    with pytest.raises(links.BrokenLink, match=r"docs/own.md: gone.md leads to docs/gone.md, which does not exist"):
        links.rewritten("[t](gone.md)", "docs/own.md", "own.md", {}, repository)


def test_every_link_of_the_repository_leads_somewhere_and_every_page_is_in_the_contents():
    pages = build.mapped()
    for file, page in pages.items():
        links.rewritten((build.ROOT / file).read_text(), file, page, pages)
    listed = build.contents(page.rpartition(".")[0] for page in pages.values())
    names = {page.rpartition(".")[0] for page in pages.values() if not page.startswith("gallery/")} - {"index"}
    assert {line.split("<")[-1].rstrip(">") for line in listed.splitlines()} >= names


@pytest.mark.parametrize(
    ("tag", "line"),
    [
        ('<a href="b.html#place">', None),
        ('<a href="b.html">', None),
        ('<a href="https://x.org">', None),
        ('<a href="#here">', None),
        ('<a href="gone.html">', "a.html: gone.html leads nowhere."),
        ('<a href="b.html#gone">', "a.html: b.html#gone leads nowhere."),
        ('<a href="#gone">', "a.html: #gone leads nowhere."),
        ('<img src="gone.svg">', "a.html: gone.svg leads nowhere."),
        ('<script src="https://x.org/a.js">', "a.html loads https://x.org/a.js from elsewhere."),
        ('<link rel="stylesheet" href="//x.org/a.css">', "a.html loads //x.org/a.css from elsewhere."),
    ],
)
def test_the_check_of_the_site_sees_a_broken_link(tmp_path, tag, line):
    (tmp_path / "a.html").write_text(f'<p id="here">{tag}')
    (tmp_path / "b.html").write_text('<p id="place">')
    assert links.broken(tmp_path) == ([line] if line else [])


def test_formulas_are_drawn_and_what_latex_does_not_know_warns(caplog):
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in mathml.drawn("x^2", "inline")
    assert not caplog.records
    mathml.drawn(r"\nosuchcommand x", "inline")
    assert "not known" in caplog.text
