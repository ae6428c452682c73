"""What a machine can do in a second."""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class SimulatedDevice:
    """A client, or the servers taken together.

    Args:
        up: bits a second from clients to servers that its link carries; infinite where nothing limits it.
        down: bits a second from servers to clients, likewise.
        speed: multiply-adds a second, likewise.
        latency: seconds that a bit is on its way, one way.
    """

    up: float = inf
    down: float = inf
    speed: float = inf
    latency: float = 0.0
