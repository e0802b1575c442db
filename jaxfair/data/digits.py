"""Scikit-learn's handwritten digits: 1,797 images of 8 x 8."""

from collections.abc import Sequence

import numpy as np

from jaxfair.data._dataset import Dataset, Part, assemble
from jaxfair.data._errors import extra
from jaxfair.data._splits import SPLITS, stratified


def digits(
    *,
    flatten: bool = False,
    groups: str | Sequence[str] = "label",
    min_group_size: int = 0,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
) -> Dataset:
    """Images of digits, scaled to ``[0, 1]``; the group is the class.

    Args:
      flatten: ``x`` as ``[N, 64]`` instead of ``[N, 8, 8, 1]``.
      groups: ``label``, the only attribute.
      min_group_size: classes with fewer training images are merged into ``other``.
      unconstrained: names of groups that are not to be constrained.
      split_seed: which of the possible 70 / 10 / 20 splits, stratified by class.

    Raises:
      DataError: scikit-learn is not installed.

    Example:
      >>> from jaxfair import data
      >>> data.load("digits", flatten=True).train.x.shape
      (1260, 64)

    Reference: Alpaydin and Kaynak (1998), https://doi.org/10.24432/C50P49 (its test set).
    """
    bunch = extra("sklearn.datasets", need="digits").load_digits()
    x = (bunch.data / 16.0).astype(np.float32)  # 16 is the darkest value
    x = x if flatten else x.reshape(-1, 8, 8, 1)
    y = np.asarray(bunch.target, np.int64)
    rows = dict(zip(SPLITS, stratified(y, seed=split_seed), strict=True))
    return assemble(
        "digits",
        {split: Part(x[r], y[r], {}, r) for split, r in rows.items()},
        class_names=[str(c) for c in range(10)],
        vocabularies={},
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        source="scikit-learn, https://doi.org/10.24432/C50P49",
        licence="CC BY 4.0",
        citation="Alpaydin and Kaynak (1998). Optical Recognition of Handwritten Digits. UCI.",
    )
