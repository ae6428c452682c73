"""Algorithms: state of the servers, and one round that moves it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.estimators.alignment import Alignment
from fedsplit.network.timelines.timeline import Timeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.local_rule import LocalRule
from fedsplit.parties.messages import Part
from fedsplit.parties.server_copies import ServerCopies
from fedsplit.parties.shared_client import SharedClient
from fedsplit.parties.split_server import SplitServer
from fedsplit.state.state import State
from fedsplit.state.weights import Weights

ClientHead: TypeAlias = Literal["none", "server", "auxiliary", "estimator"]
Half: TypeAlias = Literal["client", "server"]


def _refuse_shared_client(rule: LocalRule) -> SharedClient:
    raise AssertionError("this start has no shared client model")


@dataclass(frozen=True)
class Start:
    """Starting point of every algorithm.

    Args:
        client_weights: weights of the client model.
        auxiliary_weights: weights of the auxiliary model; empty where the algorithm has none.
        server: the party that holds the server model.
        server_copies: copies of the server model, one for each client; not loaded yet.
        alignment: alignment that fits clients' auxiliary models.
        seed: seed of the run.
        padding: value of smashed data behind the end of a text.
        buffers: names of the buffers of client and server model, which no gradient moves.
        num_clients: number of clients in the run; a round's cohort may be fewer.
        has_positions: True if samples are texts, of which some have more positions than others.
        shared_client: maker of the server's copy of a client model that all clients move alike, by a rule.
    """

    client_weights: Weights
    auxiliary_weights: Weights
    server: SplitServer
    server_copies: ServerCopies
    alignment: Alignment
    seed: int
    padding: float = 0.0
    buffers: frozenset[str] = frozenset()
    num_clients: int = 1
    has_positions: bool = False
    shared_client: Callable[[LocalRule], SharedClient] = _refuse_shared_client


@dataclass(frozen=True)
class RoundMetrics:
    """Mean loss of the split model on the training batches that the algorithm evaluates it on."""

    train_loss: float


@dataclass(frozen=True)
class Exposure:
    """Local steps of a client in a round by which something of its samples leaves it.

    Args:
        smashed: steps whose smashed data are uploaded; one that is uploaded twice is there once. None where
            an algorithm does not say.
        gradients: steps that move weights which are sent.
    """

    smashed: Collection[int] | None
    gradients: Collection[int]


class Algorithm(ABC):
    """One file an algorithm, and in it mathematics only: no bytes, no clocks, no devices, no logging."""

    client_head: ClassVar[ClientHead]
    """Part of the model that a client holds behind its client model."""
    copies_server: ClassVar[bool] = False
    """True if the server keeps a copy of the server model, with its optimizer, for each client."""
    takes_turns: ClassVar[bool] = False
    """True if clients train one after the other by definition, so that they cannot be computed at once."""
    takes_tail: ClassVar[bool] = False
    """True if clients may hold the tail of a model that is cut twice; they send no labels then."""
    own_half: Half | None = None
    """Half of the model that is each client's own, neither sent nor averaged; None where they share all."""
    timeline: ClassVar[Timeline | None] = None
    """Schedule of a round, which says who waits for whom on a simulated network; None if it is not known."""
    own_rule: ClassVar[type[LocalRule] | None] = None
    """Rule that clients follow in a local step; None: any of `algorithm.local_rule`. One that can be chosen
    there has to be; another gets those of the algorithm's arguments that it takes."""
    trains: ClassVar[tuple[Half, ...]] = ("client", "server")
    """The halves of the model that a round moves."""
    label: ClassVar[str | None] = None
    """Name of the algorithm in figures; None takes its choice's name. Must be a literal, as `place`."""
    place: ClassVar[int | None] = None
    """Position among algorithms in tables and figures, from 0, which sets its colour; None: at the end."""

    samples_at_rest: int = 0
    """Samples that the server went through in the last round once all uploads were there, for timelines."""

    def __init__(self, start: Start) -> None:
        self.client_weights = start.client_weights
        self.server = start.server
        self.seed, self.padding = start.seed, start.padding
        self.own_weights: dict[int, Weights] = {}
        """Weights of each client's own half, copied from clients that took part, to be measured and saved."""

    @property
    def trains_head(self) -> bool:
        """True if clients train the model behind their client model in any round."""
        return self.client_head in ("server", "auxiliary")

    @abstractmethod
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        """Round `t`, counted from 0, with the clients of `cohort`."""

    @classmethod
    def own_half_with(cls, arguments: Mapping[str, object]) -> Half | None:
        """Half that is each client's own, given the arguments of the algorithm."""
        return cls.own_half

    @staticmethod
    def round_load(terms: RoundLoad) -> float | None:
        """Bytes up and down in a round, in closed form; None where the algorithm gives no such formula."""
        return None

    def exposure(self, t: int, client: int, *, steps: int, epochs: int) -> Exposure:
        """Local steps by which samples of a client leave it in round `t`, once the round was run.

        Args:
            t: number of the round, from 0.
            client: number of a client that took part.
            steps: local steps of the client in a round.
            epochs: local epochs of a round.
        """
        every = range(steps)
        if self.own_half == "client":
            return Exposure(every, ())
        if self.client_head in ("auxiliary", "estimator"):
            return Exposure(None, every)
        return Exposure(every if self.client_head == "none" else (), every)

    def forget_clients(self) -> None:  # noqa: B027  (most keep nothing)
        """Drop optimizer state that is kept for each client."""

    def gradient_error(self, t: int, clients: Collection[int]) -> float | None:
        """Relative squared error of what `clients` estimate cut gradients with, at the end of round `t`.

        Measuring moves nothing. None where an algorithm, or this round of it, estimates none.
        """
        return None

    def full_weights(self) -> Weights:
        """The model to evaluate: client model and server model together."""
        return self.client_weights | self.server.weights()

    def observe(self, cohort: Cohort) -> None:
        """Copy the weights of the clients' own half at the end of a round."""
        if self.own_half is not None:
            part: Part = (
                "client" if self.own_half == "client" else "auxiliary"
            )  # the head, whichever model it is
            self.own_weights |= zip(cohort.clients, cohort.observe(part), strict=True)

    def models(self, clients: int) -> list[Weights]:
        """Models to evaluate: the one that all share, or one for each of so many clients.

        A client that never took part has what it began with as its own.
        """
        shared = self.full_weights()
        if self.own_half is None:
            return [shared]
        return [
            shared | self.own_weights[client] if client in self.own_weights else shared
            for client in range(clients)
        ]

    def evaluated_auxiliary(self) -> Weights | None:
        """The auxiliary model, where it is evaluated in place of a server model that is not trained yet."""
        return None

    def auxiliary_weights(self) -> dict[str, Weights]:
        """Auxiliary models to save: `auxiliary`, or one for each client as `auxiliary-<client>`."""
        return {}

    def state(self) -> State:
        """Everything the next round depends on."""
        weights_by_client = {str(client): weights for client, weights in self.own_weights.items()}
        state = {"client_weights": self.client_weights, "server": self.server.state()}
        return state if self.own_half is None else state | {"own": weights_by_client}

    def load_state(self, state: State) -> None:
        """Load a state that `state` returned."""
        self.client_weights = dict(state["client_weights"])
        self.server.load_state(state["server"])
        self.own_weights = {int(client): dict(weights) for client, weights in state.get("own", {}).items()}
