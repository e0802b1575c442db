"""One door to all datasets."""

import dataclasses
import difflib
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from jaxfair.data._celeba import celeb_a
from jaxfair.data._cifar import cifar10, cifar100, fashion_mnist
from jaxfair.data._dataset import Dataset, good_outcome
from jaxfair.data._errors import DataError, listed
from jaxfair.data._faces import fairface, lfw, utkface
from jaxfair.data.adult import adult
from jaxfair.data.digits import digits
from jaxfair.data.own import SUFFIXES, own

_ALL = adult, digits, cifar10, cifar100, fashion_mnist, celeb_a, fairface, utkface, lfw
_LOADERS: dict[str, Callable[..., Dataset]] = {loader.__name__: loader for loader in _ALL}


def names() -> tuple[str, ...]:
    """The datasets that :func:`load` knows by name.

    Returns:
      Their names; files of the user's own are loaded by their path instead.

    Example:
      >>> names()
      ('adult', 'digits', 'cifar10', 'cifar100', 'fashion_mnist', 'celeb_a', 'fairface', 'utkface', 'lfw')
    """
    return tuple(_LOADERS)


def load(name: str | os.PathLike[str], **options: Any) -> Dataset:
    """The dataset of that name, or the user's own from a file.

    Args:
      name: one of :func:`names`, or the path of a ``.csv``, ``.parquet`` or ``.npz`` file, or of a folder of
        ``.parquet`` parts. What a file must hold: ``help(data.own)``, and `docs/data.md`.
      **options: of that dataset; its function in this package says which (``help(data.adult)``).
        Most take ``groups``, ``min_group_size``, ``unconstrained`` and ``split_seed``. All take
        ``positive``, the name of the class that is the good outcome for a person.

    Raises:
      DataError: an unknown name or option, or data that cannot be used. One line that says what to
        do.

    Example:
      >>> from jaxfair import data
      >>> digits = data.load("digits")
      >>> digits.train.x.shape, digits.num_groups
      ((1260, 8, 8, 1), 10)

      A table of one's own, in which the class is called ``income``:

      >>> data.load("people.csv", label="income", groups=("sex", "region"), positive="high")
      Traceback (most recent call last):
      ...
      jaxfair.data.DataError: no file people.csv: give the path of a .csv, .tsv, .parquet, .npz file that exists
    """
    name = os.fspath(name)
    loader = _LOADERS.get(name)
    if loader is None and (name.lower().endswith(SUFFIXES) or os.path.isdir(name)):
        loader = functools.partial(own, name)
    if loader is None:
        close = difflib.get_close_matches(name, _LOADERS, n=1)
        hint = f"did you mean {close[0]!r}? Choose" if close else "choose"
        raise DataError(
            f"no dataset {name!r}: {hint} from {listed(_LOADERS)}, or give the path of a {listed(SUFFIXES)} file"
        )
    allowed = [p.name for p in inspect.signature(loader).parameters.values() if p.kind == p.KEYWORD_ONLY]
    positive = None if "positive" in allowed else options.pop("positive", None)
    for option in options:
        if option not in allowed:
            choices = listed(dict.fromkeys([*allowed, "positive"]))
            raise DataError(f"{name} takes no option {option!r}: choose from {choices}")
    dataset = loader(**options)
    if positive is None:
        return dataset
    return dataclasses.replace(dataset, positive=good_outcome(positive, dataset.class_names, dataset=name))
