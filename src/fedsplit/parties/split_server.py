"""The split server: trains a server model on smashed data."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fedsplit.computing.captured_steps import GraphedFunction, Outputs, Recorder
from fedsplit.computing.model_state import ModelState
from fedsplit.objectives.objective import Objective
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.local_step import HeadStep, train_head, train_trunk
from fedsplit.parties.messages import BatchLoss, Tail, Upload
from fedsplit.randomness import seed_of
from fedsplit.state.state import State
from fedsplit.state.weights import Weights


@dataclass(frozen=True)
class _Graphs:
    """`step(z, y, factor)` to loss and cut gradient, and `cut_gradients(z, y)`."""

    step: GraphedFunction
    cut_gradients: GraphedFunction


class SplitServer:
    """A server model and its optimizer.

    Args:
        module: the server model.
        objective: objective that it is trained for.
        optimizer: optimizer that steps the model; its state lives as long as the server.
        schedule: schedule of the learning rate.
        seed: seed of the run.
        recorder: recorder that captures the server's steps as CUDA graphs; None where nothing captures them.
    """

    acceleration: float = 1.0
    """Factor of the learning rate beside the schedule's, which an algorithm may set before a step."""

    def __init__(
        self,
        module: torch.nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        seed: int,
        recorder: Recorder | None = None,
    ) -> None:
        self._objective, self._schedule, self._seed = objective, schedule, seed
        self._model = model = ModelState(module, optimizer, recorder=recorder)
        self._graphs: _Graphs | None = None
        if recorder:

            def step(z: Tensor, y: Tensor, factor: Tensor) -> Outputs:
                head_step = train_head(model, objective, z, y, learning_rate_factor=factor, seed=None)
                return head_step.loss, head_step.dz

            def cut_gradients(z: Tensor, y: Tensor) -> Outputs:
                return (_cut_gradients(model, objective, z, y, seed=None),)

            self._graphs = _Graphs(GraphedFunction(step, recorder), GraphedFunction(cut_gradients, recorder))

    def step(self, round: int, upload: Upload) -> tuple[BatchLoss, Tensor]:
        """Step on one upload; its loss and cut gradient, both from before the step."""
        if self._graphs:
            factor = self.acceleration * self._schedule.at(round, upload.step)
            loss, dz = self._graphs.step(upload.z, upload.y, factor)
            return BatchLoss([upload.client], loss[None], self._objective.counts(upload.y)), dz
        factor, client = self.acceleration * self._schedule.at(round, upload.step), upload.client
        seed = seed_of(self._seed, "dropout of the head", client=client, round=round, step=upload.step)
        if upload.tail is not None:
            tail = partial(_at_client, upload.tail, client)
            return train_trunk(self._model, tail, upload.z, learning_rate_factor=factor, seed=seed)
        head_step: HeadStep = train_head(
            self._model, self._objective, upload.z, upload.y, learning_rate_factor=factor, seed=seed
        )
        return BatchLoss(
            [upload.client], head_step.loss[None], self._objective.counts(upload.y)
        ), head_step.dz

    def terms(self, y: Tensor) -> int:
        """Terms of the mean loss of a batch with these labels."""
        return self._objective.terms(y)

    def cut_gradients(self, z: Tensor, y: Tensor, *, seed: int) -> Tensor:
        """True cut gradients per sample (of the summed loss), in the shape of `z`.

        With batch statistics; the weights and the running statistics stay as they are.
        """
        if self._graphs:
            (dz,) = self._graphs.cut_gradients(z, y)
            return dz
        return _cut_gradients(self._model, self._objective, z, y, seed=seed)

    def weights(self) -> Weights:
        """Copies of the server's weights."""
        return self._model.weights()

    def load(self, weights: Weights) -> None:
        """Take over weights; the optimizer's state stays."""
        self._model.load(weights)

    def state(self) -> State:
        """Weights, buffers and optimizer state."""
        return self._model.state()

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._model.load_state(state)
        if self._graphs:
            self._graphs.step.drop()
            self._graphs.cut_gradients.drop()


def _at_client(tail: Tail, client: int, h: Tensor) -> tuple[BatchLoss, Tensor]:
    (loss,), gradients = tail({client: h})
    return loss, gradients[client]


def _cut_gradients(
    model: ModelState, objective: Objective, z: Tensor, y: Tensor, *, seed: int | None
) -> Tensor:
    z = z.detach().requires_grad_()
    outputs = model.forward(z, seed=seed, buffers=model.frozen_buffers(), at=objective.targets(y))
    (dz,) = torch.autograd.grad(objective.total(outputs, y), z)
    return dz
