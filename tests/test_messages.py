"""What bad input is told, in one line that fits the caller: Python, or the command line."""

import copy
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.common.errors import UserError
from src.evaluation.evaluate import evaluate
from src.measuring import table
from src.measuring.net import measure_net
from src.measuring.options import Images, Options, check_options
from src.nets.external import NetError, load_net, with_hints
from src.pooling import swap_pools
from src.results import files
from src.summary import summarize
from src.transforms import check_max_shift, shift_amounts
from tests.helpers import ROOT

# as they are where the package is used: here, a type checker stands before them
evaluate, swap_pools = (inspect.unwrap(function) for function in (evaluate, swap_pools))

IMAGES = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """Pools by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv(x), 2).mean((2, 3))


class Tuple(nn.Module):
    """Gives a tuple; its sum runs over the images too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1)[:, :5], x.mean()


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(5))


@pytest.mark.parametrize(
    ("net", "pool", "options", "words"),
    [
        (Functional(), "blur", {}, r"^nothing to replace: the net: max_pool2d is called as a function, which cannot"),
        (nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3)), "haar", {}, r"^pool=haar: choose one of max"),
        (nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3)), "wavelet", {}, r"^layer 1: "),
        (nn.Sequential(nn.MaxPool2d(2)), "blurr", {}, r"^pool=blurr: did you mean blur\? choose one of max"),
        (nn.Sequential(nn.MaxPool2d(2)), nn.AvgPool2d, {}, r"^pool: must be called as those of POOLS, with \("),
        (nn.Sequential(nn.MaxPool2d(2)), lambda *a, **k: nn.ReLU(), {}, r"^pool: must give a Pool, .* not ReLU$"),
        (nn.Sequential(nn.MaxPool2d(2)), torch.zeros(99, 9), {}, r"^pool=a Tensor of shape \(99, 9\): choose one of"),
        (nn.Sequential(nn.MaxPool2d(2)), "avg", {"window": torch.zeros(99)}, r"^window=a Tensor of shape"),
        (nn.Module(), "avg", {}, r"^the net, a Module, has no forward: it cannot be run$"),
    ],
)
def test_swapping_pools_says_what_is_wrong(net, pool, options, words):
    before = copy.deepcopy(net)
    with pytest.raises(UserError, match=words) as caught:
        swap_pools(net, pool, (3, 24, 24), **options)
    assert len(str(caught.value).splitlines()) == 1 and str(net) == str(before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"what": "shfit"}, r"^what=shfit: did you mean shift\? choose among"),
        ({"layers": "9"}, r"^layers=9: the net has none; it has 0, 1, 2, 3$"),
        ({"images": IMAGES[:, :1]}, r"^the net does not take 1×24×24 images \(Given groups=1.*got 1 channels"),
        ({"max_shift": 24}, r"^max_shift=24: above 8 it must be below the 24 pixels of an image's side$"),
        ({"max_shift": torch.zeros(999)}, r"^max_shift=a Tensor of shape \(999,\): must be a whole number"),
        ({"net": nn.Module()}, r"^the net, a Module, has no forward"),
    ],
)
def test_evaluate_says_nothing_of_options_that_it_has_not(options, words):
    with pytest.raises(UserError, match=words) as caught:
        evaluate(**{"net": small(), "images": IMAGES, "quiet": True} | options)
    assert not re.search("size=|=list", str(caught.value))


