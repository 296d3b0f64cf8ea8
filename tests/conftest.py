"""What every test gets: seeded torch, and property tests that are quick, always the same, and leave no files."""

import tempfile

import pytest
import torch
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

import src  # noqa: F401  (before any test imports torchvision)

torch.set_num_threads(1)  # for maps this small, more threads take longer
set_hypothesis_home_dir(tempfile.gettempdir())
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=20, database=None)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
