"""The network of a run: what it costs, and what its machines can do, drawn for each where they differ."""

from dataclasses import dataclass
from math import exp, inf

import torch

from fedsplit.config.values import NonNegativeFloat, Rate, Spread, SpreadFromZero
from fedsplit.randomness import generator


def draw_quantity(spread: Spread, seed: int, what: str, client: int) -> float:
    """Draw the quantity of one client: a function of the seed, of what it is, and of the client.

    Args:
        spread: a number, `[uniform, low, high]`, or `[lognormal, median, sigma]` (its logarithm is normal
            with standard deviation `sigma`).
    """
    draw = generator(seed, f"{what} of a client's device", client=client)
    match spread:
        case ["uniform", low, high]:
            return float(low + (high - low) * torch.rand((), generator=draw, dtype=torch.float64).item())
        case ["lognormal", median, sigma]:
            return float(median * exp(sigma * torch.randn((), generator=draw, dtype=torch.float64).item()))
    return float(spread)


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
        up_mbps: rate of a client, Mbit/s from it to the servers.
        down_mbps: rate of a client, Mbit/s from the servers to it.
        latency_s: latency of a client, seconds one way.
        client_gmacs: speed of a client, 10^9 multiply-adds a second.
        server_up_mbps: Mbit/s that the servers take in from all clients together.
        server_down_mbps: Mbit/s that the servers send to all clients together.
        server_gmacs: speed of the split server, 10^9 multiply-adds a second.
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
            return inf if spread is None else draw_quantity(spread, seed, what, client) * unit

        return SimulatedDevice(
            up=of_client("upload bandwidth", self.up_mbps, 1e6),
            down=of_client("download bandwidth", self.down_mbps, 1e6),
            speed=of_client("speed", self.client_gmacs, 1e9),
            latency=of_client("latency", self.latency_s, 1.0),
        )

    @property
    def servers(self) -> SimulatedDevice:
        """Device that stands for the servers."""
        return SimulatedDevice(
            up=_limit(self.server_up_mbps, 1e6),
            down=_limit(self.server_down_mbps, 1e6),
            speed=_limit(self.server_gmacs, 1e9),
        )


def _limit(value: float | None, unit: float) -> float:
    return inf if value is None else value * unit
