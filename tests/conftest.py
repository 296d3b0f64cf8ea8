"""What every test gets: seeded torch, signals that are heeded, property tests that are quick and always the same."""

import signal
import tempfile

import pytest
import torch
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

import src  # noqa: F401  (before any test imports torchvision)

torch.set_num_threads(1)  # for maps this small, more threads take longer
# a shell ignores it for what runs in its background, and so would all that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
set_hypothesis_home_dir(tempfile.gettempdir())
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=20, database=None)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
