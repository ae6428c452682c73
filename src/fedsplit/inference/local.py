"""Devices that are processes of this machine, with nothing or a simulation between them and the server."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from typing_extensions import override

from fedsplit.inference.client_half import ClientHalf
from fedsplit.inference.device import Device, Footprint, Request
from fedsplit.inference.server_half import ServerHalf
from fedsplit.inference.subject import Batches
from fedsplit.network.network import Network, SimulatedNetwork

Wire: TypeAlias = Callable[[int, int], float]
"""Seconds of a request's journey there and back, of its bytes up and down."""


def wire(network: Network, seed: int) -> Wire:
    """Journeys of client 0, alone with the servers: one link for all precisions; no time unless simulated."""
    if not isinstance(network, SimulatedNetwork):
        return lambda up, down: 0.0
    device, servers = network.device(0, seed), network.servers
    up_rate, down_rate = min(device.up, servers.up), min(device.down, servers.down)
    return lambda up, down: 2 * device.latency + 8 * up / up_rate + 8 * down / down_rate


@dataclass(frozen=True)
class Answering:
    """Server half and samples in this process, which answer local devices.

    Args:
        batches: batches of samples that devices make requests with.
        wire: seconds of a request's journey.
    """

    server: ServerHalf
    batches: Batches
    wire: Wire


class LocalDevice(Device):
    """A process that runs the client half; its smashed data are handed to the server half as they are."""

    def __init__(self, number: int, precision: str, half: ClientHalf, answering: Answering) -> None:
        self.number, self.precision = number, precision
        self._half, self._answering = half, answering
        self.footprint = Footprint(half.file_bytes, half.memory_before)

    @override
    def request(self, number: int, batch: int, *, warm_up: bool) -> Request:
        batches = self._answering.batches
        x, labels = batches[batch]
        ran = self._half.run(x)
        message = batches.codes().encode(ran.smashed, batches.objective.lengths(labels))
        answered = self._answering.server.answer(message)
        measured = batches.measure(answered.logits, labels)
        return Request(
            device=self.number,
            precision=self.precision,
            number=number,
            warm_up=warm_up,
            samples=len(x),
            terms=measured.terms,
            correct=int(measured.hits or 0),
            client_seconds=ran.seconds,
            server_seconds=answered.seconds,
            wire_seconds=self._answering.wire(len(message.payload), answered.size),
            bytes_up=len(message.payload),
            bytes_down=answered.size,
            peak_memory=ran.peak_memory,
            logits_crc32=answered.checksum,
        )


@contextmanager
def local_devices(halves: Mapping[str, ClientHalf], answering: Answering) -> Iterator[list[Device]]:
    """Start a device for each precision, each a fresh process; `RunFailed` where a process ended."""
    with ExitStack() as processes:
        yield [
            LocalDevice(number, precision, processes.enter_context(half), answering)
            for number, (precision, half) in enumerate(halves.items())
        ]
