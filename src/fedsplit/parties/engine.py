"""Engines, which compute the clients of one process, or the server's copies for them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedsplit.computing.captured_steps import Recorder
from fedsplit.computing.memory import Memory
from fedsplit.computing.model_state import ModelState, compute_format
from fedsplit.data.batches import ClientBatches
from fedsplit.errors import NonFinite
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.objectives.objective import Objective
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.local_rule import Extra, LocalRule
from fedsplit.parties.messages import LocalTraining, LocalWork, Part, StepResult, Upload
from fedsplit.parties.server_copies import ServerCopies
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.noise import Noise, Secrets
from fedsplit.quant.codec import NonFiniteTensor
from fedsplit.quant.positions import Positions
from fedsplit.quant.quantization import rounding_seed
from fedsplit.randomness import seed_of
from fedsplit.state.state import State
from fedsplit.state.weights import Weights


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Parts of a client: body and head. The body is the client model; the head is what the algorithm says.

    Args:
        body: the client model.
        head: the server model (FedAvg), the auxiliary model, the model's tail (split learning), or None.
        keeps_head: True if each client keeps a head of its own from round to round (FSL-SAGE, FedPer).
        optimizer: optimizer that steps body and head, each with a state of its own.
        batches: maker of the data of a client, given its number.
        objective: objective that clients minimise.
        estimator: estimator that turns the head into cut gradients, where the client does not train the head.
        schedule: schedule of the learning rate.
        seed: seed of the run.
        rule: rule that clients descend along in a local step.
        head_sees: function from smashed data, labels and a seed to what the server decodes, for the head;
            None
          leaves them.
        memory: place of heads that clients keep without having any other state.
        recorder: recorder that captures clients' steps as CUDA graphs; None where nothing captures them.
        estimates: True if the head is one of the estimator's.
        trunk_shape: shape of one sample of what the head takes if it is a tail; None where it takes smashed
            data.
        defence: defence of the clients, which changes smashed data that leave them, and their gradients.
        secrets: secrets of the clients, from which a defence's noise is drawn.
        positions: positions of padded batches that a defence sees.
        sends_smashed: True if clients send smashed data.
    """

    body: nn.Module
    head: nn.Module | None
    keeps_head: bool
    optimizer: Optimizer
    batches: Callable[[int], ClientBatches]
    objective: Objective
    estimator: GradientEstimator
    schedule: Schedule
    seed: int
    rule: LocalRule = field(default_factory=LocalRule)
    head_sees: Callable[[Tensor, Tensor, int], Tensor] | None = None
    memory: Memory = field(default_factory=Memory)
    recorder: Recorder | None = None
    estimates: bool = False
    trunk_shape: tuple[int, ...] | None = None
    defence: Defence = field(default_factory=Defence)
    secrets: Secrets = field(default_factory=lambda: Secrets(0))
    positions: Positions = field(default_factory=Positions)
    sends_smashed: bool = True

    @property
    def extra(self) -> Extra:
        """Gradient that the defence adds to cut gradients; None where it adds nothing."""
        return self.defence.extra_gradient if self.defence.adds_gradient else None

    def release(self, exact: Upload, round: int, purpose: str = "smashed data") -> Upload:
        """An upload as it leaves its client, whose defence has changed the smashed data.

        Args:
            exact: upload with exact smashed data.
            round: number of its round.
            purpose: purpose of the upload; another purpose draws other noise.
        """
        if not self.defence.releases:
            return exact
        noise = self.secrets.noise(purpose, client=exact.client, round=round, step=exact.step)
        packed, padded = self.positions.pack, self.positions.pad
        real = padded(packed(exact.z, exact.y), exact.y)  # zeros that stand for padding count in no norm
        z = self.defence.release(real, noise)
        return replace(exact, z=padded(packed(z, exact.y), exact.y, self.positions.padding))

    def head_input(self, exact: Upload, round: int) -> Tensor:
        """Smashed data as the server would decode them, for a head that goes on from these.

        Raises:
            NonFinite: they are not finite.
        """
        assert self.head_sees is not None
        seed = rounding_seed(self.seed, "smashed", exact.client, round, exact.step)
        try:
            return self.head_sees(self.release(exact, round).z, exact.y, seed)
        except NonFiniteTensor as error:
            raise NonFinite("smashed", exact.client) from error

    def rule_seed(self, client: int, round: int, step: int) -> int | Noise:
        """Seed of what a local step's rule draws; the noise itself where a defence draws noise."""
        if self.rule.per_sample:
            return self.secrets.noise("gradients", client=client, round=round, step=step)
        return seed_of(self.seed, "local rule", client=client, round=round, step=step)

    def models_of(self, part: Part) -> tuple[Literal["body", "head"], ...]:
        """Names of the models, of body and head, whose weights a part is."""
        if part == "full" or (part == "client" and self.trunk_shape is not None):
            return ("body", "head")
        return ("body",) if part == "client" else ("head",)

    def trunk_outputs(self, x: Tensor) -> Tensor:
        """Zeros in the shape of what the trunk gives a tail of inputs `x`."""
        assert self.trunk_shape is not None
        return x.new_zeros((len(x), *self.trunk_shape), dtype=torch.get_default_dtype())

    def pass_through(self, x: Tensor, y: Tensor) -> None:
        """Pass a batch through body and head forward, for hooks that watch; moves nothing."""
        with torch.no_grad():
            z = ModelState(self.body).forward(x, seed=0)
            if self.trunk_shape is not None:
                z = self.trunk_outputs(x)
            if self.head is not None and self.estimates and not self.estimator.trains_on_loss:
                self.estimator.estimate(ModelState(self.head), self.objective, z, y, seed=0)
            elif self.head is not None:
                ModelState(self.head).forward(z, seed=0, at=self.objective.targets(y))


