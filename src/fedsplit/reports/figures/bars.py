"""Stacked bars: bytes by kind and direction, or seconds by phase."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from fedsplit.errors import UserError
from fedsplit.reports.figures.figure_type import FigureType, SeriesLimits
from fedsplit.reports.figures.groups import describe_seeds, over_seeds
from fedsplit.reports.figures.style import (
    INK,
    OKABE_ITO,
    PALE,
    TEXT_SIZE,
    blank_figure,
    legend_below,
    load_axis,
    tidy,
    wrap_label,
)
from fedsplit.reports.figures.wording import legend_texts
from fedsplit.reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOWN = "/////"  # hatch of what servers send
_KINDS = (
    *("smashed", "cut_gradient", "client_weights", "auxiliary_weights", "full_weights", "labels"),
    *("control_variates", "seeds", "scalars"),
    *("clients", "server", "evaluate"),
)
"""Parts of a bar in the order of stacking; all others come after them."""
_PURPLE = "#882255"
"""Colour of Paul Tol, for there is one kind of message more than Okabe and Ito have colours."""
_COLOURS = dict(zip(_KINDS, (*OKABE_ITO[:6], _PURPLE, *OKABE_ITO[6:], *OKABE_ITO[:3]), strict=True))
_THIN = 0.003  # share of the longest bar, below which a part cannot be seen


@dataclass(frozen=True)
class Bar:
    """Runs that differ only in their seed, as a `Group`.

    Args:
        parts: parts of a whole run, by column of metrics.csv: MB or seconds, the mean over seeds; none is 0.
    """

    label: str
    parts: tuple[tuple[str, float], ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Bars(FigureType[Sequence[Bar]]):
    """Bytes of runs by kind, uploads plain and downloads hatched; or their seconds by phase."""

    of: Literal["bytes", "seconds"] = "bytes"
    by: str = "algorithm"

    summary: ClassVar = "stacked bars of bytes by kind and direction, or of seconds by phase"

    limits: ClassVar = SeriesLimits(series=16, settings=16)
    coloured: ClassVar = False

    @property
    @override
    def name(self) -> str:
        return f"bars-{self.of}"

    @override
    def check(self, run: Run) -> None:
        """It must have been run for a round, with columns of what is drawn."""
        run.values("round")
        if not self._columns(run):
            raise UserError("run", run.path, f"must have columns {self.of}.<...> in metrics.csv")

    @override
    def data(self, runs: Sequence[Run]) -> list[Bar]:
        """The bars from top to bottom, all with their parts in the same order."""
        return [
            Bar(
                label=group.label,
                parts=tuple(
                    (name, mean)
                    for name in self._columns(group.runs[0])
                    if (mean := fmean(self._total(run, name) for run in group.runs)) > 0
                ),
                seeds=group.seeds,
            )
            for group in over_seeds(runs, self.by)
        ]

    def _columns(self, run: Run) -> list[str]:
        """Kind by kind, up before down."""
        found = [name for name in run.columns if name.startswith(f"{self.of}.")]
        return sorted(found, key=lambda name: (_place(_kind(name)), _kind(name), _is_down(name)))

    def _total(self, run: Run, name: str) -> float:
        total = sum(value or 0.0 for value in run.columns.get(name, ()))
        return total / 1e6 if self.of == "bytes" else total

    @override
    def draw(self, data: Sequence[Bar]) -> "Figure":
        """Horizontal bars, a column wide, with the legend below."""
        from matplotlib.patches import Patch  # noqa: PLC0415

        texts = [wrap_label(text, 20) for text in legend_texts([bar.label for bar in data])]
        lines = max(text.count("\n") + 1 for text in texts)
        figure = blank_figure(3.5, 0.75 + max(0.27, 0.05 + 0.135 * lines) * len(data))
        axes = figure.add_subplot()
        longest = max(sum(value for _, value in bar.parts) for bar in data)
        parts = [(name, value) for bar in data for name, value in bar.parts]
        kinds = sorted({_kind(name) for name, value in parts if value > _THIN * longest}, key=_place)
        colours = _COLOURS | {kind: INK for kind in kinds if kind not in _COLOURS}
        for i, bar in enumerate(data):
            left = 0.0
            for name, value in bar.parts:
                axes.barh(
                    i,
                    value,
                    left=left,
                    height=0.7,
                    color=colours.get(_kind(name), INK),
                    edgecolor="white",
                    linewidth=0,
                    hatch=_DOWN if _is_down(name) else None,
                )
                left += value
        tidy(axes, "Time (s)", "", grid="x")
        axes.set_yticks(range(len(data)), texts, fontsize=TEXT_SIZE)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(data) - 0.45, -0.55)
        axes.locator_params(axis="x", nbins=6)
        handles = [Patch(facecolor=colours[kind]) for kind in kinds]
        labels = ["smashed data" if kind == "smashed" else kind.replace("_", " ") for kind in kinds]
        if self.of == "bytes":
            load_axis(axes.xaxis, longest)
            if any(_is_down(name) for name, _ in parts):
                handles += [
                    Patch(facecolor=PALE),
                    Patch(facecolor=PALE, edgecolor="white", linewidth=0, hatch=_DOWN),
                ]
                labels += ["up", "down"]
        legend_below(figure, handles, labels, describe_seeds([bar.seeds for bar in data], "Mean"))
        return figure


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _place(kind: str) -> int:
    return _KINDS.index(kind) if kind in _KINDS else len(_KINDS)


def _is_down(name: str) -> bool:
    return name.startswith("bytes.down.")
