"""Copies of the server model, one for each client, as SplitFed v1 trains them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

from torch import Tensor, nn
from typing_extensions import override

from fedsplit.computing.captured_steps import GraphedFunction, Outputs, Recorder
from fedsplit.computing.stacked_state import StackedState, rows_of
from fedsplit.objectives.losses import Losses
from fedsplit.objectives.objective import Objective
from fedsplit.optim.optimizers import Optimizer, RowOptimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.local_step import train_head, train_trunk
from fedsplit.parties.members import Members, largest_first
from fedsplit.parties.messages import BatchLoss, StackedGradients, Tail, Upload, UploadStack, stacks_of
from fedsplit.parties.split_server import SplitServer
from fedsplit.randomness import seed_of
from fedsplit.state.by_client import ByClient
from fedsplit.state.state import State
from fedsplit.state.weights import StackedWeights, Weights


class ServerCopies(ABC):
    """Copies of the server model, one for each client."""

    @abstractmethod
    def load(self, samples: Mapping[int, int], weights: Weights) -> None:
        """Let copies begin a round with the same weights; their optimizers live on.

        Args:
            samples: number of samples of each client of the round.
            weights: weights of the server model.
        """

    @abstractmethod
    def step(self, round: int, uploads: Sequence[Upload]) -> tuple[list[BatchLoss], Mapping[int, Tensor]]:
        """Step the copies on an upload each; losses and cut gradients, both from before the step."""

    @abstractmethod
    def weights(self, clients: Sequence[int]) -> Sequence[Weights]:
        """Weights of some copies; the caller reads them before it calls another method."""

    @abstractmethod
    def state(self) -> State:
        """Weights, buffers and optimizer state, by client."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""

    @abstractmethod
    def forget(self) -> None:
        """Drop all copies with their optimizers' state."""


