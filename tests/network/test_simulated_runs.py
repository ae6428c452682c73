"""Whole runs on a simulated network, against a second simulation that lays out all of it itself."""

import math
from collections.abc import Iterator
from itertools import product

import pytest

from fedsplit.errors import UserError
from fedsplit.network.network import SimulatedDevice
from fedsplit.recording.ledger import DIRECTIONS, KINDS, Messages
from fedsplit.training.experiment import Experiment
from tests.conftest import ALGORITHMS, Build, Configure

NETWORK = (
    "network=custom",
    "network.up_mbps=[lognormal, 2, 0.5]",
    "network.down_mbps=[uniform, 3, 6]",
    "network.latency_s=0.03",
    "network.client_gmacs=[lognormal, 0.02, 0.5]",
    "network.server_gmacs=0.05",
)
SERVER = 0.05e9
Z, A = 4 * 256, 4 * (256 * 10 + 10)
C, S = 4 * (8 * 9 + 8 + 16 * 8 * 9 + 16), 4 * (256 * 64 + 64 + 64 * 10 + 10)
CLIENT_WORK = 64 * 9 * 8 + 64 * 9 * 8 * 16  # two convolutions of 8x8 images
SERVER_WORK = 256 * 64 + 64 * 10
AUXILIARY_WORK = 256 * 10


