"""A quantity over clients: the same for all, or drawn for each."""

from math import exp

import torch

from fedsplit.config.values import Spread
from fedsplit.randomness import generator


def drawn(spread: Spread, seed: int, what: str, client: int) -> float:
    """The quantity of one client; a function of the seed, of what it is, and of the client.

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
