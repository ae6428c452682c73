"""A quantity over clients: the same for all, or drawn for each."""

from collections.abc import Mapping
from math import exp

import torch

from fedsplit.arguments import Spread
from fedsplit.randomness import generator


def drawn(spread: Spread, seed: int, what: str, client: int) -> float:
    """The quantity of one client; a function of the seed, of what it is, and of the client.

    Args:
        spread: a number, `{low, high}` (uniform) or `{median, sigma}` (lognormal: the logarithm is normal
            with standard deviation `sigma`).
        seed: of the run.
        what: names the quantity.
        client: whose.
    """
    if not isinstance(spread, Mapping):
        return float(spread)
    draw = generator(seed, f"{what} of a client's device", client=client)
    if "low" in spread:
        share = torch.rand((), generator=draw, dtype=torch.float64).item()
        return float(spread["low"] + (spread["high"] - spread["low"]) * share)
    normal = torch.randn((), generator=draw, dtype=torch.float64).item()
    return float(spread["median"] * exp(spread["sigma"] * normal))