def batch_sizes(samples: int, batch: int, epochs: int) -> list[int]:
    sizes = [batch] * (samples // batch) + ([samples % batch] if samples % batch else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes * epochs


class Laid:
    """What a client of a round does, in seconds of its own device."""

    def __init__(self, device: SimulatedDevice, batches: list[int]) -> None:
        self.device, self.batches = device, batches

    def up(self, size: int) -> float:
        return 8 * size / self.device.up

    def down(self, size: int) -> float:
        return self.device.latency + 8 * size / self.device.down

    def work(self, multiply_adds: int) -> float:
        return multiply_adds / self.device.speed

    def trips(self, speed: float) -> float:
        total = 0.0
        for b in self.batches:
            total += 3 * self.work(b * CLIENT_WORK) + 3 * b * SERVER_WORK / speed
            total += self.up(b * (Z + 1)) + self.down(b * Z) + self.device.latency
        return total

    def training(self, start: float, step: int, q: int, *, skip: bool) -> Iterator[tuple[float, int]]:
        """Uploads as (arrival, samples); last (arrival of the link's last bit or end of training, 0)."""
        sent = start
        for k, b in enumerate(self.batches):
            if k % q == 0 and not (k == 0 and skip):
                leaves = start + self.work(sum(self.batches[:k]) * step + b * CLIENT_WORK)
                sent = max(sent, leaves) + self.up(b * (Z + 1))
                yield sent + self.device.latency, b
        yield max(sent, start + self.work(sum(self.batches) * step)), 0


def queue(arrivals: list[tuple[float, int]], begin: float) -> float:
    """By the busy period that ends last: it begins with an arrival, or with the server."""
    arrivals = sorted(arrivals)
    starts = [(begin, 0), *((max(begin, at), i) for i, (at, _) in enumerate(arrivals))]
    return max(at + sum(3 * b * SERVER_WORK / SERVER for _, b in arrivals[i:]) for at, i in starts)


def expected_seconds(run: Experiment, t: int, aligning: list[int], ring: dict[int, int]) -> float:
    """Seconds of a round, from the configuration alone."""
    config = run.config
    name = config.choices["algorithm"]
    q = config.algorithm.arguments.get("server_update_interval", 1)
    clients = {
        client: Laid(
            run.parts.network.device(client, 0),  # type: ignore[attr-defined]
            batch_sizes(
                len(run.parts.data.shards[client]), config.training.batch_size, config.training.local_epochs
            ),
        )
        for client in run.parts.cohort_of(t)
    }
    if name == "fed_avg":
        return max(
            each.down(C + S)
            + 3 * each.work(sum(each.batches) * (CLIENT_WORK + SERVER_WORK))
            # what comes down goes up
            + each.up(C + S)
            + each.device.latency
            for each in clients.values()
        )
    if name == "splitfed_v1":
        return max(
            each.down(C) + each.trips(SERVER / len(clients)) + each.up(C) + each.device.latency
            for each in clients.values()
        )
    if name == "splitfed_v2":
        order = list({client: 0 for client, _, kind, _ in run.seen if kind == "smashed"})  # type: ignore[attr-defined]
        begins = [
            max(
                clients[late].down(C) + sum(clients[client].trips(SERVER) for client in order[i:j])
                for i, late in enumerate(order[: j + 1])
            )
            for j in range(len(order))
        ]
        return max(
            begin + clients[client].trips(SERVER) + clients[client].up(C) + clients[client].device.latency
            for begin, client in zip(begins, order, strict=True)
        )
    own, step, begin, starts = C, 3 * CLIENT_WORK + 2 * AUXILIARY_WORK, 0.0, {}
    if name == "cse_fsl":
        own, step = C + A, 3 * (CLIENT_WORK + AUXILIARY_WORK)
    for client, each in clients.items():
        starts[client] = each.down(own)
    if aligning:
        first = []
        for client in aligning:
            each = clients[client]
            b = each.batches[0]
            leaves = starts[client] + each.work(b * CLIENT_WORK)
            first.append((leaves + each.up(b * (Z + 1)) + each.device.latency, b))
        work = sum(ring[client] * (2 * SERVER_WORK + 4 * 3 * 2 * AUXILIARY_WORK) for client in aligning)
        begin = queue(first, 0.0) + work / SERVER
        starts |= {client: begin + clients[client].down(A) for client in aligning}
    arrivals, ends = [], []
    for client, each in clients.items():
        *uploads, (done, _) = each.training(starts[client], step, q, skip=client in aligning)
        arrivals += uploads
        ends.append(done + each.up(own) + each.device.latency)
    return max(queue(arrivals, begin), *ends)


@pytest.mark.cover(1)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "overrides",
    [[], ["cohort_size=2", "local_epochs=2"], ["distribution=dirichlet", "distribution.alpha=0.3"]],
    ids=["all", "cohort, epochs", "ragged"],
)
def test_simulated_seconds_of_every_round_are_those_worked_out_from_the_configuration(
    tiny: Build, algorithm: str, overrides: list[str]
) -> None:
    if algorithm in ("cse_fsl", "fsl_sage"):
        overrides = [*overrides, "algorithm.server_update_interval=3"]
    if algorithm == "fsl_sage":
        overrides = [*overrides, "algorithm.align_interval=2"]
    run = tiny(f"algorithm={algorithm}", *NETWORK, *overrides)
    keep_messages(run)
    last, ring, elapsed = dict.fromkeys(range(3), -math.inf), dict.fromkeys(range(3), 0), 0.0
    for t in range(4):
        record = run.run_round(t)
        run.records.append(record)
        cohort = list(run.parts.cohort_of(t))
        aligning = [c for c in cohort if t - last[c] >= 2] if algorithm == "fsl_sage" else []
        last |= dict.fromkeys(aligning, t)
        batches = {
            c: batch_sizes(
                len(run.parts.data.shards[c]),
                run.config.training.batch_size,
                run.config.training.local_epochs,
            )
            for c in cohort
        }
        for client in aligning:  # the first batch is stored before the alignment
            ring[client] = min(24, ring[client] + batches[client][0])
        elapsed += expected_seconds(run, t, aligning, ring)
        for client in cohort:
            ring[client] = min(24, ring[client] + sum(batches[client][3 if client in aligning else 0 :: 3]))
        assert record.simulated_seconds == pytest.approx(elapsed, rel=1e-9)


def keep_messages(run: Experiment) -> None:
    """Keep the messages of the last round as `run.seen`."""
    taken = run.ledger.pop_messages

    def watched(round: int) -> Messages:
        run.seen = taken(round)  # type: ignore[attr-defined]
        return run.seen  # type: ignore[attr-defined, no-any-return]

    run.ledger.pop_messages = watched  # type: ignore[method-assign]


