"""Alignment at the split server: each client's auxiliary model is fitted to the true cut gradients."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Protocol

import torch
from torch import Tensor

from fedsplit.computing.memory import Memory
from fedsplit.computing.model_state import ModelState, compute_format
from fedsplit.data.batches import batch_slices
from fedsplit.estimators.estimator import Chunk, FitStep, GradientEstimator
from fedsplit.estimators.fit import Fit
from fedsplit.estimators.ring import Ring
from fedsplit.objectives.objective import Objective
from fedsplit.randomness import generator, seed_of
from fedsplit.state.by_client import ByClient
from fedsplit.state.state import State
from fedsplit.state.weights import Weights


class CutGradients(Protocol):
    """Party that knows the true cut gradients: the split server."""

    def cut_gradients(self, z: Tensor, y: Tensor, *, seed: int) -> Tensor:
        """Cut gradients per sample, of the summed loss, in the shape of `z`; dropout draws from `seed`."""


class FixedServer(CutGradients, Protocol):
    """Party that knows the true cut gradients, while its model is left alone."""

    def weights(self) -> Weights:
        """Copies of the auxiliary model's weights."""


@dataclass(frozen=True)
class AlignmentTask:
    """An alignment of one client, which depends on no other client.

    Args:
        client: number of the client.
        round: number of the round.
        z: smashed data of the client's ring.
        y: labels of these.
        state: state of the client's auxiliary model and optimizer; None where it never aligned.
    """

    client: int
    round: int
    z: Tensor
    y: Tensor
    state: State | None


@dataclass
class _Auxiliary:
    """State of a client's auxiliary model and its optimizer, as it was last aligned."""

    state: State
    last_round: int


@dataclass(frozen=True)
class SquaredError:
    """Sums of squares over samples.

    Args:
        difference: sum for differences between estimated and true cut gradients.
        true: sum for true cut gradients.
    """

    difference: float = 0.0
    true: float = 0.0

    def __add__(self, other: "SquaredError") -> "SquaredError":
        return SquaredError(self.difference + other.difference, self.true + other.true)

    @property
    def relative(self) -> float:
        """Ratio of the first sum to the second; `inf` or `nan` where all true gradients are zero."""
        return self.difference / self.true if self.true else inf if self.difference else nan