def test_the_measure_command_says_which_option_may_help():
    with pytest.raises(UserError, match=r"^no; another size= may do$"), with_hints():
        raise NetError("no", "another size= may do")
    with pytest.raises(UserError, match=r"^what=shft: did you mean shift\? choose among"):
        check_options(Options(net="torchvision/vgg11", what="shft"))
    with pytest.raises(UserError, match=r"^net=torchvision/resnet99: torchvision has no such net; did you mean resnet"):
        measure_net(Options(net="torchvision/resnet99", data=Images()))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.at_all:Net", "there is no module nowhere, in this folder or installed$"),
        ("math:sqroot", r"math has no sqroot; did you mean sqrt\?$"),
        ("math:pi", "is a float, where an nn.Module, or a class or function that"),
        ("torch.nn:Linear", r"calling it without arguments fails \(.*missing 2 required"),
        ("mine:Net", r"mine cannot be imported \(invalid syntax"),
        ("needs:Net", "needs needs the module never_installed, which is not installed$"),
    ],
)
def test_a_net_of_ones_own_is_refused_in_plain_words(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def\n")
    Path("needs.py").write_text("import never_installed\n")
    with pytest.raises(UserError, match=words) as caught:
        load_net(name)
    assert "Error" not in str(caught.value)


def test_other_images_than_a_runs_are_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / files.CONFIG).write_text("measure: {images: 100}\n")
    options = Options(checkpoint=str(tmp_path / "checkpoints" / "best.ckpt"), images=20)  # there is no such file
    with pytest.raises(UserError, match=r"^images=20, the run has measure\.images=100: .* give out=TABLE\.csv$"):
        table.refuse_options(options)
    table.refuse_options(Options(checkpoint=options.checkpoint, images=100))
    table.refuse_options(Options(checkpoint=options.checkpoint, images=20, out=str(tmp_path / "again.csv")))


def test_shifts_above_eight_pixels_are_measured():
    assert [shift_amounts(most) for most in (1, 3, 8)] == [(1.0,), (1.0, 2.0, 3.0), tuple(map(float, range(1, 9)))]
    assert shift_amounts(16)[8:] == (16.0,) and shift_amounts(17)[8:] == (16.0, 17.0) and shift_amounts(9)[8:] == (9.0,)
    large, usual = (evaluate(small(), IMAGES, max_shift=most, quiet=True) for most in (20, 8))
    amounts = {protocol: rows.amount.unique().tolist() for protocol, rows in large.groupby("protocol")}
    assert amounts["roll"] == amounts["crop"] == [*range(1, 9), 16, 20]
    rolls = [table[(table.protocol == "roll") & (table.amount <= 8)].value.tolist() for table in (large, usual)]
    assert rolls[0] == rolls[1], "others do not change"
    check_max_shift("max_shift", 8, 4, 4)
    check_max_shift("max_shift", 9, 10, 12)


def test_numbers_that_are_not_defined_have_a_note():
    table = evaluate(nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5)), IMAGES, max_shift=1, quiet=True)
    assert "nan" not in table.attrs["notes"]
    constant = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5))
    nn.init.zeros_(constant[1].weight)
    note = evaluate(constant, IMAGES, max_shift=1, quiet=True).attrs["notes"]["nan"]
    assert "output_distance of output" in note and "where all images have the same output" in note


def test_a_net_that_gives_a_tuple_is_measured_and_its_summary_refused_in_words():
    assert len(evaluate(Tuple(), IMAGES, max_shift=1, quiet=True))
    with pytest.raises(UserError, match="a mean, sum or maximum over all dimensions; the summary follows those of an"):
        summarize(Tuple(), (3, 24, 24))


def test_the_package_lists_its_public_names_and_subpackages():
    code = "import sys, src; shown = {name for name in dir(src) if name[0] != '_'}; print(*sorted(shown)); "
    code += "print(src.pooling.POOLS is src.POOLS, 'torchmetrics' in sys.modules, src.metrics.InvarianceError.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    names, rest = done.stdout.splitlines()
    assert {"evaluate", "swap_pools", "summarize", "pooling", "metrics"} <= {*names.split()}
    assert not {"Any", "Path", "ctypes", "random", "sys"} & {*names.split()} and rest == "True False InvarianceError"


def test_a_summary_prints_as_a_table():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2048, 10))
    lines = str(summarize(net, (3, 32, 32))).splitlines()
    assert lines[0].split() == ["layer", "channels", "size", "RF", "stride", "centre", "params", "mult-adds", "seen"]
    assert lines[1].split()[:7] == ["0", "8", "32×32", "3", "1", "0.5", "224"] and len(lines) == 6
    assert lines[-1].startswith("input 3×32×32; 20,714 parameters; 242 k multiply-adds")
