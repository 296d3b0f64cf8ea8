"""Data sets from small files in their makers' own formats; nothing reaches the network."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from src.config import Data
from src.data import sets
from src.data.names import SETS, image_shape
from src.data.sets import MARGIN, DataError, load
from tests.helpers import typed

TORCHVISION = {
    "fashion_mnist": datasets.FashionMNIST,
    "mnist": datasets.MNIST,
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no Debian package, nothing remembered."""

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    for maker in TORCHVISION.values():
        monkeypatch.setattr(maker, "download", offline)
    monkeypatch.setattr(sets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    sets._load.cache_clear()


# --- idx and CIFAR's pickles -----------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    """LeCun's format: 0, 0, 8 for uint8, the number of axes, their sizes, the bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def mnist_files(folder: Path, pack: Callable[[bytes], bytes], ending: str) -> dict[str, np.ndarray]:
    """Twelve training and five test images, and what is in them."""
    folder.mkdir(parents=True)
    generator, found = np.random.default_rng(0), {}
    for part, count in (("train", 12), ("t10k", 5)):
        found[part] = generator.integers(0, 256, (count, 28, 28), np.uint8)
        found[f"{part} labels"] = generator.integers(0, 10, count, np.uint8)
        (folder / f"{part}-images-idx3-ubyte{ending}").write_bytes(pack(idx(found[part])))
        (folder / f"{part}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(found[f"{part} labels"])))
    return found


def same(part: sets.Images, images: np.ndarray, labels: np.ndarray) -> bool:
    return np.array_equal(part.images.numpy(), images) and part.labels.tolist() == labels.tolist()


def test_fashion_mnist_is_unpacked_from_debians_files(tmp_path):
    found = mnist_files(tmp_path / "debian", gzip.compress, ".gz")
    source = load("fashion_mnist", str(tmp_path / "data"), 64)
    assert same(source.train, found["train"][:, None], found["train labels"])
    assert same(source.test, found["t10k"][:, None], found["t10k labels"])
    assert source.classes[:3] == ["T-shirt/top", "Trouser", "Pullover"]
    assert source.beyond == "black"
    left = sorted(path.name for path in (tmp_path / "data" / "FashionMNIST").iterdir())
    assert left == ["raw"]


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_the_mnists_are_read_where_torchvision_keeps_them(tmp_path, name, folder):
    found = mnist_files(tmp_path / folder / "raw", bytes, "")
    source = load(name, str(tmp_path), 64)
    assert same(source.train, found["train"][:, None], found["train labels"])
    assert source.train.canvas is None
    assert image_shape(typed(Data, name=name)) == ((1, 28, 28), len(source.classes))


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, np.ndarray]]:
    """Writes CIFAR's files, four images in each, whose checksums then count as right."""
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda path, _=None: Path(path).is_file())

    def write(name: str) -> dict[str, np.ndarray]:
        maker, generator, found = TORCHVISION[name], np.random.default_rng(0), {}
        folder = tmp_path / maker.base_folder
        folder.mkdir()
        key = "labels" if name == "cifar10" else "fine_labels"
        names = {maker.meta["key"]: [f"class {i}" for i in range(10 if name == "cifar10" else 100)]}
        (folder / maker.meta["filename"]).write_bytes(pickle.dumps(names))
        for part, files in (("train", maker.train_list), ("test", maker.test_list)):
            pixels = generator.integers(0, 256, (len(files), 4, 3072), np.uint8)
            labels = generator.integers(0, 10, (len(files), 4))
            for (file, _), rows, classes in zip(files, pixels, labels, strict=True):
                (folder / file).write_bytes(pickle.dumps({"data": rows, key: classes.tolist()}))
            found |= {part: pixels.reshape(-1, 3, 32, 32), f"{part} labels": labels.flatten()}
        return found

    return write


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_its_pickles(cifar, tmp_path, name):
    found = cifar(name)
    source = load(name, str(tmp_path), 64)
    assert same(source.train, found["train"], found["train labels"])
    assert same(source.test, found["test"], found["test labels"])
    assert source.classes[1] == "class 1"
    assert source.beyond == "edge"
    assert image_shape(typed(Data, name=name)) == ((3, 32, 32), len(source.classes))


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_missing_set_names_the_ways_to_get_it(name, tmp_path):
    with pytest.raises(DataError) as refusal:
        load(name, str(tmp_path), 64)
    message = str(refusal.value)
    assert all(part in message for part in (f"data={name}", str(tmp_path), "data.root=", "network", "data=shapes"))
    assert ("dataset-fashion-mnist" in message) == (name == "fashion_mnist")
    assert "\n" not in message


