"""TFDS without TensorFlow: a dataset's splits as random-access records.

TFDS reads array_record files without TensorFlow (``as_data_source``), and writes them without it.
What does need TensorFlow in TFDS 4.9 is unpacking a download (``core/download/extractor.py`` opens
every archive through ``tf.io.gfile``), as do the readers of the CIFAR and MNIST files.
:mod:`jaxfair.data._builders` replaces just these by the standard library; names, versions and
features stay TFDS's own, so that data prepared by either can be read by the other.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data._errors import DataError, extra
from jaxfair.data._images import Records


class Opened(NamedTuple):
    """A prepared dataset.

    Attributes:
      records: split -> its rows.
      vocabularies: column -> the names of its codes, for the columns that have names.
    """

    records: dict[str, Records]
    vocabularies: dict[str, tuple[str, ...]]


class _Image(NamedTuple):
    """Reads the image of a record."""

    data_source: Any

    def read(self, row: int) -> np.ndarray:
        return np.asarray(self.data_source[row]["image"])


def open_tfds(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    splits: Sequence[str],
    columns: Sequence[str],
    manual_dir: str | os.PathLike[str] | None = None,
) -> Opened:
    """Prepare a dataset where that is not done yet, and open its splits.

    Args:
      name: in TFDS, or of one of our builders.
      data_dir: where TFDS keeps prepared data; None: its default, ``~/tensorflow_datasets``.
      splits: to open.
      columns: integer features to read of every record; ``a/b`` is feature ``b`` inside ``a``.
      manual_dir: the folder that the user downloaded, for our builders.

    Raises:
      DataError: TFDS is not installed, or cannot download or prepare the data.
    """
    tfds = extra("tensorflow_datasets", need=name)
    extra("array_record", need=name)
    from jaxfair.data import _builders as builders  # here, because it imports TFDS

    try:
        builder = builders.BUILDERS[name](
            data_dir=None if data_dir is None else os.path.expanduser(data_dir),
            file_format="array_record",
        )
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=None if manual_dir is None else os.fspath(manual_dir),
                try_download_gcs=False,
            )
        )
        opened = {split: builder.as_data_source(split=split) for split in splits}
        # The image of a record is by far its dearest part, and the columns do not need it.
        plain = {
            split: builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
            for split in splits
        }
    except DataError:
        raise
    except Exception as error:  # downloads, disks and formats fail in too many ways to list
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise DataError(
            f"TFDS could not prepare {name} ({type(error).__name__}: {reason}): check the network "
            "connection, or give a data_dir that holds it prepared as array_record"
        ) from error
    features = builder.info.features
    records, vocabularies = {}, {}
    for split in splits:
        values: dict[str, list[int]] = {column: [] for column in columns}
        for row in range(len(plain[split])):
            record = plain[split][row]
            for column in columns:
                values[column].append(int(_inside(record, column)))
        records[split] = Records(_Image(opened[split]).read, {c: np.array(v, np.int64) for c, v in values.items()})
    for column in columns:
        names = getattr(_inside(features, column), "names", None)
        if names is not None:
            vocabularies[column] = tuple(names)
    return Opened(records, vocabularies)


def _inside(tree: Any, path: str) -> Any:
    for key in path.split("/"):
        tree = tree[key]
    return tree
