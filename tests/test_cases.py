"""What every run takes of crossed cases."""

from itertools import combinations, product

import pytest

from tests.cases import covering


@pytest.mark.parametrize("together", [1, 2, 3])
def test_cover_shows_every_combination_of_values_with_few_cases(together: int) -> None:
    sizes = (5, 4, 3, 2)
    cases = [dict(zip("abcd", case, strict=True)) for case in product(*map(range, sizes))]
    kept = [cases[number] for number in covering(cases, together)]
    for names in combinations("abcd", together):
        every = {tuple(case[name] for name in names) for case in cases}
        assert {tuple(case[name] for name in names) for case in kept} == every
    assert len(kept) <= {1: 5, 2: 24, 3: 72}[together] < len(cases)


def test_cover_of_cases_that_are_no_whole_cross_shows_what_they_show() -> None:
    cases = [{"a": 0, "b": 0}, {"a": 1, "b": 0}, {"a": 1, "b": 1}]
    assert covering(cases, 2) == [0, 1, 2]
    assert covering(cases, 1) == [0, 2]
