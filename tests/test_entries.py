"""What somebody adds to the lab, and gets wrong, is refused in one line that names the file and what it needs."""

import pickle
import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from src import models, transforms
from src.common.errors import UserError
from src.common.registry import Table, collect
from src.data import sets
from src.data.sets import SETS, DataError, DataSet, Images, Source, load
from src.evaluation import families, followed, suite
from src.evaluation.adapter import EvaluationSet, ModelAdapter, normaliser
from src.launch import compose
from src.metrics.quantities import Quantity, declared
from src.metrics.rows import Estimate, Note, Row
from src.models import Model
from src.models.blocks import Network
from src.nets.hooks import record_outputs
from src.pooling import POOLS, Pool
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


def test_a_followed_statistic_that_its_file_lacks_is_named(module, monkeypatch):
    module("src.evaluation.followed.of_toys")
    monkeypatch.setitem(followed.FOLLOWED, "toy", "of_toys")
    with pytest.raises(UserError, match=r"^src/evaluation/followed/of_toys\.py: has no function toy, .*FOLLOWED"):
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


# --- data sets -------------------------------------------------------------------------------------------------------

PIXELS = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
LABELS = torch.arange(6) % 3


def part(**wrong: Any) -> Images:
    """Six images of three classes, some of whose fields are wrong, which the tests' type checker would not let pass."""
    images = Images(PIXELS, LABELS)
    for name, value in wrong.items():
        object.__setattr__(images, name, value)
    return images


def source(**wrong: Any) -> Source:
    whole = Source(part(), part(), ["a", "b", "c"], "edge", {"far": part()})
    for name, value in wrong.items():
        object.__setattr__(whole, name, value)
    return whole


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"train": part(images=PIXELS.expand(6, 2, 8, 8))}, "train.images: uint8 6×2×8×8, where uint8 n×1×8×8 is"),
        ({"test": part(images=PIXELS[..., :7])}, "test.images: uint8 6×1×8×7, where uint8 n×1×8×8 is needed"),
        ({"train": part(images=PIXELS.float())}, "train.images: float32 6×1×8×8, where uint8 n×1×8×8 is needed"),
        ({"train": part(images=None)}, "train.images: NoneType, where a tensor, uint8 n×1×8×8 is needed"),
        ({"train": part(labels=LABELS[:5])}, "train: 6 images and 5 labels"),
        ({"train": part(labels=LABELS.float())}, "train.labels: float32 6, where int64 n is needed"),
        ({"test": part(labels=LABELS + 1)}, "test.labels: 3 is none of the 3 classes, 0 … 2"),
        ({"others": {"far": part(labels=LABELS - 1)}}, "far.labels: -1 is none of the 3 classes, 0 … 2"),
        ({"test": None}, "test: NoneType, where Images are needed"),
        ({"test": part(padded=PIXELS)}, "test.padded: uint8 6×1×8×8, where uint8 6×1×24×24 is needed"),
        ({"test": part(factors=torch.rand(6, 3))}, "test.factors: float32 6×3, where float32 6×4 is needed"),
        ({"classes": ["a", "b"]}, "its DataSet says 3 classes, its Source names 2"),
        ({"classes": [0, 1, 2]}, "classes=[0, 1, 2]: must be a list of names"),
        ({"out_of_frame": "white"}, "out_of_frame=white: choose one of black, edge"),
        ({"others": {"near": part()}}, "its DataSet says others=('far',), its Source has others=('near',)"),
        (None, "its loader gives NoneType, where a Source is needed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_data_set_that_differs_from_its_entry_is_refused(monkeypatch, wrong, line):
    given: Any = None if wrong is None else source(**wrong)
    monkeypatch.setitem(SETS, "toy", DataSet(1, 8, 3, lambda root, size: given, others=("far",)))
    sets.load.cache_clear()
    with pytest.raises(DataError) as refusal:
        load("toy", "", 64)
    message = str(refusal.value)
    assert message.startswith(f"data=toy: {line}") and "\n" not in message


def test_a_data_set_that_matches_its_entry_is_loaded(monkeypatch):
    right = source(train=part(padded=torch.zeros(6, 1, 24, 24, dtype=torch.uint8), factors=torch.rand(6, 4)))
    for name, side, classes in (("toy", None, None), ("toy", 8, 3)):
        monkeypatch.setitem(SETS, name, DataSet(1, side, classes, lambda root, size: right, others=("far",)))
        sets.load.cache_clear()
        assert load(name, "", 8) is right


# --- another application of Hydra ------------------------------------------------------------------------------------


def test_an_application_that_is_called_src_too_gets_nothing_from_the_plugin(monkeypatch):
    plugin = ROOT / "hydra_plugins" / "whatwhere" / "__init__.py"
    for name in [name for name in sys.modules if name.partition(".")[0] == "src"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("src", "src.launch", "src.launch.sweeper", "src.launch.compose", "src.launch.user_files"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert not {"LocalLauncher", "StudySweeper", "UserConf"} & {*runpy.run_path(str(plugin))}
    monkeypatch.setattr(compose, "PACKAGE", "whatwhere")
    compose._refuse_two_names()


# --- measures --------------------------------------------------------------------------------------------------------

FAMILY = {
    "def rows(adapter, test_set):\n    yield 1\n": "",
    "def rows(adapter, test_set):\n    return [1]\n": "",
    "from .field import effective_field, rows\n": "",
    "rows = list\n": "",
    "def row(adapter, test_set):\n    yield 1\n": "has no rows(adapter, test_set), which yields its results",
}


@pytest.mark.parametrize("code", FAMILY)
def test_a_family_without_rows_is_refused_before_training(monkeypatch, tmp_path, code):
    monkeypatch.setattr(families, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "toy.py").write_text(code)
    if not FAMILY[code]:
        families.check_family("toy")
        return
    with pytest.raises(UserError) as refusal:
        families.check_family("toy")
    assert str(refusal.value) == f"src/evaluation/families/toy.py: {FAMILY[code]}"


@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_family_gives_something(name):
    families.check_family(name)


NOTHING = Row("output", "none", "test", 0, "toy", Estimate(float("nan"), 0, 0, 1))
SOMETHING = replace(NOTHING, estimate=Estimate(0.5, 0, 1, 1))


def of_family(monkeypatch: pytest.MonkeyPatch, module: Callable[..., str], given: Any) -> list[Any]:
    """What a family of a net gives, whose ``rows`` gives this."""
    module("src.evaluation.families.toy", rows=lambda adapter, test_set: given)
    monkeypatch.setattr(suite, "FAMILIES", ("toy",))
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    adapter = ModelAdapter(net, [], normaliser((0.0,), (1.0,)))
    return [*suite.evaluate_families(adapter, EvaluationSet(torch.zeros(2, 1, 4, 4), margin=0), ["toy"])]


@pytest.mark.parametrize(
    ("given", "notes"),
    [
        ([NOTHING, NOTHING], {"toy": "all its numbers are nan (2)"}),
        ([NOTHING, SOMETHING], {}),
        ([NOTHING, Note("toy", "not measured: why")], {"toy": "not measured: why"}),
        ([], {}),
    ],
)
def test_a_family_whose_numbers_are_all_nan_leaves_a_note(monkeypatch, module, given, notes):
    found = of_family(monkeypatch, module, given)
    assert {note.measure: note.words for note in found if isinstance(note, Note)} == notes
    assert found[: len(given)] == given


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (None, "rows gives NoneType; it must yield Row, Heatmap, Note, PerImage or Pictures"),
        ([SOMETHING, 0.5], "rows yields float, where Row, Heatmap, Note, PerImage or Pictures is needed"),
    ],
)
def test_a_family_that_gives_something_else_is_named(monkeypatch, module, given, line):
    with pytest.raises(UserError) as refusal:
        of_family(monkeypatch, module, given)
    assert str(refusal.value) == f"src/evaluation/families/toy.py: {line}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("QUANTITIES = [Quantity('toy')]", "it is no tuple"),
        ("QUANTITIES: tuple[Quantity, ...] = (Quantity('toy', low=math.pi),)", "malformed node"),
        ("QUANTITIES = (toy,)", "toy is no Quantity"),
    ],
)
def test_quantities_that_cannot_be_read_are_refused_with_their_place(tmp_path, line, problem):
    (tmp_path / "toy.py").write_text(f"import math\n{line}\n")
    with pytest.raises(UserError) as refusal:
        [*declared(tmp_path / "toy.py")]
    assert str(refusal.value).startswith(f"{tmp_path}/toy.py: line 2: QUANTITIES must be a tuple of Quantity(…)")
    assert problem in str(refusal.value)


