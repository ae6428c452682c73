"""Transports, which carry the verbs of a round to the clients and back."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import torch

from fedsplit.config.run_config import RunConfig
from fedsplit.data.dataset import Dataset
from fedsplit.data.fingerprint import Fingerprint
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.engine import Engine
from fedsplit.parties.messages import Part
from fedsplit.quant.quantization import Quantization
from fedsplit.quant.weights_link import Downlink
from fedsplit.recording.ledger import Ledger
from fedsplit.state.state import State
from fedsplit.state.weights import Weights

Result = TypeVar("Result")


class Stateful(Protocol):
    """Servers of an algorithm, whose state can be set back."""

    def state(self) -> State:
        """Everything the next round depends on; tensors may still be moved later."""

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""


@dataclass(frozen=True, kw_only=True)
class RunSetting:
    """Parts of a run that a transport needs.

    Args:
        config: configuration of the run.
        engine: answers for clients that are computed in this process.
        sample_counts: training samples of every client.
        dataset: data of the run; clients elsewhere are told their form.
        fingerprint: fingerprint of its data, see `fedsplit.building.data.Data`.
        quantization: a codec for each kind of message.
        smashed_shape: shape of one sample.
        client_weights: weights of the client model, which show the form of weights that travel.
        head_weights: weights of the clients' head, likewise; empty where they have none.
        trunk_shape: shape of one sample of what clients with a tail are sent; None where their model has
            none.
        control_variates: control variates, which show their form; empty where clients have none.
        probes: seeds that clients answer in a local step; 0 where they answer none.
        device: device of weights.
        seed: seed of what codecs draw.
        ledger: ledger that counts bytes.
        build: makes the same in the process of one client.
        frozen_digest: digest of parameters that do not learn, which no message carries.
    """

    config: RunConfig
    engine: Engine
    sample_counts: Sequence[int]
    dataset: Dataset
    fingerprint: Fingerprint
    quantization: Quantization
    smashed_shape: tuple[int, ...]
    client_weights: Weights
    head_weights: Weights
    control_variates: Weights
    device: torch.device
    seed: int
    ledger: Ledger
    build: "BuildRun"
    trunk_shape: tuple[int, ...] | None = None
    frozen_digest: str = ""
    probes: int = 0


@dataclass(frozen=True)
class Member:
    """Identity and data of one client, as its process is told them.

    Args:
        client: number of the client.
        prepare: makes inputs of this process's data as the run does; raises `UserError` where these are not
            what the run is about.
        secret: secret that its noise is drawn from, and that only its machine knows; None: derived from the
            seed.
    """

    client: int
    prepare: Callable[[Dataset], Dataset]
    secret: bytes | None = None


BuildRun: TypeAlias = Callable[[RunConfig, Member], RunSetting]
"""Function that builds what one client's process needs of a run, from its configuration and membership."""


class Transport(ABC):
    """Brings clients together with the servers, for one run.

    Args:
        run: setting of the run.
    """

    client_seconds: float = 0.0
    """Seconds spent in clients' verbs; the round loop sets it back."""
    has_restored: bool = False
    """True if the servers are again as they were before the round that was interrupted last."""
    downlinks: dict[Part, Downlink]
    """The server's end of the ways that weights take, by part."""
    left_out: Sequence[int] = ()
    """Clients that the last round went on without."""

    def __init__(self, run: RunSetting) -> None:
        self.run = run

    @contextmanager
    def at_clients(self) -> Iterator[None]:
        """Add the time in which clients answer to `client_seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.client_seconds += time.perf_counter() - start

    def describe_traffic(self, seconds: float) -> str:
        """Summary of network traffic during the last `seconds`, in one line; empty without a network."""
        return ""

    def open(self, directory: Path) -> AbstractContextManager[object]:
        """Connect the clients, and disconnect them afterwards.

        Args:
            directory: directory of the run.
        """
        return nullcontext()

    @abstractmethod
    def run_round(
        self, t: int, clients: Collection[int], train: Callable[[Cohort], Result], servers: Stateful
    ) -> Result:
        """Train a round with some clients.

        Args:
            t: the round.
            clients: clients of the round.
            train: function that does the algorithm's round with a cohort.
            servers: servers whose state `train` moves.

        Raises:
            RunFailed: a client failed, or what it sent is not finite.
        """

    def samples(self, client: int) -> int:
        """Training samples of a client of the last round."""
        return self.run.sample_counts[client]

    def drop_auxiliaries(self, clients: Collection[int]) -> None:
        """Drop what is kept of clients' auxiliary models, which they get whole the next time."""
        self.downlinks["auxiliary"].drop(clients)
        self.run.engine.drop_heads(clients)

    @abstractmethod
    def forget_clients(self) -> None:
        """Drop what clients keep from round to round; see `Engine.forget`."""

    @abstractmethod
    def state(self) -> State:
        """State of clients and links, as far as it is kept in this process."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
