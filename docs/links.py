"""Links: out of a guide to a page of the site or to the repository; and whether those of the site lead anywhere."""

import functools
import html
import json
import os
import pathlib
import posixpath
import re
import urllib.parse
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parents[1]
REPOSITORY = "https://github.com/jaxfair/jaxfair"
#: The target of a link or of a picture, in Markdown and in the HTML within it.
TARGET = re.compile(r"""(?P<before>\]\(|\b(?:src|href)=\\?")(?P<target>[^)\s"\\]+)""")
CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
ELSEWHERE = ("http:", "https:", "mailto:", "data:", "#")
#: What lies beside the pages.
PICTURES = (".svg", ".png")


class BrokenLink(ValueError):
    """A link to what does not exist."""


def rewritten(text: str, file: str, page: str, pages: Mapping[str, str], root: pathlib.Path = ROOT) -> str:
    """A text of the repository as a page of the site: its links lead to pages, or to the repository.

    Args:
      text: Markdown, or a notebook.
      file: where it stands in the repository.
      page: where it stands in the site.
      pages: the page of each file of the repository that is one, both with their endings.
      root: of the repository.

    Raises:
      BrokenLink: for a link to what does not exist.

    Example:
      >>> pages = {"README.md": "index.md", "docs/own.md": "own.md"}
      >>> rewritten("[a](../README.md#more), [b](../Makefile)", "docs/own.md", "own.md", pages)
      '[a](index.md#more), [b](https://github.com/jaxfair/jaxfair/blob/main/Makefile)'
    """

    def new(match: re.Match[str]) -> str:
        return match["before"] + led(match["target"], file, page, pages, root)

    if file.endswith(".ipynb"):
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = rewritten("".join(cell["source"]), file.removesuffix(".ipynb"), page, pages, root)
        return json.dumps(notebook)
    parts = CODE.split(text)  # what is code stays
    return "".join(part if index % 2 else TARGET.sub(new, part) for index, part in enumerate(parts))


def led(target: str, file: str, page: str, pages: Mapping[str, str], root: pathlib.Path) -> str:
    """Where one link leads in the site."""
    if target.startswith(ELSEWHERE):
        return target
    path, mark, anchor = target.partition("#")
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
    if whole in pages:
        return os.path.relpath(pages[whole], posixpath.dirname(page) or ".") + mark + anchor
    if whole.startswith("..") or not (root / whole).exists():
        raise BrokenLink(f"{file}: {target} leads to {whole}, which does not exist.")
    if whole.startswith("docs/") and whole.endswith(PICTURES):
        return os.path.relpath(whole.removeprefix("docs/"), posixpath.dirname(page) or ".")
    return f"{REPOSITORY}/{'tree' if (root / whole).is_dir() else 'blob'}/main/{whole}{mark}{anchor}"


#: A tag and its attributes; Sphinx writes quotes, and escapes what is in them. Its parser takes a minute for a site.
TAG = re.compile(r"<([a-z][a-z0-9]*)((?:\s+[\w:.-]+(?:=\"[^\"]*\"|='[^']*'|=[^\s>]+)?)+)\s*/?>")
ATTRIBUTE = re.compile(r"""\s(href|src|id|name|rel)=(?:"([^"]*)"|'([^']*)'|([^\s>]+))""")


class Page:
    """What a page links to, what it loads, and where one can jump in it."""

    def __init__(self, text: str) -> None:
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        for tag, attributes in TAG.findall(text):
            said = {name: html.unescape("".join(value)) for name, *value in ATTRIBUTE.findall(attributes)}
            self.add(tag, {name: value for name, value in said.items() if value})

    def add(self, tag: str, said: dict[str, str]) -> None:
        """Reads one tag."""
        self.anchors |= {said[name] for name in ("id", "name") if name in said}
        if tag == "a" and "href" in said:
            self.links.add(said["href"])
        elif tag == "link" and said.get("rel") in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.loads.add(said.get("href", ""))
        elif "src" in said:
            self.loads.add(said["src"])


def broken(site: pathlib.Path) -> list[str]:
    """What links of built pages lead nowhere, and what pages load from elsewhere; a line for each.

    Args:
      site: the folder of the built site.
    """

    @functools.cache
    def read(path: pathlib.Path) -> Page:
        return Page(path.read_text())

    lines = []
    for file in sorted(site.rglob("*.html")):
        if file.is_relative_to(site / "_static"):  # pieces of the theme, which are no pages
            continue
        page, where = read(file), file.relative_to(site)
        for target in sorted(page.links | page.loads):
            if target.startswith(("http:", "https:", "//")):
                lines += [f"{where} loads {target} from elsewhere."] if target in page.loads else []
            elif not target.startswith(ELSEWHERE[:-1]) and not reaches(file, target, site, read):
                lines.append(f"{where}: {target} leads nowhere.")
    return lines


def reaches(file: pathlib.Path, target: str, site: pathlib.Path, read) -> bool:
    """Whether a link of a page leads to a file of the site and, where it names one, to a place in it."""
    path, _, anchor = target.partition("#")
    aim = aimed(file.parent, path, site) if path else file
    if aim is None:
        return False
    return not anchor or aim.suffix != ".html" or urllib.parse.unquote(anchor) in read(aim).anchors


@functools.cache
def aimed(folder: pathlib.Path, path: str, site: pathlib.Path) -> pathlib.Path | None:
    """The file of the site that a link from a folder names; None for none. Most are at the side of each page."""
    aim = (folder / urllib.parse.unquote(path.partition("?")[0])).resolve()
    aim = aim / "index.html" if aim.is_dir() else aim
    return aim if aim.is_file() and aim.is_relative_to(site.resolve()) else None
