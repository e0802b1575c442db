"""Claims as a table: a row for each, where sentences would be too many."""

from collections.abc import Sequence
from typing import Any

from jaxfair.report._extra import need
from jaxfair.study import Found


def verdicts(found: Sequence[Found]) -> Any:
    """A row per claim: among whom, what is said, the verdict, and at which levels it was better and worse.

    Args:
      found: of :func:`jaxfair.study.judge`.

    Returns:
      A ``pandas.DataFrame``.

    Example:
      >>> from jaxfair import study
      >>> records = [
      ...     {"method": method, "sparsity": 0.9, "seed": seed, "accuracy": accuracy + 0.01 * seed}
      ...     for method, accuracy in (("magnitude", 0.8), ("chita", 0.7)) for seed in range(3)]
      >>> claim = study.Claim("chita", "magnitude", "accuracy", ("more accurate", "less accurate"))
      >>> row = verdicts([study.judge(records, claim)]).iloc[0]
      >>> row["claim"], row["verdict"], row["worse at"]
      ('chita is more accurate than magnitude', 'violated', '90 %')
    """
    pd = need("pandas")
    return pd.DataFrame([
        {
            **f.claim.among,
            "claim": f"{f.claim.method} is {f.claim.words[0]} than {f.claim.peer}",
            "verdict": f.state,
            "better at": ", ".join(f.better),
            "worse at": ", ".join(f.worse),
        }
        for f in found
    ])  # fmt: skip
