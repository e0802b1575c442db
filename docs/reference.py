"""The pages of the reference: one for each public name of each room, and a table of them for the room.

A room says in its ``__init__`` what it offers. A public name without a page of its own fails the build, and so does a
page of nothing (`gaps`). Below a name stands what its file says of how it works.
"""

import ast
import functools
import importlib
import inspect
import pathlib
import pkgutil
import textwrap
import types
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

import jaxfair

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = "https://github.com/jaxfair/jaxfair/blob/main"
#: Modules within rooms that are offered as such.
WITHIN = (
    "constraints.penalties",
    "constraints.rates",
    "data.folders",
    "inverse.diffusion",
    "metrics.calibration",
    "models.channels",
    "optim.numbers",
    "report.figures",
    "sparsity.second_order",
    "study.factorial",
)


class Name(NamedTuple):
    """A public name: the module that offers it, what it is called there, what it is, and whose source defines it."""

    room: str
    name: str
    thing: Any
    home: str

    @property
    def full(self) -> str:
        """As one imports it."""
        return f"jaxfair.{self.room}.{self.name}"

    @property
    def kind(self) -> str:
        """What the domain of Python calls it."""
        if not str(getattr(self.thing, "__module__", "")).startswith("jaxfair"):
            return "data"  # a number, a table, or another name of a type
        if inspect.isclass(self.thing):
            return "exception" if issubclass(self.thing, BaseException) else "class"
        return "function" if inspect.isfunction(self.thing) else "data"

    @property
    def page(self) -> str:
        """Its page, without an ending. ``Scheme`` and ``scheme`` are one file on some systems, so each kind says so."""
        ending = {"function": "", "data": "-constant"}.get(self.kind, "-class")
        return f"reference/{self.room}/{self.name}{ending}"


def rooms() -> list[str]:
    """Every room of the library, each followed by what is offered within it."""
    top = [info.name for info in pkgutil.iter_modules(jaxfair.__path__) if not info.name.startswith("_")]
    return sorted([*top, *WITHIN])


def module_of(room: str) -> types.ModuleType:
    """The module of a room."""
    return importlib.import_module(f"jaxfair.{room}")


@functools.cache
def exports(module: types.ModuleType) -> dict[str, str]:
    """Each name that a module offers, and the module that it has it from.

    A package offers what its ``__init__`` imports from the library and what it defines; a file what it defines.
    """
    found = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom) and hasattr(module, "__path__") and str(node.module).startswith("jaxfair"):
            found |= {alias.asname or alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = module.__name__
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: module.__name__ for target in targets if isinstance(target, ast.Name)}
    offered = getattr(module, "__all__", found)
    return {name: home for name, home in found.items() if name in offered and not name.startswith("_")}


def names() -> list[Name]:
    """All public names. What a module within a room and the room itself offer stands on the room's page alone."""
    found: dict[str, Name] = {}
    for room in sorted(rooms(), key=lambda room: room.count(".")):
        module, above = module_of(room), f"jaxfair.{room.rpartition('.')[0]}"
        for name, home in exports(module).items():
            one = Name(room, name, getattr(module, name), home)
            twice = f"{above}.{name}" in found and found[f"{above}.{name}"].thing is one.thing
            if not isinstance(one.thing, types.ModuleType) and one.name != "__version__" and not twice:
                found[one.full] = one
    return sorted(found.values(), key=lambda one: (one.room, one.name.lower(), one.name))


def origin(one: Name) -> str:
    """The module whose source defines it."""
    if one.kind != "data":
        return one.thing.__module__
    home = one.home
    while (onwards := exports(importlib.import_module(home)).get(one.name, home)) != home:
        home = onwards
    return home


def words(one: Name) -> str:
    """Its docstring; of a constant what the source says before it, after ``#:``."""
    if one.kind != "data":
        return inspect.getdoc(one.thing) or ""
    said = ModuleAnalyzer.for_module(origin(one)).find_attr_docs()
    return "\n".join(said.get(("", one.name), [])).strip()


