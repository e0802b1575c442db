"""What the image datasets share: decoding, scaling, and which row goes to which split."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data._dataset import Dataset, Part, assemble
from jaxfair.data._errors import DataError, extra, listed
from jaxfair.data._splits import SPLITS, cells, stratified
from jaxfair.data.stream import Source, fits, in_memory
from jaxfair.typing import Batch

#: Bytes of features that a split may take before it is streamed instead.
MAX_BYTES = 2**31

#: Mean and deviation of each channel, of pixels in [0, 1], on the published training split.
#: Constants, so that they depend neither on the split nor on whether the data fit in memory.
CHANNELS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class Records(NamedTuple):
    """The rows of one split of the source.

    Attributes:
      read: row -> ``[H, W, channels]`` uint8. Called from several threads at once.
      columns: attribute -> ``[N]`` integers.
    """

    read: Callable[[int], np.ndarray]
    columns: Mapping[str, np.ndarray]


def decode(data: bytes, *, where: str) -> np.ndarray:
    """An image file's bytes as ``[H, W, 3]`` uint8.

    Raises:
      DataError: it is damaged; the message says which image of which file (``where``).
    """
    image = extra("PIL.Image", need=where)
    try:
        with image.open(io.BytesIO(data)) as opened:
            return np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three on damaged files
        raise DataError(f"{where} is damaged ({type(error).__name__}): download it again") from None


def assemble_images(
    name: str,
    records: Mapping[str, Records],
    *,
    target: str,
    vocabularies: Mapping[str, Sequence[str]],
    strata: Sequence[str],
    channels: str,
    standardize: bool,
    image_size: int | None,
    max_bytes: int,
    validation_percent: int,
    split_seed: int,
    parted: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> Dataset:
    """A :class:`Dataset` of images.

    A source with the splits train and test (and validation) keeps them; a validation split that it
    does not have is carved out of train. A source with one split is parted 70 / 10 / 20, or as
    ``parted`` says.

    Args:
      name: of the dataset.
      records: ``train``, and ``test`` or ``validation`` where the source has them.
      target: the attribute that is to be predicted.
      vocabularies: attribute -> names of its values.
      strata: the attributes by which splits are stratified, where they are made here.
      channels: the key of :data:`CHANNELS`.
      standardize: subtract the channels' means and divide by their deviations; else pixels are in
        [0, 1].
      image_size: the side to which images are resized (bilinear); None leaves them.
      max_bytes: splits whose features take more are streamed.
      validation_percent: of the training split, where it is carved out; a whole number.
      split_seed: which of the possible splits.
      parted: split -> rows of ``records["train"]``.
      **options: of :func:`~jaxfair.data._dataset.assemble`.
    """
    if target not in vocabularies:
        choices = listed(sorted(vocabularies))
        raise DataError(f"{name} has no target {target!r}: choose from {choices}")
    if isinstance(validation_percent, bool) or validation_percent not in range(100):
        raise DataError(f"validation_percent={validation_percent!r} is no whole number in [0, 100): give one")
    for split, of_split in records.items():
        if len(of_split.columns[target]) == 0:
            raise DataError(f"{name} has no example in its split {split}: check the folder")
    places: dict[str, tuple[str, np.ndarray]] = {
        split: (split, np.arange(len(records[split].columns[target]))) for split in records
    }
    if parted is not None:
        places = {split: ("train", np.asarray(rows)) for split, rows in parted.items()}
    elif set(records) == {"train"}:
        stratum = cells(*(records["train"].columns[s] for s in strata))
        places = {
            split: ("train", rows) for split, rows in zip(SPLITS, stratified(stratum, seed=split_seed), strict=True)
        }
    elif "validation" not in records:
        stratum = cells(*(records["train"].columns[s] for s in strata))
        percent = (100 - validation_percent, validation_percent)
        train, validation = stratified(stratum, seed=split_seed, percent=percent)
        places |= {"train": ("train", train), "validation": ("train", validation)}
    mean, deviation = (np.asarray(c, np.float32) for c in CHANNELS[channels])
    first, rows = places["train"]
    shape = (
        (image_size, image_size, len(mean))
        if image_size is not None
        else tuple(records[first].read(int(rows[0])).shape)
    )

    def reader(read):
        def features(row: int) -> np.ndarray:
            image = read(row)
            if image_size is not None and image.shape[:2] != (image_size, image_size):
                pillow = extra("PIL.Image", need=name)
                small = pillow.fromarray(image.squeeze()).resize((image_size, image_size), 2)
                image = np.asarray(small).reshape(image_size, image_size, -1)
            x = image.astype(np.float32) / np.float32(255)
            return (x - mean) / deviation if standardize else x

        return features

    parts = {}
    for split in SPLITS:
        source, rows = places[split]
        columns = {a: np.asarray(c)[rows] for a, c in records[source].columns.items()}
        x: Any = Source(reader(records[source].read), rows, shape)
        blank = np.zeros(len(rows), np.int32)
        batch = Batch(x, blank, blank, blank, blank)
        if fits(batch, max_bytes=max_bytes):
            blank_index = np.arange(len(rows), dtype=np.int32)
            x = in_memory(batch._replace(index=blank_index)).x
        parts[split] = Part(x, columns[target], columns, rows)
    return assemble(
        name,
        parts,
        class_names=vocabularies[target],
        vocabularies=vocabularies,
        **options,
    )
