"""The certificate in words: what no group loses more than, who sets the limit, and how many people would lower it."""

import math

import numpy as np

from jaxfair.audit._findings import Findings
from jaxfair.audit._measures import certify
from jaxfair.audit._verdicts import LONG, NAMED, count_groups, in_words, joined
from jaxfair.files import visible
from jaxfair.metrics import CANNOT_TELL, Certificate
from jaxfair.report import points, rounded, shorten, who

#: Splits that training and choosing have seen: nothing is certified there.
SEEN = ("train", "training", "validation", "val")


def certified(found: Findings, name: str) -> tuple[str, str]:
    """The limit of one variant on people who are new, in a sentence, and how many people would make it the bound.

    The networks are those of the verdicts, averaged over the seeds that did not fail, and so are the people. Groups
    about which nothing can be said are named, and the limit is then one for the others.

    Args:
      found: the findings.
      name: of the variant.

    Returns:
      Two texts: both empty on the training or the validation split, where fewer than two groups have people, and where
      no group has a bound; the second one where the limit is within the bound.
    """
    groups = np.asarray(found.constrained, bool)
    if found.judged.lower() in SEEN or not groups.any() or (found.inferred[name].size > 0).sum() < 2:
        return "", ""
    one, before = certify(found, name, groups), ""
    seeds, where = int(found.ok(name).sum()), f"On {visible(found.judged)}"
    if one.open:
        those = [_called(found, one, g) for g in one.open]
        those = [*those[:NAMED], f"{len(those) - NAMED} more"] if len(those) > NAMED + 1 else those
        before = f"{where} nothing can be said of {joined(those)}. "
        groups = groups & ~np.isin(np.arange(len(groups)), one.open)
        if not groups.any():
            return before.rstrip(), ""
        one = certify(found, name, groups)
    sure = f"{f'averaged over {seeds} seeds and ' * (seeds > 1)}with {100 * one.level:g} % confidence"
    sure = f"{sure[0].upper()}{sure[1:]}" if before else f"{where}, {sure}"
    than = f"more than {up(one.limit)} more than" if one.limit > 0 else "more than"
    set_by = f"the limit is set by {_called(found, one, one.group)}"
    return f"{before}{sure}, {_who_loses(found, groups)} {than} the average; {set_by}.", _needed(found, name, one)


def up(limit: float) -> str:
    """A limit in words, to a hundredth of a point and never below what it is.

    Example:
      >>> up(0.02371), up(0.01), up(0.0100001)
      ('2.38 points', '1 point', '1.01 points')
    """
    hundredths = math.ceil(1e4 * limit)
    # A product that rounding put above what it is must not take a hundredth more.
    return in_words((hundredths - 1 if (hundredths - 1) / 1e4 >= limit else hundredths) / 1e4)


def _who_loses(found: Findings, groups: np.ndarray) -> str:
    """No group of all, or none of those with a bound, or none of those that are left ``[G]``."""
    count, other = int(groups.sum()), "other " * bool((groups != found.constrained).any())
    if count == found.num_groups:
        return f"no group of {count} loses"
    bound = " with a bound" * (found.bounded < found.num_groups)
    if count == 1:
        return f"the only {other}group{bound} does not lose"
    return f"none of the {other}{count_groups(count)}{bound} loses"


def _needed(found: Findings, name: str, one: Certificate) -> str:
    """How many people it would take for the limit to be the bound; or why verdicts may be open where it is within."""
    if one.limit <= found.tolerance:
        if not any(row["verdict"] == CANNOT_TELL for row in found.rows[name]):
            return ""
        return (
            "That is within the bound, though some groups cannot be judged: verdicts name the groups, and must hold "
            "for all of them together; the limit is one number for the worst of them, which takes fewer people."
        )
    bound, psi = in_words(found.tolerance), found.inferred[name].psi
    wanted = np.where(one.bounded, one.people_for(found.tolerance), 0.0)
    if np.isinf(wanted).any():
        worst = int(np.where(np.isinf(wanted), psi, -np.inf).argmax())
        lost = f"{_name(found, worst)} lost {points(psi[worst])} points more than the average"
        return f"If the shares seen hold, no number of people would make the limit {bound}: {lost}."
    more = [int(g) for g in np.argsort(-wanted, kind="stable") if wanted[g] > one.people[g] and g != one.group]
    said = [f"about {rounded(wanted[one.group]):,} of them"]
    said += [f"{rounded(wanted[g]):,} of {_name(found, g)}" for g in more[: NAMED - 1]]
    if len(more) >= NAMED:
        said.append(f"more of {count_groups(len(more) - NAMED + 1)}")
    return f"If the shares seen hold, {joined(said)} would make the limit {bound}."


def _name(found: Findings, g: int) -> str:
    return shorten(found.group_names[g], LONG)


def _called(found: Findings, one: Certificate, g: int) -> str:
    return f"{_name(found, g)} ({who(int(one.people[g]))})"
