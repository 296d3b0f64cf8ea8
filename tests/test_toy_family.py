"""A family of measures, or a metric, is one new file: shown on a copy of the lab in which no other file is edited."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

FAMILY = '''"""A toy: how bright the images are."""

from collections.abc import Iterator

from ...metrics.quantities import Quantity
from ...metrics.rows import Estimate, Heatmap, Note, Row
from ..adapter import EvaluationSet, ModelAdapter

QUANTITIES = (Quantity("toy_brightness", low=0, high=255, formula="mean pixel", null="0: black"),)


def rows(adapter: ModelAdapter, test_set: EvaluationSet) -> Iterator[Row | Heatmap | Note]:
    """One number."""
    pixels = test_set.padded.float()
    yield Note("toy", "by averaging")
    yield Row("output", "none", "test", 0, "toy_brightness", Estimate(pixels.mean().item(), 0, 255, len(pixels)))
    yield Heatmap("output", "toy_mean", pixels.mean((0, 1)).numpy())
'''
METRIC = '''"""A toy: the mean absolute change of a layer."""

import torch

from .base import PairMeasure
from .quantities import Quantity

QUANTITIES = (Quantity("toy_change", low=0, high=0.25, better="lower", formula="E|φ(gx) - φ(x)|, at most 0.25"),)


class ToyChange(PairMeasure):
    """``toy_change``."""

    on = "layers"

    def of_images(self, reference, transformed, labels):
        """The mean absolute change of each image."""
        return (transformed.outputs - reference.outputs).abs().mean(1, keepdim=True)

    def of_means(self, means):
        """One number."""
        return {"toy_change": means[..., 0]}


MEASURE = ToyChange
'''
KNOWN = """
from src.config import MEASURES
from src.evaluation.families import family_of
from src.metrics import ToyChange
from src.metrics.quantities import quantity_of, range_of
print("toy" in MEASURES, range_of("toy_brightness_untrained"), quantity_of("toy_brightness").null)
print(family_of("toy"), family_of("toy_mean/output"), family_of("toy_brightness"))
print(ToyChange.on)
"""
RUN = (
    "data=shapes data.image_size=16 data.train_size=128 data.val_size=64 model.depth=1 model.width=4 train.epochs=1 "
    "train.batch_size=64 measure.images=12 measure.max_shift=1 probe.images=2 trainer.accelerator=cpu "
    "wandb.mode=disabled hydra.run.dir=run"
).split()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the lab with both files, and a run that was measured by both."""
    lab = tmp_path_factory.mktemp("lab")
    for folder in ("src", "conf", "hydra_plugins", "sweeps"):
        shutil.copytree(ROOT / folder, lab / folder)  # with what is compiled already
    for path, code in (("evaluation/families/toy.py", FAMILY), ("metrics/toy.py", METRIC)):
        assert not (lab / "src" / path).exists(), "no file is edited"
        (lab / "src" / path).write_text(code)
    python(lab, "-m", "src.train", *RUN, "measure.what=[shift,noise,toy]")
    return lab


def python(lab: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(lab), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=lab, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(lab: Path) -> list[dict[str, str]]:
    with (lab / "run" / "measures.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_family_in_one_file_can_be_named_measured_and_explained(lab: Path) -> None:
    known = "True (0.0, 255.0) 0: black\ntoy toy toy\nlayers\n"
    assert python(lab, "-c", KNOWN) == known
    assert "toy" in python(lab, "-m", "src.train", "--cfg", "job")
    found = {row["measure"]: row for row in measured(lab) if row["measure"].startswith("toy_brightness")}
    assert set(found) == {"toy_brightness", "toy_brightness_untrained"}
    assert 0 < float(found["toy_brightness"]["value"]) < 255
    python(lab, "-m", "src.measure", "checkpoint=run/checkpoints/best.ckpt", "what=toy")
    kept = {row["measure"] for row in measured(lab)}
    assert kept > {*found, "toy_change"}, (
        "replaced, and the others stay, also a metric whose name begins like the family's"
    )


def test_a_metric_in_one_file_is_measured_and_kept_within_its_range(lab: Path) -> None:
    found = [row for row in measured(lab) if row["measure"] == "toy_change"]
    assert {row["layer"] for row in found} == {"stage1", "features"}
    assert {row["transform"] for row in found} == {"shift", "noise"}
    assert all(float(row["low"]) >= 0 and float(row["high"]) <= 0.25 for row in found)
    assert any(float(row["high"]) > 0 for row in found)
