"""CIFAR from files, TFDS without TensorFlow, and folders of faces, all made here and tiny."""

import contextlib
import gzip
import io
import pathlib
import sys
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxfair import data

RNG = np.random.default_rng(0)


def pixels(size=8):
    return RNG.integers(0, 256, (size, size, 3)).astype(np.uint8)


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg")
    return buffer.getvalue()


def decoded(raw):
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"), np.float32) / 255


def cifar_file(path, n, *, broken=None):
    files = [jpeg(pixels(32)) for _ in range(n)]
    if broken is not None:
        files[broken] = b"\x00" * len(files[broken])
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        label=(np.arange(n) % 10).astype(np.int32),
        class_names=np.array([f"c{i}" for i in range(10)]),
    )
    return files


@pytest.fixture
def cifar(tmp_path):
    return {s: cifar_file(tmp_path / f"cifar10_{s}.npz", n) for s, n in (("train", 100), ("test", 20))}


def test_cifar_files_are_decoded_row_by_row(tmp_path, cifar):
    bundle = data.load("cifar10", data_dir=tmp_path, standardize=False)
    assert [len(b.y) for b in bundle.splits.values()] == [90, 10, 20]
    for split, batch in bundle.splits.items():
        files = cifar["test" if split == "test" else "train"]
        for i, row in enumerate(bundle.rows[split]):
            np.testing.assert_array_equal(batch.x[i], decoded(files[row]))
            assert batch.y[i] == batch.group[i] == row % 10
    both = np.concatenate([bundle.rows["train"], bundle.rows["validation"]])
    assert sorted(both) == list(range(100))
    assert bundle.group_sizes()["validation"].tolist() == [1] * 10


def test_standardised_pixels_and_the_whole_training_set(tmp_path, cifar):
    plain = data.load("cifar10", data_dir=tmp_path, standardize=False, validation_percent=0)
    scaled = data.load("cifar10", data_dir=tmp_path, validation_percent=0)
    assert len(plain.train.y) == 100
    assert len(plain.validation.y) == 0
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32)
    deviation = np.array([0.2470, 0.2435, 0.2616], np.float32)
    np.testing.assert_allclose(scaled.train.x, (plain.train.x - mean) / deviation, atol=1e-6)


def test_a_split_too_large_is_streamed_and_the_same(tmp_path, cifar):
    here = data.load("cifar10", data_dir=tmp_path)
    there = data.load("cifar10", data_dir=tmp_path, max_bytes=100_000)
    assert isinstance(here.train.x, np.ndarray)
    assert isinstance(there.train.x, data.Source)
    order = np.arange(90).reshape(9, 10)
    for a, b in zip(data.stream(there.train, order), order, strict=True):
        np.testing.assert_array_equal(a.x, here.train.x[b])


def test_damaged_cifar_files_are_named(tmp_path, cifar):
    whole = (tmp_path / "cifar10_train.npz").read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cifar10_train.npz").write_bytes(whole[:size])
        with pytest.raises(data.DataError, match=r"cifar10_train\.npz is (truncated|damaged|no)"):
            data.load("cifar10", data_dir=tmp_path)
    cifar_file(tmp_path / "cifar10_train.npz", 20, broken=7)
    with pytest.raises(data.DataError, match=r"image 7 of .*cifar10_train\.npz is damaged"):
        data.load("cifar10", data_dir=tmp_path)
    (tmp_path / "cifar10_test.npz").unlink()
    with pytest.raises(data.DataError, match=r"no file .*cifar10_test\.npz"):
        data.load("cifar10", data_dir=tmp_path)


@contextlib.contextmanager
def mocked(examples):
    """TFDS that serves these examples for every split."""
    with tfds.testing.mock_data(as_data_source_fn=lambda self, split, **_: examples):
        yield


def test_cifar100_by_fine_and_coarse_class():
    examples = [{"image": pixels(32), "label": i % 100, "coarse_label": i % 20} for i in range(400)]
    with mocked(examples):
        fine = data.load("cifar100")
        coarse = data.load("cifar100", groups="coarse")
        both = data.load("cifar100", target="coarse", groups="label")
    assert (fine.num_classes, fine.num_groups) == (100, 100)
    assert (coarse.num_classes, coarse.num_groups) == (100, 20)
    assert (both.num_classes, both.num_groups) == (20, 20)
    np.testing.assert_array_equal(coarse.train.group, coarse.rows["train"] % 20)
    np.testing.assert_array_equal(coarse.train.y, coarse.rows["train"] % 100)


