"""Where the round loop and the streams of clients meet: who was asked what, and what each answered."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from fedsplit.errors import NonFinite, RunFailed
from fedsplit.quant.message import Corrupt, Payload
from fedsplit.recording.ledger import Ledger
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import Expectations
from fedsplit.transport.grpc.protocol.wire import Expected, Parcel, check, decoded, one_line
from fedsplit.transport.grpc.server.session import Answer, Asked, Late, Link, Lost, Refused, Session

_LOG = logging.getLogger("fedsplit.network")
_TELL_S = 30.0
_MOST_SAMPLES = 1 << 40
AWAY_S = 15.0
"""Seconds after which a client that is not here is late, where no deadline says it."""


class Hub:
    """All clients of a run that train.

    Args:
        run: 16 bytes that name it.
        clients: how many it has.
        expectations: what they may send.
        sample_counts: of each, as far as they are known already.
        ledger: where bytes are counted that are sent again.
        tell_away: is told now and then who is waited for and is not here.
    """

    joins_with = "ready"
    for_others = "this server trains, and a client with client.model is for split inference"

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
        self.run, self._expectations, self._ledger = run, expectations, ledger
        self._sample_counts, self._tell_away = sample_counts, tell_away
        self.changed = threading.Condition()
        self._sessions = [Session(client) for client in range(clients)]
        self._participants: Collection[int] = ()
        self._after: Mapping[int, int] = {}
        self._round, self._attempt = 0, 0
        self._failure: str | None = None
        self._finished = self._over = False
        self._up = self._down = 0

    # Of streams

    def greet(self, hello: pb.Hello) -> None:
        """Whether a client with this `Hello` may come in.

        Raises:
            Refused: it may not.
        """
        if hello.client >= len(self._sessions):
            told = f"client {hello.client}: this run has clients 0 to {len(self._sessions) - 1}"
            raise Refused(told, for_good=True)
        session = self._sessions[hello.client]
        with self.changed:
            if session.link is not None and session.instance != hello.instance:
                raise Refused(f"client {hello.client} is here already", for_good=False)

    def attach(self, link: Link, hello: pb.Hello, ready: pb.Ready) -> None:
        """Let a client in, and send it what it was asked and has not answered.

        Raises:
            Refused: it cannot take part.
        """
        with self.changed:
            self.greet(hello)
            session = self._sessions[hello.client]
            self._check_data(session, ready)
            after = self._after.get(session.client, 0)
            if not ready.going_on and after and after not in ready.states:
                told = f"client {session.client} comes without its state after {after} rounds"
                raise Refused(f"{told}; start it where it was before", for_good=True)
            if session.link is not None:
                session.link.cut()
            session.link, session.instance, session.samples = link, hello.instance, ready.samples
            if self._finished:
                self._let_go(session)
            else:
                self._go_on(session, ready)
            self.changed.notify_all()
        _LOG.info("client %s is here", hello.client)

    def _check_data(self, session: Session, ready: pb.Ready) -> None:
        known = self._sample_counts[session.client]
        if not 0 < ready.samples <= _MOST_SAMPLES or (known and ready.samples != known):
            wanted = known or "at least one"
            told = f"client {session.client} has {ready.samples} training samples in place of {wanted}"
            raise Refused(f"{told}: not the run's data", for_good=True)

    def _go_on(self, session: Session, ready: pb.Ready) -> None:
        asked = session.asked
        if asked is None:
            return
        verb = asked.verb.head.identity
        last = (ready.round, ready.attempt) if ready.going_on else None
        follows = last == (verb.round, verb.attempt) and ready.number in (verb.number, verb.number - 1)
        if asked.done and last == (verb.round, verb.attempt) and ready.number == verb.number:
            return
        if follows or verb.number == 0:
            self._send(session, asked)
        else:
            session.trouble = "came back without what it did in this round"

    def detach(self, link: Link, client: int, pending: int) -> None:
        """A stream has ended, with so many bytes of payload that belong to no whole message."""
        with self.changed:
            session = self._sessions[client]
            if session.link is not link:  # the client was back before this was noticed
                self._ledger.add_again(self._round, "up", pending)
                return
            session.link = None
            asked = session.asked
            if asked is not None and not asked.done:
                size = pending + sum(parcel.size for parcel in asked.answers)
                self._ledger.add_again(asked.verb.head.identity.round, "up", size)
                asked.answers.clear()
            self.changed.notify_all()
            if not self._finished:
                _LOG.warning("client %s is gone", client)

    def admit(self, link: Link, client: int, frame: pb.FromClient) -> bool:
        """See `Assembler`: whether these tensors are waited for.

        Raises:
            Corrupt: no client sends them.
        """
        with self.changed:
            asked = self._waiting(link, client, frame)
            if asked is None:
                size = sum(tensor.size for tensor in frame.tensors)
                if size > self._expectations.most_up:
                    raise Corrupt(f"{size} bytes are more than any message of this run has")
                self._ledger.add_again(self._round, "up", size)
                return False
            check(frame.tensors, self._expected(asked, frame))
            return True

    def received(self, link: Link, client: int, parcel: Parcel[pb.FromClient]) -> None:
        """A message of a client is whole.

        Raises:
            Corrupt: no client answers like this.
        """
        with self.changed:
            asked = self._waiting(link, client, parcel.head)
            expected = self._expected(asked, parcel.head) if asked is not None else []
        tensors = decoded(parcel, expected) if asked is not None else {}
        with self.changed:
            if asked is None or self._waiting(link, client, parcel.head) is not asked:
                self._ledger.add_again(self._round, "up", parcel.size)
                return
            asked.answers.append(Answer(parcel.head, tensors, parcel.size))
            asked.done = parcel.head.WhichOneof("content") != "upload"
            self._up += parcel.size
            if asked.done:
                self.changed.notify_all()

    def _expected(self, asked: Asked, answer: pb.FromClient) -> list[Expected]:
        """The tensors of an answer to a verb.

        Raises:
            Corrupt: it is not what has to come next.
        """
        verb, content = asked.verb.head, answer.WhichOneof("content")
        if content in ("done", "failed") and answer.identity.step != verb.identity.step:
            raise Corrupt(f"{content} of step {answer.identity.step} came in place of {verb.identity.step}")
        if content == "failed":
            return []
        samples = self._sessions[verb.identity.client].samples
        step = self._next_upload(asked, self._expectations.steps(samples))
        if content == "upload":
            if answer.identity.step != step:
                raise Corrupt(f"an upload of step {answer.identity.step} came in place of one of {step}")
            return self._expectations.upload(self._expectations.batch(samples, step))
        if content != "done" or step is not None:
            raise Corrupt(f"{content} is no answer, or not yet")
        self._check_losses(verb, answer.done, samples)
        if answer.done.difference != asked.difference:
            raise Corrupt("weights came as a difference, or did not, where the other was due")
        if verb.WhichOneof("content") != "upload_weights":
            return []
        part = self._expectations.part(verb.upload_weights.part)
        return self._expectations.sent_up(part, difference=asked.difference)

    def _next_upload(self, asked: Asked, steps: int) -> int | None:
        """The local step of the upload that comes next, of so many steps; None where all are here."""
        verb, came, step = asked.verb.head, len(asked.answers), None
        if verb.WhichOneof("content") == "forward" and not came:
            step = verb.identity.step
        if verb.WhichOneof("content") == "train_local" and verb.train_local.upload_interval:
            step = (came + verb.train_local.skip_first_upload) * verb.train_local.upload_interval
        return step if step is not None and step < steps else None

    def _check_losses(self, verb: pb.FromServer, done: pb.Done, samples: int) -> None:
        steps = self._expectations.steps(samples) if verb.train_local.train_head else 0
        if len(done.losses) != steps or len(done.samples) != steps:
            raise Corrupt(
                f"{len(done.losses)} losses of {len(done.samples)} batches came, and {steps} were due"
            )
        for step, told in enumerate(done.samples):
            if told != self._expectations.batch(samples, step):
                raise Corrupt(f"no batch of step {step} has {told} samples")

    def _waiting(self, link: Link, client: int, frame: pb.FromClient) -> Asked | None:
        """The verb that a message answers, None where it is late, or one that came before."""
        session, came = self._sessions[client], frame.identity
        asked = session.asked
        if asked is None or asked.done or session.link is not link:
            return None
        verb = asked.verb.head.identity
        same = (came.run, came.client, came.round, came.attempt, came.number) == (
            *(verb.run, verb.client, verb.round),
            *(verb.attempt, verb.number),
        )
        before = any(
            parcel.head.identity == came and parcel.head.WhichOneof("content") == frame.WhichOneof("content")
            for parcel in asked.answers
        )
        return asked if same and not before else None

    # Of the round loop

    @property
    def connected(self) -> int:
        """How many clients are here."""
        return sum(session.link is not None for session in self._sessions)

    def wait_for_all(self) -> None:
        """Until all clients are here.

        Raises:
            RunFailed: one will not come.
        """
        told = time.monotonic()
        with self.changed:
            while away := [session.client for session in self._sessions if session.link is None]:
                self._raise_lost()
                told = self._tell_waiting(away, told)
                self.changed.wait(1.0)

    def moved(self) -> tuple[int, int]:
        """Bytes of payload that went up and down since this was asked last."""
        with self.changed:
            moved, self._up, self._down = (self._up, self._down), 0, 0
        return moved

    def samples(self, client: int) -> int:
        """Training samples of a client that is or was here."""
        return self._sessions[client].samples

    def begin(self, round: int, clients: Collection[int], after: Mapping[int, int]) -> None:
        """Begin a round, or begin it again.

        Args:
            round: which.
            clients: that take part.
            after: after how many rounds the state is that each begins with.
        """
        with self.changed:
            self._round, self._attempt = round, self._attempt + 1
            self._participants, self._after = clients, after
            for client in clients:
                session = self._sessions[client]
                session.trouble, session.asked = None, None
        for client in clients:
            self.ask(client, begin=pb.Begin(after=after.get(client, 0)))

    def ask(
        self,
        client: int,
        *,
        step: int = 0,
        tensors: Sequence[tuple[pb.Tensor, Payload]] = (),
        difference: bool = False,
        **verb: pb.Begin | pb.Install | pb.Forward | pb.Backward | pb.TrainLocal | pb.UploadWeights | pb.Keep,
    ) -> None:
        """Send a verb to a client, now or once it is here.

        Args:
            client: which.
            step: that the verb is about.
            tensors: that it carries.
            difference: whether weights that it asks for come as a difference.
            verb: it.
        """
        session = self._sessions[client]
        with self.changed:
            number = session.asked.verb.head.identity.number + 1 if session.asked else 0
            identity = pb.Identity(
                run=self.run,
                client=client,
                round=self._round,
                attempt=self._attempt,
                number=number,
                step=step,
            )
            head = pb.FromServer(identity=identity, tensors=[tensor for tensor, _ in tensors], **verb)  # type: ignore[arg-type]
            session.asked = Asked(Parcel(head, [payload for _, payload in tensors]), difference)
            if session.link is not None:
                self._send(session, session.asked)

    def _send(self, session: Session, asked: Asked) -> None:
        assert session.link is not None
        if asked.sent:
            self._ledger.add_again(asked.verb.head.identity.round, "down", asked.verb.size)
        asked.sent = True
        self._down += asked.verb.size
        session.link.send(asked.verb)

    def answers(
        self, clients: Iterable[int], *, until: float | None, enough: int | None
    ) -> dict[int, list[Answer]]:
        """What clients answered, each up to its `Done`, in the order of `clients`.

        Args:
            clients: all of them were asked.
            until: when who has not answered is late, by the monotonic clock; None: who is not here for long.
            enough: so many have to have done their part before others can be late; None: nobody is ever late.

        Raises:
            Lost: a client of the round cannot go on.
            Late: some have not answered in time.
            NonFinite: what a client had to send was not.
            RunFailed: a client failed.
        """
        asked = {client: self._sessions[client] for client in clients}
        begun = told = time.monotonic()
        with self.changed:
            while waiting := [client for client, session in asked.items() if not _done(session)]:
                self._raise_lost()
                now = time.monotonic()
                if until is not None:
                    late = waiting if now >= until else []
                else:
                    away = [client for client in waiting if self._sessions[client].link is None]
                    late = away if now - begun >= AWAY_S else []
                if enough is not None and late and len(self._participants) - len(late) >= enough:
                    raise Late(late)
                told = self._tell_waiting(waiting, told)
                # a wait without an end could not be interrupted everywhere
                self.changed.wait(1.0 if until is None or now >= until else min(1.0, until - now))
            answered = {client: session.asked.answers for client, session in asked.items() if session.asked}
        for client, parcels in answered.items():
            last = parcels[-1].head
            if last.WhichOneof("content") == "failed":
                if last.failed.not_finite:
                    raise NonFinite(one_line(last.failed.what), client)
                raise RunFailed(f"client {client}: {one_line(last.failed.what)}")
        return answered

    def _raise_lost(self) -> None:
        if self._failure is not None:
            raise RunFailed(self._failure)
        for client in self._participants:
            trouble = self._sessions[client].trouble
            if trouble is not None:
                raise Lost(client, trouble)

    def _tell_waiting(self, clients: Sequence[int], told: float) -> float:
        """Tell who is waited for, if that was not told for a while; when it was told last."""
        now = time.monotonic()
        if now - told < _TELL_S:
            return told
        _LOG.info("waiting for %s", self._named(clients))
        if away := [client for client in clients if self._sessions[client].link is None]:
            self._tell_away(away)
        return now

    def _named(self, clients: Sequence[int]) -> str:
        here = [c for c in clients if self._sessions[c].link is not None]
        away = [c for c in clients if self._sessions[c].link is None]
        told = [f"answers of {listed(here)}"] if here else []
        return " and ".join([*told, f"{listed(away)}, not here"] if away else told)

    def fail(self, reason: str) -> None:
        """The run cannot go on."""
        with self.changed:
            self._failure = reason
            self.changed.notify_all()

    def finish(self, *, tell: bool) -> None:
        """Let all streams end.

        Args:
            tell: whether the run is over, so that clients need not come again.
        """
        with self.changed:
            self._finished, self._over = True, tell
            for session in self._sessions:
                self._let_go(session)

    def _let_go(self, session: Session) -> None:
        if session.link is not None:
            if self._over:
                identity = pb.Identity(run=self.run, client=session.client)
                session.link.send(Parcel(pb.FromServer(identity=identity, finish=pb.Finish())))
                session.told = True
            session.link.close()

    def see_off(self, seconds: float) -> bool:
        """Wait for clients that were here once and are away as the run ends, so that they are told too.

        Returns:
            Whether all are.
        """
        with self.changed:
            return self.changed.wait_for(
                lambda: all(session.told or not session.instance for session in self._sessions), seconds
            )


def _done(session: Session) -> bool:
    return session.asked is not None and session.asked.done


def listed(clients: Sequence[int]) -> str:
    """Of clients, at least one: `client 3`, or `clients 3, 4`."""
    shown = ", ".join(map(str, clients[:10])) + (", ..." if len(clients) > 10 else "")
    return f"client{'s' if len(clients) > 1 else ''} {shown}"
