"""Where the files of ``conf`` and ``sweeps`` are: those of the package, and of an installed one also the user's own."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED = (_PACKAGE / "conf").is_dir()
#: the folder that holds ``conf`` and ``sweeps``: that of the package where it is installed, else that of the checkout
ROOT = _PACKAGE if _INSTALLED else _PACKAGE.parent
#: the folder in which a command of the installed package is started; a checkout has its own files alone
HERE = Path.cwd() if _INSTALLED else None


def user_folders() -> dict[str, Path]:
    """The user's folders ``conf`` and ``sweeps``, as far as they are there. A ``conf`` that has a ``config.yaml``
    belongs to another application of Hydra, and is none.
    """
    folders = {name: HERE / name for name in ("conf", "sweeps") if HERE and (HERE / name).is_dir()}
    if "conf" in folders and (folders["conf"] / "config.yaml").exists():
        del folders["conf"]
    return folders


def search_path() -> str:
    """The override that tells Hydra where the group ``sweeps`` is: the user's, which wins, and the package's."""
    roots = [*([HERE] if "sweeps" in user_folders() else []), ROOT]
    return f"hydra.searchpath=[{','.join(quoted(f'file://{root}') for root in roots)}]"


def choices(group: str) -> dict[str, Path]:
    """Name → file of a group as ``model`` or ``sweeps``; the user's file where both have the name."""
    folders = [ROOT / "conf" / group, ROOT / group]
    users = user_folders()
    folders += [users["conf"] / group] if "conf" in users else []
    folders += [users["sweeps"]] if group == "sweeps" and "sweeps" in users else []
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml")) if path.is_file()}


def quoted(text: object) -> str:
    """A text or a path as a value in Hydra's grammar, where commas and equal signs are part of it."""
    return "'" + str(text).replace("'", "\\'") + "'"


class UserConf(SearchPathPlugin):
    """Hydra searches the user's ``conf`` before the package's, which ``hydra.searchpath`` comes after."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra before it composes anything."""
        if folder := user_folders().get("conf"):
            search_path.prepend("user", f"file://{folder}")
