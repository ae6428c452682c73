"""Where the round loop and the streams of clients meet: who was asked what, and what each answered."""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from fedsplit.errors import NonFinite, RunFailed
from fedsplit.quant.message import Payload
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Parcel, one_line
from fedsplit.transport.grpc.server.meeting import Reminder
from fedsplit.transport.grpc.server.streams import Answer, ClientLost, Late, PendingVerb, TrainingStreams

_LOG = logging.getLogger("fedsplit.network")
Verb: TypeAlias = (
    pb.Begin
    | pb.Install
    | pb.Forward
    | pb.Backward
    | pb.StepTail
    | pb.Probe
    | pb.Move
    | pb.TrainLocal
    | pb.UploadWeights
    | pb.Keep
)
"""Request to a client that trains."""
AWAY_S = 15.0
"""Seconds after which a client that is not here is late, where no deadline says it."""


class Hub(TrainingStreams):
    """All clients of a run that train; see `TrainingStreams` for its arguments."""

    @property
    def connected_count(self) -> int:
        """Number of clients that are here."""
        return sum(session.link is not None for session in self._sessions)

    def wait_for_all(self) -> None:
        """Wait until all clients are here; `RunFailed` where one will not come."""
        reminder = Reminder()
        with self.condition:
            while away := [session.client for session in self._sessions if session.link is None]:
                self._raise_lost()
                self._tell_waiting(away, reminder)
                self.condition.wait(1.0)

    def take_traffic(self) -> tuple[int, int]:
        """Take the bytes of payload that went up and down since the last call."""
        with self.condition:
            moved, self._up, self._down = (self._up, self._down), 0, 0
        return moved

    def samples(self, client: int) -> int:
        """Training samples of a client that is or was here."""
        return self._sessions[client].samples

    def begin(self, round: int, clients: Collection[int], after: Mapping[int, int]) -> None:
        """Begin a round, or begin it again, each client with its state after so many rounds."""
        with self.condition:
            self._round, self._attempt = round, self._attempt + 1
            self._participants, self._after = clients, after
            for client in clients:
                session = self._sessions[client]
                session.trouble, session.pending = None, None
        for client in clients:
            self.ask(client, begin=pb.Begin(after=after.get(client, 0)))

    def ask(
        self,
        client: int,
        *,
        step: int = 0,
        tensors: Sequence[tuple[pb.Tensor, Payload]] = (),
        difference: bool = False,
        **verb: Verb,
    ) -> None:
        """Send a verb to a client, now or once it is here.

        Args:
            step: number of the step of the verb.
            difference: True if weights that it asks for come as a difference.
        """
        session = self._sessions[client]
        with self.condition:
            number = session.pending.verb.head.identity.number + 1 if session.pending else 0
            identity = pb.Identity(
                run=self.run,
                client=client,
                round=self._round,
                attempt=self._attempt,
                number=number,
                step=step,
            )
            head = pb.FromServer(identity=identity, tensors=[tensor for tensor, _ in tensors], **verb)  # type: ignore[arg-type]
            session.pending = PendingVerb(Parcel(head, [payload for _, payload in tensors]), difference)
            if session.link is not None:
                self._send(session, session.pending)

    def answers(
        self, clients: Iterable[int], *, until: float | None, enough: int | None
    ) -> dict[int, list[Answer]]:
        """Answers of clients, each up to its `Done`, in the order of `clients`.

        Args:
            clients: all of them were asked.
            until: time when a client is late, by the monotonic clock; None: one that is not here for long.
            enough: so many have to have done their part before others can be late; None: nobody is ever late.

        Raises:
            Lost: a client of the round cannot go on.
            Late: some have not answered in time.
            NonFinite: what a client had to send was not.
            RunFailed: a client failed.
        """
        asked = {client: self._sessions[client] for client in clients}
        begun, reminder = time.monotonic(), Reminder()
        with self.condition:
            while waiting := [client for client, session in asked.items() if not session.is_done]:
                self._raise_lost()
                now = time.monotonic()
                if until is not None:
                    late = waiting if now >= until else []
                else:
                    late = self._away(waiting) if now - begun >= AWAY_S else []
                if enough is not None and late and len(self._participants) - len(late) >= enough:
                    raise Late(late)
                self._tell_waiting(waiting, reminder)
                # a wait without an end could not be interrupted everywhere
                self.condition.wait(1.0 if until is None or now >= until else min(1.0, until - now))
            answered = {c: session.pending.answers for c, session in asked.items() if session.pending}
        for client, answers in answered.items():
            last = answers[-1].head
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
                raise ClientLost(client, trouble)

    def _away(self, clients: Iterable[int]) -> list[int]:
        return [client for client in clients if self._sessions[client].link is None]

    def _tell_waiting(self, clients: Sequence[int], reminder: Reminder) -> None:
        if not reminder.is_due():
            return
        away = self._away(clients)
        here = [client for client in clients if client not in away]
        awaited = [f"answers of {name_clients(here)}"] if here else []
        awaited += [f"{name_clients(away)}, not here"] if away else []
        _LOG.info("waiting for %s", " and ".join(awaited))
        if away:
            self._tell_away(away)

    def fail(self, reason: str) -> None:
        """The run cannot go on."""
        with self.condition:
            self._failure = reason
            self.condition.notify_all()

    def finish(self, *, tell: bool) -> None:
        """Let all streams end; `tell` says whether the run is over, so that clients need not come again."""
        with self.condition:
            self._finished, self._over = True, tell
            for session in self._sessions:
                session.knows_end |= self._let_go(session, tell=tell)

    def see_off(self, seconds: float) -> bool:
        """Wait for clients that were here once and are away as the run ends, so that they are told too.

        Returns:
            True if all have been told.
        """
        with self.condition:
            return self.condition.wait_for(
                lambda: all(session.knows_end or not session.instance for session in self._sessions), seconds
            )


def name_clients(clients: Sequence[int]) -> str:
    """Names of clients, at least one: `client 3`, or `clients 3, 4`."""
    shown = ", ".join(map(str, clients[:10])) + (", ..." if len(clients) > 10 else "")
    return f"client{'s' if len(clients) > 1 else ''} {shown}"
