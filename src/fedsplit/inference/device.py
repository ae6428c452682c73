"""What the server asks of a device, over whatever wire."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fedsplit.inference.request import Request


@dataclass(frozen=True)
class Footprint:
    """What a deployed client half takes where it runs.

    Args:
        memory_before: the most bytes that its process held before it was loaded.
    """

    file_bytes: int
    memory_before: int


class Device(ABC):
    """A device with its client half, of one precision."""

    number: int
    """Counted from 0."""
    precision: str
    """Of its client half, by name."""
    footprint: Footprint

    @abstractmethod
    def request(self, number: int, batch: int, *, warm_up: bool) -> Request:
        """Let the device make a request, and answer it.

        Args:
            batch: of its images, see `Batches`.

        Raises:
            RunFailed: the device cannot, or is gone for good.
        """


@dataclass(frozen=True)
class Turns:
    """How many requests each device makes.

    Args:
        warm_up: that count for nothing, first.
        requests: that count.
    """

    warm_up: int
    requests: int

    def of(self, devices: list[Device]) -> list[Request]:
        """All requests, one device after the other, again and again.

        What else the machines do then meets all precisions alike, and no device waits for another's request.
        """
        done = []
        for number in range(self.warm_up + self.requests):
            warm_up = number < self.warm_up
            batch = number if warm_up else number - self.warm_up
            done += [device.request(number, batch, warm_up=warm_up) for device in devices]
        return done
