"""Watching layers leaves no trace: hooks, flags, memory."""

import gc
import weakref

import pytest
import torch
import torchvision
from torch import nn

from src.common.errors import UserError
from src.nets.hooks import eval_mode, record_outputs, stream_outputs
from tests.helpers import Overwrites

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


@pytest.fixture
def net() -> nn.Sequential:
    """In-place, nested, and with mixed train/eval flags."""
    block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True))
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Dropout(0.5), block)
    whole.train()
    block.eval()
    return whole


def flags(net: nn.Module) -> list[bool]:
    return [layer.training for layer in net.modules()]


def hooks(net: nn.Module) -> int:
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in net.modules())


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(value), torch.Tensor) for value in gc.get_objects())


def test_outputs_are_those_of_the_layers(net):
    with record_outputs(net, ["0", "3.0"]) as maps:
        y = net(X)
    assert set(maps) == {"0", "3.0"}
    torch.testing.assert_close(maps["0"], net[0](X))
    torch.testing.assert_close(maps["3.0"].relu(), y)


def test_names_may_come_from_a_generator(net):
    with record_outputs(net, (name for name in ["0", "1"])) as maps:
        net(X)
    assert set(maps) == {"0", "1"}


def test_each_forward_replaces_the_captured_outputs(net):
    with record_outputs(net, ["0"]) as maps:
        net(X)
        first = maps["0"]
        net(2 * X)
        assert not torch.equal(maps["0"], first)


def test_an_in_place_layer_does_not_change_what_was_captured(net):
    with record_outputs(net, ["0"]) as maps:
        net(X)
    assert maps["0"].min() < 0
    torch.testing.assert_close(maps["0"], net[0](X))


def test_each_output_is_shown_as_it_comes_before_an_in_place_layer_changes_it(net):
    shown = []
    with stream_outputs(net, ["0", "3.0"], lambda name, output: shown.append((name, output.clone()))):
        answers = [net(scale * X) for scale in (1, 2, 3)]
    assert [name for name, _ in shown] == ["0", "3.0"] * 3
    for i, y in enumerate(answers):
        torch.testing.assert_close(shown[2 * i][1], net[0]((i + 1) * X))
        torch.testing.assert_close(shown[2 * i + 1][1].relu(), y)


def test_of_a_layer_that_runs_twice_the_last_output_is_shown():
    relu, shown = nn.ReLU(), []
    net = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 2, 3), relu)
    with stream_outputs(net, ["1", "2"], lambda name, output: shown.append((name, tuple(output.shape)))):
        net(X), net(X), net(X)
    one = [("1", (2, 2, 4, 4)), ("2", (2, 2, 4, 4))]
    assert sorted(shown[:2]) == one
    assert shown[2:4] == shown[4:] == one[::-1]


def test_what_is_shown_is_not_kept(net):
    kept = []
    with torch.no_grad(), stream_outputs(net, ["0"], lambda name, output: kept.append(weakref.ref(output))):
        for _ in range(3):
            net(X)
        gc.collect()
        assert [one() for one in kept] == [None] * 3


def test_hooks_are_removed_after_an_exception(net):
    before = flags(net)

    def fail(name: str, output: torch.Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), stream_outputs(net, ["0", "1", "3"], fail):
        net(X)
    assert hooks(net) == 0
    assert flags(net) == before


def test_inside_all_is_in_eval_mode(net):
    with record_outputs(net, ["0"]):
        assert not any(flags(net))
    with eval_mode(net):
        assert torch.equal(net(X), net(X))


@pytest.mark.parametrize("asked", ["ieee", "tf32"])
def test_inside_float32_is_float32_and_afterwards_what_was_asked_for(net, asked):
    precisions = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [precision.fp32_precision for precision in precisions]
    try:
        for one in precisions:
            one.fp32_precision = asked
        with pytest.raises(ZeroDivisionError), eval_mode(net):
            assert [precision.fp32_precision for precision in precisions] == ["ieee", "ieee"]
            raise ZeroDivisionError
        assert [precision.fp32_precision for precision in precisions] == [asked, asked]
    finally:
        for one, precision in zip(precisions, before, strict=True):
            one.fp32_precision = precision


def test_hooks_and_flags_are_as_before(net):
    before = flags(net)
    assert set(before) == {True, False}
    with record_outputs(net, ["0", "1", "3"]):
        assert hooks(net) == 3 + 2, "one a layer, and two that see the forward begin and end"
    assert hooks(net) == 0
    assert flags(net) == before


