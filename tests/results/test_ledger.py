import json
from itertools import product

import pytest

from fedsplit.results.ledger import DIRECTIONS, KINDS, Direction, Kind, Ledger

Message = tuple[int, Direction, Kind, int]
MESSAGES: list[Message] = [
    (round, direction, kind, 2 ** (3 * round) + 7 * number)
    for number, (round, direction, kind) in enumerate(product((0, 1, 5), DIRECTIONS, KINDS))
    if number % 4
]


def _counted(messages: list[Message]) -> Ledger:
    ledger = Ledger()
    for message in messages:
        ledger.add(*message)
    return ledger


@pytest.mark.parametrize("messages", [MESSAGES, MESSAGES[::-1], MESSAGES * 2, MESSAGES[:3], []])
def test_every_byte_is_counted_where_it_went(messages: list[Message]) -> None:
    ledger = _counted(messages)
    for round, direction, kind in product((0, 1, 5), DIRECTIONS, KINDS):
        expected = sum(size for *where, size in messages if where == [round, direction, kind])
        assert ledger.of_round(round)[direction][kind] == expected
    assert ledger.load == sum(size for *_, size in messages)


def test_a_round_without_messages_has_every_kind_at_zero() -> None:
    ledger = Ledger()
    assert ledger.of_round(3) == {d: dict.fromkeys(KINDS, 0) for d in ("up", "down")}
    assert ledger.load == 0


def test_sizes_beyond_32_bits_are_exact() -> None:
    ledger = _counted([(0, "up", "full_weights", 2**53), (0, "up", "full_weights", 1)])
    assert ledger.load == 2**53 + 1


def test_the_kinds_are_those_that_cross_the_network() -> None:
    assert set(KINDS) == {
        "smashed",
        "labels",
        "cut_gradient",
        "client_weights",
        "auxiliary_weights",
        "full_weights",
    }
    assert DIRECTIONS == ("up", "down")


def test_a_ledger_goes_on_from_its_state_as_if_nothing_had_been() -> None:
    ledger, other = _counted(MESSAGES), _counted([(9, "up", "labels", 4)])
    other.load_state(json.loads(json.dumps(ledger.state())))
    assert other.state() == ledger.state()
    for each in (ledger, other):
        each.add(5, "down", "smashed", 3)
        each.add(6, "up", "labels", 2)
    assert other.load == ledger.load == sum(size for *_, size in MESSAGES) + 5
    assert other.of_round(5) == ledger.of_round(5)


def test_a_loaded_ledger_counts_for_itself() -> None:
    ledger, other = _counted(MESSAGES), Ledger()
    other.load_state(ledger.state())
    other.add(0, "up", "labels", 100)
    assert ledger.load == sum(size for *_, size in MESSAGES)
    assert other.load == ledger.load + 100
