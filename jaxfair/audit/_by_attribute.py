"""Where groups are cells of several attributes: each attribute by itself, which has more people in a group."""

import dataclasses
from typing import Any

import numpy as np

from jaxfair import report
from jaxfair.audit._findings import Findings
from jaxfair.audit._groups import group_table
from jaxfair.audit._verdicts import say_verdicts

#: How many of its groups a table shows.
SHOWN = 10


def alone(found: Findings) -> dict[str, Findings]:
    """The findings by one attribute at a time, all of whose groups have a bound; on the judged split.

    Args:
      found: of groups that are cells of several attributes.

    Returns:
      Name of an attribute -> findings; nothing where there is only one.
    """
    split, made = found.judged, {}
    for name, (group, names) in found.attributes.items():
        people = {split: found.people[split]._replace(group=group)}
        made[name] = dataclasses.replace(
            found, people=people, group_names=[*names], constrained=np.ones(len(names), bool), merged={}, attributes={}
        )
    return made


def by_attribute(found: Findings) -> list[report.Section]:
    """A section with the verdicts and a table for each attribute; none where the groups are no intersection."""
    paragraphs: list[Any] = []
    tables = []
    for name, one in alone(found).items():
        for variant in one.detailed:
            rows = one.rows[variant]
            said = say_verdicts(rows, method=one.titled(variant), split=one.judged, bound=one.tolerance)
            paragraphs.append(f"By {name}: {said}")
            more = f"; {SHOWN} of {len(rows)}" if len(rows) > SHOWN else ""
            caption = f"By {name} alone: {one.titled(variant)}, on {one.judged}, averaged over networks{more}."
            tables.append(group_table(rows, caption=caption, worst=SHOWN))
    if not tables:
        return []
    tables = [dataclasses.replace(table, note="") for table in tables[:-1]] + tables[-1:]
    first = (
        f"The groups above are people alike in {' and '.join(found.attributes)}. Here each stands by itself: groups "
        "are larger, and a harm to a part of one may be hidden in it. Intervals hold for all groups of one table."
    )
    return [report.Section(title="By attribute", paragraphs=[first, *paragraphs], blocks=tables)]
