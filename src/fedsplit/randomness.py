"""Every random draw is a function of `(seed, purpose, client, round, epoch, step)`.

So a result does not depend on the order in which clients run, on how many processes there are, or on
where a run was interrupted. What a module draws by itself (dropout) comes from torch's default
generator, which is seeded for it before each pass.
"""

from collections.abc import Callable
from hashlib import blake2b

import numpy as np
import torch


def seed_of(
    seed: int, purpose: str, *, client: int = 0, round: int = 0, epoch: int = 0, step: int = 0
) -> int:
    """Seed of one draw: 63 bits of a hash of all that names the draw."""
    name = f"{seed}/{purpose}/{client}/{round}/{epoch}/{step}"
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


def generator(
    seed: int, purpose: str, *, client: int = 0, round: int = 0, epoch: int = 0, step: int = 0
) -> torch.Generator:
    """Torch generator (on the CPU) of one draw."""
    return stream(seed_of(seed, purpose, client=client, round=round, epoch=epoch, step=step))


def stream(seed: int) -> torch.Generator:
    """Torch generator (on the CPU) of one draw that has this seed."""
    return torch.Generator().manual_seed(seed)


def uniform(shape: torch.Size, seed: int) -> torch.Tensor:
    """Uniform numbers from 0 to below 1, float32, on the CPU, of one draw that has this seed."""
    return torch.rand(shape, generator=stream(seed), dtype=torch.float32)


def numpy_generator(seed: int, purpose: str, *, step: int = 0) -> np.random.Generator:
    """NumPy generator of one draw."""
    return np.random.default_rng(seed_of(seed, purpose, step=step))


def uniforms(seed: int, purpose: str, *, start: int, count: int) -> np.ndarray:
    """A part of one long draw: uniform numbers from 0 to below 1, float64 `(count,)`, from number `start` on.

    Any part costs by its own length, wherever it begins.
    """
    bits = np.random.PCG64(seed_of(seed, purpose))
    return np.random.Generator(bits.advance(start)).random(count)


def draws(work: Callable[[], object], device: torch.device) -> bool:
    """True if some work draws from torch's default generator; that is then as before."""
    own = _default(device)
    before = own.get_state()
    work()
    after = own.get_state()
    own.set_state(before)
    return not torch.equal(before, after)


def _default(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        own: torch.Generator = torch.cuda.default_generators[device.index or 0]
        return own
    return torch.default_generator


def seed_modules(seed: int, device: torch.device) -> None:
    """Seed what a module draws by itself (dropout), once per pass, from `seed_of`."""
    _default(device).manual_seed(seed)
