"""Formulas as MathML, which browsers draw themselves: a page needs no script, and neither page nor build a network."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)


def drawn(latex: str, display: str, where: nodes.Element | None = None) -> str:
    r"""A formula as MathML; what is not known to LaTeX warns.

    Args:
      latex: the formula.
      display: ``"inline"`` or ``"block"``.
      where: for the warning.

    Example:
      >>> drawn("x^2", "inline")[-47:]
      '<msup><mi>x</mi><mn>2</mn></msup></mrow></math>'
    """
    try:
        # Two that the converter does not know, the second after \Big alone.
        found = convert(latex.replace(r"\arg", r"\mathrm{arg}\,").replace(r"\|", "‖"), display=display)
    except Exception as error:  # of whatever kind the formula makes it
        log.warning("the formula %r cannot be drawn: %r", latex, error, location=where)
        return ""
    if ">\\" in found:
        log.warning("the formula %r has a command that is not known", latex, location=where)
    return found


def inline(self: Any, node: nodes.math) -> None:
    """A formula in a line."""
    self.body.append(drawn(node.astext(), "inline", node))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    r"""A formula by itself; lines that have ``&`` or ``\\`` are aligned."""
    text = node.astext().strip()
    if "\\\\" in text and "\\begin" not in text:
        text = f"\\begin{{aligned}}{text}\\end{{aligned}}"
    anchor = f' id="{node["ids"][0]}"' if node.get("ids") else ""
    self.body.append(f'<div class="math"{anchor}>{drawn(text, "block", node)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
