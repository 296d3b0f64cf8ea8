"""The page in a real browser: Debian's Chromium, driven by Playwright. Skipped where there is none."""

import csv
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from src.reporting.maps import colours, save_maps
from src.reporting.page import build_report
from src.reporting.terms import terms
from src.results import files
from src.results.measures import DISTANCE
from tests.test_comparison import leave_run

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("default"),  # Playwright's own
]
HOSTILE = "<script>document.title='broken'</script>"
STAGES = {"stage1": (4, 6, 6), "stage2": (4, 3, 3)}


def leave_maps(run: Path, factor: float) -> None:
    """Maps of three epochs: channel k of image i has the value ``factor * (epoch + 1) * k`` but for a corner of 0."""
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 12, 12)).astype(np.uint8)
    for epoch in range(3):
        maps = {}
        for stage, shape in STAGES.items():
            values = np.broadcast_to(factor * (epoch + 1) * np.arange(shape[0])[:, None, None], (2, *shape)).copy()
            values[..., 0, 0] = 0
            maps[stage] = values.astype(np.float32)
        save_maps(run, epoch, images, maps)


def leave_inside(run: Path) -> None:
    """Feature analysis of two stages: channel 1 is dead, 2 duplicates 0, 3 is the most selective; a shift changes 0."""
    images = np.full((2, 1, 12, 12), 200, np.uint8)
    found = {"images": images, "labels": np.array([1, 0]), "answers": np.array([1, 1]), "shift": np.array([0, 3])}
    found |= {"cam": np.ones((2, 12, 12), np.float16), "filters": np.full((4, 1, 3, 3), -0.5, np.float32)}
    for stage, (k, p, q) in STAGES.items():
        moved = np.zeros((2, k, p, q), np.float16)
        moved[:, 0] = 1
        facts = [[1, 0.3, 0, -1, 1], [0, np.nan, -1, -1, 0], [1, 0.2, 0, 0, 1], [1, 0.9, 1, -1, 1]]
        one = {"facts": np.array(facts, np.float32), "order": np.array([3, 0, 2, 1]), "moved": moved, "back": -moved}
        one |= {"field": np.array([2, 2, 8, 8], np.float32), "patch_channels": np.array([3, 0])}
        one["patches"] = np.full((2, 4, 1, 6, 6), 90, np.uint8)
        found |= {f"{stage}/{name}": array for name, array in one.items()}
    files.write_arrays(run / files.INSIDE, found)
    pictures = {"metamers/image": np.full((2, 1, 1, 12, 12), 200, np.uint8), "metamers/stage2.pool": np.zeros(
        (2, 2, 1, 12, 12), np.uint8)}  # fmt: skip
    distances = {"metamers/image": np.zeros((2, 1)), "metamers/stage2.pool": np.array([[0.01, 0.02], [0.03, 0.5]])}
    files.write_arrays(run / files.PICTURES, pictures | {key + DISTANCE: far for key, far in distances.items()})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / HOSTILE.replace("/", "_")
    for pool, accuracy, distance, factor in (("avg", 0.8, 0.1, 1), ("blur", 0.85, 0.2, 2), ("max", 0.9, 0.3, 1)):
        leave_run(folder / pool, accuracy, distance, model={"pool": pool})
        leave_maps(folder / pool, factor)
        if pool != "max":
            leave_inside(folder / pool)
    return build_report(folder)


@pytest.fixture(scope="module")
def page(browser: Browser, report: Path) -> Iterator[Page]:
    complaints: list[str] = []
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert not complaints, "no errors, and nothing is fetched"


@pytest.fixture(autouse=True)
def as_opened(page: Page) -> None:
    """Reset the map browser to its initial state."""
    page.evaluate(
        "update({stage: 'stage1', epoch: 2, image: 0, channel: 0, view: 'map', scale: 'shared', order: 'number'})"
    )


