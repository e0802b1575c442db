"""Folders of faces that a user downloads: what is in them, and where they are to be had."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from jaxfair.data._errors import DataError


class Folder(NamedTuple):
    """A dataset that the user downloads.

    Attributes:
      name: in :func:`~jaxfair.data.load`.
      builder: in TFDS.
      source: where to get it.
      expected: a file or a pattern that the folder must hold.
      values: attribute -> names of its values, in the order of the codes.
      version: of what is packed from it; another is packed anew.
    """

    name: str
    builder: str
    source: str
    expected: str
    values: Mapping[str, tuple[str, ...]]
    version: str = "1.0.0"

    @property
    def instructions(self) -> str:
        """One line on what to download, and where it is to be had."""
        return f"download {self.name} from {self.source}, so that the folder holds {self.expected}"


#: FairFace: age, gender and race of each face, from two tables.
FAIRFACE = Folder(
    name="fairface",
    builder="fairface",
    source="https://github.com/joojs/fairface",
    expected="fairface_label_train.csv, fairface_label_val.csv, train/ and val/",
    values={
        "age": ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"),
        "gender": ("Female", "Male"),
        "race": ("Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast Asian", "White"),
    },
)  # fmt: skip
#: UTKFace: age, gender and race of each face, from the name of its file.
UTKFACE = Folder(
    name="utkface",
    builder="utkface",
    source="https://susanqq.github.io/UTKFace/",
    expected="the files [age]_[gender]_[race]_[date].jpg",
    values={
        "age": ("0-9", "10-14", "15-19", "20-24", "25-29", "30-39", "40-49", "50-59", "60+"),
        "gender": ("Male", "Female"),
        "race": ("White", "Black", "Asian", "Indian", "Others"),
    },
)
_LFW_ATTRIBUTES = (
    "Male", "Asian", "White", "Black", "Indian", "Baby", "Child", "Youth", "Middle Aged", "Senior",
    "Smiling", "Eyeglasses", "Sunglasses", "Attractive Woman", "Wearing Hat", "Bald", "Blond Hair",
    "Black Hair", "Mouth Slightly Open", "Wearing Lipstick", "Wavy Hair", "Big Nose",
)  # fmt: skip
#: Labelled Faces in the Wild, with attributes that a classifier found.
LFW = Folder(
    name="lfw",
    builder="lfw_attributes",
    source=(
        "https://ndownloader.figshare.com/files/5976018 and "
        "https://www.cs.columbia.edu/CAVE/databases/pubfig/download/lfw_attributes.txt"
    ),
    expected="lfw_attributes.txt and lfw/[person]/[person]_[number].jpg",
    values={name: (f"not {name}", name) for name in _LFW_ATTRIBUTES},
    version="1.1.0",  # two more attributes
)
#: What the notes of every dataset of faces begin with.
SEEN = (
    "Known harms: race and gender were assigned by people or machines from a picture, not by the "
    "person; people did not agree to be in it."
)


def need_file(folder: Folder, path: pathlib.Path, name: str) -> pathlib.Path:
    """The file of that name in the folder; a :class:`DataError` where it is missing."""
    if not (path / name).is_file():
        raise DataError(f"{path} has no file {name}: {folder.instructions}")
    return path / name
