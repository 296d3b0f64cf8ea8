"""The nets that run in the page give PyTorch's numbers: all pools and architectures in one page of a real browser."""

import base64
import json
import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page
from torch import Tensor, nn

from src.config import from_dict, to_dict
from src.metrics.invariance_error import InvarianceError
from src.metrics.layer_outputs import LayerOutputs, TransformedOutputs
from src.metrics.output_distance import OutputDistance
from src.models import ARCHITECTURES, Model, Network, network
from src.nets.hooks import record_outputs
from src.pooling import POOLS
from src.reporting.comparison import group_into_variants
from src.reporting.live_net import load_net, pack, serialize_live_nets
from src.reporting.map_browser import serialize_maps
from src.reporting.maps import save_maps
from src.reporting.net_program import Normalisation, move_tables, program_of
from src.reporting.page import build_report
from src.reporting.page_program import UnknownOperationError
from src.results import files
from src.results.runs import find_runs
from tests.test_comparison import leave_run

REPORTING = Path("src/reporting")
CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
pytestmark = pytest.mark.filterwarnings("default:::playwright")
IMAGE, CLASSES = (2, 13, 15), 3
#: largest difference that is allowed, as a share of the layer's largest value
TOLERANCE = 1e-4
NO_MAPS = {"pool": "none", "stride": 1, "head": "flatten", "convs": None}
FIXED = {**NO_MAPS, "depth": 1, "norm": "none"}
#: what else an architecture needs
NEEDS: dict[str, dict[str, Any]] = {
    "allconv": {"variant": "b", "convs": None, "depth": 3},
    "vgg": {"variant": "13", "convs": None, "depth": 5, "pool_at": [1, 2]},
    "mlp": NO_MAPS, "pca": {**FIXED, "width": 8}, "pixels": {**FIXED, "width": 1}, "hog": {**FIXED, "width": 1},
    "hog_kernel": {**FIXED, "width": 8},
}  # fmt: skip
#: architectures that the page cannot compute → the operation that it lacks
REFUSED = {"hog": "scatter in place", "hog_kernel": "scatter in place"}


def options() -> Iterator[dict[str, Any]]:
    """Every pool with cut-off and with continued borders; every architecture, norm, activation, head and padding."""
    for pool in POOLS:
        for padding in ("zeros", "circular"):
            yield {"name": "ladder", "pool": pool, "padding": padding, "depth": 1, "convs": 1}
    for name in ARCHITECTURES:
        if name not in REFUSED:
            yield {"name": name, "depth": 2, **NEEDS.get(name, {})}
    for name in ("resnet", "convnext", "mlp"):
        for norm in ("group", "layer", "none"):
            yield {"name": name, "norm": norm, "depth": 2, **NEEDS.get(name, {})}
    for activation in ("leaky_relu", "gelu", "silu", "tanh"):
        yield {"name": "ladder", "activation": activation, "depth": 1}
    for head in ("gmp", "flatten"):
        yield {"name": "ladder", "head": head, "depth": 1}
    for padding in ("full", "valid", "reflect", "replicate"):
        yield {"name": "resnet", "padding": padding, "depth": 1}
    yield {"name": "ladder", "pool": "blur", "stride": 3, "window": 4, "depth": 1}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    """Without torch's log of every traced node."""
    logging.getLogger("torch.__trace").setLevel(logging.INFO)


def random_net(**model: Any) -> Network:
    """A net in eval mode whose every parameter and statistic is random."""
    net = network(Model(**{"width": 4, **model}), IMAGE, CLASSES).eval()
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point() and (tensor.dim() < 2 or not tensor.any()) and "taps" not in name:
                tensor.add_(0.3 * torch.randn_like(tensor))
    return net


normalise = Normalisation([0.3, 0.4], [0.2, 0.3])


def outputs_of(net: Network, pixels: Tensor) -> dict[str, Tensor]:
    """The outputs of the layers that the page has, by PyTorch."""
    names = [*net.stages, "features", "logits"]
    with record_outputs(net, names) as outputs, torch.no_grad():
        net(normalise(pixels))
        return {name: outputs[name].clone() for name in names}


