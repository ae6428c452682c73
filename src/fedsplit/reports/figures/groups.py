"""Runs that differ only in their seed, as one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fedsplit.errors import UserError
from fedsplit.reports.figures.style import algorithm_looks
from fedsplit.reports.labels import first_piece, label_runs
from fedsplit.reports.runs import Run, Setting


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Args:
        hue: value that its colour and marker stand for: the beginning of `label`.
        setting: the rest of `label`; may be empty.
        runs: runs by seed.
    """

    label: str
    hue: str
    setting: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs in ascending order."""
        return tuple(run.seed for run in self.runs)


def over_seeds(runs: Sequence[Run], by: str = "algorithm", apart: Sequence[str] = ()) -> list[Group]:
    """Runs in groups that differ in nothing but their seed and what is at or below the keys `apart`.

    Args:
        runs: runs, one of each setting and seed (see `without_repeats`).
        by: the group or dotted key that colours stand for.
        apart: keys in which runs of a group may differ.

    Returns:
        Groups in the order of their legend: algorithms as they always are, all else by name and number.

    Raises:
        UserError: no run has what colours should stand for.
    """
    if runs and not any(run.names_at(by) for run in runs):
        raise UserError("by", by, "must be a group or a dotted key of config.yaml that one of the runs has")
    by_setting: dict[Setting, list[Run]] = {}
    for run in label_runs(runs, by, apart):
        by_setting.setdefault(run.setting_beside(apart), []).append(run)
    return sorted((_group(found, by) for found in by_setting.values()), key=_order)


def count_noun(number: int, noun: str) -> str:
    """A number with its noun, as `1 seed` or `2 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_seeds(seeds: Sequence[Sequence[int]], what: str = "Mean and range") -> str | None:
    """Number of seeds behind means, in words; None where nothing has more than one seed."""
    counts = {len(each) for each in seeds}
    if counts <= {1}:
        return None
    return f"{what} of {count_noun(counts.pop(), 'seed') if len(counts) == 1 else 'seeds'}"


def by_number(text: str) -> list[tuple[float, str]]:
    """A sort key by which 2 comes before 10, and 0.1 before 0.3."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def numbers_first(value: float | str) -> tuple[bool, float, list[tuple[float, str]]]:
    """A sort key of settings: numbers in ascending order, then names."""
    return (True, 0.0, by_number(value)) if isinstance(value, str) else (False, value, [])


def _group(runs: Sequence[Run], by: str) -> Group:
    hue = first_piece(runs[0], by)
    label = runs[0].label
    setting = label.removeprefix(hue).removeprefix(", ")
    return Group(label, hue, setting, tuple(sorted(runs, key=lambda run: run.seed)))


def _order(group: Group) -> tuple[int, list[tuple[float, str]], list[tuple[float, str]]]:
    known = list(algorithm_looks())
    place = known.index(group.hue) if group.hue in known else len(known)
    return place, by_number(group.hue), by_number(group.setting)
