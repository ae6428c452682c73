"""How much a figure can hold, and what it leaves out where runs ask for more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fedsplit.reports.figures.style import algorithm_looks, free_looks
from fedsplit.reports.figures.wording import telling

Series: TypeAlias = tuple[str, str]
"""What a series is told apart by: what its colour stands for, and its other settings (may be empty)."""


@dataclass(frozen=True)
class Limits:
    """What readers can tell apart in a figure.

    Args:
        series: in all.
        settings: beside what colours stand for, where there is more than one colour.
    """

    series: int
    settings: int


def keep_first(series: Sequence[Series], limits: Limits) -> set[Series]:
    """The series to draw: those that differ in the fewest settings first, then in the order of the legend."""
    distinct = list(dict.fromkeys(series))
    several = len({hue for hue, _ in distinct}) > 1
    chosen: list[Series] = []
    for hue, setting in sorted(distinct, key=lambda each: len(telling(each[1]))):  # stable
        hues = list(dict.fromkeys([*(each for each, _ in chosen), hue]))
        settings = {other for _, other in chosen} | {setting}
        if (
            len(chosen) < limits.series
            and _have_colours(hues)
            and not (several and len(settings) > limits.settings)
        ):
            chosen.append((hue, setting))
    return set(chosen)


def _have_colours(hues: Sequence[str]) -> bool:
    return sum(hue not in algorithm_looks() for hue in hues) <= len(free_looks(hues))
