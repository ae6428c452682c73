"""The client's end of the network: dials in, for ever, and lets the worker answer what the server asks."""

import fcntl
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from typing_extensions import override

from fedsplit.config.component import component_of
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.files import bounded
from fedsplit.files.paths import in_one_line
from fedsplit.files.whole import write_text
from fedsplit.machine.allowance import machine_memory
from fedsplit.parties.sequential import Sequential
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.secret_file import client_secret
from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.client.dialling import Dialler, Membership
from fedsplit.transport.grpc.client.worker import Answer, Worker
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.frames import Parcel
from fedsplit.transport.transport import BuildRun, Member, RunSetting

_LOG = logging.getLogger("fedsplit.network")


class TrainingClient(Dialler):
    """One client, for as long as its run lasts.

    Args:
        folder: folder of its states; None: below `saves/clients`, by run and number.
        build: makes what a client needs of a run.
        keeps_secret: True if its noise is made from a secret in its folder, and not from the run's seed.
        min_noise: least noise on what it uploads; None: any.
        turn: entered while the client computes; where many share a machine, it may have to wait.
    """

    def __init__(
        self,
        *,
        folder: Path | None,
        build: BuildRun,
        keeps_secret: bool = False,
        min_noise: float | None = None,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
        **who: Unpack[Membership],
    ) -> None:
        super().__init__(**who)
        self._build, self._turn, self._folder = build, turn, folder
        self._keeps_secret, self._min_noise = keeps_secret, min_noise
        self._run = self._known_server = b""
        self._worker: Worker | None = None
        self._last: tuple[int, int, int] | None = None
        self._verb = pb.FromServer()
        self._answer: Answer = []

    @override
    def attend(self) -> None:
        super().attend()
        _LOG.info("client %s: the run has ended", self.client)

    @override
    def call(self, stub: federation_pb2_grpc.FederationStub) -> Any:
        return stub.Attend

    @override
    def joins(self, run: bytes, welcome: pb.Welcome) -> Mapping[str, pb.Ready]:
        if self._worker is None or run != self._run:
            self._worker, self._last = self._new_worker(run, welcome.plan), None
        if welcome.server != self._known_server:
            self._last = None  # another process, whose count of attempts begins anew
            _LOG.info("client %s: takes part, with %s samples", self.client, self._worker.samples)
        self._run, self._known_server = run, welcome.server
        return {"ready": self._ready(self._worker)}

    def _new_worker(self, run: bytes, plan: pb.Plan) -> Worker:
        folder = self._folder or Path("saves", "clients", run.hex(), str(self.client))

        def build(config: RunConfig, member: Member) -> RunSetting:
            if self._keeps_secret and config.defence.import_target() is not Defence:
                _claim(folder, run, self.client)
                member = replace(member, secret=client_secret(folder))
            setting = self._build(replace(config, engine=component_of("engine", Sequential)), member)
            self._insist_on_noise(setting)
            if setting.frozen_digest != plan.frozen_weights:
                message = "its parameters that do not learn are not those of the run; they are never sent"
                raise UserError("model", config.choice("model"), message)
            return setting

        built = self.build_part("the run", plan, build)
        _claim(folder, run, self.client)
        return Worker(built, self.client, folder, run.hex())

    def _insist_on_noise(self, run: RunSetting) -> None:
        if self._min_noise is None:
            return
        blueprint = run.engine.blueprint
        noise = blueprint.defence.guards(sends_smashed=blueprint.sends_smashed)
        if noise < self._min_noise:
            message = (
                f"the run's defence={run.config.choice('defence')} guards what is sent with {noise:g} alone"
            )
            raise UserError("client.min_noise", self._min_noise, message)

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
            raise Corrupt("the server sent another verb with the identity of the last one")
        return _name(verb) == self._last

    @override
    def admit(self, frame: pb.FromServer) -> bool:
        assert self._worker is not None
        return self._worker.admit(frame)

    @override
    def answer(self, parcel: Parcel[pb.FromServer]) -> Answer:
        """Answer a verb; the same again if it is the last one, whose answer was lost."""
        identity = parcel.head.identity
        if identity.run != self._run or identity.client != self.client:
            raise Corrupt("the server sent a verb for another run or another client")
        if not self._is_again(parcel.head):
            self._answer = self._perform(parcel)
            self._last, self._verb = _name(parcel.head), parcel.head
        self.has_served = True
        return self._answer

    def _perform(self, verb: Parcel[pb.FromServer]) -> Answer:
        now, begins = _name(verb.head), verb.head.WhichOneof("content") == "begin"
        follows = self._last is not None and now == (*self._last[:2], self._last[2] + 1)
        if not follows and not begins:
            raise Corrupt("the server sent a verb out of order")
        if begins:
            _LOG.info("client %s: round %s", self.client, verb.head.identity.round)
        assert self._worker is not None
        # seeds of dropout stay in here
        with self._turn(), torch.random.fork_rng(devices=[]):
            return self._worker.answer(verb)


def _claim(folder: Path, run: bytes, client: int) -> None:
    """Let a folder belong to one client of one run; `UserError` where it belongs to another."""
    path = folder / "run"
    owner = bounded.text(path).split() if path.is_file() else []
    if owner and owner[0] != run.hex():
        raise UserError("client.directory", folder, "holds the state of another run; take another")
    if len(owner) > 1 and owner[1] != str(client):
        raise UserError("client.directory", folder, f"holds the state of client {owner[1]}; take another")
    with in_one_line("client.directory", folder, "cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{run.hex()} {client}\n")


def _name(frame: pb.FromServer) -> tuple[int, int, int]:
    """Name of a verb among all that this server sends this client."""
    return (frame.identity.round, frame.identity.attempt, frame.identity.number)


def attend(
    *,
    server: str,
    client: int,
    folder: Path,
    own: Mapping[str, object],
    at_once: int | None,
    build: BuildRun,
) -> None:
    """Be a client until the run has ended.

    Args:
        folder: folder of its state; those of the other clients are beside it. It writes its process id to
            `pid`.
        at_once: number of clients that may compute at a time; None: all.
    """
    (folder / "pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    TrainingClient(
        server=server,
        client=client,
        tls=None,
        folder=folder,
        own=own,
        build=build,
        turn=partial(turn, folder.parent, client, at_once),
        memory_mb=machine_memory() / 1e6,  # the run is this user's own
    ).attend()


@contextmanager
def turn(folder: Path, client: int, at_once: int | None) -> Iterator[None]:
    """Wait for a client's turn to compute; a lock on a file, for it ends with a process that is killed.

    Args:
        folder: folder of all clients.
        at_once: number of clients that may compute at a time; None: all.
    """
    if at_once is None:
        yield
        return
    with (folder / f"turn-{client % at_once}").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
