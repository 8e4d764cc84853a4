"""The page in a real browser."""

from urllib.parse import quote

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.report_runs import HOSTILE, plain_layers, write

import fastconv

pytestmark = pytest.mark.browser
WIDE, PHONE = (1400, 1000), (390, 844)


@pytest.fixture
def visit(chromium):
    """Opens a page at an address; whatever it complains of fails the test."""
    contexts, complaints = [], []

    def open_page(path, address="", size=WIDE, **options):
        width, height = size
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: _note_network(request, complaints))
        page.goto(f"{path.as_uri()}#/{address}")
        page.wait_for_selector("main h1")
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def _note_network(request, complaints):
    if not request.url.startswith(("file:", "data:", "blob:")):
        complaints.append(f"asked for {request.url}")


@pytest.fixture
def page_file(run_file, insight, tmp_path):
    return fastconv.report(run_file, tmp_path / "report.html")


def until(page, expression, argument=None):
    """Wait until a JavaScript expression holds; the page's policy forbids Playwright's own way."""
    for _ in range(200):
        if found := page.evaluate(expression, argument):
            return found
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {expression}")


def drawn(page, selector):
    """Wait until a canvas has more than one colour, and return how many it has."""
    page.wait_for_selector(selector)
    return until(
        page,
        """(selector) => {
          const canvas = document.querySelector(selector);
          if (!canvas || !canvas.width) return 0;
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          const colours = new Set(new Uint32Array(data.buffer));
          return colours.size > 1 ? colours.size : 0;
        }""",
        selector,
    )


def names(page):
    """The names of the cards in sight, in order."""
    page.wait_for_selector(".card-name")
    return page.locator("main .cards .card-name").all_inner_texts()


def test_the_network_shows_a_strip_for_every_layer(visit, page_file):
    page = visit(page_file)
    strips = page.locator(".strip")
    assert strips.count() == 4
    assert strips.nth(0).locator("h2").inner_text() == "conv1"
    counts = strips.nth(0).locator(".strip-counts").inner_text().split()
    assert counts[:2] == ["2", "dead"]  # one is never above 0, one never finite
    assert strips.nth(0).locator("svg .median").count() == 1
    assert drawn(page, ".strip .thumb canvas") > 10


def test_filters_are_sorted_by_any_column_and_turned_round(visit, page_file, run_file):
    page = visit(page_file, "filters?layer=conv1")
    page.get_by_label("Sort by").select_option("mean")
    until(page, "location.hash.includes('sort=mean')")
    until(page, "document.querySelector('.card-note')?.textContent.includes('mean')")
    with fastconv.open(run_file) as run:
        mean = run["conv1"].stats["mean"]
    order = [f"conv1 / {i}" for i in np.argsort(-np.nan_to_num(mean, nan=-np.inf), kind="stable")]
    shown = names(page)
    assert shown == order[: len(shown)] and len(shown) > 8
    page.get_by_role("button", name="descending").click()
    until(page, "location.hash.includes('up=1')")
    page.get_by_role("button", name="ascending").wait_for()
    turned = [name for name in order[::-1] if name != "conv1 / 2"]  # all NaN: always last
    shown = names(page)
    assert shown == turned[: len(shown)]


def test_filters_are_filtered_and_searched(visit, page_file, run_file):
    page = visit(page_file, "filters?layer=conv1&show=dead")
    assert names(page) == ["conv1 / 0", "conv1 / 2"]
    page.goto(f"{page_file.as_uri()}#/filters?column=max&is=>&value=3.4")
    with fastconv.open(run_file) as run:
        above = sum(int((run[name].stats["max"] > 3.4).sum()) for name in run.layers)
    about = "document.querySelector('.page-head .about')?.textContent"
    until(page, f"{about}.startsWith('{above} filter')")
    page.locator("#query").fill("conv1/12")
    page.locator("#query").press("Enter")
    page.wait_for_selector("h1:has-text('Filter 12')")
    page.locator("#query").fill("volume")
    page.locator("#query").press("Enter")
    page.wait_for_selector("h1:has-text('All layers')")
    assert {name.split(" /")[0] for name in names(page)} == {"volume"}


def test_a_filter_has_an_address_and_back_returns_to_the_same_place(visit, page_file):
    page = visit(page_file, f"filter/{quote('layer1.0.conv/2#1', safe='')}/3")
    assert page.locator("h1").inner_text() == "Filter 3"
    assert page.locator(".hit svg .wave").count() >= 9
    page.goto(f"{page_file.as_uri()}#/filters?layer=conv1")
    page.wait_for_selector(".cards .card")
    page.evaluate("scrollTo(0, 700)")
    page.wait_for_timeout(100)
    page.evaluate("document.elementFromPoint(300, 500).closest('a').click()")
    page.wait_for_selector("h1:has-text('Filter')")
    page.go_back()
    page.wait_for_selector("h1:has-text('conv1')")
    until(page, "Math.abs(scrollY - 700) < 3")