def packed_array(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


@pytest.fixture(scope="module")
def engine(browser: Browser) -> Iterator[Page]:
    """A page with the scripts that run nets, and nothing else."""
    tab = browser.new_page()
    page_script = (REPORTING / "page.js").read_text(encoding="utf-8").partition("function sortBy")[0]
    tab.add_script_tag(content=page_script + (REPORTING / "live_net.js").read_text(encoding="utf-8"))
    yield tab
    tab.close()


#: the largest difference of each layer, as a share of its largest value
COMPARE = """async nets => {
  const floats = text => new Float32Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
  return Promise.all(nets.map(async ({packed, pixels, wanted}) => {
    const net = await unpackNet(packed);
    net.pixels.fill(7); net.run();  // whatever a frame leaves must not reach the next
    net.pixels.set(floats(pixels)); net.run();
    return Object.fromEntries(Object.entries(wanted).map(([name, text]) => {
      const expected = floats(text), {data} = net.outputs[name];
      let worst = data.length === expected.length ? 0 : Infinity, largest = 0;
      expected.forEach((value, i) => {
        worst = Math.max(worst, Math.abs(value - data[i]));
        largest = Math.max(largest, Math.abs(value));
      });
      return [name, worst / largest];
    }));
  }));
}"""


def compared(engine: Page, net: Network, pixels: Tensor, reference: Network | None = None, half: bool = False) -> Any:
    """What the page compares: a net as it is packed, and the outputs of it or of another."""
    wanted = {name: packed_array(value.numpy()) for name, value in outputs_of(reference or net, pixels).items()}
    return {"packed": pack(program_of(net, normalise), half), "pixels": packed_array(pixels.numpy()), "wanted": wanted}


@needs_chromium
def test_every_pool_and_architecture_gives_the_activations_of_pytorch(engine: Page) -> None:
    pixels = 255 * torch.rand(1, *IMAGE)
    models = list(options())
    nets = [compared(engine, random_net(**model), pixels) for model in models]
    results = engine.evaluate(COMPARE, nets)
    wrong = {
        json.dumps(model): differences
        for model, differences in zip(models, results, strict=True)
        if not all(difference < TOLERANCE for difference in differences.values())
    }
    assert not wrong
    assert {model["pool"] for model in models if "pool" in model} == {*POOLS}
    assert all(len(differences) >= 2 for differences in results)


@needs_chromium
def test_half_precision_rounds_large_weights_as_pytorch_does(engine: Page) -> None:
    net = random_net(name="ladder", norm="none", depth=3, width=8)
    with torch.no_grad():
        weight = net.get_parameter("stage2.conv1.weight")
        weight.view(-1)[:64] *= 2.0 ** -torch.arange(64).clamp(max=30)  # numbers below the normal range too
    rounded = network(Model(name="ladder", norm="none", depth=3, width=8), IMAGE, CLASSES).eval()
    state = {name: value.half().float() if value.numel() >= 256 else value for name, value in net.state_dict().items()}
    rounded.load_state_dict(state)
    assert any(not torch.equal(value, state[name]) for name, value in net.state_dict().items())
    pixels = 255 * torch.rand(1, *IMAGE)
    (same,) = engine.evaluate(COMPARE, [compared(engine, net, pixels, rounded, half=True)])
    assert max(same.values()) < TOLERANCE
    bits = np.array([0, 1, 0x83FF, 0x0400, 0x3C00, 0xC123, 0x7BFF, 0x7C00, 0xFC00], np.uint16)
    numbers = engine.evaluate("bits => bits.map(halfToNumber).map(String)", bits.tolist())
    assert [float(number) for number in numbers] == bits.view(np.float16).tolist()


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_that_the_page_lacks_is_named(name: str) -> None:
    with pytest.raises(UnknownOperationError, match=f"has {REFUSED[name]}, which"):
        program_of(random_net(name=name, depth=1, **{k: v for k, v in NEEDS[name].items() if k != "depth"}), normalise)


def test_values_that_move_in_no_regular_way_are_refused() -> None:
    order = torch.tensor([[0, 3], [1, 1]])
    with pytest.raises(UnknownOperationError, match="moves values"):
        move_tables(lambda x: x.view(-1)[order], (2, 2))
    with pytest.raises(UnknownOperationError, match="moves values"):
        move_tables(lambda x: x.cumsum(0), (4,))


def test_an_activation_in_place_is_the_same_as_another_and_is_refused_on_a_view() -> None:
    class OnView(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            torch.relu_(y.view(-1))
            return y

    net = random_net(name="ladder", depth=1, convs=1)
    plain = program_of(net, normalise).steps
    net.set_submodule("stage1.act1", nn.ReLU(inplace=True))
    assert program_of(net, normalise).steps == plain
    net.set_submodule("stage1.act1", OnView())
    with pytest.raises(UnknownOperationError, match="relu in place"):
        program_of(net, normalise)


# --- the page ---


def leave_live_run(run: Path, task: str = "what", **model: Any) -> None:
    """A finished run with its weights, and maps of five images."""
    settings = {"model": {"width": 4, "depth": 2, **model}, "data": {"task": task}}
    leave_run(run, 0.9, 0.1, **settings)
    cfg = from_dict(settings)
    torch.manual_seed(1)
    outputs = CLASSES * (task != "where") + 2 * (task != "what")
    net = network(cfg.model, (1, 12, 12), outputs)
    (run / files.CHECKPOINTS).mkdir()
    torch.save({"config": to_dict(cfg), "state_dict": net.state_dict()}, run / files.CHECKPOINTS / files.BEST)
    facts = files.read_json(run / files.RUN, {})
    facts |= {"pixel_mean": [0.25], "pixel_std": [0.5], "classes": ["a", "<b>", "c"]}
    files.write_json(run / files.RUN, facts)
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 12, 12)).astype(np.uint8)
    save_maps(run, 1, images, {"stage1": np.ones((5, 4, 6, 6), np.float32)})


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    for pool in ("avg", "max"):
        leave_live_run(folder / pool, pool=pool)
    return folder