class Engine(ABC):
    """Answers a cohort's verbs for the clients of this process; see `Cohort`.

    Args:
        blueprint: parts that clients are made of.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint

    def open(self) -> AbstractContextManager[object]:
        """Start what computes clients, and end it afterwards."""
        return nullcontext()

    def enter(self, clients: Sequence[int]) -> None:
        """Let these clients, ascending, take part until others do; verbs are for all or some of them."""
        self.form(self.units(clients))

    def units(self, clients: Sequence[int]) -> Sequence[Sequence[int]]:
        """Clients of a cohort, ascending, as they are computed: those of a unit together."""
        return [[client] for client in clients]

    @abstractmethod
    def form(self, units: Sequence[Sequence[int]]) -> None:
        """Let the clients of these units take part; see `enter`."""

    @abstractmethod
    def install(self, part: Part, weights: Mapping[int, Weights]) -> None:
        """Give clients weights; one and the same object for all of them is one message."""

    @abstractmethod
    def weights(self, part: Part, clients: Sequence[int]) -> Sequence[Weights]:
        """Weights of clients, in their order; the caller reads them before it calls another verb."""

    @abstractmethod
    def forward(self, clients: Sequence[int], round: int, step: int) -> Sequence[Upload]:
        """Smashed data of those clients that have such a step; changes no state."""

    def forward_evaluating(self, clients: Sequence[int], round: int, step: int) -> Sequence[Upload]:
        """Smashed data as models are evaluated: with running statistics, samples as they are, each once."""
        module, uploads = self.blueprint.body, []
        having = [client for client in clients if step < self.blueprint.batches(client).steps_of_epoch]
        module.eval()
        try:
            for client, weights in zip(having, self.weights("client", having), strict=True):
                x, y = self.blueprint.batches(client).batch(round, step, augmented=False)
                with torch.no_grad():
                    z = functional_call(module, weights, (compute_format(x),))
                exact = Upload(client, step, z, y)
                uploads.append(self.blueprint.release(exact, round, "evaluated smashed data"))
        finally:
            module.train()
        return uploads

    @abstractmethod
    def backward(self, round: int, step: int, dz: Mapping[int, Tensor]) -> None:
        """Step the clients along the cut gradients of the last `forward`."""

    @abstractmethod
    def probe(
        self, round: int, step: int, dz: Mapping[int, Tensor], seeds: Sequence[int]
    ) -> Mapping[int, Tensor]:
        """Slopes by client at the cut gradients of the last `forward`; see `Cohort.probe`."""

    @abstractmethod
    def move(
        self, clients: Sequence[int], round: int, step: int, seeds: Sequence[int], slopes: Tensor
    ) -> None:
        """Step clients along the mean of directions; see `Cohort.move`."""

    @abstractmethod
    def step_tail(self, round: int, step: int, h: Mapping[int, Tensor]) -> StepResult:
        """Step tails on the trunk's outputs for the last `forward`; see `Cohort.step_tail`."""

    @abstractmethod
    def train_local(self, clients: Sequence[int], round: int, work: LocalWork) -> LocalTraining:
        """Train for the local epochs of a round; see `Cohort.train_local`."""

    @abstractmethod
    def state(self) -> State:
        """State of every client that has any, by client.

        Each is `{"body": ..., "head": ...}`, with what `ModelState.state` gives.
        """

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Take over a state that `state` of any engine returned."""

    @abstractmethod
    def take(self, clients: Collection[int]) -> State:
        """Move the state of some clients out of this engine, in the form of `state`."""

    @abstractmethod
    def give(self, state: State) -> None:
        """Add the state of some clients, in the form of `take`, to that of others."""

    @abstractmethod
    def drop_heads(self, clients: Collection[int]) -> None:
        """Drop the heads of clients without any other state; they get new ones."""

    @abstractmethod
    def forget(self) -> None:
        """Drop what clients keep from round to round, except heads of their own."""

    @abstractmethod
    def server_copies(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        seed: int,
        recorder: Recorder | None = None,
    ) -> ServerCopies:
        """Copies of a server model, computed as this engine computes clients."""
