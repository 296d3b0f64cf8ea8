"""The documentation builds without a warning and without network, its examples run, its generated pages are whole."""

import doctest
import os
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from src.config.schema import Config
from src.evaluation.families import FAMILIES
from src.metrics.quantities import quantities
from src.pooling import POOLS
from src.results import files
from tests.documents import DOCS, check_command, command_lines, make_targets, python_blocks, run_python
from tests.helpers import ROOT

PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
TEXT = "\n".join(PAGES.values())
BLOCKS = [
    pytest.param(code, id=f"{page}-{i}") for page, text in PAGES.items() for i, code in enumerate(python_blocks(text))
]

needs_mkdocs = pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed")

#: fails every connection, so that a build that needs one fails
NO_NETWORK = """
import socket
def refuse(*_):
    raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


@pytest.mark.parametrize("code", BLOCKS)
def test_python_runs_as_it_is_written(code: str, tmp_path: Path) -> None:
    run_python(code, tmp_path)


@pytest.mark.parametrize("line", command_lines(TEXT))
def test_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_command(line, monkeypatch, tmp_path)


def test_all_examples_are_found() -> None:
    assert len(BLOCKS) >= 6
    assert len(command_lines(TEXT)) >= 35


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert make_targets(TEXT) <= {*targets}


def test_files_named_in_the_text_exist() -> None:
    named = re.findall(r"`((?:src|tests|sweeps|conf|docs)/[\w./-]+\.\w+)`", TEXT)
    assert len(named) >= 15
    assert [path for path in named if "NAME" not in path and not (ROOT / path).exists()] == []


def names_of_files() -> set[str]:
    """The names of files and folders that a run or a sweep leaves."""
    return {value for name, value in vars(files).items() if name.isupper() and isinstance(value, str)} - {files.PART}


def test_every_file_of_a_run_or_a_sweep_is_explained() -> None:
    assert len(names_of_files()) >= 25
    page = PAGES["reference/files.md"]
    assert [name for name in names_of_files() if f"`{name}`" not in page and f"`{name}/`" not in page] == []


def test_every_term_of_the_glossary_is_used_elsewhere() -> None:
    terms = re.findall(r"^\| ([^|]+) \|", PAGES["reference/glossary.md"], re.MULTILINE)[1:]
    others = "\n".join(text for page, text in PAGES.items() if page != "reference/glossary.md").lower()
    assert len(terms) >= 12
    assert [term for words in terms for term in words.split(", ") if term not in others] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` does, where no connection is possible."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "site"


def text_of(site: Path, page: str) -> str:
    """The words of a page."""
    html = (site / f"{page}.html").read_text()
    return unescape(re.sub(r"<[^>]+>", "", html.partition("<article")[2].partition("</article>")[0]))


@needs_mkdocs
def test_site_builds_strictly_and_asks_no_other_machine_for_anything(site: Path) -> None:
    """Strictly: every link between pages resolves, every page is in the navigation."""
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 25
    for page in pages:
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="?(?:https?:)?//[^">\s]+', page.read_text())
        assert loaded == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"(]*(https?:)?//", sheet.read_text()), sheet


@needs_mkdocs
def test_every_config_key_is_listed_with_its_choices(site: Path) -> None:
    text = text_of(site, "reference/config")
    for key in fields(Config):
        inner = fields(key.type) if is_dataclass(key.type) else [key]
        for name, one in (((f"{key.name}.{one.name}" if inner != [key] else key.name), one) for one in inner):
            assert re.search(rf"(?m)^{re.escape(name)}$", text), name
            assert all(str(value) in text for value in one.metadata.get("names", ())), name


@needs_mkdocs
def test_every_measure_pool_and_sweep_has_its_place(site: Path) -> None:
    measures = (site / "reference/measures.html").read_text()
    assert all(f"<code>{name}</code>" in measures for name in quantities())
    assert all(f'id="{name}' in measures for name in FAMILIES)
    gallery = (site / "reference/gallery.html").read_text()
    for name in POOLS:
        assert f'id="{name}"' in gallery and (site / f"reference/gallery/{name}.png").stat().st_size > 500, name
    sweeps = text_of(site, "reference/sweeps")
    for path in (ROOT / "sweeps").glob("*.yaml"):
        words = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#  "))
        assert {*words.split()} <= {*sweeps.split(), *"Question Command Cost Expect Seen".split()}, path


@needs_mkdocs
def test_docstrings_become_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "hooks"))
    import docstrings

    assert doctest.testmod(docstrings) == (0, 2)


@needs_mkdocs
def test_examples_in_docstrings_are_code_on_the_api_page(site: Path) -> None:
    html = (site / "reference/api.html").read_text()
    assert html.count('class="gp"') >= 10  # prompts
    assert "<blockquote>" not in html


@needs_mkdocs
def test_aps_is_exact_in_the_gallery_and_max_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "hooks"))
    import gallery_page

    assert gallery_page.strip("aps")[1] == 0
    assert gallery_page.strip("max")[1] > 0.1


@needs_mkdocs
def test_shares_of_the_gallery_that_are_thrown_away_are_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "hooks"))
    import gallery_page

    (kept, dimensions), x = gallery_page.linear_part("none"), gallery_page.image()[:, :1].double()
    samples, mean = x[..., ::2, ::2], x.mean()
    assert torch.allclose(kept[..., ::2, ::2], samples) and dimensions == 0.75
    share = 1 - (samples - mean).square().sum() / (x - mean).square().sum()
    assert gallery_page.null_space_strip("none")[2] == pytest.approx(float(share))
