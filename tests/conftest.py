"""What every test gets: seeded torch, and property tests that are quick, always the same, and leave no files."""

import src  # noqa: F401  (first: it lets torchvision be imported)

import tempfile

import pytest
import torch
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(tempfile.gettempdir())
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=20, database=None)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
