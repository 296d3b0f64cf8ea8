"""The images that every run is looked at with: which they are, and how much their maps may take."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.common.errors import UserError
from src.config import Probe
from src.data.example_images import probe_images
from src.data.splits import split
from src.reporting.maps import epochs_of
from src.training import callbacks
from src.training.run import run
from tests.helpers import tiny

SPLITS = split(tiny().data)


def test_a_balanced_choice_has_as_many_of_each_class_as_can_be() -> None:
    classes = len(SPLITS.classes)
    for count in (1, classes, 2 * classes + 1):
        found = Counter(probe_images(Probe(images=count, choice="balanced"), SPLITS).labels.tolist())
        assert sum(found.values()) == count
        assert max(found.values()) - min(found.get(one, 0) for one in range(classes)) <= 1


@pytest.mark.parametrize("choice", ["random", "balanced"])
def test_the_seed_decides_and_more_images_keep_the_first(choice: str) -> None:
    few, same, more, other = (
        probe_images(Probe(images=n, choice=choice, seed=seed), SPLITS).images
        for n, seed in ((4, 0), (4, 0), (9, 0), (9, 1))
    )
    assert torch.equal(few, same) and torch.equal(few, more[:4])
    assert not torch.equal(more, other)


def test_named_files_come_as_the_sets_images_do(tmp_path: Path) -> None:
    side = SPLITS.image[1]
    colours = np.zeros((side, 2 * side, 3), np.uint8)
    colours[:, side // 2 : side // 2 + side] = (255, 0, 0)  # the middle square
    Image.fromarray(colours).resize((12 * side, 6 * side), Image.Resampling.NEAREST).save(tmp_path / "a.png")
    found = probe_images(Probe(files=[str(tmp_path / "a.png")]), SPLITS)
    assert found.images.shape == (1, *SPLITS.image)
    expected = torch.tensor([255, 0, 0] if SPLITS.image[0] == 3 else [76])  # .299 · 255
    assert (found.images[0, :, side // 2, side // 2] == expected).all()
    assert found.labels.tolist() == [-1]


def test_a_file_that_is_not_there_is_refused_before_training() -> None:
    with pytest.raises(UserError, match=r"^probe\.files: nowhere\.png: no such file$"):
        tiny(probe={"files": ["nowhere.png"]}).check()


@pytest.mark.filterwarnings("default")  # Lightning's own
def test_a_run_whose_maps_would_take_too_much_keeps_fewer_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny(train={"epochs": 4}, measure={"what": ["layers"]}, probe={"images": 2})
    monkeypatch.setattr(callbacks, "MAPS_LIMIT", 1)
    run(cfg, tmp_path)
    assert epochs_of(tmp_path) == [0, 4], "the first and the last are always kept"