class SequentialCopies(ServerCopies):
    """A split server for each client; see `ServerCopies`."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        seed: int,
        recorder: Recorder | None = None,
    ) -> None:
        self._new = partial(SplitServer, module, objective, optimizer, schedule, seed=seed, recorder=recorder)
        self._copies: dict[int, SplitServer] = {}

    def _copy(self, client: int) -> SplitServer:
        if client not in self._copies:
            self._copies[client] = self._new()
        return self._copies[client]

    @override
    def load(self, samples: Mapping[int, int], weights: Weights) -> None:
        for client in samples:
            self._copy(client).load(weights)

    @override
    def step(self, round: int, uploads: Sequence[Upload]) -> tuple[list[BatchLoss], dict[int, Tensor]]:
        results = {upload.client: self._copy(upload.client).step(round, upload) for upload in uploads}
        return [loss for loss, _ in results.values()], {client: dz for client, (_, dz) in results.items()}

    @override
    def weights(self, clients: Sequence[int]) -> list[Weights]:
        return [self._copy(client).weights() for client in clients]

    @override
    def state(self) -> State:
        return ByClient({str(client): copy.state() for client, copy in self._copies.items()})

    @override
    def load_state(self, state: State) -> None:
        self._copies.clear()
        self.give(state)

    def take(self, clients: Sequence[int]) -> State:
        """Move the state of some copies out of here, in the form of `state`."""
        return {str(client): self._copies.pop(client).state() for client in clients if client in self._copies}

    def give(self, state: State) -> None:
        """Add the state of some copies to that of others."""
        for client, copy_state in state.items():
            self._copy(int(client)).load_state(copy_state)

    @override
    def forget(self) -> None:
        self._copies.clear()


class StackedCopies(ServerCopies):
    """All copies in one stack; see `ServerCopies`."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        optimizer: RowOptimizer,
        schedule: Schedule,
        *,
        seed: int,
        recorder: Recorder | None = None,
    ) -> None:
        self._module, self._optimizer, self._schedule, self._seed = module, optimizer, schedule, seed
        self._losses, self._recorder = objective.of_many, recorder
        self._graphed_step: GraphedFunction | None = None
        self._members: Members | None = None
        self._set_aside: dict[int, State] = {}

    @property
    def _model(self) -> StackedState:
        assert self._members is not None, "copies are loaded before they are used"
        return self._members.models["copy"]

    @override
    def load(self, samples: Mapping[int, int], weights: Weights) -> None:
        if self._members is None or set(self._members.clients) != set(samples):
            self._set_aside = self._all()
            model = StackedState(self._module, len(samples), self._optimizer)
            self._members = Members(largest_first(samples), {"copy": model})
            if self._recorder:
                self._graphed_step = GraphedFunction(
                    partial(_captured_step, model, losses=self._losses), self._recorder
                )
            for client in samples:
                if client in self._set_aside:
                    self._members.load(client, {"copy": self._set_aside.pop(client)})
        self._model.load_all(weights)

    @override
    def step(self, round: int, uploads: Sequence[Upload]) -> tuple[list[BatchLoss], StackedGradients]:
        assert self._members is not None
        losses: list[BatchLoss] = []
        gradients = []
        for stack in stacks_of(uploads):
            rows = rows_of([self._members.row[client] for client in stack.clients])
            factor = self._schedule.at(round, stack.step)
            if stack.tail is not None:
                tail = partial(_at_clients, stack.tail, stack.clients)
                trunk, seeds = self._model.rows(rows), self._seeds(stack, round)
                at_clients, dz = train_trunk(trunk, tail, stack.z, learning_rate_factor=factor, seed=seeds)
                losses += at_clients
                gradients.append((stack.clients, dz))
                continue
            if self._graphed_step and isinstance(rows, slice):
                loss, dz = self._graphed_step((rows.start, rows.stop), stack.z, stack.y, factor)
            else:
                head_step = train_head(
                    self._model.rows(rows),
                    self._losses,
                    stack.z,
                    stack.y,
                    learning_rate_factor=factor,
                    seed=self._seeds(stack, round),
                )
                loss, dz = head_step.loss, head_step.dz
            losses.append(BatchLoss(stack.clients, loss, self._losses.counts(stack.y)))
            gradients.append((stack.clients, dz))
        return losses, StackedGradients(gradients)

    def _seeds(self, stack: UploadStack, round: int) -> list[int]:
        if not self._model.stack.draws:
            return []
        return [
            seed_of(self._seed, "dropout of the head", client=client, round=round, step=stack.step)
            for client in stack.clients
        ]

    @override
    def weights(self, clients: Sequence[int]) -> StackedWeights:
        assert self._members is not None
        rows = rows_of([self._members.row[client] for client in clients])
        tensors = {name: stack[rows] for name, stack in self._model.tensors().items()}
        return StackedWeights([(range(len(clients)), tensors)])

    def _all(self) -> dict[int, State]:
        present = self._members.clients if self._members else []
        return self._set_aside | {
            client: cast(Members, self._members).client_state(client)["copy"] for client in present
        }

    @override
    def state(self) -> State:
        return ByClient({str(client): copy_state for client, copy_state in self._all().items()})

    @override
    def load_state(self, state: State) -> None:
        self._members = None
        self._set_aside = {int(client): copy_state for client, copy_state in state.items()}

    @override
    def forget(self) -> None:
        self._members = None
        self._set_aside.clear()


def _at_clients(tail: Tail, clients: Sequence[int], h: Tensor) -> tuple[list[BatchLoss], Tensor]:
    losses, gradients = tail(StackedGradients([(clients, h)]))
    return losses, StackedGradients.holding(gradients).of(clients)


def _captured_step(
    model: StackedState, rows: tuple[int, int], z: Tensor, y: Tensor, factor: Tensor, *, losses: Losses
) -> Outputs:
    head_step = train_head(model.rows(slice(*rows)), losses, z, y, learning_rate_factor=factor, seed=None)
    return head_step.loss, head_step.dz
