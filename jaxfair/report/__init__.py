"""From records and plain arrays to tables, figures and a web page. Knows nothing of training.

Importing it needs no optional package; what does (pandas, matplotlib, jinja2, rich) is imported
where it is used, and if it is missing the error says: ``pip install 'jaxfair[report]'``.
"""

from jaxfair.report import figures
from jaxfair.report._cells import Name, cells, paired_table, table, wide_table
from jaxfair.report._columns import counted, number, quartiles, quotient, ratio
from jaxfair.report._columns import points as in_points
from jaxfair.report._extra import can_write, need
from jaxfair.report._factorial import effects_figure, effects_table, say_effect, terms_table
from jaxfair.report._panels import curves, panels
from jaxfair.report._reached import reached
from jaxfair.report._series import differences, lines, pairs
from jaxfair.report._study import Drawn, Lead, Shown, kept, repeat, study
from jaxfair.report._text import columns as text_columns
from jaxfair.report._text import fitted, rounded, shorten, who, wrapped
from jaxfair.report._verdicts import verdicts
from jaxfair.report.gallery import MARKS, Card, Gallery
from jaxfair.report.page import (
    Facts,
    Page,
    Picture,
    Points,
    Section,
    Table,
    Verdict,
    render,
    write_page,
)
from jaxfair.report.tables import (
    markdown,
    mean_and_half_width,
    points,
    print_table,
    write_table,
)

__all__ = [
    "MARKS",
    "Card",
    "Drawn",
    "Facts",
    "Gallery",
    "Lead",
    "Name",
    "Page",
    "Picture",
    "Points",
    "Section",
    "Shown",
    "Table",
    "Verdict",
    "can_write",
    "cells",
    "counted",
    "curves",
    "differences",
    "effects_figure",
    "effects_table",
    "figures",
    "fitted",
    "in_points",
    "kept",
    "lines",
    "markdown",
    "mean_and_half_width",
    "need",
    "number",
    "paired_table",
    "pairs",
    "panels",
    "points",
    "print_table",
    "quartiles",
    "quotient",
    "ratio",
    "reached",
    "render",
    "repeat",
    "rounded",
    "say_effect",
    "shorten",
    "study",
    "table",
    "terms_table",
    "text_columns",
    "verdicts",
    "who",
    "wide_table",
    "wrapped",
    "write_page",
    "write_table",
]
