import re
from collections.abc import Sequence
from functools import cache
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

import pytest

from fedsplit.reports.figures.figure_type import RenderedFigure
from fedsplit.reports.figures.style import blank_figure, encode_figure
from fedsplit.reports.page import numbers, page
from fedsplit.reports.runs import Run
from fedsplit.reports.tables.table import Table, TableRequest, table_of
from tests.reports.chosen import store_run
from tests.reports.stored import load_runs

HOSTILE = "</td><script>alert(1)</script>\"'&amp;{{ 7 * 7 }}"


class Seen(HTMLParser):
    """The elements of a page."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, attribute: str) -> list[str]:
        return [own[attribute] or "" for name, own in self.elements if name == tag and attribute in own]


@cache
def image(format: str) -> bytes:
    figure = blank_figure(3.5, 2.4)
    figure.add_subplot().plot([1, 2], [3, 4])
    return encode_figure(figure, format)


def drawn(
    runs: Sequence[Run], name: str = "mine", formats: tuple[str, ...] = ("png", "svg")
) -> RenderedFigure:
    images = {each: image(each) for each in formats}
    return RenderedFigure(name, f"Title of {name}", f"What is seen in {name}.", images, runs)


def table(runs: Sequence[Run], name: str = "mine", title: str = "Compared") -> Table:
    return table_of(TableRequest(targets=(0.5,)), runs, name=name, title=title)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    sweep = tmp_path / "saves" / "multirun" / "2026-11-21" / "15-20-36"
    return load_runs(
        [
            store_run(sweep / "0", "cse_fsl"),
            store_run(sweep / "1", "cse_fsl", seed=1),
            store_run(tmp_path / "saves" / "fsl_sage" / "20261103-091500-7f3a", optimizer={"lr": 0.5}),
            store_run(tmp_path / "saves" / "going on #1", num_clients=3, ended=False),
        ]
    )


def test_page_has_a_figure_and_a_table_of_one_name_in_one_section(tmp_path: Path, runs: list[Run]) -> None:
    figures = [drawn(runs, "a"), drawn(runs, "b")]
    tables = [table(runs, "b", "Compared"), table(runs, "c", "Alone")]
    seen = Seen(page(figures, tables, missing=[], folder=tmp_path / "saves" / "plots"))
    ids = [each for each in seen.all("section", "id") if each.startswith("experiment-")]
    assert ids == ["experiment-a", "experiment-b", "experiment-c"]
    assert len(seen.all("img", "src")) == 2
    assert len(seen.all("caption", "id")) == 2
    alts = seen.all("img", "alt")
    assert alts == ["Title of a: What is seen in a.", "Title of b: What is seen in b."]
    assert "2 figures and 2 tables of 4 runs, the newest of 2026-11-21 15:20:36." in seen.text


def test_page_links_lead_to_what_is_there(tmp_path: Path, runs: list[Run]) -> None:
    folder = tmp_path / "saves" / "plots"
    seen = Seen(page([drawn(runs)], [table(runs)], missing=["x"], folder=folder))
    ids = [own["id"] for _, own in seen.elements if "id" in own]
    assert len(ids) == len(set(ids))
    links = seen.all("a", "href")
    assert {each[1:] for each in links if each.startswith("#")} <= set(ids)
    beside = [f"mine.{ending}" for ending in ("png", "svg", "md", "tex", "csv")]
    assert [each for each in links if each.startswith("mine.")] == beside
    directories = [folder / unquote(each) for each in links if each.endswith("/")]
    assert [each.resolve() for each in directories] == [run.path for run in runs]
    assert len(links) == len(beside) + len(runs) + sum(each.startswith("#") for each in links)
    named = [own["aria-labelledby"] for _, own in seen.elements if "aria-labelledby" in own]
    assert set(named) <= set(ids)


def test_page_has_the_cells_of_the_table(tmp_path: Path, runs: list[Run]) -> None:
    made = table(runs)
    text = page([], [made], missing=[], folder=tmp_path).decode()
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    cells = [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", cell)).strip() for cell in body.split("</td>")]
    expected = [
        " ".join(filter(None, [each.mean, each.spread and f"± {each.spread}", each.share_at_target]))
        for _, line in made.lines()
        for each in line
    ]
    kept = [cell for cell in cells if re.fullmatch(r"-|[\d,.]+( ± [\d.]+)?( \d of \d seeds)?", cell)]
    assert len(expected) == 3 * len(made.columns)
    seeds = [names["Seeds"] for names, _ in made.lines()]
    for count in seeds:
        kept.remove(count)
    assert kept == expected
    assert body.count("<strong>") == sum(each.best for _, line in made.lines() for each in line)


def test_page_lists_the_runs_and_the_settings_in_which_they_differ(tmp_path: Path, runs: list[Run]) -> None:
    text = Seen(page([drawn(runs)], [], missing=[], folder=tmp_path)).text
    flat = " ".join(text.split())
    assert "3 not ended" in flat
    assert "going on #1" in flat
    assert "optimizer.lr 0.5 3 has none 1-2, 4" in flat
    assert "num_clients 3 4 10 1-3" in flat
    assert "Configuration: 3 settings in which runs differ" in flat
    assert "torch 2.13.0+cpu" in flat
    assert f"Drawn with fedsplit {version('fedsplit')}, matplotlib {version('matplotlib')}." in flat


def test_page_lists_missing_runs(tmp_path: Path, runs: list[Run]) -> None:
    assert "Missing" not in Seen(page([drawn(runs)], [], missing=[], folder=tmp_path)).text
    missing = ["a: python main.py algorithm=fed_avg seed=1", "b: no run"]
    text = Seen(page([drawn(runs)], [], missing=missing, folder=tmp_path)).text
    assert all(each in text for each in missing)


def test_page_shows_what_users_named_as_text(tmp_path: Path) -> None:
    def seen(name: str, folder: Path) -> Seen:
        paths = [store_run(folder / name.replace("/", ""), name, num_clients=3, **{name: {"a": name}})]
        runs = load_runs([*paths, store_run(folder / "javascript:alert(1)")])
        figure = RenderedFigure("n", name, f"{name}.", {}, runs)
        return Seen(page([figure], [table(runs, "n", name)], missing=[name], folder=folder))

    hostile, harmless = seen(HOSTILE, tmp_path / "a"), seen("=harmless", tmp_path / "b")
    tags = [[name for name, _ in each.elements if name != "wbr"] for each in (hostile, harmless)]
    assert tags[0] == tags[1]
    assert "script" not in tags[0]
    assert hostile.text.count(HOSTILE) >= 5
    assert not any(each.startswith("javascript:") for each in hostile.all("a", "href"))


def test_page_shows_a_path_that_is_no_unicode_text(tmp_path: Path, runs: list[Run]) -> None:
    odd = Run(Path("saves/\udcff"), runs[0].config, "cse_fsl", runs[0].columns)
    seen = Seen(page([drawn([odd])], [], missing=[], folder=Path("saves/plots")))
    assert "../%FF/" in seen.all("a", "href")


def test_page_of_the_same_runs_has_the_same_bytes(tmp_path: Path, runs: list[Run]) -> None:
    made = [page([drawn(runs)], [table(runs)], missing=["x"], folder=tmp_path) for _ in range(2)]
    assert made[0] == made[1]
    moved = [Run(Path("r") / str(i), run.config, run.label, run.columns) for i, run in enumerate(runs)]
    assert b"newest" not in page([drawn(moved)], [], missing=[], folder=Path("r"))


@pytest.mark.parametrize(("formats", "kind"), [(("png",), "png"), (("pdf", "svg", "png"), "svg+xml")])
def test_page_holds_the_sharpest_image_and_fetches_nothing(
    tmp_path: Path, runs: list[Run], formats: tuple[str, ...], kind: str
) -> None:
    content = page([drawn(runs, formats=formats)], [], missing=[], folder=tmp_path)
    seen = Seen(content)
    (source,) = seen.all("img", "src")
    assert source.startswith(f"data:image/{kind};base64,")
    size = int(seen.all("img", "width")[0]), int(seen.all("img", "height")[0])
    assert size == (504, 346)  # 3.5 by 2.4 inches
    # Nothing is left that a browser would fetch.
    rest = content.decode().replace(source, "")
    assert not re.search(r"https?:|\bsrc=\"(?!\")|url\(|@import|<script|<link|<iframe", rest)


def test_page_of_pdfs_has_no_images_and_links_to_them(tmp_path: Path, runs: list[Run]) -> None:
    seen = Seen(page([drawn(runs, formats=("pdf",))], [], missing=[], folder=tmp_path))
    assert not seen.all("img", "src")
    assert "mine.pdf" in seen.all("a", "href")


def test_consecutive_run_numbers_on_the_page_are_a_range() -> None:
    assert numbers([]) == ""
    assert numbers([0]) == "1"
    assert numbers([0, 1, 2, 4, 6, 7]) == "1-3, 5, 7-8"