def first_paragraph(text: str) -> str:
    """On one line."""
    return " ".join(text.strip().split("\n\n")[0].split())


def google(text: str) -> str:
    """A docstring of Google's style as reStructuredText."""
    return str(GoogleDocstring(inspect.cleandoc(text), Config(napoleon_google_docstring=True)))


def own_members(thing: type) -> list[str]:
    """Methods and properties that a class of ours defines and describes, beside the fields of a tuple."""
    kinds = (types.FunctionType, property, functools.cached_property, classmethod, staticmethod)
    mine = {name: value for name, value in vars(thing).items() if isinstance(value, kinds)}
    fields = inspect.getdoc(thing) or ""  # under Attributes: once is enough
    said = (name for name, value in mine.items() if not name.startswith("_") and inspect.getdoc(value))
    return [name for name in said if f"\n  {name}: " not in fields]


def heading(text: str, line: str = "=") -> list[str]:
    """A heading of reStructuredText."""
    return [text, line * len(text), ""]


def page(one: Name, beside: Iterable[Name] = (), how: str = "") -> str:
    """The page of a name.

    Args:
      one: the name.
      beside: others of the same file.
      how: what the file says of how it works.
    """
    lines = [":orphan:", "", *heading(f"{one.room}.{one.name}")]
    lines += [".. rst-class:: crumbs", "", f":doc:`Reference </reference/index>` › {room_link(one.room)}", ""]
    lines += [f".. currentmodule:: jaxfair.{one.room}", ""]
    if one.kind == "data":
        shown = repr(one.thing)
        value = [f"   :value: {shown}"] if len(shown) < 80 and " at 0x" not in shown and "<" not in shown else []
        lines += [f".. data:: {one.name}", *value, "", textwrap.indent(words(one), "   "), ""]
    else:
        lines += [f".. auto{one.kind}:: {one.name}"]
        members = [] if one.kind == "function" else own_members(one.thing)
        lines += [f"   :members: {', '.join(members)}"] if members else []
        lines += [""]
    if how:
        lines += [*heading("How it works", "-"), google(how), ""]
    if beside := list(beside):
        links = (f":py:obj:`~{other.full}`" for other in beside)
        lines += [".. rubric:: In the same file", "", ", ".join(links), ""]
    return "\n".join(lines)


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns."""
    lines = [".. list-table::", "   :widths: 30 70", "   :class: names", ""]
    for left, right in rows:
        lines += [f"   * - {left}", f"     - {right}"]
    return [*lines, ""]


def room_link(room: str) -> str:
    """To the page of a room."""
    return f":doc:`jaxfair.{room} </reference/{room}/index>`"


def room_page(room: str, those: list[Name]) -> str:
    """The page of a room: what it says of itself, and a table of its names."""
    lines = [*heading(f"jaxfair.{room}"), f".. py:module:: jaxfair.{room}", ""]
    lines += [google(module_of(room).__doc__ or ""), ""]
    for title, kinds in (("Functions", {"function"}), ("Classes", {"class", "exception"}), ("Constants", {"data"})):
        if found := [one for one in those if one.kind in kinds]:
            lines += heading(title, "-")
            lines += table((f":py:obj:`~{one.full}`", first_paragraph(words(one))) for one in found)
    return "\n".join(lines)


def index_page() -> str:
    """The page of the whole reference."""
    about = (first_paragraph(module_of(room).__doc__ or "") for room in rooms())
    lines = [*heading("Reference"), "A page for each public name. Every example on it runs as a test.", ""]
    lines += table(zip(map(room_link, rooms()), about, strict=True))
    # The rooms are at the side; their names are not: with a thousand of them each page would take seconds.
    return "\n".join(
        [*lines, ".. toctree::", "   :hidden:", "", *(f"   {room} <{room}/index>" for room in rooms()), ""]
    )


def pages(those: list[Name]) -> dict[str, str]:
    """Every page of the reference: its name, with its ending, and its text."""
    of_file: dict[tuple[str, str], list[Name]] = {}
    for one in those:
        of_file.setdefault((one.room, origin(one)), []).append(one)
    found = {"reference/index.rst": index_page()}
    for room in rooms():
        found[f"reference/{room}/index.rst"] = room_page(room, [one for one in those if one.room == room])
    for (room, home), together in of_file.items():
        said = importlib.import_module(home).__doc__ or ""
        of_room = home == f"jaxfair.{room}"
        main = leader(home, together)
        for one in together:
            how = said if one == main and not of_room and "\n\n" in said.strip() else ""
            beside = [] if of_room else [other for other in together if other != one]
            found[f"{one.page}.rst"] = page(one, beside, how)
    return found


def leader(home: str, together: list[Name]) -> Name:
    """Of the names of a file the one that it is about: its namesake, or its first function."""
    last = home.rpartition(".")[2].lstrip("_")
    namesakes = [one for one in together if one.name == last]
    return next(iter([*namesakes, *(one for one in together if one.kind == "function"), *together]))


def gaps(those: Iterable[Name], described: Mapping[str, str], found: Iterable[str]) -> list[str]:
    """What is public and has no page or no words, and what has a page and is not public; a line for each.

    Args:
      those: the public names.
      described: each name that a page describes, and the page.
      found: the pages that there are.

    Example:
      >>> one = Name("tree", "paths", jaxfair.tree.paths, "jaxfair.tree")
      >>> gaps([one], {}, [])
      ['jaxfair.tree.paths has no page of its own: reference/tree/paths is where it should be.']
      >>> gaps([one], {one.full: one.page}, ["reference/tree/index", "reference/tree/old"])
      ['reference/tree/old is a page of nothing that is public.']
    """
    those = list(those)
    said = "has no page of its own"
    lines = [f"{o.full} {said}: {o.page} is where it should be." for o in those if described.get(o.full) != o.page]
    lines += [f"{one.full} has no words: put a docstring, or #: before it." for one in those if not words(one)]
    mine = {one.page for one in those}
    strangers = (page for page in found if page.startswith("reference/") and not page.endswith("index"))
    return lines + [f"{page} is a page of nothing that is public." for page in strangers if page not in mine]


def definition(thing: Any) -> ast.AST | None:
    """The source of a function or class, parsed; None where there is none."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None


