"""The list of pools and the exactness matrix: the facts that can be run hold, and the page is what the code says."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from src.config import ROOT
from src.errors import Refusal
from src.measures.exactness import PROTOCOLS, Cell, Setting, change, change_up_to_rolls, exactness
from src.models.blocks import PADDINGS
from src.pooling import POOLS
from src.pooling.facts import FACTS, read
from src.views.pools import TIMES, Sheet, cost, listing, page, show

every_pool = pytest.mark.parametrize("name", [name for name, pool in POOLS.items() if pool])
EXACT_UNDER_ROLLS = {"aps", "lps"}


# --- facts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POOLS)
def test_every_pool_has_every_fact_of_its_own(name):
    facts = FACTS[name]
    assert all((facts.summary, facts.formula, facts.keeps, facts.exact, facts.source))
    assert any(year.isdigit() and len(year) == 4 for year in facts.source.replace(",", " ").replace(";", " ").split())
    assert sum(facts.summary == other.summary for other in FACTS.values()) == 1


def test_a_missing_fact_is_named():
    with pytest.raises(KeyError, match="Keeps"):
        read("One.\n\nFormula: x\nExact: no\nSource: none")


def test_facts_go_on_where_they_are_indented():
    facts = read("One\n    line.\n\n    Formula: x\n    Keeps: a,\n        b\n    Exact: c\n    Source: d\n\n    More.")
    assert (facts.summary, facts.keeps, facts.source) == ("One line.", "a, b", "d")


@every_pool
def test_what_is_said_to_be_kept_is_kept_and_nothing_else(name):
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
    """Under rolls circular nets alone are exact: by multiples of the stride all, by any shift those that choose a
    phase; under true crops none is."""
    assert exact(default) == {
        *((pool, "circular", "roll by S") for pool in POOLS),
        *((pool, "circular", protocol) for pool in EXACT_UNDER_ROLLS for protocol in ("roll", "roll, map")),
    }


def test_what_is_not_exact_is_far_from_rounding(default):
    numbers = [cell.median for cell in default.values() if not cell.exact and cell.median == cell.median]
    assert min(numbers) > 1e-4


def test_a_pool_that_a_padding_does_not_have_has_no_number(default):
    empty = {key[:2] for key, cell in default.items() if cell.median != cell.median}
    assert empty == {("conv", "valid")}
    assert show(default["conv", "valid", "roll"]) == "·"


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
    assert show(found["wavelet", "circular", "roll"]) == "·"


def test_stride_three():
    found = exact(cells("max aps", stride=3, size=36))
    assert {key for key in found if key[2] == "roll"} == {("aps", "circular", "roll")}
    assert ("max", "circular", "roll by S") in found


def test_the_same_seed_gives_the_same_numbers():
    assert cells("max", seed=1) == cells("max", seed=1)
    assert cells("max", seed=1) != cells("max", seed=2)


def test_a_setting_that_no_net_has_is_refused():
    with pytest.raises(Refusal, match="larger than its map"):
        cells("max avg", size=2, stride=3)
    with pytest.raises(Refusal, match="head"):
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
    for sheet in listing():
        assert sheet.markdown() in written, "python -m src.pools out=docs/pools.md"
    assert TIMES.exists()


def test_a_sheet_as_markdown():
    sheet = Sheet("One", ("pool", "para-\nmeters"), [("a | b", "3")], "all")
    assert sheet.markdown() == "## One\n\n| pool | parameters |\n| - | -: |\n| a \\| b | 3 |\n\nall\n"


def test_the_page_holds_every_pool_and_how_it_was_made(default):
    text = page(list(default.values()), Setting(), "Made by hand.")
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
        ("head=gapp", "model.head: Invalid value 'gapp'"),
        ("stride=0", "model.stride=0: must be"),
        ("size=2", "larger than its map"),
    ],
)
def test_bad_input_is_one_line(word, message):
    done = command(word)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout, "nothing is shown before the refusal"


def test_the_command_shows_list_and_matrix(tmp_path):
    words = ("size=8", "depth=1", "images=1", "shifts=2")
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert all(title in done.stdout for title in ("What each computes", "Sources", "multiples of S = 2", "8×8"))
    done = command(*words, f"out={tmp_path / 'a/page.md'}")
    assert done.returncode == 0, done.stderr
    assert "size=8 depth=1" in (tmp_path / "a/page.md").read_text()
