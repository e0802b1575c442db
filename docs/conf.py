"""The settings of the site. `build.py` lays out what Sphinx reads, and calls it."""

import importlib
import pathlib
import sys
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import reference  # noqa: E402

import jaxfair  # noqa: E402

log = logging.getLogger(__name__)
NAMES = reference.names()

project = "jaxfair"
author = "The jaxfair authors"
project_copyright = author
release = version = jaxfair.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
    "sphinx_book_theme",
    "mathml",
]
nitpicky = True
default_role = "py:obj"  # a single backquote is a name: a link, where it has a page
suppress_warnings = ["mystnb.unknown_mime_type"]
exclude_patterns = ["gallery/*.py", "gallery/*.ipynb"]

# Guides: the Markdown of GitHub.
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto"]
nb_execution_mode = "off"  # the tests run the notebooks

# The reference: signatures as the source has them (`reference.signature`).
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
add_module_names = False
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
toc_object_entries = False

# The gallery: each script runs in the build.
scripts = sorted((HERE / "gallery").glob("*.py"))
if scripts:
    extensions.append("sphinx_gallery.gen_gallery")
    sphinx_gallery_conf = {
        "examples_dirs": [str(HERE / "gallery")],
        "gallery_dirs": ["gallery"],
        "filename_pattern": r"\.py$",
        "within_subsection_order": "FileNameSortKey",
        "abort_on_example_error": True,
        "download_all_examples": False,
        "write_computation_times": False,
        "show_signature": False,
        "show_memory": False,
    }

html_theme = "sphinx_book_theme"
html_title = "jaxfair"
html_math_renderer = "mathml"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "repository_url": "https://github.com/jaxfair/jaxfair",
    "use_repository_button": True,
    "use_download_button": False,
    "show_navbar_depth": 1,
    "max_navbar_depth": 2,
    "show_toc_level": 2,
}


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where the source of a name is read."""
    thing: Any = importlib.import_module(info["module"])
    for part in info["fullname"].split("."):
        thing = getattr(thing, part, None)
    return reference.source_link(thing)


def as_written(app: Sphinx, kind: str, name: str, thing: Any, options: Any, args: str, result: str) -> Any:
    """A signature as the source has it."""
    return reference.signature(kind, thing)


def looked_up(target: str, spaces: list[str]) -> Any:
    """What a name in a text stands for, seen from some modules; None for nothing."""
    for space in [*spaces, ""]:
        parts = f"{space}.{target}".strip(".").split(".")
        for count in range(len(parts), 0, -1):
            try:
                thing: Any = importlib.import_module(".".join(parts[:count]))
            except (ImportError, ValueError):
                continue
            for part in parts[count:]:
                thing = getattr(thing, part, None)
            if thing is not None:
                return thing
            break
    return None


BY_THING = {id(one.thing): one for one in reversed(NAMES) if one.kind != "data"}
BY_PAGE = {one.page: one for one in NAMES}


def resolved(app: Sphinx, env: BuildEnvironment, node: nodes.Element, shown: nodes.Element) -> nodes.Node | None:
    """What Sphinx does not find by itself: names as their file knows them, and private ones, which lead to the source.

    A role that names nothing warns. Types in signatures and words in single backquotes may be anything.
    """
    if node.get("refdomain") != "py":
        return None
    here = BY_PAGE.get(node["refdoc"])
    spaces = [node.get("py:module") or "jaxfair", "jaxfair"]
    if here is not None:
        spaces.insert(0, reference.origin(here))
    spaces += [space.rpartition(".")[0] for space in spaces if space.count(".") > 1]
    target = node["reftarget"].strip().lstrip(".~")
    thing = looked_up(target, spaces) if target.replace(".", "").replace("_", "").isalnum() else None
    if (one := BY_THING.get(id(thing))) is not None:
        return make_refnode(app.builder, node["refdoc"], one.page, one.full, shown)
    link = reference.source_link(thing) if thing is not None else None
    if link is not None:
        return nodes.reference("", "", shown, internal=False, refuri=link)
    loose = node["reftype"] == "obj" or not isinstance(shown, nodes.literal)
    return shown if thing is not None or loose else None


def complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warns of every public name without a page, and of every page without a name."""
    objects = env.domains.python_domain.objects
    described = {name: entry.docname for name, entry in objects.items()}
    for line in reference.gaps(NAMES, described, env.found_docs):
        log.warning(line, type="reference")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", as_written)
    app.connect("missing-reference", resolved)
    app.connect("env-check-consistency", complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