def signature(kind: str, thing: Any) -> tuple[str, str | None] | None:
    """The arguments and the result as the source has them: shapes and defaults read as they were written.

    Args:
      kind: ``"function"``, ``"method"``, ``"class"``, ...
      thing: what has them.

    Example:
      >>> signature("function", first_paragraph)
      ('(text: str)', 'str')
    """
    node = definition(thing)
    if isinstance(node, ast.ClassDef):
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if not made:
            inside = (f"{ast.unparse(f.target)}: {ast.unparse(f.annotation)}{default(f.value)}" for f in fields)
            return f"({', '.join(inside)})", None
        node = made[0]
        kind = "method"
    if not isinstance(node, ast.FunctionDef):
        return None
    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in node.decorator_list)
    if kind == "method" and not static:
        (node.args.posonlyargs or node.args.args).pop(0)
    returns = ast.unparse(node.returns) if node.returns and node.name != "__init__" else None
    return f"({ast.unparse(node.args)})", returns


def default(value: ast.expr | None) -> str:
    """Of a field, with its sign; nothing where there is none."""
    return "" if value is None else f" = {ast.unparse(value)}"


def source_link(thing: Any) -> str | None:
    """Where the source of a thing of ours can be read; None for others."""
    thing = inspect.unwrap(thing) if callable(thing) else thing
    try:
        path = pathlib.Path(inspect.getsourcefile(thing) or "/").resolve()
        lines, first = inspect.getsourcelines(thing)
    except (OSError, TypeError):
        return None
    if not path.is_relative_to(ROOT):
        return None
    where = "" if isinstance(thing, types.ModuleType) else f"#L{first}-L{first + len(lines) - 1}"
    return f"{SOURCES}/{path.relative_to(ROOT)}{where}"
