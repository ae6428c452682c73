"""Which cases of a crossed test run every time, and which only in `make test-long`.

Most faults show with one or two settings. So a test of several parameters is written as the whole cross, and
`@pytest.mark.cover(2)` lets every run take as many of its cases as it needs to see all pairs of values.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

import pytest

Case: TypeAlias = Mapping[str, int]
"""A number for each parameter's value."""


def covering(cases: Sequence[Case], together: int) -> list[int]:
    """Numbers of the cases that show every combination of `together` parameters' values that any case shows.

    Greedy: each time the first case that adds most.
    """
    shown = [_combinations(case, together) for case in cases]
    missing = set().union(*shown)
    kept = []
    while missing:
        best = max(range(len(cases)), key=lambda number: len(shown[number] & missing))
        missing -= shown[best]
        kept.append(best)
    return sorted(kept)


def _combinations(case: Case, together: int) -> set[tuple[tuple[str, int], ...]]:
    values = sorted(case.items())
    return set(combinations(values, min(together, len(values))))


def mark_long(items: Iterable[pytest.Item]) -> None:
    """Mark as `long` what is beyond the cover that a test's mark `cover(together)` asks for."""
    cases: dict[tuple[str, int], list[pytest.Function]] = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker("cover")
        if mark is not None and isinstance(item, pytest.Function) and item.get_closest_marker("long") is None:
            cases[item.nodeid.partition("[")[0], mark.args[0]].append(item)
    for (_, together), group in cases.items():
        # stacked parameters share their values' objects, so that identity tells one value from another
        kept = covering([{k: id(v) for k, v in item.callspec.params.items()} for item in group], together)
        for number, item in enumerate(group):
            if number not in kept:
                item.add_marker(pytest.mark.long)


def long_but(kept: Container[Any] | Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """Cases, a tuple where they are of several parameters; `long` but those named, or told by a function."""
    keep = kept if callable(kept) else kept.__contains__
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=() if keep(case) else pytest.mark.long
        )
        for case in cases
    ]
