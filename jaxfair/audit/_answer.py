"""The short answer: before, and after each way of pruning, what became of the group that is worst off.

It needs no optional package, fits a terminal of 80 columns, and leads the page.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxfair.audit._certified import certified
from jaxfair.audit._findings import Findings
from jaxfair.audit._groups import percent
from jaxfair.audit._moved import shares
from jaxfair.audit._verdicts import in_words, ranked, say_rows, state_of
from jaxfair.files import visible
from jaxfair.report import Lead, Points, Table, Verdict, fitted, points, text_columns, wrapped

#: Columns of a terminal.
WIDTH = 80
#: What stands before a verdict where there are no colours.
SIGNS = {"good": "✓", "bad": "✗", "open": "?"}


class Row(NamedTuple):
    """What became of everybody, and of the group that is worst off.

    Attributes:
      name: of the variant.
      words: what it is called.
      accuracy: a share, the mean over seeds.
      group: the worst one: of the groups that violate the bound, or else of those that cannot be judged, or else of
        those that keep it; empty for the networks before.
      gap: its excess accuracy gap, a share; nan where there is none.
      low: the lower end of its interval, which holds for all groups together.
      high: the upper end.
      met: in how many seeds the bound is met on the split that it is trained for.
      seeds: of how many that did not fail.
      verdict: in words; None for the networks before.
      limit: what no group loses more than, in a sentence; empty where nothing is certified.
      needed: how many people would make that the bound, in a sentence.
      changed: the share of predictions that are another class than before, of everybody, and of the group with a bound
        that has most; means over seeds.
      newly_wrong: likewise, of those who were right before.
    """

    name: str
    words: str
    accuracy: float
    group: str = ""
    gap: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    met: int = 0
    seeds: int = 0
    verdict: Verdict | None = None
    limit: str = ""
    needed: str = ""
    changed: tuple[float, float] = (float("nan"), float("nan"))
    newly_wrong: tuple[float, float] = (float("nan"), float("nan"))


class Answer(NamedTuple):
    """The short answer; made by :meth:`jaxfair.audit.Comparison.answer`.

    Attributes:
      question: which bound is meant, in a sentence.
      rows: before, and after each way of pruning.
      remarks: what has to be said beside it: what failed, whose group is unknown, a bound that asks for nothing.
      where: on whom this was measured.

    Example:
      >>> held = Verdict(state="holds", text="the bound of 1 point holds for all 2 groups.")
      >>> rows = [Row("dense", "dense", 0.86),
      ...         Row("ceag", "under the bound", 0.855, "women", 0.004, 0.001, 0.008, met=4, seeds=5, verdict=held)]
      >>> print(Answer("Did a group lose more than a point beyond the average?", rows, [], "On test."))
      Did a group lose more than a point beyond the average?
      <BLANKLINE>
                       accuracy  worst group             gap                   bound met
      dense             86.00 %
      under the bound   85.50 %  women                    +0.40 (up to +0.80)  4 of 5
      <BLANKLINE>
      ✓ under the bound: the bound of 1 point holds for all 2 groups.
      <BLANKLINE>
      On test.
    """

    question: str
    rows: Sequence[Row]
    remarks: Sequence[str]
    where: str

    def lines(self, width: int = WIDTH) -> list[str]:
        """The answer in lines of at most ``width`` columns.

        Args:
          width: of the terminal.
        """
        first = min(max(text_columns(row.words) for row in self.rows), 24)
        last = max([len(_met(row)) for row in self.rows] + [len("bound met")])
        gaps = [_gap(row) for row in self.rows]
        middle = max(len(text) for text in [*gaps, "gap"])
        room = max(width - first - last - middle - 16, 8)
        lines = [*wrapped(self.question, width=width), ""]
        lines.append(f"{'':{first}}  accuracy  {fitted('worst group', room)}  {'gap':{middle}}  bound met".rstrip())
        for row, gap in zip(self.rows, gaps, strict=True):
            cells = [fitted(row.words, first), _percent(row.accuracy), fitted(row.group, room), f"{gap:{middle}}"]
            lines.append("  ".join([*cells, _met(row)]).rstrip())
        for row, verdict in zip([row for row in self.rows if row.verdict], self.verdicts(), strict=True):
            lines += ["", *wrapped(f"{SIGNS[verdict.kind]} {verdict}", width=width, indent="  ")]
            lines += [f"  {line}" for line in wrapped(row.limit, width=width - 2) if line]
        for text in (*self.remarks, self.where):
            lines += ["", *wrapped(text, width=width)]
        return lines

    def __str__(self) -> str:
        """The lines, for a terminal of 80 columns."""
        return "\n".join(self.lines())

    def verdicts(self) -> list[Verdict]:
        """A verdict for each way of pruning, with its name."""
        return [
            Verdict(state=row.verdict.state, text=f"{row.words}: {row.verdict}") for row in self.rows if row.verdict
        ]  # fmt: skip

    def lead(self, made: Sequence[str] = (), then: Sequence[str] = ()) -> Lead:
        """The answer as it leads a page, and the terminal.

        Args:
          made: sentences that say what was made; first on the page.
          then: sentences for the end of what is printed.
        """
        lines = self.lines()
        for text in then:
            lines += ["", *wrapped(text)]
        said = [(row.words, f"{row.limit} {row.needed}".rstrip()) for row in self.rows if row.limit]
        limits = [f"{words}: {text[0].lower()}{text[1:]}" for words, text in said]
        blocks = [*([Points(items=limits)] if limits else []), self.table()]
        return Lead([*made, self.question, *self.remarks], self.verdicts(), blocks, lines)

    def table(self) -> Table:
        """The rows, as they stand on a page."""
        rows = [
            [
                row.words,
                Verdict(state=row.verdict.state) if row.verdict else "",
                _percent(row.accuracy).strip(),
                row.group,
                points(row.gap, sign=True) if row.verdict else "",
                f"{points(row.low, sign=True)} to {points(row.high, sign=True)}" if np.isfinite(row.high) else "",
                _of_most(row.changed),
                _of_most(row.newly_wrong),
                _met(row) + " seeds" * (row.seeds > 1),
            ]
            for row in self.rows
        ]
        columns = ["networks", "verdict", "accuracy", "worst group", "gap", "interval", "changed", "newly wrong"]
        return Table(
            columns=[*columns, "bound met"],
            rows=rows,
            caption="The answer in short.",
            note="Gap: accuracy that the group lost beyond the average loss, in points. Changed: predicted another "
            "class than before; newly wrong: and right before; of everybody, and in brackets of "
            f"the group with a bound that has most. {self.where}",
        )


def answer(found: Findings, labels: Mapping[str, str]) -> Answer:
    """The short answer of an audit, of the variants that ``labels`` names; of the detailed ones if it names none."""
    chosen = [name for name in labels if name in found.after] or found.detailed
    ok, split = found.before.ok, found.judged
    before = found.measured[found.name_before, split].accuracy[ok]
    rows = [Row(found.name_before, visible(labels.get(found.name_before, found.name_before)), _mean(before))]
    for name in chosen:
        words = visible(labels.get(name, name))
        if name not in found.rows:
            lost = Verdict(state="cannot tell", text="training failed in all seeds: there is nothing to judge.")
            rows.append(Row(name, words, float("nan"), verdict=lost))
            continue
        groups = found.rows[name]
        met = found.met(name)
        verdict = Verdict(state=state_of(groups), text=_said_met(found, met) + say_rows(groups, found.tolerance))
        worst = next(iter(ranked(groups)), {"group": "", "excess_gap": np.nan, "low": np.nan, "high": np.nan})
        moved = shares(found.moved[name, split], np.asarray(found.constrained))
        of = [_mean(values[found.ok(name)]) for values in moved.values()]
        rows.append(
            Row(
                name, words, _mean(found.measured[name, split].accuracy[found.ok(name)]), worst["group"],
                worst["excess_gap"], worst["low"], worst["high"], int(met.sum()), len(met), verdict,
                *certified(found, name), changed=(of[0], of[1]), newly_wrong=(of[2], of[3]),
            )
        )  # fmt: skip
    return Answer(_question(found), rows, (), _where(found, chosen))


def blind(found: Findings) -> list[str]:
    """A sentence for networks no better than one answer for everybody: what they lose says little of anybody."""
    of = np.unique(np.asarray(found.people[found.judged].y), return_counts=True)[1]
    if len(of) < 2:
        return []
    most, names = (
        of.max() / of.sum(),
        [name for name in found.names if not found.is_last(name) and found.ok(name).any()],
    )
    chance = 1.645 * np.sqrt(most * (1 - most) / of.sum())  # the upper 5 % of the normal law
    no_better = [n for n in names if _mean(found.measured[n, found.judged].accuracy[found.ok(n)]) <= most + chance]
    if not no_better:
        return []
    return [
        f"Hardly better than one answer for everybody: {', '.join(map(found.titled, no_better))}. Whoever names the "
        f"commonest class for all is right about {100 * most:.2f} % on {found.judged}, and these networks about no "
        "more, beyond chance. Gaps between them say little: train better, or prune less."
    ]


def _question(found: Findings) -> str:
    if not found.bounded:
        return "No group has a bound: gaps are measured, and nothing is judged."
    free = found.num_groups - found.bounded
    but = f" ({free} of the {found.num_groups} groups {'has' if free == 1 else 'have'} no bound)" if free else ""
    bound = in_words(found.tolerance)
    return f"Does any group lose more accuracy than all people do on average, by more than {bound}?{but}"


def _where(found: Findings, chosen: Sequence[str]) -> str:
    people = len(found.people[found.judged].y)
    seeds = len(found.before.ok)
    mean = f", averaged over {seeds} seeds" if seeds > 1 else ""
    met = ("in how many seeds, " if seeds > 1 else "") + f"on {found.first}"
    met += "" if found.first == found.judged else ", the people that were trained on"
    own = [found.titled(name) for name in found.on_loss if name in chosen]
    itself = f" Of {', '.join(own)}: that no group itself loses more than {in_words(found.tolerance)}." if own else ""
    return (
        f"Accuracy, gaps (in points, up to the end of the interval) and verdicts: on {found.judged} ({people:,} "
        f"people){mean}. Bound met: {met}.{one_person(found)}{itself}"
    )


def one_person(found: Findings) -> str:
    """A sentence on what "bound met" allows where a group has so few people that one of them is more than the bound."""
    sizes = found.sizes(found.first)[np.asarray(found.constrained)]
    if not ((sizes > 0) & (sizes * found.tolerance < 1)).any():
        return ""
    return f" A group of which one person is more than {in_words(found.tolerance)} is allowed one person there."


def _said_met(found: Findings, met: np.ndarray) -> str:
    """How a verdict begins: whether the bound is met as measured, before anything is said of chance."""
    if len(met) > 1:
        seen = f"met in {int(met.sum())} of {len(met)} seeds"
    elif found.first != found.judged:
        seen = "met" if met.all() else "not met"
    else:  # one network, on the people who are judged
        return f"as measured, {'all gaps are within' if met.all() else 'a gap is above'} the bound; beyond chance, "
    return seen + (f" on {found.first}; on {found.judged} " if found.first != found.judged else "; ")


def _met(row: Row) -> str:
    if not row.seeds:
        return ""
    return f"{row.met} of {row.seeds}" if row.seeds > 1 else "yes" if row.met else "no"


def _gap(row: Row) -> str:
    """The gap that was seen, and the end of its interval: a small group may have lost far more than was seen."""
    if row.verdict is None:
        return ""
    top = f" (up to {points(row.high, sign=True)})" if np.isfinite(row.high) else ""
    return f"{points(row.gap, sign=True):>6}{top}"


def _of_most(shares: tuple[float, float]) -> str:
    """Of everybody, and in brackets of the group that has most."""
    everybody, most = shares
    if np.isnan(everybody):
        return ""
    return percent(everybody) + ("" if np.isnan(most) else f" ({percent(most)})")


def _percent(share: float) -> str:
    return f"{100 * share:6.2f} %" if np.isfinite(share) else f"{'–':>8}"


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
