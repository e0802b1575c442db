"""CIFAR-10, CIFAR-100 and Fashion-MNIST: the group is the class.

All come through TFDS. CIFAR-10 can be read from two ``.npz`` files as well, ``cifar10_train.npz``
and ``cifar10_test.npz``: ``jpeg`` (uint8, all image files one after another), ``offsets`` (``[N +
1]`` int64, where each begins), ``label`` (``[N]`` int32) and ``class_names``.

References: Krizhevsky (2009), "Learning Multiple Layers of Features from Tiny Images"; Xiao, Rasul
and Vollgraf (2017), "Fashion-MNIST".
"""

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxfair.data._catalogue import Opened, open_tfds
from jaxfair.data._dataset import Dataset
from jaxfair.data._errors import DataError, listed
from jaxfair.data._images import MAX_BYTES, Records, assemble_images, decode
from jaxfair.data._table import read_npz

_CIFAR: dict[str, Any] = {
    "source": "https://www.cs.toronto.edu/~kriz/cifar.html",
    "licence": "none stated; for research",
    "citation": "Krizhevsky, A. (2009). Learning Multiple Layers of Features from Tiny Images.",
    "notes": "Drawn from the withdrawn collection Tiny Images; the labels contain known errors.",
}


def cifar10(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    groups: str | Sequence[str] = "label",
    standardize: bool = True,
    validation_percent: int = 10,
    min_group_size: int = 0,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """60,000 colour images of 32 x 32 in 10 classes: 45,000 / 5,000 / 10,000 by default.

    Args:
      data_dir: a folder with ``cifar10_train.npz`` and ``cifar10_test.npz``, or else TFDS's
        ``data_dir``.
      groups: ``label``, the only attribute.
      standardize: each channel to mean 0 and deviation 1; else pixels are in [0, 1].
      validation_percent: of the training images, stratified by class; 0 keeps all for training.
      min_group_size: classes with fewer training images are merged into ``other``.
      unconstrained: names of groups that are not to be constrained.
      split_seed: which of the possible validation splits.
      max_bytes: splits whose features take more are streamed (:class:`~jaxfair.data.Source`).

    Raises:
      DataError: a file is missing, truncated or damaged, or TFDS cannot prepare the data.

    Example:
      A folder with the two files, here with four grey images each:

      >>> import io, pathlib, tempfile
      >>> from PIL import Image
      >>> from jaxfair import data
      >>> folder, file = tempfile.TemporaryDirectory(), io.BytesIO()
      >>> Image.new("RGB", (32, 32), (128, 128, 128)).save(file, "jpeg")
      >>> jpeg = np.frombuffer(file.getvalue(), np.uint8)
      >>> for split in ("train", "test"):
      ...     np.savez(
      ...         pathlib.Path(folder.name, f"cifar10_{split}.npz"), jpeg=np.tile(jpeg, 4),
      ...         offsets=np.arange(5) * len(jpeg), label=np.array([0, 0, 1, 1], np.int32),
      ...         class_names=["airplane", "automobile"])
      >>> data.load("cifar10", data_dir=folder.name, validation_percent=50)
      Dataset('cifar10': 2 train, 2 validation, 4 test, x [32, 32, 3], 2 classes, 2 groups)
      >>> folder.cleanup()
    """
    folder = None if data_dir is None else pathlib.Path(data_dir).expanduser()
    if folder is not None and (folder / "cifar10_train.npz").is_file():
        opened = _from_files(folder)
    else:
        opened = open_tfds("cifar10", data_dir, splits=("train", "test"), columns=("label",))
    return assemble_images(
        "cifar10",
        opened.records,
        target="label",
        vocabularies=opened.vocabularies,
        strata=("label",),
        channels="cifar10",
        standardize=standardize,
        image_size=None,
        max_bytes=max_bytes,
        validation_percent=validation_percent,
        split_seed=split_seed,
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        **_CIFAR,
    )


def cifar100(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    target: str = "fine",
    groups: str | Sequence[str] = "label",
    standardize: bool = True,
    validation_percent: int = 10,
    min_group_size: int = 0,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """60,000 colour images of 32 x 32 in 100 classes of 20 superclasses.

    Args:
      data_dir: TFDS's ``data_dir``.
      target: ``fine`` (100 classes) or ``coarse`` (20).
      groups: ``label`` (whatever the target is), ``fine`` or ``coarse``.
      standardize: each channel to mean 0 and deviation 1; else pixels are in [0, 1].
      validation_percent: of the training images, stratified by fine class; 0 keeps all for
        training.
      min_group_size: groups with fewer training images are merged into ``other``.
      unconstrained: names of groups that are not to be constrained.
      split_seed: which of the possible validation splits.
      max_bytes: splits whose features take more are streamed (:class:`~jaxfair.data.Source`).

    Raises:
      DataError: TFDS cannot prepare the data, or an unknown target or group.

    Example:
      ``data.load("cifar100", groups="coarse")`` predicts 100 classes and audits 20 groups. A
      misspelt option is named, with those there are, before anything is read:

      >>> from jaxfair import data
      >>> data.load("cifar100", group="coarse")
      Traceback (most recent call last):
        ...
      jaxfair.data.DataError: cifar100 takes no option 'group': choose from data_dir, target,
      groups, standardize, validation_percent, min_group_size, unconstrained, split_seed, max_bytes,
      positive
    """
    names = {"label": "fine", "coarse_label": "coarse"}
    opened = open_tfds("cifar100", data_dir, splits=("train", "test"), columns=tuple(names))
    return assemble_images(
        "cifar100",
        {split: Records(r.read, {names[c]: v for c, v in r.columns.items()}) for split, r in opened.records.items()},
        target=target,
        vocabularies={names[c]: v for c, v in opened.vocabularies.items()},
        strata=("fine",),
        channels="cifar100",
        standardize=standardize,
        image_size=None,
        max_bytes=max_bytes,
        validation_percent=validation_percent,
        split_seed=split_seed,
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        **_CIFAR,
    )


def fashion_mnist(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    groups: str | Sequence[str] = "label",
    standardize: bool = True,
    validation_percent: int = 10,
    min_group_size: int = 0,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """70,000 grey images of 28 x 28 in 10 classes of clothing: 54,000 / 6,000 / 10,000 by default.

    Args:
      data_dir: TFDS's ``data_dir``.
      groups: ``label``, the only attribute.
      standardize: pixels to mean 0 and deviation 1; else they are in [0, 1].
      validation_percent: of the training images, stratified by class; 0 keeps all for training.
      min_group_size: classes with fewer training images are merged into ``other``.
      unconstrained: names of groups that are not to be constrained.
      split_seed: which of the possible validation splits.
      max_bytes: splits whose features take more are streamed (:class:`~jaxfair.data.Source`).

    Raises:
      DataError: TFDS cannot prepare the data.

    Example:
      ``data.load("fashion_mnist")`` downloads 30 MB once. Its options, with their defaults:

      >>> import inspect
      >>> from jaxfair import data
      >>> for option in inspect.signature(data.fashion_mnist).parameters.values():
      ...     print(option.name, "=", repr(option.default))
      data_dir = None
      groups = 'label'
      standardize = True
      validation_percent = 10
      min_group_size = 0
      unconstrained = ()
      split_seed = 0
      max_bytes = 2147483648
    """
    opened = open_tfds("fashion_mnist", data_dir, splits=("train", "test"), columns=("label",))
    return assemble_images(
        "fashion_mnist",
        opened.records,
        target="label",
        vocabularies=opened.vocabularies,
        strata=("label",),
        channels="fashion_mnist",
        standardize=standardize,
        image_size=None,
        max_bytes=max_bytes,
        validation_percent=validation_percent,
        split_seed=split_seed,
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        source="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        citation="Xiao, H., Rasul, K. and Vollgraf, R. (2017). Fashion-MNIST. arXiv:1708.07747.",
    )


def _from_files(folder: pathlib.Path) -> Opened:
    records, names = {}, ()
    for split in ("train", "test"):
        path = folder / f"cifar10_{split}.npz"
        if not path.is_file():
            raise DataError(f"no file {path}: it must lie beside cifar10_train.npz")
        arrays = read_npz(path)
        for name in ("jpeg", "offsets", "label", "class_names"):
            if name not in arrays:
                raise DataError(f"{path} has no array {name!r}, only {listed(arrays)}: make it again")
        jpeg, offsets, label = arrays["jpeg"], arrays["offsets"], arrays["label"]
        names = tuple(arrays["class_names"].tolist())
        if (
            len(offsets) != len(label) + 1
            or offsets[-1] != len(jpeg)
            or (np.diff(offsets) <= 0).any()
            or not set(np.unique(label).tolist()) <= set(range(len(names)))
        ):
            raise DataError(f"{path}: offsets, label and jpeg do not belong together: make it again")
        read = functools.partial(_read_jpeg, path, jpeg, offsets)
        records[split] = Records(read, {"label": label.astype(np.int64)})
    return Opened(records, {"label": names})


def _read_jpeg(path: pathlib.Path, jpeg: Any, offsets: Any, row: int) -> np.ndarray:
    return decode(jpeg[offsets[row] : offsets[row + 1]].tobytes(), where=f"image {row} of {path}")