class Alignment:
    """Rings, auxiliary models with their optimizers, and the round each client last aligned in.

    Args:
        new_auxiliary: maker of an auxiliary model with an optimizer of its own.
        objective: objective that clients minimise.
        epochs: passes over the ring at each alignment.
        batch_size: samples of a chunk.
        max_dataset_size: samples that a ring keeps.
        tolerance: fall of the error below which an alignment ends early, see `Settling`; 0: never.
        memory: account of the memory of rings and auxiliary models.
        padding: value of smashed data behind the end of a text.
        keep_clients: clients whose rings and auxiliary models are kept, see `enter`; None keeps all.
    """

    def __init__(
        self,
        *,
        new_auxiliary: Callable[[], ModelState],
        estimator: GradientEstimator,
        objective: Objective,
        epochs: int,
        batch_size: int,
        max_dataset_size: int,
        seed: int,
        tolerance: float = 0.0,
        memory: Memory | None = None,
        padding: float = 0.0,
        keep_clients: int | None = None,
    ) -> None:
        self._keep_clients = keep_clients
        self.dropped_clients: list[int] = []
        """Clients that were dropped as the last round began; no part of the state."""
        self.memory, self._padding = memory or Memory(), padding
        self._new_auxiliary, self.estimator, self._objective = new_auxiliary, estimator, objective
        self._epochs, self._batch_size, self._capacity = epochs, batch_size, max_dataset_size
        self._tolerance, self._seed = tolerance, seed
        self._rings: dict[int, Ring] = {}
        self._auxiliaries: dict[int, _Auxiliary] = {}
        self.fits: dict[int, Fit] = {}
        """Samples and epochs of each client's last alignment; no part of the state."""

    def enter(self, clients: Sequence[int]) -> None:
        """Begin a round with some clients, and make room for them among the `keep_clients` that are kept.

        The clients that took part longest ago are dropped, and among those of the same round the ones with
        smaller numbers first. A client that comes again later aligns as if it had never taken part.
        """
        self.dropped_clients = []
        if self._keep_clients is None:
            return
        for client in sorted(clients):  # rings are in the order in which clients took part last
            ring = self._ring(client)
            del self._rings[client]
            self._rings[client] = ring
        self.dropped_clients = list(self._rings)[: -self._keep_clients]
        for client in self.dropped_clients:
            self._drop(client)

    def _drop(self, client: int) -> None:
        if (ring := self._rings.pop(client, None)) is not None:
            ring.release()
        if (auxiliary := self._auxiliaries.pop(client, None)) is not None:
            self.memory.release(auxiliary.state)

    def last_round(self, client: int) -> int | None:
        """The round in which the client last aligned; None where it never did."""
        auxiliary = self._auxiliaries.get(client)
        return auxiliary.last_round if auxiliary else None

    def is_due(self, client: int, round: int, interval: int) -> bool:
        """True if the client never aligned, or did `interval` rounds ago or more."""
        last_round = self.last_round(client)
        return last_round is None or round - last_round >= interval

    def store(self, client: int, z: Tensor, y: Tensor) -> None:
        """Keep what a client uploaded, `z (b, ...)` and `y (b, ...)`."""
        self._ring(client).store(z, y)

    def _ring(self, client: int) -> Ring:
        if client not in self._rings:
            self._rings[client] = Ring(self._capacity, self.memory, self._padding)
        return self._rings[client]

    def align(self, client: int, round: int, server: CutGradients, *, initially: Weights) -> Weights:
        """Fit a client's auxiliary model to the server's cut gradients on its ring; return its new weights.

        The server is only read, so that clients are aligned independently of each other.

        Args:
            initially: weights that a client's first alignment starts from.
        """
        task = self.task(client, round)
        return self.finish(task, *self.fit(task, server, initially=initially))

    def align_many(
        self, clients: Sequence[int], round: int, server: FixedServer, *, initially: Weights
    ) -> dict[int, Weights]:
        """Align several clients, see `align`; the new weights of their auxiliary models."""
        return {client: self.align(client, round, server, initially=initially) for client in clients}

    def task(self, client: int, round: int) -> AlignmentTask:
        """Starting point of a client's alignment; its tensors are the ring's own."""
        auxiliary = self._auxiliaries.get(client)
        return AlignmentTask(
            client, round, *self._rings[client].samples(), auxiliary.state if auxiliary else None
        )

    def fit(self, task: AlignmentTask, server: CutGradients, *, initially: Weights) -> tuple[ModelState, Fit]:
        """Fit an auxiliary model, and say what it took; nothing of it is kept here."""
        model, chunks = self._new_auxiliary(), list(self._chunks(task, server, "dropout of an alignment"))
        if task.state is None:
            model.load(initially)
        else:
            model.load_state(task.state)
        steps = self._steps(task.client, task.round, len(chunks))
        epochs = self.estimator.fit(model, self._objective, chunks, steps, tolerance=self._tolerance)
        return model, Fit(task.round, sum(len(chunk.y) for chunk in chunks), epochs)

    def finish(self, task: AlignmentTask, model: ModelState, fit: Fit) -> Weights:
        """Keep the result of an alignment; return the new weights of the auxiliary model."""
        self.fits[task.client] = fit
        state = self.memory.keep(model.state(), task.state)
        self._auxiliaries[task.client] = _Auxiliary(state, task.round)
        return model.weights()

    def _chunks(self, task: AlignmentTask, server: CutGradients, purpose: str) -> Iterator[Chunk]:
        """A client's ring with the true cut gradients; `purpose` is of the seeds of dropout."""
        for number, piece in enumerate(batch_slices(len(task.y), self._batch_size)):
            dropout = seed_of(self._seed, purpose, client=task.client, round=task.round, step=number)
            own_z, own_y = self._remove_padding(task.z[piece], task.y[piece])
            dz = server.cut_gradients(own_z, own_y, seed=dropout)
            yield Chunk(own_z, own_y, compute_format(dz))

    def _remove_padding(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Samples without the positions that are padding in all of them."""
        lengths = self._objective.lengths(y)
        if lengths is None:
            return z, y
        longest = int(lengths.max())
        return z[:, :longest], y[:, :longest]

    def error(self, clients: Iterable[int], round: int, server: CutGradients) -> float | None:
        """Relative squared error of the estimates on the rings of those `clients` that have aligned.

        The sum of squared differences between estimated and true cut gradients, per sample, over the sum of
        squares of the true ones; both sums are over all samples of all clients. Rings are taken in the
        chunks of an alignment, of which batch normalisation sees the statistics.

        Args:
            round: number of the round at whose end this is measured.

        Returns:
            The error; None where none has aligned; `inf` or `nan` where all true gradients are zero.
        """
        aligned_clients = [client for client in clients if client in self._auxiliaries]
        if not aligned_clients:
            return None
        sums = SquaredError()
        for client in aligned_clients:
            chunks = self._chunks(self.task(client, round), server, "dropout of a measurement")
            for number, chunk in enumerate(chunks):
                sums += self.squared_error(client, chunk, round=round, step=number)
        return sums.relative

    def squared_error(self, client: int, chunk: Chunk, *, round: int, step: int) -> "SquaredError":
        """Error of an aligned client's estimates on samples whose true cut gradients are known.

        Args:
            client: number of a client that has aligned.
            chunk: samples with their true cut gradients.
            round: number of the round in which this is measured.
            step: number of the chunk, for what an estimator draws.
        """
        model = self._new_auxiliary()
        model.load(self._auxiliaries[client].state["weights"])
        seed = seed_of(self._seed, "dropout of a measured estimate", client=client, round=round, step=step)
        estimate = self.estimator.estimate(model, self._objective, chunk.z, chunk.y, seed=seed)
        return SquaredError(_square(estimate - chunk.dz), _square(chunk.dz))

    def _steps(self, client: int, round: int, chunks: int) -> list[FitStep]:
        """Steps of a fit, each epoch in an order of its own."""
        steps = []
        for epoch in range(self._epochs):
            draw = generator(self._seed, "alignment", client=client, round=round, epoch=epoch)
            for number, chunk in enumerate(torch.randperm(chunks, generator=draw).tolist()):
                dropout = seed_of(
                    self._seed, "dropout of a fit", client=client, round=round, epoch=epoch, step=number
                )
                steps.append(FitStep(chunk, dropout))
        return steps

    def auxiliary_weights(self) -> dict[int, Weights]:
        """The auxiliary model of every client that has aligned, by client."""
        return {
            client: {name: kept.contiguous() for name, kept in auxiliary.state["weights"].items()}
            for client, auxiliary in sorted(self._auxiliaries.items())
        }

    def state(self) -> State:
        """Everything kept, by client; rings in the order in which clients took part last."""
        return {
            "rings": ByClient({str(client): ring.state() for client, ring in self._rings.items()}),
            "auxiliaries": ByClient(
                {
                    str(client): {"model": auxiliary.state, "last_round": auxiliary.last_round}
                    for client, auxiliary in self._auxiliaries.items()
                }
            ),
        }

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        for client in list(self._rings | self._auxiliaries):
            self._drop(client)
        for client, entry in state["auxiliaries"].items():
            model = self._new_auxiliary()
            model.load_state(entry["model"])
            self._auxiliaries[int(client)] = _Auxiliary(self.memory.keep(model.state()), entry["last_round"])
        device = self._new_auxiliary().device
        for client, entry in state["rings"].items():
            self._ring(int(client)).load_state(entry, device)


def _square(x: Tensor) -> float:
    """The sum of squares, added up in float64."""
    return float(torch.linalg.vector_norm(x, dtype=torch.float64).square())
