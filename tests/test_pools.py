"""The list of pools and the exactness matrix: the facts that can be run hold, and the page is what the code says."""

import subprocess
import sys

import antialiased_cnns
import pytest
import torch
from torch import Tensor, nn

from src.common.errors import UserError
from src.evaluation.exactness import PROTOCOLS, Cell, Setting, change, change_up_to_rolls, exactness
from src.models.layers import PADDINGS
from src.pooling import POOLS
from src.pooling.facts import FACTS, Facts, facts_of
from src.reporting.pool_tables import TIMES, Sheet, cell_text, cost, markdown_page, pool_sheets
from tests.helpers import ROOT

every_pool = pytest.mark.parametrize("name", [name for name, pool in POOLS.items() if pool])
EXACT_UNDER_ROLLS = {"aps", "lps"}
COMMUTE = [name for name, pool in POOLS.items() if not pool or pool.commutes_with_rolls]


# --- facts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POOLS)
def test_every_pool_has_every_fact_of_its_own(name):
    facts = FACTS[name]
    assert all((facts.summary, facts.formula, facts.keeps, facts.exact, facts.source))
    assert any(year.isdigit() and len(year) == 4 for year in facts.source.replace(",", " ").replace(";", " ").split())
    assert sum(facts.summary == other.summary for other in FACTS.values()) == 1


def test_a_missing_fact_is_named():
    class Toy(POOLS["max"]):
        """A pool."""

        formula = "x"
        source = " "

    with pytest.raises(UserError, match=r"^pool toy: class Toy lacks keeps, exact, source; state each as a class"):
        facts_of("toy", Toy)
    Toy.keeps = Toy.exact = Toy.source = "a\n    b"
    assert facts_of("toy", Toy) == Facts("A pool.", "x", "a b", "a b", "a b")


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("m", range(1, 6))
@pytest.mark.parametrize("s", range(1, 5))
def test_where_blur_differs_from_its_authors_layer(m, s):
    theirs = antialiased_cnns.BlurPool(2, filt_size=m, stride=s)  # continues maps by reflection
    x = torch.randn(1, 2, 12, 12)
    assert (relative(POOLS["blur"](m, s, border="reflect")(x), theirs(x)) > 0.1) == (2 < m <= s)


def test_where_maxblur_differs_from_its_authors_layer():
    x = torch.randn(1, 2, 12, 12)
    theirs = nn.Sequential(nn.MaxPool2d(2, stride=1), antialiased_cnns.BlurPool(2, filt_size=3, stride=2))
    differs = (POOLS["maxblur"](2, 2, border="reflect")(x) - theirs(x)).abs().amax((0, 1)) > 1e-6
    assert not differs[:-1, :-1].any()
    assert differs[-1].any() and differs[:, -1].any()


@pytest.mark.parametrize("n", range(4, 25, 2))
def test_where_flc_differs_from_its_authors_layer(n):
    """Theirs is the slice from int(N / 4) to int(3 N / 4) of the shifted spectrum."""
    x, part = torch.randn(1, 2, n, n, dtype=torch.float64), slice(int(n / 4), int(n / 4 * 3))
    low = torch.fft.fftshift(torch.fft.fft2(x, norm="forward"), dim=(2, 3))[..., part, part]
    theirs = torch.fft.ifft2(torch.fft.ifftshift(low, dim=(2, 3)), norm="forward").real
    assert (relative(POOLS["flc"](stride=2, border="circular")(x), theirs) > 0.1) == (n % 4 > 0)


