"""Figures are drawn the same whatever a user has set, and their texts stand for themselves."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure

from fedsplit.errors import UserError
from fedsplit.reports.drawing import draw
from fedsplit.reports.experiments import FigureRequest, figure_type
from fedsplit.reports.figures.style import FORMATS, house_style
from fedsplit.reports.figures.types import FIGURE_TYPES
from tests.reports.stored import load_runs, make_run

ROOT = Path(__file__).parents[3]
HOSTILE: dict[str, Any] = {
    "text.usetex": True,
    "text.parse_math": True,
    "font.size": 30,
    "font.family": "monospace",
    "axes.facecolor": "black",
    "axes.formatter.use_mathtext": True,
    "axes.unicode_minus": False,
    "figure.facecolor": "red",
    "figure.dpi": 17,
    "lines.linewidth": 9,
    "savefig.dpi": 13,
    "savefig.bbox": "tight",
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "pdf.compression": 0,
    "path.sketch": (3, 100, 2),
    "legend.frameon": True,
}
MATH = "a$_b$c^$ \\frac{$"
"""A name whose dollars would begin and end mathematics that is none."""


@contextmanager
def _set(values: dict[str, Any]) -> Iterator[None]:
    with matplotlib.rc_context(values):
        yield


def _images(type_: str, *paths: Path) -> dict[str, bytes]:
    figure = figure_type(type_, REQUIRED.get(type_, {}), "--")
    experiment = FigureRequest("a", figure, "", "", (), {}, {}, FORMATS)
    return dict(draw(experiment, load_runs(paths), FORMATS).images)


REQUIRED: dict[str, dict[str, Any]] = {"curve": {"x": "round"}, "against": {"x": "num_clients"}}


@pytest.mark.parametrize("type_", ["curve", "confusion", "roc"])
def test_figures_are_the_same_bytes_whatever_a_user_has_set(tmp_path: Path, type_: str) -> None:
    paths = [
        make_run(tmp_path / name, algorithm) for name, algorithm in (("a", "fsl_sage"), ("b", "cse_fsl"))
    ]
    expected = _images(type_, *paths)
    with _set(HOSTILE):
        found = _images(type_, *paths)
        assert matplotlib.rcParams["lines.linewidth"] == 9  # what the user has set is his again
    assert found == expected


@pytest.mark.parametrize("type_", sorted(FIGURE_TYPES))
def test_dollars_in_names_are_dollars(tmp_path: Path, type_: str) -> None:
    paths = []
    for number, name in enumerate((MATH, "$x$ $")):
        path = make_run(
            tmp_path / str(number),
            name,
            choices={"model": name},
            **{"model.name": name, "num_clients": number + 2},
        )
        for file in ("confusion.csv", "roc.csv", "class_counts.csv"):
            text = (path / file).read_text("utf-8")
            (path / file).write_text(text.replace("a,", f'"{MATH}",').replace(",,", f',"{MATH}",'), "utf-8")
        paths.append(path)
    assert set(_images(type_, *paths)) == set(FORMATS)


def test_text_in_house_style_is_as_wide_as_its_characters() -> None:
    with house_style():
        figure = Figure()
        mathematics, letters = (figure.text(0, 0, text) for text in ("$xxxx$", "$$xxxx"))
        assert mathematics.get_window_extent().width == pytest.approx(
            letters.get_window_extent().width, abs=1
        )


def test_classes_whose_names_are_no_text_are_drawn_as_escapes(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    for file in ("confusion.csv", "roc.csv", "class_counts.csv"):
        content = (path / file).read_bytes()
        (path / file).write_bytes(content.replace(b"a,", b"\xe9\xff,").replace(b",,", b",\xe9\xff,"))
    for type_ in ("confusion", "roc", "classes"):
        assert set(_images(type_, path)) == set(FORMATS)


@pytest.mark.parametrize("rc", ["backend: nonsense\nlines.linewidth: wide\nno.such.key: 1\n"])
def test_broken_settings_of_matplotlib_are_not_heard_of(tmp_path: Path, rc: str) -> None:
    (tmp_path / "matplotlibrc").write_text(rc)
    imports = "from fedsplit.reports.figures.style import *"
    program = f"{imports}\nwith house_style(): encode_figure(blank_figure(1, 1), 'png')"
    environment = {**os.environ, "MPLBACKEND": "no such backend", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_settings_that_matplotlib_cannot_read_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreadable:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "matplotlib":
                raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.setattr(sys, "meta_path", [Unreadable(), *sys.meta_path])
    with pytest.raises(UserError, match="matplotlib=matplotlibrc: must be a text file"), house_style():
        pass
