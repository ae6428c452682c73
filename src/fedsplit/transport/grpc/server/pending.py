"""What a client that trains was asked, what it answered so far, and what its next answer has to be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import Expectations
from fedsplit.transport.grpc.protocol.frames import Parcel
from fedsplit.transport.grpc.protocol.tensors import Expected
from fedsplit.transport.grpc.server.meeting import Session


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


def expected_tensors(
    pending: PendingVerb, answer: pb.FromClient, expectations: Expectations, samples: int
) -> list[Expected]:
    """The tensors of an answer to a verb.

    Args:
        pending: the verb, and what was answered before.

    Raises:
        Corrupt: it is not what has to come next.
    """
    verb, content = pending.verb.head, answer.WhichOneof("content")
    if content in ("done", "failed") and answer.identity.step != verb.identity.step:
        raise Corrupt(f"{content} of step {answer.identity.step} came in place of {verb.identity.step}")
    if content == "failed":
        return []
    step = _next_upload(pending, expectations.steps(samples))
    if content == "upload":
        if answer.identity.step != step:
            raise Corrupt(f"an upload of step {answer.identity.step} came in place of one of {step}")
        return expectations.upload(expectations.batch(samples, step))
    if content != "done" or step is not None:
        raise Corrupt(f"{content} is no answer, or not yet")
    _check_losses(verb, answer.done, expectations, samples)
    if answer.done.difference != pending.difference:
        raise Corrupt("weights came as a difference, or did not, where the other was due")
    if verb.WhichOneof("content") != "upload_weights":
        return []
    return expectations.sent_up(expectations.part(verb.upload_weights.part), difference=pending.difference)


def _next_upload(pending: PendingVerb, steps: int) -> int | None:
    """The local step of the upload that comes next, of so many steps; None where all are here."""
    verb, came, step = pending.verb.head, len(pending.answers), None
    if verb.WhichOneof("content") == "forward" and not came:
        step = verb.identity.step
    if verb.WhichOneof("content") == "train_local" and verb.train_local.upload_interval:
        step = (came + verb.train_local.skip_first_upload) * verb.train_local.upload_interval
    return step if step is not None and step < steps else None


def _check_losses(verb: pb.FromServer, done: pb.Done, expectations: Expectations, samples: int) -> None:
    steps = expectations.steps(samples) if verb.train_local.train_head else 0
    if len(done.losses) != steps or len(done.samples) != steps:
        raise Corrupt(f"{len(done.losses)} losses of {len(done.samples)} batches came, and {steps} were due")
    for step, told in enumerate(done.samples):
        if told != expectations.batch(samples, step):
            raise Corrupt(f"no batch of step {step} has {told} samples")
