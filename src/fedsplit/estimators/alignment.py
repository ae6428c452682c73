"""Alignment at the split server: each client's auxiliary model is fitted to the true cut gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedsplit.data.batches import batch_slices
from fedsplit.estimators.estimator import Chunk, GradientEstimator
from fedsplit.estimators.ring import Ring
from fedsplit.models.model_state import ModelState
from fedsplit.randomness import generator, seed_of
from fedsplit.state import State
from fedsplit.weights import Weights


class CutGradients(Protocol):
    """Who knows the true cut gradients: the split server."""

    def cut_gradients(self, z: Tensor, y: Tensor, *, seed: int) -> Tensor:
        """Per sample, of the summed loss, in the shape of `z`; `seed` is of dropout."""


@dataclass
class _Aligned:
    """What the split server keeps for one client."""

    auxiliary: ModelState
    ring: Ring
    last_round: int | None = None


class Alignment:
    """Rings, auxiliary models with their optimizers, and the round each client last aligned in.

    Args:
        new_auxiliary: makes a client's auxiliary model, with its own optimizer.
        estimator: what is fitted.
        epochs: over the ring, at each alignment.
        batch_size: samples of a chunk.
        max_dataset_size: samples that a ring keeps.
        seed: of the run.
    """

    def __init__(
        self,
        *,
        new_auxiliary: Callable[[], ModelState],
        estimator: GradientEstimator,
        epochs: int,
        batch_size: int,
        max_dataset_size: int,
        seed: int,
    ) -> None:
        self._new_auxiliary, self._estimator = new_auxiliary, estimator
        self._epochs, self._batch_size, self._capacity = epochs, batch_size, max_dataset_size
        self._seed = seed
        self._clients: dict[int, _Aligned] = {}
        self._start: Weights | None = None

    def start_from(self, auxiliary: Weights) -> None:
        """Let the auxiliary models of clients that are not known yet start from these weights."""
        self._start = auxiliary

    def _of(self, client: int) -> _Aligned:
        if client not in self._clients:
            aligned = _Aligned(self._new_auxiliary(), Ring(self._capacity))
            if self._start is not None:
                aligned.auxiliary.load(self._start)
            self._clients[client] = aligned
        return self._clients[client]

    def is_due(self, client: int, round: int, interval: int) -> bool:
        """Whether the client never aligned, or did `interval` rounds ago or more."""
        last = self._of(client).last_round
        return last is None or round - last >= interval

    def store(self, client: int, z: Tensor, y: Tensor) -> None:
        """Keep what a client uploaded, `z (b, ...)` and `y (b,)`."""
        self._of(client).ring.store(z, y)

    def align(self, client: int, round: int, server: CutGradients) -> Weights:
        """Fit a client's auxiliary model to the server's cut gradients on its ring; its new weights.

        The server is only read, so clients are aligned independently of each other.
        """
        aligned = self._of(client)
        z, y = aligned.ring.samples()
        chunks = []
        for number, piece in enumerate(batch_slices(len(y), self._batch_size)):
            dropout = seed_of(self._seed, "dropout of an alignment", client=client, round=round, step=number)
            chunks.append(Chunk(z[piece], y[piece], server.cut_gradients(z[piece], y[piece], seed=dropout)))
        orders = []
        for epoch in range(self._epochs):
            draw = generator(self._seed, "alignment", client=client, round=round, epoch=epoch)
            orders.append(torch.randperm(len(chunks), generator=draw).tolist())
        self._estimator.fit(aligned.auxiliary, chunks, orders)
        aligned.last_round = round
        return aligned.auxiliary.weights()

    def auxiliary_weights(self) -> dict[int, Weights]:
        """Every client's auxiliary model, by client."""
        return {client: aligned.auxiliary.weights() for client, aligned in sorted(self._clients.items())}

    def state(self) -> State:
        """Everything kept, by client, and what new clients start from."""
        clients = {
            str(client): {
                "auxiliary": aligned.auxiliary.state(),
                "ring": aligned.ring.state(),
                "last_round": aligned.last_round,
            }
            for client, aligned in self._clients.items()
        }
        return {"clients": clients, "start": self._start}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._clients.clear()
        self._start = state["start"]
        for client, kept in state["clients"].items():
            aligned = self._of(int(client))
            aligned.auxiliary.load_state(kept["auxiliary"])
            aligned.ring.load_state(kept["ring"], aligned.auxiliary.device)
            aligned.last_round = kept["last_round"]