@pytest.mark.parametrize(("s", "n"), [(s, n) for s in (2, 3) for n in range(6, 31) if n % s == 0])
def test_where_ideal_differs_from_its_authors_layer(s, n):
    """Theirs keeps frequencies up to int(N / s // 2), but where 4 divides N the last of them."""
    x, low = torch.randn(1, 2, n, n, dtype=torch.float64), int(n / s // 2)
    kept = torch.fft.fftfreq(n, 1 / n).abs() <= low - (n % 4 == 0)
    theirs = torch.fft.ifft2(torch.fft.fft2(x) * kept[:, None] * kept).real[..., ::s, ::s]
    differs = relative(POOLS["ideal"](stride=s, border="circular")(x), theirs) > 0.1
    assert differs == ((s, n) in [(3, 6), (3, 18), (3, 30)])


def test_where_the_learned_pools_differ_from_their_authors_layers():
    ones, x = torch.ones(1, 16, 8, 8), torch.randn(1, 16, 8, 8)
    ddac, lip = POOLS["ddac"](channels=16), POOLS["lip"](channels=16)
    assert torch.allclose(ddac(ones), ones[..., ::2, ::2])
    assert not ddac.filters.weight.any()
    assert [type(child) for child in ddac.children()] == [type(child) for child in lip.children()] == [nn.Conv2d]
    assert lip.importance.kernel_size == (1, 1)
    nn.init.normal_(lip.importance.weight)
    assert torch.allclose(lip.logits(5 * x), 5 * lip.logits(x), atol=1e-5), "without a bound"
    for name in ("lps", "tips"):
        pool = POOLS[name](channels=16)
        assert {module.kernel_size for module in pool.modules() if isinstance(module, nn.Conv2d)} == {(1, 1)}


@every_pool
def test_exactly_the_stated_invariants_of_a_pool_hold(name):
    """Of any map with a circular border, whatever the weights; what holds ``of`` something, on maps ≥ 0."""
    pool = POOLS[name](border="circular", channels=3).double().eval()
    for parameter in pool.parameters():
        nn.init.normal_(parameter, std=3)
    first = [word.split(" (")[0] for word in FACTS[name].keeps.split(";")[0].split(", ")]
    positive = any(" of " in word for word in first)
    noise = torch.randn(50, 3, 12, 16, dtype=torch.float64)
    blocks = torch.randint(1, 3, (50, 3, 3, 4)).double().repeat_interleave(4, 2).repeat_interleave(4, 3)
    x = torch.cat([noise.abs(), blocks]) if positive else torch.cat([noise, -blocks])
    y, constant = pool(x) / pool.gain, torch.full((1, 3, 12, 16), 0.7 if positive else -0.7, dtype=torch.float64)
    low, high = x.amin((2, 3), keepdim=True) - 1e-12, x.amax((2, 3), keepdim=True) + 1e-12
    holds = {
        "constants": torch.allclose(pool(constant) / pool.gain, constant[..., ::2, ::2]),
        "range": bool(((low <= y) & (y <= high)).all()),
        "mean": torch.allclose(y.mean((2, 3)), x.mean((2, 3))),
    }
    assert {word for word in holds if word in {one.split(" of ")[0] for one in first}} == {w for w in holds if holds[w]}


def test_costs_are_those_of_the_definitions():
    assert cost("none") == cost("max") == (0, 0)
    assert cost("blur") == (0, 9)
    assert cost("conv") == (64 * 64 * 9 + 64, 64 * 9)
    assert cost("lip") == (64 * 64, 4 * 64), "four samples are read for every output"


# --- the matrix ------------------------------------------------------------------------------------------------------


def cells(pools: str, **setting: object) -> dict[tuple[str, str, str], Cell]:
    rows = exactness(Setting(**setting), pools.split())
    return {(cell.pool, cell.padding, cell.protocol): cell for row in rows for cell in row}


def exact(found: dict[tuple[str, str, str], Cell]) -> set[tuple[str, str, str]]:
    return {key for key, cell in found.items() if cell.exact}


@pytest.fixture(scope="module")
def default() -> dict[tuple[str, str, str], Cell]:
    return cells(" ".join(POOLS), images=2)


def test_the_matrix_has_every_cell(default):
    assert list(default) == [(a, b, c) for a in POOLS for b in PADDINGS for c in PROTOCOLS]


def test_the_whole_default_matrix(default):
    """Under rolls circular nets alone are exact: by multiples of the stride all whose windows are alike, by any shift
    those that choose a phase; under true crops none is."""
    assert exact(default) == {
        *((pool, "circular", "roll by S") for pool in COMMUTE),
        *((pool, "circular", protocol) for pool in EXACT_UNDER_ROLLS for protocol in ("roll", "roll, map")),
    }


def test_what_is_not_exact_is_far_from_rounding(default):
    numbers = [cell.median for cell in default.values() if not cell.exact and cell.median == cell.median]
    assert min(numbers) > 1e-4


def test_a_pool_that_a_padding_does_not_have_has_no_number(default):
    empty = {key[:2] for key, cell in default.items() if cell.median != cell.median}
    assert empty == {("conv", "valid")}
    assert cell_text(default["conv", "valid", "roll"]) == "·"


def test_odd_maps_break_it():
    assert not exact(cells("max aps lps ideal", size=31))


def test_a_flatten_head_sees_every_roll():
    assert exact(cells("max aps lps blur", head="flatten")) == {
        (pool, "circular", "roll, map") for pool in EXACT_UNDER_ROLLS
    }


def test_without_a_stride_every_circular_net_is_exact():
    found = cells("none max avg blur ideal soft aps wavelet", stride=1, size=12)
    rolls = set(PROTOCOLS) - {"crop"}
    assert exact(found) == {(p, "circular", r) for p in "none max avg blur ideal soft aps".split() for r in rolls}
    assert cell_text(found["wavelet", "circular", "roll"]) == "·"


def test_stride_three():
    found = exact(cells("max aps", stride=3, size=36))
    assert {key for key in found if key[2] == "roll"} == {("aps", "circular", "roll")}
    assert ("max", "circular", "roll by S") in found


def test_the_same_seed_gives_the_same_numbers():
    assert cells("max", seed=1) == cells("max", seed=1)
    assert cells("max", seed=1) != cells("max", seed=2)


def test_a_setting_that_no_net_has_is_refused():
    with pytest.raises(UserError, match="larger than its map"):
        cells("max avg", size=2, stride=3)
    with pytest.raises(UserError, match="head"):
        cells("max", head="gapp")


def test_change_is_relative():
    still = torch.tensor([[3.0, 4.0]])
    assert change(still, still + torch.tensor([[0.0, 0.5]])) == 0.1


def test_a_map_that_has_only_moved_has_not_changed():
    x = torch.randn(5, 3, 6, 7, dtype=torch.float64)
    assert torch.equal(change_up_to_rolls(x, x.roll((2, -3), (2, 3))), torch.zeros(5, dtype=torch.float64))
    assert change_up_to_rolls(x, x.flip(2)).min() > 0.5


# --- out -------------------------------------------------------------------------------------------------------------


def test_the_list_on_the_page_is_that_of_the_code():
    written = (ROOT / "docs" / "pools.md").read_text()
    for sheet in pool_sheets():
        assert sheet.markdown() in written, "python -m src.pools out=docs/pools.md"
    assert TIMES.exists()


def test_a_sheet_as_markdown():
    sheet = Sheet("One", ("pool", "para-\nmeters"), [("a | b", "3")], "all")
    assert sheet.markdown() == "## One\n\n| pool | parameters |\n| - | -: |\n| a \\| b | 3 |\n\nall\n"


def test_the_page_holds_every_pool_and_how_it_was_made(default):
    text = markdown_page(list(default.values()), Setting(), "Made by hand.")
    assert text.endswith("Made by hand.\n")
    assert all(text.count(f"\n| {name} |") >= 3 + len(PROTOCOLS) for name in POOLS)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "src.pools", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sise=31", "did you mean size?"),
        ("size=0", "size=0: must be"),
        ("shifts=0", "shifts=0: must be"),
        ("head=gapp", "model.head=gapp: did you mean gap? choose one of gap"),
        ("stride=0", "model.stride=0: must be"),
        ("size=2", "larger than its map"),
    ],
)
def test_bad_input_is_one_line(word, message, in_process):
    is_refused(in_process("src.pools", word), message)


def test_bad_input_is_one_line_in_a_process_of_its_own():
    is_refused(command("sise=31"), "did you mean size?")


def is_refused(done, message):
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout, "nothing is shown before the refusal"


def test_the_command_shows_list_and_matrix(tmp_path):
    words = ("size=8", "depth=1", "images=1", "shifts=2")
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert all(title in done.stdout for title in ("Formula and cost", "Sources", "multiples of S = 2", "8×8"))
    done = command(*words, f"out={tmp_path / 'a/page.md'}")
    assert done.returncode == 0, done.stderr
    assert "size=8 depth=1" in (tmp_path / "a/page.md").read_text()
