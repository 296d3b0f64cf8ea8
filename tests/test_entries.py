"""What somebody adds to the lab, and gets wrong, is refused in one line that names the file and what it needs."""

import pickle
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from src import models, transforms
from src.data.sets import SETS
from src.errors import UserError
from src.evaluation import followed
from src.models.blocks import Network
from src.nets.hooks import record_outputs
from src.pooling import POOLS, Pool
from src.registry import Table, collect
from src.summary import summarize, verify
from tests.helpers import ROOT, network


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes a module of the package, as if it were a file in its folder; gives its name."""

    def make(name: str, **contents: Any) -> str:
        made = ModuleType(name)
        made.__file__ = str(ROOT / f"{name.replace('.', '/')}.py")
        for value in contents.values():
            if isinstance(value, type):
                value.__module__ = name
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)
        return name

    return make


# --- tables ----------------------------------------------------------------------------------------------------------


class Toy(Pool):
    """A pool."""


def pools(*names: str) -> dict[str, Any]:
    fits: Callable[[Any], bool] = lambda entry: isinstance(entry, type) and issubclass(entry, Pool)  # noqa: E731
    return collect(names, "POOLS", "a subclass of Pool", fits, {"none": "no pooling"})


@pytest.mark.parametrize(
    ("contents", "line"),
    [
        ({}, r"src/pooling/toy\.py: needs a table of what it adds, POOLS = \{NAME: a subclass of Pool\}"),
        ({"POOLS": [Toy]}, r"src/pooling/toy\.py: needs a table of what it adds, .*"),
        ({"POOLS": {"toy": None}}, r"src/pooling/toy\.py: POOLS has 'toy': None, where a name and .*"),
        ({"POOLS": {Toy: "toy"}}, r"src/pooling/toy\.py: POOLS has <class .*>: 'toy', where a name and .*"),
        ({"POOLS": {"max": Toy}}, r"src/pooling/toy\.py: POOLS has max, .* src/pooling/windows\.py .*; choose another"),
        ({"POOLS": {"none": Toy}}, r"src/pooling/toy\.py: POOLS has none, a name that no pooling has already; .*"),
    ],
)
def test_a_file_without_a_table_or_with_a_name_that_is_taken_is_refused(module, contents, line):
    with pytest.raises(UserError) as refusal:
        pools("src.pooling.windows", module("src.pooling.toy", **contents))
    assert re.fullmatch(line, str(refusal.value)), str(refusal.value)


def test_tables_are_joined_in_the_order_of_their_modules(module):
    joined = pools(module("src.pooling.toy", POOLS={"toy": Toy}), "src.pooling.windows")
    assert joined == {"toy": Toy, **{name: POOLS[name] for name in ("max", "avg", "lp")}}


@pytest.mark.parametrize(
    ("table", "name", "line"),
    [
        (POOLS, "blurr", "pool=blurr: did you mean blur? choose one of none, max, avg, "),
        (SETS, "mnst", "data=mnst: did you mean mnist? choose one of fashion_mnist, mnist, "),
        (transforms.TRANSFORMS, "shift", "transform=shift: did you mean shift/roll? choose one of shift/roll, "),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_one_and_the_table_is_a_dict_all_the_same(table, name, line):
    for kind in (KeyError, UserError):
        with pytest.raises(kind) as refusal:
            table[name]
        assert str(refusal.value).startswith(line)
    assert name not in table and table.get(name) is None and len(table) == len(dict(table))
    assert {**table} == table == table.copy()


def test_a_table_can_be_pickled():
    table = Table("toy", {"a": 1})
    again = pickle.loads(pickle.dumps(table))
    assert again == table and again.kind == "toy"


def net(name: str) -> type[Network]:
    return type(name, (Network,), {})


@pytest.mark.parametrize(
    ("contents", "there"), [({}, "none"), ({"A": net("A"), "B": net("B")}, "A and B"), ({"Other": nn.Module}, "none")]
)
def test_an_architecture_without_or_with_two_networks_is_refused(module, contents, there):
    module("src.models.toy", **{key: value for key, value in contents.items() if value is not nn.Module})
    with pytest.raises(UserError) as refusal:
        models.architecture("toy")
    needed = "where one subclass of Network is needed: model=toy"
    assert str(refusal.value) == f"src/models/toy.py: defines {there}, {needed}"


def test_a_network_under_two_names_of_one_file_is_one(module):
    toy = net("Toy")
    module("src.models.toy", Toy=toy, Alias=toy)
    assert models.architecture("toy") is toy


def test_a_followed_statistic_that_its_file_lacks_is_named(monkeypatch):
    monkeypatch.setitem(followed.FOLLOWED, "toy", "of_layers")
    with pytest.raises(UserError, match=r"^src/evaluation/followed/of_layers\.py: has no function toy, .*FOLLOWED"):
        followed.statistic("toy")


# --- pools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("lip", {"kernel_size": 2, "stride": 2}, "LIP has weights: it needs channels="),
        ("max", {"kernel_size": 0}, "Max: kernel_size=0: must be a whole number of at least 1"),
        ("max", {"padding": -1}, "Max: padding=-1: must be a whole number of at least 0"),
        ("max", {"border": "zeros"}, "Max: border='zeros': choose one of clip, circular, reflect, replicate"),
        ("wavelet", {"stride": 3}, "Wavelet: one level of the Haar transform halves a map: stride 2 only, not 3"),
    ],
)
def test_wrong_arguments_of_a_pool_are_refused_with_its_name(name, options, line):
    with pytest.raises(UserError) as refusal:
        POOLS[name](**options)
    assert str(refusal.value) == line


class Silent(Pool):
    """A pool whose ``forward`` forgets to return."""

    def forward(self, x: Any) -> Any:
        pass


def test_a_pool_that_returns_nothing_is_named(monkeypatch):
    monkeypatch.setitem(POOLS, "silent", Silent)
    net = network((1, 8, 8), pool="silent")
    with pytest.raises(UserError, match=r"^stage1\.pool: Silent gives NoneType, where the summary says a tensor$"):
        verify(summarize(net, (1, 8, 8)), net)
    with (
        record_outputs(net, ["stage1.pool"]),
        pytest.raises(UserError, match=r"^stage1\.pool: Silent gives NoneType, where a tensor is needed$"),
    ):
        net(torch.zeros(1, 1, 8, 8))