def test_a_filter_shows_all_that_is_known_of_it(visit, page_file, run_file):
    page = visit(page_file, "filter/conv1/5")
    page.wait_for_selector(".nearest .card")
    titles = page.locator("main .panel > h2").all_inner_texts()
    assert titles == [
        "What excites it most",
        "What it answers least",
        "Its weights",
        "How its values are spread",
        "Under other conditions",
        "By class",
        "In numbers",
        "Where it answers",
        "Filters most like it",
    ]
    with fastconv.open(run_file) as run:
        orders = run["conv1"].topk, run["conv1"].bottomk
    for panel, hits in zip(page.locator(".hits").all(), orders, strict=True):
        assert panel.locator(".hit").count() == 9
        panel.locator(".hit").nth(2).click()
        detail = panel.locator(".hit-detail").inner_text()
        assert f"{hits.sample[5, 2]} · faces/größe_{hits.sample[5, 2]:03d}.png" in detail
        box = ", ".join(f"{a}:{b}" for a, b in hits.box[5, 2]).replace("-", "\N{MINUS SIGN}")
        assert box in detail
        shown = panel.locator(".hit b").all_inner_texts()
        values = [float(text.replace("\N{MINUS SIGN}", "-")) for text in shown]
        np.testing.assert_allclose(values, hits.values[5], rtol=0.01)
    assert drawn(page, ".hit-detail canvas") > 10  # the whole picture
    assert drawn(page, ".maps canvas") > 5
    assert page.locator(".responses circle").count() == 2
    assert page.locator(".numbers dt").count() >= 20


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("volume/1", "canvas"),
        ("head/1", "canvas"),
        ("layer1.0.conv%2F2%231/1", "svg"),
        ("conv1/2", None),
    ],
)
def test_filters_of_every_rank_and_without_values_have_pages(visit, page_file, address, kind):
    page = visit(page_file, f"filter/{address}")
    page.wait_for_selector(".numbers")
    if kind is None:  # every value is NaN
        said = page.locator(".hits").all_inner_texts()
        assert ["No hit: none of its values is finite." in text for text in said] == [True] * 2
    else:
        assert page.locator(f".hit {kind}").count() == 18
        wider = "[...document.querySelectorAll('.hits')].filter(e => e.scrollWidth > e.clientWidth)"
        for width, height in (WIDE, PHONE):
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate(f"{wider}.length") == 0


@pytest.mark.parametrize("order", ["largest", "smallest"])
def test_hits_of_one_order_say_how_to_keep_the_other(visit, tmp_path, order):
    model, file = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), tmp_path / "run.h5"
    data = torch.rand(12, 3, 9, 9)
    fastconv.extract(model, data, file, order=order, layers="0", progress=False).close()
    page = visit(fastconv.report(file, tmp_path / "report.html"), "filter/0/1")
    page.wait_for_selector(".numbers")
    kept, other = page.locator(".hits").all()
    assert [panel.locator(".hit").count() for panel in (kept, other)] == [9, 0]
    titles = [panel.locator("h2").inner_text() for panel in (kept, other)]
    expected = ["What excites it most", "What it answers least"]
    assert titles == (expected if order == "largest" else expected[::-1])
    assert 'fastconv.extract(..., order="both") keeps it.' in other.inner_text()


def test_classes_and_the_embedding(visit, page_file):
    page = visit(page_file, "classes")
    page.locator(".class-list a").nth(1).click()
    page.wait_for_selector("h1:text-is('class 1')")
    assert page.locator("main .card").count() > 10
    assert page.locator(".samples li").count() == 8
    page = visit(page_file, "embedding")
    plane = page.locator("canvas.scatter")
    box = plane.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()
    page.wait_for_selector(".brushed h2")
    assert page.locator(".brushed h2").inner_text() == "24 samples"
    page.locator(".key button").first.click()
    page.wait_for_selector(".brushed h2:text-is('8 samples')")
    assert page.locator(".brushed .card").count() == 6


def test_the_keyboard_goes_everywhere(visit, page_file):
    page = visit(page_file)
    page.keyboard.press("2")
    page.wait_for_selector(".cards .card")
    page.locator(".cards .card").first.focus()
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.querySelector('.card-name').textContent")
    assert second == names(page)[1]
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Filter')")
    before = page.locator("h1").inner_text()
    page.keyboard.press("ArrowRight")
    until(page, "(old) => document.querySelector('h1').textContent !== old", before)
    page.keyboard.press("u")
    page.wait_for_selector(".cards .card")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.locator("#query").blur()
    page.keyboard.press("?")
    assert page.locator("dialog[open]").inner_text().count("\n") > 8
    page.keyboard.press("Escape")


