"""What every test gets: seeded torch, signals that arrive, property tests that are quick and always the same."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

import tests  # noqa: F401  (before src, whose functions its type checker decorates)

import src  # noqa: F401 isort:skip (before any test imports torchvision)
from tests.helpers import ROOT, Command

os.environ.pop("COLUMNS", None)  # readline sets it to 80 in processes without a terminal
torch.set_num_threads(1)  # for maps this small, more threads take longer
# a shell ignores it for what runs in its background, and so would all that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
set_hypothesis_home_dir(tempfile.gettempdir())
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=20, database=None)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright; tests that use it are skipped where there is none."""
    from playwright.sync_api import sync_playwright

    if not (chromium := shutil.which("chromium")):
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process: a fresh one's start and imports take longer than most commands."""

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", [*words])
        capfd.readouterr()
        code: object = 0
        try:
            import_module(words[0]).main()
        except SystemExit as end:
            code = end.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess([*words], code, *capfd.readouterr())

    monkeypatch.chdir(ROOT)
    return command