def live_nets(folder: Path, **options: Any) -> dict[str, Any]:
    variants = group_into_variants(find_runs(folder)[0])
    return serialize_live_nets(variants, serialize_maps(variants), **options)


def test_a_net_that_does_not_run_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    for pool in ("avg", "blur", "max", "none", "soft"):
        leave_live_run(folder / pool, pool=pool)
    (folder / "blur" / files.CHECKPOINTS / files.BEST).unlink()
    for pool, facts in (("max", {"parameters": 500_001}), ("none", {"pixel_mean": None})):
        tree = files.read_json(folder / pool / files.RUN, {}) | facts
        files.write_json(folder / pool / files.RUN, {key: value for key, value in tree.items() if value is not None})
    found = live_nets(folder)
    assert [net["name"] for net in found["nets"]] == ["pool=avg", "pool=soft"]
    assert found["left_out"] == {
        "its weights are not in the run's folder (checkpoints/best.ckpt)": ["pool=blur"],
        "it has more than 500,000 parameters": ["pool=max"],
        "an earlier version left the run, without the mean and the deviation of the pixels": ["pool=none"],
    }
    assert found["characters"] == sum(len(net["program"]) + len(net["weights"]) for net in found["nets"])
    least = len(found["nets"][0]["program"]) + len(found["nets"][0]["weights"])
    fewer = live_nets(folder, most_characters=least)
    assert [net["name"] for net in fewer["nets"]] == ["pool=avg"]
    assert fewer["left_out"]["the 1.5 MB that a page has for live nets are used up"] == [
        "pool=blur",
        "pool=none",
        "pool=soft",
    ]


@pytest.fixture(scope="module")
def page(browser: Browser, sweep: Path) -> Iterator[Page]:
    complaints: list[str] = []
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    tab.goto(build_report(sweep).as_uri())
    yield tab
    tab.close()
    assert not complaints, "no errors, and nothing is fetched"


@pytest.fixture
def live(page: Page) -> Page:
    """The page with both nets ready, on the first image."""
    page.locator("#live").scroll_into_view_if_needed()
    page.wait_for_function("live.chosen")
    page.locator("#live-reset").click()
    page.locator("#live-images button").first.click()
    return page


def errors_shown(live: Page) -> dict[str, list[float]]:
    """Layer → its error in both nets, as the table says."""
    live.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    live.evaluate("frame()")
    numbers = "[...row.querySelectorAll('span')].map(span => +span.textContent)"
    rows = live.locator("#live-errors tbody tr").evaluate_all(
        f"rows => rows.map(row => [row.dataset.layer, ...{numbers}])"
    )
    return {name: values for name, *values in rows}


@needs_chromium
def test_errors_are_those_of_the_measures_for_the_same_roll(live: Page, sweep: Path) -> None:
    live.locator("#live-border").select_option("wrap")
    live.locator("#live-right").fill("2")
    live.locator("#live-down").fill("-3")
    shown = errors_shown(live)
    for i, pool in enumerate(("avg", "max")):
        (run,) = find_runs(sweep / pool)[0]
        net, prepare, _ = load_net(run, (1, 12, 12))
        images = np.random.default_rng(0).integers(0, 256, (5, 1, 12, 12))
        pixels = torch.from_numpy(images).float()
        layers = ["stage1", "stage2", "features", "logits"]
        with record_outputs(net, layers) as outputs, torch.no_grad():
            net(prepare(pixels))
            before = {name: outputs[name].clone() for name in layers}
            net(prepare(pixels.roll((-3, 2), (2, 3))))
            after = {name: outputs[name].clone() for name in layers}
        for name in layers:
            reference = LayerOutputs(before[name])
            measure = OutputDistance() if name == "logits" else InvarianceError()
            both = measure.of_images(reference, TransformedOutputs(reference, after[name]), None)
            expected = both[0, 0] / both[:, 1].mean()  # of the first image; the others over all
            got = shown["output" if name == "logits" else name][i]
            assert got == pytest.approx(float(expected), abs=2e-3), (pool, name)


