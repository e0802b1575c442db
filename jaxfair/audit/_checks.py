"""What is asked of a comparison before anything is counted: names, seeds, a tolerance, and roles that are there."""

from collections.abc import Mapping
from typing import Any

from jaxfair import files
from jaxfair.audit._findings import Findings


def names(after: Mapping[str, Any], name_before: str) -> None:
    """Something is compared, and each has a name of its own."""
    if not after:
        raise ValueError("after is empty: give predictions, or networks, by their names.")
    if name_before in after:
        raise ValueError(f"after has a variant {name_before!r}, as those before are called: give name_before=.")


def seeds(before: Any, after: Mapping[str, Any]) -> None:
    """Networks that know their seeds are compared seed by seed."""
    known = getattr(before, "seeds", None)
    for name, one in after.items():
        its = getattr(one, "seeds", None)
        if known is None or its is None or len(known) != len(its):
            continue  # lengths are compared for all
        if list(known) != list(its):
            raise ValueError(
                f"{name} has the seeds {[*its]} and those before {[*known]}: compare the same seeds in the same "
                "order, as by .take."
            )


def share(tolerance: Any) -> float:
    """A tolerance is a share."""
    value = float(tolerance)
    if not 0 <= value <= 1:
        raise ValueError(f"tolerance={value:g}: give a share from 0 to 1; 0.01 is one point.")
    return value


def roles(given: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the findings, of which those that name variants name some that there are."""
    found = dict(given)
    found["labels"] = {files.visible(n): files.visible(words) for n, words in given.get("labels", {}).items()}
    if "naive" in found:
        found["naive"] = files.visible(found["naive"])
    for role in ("naive", "peers", "controls", "shown", "focus", "on_loss"):
        named = found.get(role, ())
        named = (named,) * bool(named) if isinstance(named, str) else tuple(named)
        named = tuple(map(files.visible, named))
        for name in named:
            if name not in after:
                raise ValueError(f"{role}={name!r}: choose from {', '.join(after)}.")
        if role in found and role != "naive":
            found[role] = named
    return found


def fits(found: Findings) -> None:
    """Shapes fit, and there are as many networks of each kind."""
    if found.constrained.shape != (found.num_groups,):
        raise ValueError(
            f"constrained has shape {found.constrained.shape} and there are {found.num_groups} groups: give one truth "
            "value per group."
        )
    seeds = len(found.before.ok)
    for name, variant in found.after.items():
        if len(variant.ok) != seeds:
            raise ValueError(
                f"{name} has {len(variant.ok)} seeds and there are {seeds} networks before: compare the same seeds."
            )
