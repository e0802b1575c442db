"""Builds the site: lays out what Sphinx reads, calls it, and follows every link. ``.venv/bin/python docs/build.py``.

Guides stand in `docs/` as GitHub shows them. In the site the README is the first page, the changelog and the notebooks
are pages too, and the reference is written from the docstrings: all of that is laid out in ``_build/source``.
"""

import pathlib
import shutil
import sys
from collections.abc import Iterable

import links
import reference
from sphinx.cmd.build import main as sphinx

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BUILD = DOCS / "_build"
#: Files of the repository that have another name as a page.
ELSEWHERE = {
    "README.md": "index.md",
    "docs/index.md": "overview.md",
    "docs/search.md": "choosing.md",  # search.html is the theme's
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
START = ("overview", "demo", "own", "data", "audit", "training", "ship")
#: The order of the guides; a new one comes after them.
GUIDES = ("constraints", "rates", "sparsity", "bilevel", "quantisation", "robust", "metrics", "optimizers", "inverse")
PROJECT = ("contributing", "security", "changelog", "citing", "roadmap")


def mapped() -> dict[str, str]:
    """The page of each file of the repository that is one."""
    files = [*DOCS.glob("*.md"), *DOCS.glob("[a-z]*/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    found = {str(file.relative_to(ROOT)): str(file.relative_to(ROOT)).removeprefix("docs/") for file in files}
    found |= {file: page for file, page in ELSEWHERE.items() if (ROOT / file).exists()}
    scripts = DOCS.glob("gallery/*.py")
    return found | {f"docs/gallery/{file.name}": f"gallery/{file.stem}.rst" for file in scripts}


def chapter(page: str) -> str:
    """Where a page stands at the side."""
    if page in START:
        return "Start"
    if page in PROJECT:
        return "Project"
    for begins, title in (("coming_from", "Coming from"), ("from_", "Coming from"), ("findings", "Findings")):
        if page.startswith(begins):
            return title
    return "Notebooks" if page.startswith("notebooks/") else "Guides"


def contents(pages: Iterable[str]) -> str:
    """The contents of the site, which the first page ends with.

    Args:
      pages: all of them, without their endings.
    """
    found: dict[str, list[str]] = {"Start": ["Overview <overview>", *START[1:]]}
    known = (*GUIDES, "choosing", "findings/index", "coming_from/index")
    for page in sorted(pages, key=lambda page: (known.index(page) if page in known else len(known), page)):
        if page not in ("index", *START) and not page.startswith(("gallery/", "reference/")):
            found.setdefault(chapter(page), []).append(page)
    gallery = ["gallery/index"] if any(DOCS.glob("gallery/*.py")) else []
    found["Examples"] = [*gallery, *found.pop("Notebooks", [])]
    found["Reference"] = ["reference/index"]
    order = ("Start", "Guides", "Examples", "Coming from", "Findings", "Reference", "Project")
    trees = ((title, "\n".join(found.get(title, []))) for title in order)
    return "".join(f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{tree}\n```\n" for title, tree in trees if tree)


def laid_out(source: pathlib.Path) -> None:
    """Writes what Sphinx reads. What has not changed stays as it is, so that Sphinx need not read it again.

    Raises:
      links.BrokenLink: for a link of a guide to what does not exist.
    """
    pages = mapped()
    texts = {
        page: links.rewritten((ROOT / file).read_text(), file, page, pages)
        for file, page in pages.items()
        if not page.startswith("gallery/")
    }
    texts["index.md"] += contents(page.rpartition(".")[0] for page in pages.values())
    texts |= reference.pages(reference.names())
    pictures = [file for kind in links.PICTURES for file in DOCS.glob(f"*{kind}")]
    for page, text in texts.items():
        write(source / page, text.encode())
    for file in pictures:
        write(source / file.name, file.read_bytes())
    kept = {source / page for page in texts} | {source / file.name for file in pictures}
    for file in source.rglob("*"):
        if file.is_file() and file not in kept and not file.is_relative_to(source / "gallery"):
            file.unlink()


def write(path: pathlib.Path, content: bytes) -> None:
    """Writes a file, unless that is what it holds."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def main(words: list[str]) -> int:
    """Builds the site, and says where it is; the exit code is 0 where nothing warned and every link leads somewhere."""
    source, site = BUILD / "source", BUILD / "html"
    try:
        laid_out(source)
    except links.BrokenLink as error:
        print(error, file=sys.stderr)
        return 1
    shutil.rmtree(site, ignore_errors=True)
    asked = ["-q", "-b", "html", "-c", DOCS, "-d", BUILD / "doctrees", "-W", "--keep-going", *words, source, site]
    code = sphinx([str(word) for word in asked])
    lines = links.broken(site) if code == 0 else []
    print(*lines, sep="\n", end="\n" * bool(lines), file=sys.stderr)
    if code or lines:
        return 1
    print(f"{len(list(site.rglob('*.html')))} pages; the first is {site.relative_to(ROOT)}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
