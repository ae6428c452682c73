"""How much memory may be asked for by what somebody else decides: a server's plan, a run directory.

It is estimated before anything is allocated. What the user of this machine asks for is not looked at.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from fedsplit.errors import UserError

_FLOAT = 4
"""Bytes of a value while it is computed with."""
_STATES = 4
"""Copies of a model's parameters while it trains: they, their gradients, and an optimizer's two moments."""


@dataclass
class _Allowance:
    limit: float
    message: str
    total: float = 0.0


_CURRENT: ContextVar[_Allowance | None] = ContextVar("allowance", default=None)


def machine_memory() -> float:
    """Bytes of memory of this machine."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@contextmanager
def allowing(limit: float, message: str) -> Iterator[None]:
    """Allow so many bytes to be asked for in all.

    Args:
        limit: bytes.
        message: name of the allowance, for errors.
    """
    before = _CURRENT.set(_Allowance(limit, message))
    try:
        yield
    finally:
        _CURRENT.reset(before)


def allowing_a_client(memory_mb: float | None) -> AbstractContextManager[None]:
    """Bound the memory of what a server lets a client build, by `client.memory_mb`; None: by half of all."""
    limit = machine_memory() / 2 if memory_mb is None else memory_mb * 1e6
    return allowing(limit, "client.memory_mb allows")


def allowing_a_run_directory() -> AbstractContextManager[None]:
    """Bound the memory of what the files of a run directory ask for."""
    return allowing(machine_memory(), "this machine has")


def claim(key: str, value: object, needed: float, what: str) -> None:
    """Count memory that is about to be taken, where it is not this machine's user who asks for it.

    Args:
        key: key of the configuration that makes it so much.
        needed: bytes, as estimated.
        what: takes them.

    Raises:
        UserError: it is more than is left.
    """
    allowance = _CURRENT.get()
    if allowance is None:
        return
    allowance.total += needed
    if allowance.total > allowance.limit:
        mb, limit = f"{allowance.total / 1e6:,.0f} MB", f"{allowance.limit / 1e6:,.0f} MB"
        message = f"{what} and all before would take about {mb} of memory, and {allowance.message} {limit}"
        raise UserError(key, value, message)


def claim_images(side: int, channels: int, kept: int, given: object) -> None:
    """Count the pixels of images that are `kept`, a byte each, and of one that is read; see `claim`."""
    needed = float(side) ** 2 * channels * (kept + 1)
    claim("dataset.image_size", given or side, needed, f"{kept} images of {side}x{side} pixels")


def claim_batch(key: str, batch: int, values: int) -> None:
    """Count inputs of so many `values` that are computed with at a time, and their gradients; see `claim`."""
    claim(key, batch, float(values) * batch * (1 + 2 * _FLOAT), f"a batch of {batch} samples")


def claim_model(key: str, value: object, build: Callable[[], nn.Module]) -> None:
    """Count a model that is about to be built, by building it without memory; see `claim`."""
    if _CURRENT.get() is None:
        return
    found: dict[tuple[int, str], int] = {}

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        found[id(module), name] = 0 if parameter is None else parameter.numel()

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), suppress(Exception):
            build()  # a model that cannot be built without memory is counted as far as it gets
    finally:
        hook.remove()
    values = sum(found.values())
    claim(key, value, float(values) * _FLOAT * _STATES, f"a model of {values:,} parameters")
