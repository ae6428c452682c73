"""An axis of settings: numbers where they belong, names behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsplit.results.figures.groups import by_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE = 20  # greatest over least, from which on a scale is logarithmic
_MOST_TICKS = 8


@dataclass(frozen=True)
class SettingAxis:
    """Where settings stand: numbers at themselves, names behind them, as far apart as the numbers are."""

    places: Mapping[float | str, float]
    log: bool

    @classmethod
    def of(cls, xs: Sequence[float | str], log: bool) -> "SettingAxis":
        """The axis of these settings; logarithmic where numbers go far apart, or `log` asks for it."""
        numbers = sorted({x for x in xs if not isinstance(x, str)})
        names = sorted({x for x in xs if isinstance(x, str)}, key=by_number)
        if not numbers:
            return cls({name: float(i) for i, name in enumerate(names)}, log=False)
        least, greatest = numbers[0], numbers[-1]
        log = least > 0 and (log or greatest / least >= _WIDE)
        gaps = max(1, len(numbers) - 1)
        if log:
            factor = (greatest / least) ** (1 / gaps) if greatest > least else 3.0
            behind = [greatest * factor ** (i + 1) for i in range(len(names))]
        else:
            gap = (greatest - least) / gaps or 1.0
            behind = [greatest + gap * (i + 1) for i in range(len(names))]
        return cls(dict(zip([*numbers, *names], [*numbers, *behind], strict=True)), log)

    def place(self, x: float | str) -> float:
        """On the axis."""
        return self.places[x]

    def set_ticks(self, axes: "Axes") -> None:
        """A tick at each setting; where there are too many numbers, wherever the axis has them."""
        if self.log:
            axes.set_xscale("log")
        if len(self.places) <= _MOST_TICKS:
            axes.set_xticks(list(self.places.values()), [_shown(x) for x in self.places])
            axes.minorticks_off()


def _shown(x: float | str) -> str:
    return x if isinstance(x, str) else f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"
