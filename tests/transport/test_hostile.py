"""Neither end is harmed by what the other sends; see `invariants`."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.transport.invariants import INVARIANTS, World

TRIED = ("none", "mixed")
EXAMPLES = 15


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    """One for each of `TRIED`."""
    return {quant: World(quant, tmp_path_factory.mktemp(quant)) for quant in TRIED}


@pytest.mark.parametrize("quant", TRIED)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariant(name: str, quant: str, worlds: dict[str, World]) -> None:
    holds, drawn, share = INVARIANTS[name]
    world = worlds[quant]

    @settings(
        max_examples=share * EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn(world))
    def check(case: tuple[Any, ...]) -> None:
        holds(world, *case)

    check()
