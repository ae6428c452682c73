"""What runs have in common, and in what they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsplit.reports.figures.groups import by_number
from fedsplit.reports.runs import Run


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
        shared: what all have, by key.
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
    """Whether each choice of the group has its own value of the key, and no value two choices."""
    pairs = {(settings.get(group), settings.get(key)) for settings in described}
    return len(pairs) == len({choice for choice, _ in pairs}) == len({value for _, value in pairs})
