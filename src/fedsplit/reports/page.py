"""`index.html`: all figures and tables, and the runs behind them, on one page that needs nothing else."""

import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from struct import unpack
from typing import Any
from urllib.parse import quote

from fedsplit.errors import UserError
from fedsplit.machine.extras import install_command
from fedsplit.reports.figures.figure_type import RenderedFigure
from fedsplit.reports.figures.groups import by_number, count_noun
from fedsplit.reports.figures.wording import in_words
from fedsplit.reports.labels import label_runs
from fedsplit.reports.runs import Run
from fedsplit.reports.tables.files import FORMATS
from fedsplit.reports.tables.table import Table

_PIXELS_AN_INCH = 144
"""Resolution of figures on the page, where their 8-point text is then as large as the page's own."""
_PNG_PIXELS_AN_INCH = 200
"""Resolution of the PNGs that the page offers."""
_TEMPLATES = Path(__file__).with_name("templates")
_STARTED = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[-/](\d\d)-?(\d\d)-?(\d\d)(?!\d)")
"""The time in the name of a run's directory, or of its sweep's."""
_BREAKABLE = re.compile(r"(?<=[.=,/])(?=\w)|(?<=[^\W_]_)(?=[^\W_])")
"""Positions in a name where a line may break: behind marks that join its parts, but not inside `_target_`."""


