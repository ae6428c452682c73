import statistics
from dataclasses import replace

import numpy as np
import pytest

from fedsplit.inference.device import COLUMNS, Device, Footprint, Request, Turns
from fedsplit.inference.local import wire
from fedsplit.inference.summary import Summary, summary_table
from fedsplit.network.network import Network, SimulatedNetwork

ONE = Request(
    device=0,
    precision="fp32",
    number=0,
    warm_up=False,
    samples=8,
    terms=8,
    correct=6,
    client_seconds=0.1,
    server_seconds=0.01,
    wire_seconds=0.0,
    bytes_up=8000,
    bytes_down=320,
    peak_memory=10**8,
    logits_crc32=0xAB,
)
FREE = Network(cost_per_mb=None)
TIMES = [0.3, 0.1, 0.2, 0.7]


def requests(precision: str, factor: float) -> list[Request]:
    warm = replace(
        ONE, precision=precision, warm_up=True, client_seconds=99.0, correct=0, peak_memory=3 * 10**8
    )
    counted = [
        replace(ONE, precision=precision, number=number, client_seconds=factor * each, correct=6 + number % 2)
        for number, each in enumerate(TIMES, 1)
    ]
    return [warm, *counted]


def test_summary_counts_warm_up_requests_for_memory_alone() -> None:
    summary = Summary.of("fp32", requests("fp32", 1.0), [Footprint(5000, 7 * 10**7)], FREE)
    assert (summary.requests, summary.samples, summary.peak_memory) == (4, 32, 3 * 10**8)
    assert summary.accuracy == 26 / 32
    client = summary.seconds["client"]
    assert client.mean == pytest.approx(statistics.mean(TIMES))
    assert client.std == pytest.approx(statistics.stdev(TIMES))
    assert client.median == pytest.approx(0.25)
    assert client.p95 == pytest.approx(np.percentile(TIMES, 95))
    assert summary.seconds["total"].median == pytest.approx(0.26)


def test_summary_ratios_are_to_the_first_precision_and_empty_where_it_took_nothing() -> None:
    first = Summary.of("fp32", requests("fp32", 1.0), [Footprint(5000, 0)], FREE)
    second = Summary.of("int8", requests("int8", 0.5), [Footprint(1300, 0)], FREE)
    row = second.plain(first)
    assert row["ratio.seconds.client"] == pytest.approx(0.5)
    assert row["ratio.seconds.wire"] is None
    assert row["ratio.file_bytes"] == 0.26
    assert first.plain(first)["ratio.bytes.up"] == 1.0
    assert summary_table([first, second], 8).row_count == 2


def test_summary_of_one_request_has_no_standard_deviation() -> None:
    summary = Summary.of("fp32", [ONE], [Footprint(5000, 0)], FREE)
    assert summary.seconds["client"].std is None


def test_summary_costs_money_for_bytes_up_and_down() -> None:
    summary = Summary.of("fp32", [ONE], [Footprint(5000, 0)], Network(cost_per_mb=3.0))
    assert summary.cost_per_1000 == pytest.approx(3.0 * (8000 + 320) / 8 * 1000 / 1e6)


def test_simulated_wire_takes_latency_twice_and_the_bits_of_both_ways() -> None:
    assert wire(FREE, 0)(1000, 1000) == 0.0
    slow = SimulatedNetwork(
        up_mbps=2,
        down_mbps=10,
        latency_s=0.05,
        client_gmacs=None,
        server_up_mbps=1,
        server_down_mbps=None,
        server_gmacs=None,
        cost_per_mb=None,
    )
    assert wire(slow, 0)(125_000, 25_000) == pytest.approx(0.1 + 1.0 + 0.02)


def test_request_row_has_a_value_for_every_column() -> None:
    row = dict(zip(COLUMNS, ONE.row(), strict=True))
    assert row["seconds.total"] == pytest.approx(0.11)
    assert row["logits_crc32"] == "000000ab"


class Counting(Device):
    def __init__(self, number: int, seen: list[tuple[int, int, int, bool]]) -> None:
        self.number, self.seen = number, seen

    def request(self, number: int, batch: int, *, warm_up: bool) -> Request:
        self.seen.append((self.number, number, batch, warm_up))
        return ONE


def test_devices_take_turns_and_counted_requests_begin_with_the_first_images() -> None:
    seen: list[tuple[int, int, int, bool]] = []
    done = Turns(warm_up=2, requests=2).of([Counting(0, seen), Counting(1, seen)])
    assert len(done) == 8
    assert [each[0] for each in seen] == [0, 1] * 4
    assert [each[1:] for each in seen[::2]] == [(0, 0, True), (1, 1, True), (2, 0, False), (3, 1, False)]
