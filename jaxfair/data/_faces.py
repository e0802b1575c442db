"""Faces: FairFace, UTKFace and LFW from a folder that you downloaded.

The labels of these datasets were given by strangers or by machines who looked at a picture. They
say how a person was seen, not who the person is; gender has two values and race a handful. Use them
to audit a model, not to build one that assigns people to such groups.

A folder is read once: its images are packed into array_record files under TFDS's ``data_dir``, and
read from there from then on. To read a changed folder, remove what was packed or give another
``data_dir``.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxfair.data._catalogue import Opened, open_tfds
from jaxfair.data._dataset import Dataset
from jaxfair.data._errors import DataError
from jaxfair.data._images import MAX_BYTES, Records, assemble_images
from jaxfair.data._splits import SPLITS, stratified
from jaxfair.data.folders import FAIRFACE, LFW, SEEN, UTKFACE, Folder

UTKFACE_AGE_EDGES = (10, 15, 20, 25, 30, 40, 50, 60)


def _open(about: Folder, folder: Any, data_dir: Any, splits: Sequence[str], columns: Sequence[str]) -> Opened:
    root = pathlib.Path(data_dir or "~/tensorflow_datasets").expanduser()
    packed = (root / about.builder / about.version / "dataset_info.json").is_file()
    path = root / "downloads" / "manual" if folder is None else pathlib.Path(folder).expanduser()
    if not packed and not path.is_dir():
        raise DataError(f"no folder {path}: {about.instructions}, and give it as folder=...")
    if not packed and not any(path.iterdir()):
        raise DataError(f"{path} holds no file: {about.instructions}")
    return open_tfds(about.builder, root, splits=splits, columns=columns, manual_dir=path)


def fairface(
    *,
    folder: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    target: str = "race",
    groups: str | Sequence[str] = "race",
    image_size: int | None = 224,
    standardize: bool = True,
    validation_percent: int = 10,
    min_group_size: int = 50,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """FairFace: 86,744 training faces and 10,954 more, the official validation list, used as test.

    Args:
      folder: what you downloaded: the two lists beside the folders ``train`` and ``val``.
      data_dir: where TFDS keeps prepared data; None: ``~/tensorflow_datasets``.
      target: ``race`` (7 classes), ``gender`` (2) or ``age`` (9).
      groups: ``race``, ``gender``, ``age``, ``label`` or several of them, whose intersection is
        meant.
      image_size: the side to which images are resized; None leaves them.
      standardize: channels by ImageNet's mean and deviation; else pixels are in [0, 1].
      validation_percent: of the training faces, stratified by race x gender; 0 keeps all for
        training.
      min_group_size: groups with fewer training faces are merged into ``other``.
      unconstrained: names of groups that are not to be constrained.
      split_seed: which of the possible validation splits.
      max_bytes: splits whose features take more are streamed (:class:`~jaxfair.data.Source`).

    Raises:
      DataError: the folder or a file in it is missing, with where to get it.

    Example:
      >>> fairface(folder="no_such_folder", data_dir="nor_this_one", groups=("race", "gender"))
      Traceback (most recent call last):
      jaxfair.data.DataError: no folder no_such_folder: download fairface from
      https://github.com/joojs/fairface, so that the folder holds ..., and give it as folder=...

    Reference: Karkkainen and Joo (2021), "FairFace: Face Attribute Dataset for Balanced Race,
    Gender, and Age", WACV.
    """
    opened = _open(FAIRFACE, folder, data_dir, ("train", "test"), ("age", "gender", "race"))
    return assemble_images(
        "fairface",
        opened.records,
        target=target,
        vocabularies=FAIRFACE.values,
        strata=("race", "gender"),
        channels="imagenet",
        standardize=standardize,
        image_size=image_size,
        max_bytes=max_bytes,
        validation_percent=validation_percent,
        split_seed=split_seed,
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        source=FAIRFACE.source,
        licence="CC BY 4.0",
        citation="Karkkainen, K. and Joo, J. (2021). FairFace. WACV.",
        notes=SEEN,
    )


def utkface(
    *,
    folder: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    target: str = "race",
    groups: str | Sequence[str] = "race",
    image_size: int | None = 200,
    standardize: bool = True,
    min_group_size: int = 50,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """UTKFace: 23,705 aligned faces, parted 70 / 10 / 20 and stratified by race x gender.

    Age, gender and race stand in the names of the files. Three published files lack the race and
    are left out.

    Args:
      folder: what you downloaded: the images, in this folder or below.
      data_dir: where TFDS keeps prepared data; None: ``~/tensorflow_datasets``.
      target: ``race`` (5 classes), ``gender`` (2) or ``age`` (9 bands).
      groups: ``race``, ``gender``, ``age``, ``label`` or several of them, whose intersection is
        meant.
      image_size: the side to which images are resized; None leaves them.
      standardize: channels by ImageNet's mean and deviation; else pixels are in [0, 1].
      min_group_size: groups with fewer training faces are merged into ``other``.
      unconstrained: names of groups that are not to be constrained.
      split_seed: which of the possible splits.
      max_bytes: splits whose features take more are streamed (:class:`~jaxfair.data.Source`).

    Raises:
      DataError: the folder is missing or holds no such file, with where to get it.

    Example:
      >>> utkface(folder="no_such_folder", data_dir="nor_this_one", target="age", groups="race")
      Traceback (most recent call last):
      jaxfair.data.DataError: no folder no_such_folder: download utkface from https...

    Reference: Zhang, Song and Qi (2017), "Age Progression/Regression by Conditional Adversarial
    Autoencoder", CVPR.
    """
    opened = _open(UTKFACE, folder, data_dir, ("train",), ("age", "gender", "race"))
    train = opened.records["train"]
    years = np.searchsorted(UTKFACE_AGE_EDGES, train.columns["age"], side="right")
    return assemble_images(
        "utkface",
        {"train": Records(train.read, {**train.columns, "age": years})},
        target=target,
        vocabularies=UTKFACE.values,
        strata=("race", "gender"),
        channels="imagenet",
        standardize=standardize,
        image_size=image_size,
        max_bytes=max_bytes,
        validation_percent=0,
        split_seed=split_seed,
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        source=UTKFACE.source,
        licence="non-commercial research",
        citation="Zhang, Z., Song, Y. and Qi, H. (2017). Age Progression/Regression by CAAE. CVPR.",
        notes=SEEN,
    )


def lfw(
    *,
    folder: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    target: str = "Smiling",
    groups: str | Sequence[str] = ("Male", "label"),
    image_size: int | None = 250,
    standardize: bool = True,
    min_group_size: int = 50,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """Labeled Faces in the Wild with machine-made attributes: 13,143 of its 13,233 pictures.

    A person is in one split only, or a network could know the face. 70 / 10 / 20 per cent of the
    people, stratified by how many pictures there are of them (1, 2 to 4, more).

    Args:
      folder: what you downloaded: ``lfw_attributes.txt`` beside the folder ``lfw``.
      data_dir: where TFDS keeps prepared data; None: ``~/tensorflow_datasets``.
      target: one of the attributes, such as ``Smiling``; positive scores count as present.
      groups: attributes, ``label``, or several of them, whose intersection is meant.
      image_size: the side to which images are resized; None leaves them.
      standardize: channels by ImageNet's mean and deviation; else pixels are in [0, 1].
      min_group_size: groups with fewer training pictures are merged into ``other``.
      unconstrained: names of groups that are not to be constrained.
      split_seed: which of the possible splits.
      max_bytes: splits whose features take more are streamed (:class:`~jaxfair.data.Source`).

    Raises:
      DataError: the folder or a file in it is missing, with where to get it.

    Example:
      >>> lfw(folder="no_such_folder", data_dir="nor_this_one", groups=("Male", "Senior"))
      Traceback (most recent call last):
      jaxfair.data.DataError: no folder no_such_folder: download lfw from
      https://ndownloader.figshare.com/files/5976018 and https://www.cs.columbia.edu/..., so that
      the folder holds lfw_attributes.txt and ...

    Reference: Huang et al. (2007), "Labeled Faces in the Wild"; Kumar et al. (2009), "Attribute and
    Simile Classifiers for Face Verification", ICCV.
    """
    columns = ("person", *(f"attributes/{name}" for name in LFW.values))
    train = _open(LFW, folder, data_dir, ("train",), columns).records["train"]
    person = train.columns["person"]
    pictures = np.searchsorted((2, 5), np.bincount(person), side="right")
    people = stratified(pictures, seed=split_seed)
    parted = {split: np.flatnonzero(np.isin(person, ids)) for split, ids in zip(SPLITS, people, strict=True)}
    return assemble_images(
        "lfw",
        {"train": Records(train.read, {a: train.columns[f"attributes/{a}"] for a in LFW.values})},
        target=target,
        vocabularies=LFW.values,
        strata=(),
        parted=parted,
        channels="imagenet",
        standardize=standardize,
        image_size=image_size,
        max_bytes=max_bytes,
        validation_percent=0,
        split_seed=split_seed,
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        source=LFW.source,
        licence="none stated; for research",
        citation="Huang, G. et al. (2007). Labeled Faces in the Wild. UMass Amherst 07-49.",
        notes=f"{SEEN} Its makers warn that women are few, children and many peoples hardly there.",
    )
