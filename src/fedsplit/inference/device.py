"""Requests of a server to devices, and their costs, as `requests.csv` tells them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from fedsplit.machine.progress import track


@dataclass(frozen=True, kw_only=True)
class Request:
    """One batch of samples, from inputs to logits.

    Args:
        device: number of the device that asked.
        number: counted from 0 at each device, warm-up included.
        warm_up: True if the request is not counted.
        terms: number of terms that may be right: samples, or target tokens.
        correct: terms whose largest logit is that of their label.
        client_seconds: seconds that the client half took, in the process that runs nothing else.
        server_seconds: seconds that decoding the smashed data and the server half took.
        wire_seconds: seconds of the rest of the journey there and back.
        bytes_up: bytes of payload, smashed data.
        bytes_down: bytes of payload, logits.
        peak_memory: the most bytes that the process of the client half has held so far.
    """

    device: int
    precision: str
    number: int
    warm_up: bool
    samples: int
    terms: int
    correct: int
    client_seconds: float
    server_seconds: float
    wire_seconds: float
    bytes_up: int
    bytes_down: int
    peak_memory: int
    logits_crc32: int

    @property
    def total_seconds(self) -> float:
        """Seconds from inputs to logits."""
        return self.client_seconds + self.wire_seconds + self.server_seconds

    def row(self) -> Sequence[object]:
        """Values of a line of `requests.csv`, in the order of `COLUMNS`."""
        return (
            *(self.device, self.precision, self.number, int(self.warm_up), self.samples, self.correct),
            *(self.client_seconds, self.server_seconds, self.wire_seconds, self.total_seconds),
            *(self.bytes_up, self.bytes_down, self.peak_memory, f"{self.logits_crc32:08x}"),
        )


COLUMNS = (
    *("device", "precision", "request", "warm_up", "samples", "correct"),
    *("seconds.client", "seconds.server", "seconds.wire", "seconds.total"),
    *("bytes.up", "bytes.down", "peak_memory_bytes", "logits_crc32"),
)
"""Columns of `requests.csv`, in the order of the file."""


@dataclass(frozen=True)
class Footprint:
    """Memory of a deployed client half: bytes of its file, and the most of its process before loading."""

    file_bytes: int
    memory_before: int


class Device(ABC):
    """A device with its client half, of one precision."""

    number: int
    """Number of the device, counted from 0."""
    precision: str
    """Name of the precision of its client half."""
    footprint: Footprint

    @abstractmethod
    def request(self, number: int, batch: int, *, warm_up: bool) -> Request:
        """Let the device make a request, and answer it.

        Args:
            batch: number of the batch, see `Batches`.

        Raises:
            RunFailed: the device cannot, or is gone for good.
        """


@dataclass(frozen=True)
class Turns:
    """Number of requests that each device makes.

    Args:
        warm_up: number of requests that are not counted, at first.
        requests: number of requests that are counted.
    """

    warm_up: int
    requests: int

    def of(self, devices: list[Device]) -> list[Request]:
        """All requests, one device after the other, again and again.

        What else the machines do then meets all precisions alike, and no device waits for another's request.
        """
        done = []
        for number in track(range(self.warm_up + self.requests), "requests"):
            warm_up = number < self.warm_up
            batch = number if warm_up else number - self.warm_up
            done += [device.request(number, batch, warm_up=warm_up) for device in devices]
        return done
