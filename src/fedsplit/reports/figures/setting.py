"""Settings of runs, as numbers or names, and an axis of such settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsplit.errors import UserError
from fedsplit.reports.figures.groups import numbers_first
from fedsplit.reports.figures.style import log_axis
from fedsplit.reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALPHA, AUXILIARY, BITS = "distribution.alpha", "auxiliary", "bits"


def setting(run: Run, x: str) -> float | str:
    """Setting of a run: a number, or a name; `UserError` where it has no such setting."""
    if x == BITS:
        return _bits(run)
    if x == AUXILIARY:
        size = (run.results or {}).get("parameters", {}).get("auxiliary")
        if not size:
            raise UserError("run", run.path, "must have an auxiliary model, its size in results.json")
        return float(size)
    named = run.names_at(x)
    if not named or named[-1] == "null":
        if x == ALPHA and run.choices.get("distribution") == "iid":
            return "iid"
        raise UserError("run", run.path, f"has no {x} in config.yaml")
    try:
        return float(named[-1])
    except ValueError:
        return named[-1]


def _bits(run: Run) -> float:
    """All bits sent by all values sent, labels aside."""
    bits = values = 0.0
    for name in run.columns:
        _, _, link = name.partition("bits.")
        if link and not link.endswith(".labels") and f"bytes.{link}" in run.columns:
            for size, each in zip(run.columns[f"bytes.{link}"], run.columns[name], strict=True):
                if size and each:
                    bits += 8 * size
                    values += 8 * size / each
    if not values:
        raise UserError("run", run.path, "must have columns bits.<direction>.<kind> in metrics.csv")
    return bits / values


_WIDE = 5  # greatest over least, from which on a scale is logarithmic
_MOST_TICKS = 8
_DODGE = 0.012  # share of the axis between markers that would stand on top of each other


@dataclass(frozen=True)
class SettingAxis:
    """Axis of settings: numbers stand at themselves, names behind them, as far apart as the numbers are."""

    places: Mapping[float | str, float]
    log: bool

    @classmethod
    def of(cls, xs: Sequence[float | str], log: bool) -> "SettingAxis":
        """The axis of these settings; logarithmic where numbers go far apart, or `log` asks for it."""
        settings = sorted(set(xs), key=numbers_first)
        numbers = [x for x in settings if not isinstance(x, str)]
        if not numbers:
            return cls({name: float(i) for i, name in enumerate(settings)}, log=False)
        least, greatest = numbers[0], numbers[-1]
        log = least > 0 and (log or greatest / least >= _WIDE)
        gaps, names = max(1, len(numbers) - 1), len(settings) - len(numbers)
        if log:
            factor = (greatest / least) ** (1 / gaps) if greatest > least else 3.0
            behind = [greatest * factor ** (i + 1) for i in range(names)]
        else:
            gap = (greatest - least) / gaps or 1.0
            behind = [greatest + gap * (i + 1) for i in range(names)]
        return cls(dict(zip(settings, [*numbers, *behind], strict=True)), log)

    def place(self, x: float | str, series: int, of: int) -> float:
        """Position on the axis: points of several series at the same setting stand side by side."""
        places = self.places.values()
        least, greatest = min(places), max(places)
        aside = _DODGE * (series - (of - 1) / 2)
        if self.log:
            return self.places[x] * float((greatest / least) ** aside)
        return self.places[x] + (greatest - least) * aside

    def set_ticks(self, axes: "Axes", ticks: Sequence[float] = ()) -> None:
        """A tick at each setting or at those given; where there are too many, wherever the axis has them."""
        if self.log:
            log_axis(axes.xaxis)
        low, high = axes.get_xlim()
        if ticks:
            within = [x for x in ticks if low <= x <= high]
            axes.set_xticks(within, [_show(x) for x in within])
        elif len(self.places) <= _MOST_TICKS:
            axes.set_xticks(list(self.places.values()), [_show(x) for x in self.places])
        if self.log:
            axes.minorticks_off()


def thin_ticks(axes: "Axes") -> None:
    """Drop those labels of ticks on the x axis that would run into the one before."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    end = float("-inf")
    for label in axes.get_xticklabels():
        box = label.get_window_extent()
        label.set_visible(box.x0 > end)
        end = box.x1 if label.get_visible() else end


def _show(x: float | str) -> str:
    return x if isinstance(x, str) else f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"