@needs_chromium
def test_nothing_changes_without_a_transform_and_all_returns_after_a_reset(live: Page) -> None:
    assert all(value == 0 for values in errors_shown(live).values() for value in values)
    for name, amount in (("right", "0.5"), ("angle", "20"), ("noise", "0.2")):
        live.locator(f"#live-{name}").fill(amount)
        assert min(errors_shown(live)["output"]) > 0
        live.locator("#live-reset").click()
        assert max(errors_shown(live)["output"]) == 0


@needs_chromium
def test_transforms_are_those_of_an_independent_interpolation(live: Page) -> None:
    from scipy import ndimage

    image = np.random.default_rng(0).integers(0, 256, (5, 1, 12, 12))[0, 0].astype(float)
    shift = partial(ndimage.shift, image, (0.75, -1.5), order=1)
    cases = [("black", "grid-constant"), ("edge", "nearest"), ("wrap", "grid-wrap")]
    for border, mode in cases:
        live.locator("#live-border").select_option(border)
        live.locator("#live-right").fill("-1.5")
        live.locator("#live-down").fill("0.75")
        errors_shown(live)
        assert live.evaluate("[...live.pixels]") == pytest.approx(shift(mode=mode).ravel(), abs=1e-3), border
    live.locator("#live-reset").click()
    live.locator("#live-angle").fill("90")
    errors_shown(live)
    assert live.evaluate("[...live.pixels]") == pytest.approx(np.rot90(image).ravel(), abs=1e-3)


@needs_chromium
def test_the_image_is_dragged_drawn_on_and_replaced(live: Page, tmp_path: Path) -> None:
    from PIL import Image

    canvas = live.locator("#live-image")
    box = canvas.bounding_box()
    assert box is not None
    pixel = box["width"] / 12
    live.mouse.move(box["x"] + 5 * pixel, box["y"] + 5 * pixel)
    live.mouse.down()
    live.mouse.move(box["x"] + 6.5 * pixel, box["y"] + 4 * pixel)
    live.mouse.up()
    state = live.evaluate("[liveState.right, liveState.down]")
    assert state == pytest.approx([1.5, -1], abs=0.05)
    live.locator("#live-reset").click()
    live.locator("#live-tool").select_option("bright")
    live.mouse.click(box["x"] + 3.5 * pixel, box["y"] + 8.5 * pixel)
    errors_shown(live)
    assert live.evaluate("live.pixels[8 * 12 + 3]") == 255
    live.locator("#live-tool").select_option("drag")
    picture = np.zeros((24, 48), np.uint8)
    picture[:, 24:] = 200
    Image.fromarray(picture).save(tmp_path / "own.png")
    live.locator("#live-file").set_input_files(tmp_path / "own.png")
    live.wait_for_function("live.chosen[5] === 0 && live.chosen[6] > 150")  # its middle square
    assert live.locator("#live-images button[aria-pressed=true]").count() == 0


@needs_chromium
def test_answers_and_layers_have_names_and_controls_have_labels(live: Page) -> None:
    errors_shown(live)
    cards = live.locator(".live-card")
    assert cards.locator("h3").all_inner_texts() == ["pool=avg", "pool=max"]
    assert cards.first.locator(".live-answer span:first-child").all_inner_texts()[1].endswith("<b>")
    shares = cards.first.locator(".live-answer span:nth-child(2)").all_inner_texts()
    assert sum(map(float, shares)) == pytest.approx(1, abs=0.02)
    assert list(errors_shown(live)) == ["pixels", "stage1", "stage2", "features", "output"]
    unlabelled = live.locator("#live select, #live input").evaluate_all(
        "all => all.filter(x => !x.labels.length).length"
    )
    assert unlabelled == 0
    assert live.locator("#live canvas[role=img]:not([aria-label])").count() == 0


@needs_chromium
def test_a_net_that_localizes_marks_the_position(browser: Browser, tmp_path: Path) -> None:
    leave_live_run(tmp_path / "runs" / "max", task="where")
    tab = browser.new_page(viewport={"width": 320, "height": 700})
    tab.goto(build_report(tmp_path / "runs").as_uri())
    tab.locator("#live").scroll_into_view_if_needed()
    tab.wait_for_function("live.chosen")
    tab.evaluate("frame()")
    (run,) = find_runs(tmp_path / "runs")[0]
    net, prepare, task = load_net(run, (1, 12, 12))
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 1, 12, 12))[:1]).float()
    with torch.no_grad():
        right, down = (12 * task.position(net(prepare(image)))[0]).tolist()
    text = tab.locator(".live-card p").first.inner_text()
    assert text.startswith(f"position: right {right:.1f}, down {down:.1f} px")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 320
    tab.close()
