"""Wires, which deliver the messages of a round and bring back what clients send."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar, TypeAlias

from torch import Tensor

from fedsplit.parties.messages import LocalTraining, LocalWork, Part, StackedGradients, StepResult, Upload
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.weights_link import Delivery
from fedsplit.state.weights import Weights
from fedsplit.transport.tally import Tally

CodedGradients: TypeAlias = StackedGradients | Iterable[tuple[int, SentTensor]]
"""Cut gradients to each client, encoded when they are read; uncoded stacks where no codec is at work."""


class Wire(ABC):
    """Carries the verbs of one round, see `Cohort`, for the clients that each names.

    Everything that comes from clients is given to the tally first, client by client or as stacks.

    Args:
        round: number of the round.
        tally: counts what comes.
    """

    packs: ClassVar[bool]
    """True if gradients to clients are packed into messages; otherwise only decoded values are computed."""

    def __init__(self, round: int, tally: Tally) -> None:
        self.round, self.tally = round, tally
        self.probe_step: tuple[int, Collection[int]] = (-1, ())
        """Local step of the last `probe`, and the clients that answered its seeds."""
        self.labels: dict[int, Tensor] = {}
        """Labels by client of the last `forward`, of data that are padded."""

    @abstractmethod
    def samples(self, client: int) -> int:
        """Training samples of a client."""

    @abstractmethod
    def install(self, part: Part, deliveries: Mapping[int, Delivery]) -> None:
        """Deliver weights; clients that share a delivery get the same message."""

    @abstractmethod
    def forward(self, clients: Sequence[int], step: int, *, evaluating: bool) -> Sequence[Upload]:
        """Smashed data of a local step as they arrive, in client order, of clients that have such a step."""

    @abstractmethod
    def backward(self, step: int, dz: CodedGradients) -> None:
        """Deliver the cut gradients of the last `forward`; the clients step."""

    @abstractmethod
    def probe(
        self, step: int, dz: Iterable[tuple[int, SentTensor]], seeds: Sequence[int]
    ) -> Mapping[int, Tensor]:
        """Deliver the cut gradients of the last `forward` and seeds; slopes as they arrive, by client."""

    @abstractmethod
    def move(
        self,
        clients: Sequence[int],
        step: int,
        seeds: Sequence[int],
        slopes: SentTensor,
        unaware: Collection[int],
    ) -> None:
        """Deliver slopes, and seeds to clients that are `unaware` of them; the clients step."""

    @abstractmethod
    def step_tail(self, step: int, h: CodedGradients) -> StepResult:
        """Deliver outputs of the trunk for the last `forward`; see `Cohort.step_tail`, as replies arrive."""

    @abstractmethod
    def train_local(self, clients: Sequence[int], work: LocalWork) -> LocalTraining:
        """Let clients train for the local epochs of the round; uploads are as they arrive."""

    @abstractmethod
    def observe(self, part: Part, clients: Sequence[int]) -> Sequence[Weights]:
        """Copies of weights as clients have them, see `Cohort.observe`."""

    @abstractmethod
    def weights(self, part: Part, clients: Sequence[int], held: Mapping[int, Weights]) -> Sequence[Weights]:
        """Weights as they arrive, in the order of `clients`, to be read before anything else is asked.

        Args:
            part: part of the model.
            clients: whose.
            held: weights that a client sends the difference to, where it sends one.
        """