def pixel(page: Page, net: int, tile: int, columns: int = 4) -> tuple[int, ...]:
    """The colour in the middle of a tile of a net's maps."""
    page.locator("#maps figure").nth(net).scroll_into_view_if_needed()
    page.wait_for_function(f"document.querySelectorAll('#maps figure')[{net}].querySelector('canvas').width > 300")
    page.wait_for_timeout(150)
    script = """([net, tile, columns]) => {
      const canvas = document.querySelectorAll("#maps figure")[net].querySelector("canvas"), dense = devicePixelRatio;
      const side = Math.floor((canvas.parentNode.clientWidth - 4 * (columns - 1)) / columns);
      const x = (tile % columns) * (side + 4) + side / 2, y = 15 + side / 2 + Math.floor(tile / columns) * (side + 19);
      return [...canvas.getContext("2d").getImageData(x * dense, y * dense, 1, 1).data.slice(0, 3)];
    }"""
    return tuple(page.evaluate(script, [net, tile, columns]))


def colour(level: float) -> tuple[int, ...]:
    return tuple(int(colour) for colour in colours()[round(255 * level)])


def near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two colours are equal up to rounding to 256 levels twice."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= 6


def test_names_are_text(page: Page) -> None:
    assert page.title() == HOSTILE.replace("/", "_")
    assert page.locator("h1").inner_text() == HOSTILE.replace("/", "_")


def test_sorting_sorts(page: Page) -> None:
    heading = page.get_by_role("columnheader", name="accuracy").get_by_role("button")  # with an arrow after a click
    column = "table.sortable tbody tr td:nth-child(2)"
    for wanted in (["0.800", "0.850", "0.900"], ["0.900", "0.850", "0.800"]):
        heading.click()
        assert [text.split()[0] for text in page.locator(column).all_inner_texts()] == wanted
    assert page.locator(column).first.inner_text().split("\n") == ["0.900", "± 0.010"], "with its interval"
    assert page.locator("th[aria-sort=descending]").count() == 1


def test_maps_show_the_saved_values_on_one_scale_for_epochs_and_nets(page: Page) -> None:
    top = 2 * 3 * 3  # the largest value of the stage in any epoch of any net
    assert near(pixel(page, 0, 3), colour(3 * 3 / top))
    assert near(pixel(page, 1, 3), colour(1))
    assert near(pixel(page, 1, 0), colour(0))


def test_the_slider_selects_the_epoch_and_each_map_can_have_its_own_scale(page: Page) -> None:
    page.locator("#epoch").fill("0")
    assert page.locator("#epoch-shown").inner_text() == "0"
    assert near(pixel(page, 0, 3), colour(3 / 18))
    page.locator("#scale").select_option("own")
    assert near(pixel(page, 0, 3), colour(1))
    assert near(pixel(page, 0, 1), colour(1))


def test_keys_move_through_epochs_stages_images_and_channels(page: Page) -> None:
    page.locator("#maps").focus()
    for key in ("ArrowLeft", "ArrowDown", "k", "l", "l"):
        page.keyboard.press(key)
    assert page.locator("#epoch-shown").inner_text() == "1"
    assert page.locator("#stage").input_value() == "stage2"
    assert page.locator("#images button[aria-pressed=true]").get_attribute("aria-label") == "image 1"
    page.locator("#maps figure p", has_text="channel 2 on every image").first.wait_for()
    assert near(pixel(page, 0, 3), colour(2 * 3 / 18))


def test_a_click_selects_a_channel_in_all_nets(page: Page) -> None:
    pixel(page, 0, 0)
    canvas = page.locator("#maps figure").first.locator("canvas").first
    size = canvas.bounding_box()
    assert size is not None
    canvas.click(position={"x": 0.6 * size["width"], "y": size["height"] / 2})  # the third of four
    page.wait_for_timeout(200)
    assert page.locator("#maps figure p", has_text="channel 2 on every image").count() >= 2


def test_changes_under_a_shift_are_blue_red_and_white(page: Page) -> None:
    page.locator("#view").select_option("change")
    red, white, blue = (tuple(int(colour) for colour in colours("RdBu_r")[level]) for level in (255, 127, 0))
    assert near(pixel(page, 0, 0), red) and near(pixel(page, 0, 1), white)
    page.locator("#view").select_option("change_after_inverse")
    assert near(pixel(page, 0, 0), blue)
    assert "by 3 px to the right" in page.locator("#legend").inner_text()
    assert page.locator("#epoch").is_disabled()
    page.locator("#maps figure p", has_text="not saved for this net").wait_for()  # of the net that has none


