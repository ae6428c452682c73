"""Which worker computes which clients."""

from collections import Counter
from collections.abc import Mapping, Sequence

_UNEVEN = 1.3
"""Share of the mean load up to which a worker keeps those that it has computed before."""


def place(
    units: Sequence[Sequence[int]],
    costs: Sequence[float],
    before: Mapping[int, int],
    workers: Sequence[int],
) -> list[int]:
    """The worker of each unit, all of whose clients are computed together.

    A unit goes to the worker that holds the state of most of its clients, unless that has far more to do
    than others; then, as all others do, the largest first, to the worker that has least to do.

    Args:
        units: clients of each unit.
        costs: cost of each unit.
        before: worker that holds the state of a client, where one does.
        workers: numbers of the workers that are there.
    """
    load = dict.fromkeys(workers, 0.0)
    most = max(_UNEVEN * sum(costs) / len(workers), max(costs, default=0.0))
    placement: dict[int, int] = {}
    for unit in sorted(range(len(units)), key=lambda unit: -costs[unit]):
        state_counts = Counter(before[client] for client in units[unit] if before.get(client) in load)
        if state_counts and load[(worker := state_counts.most_common(1)[0][0])] + costs[unit] <= most:
            placement[unit] = worker
            load[worker] += costs[unit]
    for unit in sorted(range(len(units)), key=lambda unit: -costs[unit]):
        if unit not in placement:
            placement[unit] = min(workers, key=lambda worker: (load[worker], worker))
            load[placement[unit]] += costs[unit]
    return [placement[unit] for unit in range(len(units))]
