"""The wire of a simulated network, as a request meets it."""

from collections.abc import Callable
from typing import TypeAlias

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
