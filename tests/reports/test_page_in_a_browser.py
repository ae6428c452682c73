"""The page as people see it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsplit.reports.figures.figure_type import RenderedFigure
from fedsplit.reports.figures.style import blank_figure, encode_figure
from fedsplit.reports.page import page
from fedsplit.reports.tables.table import TableRequest, table_of
from tests.reports.browser import EXECUTABLE, Browser, browser
from tests.reports.chosen import store_run
from tests.reports.stored import load_runs

pytestmark = pytest.mark.skipif(
    EXECUTABLE is None, reason="needs Debian's chromium (apt-get install chromium)"
)

NAMES = ("svg", "png", "wide", "table-only")
# WCAG 2.1, "contrast ratio": of every element with text of its own, against the first ground behind it.
LEAST_CONTRAST = """(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c /= 255, c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const own = channels(getComputedStyle(e).backgroundColor);
      if (own.length === 3) return own;
    }
    return [255, 255, 255];
  };
  const ratios = [...document.querySelectorAll("body *")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => [channels(getComputedStyle(e).color), ground(e)].map(luminance).sort((a, b) => b - a))
    .map(([light, dark]) => (light + 0.05) / (dark + 0.05));
  return [ratios.length, Math.min(...ratios)];
})()"""
OPENED = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of figures and tables of runs whose settings have long names."""
    saves = tmp_path_factory.mktemp("saves")
    long = {"dataset": {"root": "x" * 300}}
    paths = [
        store_run(saves / f"{n}-{seed}", n, seed=seed) for n in ("fed_avg", "fsl_sage") for seed in (0, 1)
    ]
    runs = load_runs([*paths, store_run(saves / "long", **long)])
    drawn = []
    for name in NAMES[:3]:
        figure = blank_figure(7.0 if name == "wide" else 3.5, 2.4)
        figure.add_subplot().plot([1, 2], [3, 4])
        kind = "png" if name == "png" else "svg"
        drawn.append(
            RenderedFigure(name, f"Figure {name}", "Seen.", {kind: encode_figure(figure, kind)}, runs)
        )
    request = TableRequest(targets=(0.5, 0.8, 0.99))
    tables = [table_of(request, runs, name=name, title="Compared") for name in ("svg", "table-only")]
    path = saves / "index.html"
    path.write_bytes(page(drawn, tables, missing=["python main.py seed=3"], folder=saves))
    return path


@pytest.fixture(scope="module")
def opened(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as own:
        own.show(width=1280)
        own.open(written)
        yield own


def test_browser_shows_every_figure_and_every_table_of_the_page(opened: Browser) -> None:
    images = opened.evaluate("[...document.images].map((i) => [i.complete, i.naturalWidth > 0, i.width])")
    assert images == [[True, True, 504], [True, True, 504], [True, True, pytest.approx(930, abs=90)]]
    tables = (
        "[...document.querySelectorAll('table.numbers')].map((t) => [t.rows.length, t.offsetHeight > 60])"
    )
    assert opened.evaluate(tables) == [[4, True], [4, True]]
    sections = "[...document.querySelectorAll('main > section h2')].map((h) => h.innerText)"
    titles = [*(f"Figure {name}" for name in NAMES[:3]), "Compared", "Missing and left out", "Versions"]
    assert opened.evaluate(sections) == titles


def test_browser_asks_the_network_for_nothing_on_the_page(opened: Browser, written: Path) -> None:
    own, *others = opened.requests
    assert own == written.as_uri()
    assert len(others) == 3
    assert all(each.startswith("data:image/") for each in others)


def test_browser_refuses_what_the_page_does_not_hold(opened: Browser) -> None:
    blocked = opened.evaluate("fetch('http://127.0.0.1:9/').then(() => 'fetched', (e) => e.name)")
    assert blocked == "TypeError"
    image = """new Promise((told) => {
      document.addEventListener('securitypolicyviolation', (e) => told(e.effectiveDirective), {once: true});
      new Image().src = 'http://127.0.0.1:9/';
    })"""
    assert opened.evaluate(image) == "img-src"


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_browser_of_any_width_shows_the_page_without_scrolling_sideways(opened: Browser, width: int) -> None:
    opened.show(width=width)
    opened.evaluate(OPENED)
    room = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.evaluate(f"[innerWidth, {room}]") == [width, 0]


@pytest.mark.parametrize("dark", [False, True])
def test_browser_shows_all_text_of_the_page_with_enough_contrast(opened: Browser, dark: bool) -> None:
    opened.show(width=1280, dark=dark)
    opened.evaluate(OPENED)
    count, least = opened.evaluate(LEAST_CONTRAST)
    assert count > 100
    assert least >= 4.5
    grounds = "[...document.querySelectorAll('.card')].map((c) => getComputedStyle(c).backgroundColor)"
    assert set(opened.evaluate(grounds)) == {"rgb(255, 255, 255)"}  # figures are drawn for paper
