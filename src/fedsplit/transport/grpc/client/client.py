"""The client's end of the network: dials in, for ever, and lets the worker answer what the server asks."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fedsplit.config.component import component_of
from fedsplit.errors import RunFailed, UserError, first_line
from fedsplit.files import bounded
from fedsplit.files.whole import write_text
from fedsplit.machine.allowance import allowing_a_client
from fedsplit.parties.sequential import Sequential
from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.client.dialling import Dialler, Outbox
from fedsplit.transport.grpc.client.worker import Answer, Worker
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.plan import check_data, configuration_of_client, normalisation
from fedsplit.transport.grpc.protocol.tls import Tls
from fedsplit.transport.grpc.protocol.wire import Assembler, Parcel, one_line
from fedsplit.transport.transport import BuildRun, Member

_LOG = logging.getLogger("fedsplit.network")


class Client(Dialler):
    """One client, for as long as its run lasts.

    Args:
        server: address and port.
        client: its number.
        tls: who it is, and whom it trusts; None without.
        folder: where its states are kept; None: below `saves/clients`, by run and number.
        own: keys of the configuration that are this machine's own, such as `dataset.root`.
        memory_mb: MB of memory that a run may ask for; None: half of this machine's.
        build: makes what a client needs of a run.
        turn: entered while the client computes; where many share a machine, it may have to wait.
    """

    def __init__(
        self,
        *,
        server: str,
        client: int,
        tls: Tls | None,
        folder: Path | None,
        own: Mapping[str, object],
        build: BuildRun,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
        memory_mb: float | None = None,
    ) -> None:
        super().__init__(server, client, tls)
        self._build, self._turn, self._folder, self._own = build, turn, folder, own
        self._memory_mb = memory_mb
        self._run = self._known_server = b""
        self._worker: Worker | None = None
        self._last: tuple[int, int, int] | None = None
        self._verb = pb.FromServer()
        self._answer: Answer = []

    def call(self, stub: federation_pb2_grpc.FederationStub) -> Any:
        """See `Dialler.call`."""
        return stub.Attend

    def serve(self, stream: Iterator[pb.FromServer], outbox: Outbox) -> bool:
        """See `Dialler.serve`."""
        outbox.put(self.hello())
        worker = None
        assembler: Assembler[pb.FromServer] = Assembler(
            lambda frame: worker is not None and worker.admit(frame)
        )
        for frame in stream:
            content = frame.WhichOneof("content")
            if content in ("refusal", "finish", "welcome") and frame.tensors:
                raise Corrupt(f"tensors in {content}, which carries none")
            if content == "refusal":
                self.refused(frame.refusal)
            elif content == "finish":
                _LOG.info("client %s: the run has ended", self.client)
                return True
            elif content == "welcome":
                if worker is not None:
                    raise Corrupt("a second welcome")
                worker = self._welcomed(frame)
                outbox.put(Parcel(pb.FromClient(identity=frame.identity, ready=self._ready(worker))))
            elif worker is None:
                raise Corrupt(f"{content} came before a welcome")
            else:
                parcel = assembler.add(frame)
                if parcel is not None:
                    for answer in self._answered(worker, parcel):
                        outbox.put(answer)
                    self.served = True
        return False

    def _welcomed(self, frame: pb.FromServer) -> Worker:
        run, server = frame.identity.run, frame.welcome.server
        if frame.identity.client != self.client or len(run) != 16:
            raise Corrupt("a welcome that is not for this client")
        if self._worker is None or run != self._run:
            self._worker, self._last = self._built(run, frame.welcome.plan), None
        if server != self._known_server:
            self._last = None  # another process, whose count of attempts begins anew
        if server != self._known_server:
            _LOG.info("client %s: takes part, with %s samples", self.client, self._worker.samples)
        self._run, self._known_server = run, server
        return self._worker

    def _built(self, run: bytes, plan: pb.Plan) -> Worker:
        config = configuration_of_client(plan, self.client, self._own)
        config = replace(config, engine=component_of("engine", Sequential))
        member = Member(self.client, normalisation(plan), partial(check_data, plan))
        try:
            with allowing_a_client(self._memory_mb):
                built = self._build(config, member)
        except (UserError, RunFailed):
            raise
        except Exception as error:  # whatever models, data and optimizers raise
            reason = one_line(first_line(error))
            raise RunFailed(f"the run cannot be built here: {reason}") from error
        folder = self._folder or Path("saves", "clients", run.hex(), str(self.client))
        _claim(folder, run, self.client)
        return Worker(built, self.client, folder, run.hex())

    def _ready(self, worker: Worker) -> pb.Ready:
        round, attempt, number = self._last or (0, 0, 0)
        return pb.Ready(
            samples=worker.samples,
            states=worker.states(),
            going_on=self._last is not None,
            round=round,
            attempt=attempt,
            number=number,
        )

    def _is_again(self, verb: pb.FromServer) -> bool:
        if _name(verb) == self._last and verb != self._verb:
            raise Corrupt("another verb under the name of the last")
        return _name(verb) == self._last

    def _answered(self, worker: Worker, verb: Parcel[pb.FromServer]) -> Answer:
        """The answer to a verb: the same again if it is the last one, whose answer was lost."""
        identity = verb.head.identity
        if identity.run != self._run or identity.client != self.client:
            raise Corrupt("a verb of another run, or for another client")
        if self._is_again(verb.head):
            return self._answer
        now = _name(verb.head)
        follows = self._last is not None and now == (*self._last[:2], self._last[2] + 1)
        if not follows and verb.head.WhichOneof("content") != "begin":
            raise Corrupt("a verb out of order")
        if verb.head.WhichOneof("content") == "begin":
            _LOG.info("client %s: round %s", self.client, identity.round)
        # what dropout is seeded with stays in here
        with self._turn(), torch.random.fork_rng(devices=[]):
            self._answer = worker.answer(verb)
        self._last, self._verb = now, verb.head
        return self._answer


def _claim(folder: Path, run: bytes, client: int) -> None:
    """Let a folder belong to one client of one run.

    Raises:
        UserError: it belongs to another.
    """
    path = folder / "run"
    owner = bounded.text(path).split() if path.is_file() else []
    if owner and owner[0] != run.hex():
        raise UserError("client.directory", folder, "holds the state of another run; take another")
    if len(owner) > 1 and owner[1] != str(client):
        raise UserError("client.directory", folder, f"holds the state of client {owner[1]}; take another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{run.hex()} {client}\n")
    except OSError as error:
        raise UserError("client.directory", folder, f"cannot be written ({error.strerror})") from error


def _name(frame: pb.FromServer) -> tuple[int, int, int]:
    """Of a verb, among all that this server sends this client."""
    return (frame.identity.round, frame.identity.attempt, frame.identity.number)
