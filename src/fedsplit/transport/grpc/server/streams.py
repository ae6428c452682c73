"""The streams of clients that train: what each was asked, what it answered, and what is taken of it."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from typing_extensions import override

from fedsplit.errors import format_count
from fedsplit.quant.message import Corrupt
from fedsplit.recording.ledger import Ledger
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import Expectations
from fedsplit.transport.grpc.protocol.frames import ExpectedTensor, Parcel, check, decode_tensors
from fedsplit.transport.grpc.server.meeting import Link, Meeting, Session, StreamRefused


class ClientLost(Exception):
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
        """True if a message answers this verb, and did not come before."""
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
        knows_end: True if it knows that the run has ended.
    """

    samples: int = 0
    pending: PendingVerb | None = None
    trouble: str | None = None
    knows_end: bool = False

    @property
    def is_done(self) -> bool:
        """True if the client has answered what it was asked."""
        return self.pending is not None and self.pending.done


def expected_tensors(
    pending: PendingVerb, answer: pb.FromClient, expectations: Expectations, samples: int
) -> list[ExpectedTensor]:
    """The tensors of the next answer to a verb; `Corrupt` where this is not what has to come next."""
    verb, content = pending.verb.head, answer.WhichOneof("content")
    if content in ("done", "failed") and answer.identity.step != verb.identity.step:
        raise Corrupt(f"{content} of step {answer.identity.step} came in place of {verb.identity.step}")
    if content == "failed":
        return []
    step = _next_upload(pending, expectations.steps(samples, evaluating=verb.forward.evaluating))
    if content == "upload":
        if answer.identity.step != step:
            raise Corrupt(f"an upload of step {answer.identity.step} came in place of one of {step}")
        return expectations.upload(expectations.batch(samples, step), answer.tensors)
    if content != "done" or step is not None:
        raise Corrupt(f"{content} is not an answer, or came too early")
    _check_losses(verb, answer.done, expectations, samples)
    if answer.done.difference != pending.difference:
        raise Corrupt("weights came as a difference where whole ones were due, or the other way round")
    if verb.WhichOneof("content") == "probe":
        return [expectations.slopes()]
    if verb.WhichOneof("content") == "step_tail":
        return expectations.trunk_gradient(expectations.batch(samples, verb.identity.step))
    return _weights(pending, expectations) if verb.WhichOneof("content") == "upload_weights" else []


def _weights(pending: PendingVerb, expectations: Expectations) -> list[ExpectedTensor]:
    """The tensors of weights that a client was asked for."""
    asked = pending.verb.head.upload_weights
    part = expectations.part(asked.part)
    if asked.observed:
        return expectations.observation(part)
    return expectations.sent_up(part, difference=pending.difference)


def _next_upload(pending: PendingVerb, steps: int) -> int | None:
    """The local step of the upload that comes next, of so many steps; None where all are here."""
    verb, came, step = pending.verb.head, len(pending.answers), None
    if verb.WhichOneof("content") == "forward" and not came:
        step = verb.identity.step
    if verb.WhichOneof("content") == "train_local" and verb.train_local.upload_interval:
        step = (came + verb.train_local.skip_first_upload) * verb.train_local.upload_interval
    return step if step is not None and step < steps else None


def _check_losses(verb: pb.FromServer, done: pb.Done, expectations: Expectations, samples: int) -> None:
    steps: Sequence[int] = range(expectations.steps(samples) if verb.train_local.train_head else 0)
    if verb.WhichOneof("content") == "step_tail":
        steps = [verb.identity.step]
    if len(done.losses) != len(steps) or len(done.samples) != len(steps):
        came = f"{len(done.losses)} losses of {len(done.samples)} batches"
        raise Corrupt(f"{came} came, and {len(steps)} were due")
    for step, count in zip(steps, done.samples, strict=True):
        if expectations.term_per_sample and count != expectations.batch(samples, step):
            raise Corrupt(f"no batch of step {step} has {count} samples")


_LOG = logging.getLogger("fedsplit.network")
_MOST_SAMPLES = 1 << 40