def test_quantities_may_be_annotated(tmp_path):
    (tmp_path / "toy.py").write_text("QUANTITIES: tuple[Quantity, ...] = (Quantity('toy', low=0),)\n")
    assert [*declared(tmp_path / "toy.py")] == [Quantity("toy", low=0)]


# --- architectures ---------------------------------------------------------------------------------------------------

STAGES = [
    (["sstage1", "sstage2"], "adds sstage1, sstage2; its stages must be stage1, stage2 … in this order"),
    (["stage2", "stage1"], "adds stage2, stage1; its stages must be stage1, stage2 … in this order"),
    (["stage0", "stage1"], "adds stage0, stage1; its stages must be stage1, stage2 … in this order"),
    ([], "adds nothing; its stages must be stage1, stage2 … in this order"),
    (["stage1", "stage1"], "adds stage1, the name of a layer that the net has already"),
    (["stage1", "forward"], "adds forward, the name of an attribute that the net has already"),
    (["stage1", "logits"], "adds logits, which the base class adds"),
]


@pytest.mark.parametrize(("names", "line"), STAGES)
def test_layers_of_wrong_names_are_refused_when_the_net_is_built(names, line):
    class Plain(Network):
        """Convolutions under some names."""

        def build(self, model: Model) -> None:
            """Add them."""
            for name in names:
                self.add(name, nn.Identity())

    Plain.__module__ = "src.models.plain"
    with pytest.raises(UserError) as refusal:
        Plain(Model(), (1, 8, 8), 2)
    assert str(refusal.value) == f"src/models/plain.py: {line}"