def test_hooks_and_flags_are_as_before_after_an_exception(net):
    before = flags(net)
    with pytest.raises(ZeroDivisionError), record_outputs(net, ["0", "1", "3"]):
        raise ZeroDivisionError
    assert hooks(net) == 0
    assert flags(net) == before


def test_an_unknown_layer_is_refused_with_the_valid_ones(net):
    before = flags(net)
    with (
        pytest.raises(KeyError, match=r"no layer conv9; the net has 0, 1, 2, 3, 3\.0, 3\.1"),
        record_outputs(net, ["conv9"]),
    ):
        pass
    assert flags(net) == before
    assert hooks(net) == 0


def test_a_hundred_captures_keep_nothing(net):
    def capture() -> None:
        with record_outputs(net, ["0", "3"]), torch.no_grad():
            net(X)

    capture()
    before = tensors()
    for _ in range(100):
        capture()
    assert tensors() == before
    assert hooks(net) == 0


# --- outputs that the net overwrites later ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["function", "method", "sum", "product", "view", "earlier"])
def test_what_a_function_overwrites_later_is_captured_as_it_was(how):
    net = Overwrites(how)
    shown: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for scale in (1, 2, 3):  # the first forward, and those after it
            one = net.one(scale * X)
            right = {"one": one, "two": net.two(one)}
            with record_outputs(net, right) as maps:
                for _ in range(2):
                    net(scale * X)
                    for name, expected in right.items():
                        torch.testing.assert_close(maps[name], expected)
            with stream_outputs(net, right, lambda name, output: shown.update({name: output.clone()})):
                for _ in range(2):
                    net(scale * X)
                    for name, expected in right.items():
                        torch.testing.assert_close(shown[name], expected)


def test_from_the_second_forward_on_only_what_is_overwritten_is_copied():
    net, seen = Overwrites("function"), {}
    with torch.no_grad(), record_outputs(net, ["one", "two"]) as maps:
        for name in ("one", "two"):
            net.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: seen.update({name: y}))
        net(X)
        net(X)
    assert maps["one"] is seen["one"]
    assert maps["two"] is not seen["two"]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "convnext_tiny"])
def test_published_nets_that_overwrite_are_seen_as_they_run(name):
    """57 of googlenet's layers used to be measured after a function had overwritten them."""
    options = {} if name == "convnext_tiny" else {"init_weights": False, "aux_logits": False}
    net = torchvision.models.get_model(name, weights=None, **options).eval()
    x = torch.randn(1, 3, 96, 96)
    layers = [name for name, module in net.named_modules() if name and not [*module.children()]]
    right: dict[str, torch.Tensor] = {}
    handles = [
        net.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: right.update({name: y.clone()}))
        for name in layers
    ]
    with torch.no_grad():
        net(x)
        for handle in handles:
            handle.remove()
        with record_outputs(net, right) as maps:
            for _ in range(2):
                net(x)
                assert [name for name, expected in right.items() if not torch.equal(maps[name], expected)] == []


def test_in_inference_mode_where_nothing_is_counted_all_is_copied():
    net = Overwrites("product")
    with torch.inference_mode(), record_outputs(net, ["two"]) as maps:
        right = net.two(net.one(X))
        for _ in range(2):
            net(X)
            torch.testing.assert_close(maps["two"], right)


class Changes(nn.Module):
    """Does something else from a later forward on, or breaks off the first."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.forwards, self.one = how, 0, nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        y = self.one(x)
        if self.how == "breaks off" and self.forwards == 1:
            raise ZeroDivisionError
        if self.how == "writes later" and self.forwards == 3:
            y.neg_()
        if self.how == "runs twice later" and self.forwards == 3:
            y = self.one(y)
        return y.mean((2, 3))


def test_what_changes_after_the_first_forward_is_refused_and_not_shown_wrong():
    net = Changes("writes later")
    with torch.no_grad(), record_outputs(net, ["one"]):
        net(X), net(X)
        with pytest.raises(UserError, match="one: overwritten in place"):
            net(X)
    net = Changes("runs twice later")
    with torch.no_grad(), stream_outputs(net, ["one"], lambda *_: None):
        net(X), net(X)
        with pytest.raises(UserError, match="one: runs more or less often"):
            net(X)


def test_after_a_first_forward_that_was_broken_off_all_is_shown():
    net, shown = Changes("breaks off"), []
    with (
        torch.no_grad(),
        stream_outputs(net, ["one"], lambda name, _: shown.append(name)),
        record_outputs(net, ["one"]) as maps,
    ):
        with pytest.raises(ZeroDivisionError):
            net(X)
        for _ in range(3):
            net(X)
    torch.testing.assert_close(maps["one"], net.one(X))
    assert shown == ["one"] * 3
