"""TFDS builders that need no TensorFlow: four of TFDS's own, amended, and three for faces.

Imported only when a dataset of TFDS is asked for. The three builders for faces read a folder that
the user downloaded (TFDS calls it the manual folder), because the terms of these datasets do not
let a program fetch them. Their rows keep the order of the source: TFDS is told not to shuffle.
"""

import csv
import gzip
import inspect
import io
import pathlib
import re
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from jaxfair.data._errors import DataError
from jaxfair.data.folders import FAIRFACE, LFW, UTKFACE, need_file

_CelebABuilder: Any = tfds.builder_cls("celeb_a")


def _code_path(builder: Any) -> epath.Path:
    """Where a builder's checksums lie; TFDS's own property needs an undeclared dependency."""
    return epath.Path(inspect.getfile(builder))


def _png(pixels: np.ndarray) -> io.BytesIO:
    """An image as TFDS stores it; given an array, TFDS would have TensorFlow encode it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    buffer.seek(0)
    return buffer


class Cifar10(tfds.image_classification.Cifar10, skip_registration=True):
    """TFDS's CIFAR-10; the archive is read by tarfile."""

    name = "cifar10"
    code_path = _code_path(tfds.image_classification.Cifar10)

    def _split_generators(self, dl_manager):
        return _cifar_splits(self, dl_manager)


class Cifar100(tfds.image_classification.Cifar100, skip_registration=True):
    """TFDS's CIFAR-100; the archive is read by tarfile."""

    name = "cifar100"
    code_path = _code_path(tfds.image_classification.Cifar100)

    def _split_generators(self, dl_manager):
        return _cifar_splits(self, dl_manager)


def _cifar_splits(builder: Any, dl_manager: Any) -> dict[str, Iterator]:
    about = builder._cifar_info
    with tarfile.open(dl_manager.download(about.url)) as archive:

        def content(name: str) -> bytes:
            file = archive.extractfile(about.prefix + name)
            if file is None:
                raise DataError(f"{about.url} has no file {name}: the download is damaged")
            return file.read()

        for key, name in zip(about.label_keys, about.label_files, strict=True):
            names = [line for line in content(name).decode().split("\n") if line]
            builder.info.features[key].names = names
        data = {
            "train": b"".join(content(name) for name in about.train_files),
            "test": b"".join(content(name) for name in about.test_files),
        }
    return {split: _cifar_examples(split, data[split], about.label_keys) for split in data}


def _cifar_examples(split: str, data: bytes, keys) -> Iterator:
    """One image: a byte per label, then 1,024 bytes for each of red, green and blue."""
    rows = np.frombuffer(data, np.uint8).reshape(-1, len(keys) + 3072)
    for index, row in enumerate(rows):
        yield (
            index,
            {
                "id": f"{split}_{index:05d}",
                "image": _png(row[len(keys) :].reshape(3, 32, 32).transpose(1, 2, 0)),
                **{key: int(row[i]) for i, key in enumerate(keys)},
            },
        )


class FashionMNIST(tfds.image_classification.FashionMNIST, skip_registration=True):
    """TFDS's Fashion-MNIST; the files are read by gzip."""

    name = "fashion_mnist"
    code_path = _code_path(tfds.image_classification.FashionMNIST)

    def _split_generators(self, dl_manager):
        files = {
            "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
            "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        }
        return {
            split: self._generate_examples(None, *(dl_manager.download(self.URL + f) for f in pair))
            for split, pair in files.items()
        }

    def _generate_examples(self, num_examples, data_path, label_path):
        with gzip.open(data_path) as file:
            images = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28, 1)
        with gzip.open(label_path) as file:
            labels = np.frombuffer(file.read()[8:], np.uint8)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": _png(image[:, :, 0]), "label": int(label)}


class CelebA(_CelebABuilder, skip_registration=True):  # pyright: ignore
    """TFDS's CelebA; the archive is read by zipfile."""

    name = "celeb_a"
    code_path = _code_path(_CelebABuilder)
    pkg_dir_path = code_path.parent

    def _split_generators(self, dl_manager):
        return super()._split_generators(_Downloads(dl_manager))


class _Downloads:
    """TFDS's download manager, with archives opened by the standard library."""

    def __init__(self, dl_manager: Any):
        self.download = dl_manager.download

    def iter_archive(self, path: Any) -> Iterator:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith("/"):
                    yield name, io.BytesIO(archive.read(name))


def _features(**more) -> Any:
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "file": tfds.features.Text(),
            **more,
        }
    )