@pytest.mark.cover(1)
@pytest.mark.parametrize(
    ("algorithm", "quant"), [*product(ALGORITHMS, ["none", "int8"]), ("fsl_sage", "thrifty")]
)
def test_messages_of_both_engines_are_equal_and_sum_to_the_bytes_of_the_ledger(
    tiny: Build, algorithm: str, quant: str
) -> None:
    sequential = tiny(f"algorithm={algorithm}", f"quant={quant}", "engine=sequential", *NETWORK)
    runs = [sequential]
    if algorithm != "splitfed_v2":
        runs.append(tiny(f"algorithm={algorithm}", f"quant={quant}", "engine=vectorized", *NETWORK))
    for t in range(2):
        records = []
        for run in runs:
            keep_messages(run)
            records.append(run.run_round(t))
            run.records.append(records[-1])
            counted = {d: dict.fromkeys(KINDS, 0) for d in DIRECTIONS}
            for (_, direction, kind, _), size in run.seen.items():  # type: ignore[attr-defined]
                counted[direction][kind] += size
            assert counted == records[-1].bytes
        if quant != "thrifty":  # whose sizes depend on values, which agree only closely
            assert len({record.simulated_seconds for record in records}) == 1
            assert all(run.seen == sequential.seen for run in runs)  # type: ignore[attr-defined]


def test_simulated_seconds_saved_by_a_codec_are_those_of_the_bytes_saved(tiny: Build) -> None:
    overrides = ["algorithm=fed_avg", "num_clients=1", "network=custom", "network.up_mbps=1"]
    exact, coded = (tiny(*overrides, f"quant={quant}").run_round(0) for quant in ("none", "int8"))
    assert exact.simulated_seconds is not None
    assert coded.simulated_seconds is not None
    saved = {d: exact.bytes[d]["full_weights"] - coded.bytes[d]["full_weights"] for d in DIRECTIONS}
    assert saved["up"] > 0 < saved["down"]
    expected = 8 * saved["up"] / 1e6 + 8 * saved["down"] / 10e6
    assert exact.simulated_seconds - coded.simulated_seconds == pytest.approx(expected)


def test_warm_start_round_takes_the_simulated_seconds_of_cse_fsl(tiny: Build) -> None:
    warm = tiny("algorithm.warm_start=1", *NETWORK).run_round(0)
    assert warm.simulated_seconds == tiny("algorithm=cse_fsl", *NETWORK).run_round(0).simulated_seconds


def test_alignment_ended_early_takes_the_simulated_seconds_of_its_epochs(tiny: Build) -> None:
    overrides = ["num_clients=1", "auxiliary.align_epochs=100", *NETWORK]
    early, whole = (tiny(*overrides, f"auxiliary.align_tolerance={t}") for t in (0.9, 0))
    seconds = [run.run_round(0).simulated_seconds for run in (early, whole)]
    assert [run.parts.alignment.fits[0].epochs for run in (early, whole)] == [21, 100]
    fitted = 79 * 8 * 3 * 2 * AUXILIARY_WORK / SERVER  # 79 epochs over the first batch
    assert seconds[1] - seconds[0] == pytest.approx(fitted)  # type: ignore[operator]


def test_run_without_a_network_keeps_no_messages_but_reports_its_cost(tiny: Build) -> None:
    run = tiny("network.cost_per_mb=0.25")
    record = run.run_round(0)
    assert record.simulated_seconds is None
    assert record.cost == record.load / 1e6 * 0.25
    assert run.ledger.pop_messages(0) == {}
    assert tiny().run_round(0).cost is None


def test_round_begun_again_counts_its_messages_once(tiny: Build) -> None:
    run = tiny(*NETWORK)
    run.ledger.add(0, "up", "smashed", 10**9, clients=[0], step=0)
    run.ledger.abandon(0)
    assert run.run_round(0).simulated_seconds == tiny(*NETWORK).run_round(0).simulated_seconds


def test_network_with_an_algorithm_without_a_timeline_is_refused(
    configured: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured("network=lte")
    monkeypatch.setattr("fedsplit.algorithms.fsl_sage.FslSage.timeline", None)
    with pytest.raises(UserError, match=r"^network=lte: must be none: FslSage has no timeline"):
        Experiment(config)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("network.up_mbps=-1", "network.up_mbps"),
        ("network.up_mbps=[uniform, 3, 1]", "network.up_mbps"),
        ("network.latency_s=null", "network.latency_s"),
        ("network.server_gmacs=[uniform, 1, 3]", "network.server_gmacs"),
        ("network.cost_per_mb=-0.1", "network.cost_per_mb"),
        ("+network.jitter_s=1", "network.jitter_s"),
    ],
)
def test_network_with_a_wrong_value_is_refused_with_the_configuration(
    configured: Configure, override: str, key: str
) -> None:
    with pytest.raises(UserError) as told:
        configured("network=custom", override)
    assert told.value.key == key