class TrainingStreams(Meeting[TrainingSession]):
    """The side of a `Hub` that streams see.

    Args:
        sample_counts: number of samples of each client, as far as they are known already.
        ledger: ledger that counts bytes that are sent again.
        tell_away: is called now and then with the clients that are awaited and not here.
    """

    joins_with = "ready"
    for_others = "this server trains, and a client with client.model is for split inference"
    role = "client"
    expectation = "this run has clients"

    def __init__(
        self,
        *,
        run: bytes,
        clients: int,
        expectations: Expectations,
        sample_counts: Sequence[int],
        ledger: Ledger,
        tell_away: Callable[[Sequence[int]], None] = lambda clients: None,
    ) -> None:
        super().__init__(run, [TrainingSession(client) for client in range(clients)])
        self._expectations, self._sample_counts, self._ledger = expectations, sample_counts, ledger
        self._tell_away = tell_away
        self._participants: Collection[int] = ()
        self._attempt = 0
        self._failure: str | None = None
        self._after: Mapping[int, int] = {}
        self._round = 0
        self._over = False
        self._up = self._down = 0

    @override
    def attach(self, link: Link, hello: pb.Hello, joins: pb.Ready) -> None:
        """Attach a client's stream, and send what the client was asked and has not answered."""
        with self.condition:
            self.greet(hello)
            session = self._sessions[hello.client]
            self._check_data(session, joins)
            after = self._after.get(session.client, 0)
            if not joins.going_on and after and after not in joins.states:
                rounds = format_count(after, "round")
                message = f"client {session.client} comes without its state after {rounds}"
                raise StreamRefused(f"{message}; start it where it was before", for_good=True)
            self._replace_link(session, link, hello)
            session.samples = joins.samples
            if self._finished:
                session.knows_end |= self._let_go(session, tell=self._over)
            else:
                self._go_on(session, joins)
            self.condition.notify_all()
        _LOG.info("client %s is here", hello.client)

    def _check_data(self, session: TrainingSession, ready: pb.Ready) -> None:
        known = self._sample_counts[session.client]
        if not 0 < ready.samples <= _MOST_SAMPLES or (known and ready.samples != known):
            wanted = known or "at least one"
            message = f"client {session.client} has {ready.samples} training samples in place of {wanted}"
            raise StreamRefused(f"{message}: not the run's data", for_good=True)

    def _go_on(self, session: TrainingSession, ready: pb.Ready) -> None:
        pending = session.pending
        if pending is None:
            return
        verb = pending.verb.head.identity
        last = (ready.round, ready.attempt) if ready.going_on else None
        follows = last == (verb.round, verb.attempt) and ready.number in (verb.number, verb.number - 1)
        if follows and pending.done and ready.number == verb.number:
            return
        if follows or verb.number == 0:
            self._send(session, pending)
        else:
            session.trouble = "came back without what it did in this round"

    def _send(self, session: TrainingSession, pending: PendingVerb) -> None:
        assert session.link is not None
        if pending.sent:
            self._ledger.add_again(pending.verb.head.identity.round, "down", pending.verb.size)
        pending.sent = True
        self._down += pending.verb.size
        session.link.send(pending.verb)

    @override
    def detach(self, link: Link, client: int, pending: int) -> None:
        """Detach a client's stream; parts of an answer that is not whole have to come again."""
        with self.condition:
            session = self._sessions[client]
            if session.link is not link:  # the client was back before this was noticed
                self._ledger.add_again(self._round, "up", pending)
                return
            session.link = None
            asked = session.pending
            if asked is not None and not asked.done:
                size = pending + sum(answer.size for answer in asked.answers)
                self._ledger.add_again(asked.verb.head.identity.round, "up", size)
                asked.answers.clear()
            self.condition.notify_all()
            if not self._finished:
                _LOG.warning("client %s is gone", client)

    @override
    def admit(self, link: Link, client: int, frame: pb.FromClient) -> bool:
        with self.condition:
            pending = self._waiting(link, client, frame)
            if pending is None:
                size = sum(tensor.size for tensor in frame.tensors)
                if size > self._expectations.most_up:
                    raise Corrupt(f"a message of {size} bytes is larger than any of this run")
                self._ledger.add_again(self._round, "up", size)
                return False
            samples = self._sessions[client].samples
            check(frame.tensors, expected_tensors(pending, frame, self._expectations, samples))
            return True

    @override
    def receive(self, link: Link, client: int, parcel: Parcel[pb.FromClient]) -> None:
        tensors = {}
        with self.condition:
            pending, samples = self._waiting(link, client, parcel.head), self._sessions[client].samples
            if pending is not None:
                expected = expected_tensors(pending, parcel.head, self._expectations, samples)
        if pending is not None:
            tensors = decode_tensors(parcel, expected)
            if "y" in tensors:
                self._expectations.check_positions(tensors["z"], tensors["y"])
        with self.condition:
            if pending is None or self._waiting(link, client, parcel.head) is not pending:
                self._ledger.add_again(self._round, "up", parcel.size)
                return
            pending.answers.append(Answer(parcel.head, tensors, parcel.size))
            pending.done = parcel.head.WhichOneof("content") != "upload"
            self._up += parcel.size
            if pending.done:
                self.condition.notify_all()

    def _waiting(self, link: Link, client: int, frame: pb.FromClient) -> PendingVerb | None:
        """The verb that a message answers, None where it is late, or one that came before."""
        session = self._sessions[client]
        if session.link is not link or session.pending is None or not session.pending.waits_for(frame):
            return None
        return session.pending
