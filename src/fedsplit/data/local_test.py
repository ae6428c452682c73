"""Samples that each client holds out of its own data, to test on."""

import numpy as np
import torch

from fedsplit.randomness import generator


def held_out_size(samples: int, fraction: float) -> int:
    """Number of a client's samples that are held out: `fraction` of them, to the nearest whole number.

    Where that is none or all, one is held out or one kept, but of a single sample nothing is held out. A half
    rounds to the even number.
    """
    return min(max(round(fraction * samples), 1), samples - 1) if fraction else 0


def hold_out(shard: np.ndarray, fraction: float, *, client: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A client's samples without, and only, those that are held out; both in the order of the shard.

    Args:
        shard: indices of its samples, at least one.
        fraction: fraction of a client's samples to hold out, drawn without regard to their classes.
    """
    draw = generator(seed, "local test samples", client=client)
    chosen = torch.randperm(len(shard), generator=draw)[: held_out_size(len(shard), fraction)]
    mask = np.zeros(len(shard), dtype=np.bool_)
    mask[chosen.numpy()] = True
    return shard[~mask], shard[mask]