@pytest.mark.parametrize("broken", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"])
@pytest.mark.parametrize("kept", [0, 10])
def test_a_broken_file_is_a_data_error(tmp_path, broken, kept):
    mnist_files(tmp_path / "MNIST" / "raw", bytes, "")
    file = tmp_path / "MNIST" / "raw" / f"{broken}-ubyte"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match="data=mnist"):
        load("mnist", str(tmp_path), 64)


def test_a_set_is_read_once(tmp_path):
    mnist_files(tmp_path / "MNIST" / "raw", bytes, "")
    assert load("mnist", str(tmp_path), 64) is load("mnist", str(tmp_path), 64)


def test_every_set_has_its_test():
    elsewhere = {"shapes", "red_green"}  # rendered: in test_data_shapes.py and test_data_positions.py
    assert set(SETS) == {*TORCHVISION, "folder", *elsewhere}


# --- folders ---------------------------------------------------------------------------------------------------------


def paint(path: Path, grey: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).convert(mode).save(path)


def greys(part: sets.Images) -> list[int]:
    assert (part.images == part.images[:, :1, :1, :1]).all()
    return part.images[:, 0, 0, 0].tolist()


def test_a_folder_may_hold_train_and_test(tmp_path):
    for i, name in enumerate(("cat", "dog")):
        paint(tmp_path / "train" / name / "a.png", 10 + i)
        paint(tmp_path / "train" / name / "b.png", 20 + i, size=(25, 60), mode="L")
        paint(tmp_path / "test" / name / "c.png", 30 + i, mode="RGBA")
    source = load("folder", str(tmp_path), 16)
    assert source.classes == ["cat", "dog"]
    assert (greys(source.train), source.train.labels.tolist()) == ([10, 20, 11, 21], [0, 0, 1, 1])
    assert (greys(source.test), source.test.labels.tolist()) == ([30, 31], [0, 1])
    assert source.test.images.shape == (2, 3, 16, 16)
    assert source.test.canvas.shape == (2, 3, 16 + 2 * MARGIN, 16 + 2 * MARGIN)


def test_else_every_fifth_file_of_a_class_is_for_testing(tmp_path):
    for i, name in enumerate(("cat", "dog", "owl")):
        for j in range(7):
            paint(tmp_path / name / f"{j}.png", 10 * i + j)
    source = load("folder", str(tmp_path), 16)
    assert greys(source.test) == [4, 14, 24]
    assert sorted(greys(source.train) + greys(source.test)) == [10 * i + j for i in range(3) for j in range(7)]


def test_the_shorter_side_fills_the_canvas_and_the_middle_is_kept(tmp_path):
    ramp = np.tile(np.arange(96, dtype=np.uint8) * 2, (32, 1))  # brightness = twice the column
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        Image.fromarray(ramp).save(tmp_path / part / "a" / "ramp.png")
    canvas = load("folder", str(tmp_path), 16).test.canvas
    assert canvas.shape[-2:] == (32, 32)
    assert canvas[0, 0, 0].tolist() == ramp[0, 32:64].tolist()


def test_the_schema_knows_a_folders_shape(tmp_path, monkeypatch):
    for name in "abc":
        paint(tmp_path / "pets" / name / "1.png", 0)
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in (str(tmp_path / "pets"), "~/pets"):
        assert image_shape(typed(Data, name="folder", root=root, image_size=24)) == ((3, 24, 24), 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"must hold CLASS/\*\.png, or train/CLASS"),
        ({"train/a/1.png": "image", "test/b/1.png": "image"}, "different classes"),
        ({"a/1.png": "image", "a/2.png": "image"}, "2 images .* too few"),
        ({f"a/{i}.png": "text" for i in range(5)}, r"a/0\.png cannot be read as an image"),
    ],
)
def test_an_unusable_folder_is_refused(tmp_path, files, message):
    for name, content in files.items():
        paint(tmp_path / name, 0)
        if content == "text":
            (tmp_path / name).write_text("no image")
    with pytest.raises(DataError, match=message):
        load("folder", str(tmp_path), 16)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        load("folder", str(tmp_path / "nowhere"), 16)


def test_images_can_be_taken_by_number():
    part = sets.Images(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), torch.arange(4), factors=torch.rand(4, 4))
    taken = part.take(torch.tensor([2, 0]))
    assert (greys(taken), taken.labels.tolist(), len(taken)) == ([2, 0], [2, 0], 2)
    assert torch.equal(taken.factors, part.factors[[2, 0]])
    assert taken.canvas is None
