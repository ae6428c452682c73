import json
from itertools import product
from math import inf, log10

import pytest

from fedsplit.recording.ledger import DIRECTIONS, KINDS, Direction, Kind, Ledger, Traffic

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
def test_ledger_counts_every_byte_where_it_went(messages: list[Message]) -> None:
    ledger = _counted(messages)
    for round, direction, kind in product((0, 1, 5), DIRECTIONS, KINDS):
        expected = sum(size for *where, size in messages if where == [round, direction, kind])
        assert ledger.of_round(round)[direction][kind] == expected
    assert ledger.load == sum(size for *_, size in messages)


def test_ledger_has_every_kind_at_zero_in_a_round_without_messages() -> None:
    ledger = Ledger()
    assert ledger.of_round(3) == {d: dict.fromkeys(KINDS, 0) for d in ("up", "down")}
    assert ledger.load == 0


def test_ledger_counts_sizes_beyond_32_bits_exactly() -> None:
    ledger = _counted([(0, "up", "full_weights", 2**53), (0, "up", "full_weights", 1)])
    assert ledger.load == 2**53 + 1


def test_ledger_kinds_are_those_that_cross_the_network() -> None:
    assert set(KINDS) == {
        "smashed",
        "labels",
        "cut_gradient",
        "client_weights",
        "auxiliary_weights",
        "full_weights",
        "control_variates",
        "seeds",
        "scalars",
    }
    assert DIRECTIONS == ("up", "down")


def test_ledger_goes_on_from_its_state_as_if_nothing_had_been() -> None:
    ledger, other = _counted(MESSAGES), _counted([(9, "up", "labels", 4)])
    other.load_state(json.loads(json.dumps(ledger.state())))
    assert other.state() == ledger.state()
    for each in (ledger, other):
        each.add(5, "down", "smashed", 3)
        each.add(6, "up", "labels", 2)
    assert other.load == ledger.load == sum(size for *_, size in MESSAGES) + 5
    assert other.of_round(5) == ledger.of_round(5)


def test_loaded_ledger_counts_for_itself() -> None:
    ledger, other = _counted(MESSAGES), Ledger()
    other.load_state(ledger.state())
    other.add(0, "up", "labels", 100)
    assert ledger.load == sum(size for *_, size in MESSAGES)
    assert other.load == ledger.load + 100


def test_traffic_bits_of_a_value_are_those_of_the_payload() -> None:
    assert Traffic(bytes=10, values=40).bits == 2.0
    assert Traffic(bytes=5, values=3).bits == 40 / 3
    assert Traffic(values=7).bits == 0.0
    assert Traffic().bits is None
    assert Traffic(bytes=5).bits is None


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [
        (100.0, 1.0, 20.0),
        (1.0, 100.0, -20.0),
        (3.0, 0.3, 10.0),
        (5.0, 5.0, 0.0),
        (1e-30, 1e-33, 30.0),
        (0.0, 0.0, inf),
        (5.0, 0.0, inf),
        (0.0, 1.0, -inf),
    ],
)
def test_traffic_sqnr_is_signal_to_noise_in_decibels(signal: float, noise: float, expected: float) -> None:
    assert Traffic(1, 1, signal, noise).sqnr == pytest.approx(expected)
    assert Traffic(1, 0, signal, noise).sqnr is None  # nothing was sent


def test_ledger_quality_of_a_round_is_that_of_its_messages_together() -> None:
    ledger = Ledger()
    ledger.add(2, "up", "smashed", 10, values=40, signal=3.0, noise=0.5)
    ledger.add(2, "up", "smashed", 20, values=20, signal=1.0, noise=1.5)
    ledger.add(2, "up", "smashed", 4, values=1)  # exact
    ledger.add(3, "up", "smashed", 4, values=1, signal=1.0, noise=1.0)
    ledger.add(2, "down", "smashed", 4, values=1, signal=1.0, noise=1.0)
    traffic = ledger.traffic(2)["up"]["smashed"]
    assert traffic == Traffic(34, 61, 4.0, 2.0)
    assert traffic.bits == pytest.approx(8 * 34 / 61)
    assert traffic.sqnr == pytest.approx(10 * log10(2))
    assert ledger.traffic(2)["up"]["labels"] == Traffic()
    assert ledger.of_round(2)["up"]["smashed"] == 34