class FairFace(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """FairFace, from its two lists and the images that they name."""

    name = "fairface"
    VERSION = tfds.core.Version(FAIRFACE.version)
    code_path = epath.Path(__file__)
    MANUAL_DOWNLOAD_INSTRUCTIONS = FAIRFACE.instructions

    def _info(self):
        label = {k: tfds.features.ClassLabel(names=list(v)) for k, v in FAIRFACE.values.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            features=_features(**label),
            homepage=FAIRFACE.source,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        folder = pathlib.Path(dl_manager.manual_dir)
        return {
            "train": self._generate_examples(folder, "fairface_label_train.csv"),
            "test": self._generate_examples(folder, "fairface_label_val.csv"),
        }

    def _generate_examples(self, folder, list_name):
        with need_file(FAIRFACE, folder, list_name).open(newline="") as file:
            for index, row in enumerate(csv.DictReader(file)):
                for column, allowed in FAIRFACE.values.items():
                    if row.get(column) not in allowed:
                        raise DataError(
                            f"{folder / list_name} line {index + 2}: {column} is {row.get(column)!r}: "
                            f"it must be one of {', '.join(allowed)}; download the list again"
                        )
                image = need_file(FAIRFACE, folder, row["file"])
                labels = {column: row[column] for column in FAIRFACE.values}
                yield index, {"image": image, "file": row["file"], **labels}


class UTKFace(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """UTKFace, from the names of its files: [age]_[gender]_[race]_[date].jpg."""

    name = "utkface"
    VERSION = tfds.core.Version(UTKFACE.version)
    code_path = epath.Path(__file__)
    MANUAL_DOWNLOAD_INSTRUCTIONS = UTKFACE.instructions

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=_features(
                age=np.int64,
                gender=tfds.features.ClassLabel(names=list(UTKFACE.values["gender"])),
                race=tfds.features.ClassLabel(names=list(UTKFACE.values["race"])),
            ),
            homepage=UTKFACE.source,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(pathlib.Path(dl_manager.manual_dir))}

    def _generate_examples(self, folder):
        index = 0
        for path in sorted(folder.rglob("*.jpg"), key=lambda p: p.name):
            # As published, three names lack the race, which cannot be told, and two others have
            # " .jpg" or "jpg" after the date.
            parsed = re.fullmatch(r"(\d+)_([01])_([0-4])_\d+ ?\.?jpg(\.chip\.jpg)?", path.name)
            if parsed:
                age, gender, race = (int(word) for word in parsed.groups()[:3])
                labels = {"age": age, "gender": gender, "race": race}
                yield index, {"image": path, "file": path.name, **labels}
                index += 1
        if index == 0:
            raise DataError(f"{folder} holds no file named [age]_[gender]_[race]_[date].jpg: {UTKFACE.instructions}")


class LFWAttributes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Labeled Faces in the Wild with the machine-made attributes of Kumar et al. (2009)."""

    name = "lfw_attributes"
    VERSION = tfds.core.Version(LFW.version)
    code_path = epath.Path(__file__)
    MANUAL_DOWNLOAD_INSTRUCTIONS = LFW.instructions

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=_features(
                person=np.int64,
                attributes=dict.fromkeys(LFW.values, np.int64),
            ),
            homepage=LFW.source,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(pathlib.Path(dl_manager.manual_dir))}

    def _generate_examples(self, folder):
        path = need_file(LFW, folder, "lfw_attributes.txt")
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        header = next((line[1:] for line in lines if len(line) > 2 and line[0] == "#"), None)
        if header is None or header[:2] != ["person", "imagenum"]:
            raise DataError(f"{path} has no header '# person imagenum ...': download it again")
        missing = [name for name in LFW.values if name not in header]
        if missing:
            raise DataError(f"{path} has no attribute {missing[0]!r}: download it again")
        people: dict[str, int] = {}
        index = 0
        for words in lines:
            if words[0].startswith("#") or len(words) < 3:
                continue
            if len(words) != len(header):
                raise DataError(f"{path}: the line of {words[0]} {words[1]} is cut: download it again")
            row = dict(zip(header, words, strict=True))
            person = row["person"].replace(" ", "_")
            file = f"{person}/{person}_{int(row['imagenum']):04d}.jpg"
            image = folder / "lfw" / file
            if not image.is_file():
                image = need_file(LFW, folder, file)
            yield (
                index,
                {
                    "image": image,
                    "file": file,
                    "person": people.setdefault(person, len(people)),
                    # The attributes are scores of classifiers: above 0 means present.
                    "attributes": {name: int(float(row[name]) > 0) for name in LFW.values},
                },
            )
            index += 1


BUILDERS: dict[str, Any] = {
    builder.name: builder for builder in (Cifar10, Cifar100, FashionMNIST, CelebA, FairFace, UTKFace, LFWAttributes)
}
