"""The certificate in words: on new people alone, never rounded in its own favour, and of one mind with the verdicts."""

import html
import re

import numpy as np
import pytest

from jaxfair import audit, report
from jaxfair.audit import _certified


def compared(lost, size=(1800, 200), gained=None, seeds=1, names=("men", "women", "other"), **options):
    """Of each group the shares that ``lost`` and ``gained`` say, to the person."""
    y, before, after, group = ([] for _ in range(4))
    for g, (n, b, c) in enumerate(zip(size, lost, gained or lost, strict=True)):
        kinds = np.repeat([0, 1, 2], [round(n * b), round(n * c), n - round(n * b) - round(n * c)])
        y.append(np.zeros(n, int))
        before.append((kinds == 1).astype(int))
        after.append((kinds == 0).astype(int))
        group.append(np.full(n, g))
    y, before, after, group = (np.concatenate(a) for a in (y, before, after, group))
    tile = (lambda a: np.tile(a, (seeds, 1))) if seeds > 1 else (lambda a: a)
    return audit.compare(tile(before), {"pruned": tile(after)}, y, group, names=names[: len(size)], **options)


def row(found):
    return found.answer().rows[1]


def test_the_sentence_is_the_numbers():
    found = compared([0.05, 0.05])
    one = _certified.certify(found.found, "pruned", found.found.constrained)
    assert one.group == 1
    assert row(found).limit == (
        f"On test, with 95 % confidence, no group of 2 loses more than {_certified.up(one.limit)} more than the "
        "average; the limit is set by women (200 people)."
    )
    wanted = one.people_for(0.01)
    said = report.rounded(wanted[1])
    assert said >= wanted[1] > 200
    assert row(found).needed.startswith(f"If the shares seen hold, about {said:,} of them")
    assert row(found).needed.endswith("would make the limit 1 point.")
    assert row(compared([0.05, 0.05], tolerance=0.2)).needed == ""
    assert (
        f"averaged over 3 seeds and with 95 % confidence, {'no group of 2'}" in row(compared([0.05] * 2, seeds=3)).limit
    )


def test_a_loss_that_was_seen_is_not_cured_by_more_people():
    said = row(compared([0.05, 0.1], gained=[0.05, 0.02])).needed
    assert said == (
        "If the shares seen hold, no number of people would make the limit 1 point: women lost 7.20 points more than "
        "the average."
    )


@pytest.mark.parametrize("limit", [*np.random.default_rng(0).random(200), 0.01, 0.07, 0.0123, 0.29, 1 / 3])
def test_a_limit_is_never_rounded_down(limit):
    said = float(_certified.up(limit).split()[0]) / 100
    assert limit <= said + 1e-15
    assert said < limit + 1.0001e-4
    assert re.fullmatch(r"[\d.]+ points?", _certified.up(limit))


@pytest.mark.parametrize("split", ["train", "Training", "validation", "test", "new people"])
def test_it_is_about_people_whom_nobody_has_looked_at(split):
    found = row(compared([0.05, 0.05], split=split))
    assert bool(found.limit) == bool(found.needed) == (split in ("test", "new people"))
    assert found.limit.startswith(f"On {split}, ") or not found.limit


@pytest.mark.slow
def test_groups_without_a_bound_and_without_people():
    sizes, shares = (1800, 200, 0), [0.05, 0.05, 0.0]
    said = row(compared(shares, sizes)).limit
    assert said.startswith(
        "On test nothing can be said of other (nobody). With 95 % confidence, none of the other 2 groups loses "
    )
    said = row(compared(shares, sizes, constrained=[True, True, False])).limit
    assert said.startswith("On test, with 95 % confidence, none of the 2 groups with a bound loses more than ")
    said = row(compared(shares, sizes, constrained=[True, False, True])).limit
    assert "the only other group with a bound does not lose more than" in said
    assert said.endswith("set by men (1,800 people).")
    assert row(compared(shares, sizes, constrained=[False, False, True])).limit == (
        "On test nothing can be said of other (nobody)."
    )
    assert row(compared(shares, sizes, constrained=[False, False, False])).limit == ""
    assert row(compared([0.05, 0.0], (1800, 0))).limit == ""


@pytest.mark.slow
def test_of_many_groups_three_are_named():
    found = compared([0.05] * 9, [2000, *[100 + i for i in range(8)]], names=[f"group {i}" for i in range(9)])
    said = row(found).needed
    assert len(re.findall(r"of (?:group \d|them)", said)) == 3
    assert re.search(r" and more of \d groups would make the limit 1 point\.$", said)
    few = compared([0.05] * 7, [2000, *[3] * 6], names=[f"group {i}" for i in range(7)])
    assert row(few).limit.startswith(
        "On test nothing can be said of group 1 (3 people), group 2 (3 people), group 3 (3 people) and 3 more. With "
    )


@pytest.mark.slow
def test_it_stands_between_the_verdicts_and_the_table_and_in_the_terminal(tmp_path):
    found = compared([0.05, 0.05], seeds=2, labels={"before": "dense", "pruned": "pruned as usual"})
    page = found.write(tmp_path).read_text()
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.partition("<body>")[2])).split())
    one = row(found)
    order = [
        text.index(words)
        for words in ("cannot be judged", f"pruned as usual: o{one.limit[1:]} {one.needed}", "The answer in")
    ]
    assert order == sorted(order)
    lines = found.answer().lines()
    assert one.limit in " ".join(" ".join(lines).split())
    assert max(map(report.text_columns, lines)) <= 80
    silent = compared([0.05, 0.05], split="train").answer()
    assert "confidence" not in str(silent)
    assert [type(block) for block in silent.lead().blocks] == [report.Table]
