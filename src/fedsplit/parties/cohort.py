"""Cohorts: verbs of a server for the clients of a round; a transport says how they travel."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from fedsplit.parties.messages import LocalTraining, LocalWork, Part, StepResult, Upload
from fedsplit.state.weights import Weights


class Cohort(ABC):
    """The clients of one round. A verb goes to all of them, and answers come back in client order."""

    @property
    @abstractmethod
    def clients(self) -> Sequence[int]:
        """Numbers of the clients, ascending."""

    @property
    @abstractmethod
    def sample_counts(self) -> Sequence[int]:
        """Training samples of each, in the order of `clients`."""

    @abstractmethod
    def select(self, clients: Collection[int]) -> "Cohort":
        """The cohort of some of them."""

    @abstractmethod
    def install(self, part: Part, weights: Weights) -> None:
        """Send the same weights to all."""

    @abstractmethod
    def install_own(self, part: Part, weights: Mapping[int, Weights]) -> None:
        """Send each client weights of its own."""

    @abstractmethod
    def forward(self, step: int, *, evaluating: bool = False) -> Sequence[Upload]:
        """Upload one local step's smashed data; clients that have no such step are left out.

        Args:
            step: number of the local step in the round.
            evaluating: True for smashed data as models are evaluated: with running statistics and without
                  augmentation, in one pass over the samples. No `backward` follows.
        """

    @abstractmethod
    def backward(self, step: int, dz: Mapping[int, Tensor]) -> None:
        """Send the cut gradients of the last `forward`, by client; the clients step.

        Args:
            step: number of the step of that `forward`.
            dz: cut gradients of each client that uploaded; see `BroadcastGradients` for those that many
                share.
        """

    @abstractmethod
    def probe(self, step: int, dz: Mapping[int, Tensor], seeds: Sequence[int]) -> Mapping[int, Tensor]:
        """Send the cut gradients of the last `forward`, by client, and seeds; the clients answer by slopes.

        Args:
            step: number of the step of that `forward`.
            dz: cut gradients of each client that uploaded.
            seeds: seeds of random directions, from 0 to below 2^31.

        Returns:
            A slope along the direction of each seed, `(P,)`, by client: see `LocalRule.slopes`.
        """

    @abstractmethod
    def move(self, step: int, seeds: Sequence[int], slopes: Tensor) -> None:
        """Send slopes `(P,)` to all, and seeds to those that did not answer them; all step along them."""

    @abstractmethod
    def step_tail(self, step: int, h: Mapping[int, Tensor]) -> StepResult:
        """Send outputs of the trunk for the last `forward`, by client; the clients' tails step on the loss.

        Servers reach this by `Upload.tail`, so that an algorithm need not know whether there is a tail.

        Returns:
            The losses, of before the step, and the gradients with respect to `h`.
        """

    @abstractmethod
    def train_local(self, work: LocalWork) -> LocalTraining:
        """Train for the local epochs of the round."""

    @abstractmethod
    def observe(self, part: Part) -> Sequence[Weights]:
        """Copies of clients' weights as they are, in the order of `clients`.

        They are for measuring and saving what clients never send: no algorithm computes with them, and they
        are no part of the communication load.
        """

    @abstractmethod
    def weights(self, part: Part) -> Sequence[Weights]:
        """Upload weights, in the order of `clients`; the caller reads them before it calls another verb."""
