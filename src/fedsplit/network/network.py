"""The network of a run: what it costs, and what its machines can do."""

from dataclasses import dataclass
from math import inf

from fedsplit.config.values import NonNegativeFloat, Rate, Spread, SpreadFromZero
from fedsplit.network.device import SimulatedDevice
from fedsplit.network.spread import drawn


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network without a clock.

    Args:
        cost_per_mb: money for each MB (10^6 bytes), up or down; None counts none.
    """

    cost_per_mb: NonNegativeFloat | None

    def cost(self, load: float) -> float | None:
        """Money for a communication load in bytes; None where there is no price."""
        return None if self.cost_per_mb is None else load / 1e6 * self.cost_per_mb


@dataclass(frozen=True, kw_only=True)
class SimulatedNetwork(Network):
    """A network on which rounds take simulated seconds. None stands for what nothing limits.

    Args:
        up_mbps: of a client, Mbit/s from it to the servers.
        down_mbps: of a client, Mbit/s from the servers to it.
        latency_s: of a client, seconds one way.
        client_gmacs: of a client, 10^9 multiply-adds a second.
        server_up_mbps: Mbit/s that the servers take in from all clients together.
        server_down_mbps: Mbit/s that the servers send to all clients together.
        server_gmacs: of the split server, 10^9 multiply-adds a second.
    """

    up_mbps: Spread | None
    down_mbps: Spread | None
    latency_s: SpreadFromZero
    client_gmacs: Spread | None
    server_up_mbps: Rate | None
    server_down_mbps: Rate | None
    server_gmacs: Rate | None

    def device(self, client: int, seed: int) -> SimulatedDevice:
        """A client's, the same in every round of a run with this seed."""

        def of_client(what: str, spread: Spread | None, unit: float) -> float:
            return inf if spread is None else drawn(spread, seed, what, client) * unit

        return SimulatedDevice(
            up=of_client("upload bandwidth", self.up_mbps, 1e6),
            down=of_client("download bandwidth", self.down_mbps, 1e6),
            speed=of_client("speed", self.client_gmacs, 1e9),
            latency=of_client("latency", self.latency_s, 1.0),
        )

    @property
    def servers(self) -> SimulatedDevice:
        """The servers'."""
        return SimulatedDevice(
            up=_limit(self.server_up_mbps, 1e6),
            down=_limit(self.server_down_mbps, 1e6),
            speed=_limit(self.server_gmacs, 1e9),
        )


def _limit(value: float | None, unit: float) -> float:
    return inf if value is None else value * unit
