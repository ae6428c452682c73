"""What a client that trains was asked, and what it answered so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Parcel
from fedsplit.transport.grpc.server.session import Session


class Lost(Exception):
    """A client cannot go on with the round; it is to be begun again."""

    def __init__(self, client: int, reason: str) -> None:
        super().__init__(client, reason)
        self.client, self.reason = client, reason


class Late(Exception):
    """Clients that have not done their part in time."""

    def __init__(self, clients: Sequence[int]) -> None:
        super().__init__(clients)
        self.clients = clients


@dataclass(frozen=True)
class Answer:
    """A message of a client, its tensors, and the bytes of payload that they came in."""

    head: pb.FromClient
    tensors: Mapping[str, Tensor]
    size: int


@dataclass
class PendingVerb:
    """A verb that a client was sent, or will be once it is here, and what it answered so far.

    Weights that it asks for come as a difference, or not.
    """

    verb: Parcel[pb.FromServer]
    difference: bool
    sent: bool = False
    answers: list[Answer] = field(default_factory=list)
    done: bool = False

    def waits_for(self, answer: pb.FromClient) -> bool:
        """Whether a message answers this verb, and did not come before."""
        came, verb = answer.identity, self.verb.head.identity
        same = (came.run, came.client, came.round, came.attempt, came.number) == (
            *(verb.run, verb.client, verb.round),
            *(verb.attempt, verb.number),
        )
        before = any(
            each.head.identity == came and each.head.WhichOneof("content") == answer.WhichOneof("content")
            for each in self.answers
        )
        return same and not before and not self.done


@dataclass
class TrainingSession(Session):
    """A client that trains.

    Args:
        samples: training samples that it has; 0 until it came.
        pending: the last verb of the round; None before the first.
        trouble: why it cannot go on with the round.
        told: whether it knows that the run has ended.
    """

    samples: int = 0
    pending: PendingVerb | None = None
    trouble: str | None = None
    told: bool = False

    @property
    def is_done(self) -> bool:
        """Whether it has answered what it was asked."""
        return self.pending is not None and self.pending.done