def test_the_metamers_of_a_stage_are_shown_after_their_images(page: Page) -> None:
    page.locator("#view").select_option("metamers")
    assert page.locator("#maps figure p", has_text="metamers of stage1 were not measured").count() >= 1
    page.locator("#stage").select_option("stage2")
    page.locator("#maps figure p", has_text="stage2.pool, saved net: 3 of 4 reached the target").first.wait_for()
    labels = page.locator("#maps canvas[role=img]:not([hidden])").evaluate_all("all => all.map(one => one.ariaLabel)")
    assert labels == [f"pool={pool}, stage2.pool: 2 images, each followed by 2 metamers" for pool in ("avg", "blur")]
    assert page.locator("#maps figure").nth(2).locator("p").inner_text() == "metamers of stage2 were not measured"
    tiles = [pixel(page, 0, tile, 6) for tile in range(6)]  # two images and their metamers in a line
    assert [near(tile, (200,) * 3) for tile in tiles] == [True, False, False, True, False, False]
    assert [near(tile, (0,) * 3) for tile in tiles] == [False, True, True, False, True, False], (
        "the last is crossed out"
    )
    assert page.locator("#epoch").is_disabled()


def test_channels_can_be_ordered_by_selectivity_and_keys_follow_that_order(page: Page) -> None:
    page.locator("#order").select_option("selective")
    assert near(pixel(page, 0, 0), colour(3 * 3 / 18)), "channel 3 comes first"
    page.locator("#maps").focus()
    page.keyboard.press("j")  # from channel 0 one back, to the most selective
    page.locator("#maps figure p", has_text="channel 3 on every image").first.wait_for()
    assert page.evaluate("[1, 2, 3].map(k => channelLabel(mapData.nets[0], k))") == ["1 dead", "2 = 0", "3"]


def test_a_net_is_shown_stage_by_stage(page: Page) -> None:
    page.locator("#inside summary").first.click()
    page.locator("#analysis").scroll_into_view_if_needed()
    page.locator(".stage h3", has_text="stage2").wait_for()
    assert page.locator("#net option").all_inner_texts() == ["pool=avg", "pool=blur"]
    text = page.locator(".stage").first.inner_text()
    for words in ("receptive field 6×6 px", "4 channels: 1 dead, 1 duplicates", "channel 3", "class 1 0.90"):
        assert words in text
    assert page.locator(".stage").first.locator(".patches canvas").count() == 2 * 4
    assert page.locator("#cam figcaption").all_inner_texts() == ["class 1", "class 1\ntrue: class 0"]
    assert page.locator("#filters").bounding_box()["height"] > 20  # type: ignore[index]


def test_measures_without_a_figure_of_their_own_are_drawn_when_they_are_opened(page: Page) -> None:
    section = page.locator("details#others")
    assert not section.locator(".plot svg").count()
    section.locator("summary").click()
    section.locator(".plot .bars").first.wait_for()
    assert "roll 1consistency_corrected" in section.inner_text().replace("\n", "")


def test_anchors_are_unique(page: Page) -> None:
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(names) == len(set(names)) > 20


