"""Data sets that torchvision reads and downloads: fashion_mnist, mnist, cifar10, cifar100."""

import gzip
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..images import DataError, DataSet, Images, Source

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
UNPACKED = "debian"  # folder in the data folder where `make data` unpacks Debian's package


def _load(name: str, kind: str, out_of_frame: str, root: Path, size: int) -> Source:
    from torchvision import datasets

    make = getattr(datasets, kind)
    if name == "fashion_mnist" and not _present(make, root):
        _unpack_debian(root)
    if not _present(make, root):
        try:
            make(root, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(_ways(name, root)) from error
    try:
        train, test = (make(root, train=flag) for flag in (True, False))
        if any(len(part.data) != len(part.targets) for part in (train, test)):
            raise ValueError("not as many labels as images")
    except Exception as error:  # of damaged files, also of assert, unpickling, a lack of keys
        reason = str(error) or type(error).__name__
        raise DataError(f"data={name} in {root} cannot be read ({reason}); remove it there to get it again") from error
    return Source(_to_images(train), _to_images(test), [str(label) for label in train.classes], out_of_frame)


def _present(make: Callable[..., object], root: Path) -> bool:
    try:
        make(root, train=False)
    except RuntimeError:
        return False
    except Exception:
        return True  # it is there but broken; loading it raises again
    return True


def _to_images(part: object) -> Images:
    pixels = torch.as_tensor(part.data)  # type: ignore[attr-defined]
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return Images(pixels.contiguous(), torch.as_tensor(part.targets).long())  # type: ignore[attr-defined]


def _unpack_debian(root: Path) -> None:
    """Unpack Debian's gzipped files, whose checksums torchvision does not know, where torchvision looks for them."""
    target = root / "FashionMNIST" / "raw"
    in_data_folder = root / UNPACKED / DEBIAN_FASHION_MNIST.relative_to("/")
    packed = next((folder for folder in (in_data_folder, DEBIAN_FASHION_MNIST) if folder.is_dir()), None)
    if packed is None:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        complete = Path(folder) / "raw"
        complete.mkdir()
        for file in packed.glob("*.gz"):
            with gzip.open(file) as source, (complete / file.stem).open("wb") as out:
                shutil.copyfileobj(source, out)
        shutil.rmtree(target, ignore_errors=True)  # its files were not readable
        complete.rename(target)


def _ways(name: str, root: Path) -> str:
    ways = [f"put its files under {root} (data.root=FOLDER)"]
    if name == "fashion_mnist":
        ways.append("install Debian's package dataset-fashion-mnist, or run `make data`")
    ways.append("run with a network, so that torchvision downloads it")
    return f"data={name} is not here and could not be downloaded: {'; or '.join(ways)} (data=shapes needs no files)"


SETS = {
    "fashion_mnist": DataSet(1, 28, 10, partial(_load, "fashion_mnist", "FashionMNIST", "black")),
    "mnist": DataSet(1, 28, 10, partial(_load, "mnist", "MNIST", "black")),
    "cifar10": DataSet(3, 32, 10, partial(_load, "cifar10", "CIFAR10", "edge")),
    "cifar100": DataSet(3, 32, 100, partial(_load, "cifar100", "CIFAR100", "edge")),
}
