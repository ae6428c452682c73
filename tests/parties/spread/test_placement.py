"""Units go where their clients' states are, unless that is uneven; and evenly where nobody has them."""

from hypothesis import given
from hypothesis import strategies as st

from fedsplit.parties.spread.placement import place


def loads(placed: list[int], costs: list[float], workers: list[int]) -> list[float]:
    return [
        sum(cost for home, cost in zip(placed, costs, strict=True) if home == worker) for worker in workers
    ]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 5), st.data())
def test_no_worker_has_more_than_its_share_and_a_largest_unit(
    costs: list[int], count: int, data: st.DataObject
) -> None:
    workers = [2 * n for n in range(count)]
    units = [[2 * n, 2 * n + 1] for n in range(len(costs))]
    before = {client: data.draw(st.integers(0, 9)) for unit in units for client in unit}
    placed = place(units, list(map(float, costs)), before, workers)
    assert set(placed) <= set(workers)
    assert max(loads(placed, costs, workers)) <= 1.3 * sum(costs) / count + max(costs)
    assert placed == place(units, list(map(float, costs)), before, workers)


def test_unit_stays_with_the_worker_that_holds_most_of_its_clients() -> None:
    assert place([[0, 1, 2], [3, 4, 5]], [1.0, 1.0], {0: 7, 1: 7, 2: 5, 3: 5, 4: 5}, [5, 7]) == [7, 5]


def test_units_leave_a_worker_that_would_compute_nearly_all_of_them() -> None:
    placed = place([[n] for n in range(4)], [1.0] * 4, dict.fromkeys(range(4), 0), [0, 1])
    assert sorted(placed) == [0, 0, 1, 1]


def test_units_of_nobody_are_dealt_out_evenly_whatever_their_order() -> None:
    costs = [4.0, 1.0, 1.0, 2.0]
    assert loads(place([[n] for n in range(4)], costs, {}, [0, 1]), costs, [0, 1]) == [4.0, 4.0]