def test_names_are_text_and_the_policy_holds(visit, tmp_path, insight):
    infos = [synthetic.layer_info(HOSTILE, 5)]
    file = write(tmp_path / "<b>run.h5", infos, hostile=True)
    made = fastconv.report(file, tmp_path / "report.html")
    page = visit(made)
    assert page.locator("h1").inner_text() == "<b>run.h5"
    assert page.locator(".strip h2").inner_text() == HOSTILE
    page.locator(".strip h2 a").click()
    page.locator(".card").nth(1).click()
    page.wait_for_selector(".hit-detail")
    assert HOSTILE in page.locator(".hit-detail").inner_text()
    assert page.locator("img").count() == 0
    assert "owned" not in page.title().split("·")[-1]
    blocked = page.evaluate(
        """() => {
          const seen = [];
          const attempt = (what) => { try { what(); } catch { seen.push("refused"); } };
          const script = document.createElement("script");
          attempt(() => (script.textContent = "document.title = 'owned'"));
          attempt(() => (document.body.innerHTML += "<b>x</b>"));
          attempt(() => setTimeout("document.title = 'owned'"));
          return seen;
        }"""
    )
    assert blocked == ["refused"] * 3
    assert all("policy" in text.lower() or "Trusted" in text for text in visit.complaints)
    visit.complaints.clear()
    assert page.title() != "owned"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_no_serious_fault_and_nothing_overflows(visit, page_file, axe, scheme, size):
    page = visit(page_file, size=size, color_scheme=scheme, bypass_csp=True)
    lightness = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(lightness[4:].split(",")[0]) > 128) == (scheme == "light")
    page.evaluate(axe)
    for address in ("", "filters", "filter/conv1/5", "classes", "class/1", "embedding", "about"):
        page.goto(f"{page_file.as_uri()}#/{address}")
        page.wait_for_timeout(150)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        serious = [
            (fault["id"], fault["nodes"][0]["html"])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        assert not serious, f"{address}: {serious}"
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, address


def test_the_theme_can_be_chosen(visit, page_file):
    page = visit(page_file, color_scheme="light")
    colours = set()
    for _ in range(3):
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.keyboard.press("t")
    assert len(colours) == 2


def test_two_runs_side_by_side(visit, tmp_path):
    first = write(tmp_path / "first.h5", plain_layers()[:2])
    changed = [synthetic.layer_info("conv1", 40), synthetic.layer_info("extra", 3)]
    second = write(tmp_path / "second.h5", changed, seed=1)
    page = visit(fastconv.report(first, tmp_path / "two.html", other=second))
    assert "only in first.h5: layer1.0.conv/2#1" in page.locator("main").inner_text()
    assert "only in second.h5: extra" in page.locator("main").inner_text()
    page.goto(page.url.split("#")[0] + "#/filters?layer=conv1&sort=change_max")
    page.wait_for_selector(".card .card-side:nth-child(2) canvas")
    page.locator(".card").first.click()
    page.wait_for_selector(".sides")
    assert page.locator(".sides > .panels > .run-name").all_inner_texts() == [
        "first.h5",
        "second.h5",
    ]
    assert page.locator(".sides .hit canvas").count() == 18


def test_a_run_that_kept_nothing_says_which_calls_keep_it(visit, bare_file, tmp_path):
    page = visit(fastconv.report(bare_file, tmp_path / "bare.html"), "filter/conv1/1")
    page.wait_for_selector(".lacking")
    text = page.locator("main").text_content()
    for call in ("topk=9", "quantiles=True", "stats=True", "patches=True", "samples=True", "maps="):
        assert call in text
    for address in ("", "filters", "classes", "embedding", "about"):
        page.goto(page.url.split("#")[0] + f"#/{address}")
        page.wait_for_selector("main h1")
    assert "thumbnails=True" in page.locator("main").inner_text()


def test_nothing_is_decoded_that_is_not_shown(visit, page_file):
    page = visit(page_file)
    page.evaluate(
        """() => {
          window.decoded = 0;
          const decode = window.createImageBitmap;
          window.createImageBitmap = (...a) => (window.decoded++, decode(...a));
        }"""
    )
    page.goto(page.url.split("#")[0] + "#/filter/conv1/5")
    page.wait_for_selector(".nearest .card canvas")
    page.wait_for_timeout(200)
    both = 2 * (9 + 2)  # patches and whole pictures of the hits of each order
    assert page.evaluate("decoded") <= both + 6 + 6  # maps, neighbours