def test_ledger_quality_goes_on_from_a_state_too() -> None:
    ledger, other = Ledger(), Ledger()
    ledger.add(0, "up", "smashed", 10, values=40, signal=0.1, noise=1e-17)
    other.load_state(json.loads(json.dumps(ledger.state())))
    for each in (ledger, other):
        each.add(0, "up", "smashed", 1, values=2, signal=1 / 3, noise=1e-3)
    assert other.traffic(0) == ledger.traffic(0)
    assert other.state() == ledger.state()


def test_broadcast_counts_once_in_the_load_and_once_for_each_client_in_what_it_takes_to_send() -> None:
    ledger, other = Ledger(keeps_messages=True), Ledger()
    ledger.add(1, "down", "cut_gradient", 12, clients=[4, 2, 7], step=3, broadcast=True)
    ledger.add(1, "down", "cut_gradient", 5, clients=[1], step=3, broadcast=True)
    assert (ledger.load, ledger.copies(1), ledger.copies(0)) == (17, 24, 0)
    assert ledger.pop_messages(1) == {
        (c, "down", "cut_gradient", 3): n for c, n in ((4, 12), (2, 12), (7, 12), (1, 5))
    }
    other.load_state(json.loads(json.dumps(ledger.state())))
    assert other.state() == ledger.state()
    assert other.copies(1) == 24
    other.abandon(1)  # all that was sent was sent for nothing
    assert (other.load, other.copies(1), other.repeated_bytes(1)["down"]) == (0, 0, 17 + 24)


def test_ledger_keeps_messages_by_client_and_step_until_they_are_taken() -> None:
    ledger = Ledger(keeps_messages=True)
    ledger.add(1, "up", "smashed", 12, clients=[4, 2], step=3)  # 6 bytes each
    ledger.add(1, "down", "client_weights", 10, clients=[2])
    ledger.add(1, "down", "client_weights", 5, clients=[2])  # a second tensor
    ledger.add(2, "up", "labels", 1, clients=[0])
    assert list(ledger.pop_messages(1).items()) == [
        ((4, "up", "smashed", 3), 6),
        ((2, "up", "smashed", 3), 6),
        ((2, "down", "client_weights", 0), 15),
    ]
    assert ledger.pop_messages(1) == {}
    ledger.abandon(2)
    assert ledger.pop_messages(2) == {}
    assert ledger.load == 27


def test_ledger_keeps_messages_only_where_they_are_asked_for() -> None:
    ledger = Ledger()
    ledger.add(1, "up", "smashed", 12, clients=[4, 2], step=3)
    assert ledger.pop_messages(1) == {}
    assert ledger.load == 12


def test_ledger_keeps_what_failures_cost_over_a_resume() -> None:
    ledger = _counted([(0, "up", "smashed", 5), (1, "down", "client_weights", 7)])
    ledger.add_again(0, "up", 3)
    ledger.add_again(1, "down", 11)
    resumed = Ledger()
    resumed.load_state(json.loads(json.dumps(ledger.state())))
    assert [resumed.repeated_bytes(t) for t in (0, 1)] == [{"up": 3, "down": 0}, {"up": 0, "down": 11}]
    assert resumed.load == 12


def test_ledger_counts_a_round_that_is_begun_again_as_sent_for_nothing() -> None:
    ledger = _counted([(0, "up", "smashed", 5), (0, "up", "labels", 2), (0, "down", "client_weights", 7)])
    ledger.add_again(0, "up", 3)
    ledger.abandon(0)
    assert ledger.load == 0
    assert ledger.repeated_bytes(0) == {"up": 3 + 5 + 2, "down": 7}


def test_ledger_keeps_what_a_round_without_traffic_sent_again_over_a_resume() -> None:
    ledger = _counted([(0, "up", "smashed", 5)])
    ledger.add(1, "up", "labels", 3)
    ledger.abandon(1)
    resumed = Ledger()
    resumed.load_state(json.loads(json.dumps(ledger.state())))
    assert resumed.repeated_bytes(1) == {"up": 3, "down": 0}
    assert resumed.load == ledger.load == 5
