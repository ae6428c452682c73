"""Estimates what a run keeps of clients that took part, and refuses what this machine cannot hold."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, log1p, prod
from tempfile import gettempdir

from torch import Tensor, nn
from typing_extensions import override

from fedsplit.building.parts import RunParts
from fedsplit.errors import UserError
from fedsplit.machine.allowance import machine_memory
from fedsplit.optim.optimizers import Optimizer, RowOptimizer

_FLOAT = 4
"""Bytes of a value of smashed data, as the server keeps them."""
_UNKNOWN_SLOTS = 2
"""Tensors beside each parameter of an optimizer that does not say which it keeps: Adam's two."""


@dataclass(frozen=True)
class KeptState:
    """Bytes that a run keeps of clients, and of how many.

    Args:
        clients: expected to have taken part by the end of the run.
        population: all clients.
        of_client: bytes of what each of them keeps in memory.
        alignments: clients whose rings and auxiliary models are kept.
        bytes_of_alignment: bytes of those of each, in memory or in files mapped to it.
        budget: bytes of `bytes_of_alignment` that may be in memory; None: all.
    """

    clients: float
    population: int
    of_client: float
    alignments: float
    bytes_of_alignment: float
    budget: float | None

    @property
    def budget_mb(self) -> float | None:
        """MB that may be in memory; None: all."""
        return None if self.budget is None else self.budget / 1e6

    @property
    def memory(self) -> float:
        """Bytes in memory at the end of the run."""
        return self.clients * self.of_client + self.alignments * self.bytes_of_alignment - self.mapped_bytes

    @property
    def mapped_bytes(self) -> float:
        """Bytes in files mapped to memory."""
        if self.budget is None:
            return 0.0
        return max(0.0, self.alignments * self.bytes_of_alignment - self.budget)

    @property
    def checkpoint(self) -> float:
        """Number of bytes of a checkpoint."""
        return self.memory + self.mapped_bytes

    @override
    def __str__(self) -> str:
        files = f" and {_size(self.mapped_bytes)} in mapped files" if self.mapped_bytes else ""
        return (
            f"state of clients: about {self.clients:,.0f} of {self.population:,} take part, which keep about "
            f"{_size(self.memory)} in memory{files}; a checkpoint takes about {_size(self.checkpoint)}"
        )


def estimate_kept_state(parts: RunParts) -> KeptState | None:
    """Estimate of what is kept of clients by the end of a run; None where nothing is."""
    config, models, halves = parts.config, parts.models, parts.models.halves
    population, rounds = config.population, config.budget.rounds
    blueprint, kind = parts.engine.blueprint, parts.algorithm_class
    everyone = population.num_clients
    # Each client is missed by a round with the same chance, by all of them with its power.
    share = min(population.cohort / everyone, 1 - 1e-12)
    clients = everyone * (1 - exp(rounds * log1p(-share)))
    of_client = 0.0
    if not config.client.stateless and not parts.apart:
        of_client += _bytes(blueprint.body, parts.client_optimizer)
        if blueprint.head is not None:  # a head that clients do not train has no optimizer's state
            of_client += _bytes(blueprint.head, None if blueprint.keeps_head else parts.client_optimizer)
        if not parts.quantization.weights.lossless:  # the client keeps what was rounded away of its uploads
            of_client += _bytes(blueprint.body)
    if not config.client.stateless and kind.copies_server:
        of_client += _bytes(halves.server, parts.server_optimizer)
    of_aligned = 0.0
    if parts.estimates and models.auxiliary is not None:
        _, y = parts.data.batch(2)
        upload = _FLOAT * prod(models.smashed_shape) + y.nbytes / len(y)
        of_aligned += config.alignment.max_dataset_size * upload
        of_aligned += _bytes(models.auxiliary, parts.auxiliary_optimizer)
        if config.client.stateless and not parts.apart:  # else it is among what the client keeps
            of_aligned += _bytes(models.auxiliary)
    if not of_client and not of_aligned:
        return None
    aligned = min(clients, config.alignment.keep_clients or clients)
    budget = config.alignment.memory_mb
    return KeptState(
        clients=clients,
        population=everyone,
        of_client=of_client,
        alignments=aligned,
        bytes_of_alignment=of_aligned,
        budget=None if budget is None else budget * 1e6,
    )


def refuse_state_beyond_machine(kept: KeptState) -> None:
    """Raise where clients would keep more than this machine has room for.

    Raises:
        UserError: names the key that keeps less.
    """
    memory = machine_memory()
    if kept.memory > memory:
        by_client = ("client.stateless", False)
        key, value = by_client if kept.of_client else ("auxiliary.memory_mb", kept.budget_mb)
        message = f"{kept}, and this machine has {_size(memory)} of memory"
        raise UserError(key, value, f"{message}: {_less(kept)}")
    if kept.mapped_bytes > (room := _room()):
        message = f"{kept}, and {gettempdir()} has room for {_size(room)}"
        raise UserError("auxiliary.keep_clients", None, f"{message}: {_less(kept)}")


def _room() -> float:
    """Bytes that are free where mapped files are."""
    return float(shutil.disk_usage(gettempdir()).free)


def _less(kept: KeptState) -> str:
    if kept.of_client:
        return "set client.stateless=true, or take fewer rounds or a smaller cohort"
    return "set auxiliary.keep_clients, or lower auxiliary.max_dataset_size"


def _bytes(module: nn.Module, optimizer: Optimizer | None = None) -> float:
    """Bytes that a client keeps of a model: learned parameters, state of their optimizer, and buffers."""
    learn = _sum(each for each in module.parameters() if each.requires_grad)
    slots = 0
    if optimizer is not None:
        slots = len(optimizer.slots) if isinstance(optimizer, RowOptimizer) else _UNKNOWN_SLOTS
    return learn * (1 + slots) + _sum(module.buffers())


def _sum(tensors: Iterable[Tensor]) -> float:
    return float(sum(each.nbytes for each in tensors))


def _size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
