"""CelebA by TFDS: any of its 40 attributes as the target, any of them as groups."""

import os
from collections.abc import Sequence

from jaxfair.data._catalogue import open_tfds
from jaxfair.data._dataset import Dataset
from jaxfair.data._errors import DataError, listed
from jaxfair.data._images import MAX_BYTES, Records, assemble_images
from jaxfair.data.folders import SEEN

ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs",
    "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows",
    "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup",
    "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard",
    "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns",
    "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip


def celeb_a(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    target: str = "Smiling",
    groups: str | Sequence[str] = ("Male", "label"),
    image_size: int | None = None,
    standardize: bool = True,
    min_group_size: int = 50,
    unconstrained: str | Sequence[str] = (),
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """CelebA: 202,599 faces of celebrities with 40 binary attributes, in the published splits.

    Args:
      data_dir: where TFDS keeps prepared data; None: ``~/tensorflow_datasets``.
      target: one of the 40 attributes, such as ``Blond_Hair``.
      groups: attributes, ``label``, or several of them, whose intersection is meant.
      image_size: the side to which images are resized; None leaves them at 218 x 178.
      standardize: channels by ImageNet's mean and deviation; else pixels are in [0, 1].
      min_group_size: groups with fewer training faces are merged into ``other``.
      unconstrained: names of groups that are not to be constrained.
      max_bytes: splits whose features take more are streamed (:class:`~jaxfair.data.Source`).

    Raises:
      DataError: TFDS cannot prepare the data (Google Drive often refuses), or an unknown attribute.

    Example:
      ``data.load("celeb_a", target="Blond_Hair", groups=("Male", "label"))``. A name that is not
      one of the 40 is found before anything is downloaded:

      >>> from jaxfair import data
      >>> data.load("celeb_a", target="Blonde_Hair")
      Traceback (most recent call last):
        ...
      jaxfair.data.DataError: celeb_a has no attribute 'Blonde_Hair': choose from
      5_o_Clock_Shadow, Arched_Eyebrows, Attractive, ...

    Reference: Liu, Luo, Wang and Tang (2015), "Deep Learning Face Attributes in the Wild", ICCV.
    """
    wanted = [target, *([groups] if isinstance(groups, str) else groups)]
    names = list(dict.fromkeys(name for name in wanted if name != "label"))
    for name in names:
        if name not in ATTRIBUTES:
            raise DataError(f"celeb_a has no attribute {name!r}: choose from {listed(ATTRIBUTES)}")
    columns = tuple(f"attributes/{name}" for name in names)
    opened = open_tfds("celeb_a", data_dir, splits=("train", "validation", "test"), columns=columns)
    return assemble_images(
        "celeb_a",
        {
            split: Records(r.read, {name: r.columns[f"attributes/{name}"] for name in names})
            for split, r in opened.records.items()
        },
        target=target,
        vocabularies={name: (f"not {name}", name) for name in names},
        strata=(),
        channels="imagenet",
        standardize=standardize,
        image_size=image_size,
        max_bytes=max_bytes,
        validation_percent=0,
        split_seed=0,
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        source="http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        licence="non-commercial research",
        citation="Liu, Z. et al. (2015). Deep Learning Face Attributes in the Wild. ICCV.",
        notes=f"{SEEN} Some attributes, such as Attractive, are judgements.",
    )
