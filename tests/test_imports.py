"""Imports point one way. The tables hold the import order; a new file of src finds its place in them."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"

# A subpackage is a folder of src, or a file at its root. It imports from itself and from the rows above its own, at any
# level of its code, types included.
SUBPACKAGES = [
    {"common"},
    {"stats", "nets", "transforms"},
    {"pooling"},
    {"summary"},
    {"models", "data"},
    {"metrics"},
    {"evaluation"},
    {"inspection"},
    {"config"},
    {"results"},
    {"claims"},
    {"reporting"},
    {"training"},
    {"launch", "measuring"},
    {"train", "measure", "shapes", "pools", "report", "answers", "__main__"},  # the entry points
]

# What is imported in one subpackage and nowhere else.
ONLY_IN = {
    "hydra": {"launch"},
    "lightning": {"training"},
    "wandb": {"reporting"},
    "wandb_workspaces": {"reporting"},
    "captum": {"inspection"},
    "submitit": {"launch"},
    "plotly": {"reporting"},
    "timm": {"nets"},
}

RANK = {name: rank for rank, names in enumerate(SUBPACKAGES) for name in names}
PATHS = (path.relative_to(SRC).with_suffix("") for path in SRC.rglob("*.py"))
FILES = sorted(path.as_posix() for path in PATHS if path != Path("__init__"))


def imports(node: ast.AST, package: str = "src") -> Iterator[str]:
    """Dotted names of all modules that code imports, for types too.

    Args:
        node: of the code.
        package: that the code is in, by which its relative imports are resolved.
    """
    for child in ast.walk(node):
        match child:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                yield from (".".join([*above, *([module] if module else []), alias.name]) for alias in names)


def of(file: str) -> list[str]:
    package = ".".join(["src", *file.split("/")[:-1]])
    return list(imports(ast.parse((SRC / f"{file}.py").read_text()), package))


def subpackage(file: str) -> str:
    return file.partition("/")[0]


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_from_its_own_subpackage_or_from_above(file):
    imported = {name.split(".")[1] for name in of(file) if name.startswith("src.")}
    wrong = {one for one in imported - {subpackage(file)} if RANK[one] >= RANK[subpackage(file)]}
    assert not wrong, f"src/{file}.py imports {wrong}"


@pytest.mark.parametrize("file", FILES)
def test_imports_of_the_package_are_relative_so_that_it_can_have_another_name(file):
    code = ast.parse((SRC / f"{file}.py").read_text())
    names = [name for name in imports(code, "whatwhere") if name.split(".")[0] == "src"]
    assert not names


def test_no_file_imports_itself_by_way_of_others():
    modules = {f"src.{file}".replace("/", ".").removesuffix(".__init__"): file for file in FILES}

    def known(name: str) -> str:
        return name if name in modules else name.rpartition(".")[0]

    graph = {module: {known(name) for name in of(file)} & set(modules) - {module} for module, file in modules.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which lists the files


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_one_subpackage_and_nowhere_else(package):
    assert {subpackage(file) for file in FILES if package in {name.split(".")[0] for name in of(file)}} == ONLY_IN[
        package
    ]


def test_every_subpackage_has_its_row_and_every_row_its_subpackages():
    assert {subpackage(file) for file in FILES} == set(RANK)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import a.b as c, d", ["a.b", "d"]),
        ("from . import run", ["src.folder.run"]),
        ("from ..views import wandb", ["src.views.wandb"]),
        ("class A:\n def f(self):\n  if True:\n   from ..run import story", ["src.run.story"]),
        ("if TYPE_CHECKING:\n import a\nelse:\n import b", ["a", "b"]),
    ],
)
def test_imports_are_found_at_any_level(code, found):
    assert list(imports(ast.parse(code), "src.folder")) == found


def test_the_document_on_the_layout_names_every_subpackage_in_the_order_of_imports():
    text = (SRC.parent / "docs" / "background" / "layout.md").read_text().partition("## ")[0]
    table = [name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"\w+", row)]
    assert sorted(table) == sorted(RANK.keys() - {"__main__"})
    assert [RANK[name] for name in table] == sorted(RANK[name] for name in table)