def test_fashion_mnist_keeps_its_test_split():
    # Examples of our own: the random ones of mock_data need TensorFlow to be encoded.
    examples = [{"image": pixels(28)[..., :1], "label": i % 10} for i in range(60)]
    with mocked(examples):
        bundle = data.load("fashion_mnist", standardize=False)
    assert bundle.train.x.shape[1:] == (28, 28, 1)
    assert [len(b.y) for b in bundle.splits.values()] == [50, 10, 60]
    for row, x in zip(bundle.rows["train"], bundle.train.x, strict=True):
        np.testing.assert_array_equal(x, examples[row]["image"].astype(np.float32) / 255)


def test_celeb_a_by_any_attribute():
    names = ["Male", "Smiling", "Young"]
    examples = [
        {"image": pixels(), "attributes": {n: bool(i >> k & 1) for k, n in enumerate(names)}} for i in range(16)
    ]
    with mocked(examples):
        bundle = data.load("celeb_a", groups=("Young", "Male"), min_group_size=0)
        with pytest.raises(data.DataError, match="'Tall'"):
            data.load("celeb_a", target="Tall")
    assert bundle.group_names[1] == "not Young, Male"
    assert bundle.class_names == ("not Smiling", "Smiling")
    np.testing.assert_array_equal(bundle.train.y, np.arange(16) >> 1 & 1)
    np.testing.assert_array_equal(bundle.train.group, 2 * (np.arange(16) >> 2 & 1) + (np.arange(16) & 1))


@pytest.fixture
def downloads(monkeypatch):
    """What TFDS would fetch: url -> a file here."""
    files: dict[str, pathlib.Path] = {}

    def download(self, urls):
        return files[urls] if isinstance(urls, str) else {k: files[u] for k, u in urls.items()}

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    return files


def test_cifar_is_prepared_without_tensorflow(tmp_path, downloads):
    images = RNG.integers(0, 256, (60, 32, 32, 3)).astype(np.uint8)
    records = b"".join(bytes([i % 10]) + image.transpose(2, 0, 1).tobytes() for i, image in enumerate(images))
    size = 3073
    members = {f"data_batch_{b + 1}.bin": records[b * 10 * size : (b + 1) * 10 * size] for b in range(5)}
    members |= {"test_batch.bin": records[50 * size :]}
    members |= {"batches.meta.txt": "\n".join(f"c{i}" for i in range(10)).encode()}
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    downloads["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"] = path
    bundle = data.load("cifar10", data_dir=tmp_path / "tfds", standardize=False)
    assert "tensorflow" not in sys.modules
    assert bundle.class_names == tuple(f"c{i}" for i in range(10))
    assert sum(len(b.y) for b in bundle.splits.values()) == 60
    # TFDS shuffles what it writes, so images are told by their content.
    known = {image.tobytes(): i % 10 for i, image in enumerate(images)}
    for batch in bundle.splits.values():
        for x, y in zip(batch.x, batch.y, strict=True):
            assert known[np.rint(x * 255).astype(np.uint8).tobytes()] == y


