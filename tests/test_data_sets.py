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

from src.config import Data, Probe
from src.data import sets
from src.data.example_images import probe_images
from src.data.external import sample
from src.data.image_files import ENDINGS, labelled, open_picture
from src.data.options import image_shape
from src.data.sets import MARGIN, SETS, DataError, load, torchvision_sets
from src.data.splits import split

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
    monkeypatch.setattr(torchvision_sets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    sets.load.cache_clear()


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
    assert source.out_of_frame == "black"
    left = sorted(path.name for path in (tmp_path / "data" / "FashionMNIST").iterdir())
    assert left == ["raw"]


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_the_mnists_are_read_where_torchvision_keeps_them(tmp_path, name, folder):
    found = mnist_files(tmp_path / folder / "raw", bytes, "")
    source = load(name, str(tmp_path), 64)
    assert same(source.train, found["train"][:, None], found["train labels"])
    assert source.train.padded is None
    assert image_shape(Data(name=name)) == ((1, 28, 28), len(source.classes))


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
    assert source.out_of_frame == "edge"
    assert image_shape(Data(name=name)) == ((3, 32, 32), len(source.classes))


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_missing_set_names_the_ways_to_get_it(name, tmp_path):
    with pytest.raises(DataError) as refusal:
        load(name, str(tmp_path), 64)
    message = str(refusal.value)
    assert all(part in message for part in (f"data={name}", str(tmp_path), "data.root=", "network", "data=shapes"))
    assert ("dataset-fashion-mnist" in message) == (name == "fashion_mnist")
    assert "\n" not in message


def test_files_of_another_kind_and_labels_of_other_images_are_data_errors(tmp_path):
    mnist_files(tmp_path / "MNIST" / "raw", bytes, "")
    labels = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    right = labels.read_bytes()
    for content in (b"\1\2\3\4" * 250, idx(np.zeros(1, np.uint8))):  # any bytes; one label for several images
        labels.write_bytes(content)
        with pytest.raises(DataError, match=r"data=mnist in .* cannot be read .*; remove it there to get it again"):
            load("mnist", str(tmp_path), 64)
    labels.write_bytes(right)
    load("mnist", str(tmp_path), 64)


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


@pytest.mark.parametrize("name", SETS)
def test_a_set_without_files_is_what_its_entry_says_the_same_again_and_can_be_split(tmp_path, name):
    try:
        source = load(name, str(tmp_path), 32)  # refuses what is not as its entry says
    except DataError as refusal:
        assert f"data={name}" in str(refusal)
        pytest.skip("the set needs files")
    sets.load.cache_clear()
    again = load(name, str(tmp_path), 32)
    assert again is not source
    for one, other in ((source.train, again.train), (source.test, again.test)):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    parts = split(Data(name=name, root=str(tmp_path), image_size=32, val_size=10, train_size=10))
    assert (parts.image, len(parts.classes)) == image_shape(Data(name=name, root=str(tmp_path), image_size=32))
    assert (len(parts.train), len(parts.val), len(parts.test)) == (10, 10, len(source.test))
    assert {*parts.test.labels.tolist()} <= {*range(len(parts.classes))}
    assert len({*parts.test.labels.tolist()}) > 1, "an accuracy needs two classes"


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
    assert source.test.padded.shape == (2, 3, 16 + 2 * MARGIN, 16 + 2 * MARGIN)


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
    canvas = load("folder", str(tmp_path), 16).test.padded
    assert canvas.shape[-2:] == (32, 32)
    assert canvas[0, 0, 0].tolist() == ramp[0, 32:64].tolist()


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
DEEP = {
    "16 bits.png": RAMP.astype(np.uint16) * 257,
    "16 bits.tif": RAMP.astype(np.uint16) * 257,
    "whole numbers.tif": RAMP.astype(np.int32) * 257,
    "floats to 1.tif": RAMP.astype(np.float32) / 255,
    "floats to 255.tif": RAMP.astype(np.float32),
    "floats to 65535.tif": RAMP.astype(np.float32) * 257,
    "8 bits.png": RAMP,
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_are_scaled_and_not_clipped(tmp_path, name):
    Image.fromarray(DEEP[name]).save(tmp_path / name)
    picture = open_picture(tmp_path / name)
    assert picture.mode == "RGB"
    assert (np.asarray(picture) == RAMP[..., None]).all()


def test_16_bits_round_to_the_nearest_of_8(tmp_path):
    Image.fromarray(np.array([[0, 128, 129, 65535]], np.uint16)).save(tmp_path / "a.png")
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 65535\n" + np.array([0, 128, 129, 65535], ">u2").tobytes())
    for name in ("a.png", "a.pgm"):
        assert np.asarray(open_picture(tmp_path / name))[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize(
    ("values", "said"), [([-1.0, 1.0], "from -1 to 1"), ([0.0, 1e6], "from 0 to 1e"), ([0.0, np.nan], "nan")]
)
def test_values_that_no_range_holds_are_refused(tmp_path, values, said):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"a\.tif cannot be read as an image: .*{said}.*; save it with 8 or 16 bits"):
        open_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, orientation):
    """By the EXIF standard's table: where row 0 and column 0 of what is stored are to be seen."""
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.asarray(open_picture(tmp_path / "a.png"))[..., 0].tolist() == upright.tolist()


def test_what_is_transparent_is_black_and_what_is_half_so_half(tmp_path):
    clear, half, full = (200, 100, 50, 0), (200, 100, 50, 128), (200, 100, 50, 255)
    pixels = Image.fromarray(np.array([[clear, half, full]], np.uint8), "RGBA")
    pixels.save(tmp_path / "rgba.png")
    Image.fromarray(np.array([[[90, 0], [90, 128], [90, 255]]], np.uint8), "LA").save(tmp_path / "la.png")
    palette = Image.new("P", (3, 1))
    palette.putpalette([200, 100, 50, 10, 20, 30])
    palette.putdata([0, 1, 0])
    palette.save(tmp_path / "one entry.png", transparency=0)
    palette.save(tmp_path / "entries.png", transparency=bytes([128, 255]))
    Image.new("RGB", (3, 1), (200, 100, 50)).save(tmp_path / "one colour.png", transparency=(200, 100, 50))
    expected = {
        "rgba.png": [[0, 0, 0], [100, 50, 25], [200, 100, 50]],
        "la.png": [[0, 0, 0], [45, 45, 45], [90, 90, 90]],
        "one entry.png": [[0, 0, 0], [10, 20, 30], [0, 0, 0]],
        "entries.png": [[100, 50, 25], [10, 20, 30], [100, 50, 25]],
        "one colour.png": [[0, 0, 0]] * 3,
    }
    for name, colours in expected.items():
        assert np.asarray(open_picture(tmp_path / name))[0].tolist() == colours, name


def test_every_way_to_read_files_opens_them_alike(tmp_path):
    """A set, images for a net of a library, and a run's probe."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            path = tmp_path / part / name / "1.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("I;16", (16, 16), 100 * 257).save(path)
    found = load("folder", str(tmp_path), 16)
    assert greys(found.test) == greys(found.train) == [100, 100]
    assert (sample("folder", str(tmp_path), 16, 3, 0, 2, 0).padded == 100).all()
    splits = split(Data(name="folder", root=str(tmp_path), image_size=16, val_size=1))
    assert (probe_images(Probe(files=[str(path)]), splits).images == 100).all()


def test_hidden_files_and_folders_are_neither_classes_nor_images(tmp_path):
    for name in ("cat", "dog"):
        for part in ("train", "test"):
            paint(tmp_path / part / name / "a.png", 10)
            paint(tmp_path / part / name / ".ipynb_checkpoints" / "a-checkpoint.png", 20)
            (tmp_path / part / name / "._a.png").write_text("a Mac's")
            paint(tmp_path / part / ".ipynb_checkpoints" / "b.png", 20)
    source = load("folder", str(tmp_path), 16)
    assert (source.classes, greys(source.train), greys(source.test)) == (["cat", "dog"], [10, 10], [10, 10])
    assert image_shape(Data(name="folder", root=str(tmp_path), image_size=16))[1] == 2
    assert sample("folder", str(tmp_path), 16, 3, 0, 9, 0).classes == ["cat", "dog"]
    paint(tmp_path / "loose" / "a.png", 10)
    paint(tmp_path / "loose" / "b.png", 10)
    paint(tmp_path / "loose" / ".c.png", 10)
    paint(tmp_path / "loose" / ".hidden" / "d.png", 10)
    assert len(sample("folder", str(tmp_path / "loose"), 16, 3, 0, 9, 0).labels) == 2


def test_pictures_come_in_torchvisions_order(tmp_path):
    for name in ("b/2.png", "b/10.PNG", "b/a/z.jpeg", "b/Z.tif", "a b/1.webp", "a/1.bmp", "a/note.txt", "a/B/1.ppm"):
        paint(tmp_path / name, 0) if not name.endswith("txt") else (tmp_path / name).write_text("")
    theirs = datasets.ImageFolder(tmp_path)
    assert labelled(tmp_path) == (theirs.samples, theirs.classes)
    assert ENDINGS == datasets.folder.IMG_EXTENSIONS


def test_a_folder_with_train_alone_has_the_classes_that_are_loaded(tmp_path):
    for name in "abcde":
        paint(tmp_path / "train" / "x" / f"{name}.png", 0)
    classes = load("folder", str(tmp_path), 16).classes
    assert image_shape(Data(name="folder", root=str(tmp_path), image_size=16))[1] == len(classes)


def test_the_schema_knows_a_folders_shape(tmp_path, monkeypatch):
    for name in "abc":
        paint(tmp_path / "pets" / name / "1.png", 0)
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in (str(tmp_path / "pets"), "~/pets"):
        assert image_shape(Data(name="folder", root=root, image_size=24)) == ((3, 24, 24), 3)


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
    assert taken.padded is None
