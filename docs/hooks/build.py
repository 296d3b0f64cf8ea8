"""What MkDocs calls while it builds: adds the pages that are made from the code, so that they cannot fall behind it."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(Path(__file__).parent)) if path not in sys.path]

import config_page  # noqa: E402
import gallery_page  # noqa: E402
import measures_page  # noqa: E402
import sweeps_page  # noqa: E402

import src  # noqa: E402

_ALIAS = tempfile.TemporaryDirectory()


@event_priority(100)  # before mkdocstrings reads its paths
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show the package to mkdocstrings under the name that it is installed by."""
    link = Path(_ALIAS.name, "whatwhere")
    if not link.exists():
        link.symlink_to(ROOT / "src", target_is_directory=True)
    config.plugins["mkdocstrings"].config["handlers"].setdefault("python", {})["paths"] = [_ALIAS.name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and pictures."""
    pages: dict[str, str | bytes] = {
        "reference/config.md": config_page.page(),
        "reference/measures.md": measures_page.page(),
        "reference/sweeps.md": sweeps_page.page(ROOT / "sweeps"),
        **gallery_page.pages(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Add the public names of the package to the page of the API."""
    if page.file.src_uri != "reference/api.md":
        return markdown
    public = [getattr(src, name) for name in getattr(src, "__all__", ())]
    entries = [f"::: {one.__module__.replace('src', 'whatwhere', 1)}.{one.__name__}" for one in public if callable(one)]
    return markdown.replace("<!-- the names in whatwhere.__all__ -->", "\n\n".join(entries))