def test_every_picture_has_a_label(page: Page) -> None:
    pixel(page, 0, 0)
    label = page.locator("#maps figure canvas").first.get_attribute("aria-label")
    assert label == "pool=avg, stage1, epoch 2, image 0: maps of 4 channels, 6 by 6"
    for plot in page.locator(".plot").all():
        assert plot.get_attribute("aria-label")


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_is_wider_than_the_screen(browser: Browser, report: Path, width: int) -> None:
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto(report.as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(group => { group.open = true; })")
    opened.locator("#maps").scroll_into_view_if_needed()
    opened.wait_for_timeout(300)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def opened_at(browser: Browser, report: Path, anchor: str = "", **options: Any) -> Page:
    """The page of its own tab, at an anchor."""
    tab = browser.new_page(viewport={"width": 1000, "height": 800}, **options)
    tab.goto(report.as_uri() + anchor)
    return tab


def test_groups_are_folded_and_each_says_what_came_out(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report)
    assert tab.locator("details.group[open]").count() == 0
    lines = dict(
        zip(*(tab.locator(f"details.group summary {tag}").all_inner_texts() for tag in ("h2", "span")), strict=True)
    )
    assert lines["Invariance"] == "A 1-px crop moves pool=avg least: 0.100; pool=max most: 0.300 (output distance)."
    assert all(lines.values())
    heights = tab.evaluate("[document.documentElement.scrollHeight, document.getElementById('browser').offsetTop]")
    assert heights[0] < 4000 and heights[1] < 2000
    tab.close()


def test_a_link_to_a_section_opens_its_group(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report, "#figure-how-far-a-transform-moves-the-output")
    section = tab.locator("#figure-how-far-a-transform-moves-the-output")
    section.locator(".plot svg").first.wait_for()
    assert tab.locator("details#invariance[open]").count() == 1
    assert tab.locator("details.group[open]").count() == 1
    box = section.bounding_box()
    assert box is not None and -10 <= box["y"] < 700, "scrolled to it"
    tab.close()


def test_a_link_of_the_navigation_opens_its_group_again_and_again(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report)
    for _ in range(2):  # the address has the hash already the second time
        tab.get_by_role("link", name="Training").click()
        assert tab.locator("details#training[open]").count() == 1
        tab.locator("details#training > summary").click()
        assert tab.locator("details#training[open]").count() == 0
    tab.close()


def test_what_the_browsers_search_finds_in_a_group_opens_it(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report, "#:~:text=predictions%20that%20flip")  # links to text reveal it as the search does
    tab.locator("details#invariance[open]").wait_for()
    assert tab.locator("details.group[open]").count() == 1
    tab.close()


def test_printing_opens_and_draws_all(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report)
    tab.evaluate("allLoaded")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0
    assert tab.evaluate("sections.filter(section => !section.querySelector('.plot svg')).length") == 0
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details[open]").count() == 0
    tab.close()


def test_a_print_has_the_maps_and_dark_ink_on_white(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report, color_scheme="dark")
    tab.evaluate("allLoaded")
    tab.wait_for_timeout(500)
    assert tab.evaluate("cards.every(card => card.grid.width === 300)"), "off the screen: not drawn yet"
    # a printer waits for microtasks, not for what is still being decompressed
    drawn = tab.evaluate("""async () => {
      dispatchEvent(new Event('beforeprint'));
      for (let i = 0; i < 1000; i++) await null;
      const pixels = canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      return ["#maps canvas", "#stages canvas", "#cam canvas", "#filters"].map(all =>
        [...document.querySelectorAll(all)].filter(canvas => pixels(canvas).some(level => level > 0)).length);
    }""")
    assert drawn == [3 * 2, 2 * (1 + 2 * 4), 2, 1]
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(232, 232, 236)"
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(29, 29, 34)"
    assert not tab.locator("#live").is_visible()
    tab.close()


def shown_alike(tab: Page) -> dict[str, bool]:
    """Variant → whether it stands out in the tables, the trade-off and the maps alike, which all must agree."""
    tab.wait_for_timeout(300)
    opacity = "byId('figure-accuracy-against-invariance-and-against-cost').querySelector('.plot').data"
    plotted = tab.evaluate(f"Object.fromEntries({opacity}.map(trace => [trace.name, (trace.opacity ?? 1) === 1]))")
    faded = (
        "[...document.querySelectorAll('tr[data-variant]')].map(row => [row.dataset.variant, !row.matches('.faded')])"
    )
    rows = [(name, shown) for name, shown in tab.evaluate(faded)]
    cards = tab.evaluate("cards.map(card => [card.net.name, !card.figure.hidden])")
    assert dict(rows) == plotted == dict(map(tuple, cards)) and len(rows) == 3 + 3 * 2
    return plotted


def test_a_marked_variant_stands_out_everywhere(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report)
    tab.locator("#figure-accuracy-against-invariance-and-against-cost .main-svg").first.wait_for()
    names = ["pool=avg", "pool=blur", "pool=max"]
    assert shown_alike(tab) == dict.fromkeys(names, True)
    button = tab.get_by_role("button", name="pool=blur", exact=True)
    button.click()
    assert shown_alike(tab) == {"pool=avg": False, "pool=blur": True, "pool=max": False}
    assert button.get_attribute("aria-pressed") == "true"
    tab.locator(".legendtoggle").last.click()  # pool=max
    assert shown_alike(tab) == {"pool=avg": False, "pool=blur": True, "pool=max": True}
    assert tab.locator("#marked").inner_text() == "2 of 3 marked"
    tab.get_by_role("button", name="show all alike").click()
    assert shown_alike(tab) == dict.fromkeys(names, True)
    tab.locator("#choose select").select_option("max")
    assert shown_alike(tab) == {"pool=avg": False, "pool=blur": False, "pool=max": True}
    tab.close()


def test_marks_reach_a_figure_off_the_screen_when_it_comes_near_or_is_printed(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report, "#figure-training")
    tab.locator("#figure-training .main-svg").first.wait_for()
    traces = "byId('figure-training').querySelector('.plot').data"
    shown = f"[...new Set({traces}.filter(trace => (trace.opacity ?? 1) > .5).map(trace => trace.name))]"
    tab.evaluate("scrollTo(0, 0)")
    tab.wait_for_function("!nearScreen.has(byId('figure-training'))")
    tab.get_by_role("button", name="pool=blur", exact=True).click()
    assert len(tab.evaluate(shown)) == 3, "not yet"
    tab.evaluate("byId('figure-training').scrollIntoView()")
    tab.wait_for_function(f"{shown}.length === 1")
    tab.evaluate("scrollTo(0, 0)")
    tab.wait_for_function("!nearScreen.has(byId('figure-training'))")
    tab.evaluate("byId('unmark').click(); dispatchEvent(new Event('beforeprint'))")
    assert len(tab.evaluate(shown)) == 3
    tab.close()


def test_a_click_on_a_line_of_the_parallel_coordinates_marks_its_variant(browser: Browser, tmp_path: Path) -> None:
    for (i, pool), stride in itertools.product(enumerate(("avg", "blur", "max")), (1, 2)):
        leave_run(tmp_path / f"{pool}{stride}", 0.7 + i / 10, 0.1 * i + stride, model={"pool": pool, "stride": stride})
    anchor, name = "#figure-parallel-coordinates", "pool=blur, stride=2"
    tab = opened_at(browser, build_report(tmp_path), anchor)
    tab.locator(f"{anchor} .main-svg").first.wait_for()
    tab.wait_for_timeout(300)
    spot = """name => {
      const plot = document.querySelector("#figure-parallel-coordinates .plot"), {xaxis, yaxis} = plot._fullLayout;
      const {x, y} = plot.data.find(trace => trace.name === name), {left, top} = plot.getBoundingClientRect();
      const between = [x, y].map(values => .4 * values[x.indexOf(2)] + .6 * values[x.indexOf(3)]);  // of two outcomes
      return [left + xaxis._offset + xaxis.d2p(between[0]), top + yaxis._offset + yaxis.d2p(between[1])];
    }"""
    tab.mouse.click(*tab.evaluate(spot, name))
    assert tab.evaluate("[...marked]") == [name]
    shown = f"[...document.querySelector('{anchor} .plot').data].filter(trace => (trace.opacity ?? 1) === 1)"
    assert tab.evaluate(f"{shown}.map(trace => trace.name)") == [name]
    assert tab.get_by_role("button", name=name, exact=True).get_attribute("aria-pressed") == "true"
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.reload()
    tab.locator(f"{anchor} .main-svg").first.wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.locator(f"{anchor} .main-svg").first.bounding_box()["width"] >= 5 * 130, "scrolls in its box"  # type: ignore[index]
    tab.close()


@pytest.mark.parametrize("title", ["accuracy-against-invariance-and-against-cost", "other-measures-by-layer"])
def test_marks_change_the_drawing_as_plotly_would(browser: Browser, many_panels: Path, title: str) -> None:
    tab = opened_at(browser, many_panels, f"#figure-{title}")
    tab.locator(f"#figure-{title} .main-svg").first.wait_for()
    plot = f"byId('figure-{title}').querySelector('.plot')"
    drawn = f"[...{plot}.querySelectorAll('g.trace, g.traces > g.layers')].map(group => +group.style.opacity)"
    assert set(tab.evaluate(drawn)) == {1}
    tab.get_by_role("button", name="pool=blur", exact=True).click()
    faded = tab.evaluate(drawn)
    assert set(faded) == {0.12, 1}
    tab.evaluate(f"Plotly.redraw({plot})")
    assert tab.evaluate(drawn) == faded
    tab.close()


@pytest.fixture(scope="module")
def many_panels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison with seven measures without a figure of their own, of two protocols and three amounts each."""
    folder = tmp_path_factory.mktemp("many")
    for pool in ("avg", "blur"):
        leave_run(folder / pool, 0.8, 0.1, model={"pool": pool})
        rows = ["output,none,test,0,calibration_error,0.5,0.4,0.6,9"]
        for transform, amount, k in itertools.product(("rotate", "scale"), (1, 2, 3), range(7)):
            rows.append(f"output,{transform},disc,{amount},custom_{k},{0.1 * k},,,9")
        with (folder / pool / files.MEASURES).open("a") as table:
            table.write("\n".join([*rows, ""]))
    return build_report(folder)


def test_of_many_panels_one_protocol_is_shown_at_a_time(browser: Browser, many_panels: Path, tmp_path: Path) -> None:
    anchor = "#figure-other-measures-by-amount"
    tab = opened_at(browser, many_panels, anchor, accept_downloads=True)
    select, titles = tab.locator(f"{anchor} [data-part]"), tab.locator(f"{anchor} .annotation-text")
    tab.locator(f"{anchor} .main-svg").first.wait_for()
    for part in ("rotate/disc", "scale/disc", "rotate/disc"):
        select.select_option(part)
        found = titles.evaluate_all("all => all.map(title => title.textContent)")
        assert found == [f"{part}custom_{k}" for k in range(7)]
        assert tab.locator(f"{anchor} .scatterlayer .trace").count() == 7 * 2
        assert tab.locator(f"{anchor} .legend .traces").count() == 2, "a line a variant"
    tab.get_by_role("button", name="pool=blur", exact=True).click()
    select.select_option("scale/disc")
    opacity = tab.locator(f"{anchor} .scatterlayer .trace").evaluate_all("all => all.map(one => +one.style.opacity)")
    assert opacity == [0.12, 1] * 7, "marked in a part that is chosen later"
    text = saved(tab, "Other measures, by amount", "CSV")[1].decode()
    assert {row["panel"].split()[0] for row in csv.DictReader(text.splitlines())} == {"rotate/disc", "scale/disc"}
    picture = saved(tab, "Other measures, by amount", "SVG")[1].decode()
    assert "scale/disc" in picture and "rotate/disc" not in picture
    tab.close()


def test_the_maps_epoch_is_marked_in_figures_of_epochs(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report, "#figure-training")
    tab.locator("#figure-training .main-svg").first.wait_for()
    tab.evaluate("update({epoch: 1})")
    shapes = tab.evaluate(
        "byId('figure-training').querySelector('.plot').layout.shapes.map(line => [line.x0, line.xref])"
    )
    assert shapes == [[1, "x"], [1, "x2"]]
    tab.close()


def test_a_slider_wipes_from_one_net_to_another(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report, "#wipe-box")
    tab.evaluate("update({stage: 'stage1', scale: 'shared'})")
    assert tab.evaluate("[wipe.sides[0].net.value, wipe.sides[1].net.value]") == ["pool=avg", "pool=blur"]
    top, seen = 2 * 3 * 3, []  # the largest value of the stage in any epoch of any net
    for place in ("0", "100"):
        tab.locator("#wipe").fill(place)
        tab.wait_for_timeout(300)
        script = """(() => {
          const canvas = byId("wipe-maps"), side = Math.floor((canvas.parentNode.clientWidth - 28) / 8);
          const point = [3 * (side + 4) + side / 2, 15 + side / 2].map(place => place * devicePixelRatio);
          return [...canvas.getContext("2d").getImageData(...point, 1, 1).data.slice(0, 3)];
        })()"""
        seen.append(tuple(tab.evaluate(script)))
    assert near(seen[0], colour(2 * 3 * 3 / top)) and near(seen[1], colour(3 * 3 / top)), "of blur, then of avg"
    tab.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)])
def test_screen_readers_find_nothing_missing(browser: Browser, report: Path, scheme: str, width: int) -> None:
    tab = opened_at(browser, report, color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 900})
    tab.evaluate("allLoaded")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")  # opens and draws all
    violations = Axe().run(tab).response["violations"]
    assert not [(rule["id"], node["target"]) for rule in violations for node in rule["nodes"]]
    tab.close()


def test_printed_tables_are_whole(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report)
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 703, "height": 1000})  # A4 within its margins
    tab.evaluate("document.querySelectorAll('details').forEach(group => { group.open = true; })")
    widths = tab.evaluate("[...document.querySelectorAll('table')].map(table => table.getBoundingClientRect().right)")
    assert len(widths) > 2 and max(widths) <= 703
    tab.close()


def test_the_maps_are_ten_keys_away(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report)
    presses = 0
    while tab.evaluate("document.activeElement.getAttribute('href')") != "#browser":
        tab.keyboard.press("Tab")
        presses += 1
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.closest('#browser') !== null")
    assert presses + 2 <= 10
    tab.close()


def saved(tab: Page, title: str, form: str) -> tuple[str, bytes]:
    """Name and content of a figure that is saved."""
    with tab.expect_download() as waiting:
        tab.get_by_role("button", name=f"save {title} as {form}").click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_figures_are_saved_as_svg_png_and_csv(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report, "#invariance", accept_downloads=True)
    title = "Accuracy against invariance, and against cost"
    name, svg = saved(tab, title, "SVG")
    assert name == "accuracy-against-invariance-and-against-cost.svg"
    tree = ElementTree.fromstring(svg)
    words = {element.text for element in tree.iter() if element.tag.endswith("}text")}
    assert words >= {"pool=avg", "pool=max", "output distance (1-px crop)"}
    _, png = saved(tab, title, "PNG")
    assert png.startswith(b"\x89PNG")
    name, text = saved(tab, "How far a transform moves the output", "CSV")
    found = list(csv.DictReader(text.decode().splitlines()))
    of = {(row["panel"], row["series"], row["kind"]): row for row in found}
    assert (len(found), name) == (12, "how-far-a-transform-moves-the-output.csv")
    row = of["crop (px)", "pool=max", ""]
    assert [float(row[key]) for key in ("x", "value", "low", "high")] == pytest.approx([1, 0.3, 0.29, 0.31])
    assert float(of["crop (px)", "pool=max", "untrained"]["value"]) == pytest.approx(0.3)
    tab.close()


def test_no_figure_offers_an_upload(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report, "#invariance")
    tab.locator("#invariance .plot .modebar-btn").first.wait_for(state="attached")
    titles = tab.locator(".modebar-btn").evaluate_all("buttons => buttons.map(button => button.dataset.title)")
    assert set(titles) == {"Zoom", "Pan", "Reset axes"}
    tab.close()


def test_terms_are_defined_for_keyboard_mouse_and_screen_readers(browser: Browser, report: Path) -> None:
    tab = opened_at(browser, report)
    term = tab.locator("#answer .term", has_text="output distance")
    wanted = f"output distance: {terms()['output distance']}"
    described = tab.locator(f"#{term.get_attribute('aria-describedby')}")
    assert described.text_content() == wanted
    for show in (term.focus, term.hover, term.click):
        show()
        assert tab.locator("#tip").inner_text() == wanted
        tab.keyboard.press("Escape")
        assert tab.locator("#tip").is_hidden()
        tab.mouse.move(0, 0)
        tab.evaluate("document.activeElement.blur()")
    for _ in range(40):  # terms are stops of the Tab key
        tab.keyboard.press("Tab")
        if tab.locator("#tip").is_visible():
            break
    assert tab.evaluate("document.activeElement.className") == "term"
    assert ": " in tab.locator("#tip").inner_text()
    tab.close()


def test_the_answer_is_on_the_first_screen_of_a_phone(browser: Browser, report: Path) -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 780})
    tab.goto(report.as_uri())
    box = tab.locator("#answer").bounding_box()
    assert box is not None and box["y"] + box["height"] < 780
    assert "0.900" in tab.locator("#answer").inner_text()
    first = tab.locator("table.sortable tbody td").first.bounding_box()
    assert first is not None and first["x"] + first["width"] <= 390, (
        "the first number of the comparison is on the screen"
    )
    tab.close()