def page(
    drawn: Sequence[RenderedFigure], tables: Sequence[Table], *, missing: Sequence[str], folder: Path
) -> bytes:
    """The page, in UTF-8: the same bytes for the same runs.

    A figure and a table of the same name share a section. The page links to their files as
    `<name>.<format>` beside it.

    Args:
        drawn: figures, in the order of the page.
        tables: those without a figure of their name come behind all figures.
        missing: a line for each run, or experiment, that was expected and is not there.
        folder: folder of the page, which its links start from.

    Raises:
        UserError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            "jinja2", "missing", f"needed to write the page: {install_command('plot')}"
        ) from error
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"numbers": numbers, "quoted": quote, "breakable": _breakable}
    runs = _each_once(*(each.runs for each in drawn), *(each.runs for each in tables))
    text = templates.get_template("page.html").render(
        sections=_sections(drawn, tables, folder),
        missing=missing,
        summary=_summary(drawn, tables, runs),
        ran_with=_ran_with(runs),
        drawn_with={name: version(name) for name in ("fedsplit", *(["matplotlib"] if drawn else []))},
        table_endings=list(FORMATS),
    )
    return text.encode("utf-8", "xmlcharrefreplace")  # a path may hold what is no text


def numbers(places: Sequence[int]) -> str:
    """Places from 0, in ascending order, as numbers from 1: `1-3, 5`."""
    parts: list[list[int]] = []
    for number in (place + 1 for place in places):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _breakable(text: str) -> str:
    """A name that may be broken behind the marks that join its parts."""
    from markupsafe import Markup  # noqa: PLC0415 # comes with jinja2

    return Markup("<wbr>").join(_BREAKABLE.split(text))


def _each_once(*several: Sequence[Run]) -> list[Run]:
    return list({run.path: run for runs in several for run in runs}.values())


def _sections(
    drawn: Sequence[RenderedFigure], tables: Sequence[Table], folder: Path
) -> list[dict[str, object]]:
    figures = {each.name: each for each in drawn}
    by_name = {each.name: each for each in tables}
    return [
        _section(name, figures.get(name), by_name.get(name), folder)
        for name in dict.fromkeys((*figures, *by_name))
    ]


def _section(
    name: str, figure: RenderedFigure | None, table: Table | None, folder: Path
) -> dict[str, object]:
    shown = [each for each in (figure, table) if each is not None]
    runs = label_runs(_each_once(*(each.runs for each in shown)))
    return {
        "name": name,
        "title": shown[0].title,
        "figure": figure,
        "image": inline_image(figure.images) if figure is not None else None,
        "table": table,
        "runs": [_describe_run(run, folder) for run in runs],
        "configuration": differences(runs),
    }


def _describe_run(run: Run, folder: Path) -> dict[str, object]:
    return {
        "path": run.path.as_posix(),
        "href": quote(os.fsencode(Path(os.path.relpath(run.path, folder)).as_posix())) + "/",
        "algorithm": in_words(run.algorithm),
        "setting": run.label.removeprefix(run.algorithm).removeprefix(", "),
        "seed": run.seed,
        "rounds": len(run.columns["round"]),
        "ended": run.results is not None,
    }


def _summary(drawn: Sequence[RenderedFigure], tables: Sequence[Table], runs: Sequence[Run]) -> str:
    parts = [count_noun(len(drawn), "figure"), count_noun(len(tables), "table"), count_noun(len(runs), "run")]
    started = [found.groups() for run in runs if (found := _STARTED.search(run.path.as_posix()))]
    if not started:
        return f"{parts[0]} and {parts[1]} of {parts[2]}."
    year, month, day, hour, minute, second = max(started)
    newest = f"{year}-{month}-{day} {hour}:{minute}:{second}"
    return f"{parts[0]} and {parts[1]} of {parts[2]}, the newest of {newest}."


def _ran_with(runs: Sequence[Run]) -> Mapping[str, str]:
    """The versions that runs recorded, by package."""
    found: dict[str, set[str]] = {}
    for run in runs:
        recorded: Mapping[str, Any] = (run.results or {}).get("versions", {})
        for name, each in recorded.items():
            found.setdefault(name, set()).add(str(each))
    return {name: ", ".join(sorted(each)) for name, each in found.items()}


def inline_image(images: Mapping[str, bytes]) -> dict[str, object] | None:
    """Inline the SVG of a figure, or else its PNG, as attributes of `<img>`; None without either.

    As an image, and not as part of the page's own tree, an SVG cannot run scripts, and what its elements
    are called cannot clash with another's.
    """
    if "svg" in images:
        return _inline("svg+xml", images["svg"], *_svg_inches(images["svg"]))
    if "png" in images:
        width, height = unpack(">II", images["png"][16:24])
        return _inline("png", images["png"], width / _PNG_PIXELS_AN_INCH, height / _PNG_PIXELS_AN_INCH)
    return None


def _inline(kind: str, image: bytes, width: float, height: float) -> dict[str, object]:
    source = f"data:image/{kind};base64,{b64encode(image).decode()}"
    pixels = {"width": round(width * _PIXELS_AN_INCH), "height": round(height * _PIXELS_AN_INCH)}
    return {"source": source, **pixels}


def _svg_inches(image: bytes) -> tuple[float, float]:
    """Width and height as matplotlib writes them: in points, on the outermost element."""
    start = image[: image.index(b">", image.index(b"<svg"))].decode()
    width, height = (float(re.findall(rf'\s{side}="([\d.]+)pt"', start)[0]) for side in ("width", "height"))
    return width / 72, height / 72


@dataclass(frozen=True)
class Differing:
    """A key that not all runs set to the same.

    Args:
        key: the name of a group, or a dotted key.
        values: each with the places (from 0) of the runs that have it; None: those without the key.
    """

    key: str
    values: tuple[tuple[str | None, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Differences:
    """The settings of some runs; seeds and what cannot change a result are no part of them.

    Args:
        shared: values that all have, by key.
        differing: the rest, by key.
    """

    shared: Mapping[str, str]
    differing: tuple[Differing, ...]


def differences(runs: Sequence[Run]) -> Differences:
    """Choices of groups and settings, in alphabetical order of their keys.

    A class is not told that differs as the choice which names it does.
    """
    described = [{**run.settings, **run.choices} for run in runs]
    shared: dict[str, str] = {}
    differing: list[Differing] = []
    for key in sorted({key for settings in described for key in settings}):
        found: dict[str | None, list[int]] = {}
        for place, settings in enumerate(described):
            found.setdefault(settings.get(key), []).append(place)
        value, *others = found
        if value is not None and not others:
            shared[key] = value
        else:
            if key.endswith("._target_") and _alike(key.removesuffix("._target_"), key, described):
                continue
            values = sorted(found, key=lambda each: (each is None, by_number(each or "")))
            differing.append(Differing(key, tuple((each, tuple(found[each])) for each in values)))
    return Differences(shared, tuple(differing))


def _alike(group: str, key: str, described: Sequence[Mapping[str, str]]) -> bool:
    """True if each choice of the group has its own value of the key, and no value belongs to two choices."""
    pairs = {(settings.get(group), settings.get(key)) for settings in described}
    return len(pairs) == len({choice for choice, _ in pairs}) == len({value for _, value in pairs})
