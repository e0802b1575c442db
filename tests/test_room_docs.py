"""What the pages of rooms and of "coming from" show runs, their names exist, and every link leads somewhere."""

import contextlib
import importlib
import io
import pathlib
import pkgutil
import re
import types

import pytest

import jaxfair
from jaxfair import metrics
from jaxfair.constraints import rates

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
ROOMS = {
    "inverse": ("jaxfair.inverse", "jaxfair.inverse.diffusion"),
    "robust": ("jaxfair.robust",),
    "search": ("jaxfair.search",),
    "ship": (),
}
each = pytest.mark.parametrize("room", ROOMS)
#: Where a reader may come from. The example of JaxPruner's page is played in test_sparsity_docs.
FROM = sorted(path.stem for path in (DOCS / "coming_from").glob("*.md"))
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
FINDINGS = (DOCS / "findings" / "index.md").read_text()


def page(room):
    return (DOCS / f"{room}.md").read_text()


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@each
def test_the_examples_run_and_print_what_they_say(room, tmp_path, monkeypatch):
    """One after the other: the later ones go on with what the first has made."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for text in blocks(page(room)):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(text, names)
        for line in re.findall(r"print\(.*\)(?:  |\n)# (.*)$", text, re.MULTILINE):
            assert line in said.getvalue()


@each
def test_every_public_function_stands_on_the_page(room):
    for module in map(importlib.import_module, ROOMS[room]):
        for name in dir(module):
            if isinstance(getattr(module, name), types.FunctionType):
                assert re.search(rf"\b{name}\b", page(room)), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FROM if name != "jaxpruner"])
def test_one_of_theirs_runs_here_and_prints_what_it_says(name, capsys):
    (text,) = blocks(page(f"coming_from/{name}"))
    exec(text, {})
    said = re.findall(r"^# (.*)$", text, re.MULTILINE)
    assert said
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize("name", FROM)
def test_what_stands_beside_a_call_of_theirs_exists(name):
    """In the last column of the tables; `rates` may also be those of a confusion."""
    rooms = [*(found.name for found in pkgutil.iter_modules(jaxfair.__path__)), "rates", "penalties"]
    rows = re.findall(r"^\|.*\|(.*)\|$", page(f"coming_from/{name}"), re.MULTILINE)
    found = [pair for row in rows for pair in re.findall(rf"(?<![\w.])({'|'.join(rooms)})\.(\w+)", row)]
    assert len(found) > 5
    for room, of in found:
        if room in ("rates", "penalties"):
            where = rates if room == "rates" else importlib.import_module("jaxfair.constraints.penalties")
            assert hasattr(where, of) or (room == "rates" and of in metrics.ConfusionRates._fields), of
        else:
            assert hasattr(importlib.import_module(f"jaxfair.{room}"), of), (room, of)


def test_every_finding_has_a_verdict_and_a_command():
    rows = [line.strip("|").split("|") for line in FINDINGS.splitlines() if re.match(r"\|.*`\w+` \|$", line)]
    assert len(rows) > 50
    for claim, verdict, seen, command in rows:
        assert re.search(r"\*\*(holds|violated|cannot tell)\*\*", verdict), claim
        assert (ROOT / "experiments" / f"{command.strip(' `')}.py").exists(), command
        assert seen.strip(), claim


def heading(title):
    """What a heading is called in a link, as on GitHub."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_every_link_leads_somewhere(path):
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("https://"):
            continue
        file, _, at = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if at:
            assert at in {heading(title) for title in re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)}, link
