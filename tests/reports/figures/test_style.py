"""What holds for figures of every type: their files, and that everything in them can be read."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from fedsplit.reports.figures.style import encode_figure, three_digits, wrap_label
from fedsplit.reports.figures.types import FIGURE_TYPES
from fedsplit.reports.runs import Run
from tests.cases import long_but
from tests.reports.stored import dirichlet, load_runs, make_run

MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}
SETTINGS: dict[str, dict[str, Any]] = {
    "curve": {"targets": (0.3, 0.6)},
    "against": {"x": "distribution.alpha"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("stored")
    paths = []
    for algorithm in ("fed_avg", "splitfed_v1", "cse_fsl"):
        for alpha in (0.1, 1.0):
            own = {"distribution": dirichlet(alpha), "choices": {"distribution": "dirichlet"}}
            for seed in (0, 1):
                paths.append(make_run(folder / f"{algorithm}{alpha}{seed}", algorithm, seed=seed, **own))
    return load_runs(paths)


def drawn(runs: list[Run], name: str) -> Figure:
    figure = FIGURE_TYPES[name](**SETTINGS.get(name, {}))
    return figure.draw(figure.data(runs[::3] if name in ("classes", "confusion") else runs))


def texts(figure: Figure) -> Iterator[Text]:
    """All that can be read; not the labels of ticks beyond the ends of an axis, which are not drawn."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            hidden |= {tick.label1 for tick in ticks if not low <= tick.get_loc() <= high}
    for text in figure.findobj(Text):
        if text not in hidden and text.get_visible() and text.get_text().strip():  # type: ignore[attr-defined]
            yield text  # type: ignore[misc]


@pytest.mark.parametrize("name", FIGURE_TYPES)
def test_figures_have_all_text_inside_and_readable_and_legends_that_cover_nothing(
    runs: list[Run], name: str
) -> None:
    figure = drawn(runs, name)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == (
        7 if name == "confusion" else 3.5
    )  # of four matrices, two beside each other
    smallest = 7 if name == "confusion" else 8
    for text in texts(figure):
        box = text.get_window_extent()
        assert text.get_fontsize() >= smallest
        assert figure.bbox.padded(1).contains(*box.p0), text
        assert figure.bbox.padded(1).contains(*box.p1), text
    for legend in figure.legends:
        for axes in figure.axes:
            tight = axes.get_tightbbox()
            assert tight is not None
            assert legend.get_window_extent().y1 <= tight.y0 + 1
    for axes in figure.axes:
        shown = [t for t in set(axes.get_xticklabels()) & set(texts(figure)) if t.get_rotation() == 0]
        boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


@pytest.mark.parametrize("name", long_but(["curve", "bars", "scatter"], FIGURE_TYPES))
def test_figures_of_the_same_runs_have_the_same_bytes(runs: list[Run], name: str) -> None:
    one, other = drawn(runs, name), drawn(runs, name)
    formats = MAGIC if name == "curve" else ("png",)  # how a file is written does not depend on what is drawn
    for format in formats:
        magic, image = MAGIC[format], encode_figure(one, format)
        assert image.startswith(magic)
        assert image == encode_figure(other, format)
        assert b"Date" not in image
        assert b"/Type3" not in image.replace(b" ", b"")  # text in a PDF stays text: TrueType


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0.0, "0.00"), (0.123, "0.12"), (5.7, "5.70"), (12.25, "12.2"), (895.4, "895"), (12345.0, "12345")],
)
def test_numbers_beside_each_other_in_a_figure_have_as_many_digits(number: float, shown: str) -> None:
    assert three_digits(number) == shown


def test_label_in_a_figure_is_broken_between_its_pieces_only() -> None:
    label = "fsl_sage, distribution.classes_per_client=2, model.cut=features.5"
    lines = wrap_label(label, 44).splitlines()
    assert [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines] == [
        "fsl_sage, distribution.classes_per_client=2,",
        "model.cut=features.5",
    ]