def test_fashion_mnist_is_prepared_without_tensorflow(tmp_path, downloads):
    url = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    images = RNG.integers(0, 256, (30, 28, 28)).astype(np.uint8)
    for prefix in ("train", "t10k"):
        for kind, head, body in (
            ("images-idx3", 16, images.tobytes()),
            ("labels-idx1", 8, bytes(i % 10 for i in range(30))),
        ):
            path = tmp_path / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(b"\0" * head + body))
            downloads[url + path.name] = path
    bundle = data.load("fashion_mnist", data_dir=tmp_path / "tfds", standardize=False)
    assert bundle.class_names[0] == "T-shirt/top"
    known = {image.tobytes(): i % 10 for i, image in enumerate(images)}
    for x, y in zip(bundle.train.x, bundle.train.y, strict=True):
        assert known[np.rint(x * 255).astype(np.uint8).tobytes()] == y


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(self, urls):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", fail)
    with pytest.raises(data.DataError, match=r"could not prepare cifar100.*no route to host") as caught:
        data.load("cifar100", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def face(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(pixels(12)))
    return path


def test_utkface_reads_names_of_files(tmp_path):
    for i in range(40):
        face(tmp_path / "faces" / f"{2 * i}_{i % 2}_{i % 5}_201701161745251{i:02d}.jpg.chip.jpg")
    face(tmp_path / "faces" / "39_1_20170116174525125.jpg.chip.jpg")  # as published: no race
    for odd in ("24_0_1_20170116220224657 .jpg", "55_0_0_20170116232725357jpg"):
        face(tmp_path / "faces" / f"{odd}.chip.jpg")  # as published: the race is there
    options = {"folder": tmp_path / "faces", "data_dir": tmp_path / "tfds", "min_group_size": 0}
    bundle = data.load("utkface", image_size=10, **options)
    names = sorted(p.name for p in (tmp_path / "faces").iterdir() if p.name.count("_") == 3)
    assert len(names) == 42
    assert sum(len(b.y) for b in bundle.splits.values()) == 42
    assert bundle.train.x.shape[1:] == (10, 10, 3)
    edges = [10, 15, 20, 25, 30, 40, 50, 60]
    by_age = data.load("utkface", target="age", groups=("race", "gender"), **options)
    for split, batch in by_age.splits.items():
        for i, row in enumerate(by_age.rows[split]):
            age, gender, race = map(int, names[row].split("_")[:3])
            assert batch.y[i] == sum(age >= e for e in edges)
            assert by_age.group_names[batch.group[i]] == ", ".join(
                [("White", "Black", "Asian", "Indian", "Others")[race], ("Male", "Female")[gender]]
            )


def fairface_folder(root):
    races = ["White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
             "Middle Eastern"]  # fmt: skip
    root.mkdir()
    for split, n in (("train", 28), ("val", 14)):
        lines = ["file,age,gender,race,service_test"]
        for i in range(n):
            face(root / split / f"{i + 1}.jpg")
            gender = ("Male", "Female")[i % 2]
            lines.append(f"{split}/{i + 1}.jpg,20-29,{gender},{races[i % 7]},True")
        (root / f"fairface_label_{split}.csv").write_text("\n".join(lines) + "\n")
    return races


def test_fairface_keeps_its_lists_apart(tmp_path):
    races = fairface_folder(tmp_path / "faces")
    options = {"folder": tmp_path / "faces", "data_dir": tmp_path / "tfds", "min_group_size": 0}
    bundle = data.load("fairface", image_size=None, **options)
    assert [len(b.y) for b in bundle.splits.values()] == [28, 0, 14]
    assert (bundle.num_classes, bundle.num_groups) == (7, 7)
    for i, row in enumerate(bundle.rows["test"]):
        assert bundle.class_names[bundle.test.y[i]] == races[row % 7]


def test_lfw_parts_people_not_pictures(tmp_path):
    root = tmp_path / "faces"
    from jaxfair.data.folders import LFW

    header = ["#", "person", "imagenum", *LFW.values]
    lines = ["# LFW attributes", "\t".join(header)]
    male = {}
    for person in range(30):
        for number in range(1, 1 + person % 4 + 1):
            face(root / "lfw" / f"P_{person}" / f"P_{person}_{number:04d}.jpg")
            score = {"Male": person % 2 - 0.5, "Smiling": number % 2 - 0.5}
            male[len(male)] = (person, person % 2)
            values = [str(score.get(name, -1.0)) for name in LFW.values]
            lines.append("\t".join([f"P {person}", str(number), *values]))
    (root / "lfw_attributes.txt").write_text("\n".join(lines) + "\n")
    bundle = data.load(
        "lfw",
        folder=root,
        data_dir=tmp_path / "tfds",
        groups="Male",
        image_size=8,
        min_group_size=0,
    )
    people = [{male[int(r)][0] for r in rows} for rows in bundle.rows.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 30
    np.testing.assert_array_equal(bundle.train.group, [male[int(r)][1] for r in bundle.rows["train"]])


@pytest.mark.parametrize("name", ["fairface", "utkface", "lfw"])
def test_a_missing_folder_says_where_to_get_it(tmp_path, name):
    with pytest.raises(data.DataError) as caught:
        data.load(name, folder=tmp_path / "gone", data_dir=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in (str(tmp_path / "gone"), "download", "http", "holds"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(data.DataError, match=r"empty (has|holds) no file"):
        data.load(name, folder=tmp_path / "empty", data_dir=tmp_path)


def test_a_list_that_names_a_missing_face(tmp_path):
    fairface_folder(tmp_path / "faces")
    (tmp_path / "faces" / "train" / "3.jpg").unlink()
    with pytest.raises(data.DataError, match=r"no file train/3\.jpg"):
        data.load("fairface", folder=tmp_path / "faces", data_dir=tmp_path / "tfds")
