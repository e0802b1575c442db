"""The settings of the site. `build.py` lays out what Sphinx reads, and calls it."""

import functools
import importlib
import pathlib
import re
import sys
import types
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import reference  # noqa: E402

import jaxfair  # noqa: E402

log = logging.getLogger(__name__)
NAMES = reference.names()
ROOMS = set(reference.rooms())

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
autodoc_docstring_signature = False
add_module_names = False
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # the signature has them
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
    "footer_content_items": "copyright.html",
}


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where the source of a name is read."""
    thing: Any = importlib.import_module(info["module"])
    for part in info["fullname"].split("."):
        thing = getattr(thing, part, None)
    return reference.source_link(thing)


def as_written(app: Sphinx, kind: str, name: str, thing: Any, options: Any, args: str, result: str) -> Any:
    """A signature as the source has it."""
    return None if args is None else reference.signature(kind, thing)


def letters(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A letter that is all that is said of an argument, such as ``G.``, is no list."""
    lines[:] = [re.sub(r"^( +[\w*]+: )([A-Za-z])\.$", r"\1``\2``.", line) for line in lines]


@functools.cache
def within(space: str, target: str) -> Any:
    """What a name stands for in a module that is loaded, "" for none; None for nothing."""
    first, *rest = (space, *target.split(".")) if space else target.split(".")
    thing: Any = sys.modules.get(first)
    for part in rest:
        # Not getattr, by which the library would look for a room of every name.
        thing = vars(thing).get(part) if isinstance(thing, types.ModuleType) else getattr(thing, part, None)
    return thing


def looked_up(target: str, spaces: list[str]) -> Any:
    """What a name in a text stands for, seen from some modules in their order; None for nothing."""
    found = (within(space, target) for space in spaces)
    return next((thing for thing in found if thing is not None), None)


BY_FULL = {one.full: one for one in NAMES}
BY_PAGE = {one.page: one for one in NAMES}
#: What two rooms offer is found in the one that it comes from.
AT_HOME = sorted(NAMES, key=lambda one: reference.origin(one).startswith(f"jaxfair.{one.room}"))
BY_THING = {id(one.thing): one for one in AT_HOME if one.kind != "data"}


def seen_from(node: nodes.Element, page: str) -> list[str]:
    """The modules in which a name on a page is looked up, in their order: its file, its room, the library."""
    here = BY_PAGE.get(page)
    spaces = [reference.origin(here)] if here is not None else []
    spaces += [node.get("py:module") or "jaxfair"]
    return [*spaces, *(space.rpartition(".")[0] for space in spaces), "jaxfair", ""]


def public(target: str, spaces: list[str]) -> tuple[reference.Name, str] | None:
    """The public name that a text stands for, and the anchor on its page; of a class also what is in it."""
    for space in spaces:
        if (one := BY_FULL.get(f"{space}.{target}".strip("."))) is not None:
            return one, one.full
    if (one := BY_THING.get(id(looked_up(target, spaces)))) is not None:
        return one, one.full
    head, _, member = target.rpartition(".")
    owner = public(head, spaces) if head else None
    return (owner[0], f"{owner[1]}.{member}") if owner and hasattr(owner[0].thing, member) else None


#: What is in one of these becomes no link.
LINKS = (nodes.reference, nodes.title, addnodes.pending_xref)


class Names(SphinxPostTransform):
    """Resolves names before Sphinx guesses: as the file knows them that they stand in.

    Private ones lead to the source. What names nothing is left to Sphinx, which warns; types in signatures and words
    in single backquotes may be anything.
    """

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        """Of one page."""
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("refdomain") == "py" and (found := self.link(node, node[0])) is not None:
                node.replace_self(found)
        if not self.env.docname.startswith("reference/"):
            self.guide()

    def guide(self) -> None:
        """Links what a guide has as code, where that is something public, called or not, or a room."""
        page, builder = self.env.docname, self.app.builder
        for node in list(self.document.findall(nodes.literal)):
            above, inside = node.parent, False
            while above is not None and not inside:
                inside, above = isinstance(above, LINKS), above.parent
            full = "jaxfair." + re.sub(r"\(.*\)$", "", node.astext().removeprefix("jaxfair."))
            room = node.astext().removeprefix("jaxfair.")
            if not inside and (one := BY_FULL.get(full)) is not None:
                node.replace_self(make_refnode(builder, page, one.page, one.full, node.deepcopy()))
            elif not inside and room in ROOMS and room != node.astext():
                node.replace_self(make_refnode(builder, page, f"reference/{room}/index", None, node.deepcopy()))

    def link(self, node: nodes.Element, shown: Any) -> nodes.Node | None:
        """What stands in the place of a name."""
        page = node.get("refdoc", self.env.docname)
        target, spaces = node["reftarget"].strip().lstrip(".~"), seen_from(node, page)
        named = re.fullmatch(r"[\w.]+", target) is not None
        if named and (found := public(target, spaces)) is not None:
            one, anchor = found
            return make_refnode(self.app.builder, page, one.page, anchor, shown)
        thing = looked_up(target, spaces) if named else None
        if (room := getattr(thing, "__name__", "").removeprefix("jaxfair.")) in ROOMS:
            return make_refnode(self.app.builder, page, f"reference/{room}/index", None, shown)
        if thing is not None and (link := reference.source_link(thing)) is not None:
            return nodes.reference("", "", shown, internal=False, refuri=link)
        loose = node["reftype"] == "obj" or not isinstance(shown, nodes.literal)
        return shown if thing is not None or loose else None


SIDES: dict[tuple[str, ...], Any] = {}


def side_once(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """The contents at the side are the same on all pages of names of a room: half the time of a build is theirs."""
    room = page.rpartition("/")[0]
    if page not in BY_PAGE or (made := context.get("generate_toctree_html")) is None:
        return

    def once(*asked: Any, **more: Any) -> Any:
        key = (room, repr(asked), repr(sorted(more.items())))
        if key not in SIDES:
            SIDES[key] = made(*asked, **more)
        return SIDES[key]

    context["generate_toctree_html"] = once


def complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warns of every public name without a page, and of every page without a name."""
    objects = env.domains.python_domain.objects
    described = {name: entry.docname for name, entry in objects.items()}
    for line in reference.gaps(NAMES, described, env.found_docs):
        log.warning(line, type="reference")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", as_written)
    app.add_post_transform(Names)
    app.connect("autodoc-process-docstring", letters, priority=1)  # before napoleon
    app.connect("env-check-consistency", complete)
    app.connect("html-page-context", side_once, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
