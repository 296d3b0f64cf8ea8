"""Imports point one way. The tables are the project's law; a new file of src finds its place in them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"

# A room is a file of src, or a folder. It imports from itself and from the rows above its own, at any level of its
# code; what is imported under TYPE_CHECKING, for hints alone, is free.
ROOMS = [
    {"errors", "files", "geometry", "intervals"},
    {"jobs", "weights", "activations"},
    {"pooling", "transforms"},
    {"ledger"},
    {"models", "data"},
    {"config", "nets", "locks"},
    {"measures", "where"},
    {"outcomes"},
    {"runs"},
    {"views"},
    {"callbacks", "saving"},
    {"run"},
    {"reuse"},
    {"slurm"},
    {"launcher"},
    {"sweep"},
    {"train", "measure", "shapes", "pools", "report"},  # the entry points
]

# What is imported nowhere else.
ONLY_IN = {
    "hydra": {"config", "launcher", "sweep", "train", "shapes"},
    "lightning": {"models/training", "callbacks", "saving", "run"},
    "wandb": {"views/wandb", "views/wandb_logs"},
    "captum": {"measures/cam"},
    "wandb_workspaces": {"views/wandb_report"},
    "submitit": {"slurm"},
}

RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
PATHS = (path.relative_to(SRC).with_suffix("") for path in SRC.rglob("*.py"))
FILES = sorted(path.as_posix() for path in PATHS if path != Path("__init__"))


def imports(node: ast.AST) -> Iterator[str]:
    """Dotted names of all modules that code imports when it runs."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from (one.name for one in names)
            case ast.ImportFrom(module=module, names=names, level=0):
                yield from (f"{module}.{one.name}" for one in names)
            case ast.ImportFrom():
                raise AssertionError("imports are written in full: from src.room import …")
            case ast.If(test=ast.Name("TYPE_CHECKING"), orelse=otherwise):
                yield from imports(ast.Module(otherwise, []))
            case _:
                yield from imports(child)


def of(file: str) -> list[str]:
    return list(imports(ast.parse((SRC / f"{file}.py").read_text())))


def room(file: str) -> str:
    return file.partition("/")[0]


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_from_its_own_room_or_from_above(file):
    rooms = {name.split(".")[1] for name in of(file) if name.startswith("src.")}
    wrong = {one for one in rooms - {room(file)} if RANK[one] >= RANK[room(file)]}
    assert not wrong, f"src/{file}.py imports {wrong}"


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_where_the_law_says_and_nowhere_else(package):
    assert {file for file in FILES if package in {name.split(".")[0] for name in of(file)}} == ONLY_IN[package]


def test_every_room_has_its_row_and_every_row_its_rooms():
    assert {room(file) for file in FILES} == set(RANK)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import a.b as c, d", ["a.b", "d"]),
        ("from src import run", ["src.run"]),
        ("from src.views import wandb", ["src.views.wandb"]),
        ("class A:\n def f(self):\n  if True:\n   from src.run import story", ["src.run.story"]),
        ("if TYPE_CHECKING:\n import a\nelse:\n import b", ["b"]),
    ],
)
def test_imports_are_found_at_any_level(code, found):
    assert list(imports(ast.parse(code))) == found
