"""The client's end of the network: dials in, for ever, and lets the worker answer what the server asks."""

import logging
import random
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from secrets import token_bytes
from typing import Any, TypeAlias

import grpc
import torch

from fedsplit.config import check
from fedsplit.errors import RunFailed, UserError
from fedsplit.parts import Member, Parts
from fedsplit.quant.message import Corrupt
from fedsplit.results.ledger import Ledger
from fedsplit.transport.grpc import federation_pb2 as pb
from fedsplit.transport.grpc import federation_pb2_grpc
from fedsplit.transport.grpc.plan import check_data, configuration, normalisation
from fedsplit.transport.grpc.tls import Tls
from fedsplit.transport.grpc.wire import OPTIONS, VERSION, Assembler, Parcel, one_line
from fedsplit.transport.grpc.worker import Answer, Worker

Outbox: TypeAlias = SimpleQueue[Parcel[pb.FromClient] | None]
"""What goes to the server; None at the end."""

_LOG = logging.getLogger("fedsplit.network")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_STREAM_S = 6 * 3600.0
"""Seconds after which a stream is opened anew, so that none lives without a deadline."""


class Client:
    """One client, for as long as its run lasts.

    Args:
        server: address and port.
        client: its number.
        tls: who it is, and whom it trusts; None without.
        folder: where its states are kept; None: below `saves/clients`, by run and number.
        own: keys of the configuration that are this machine's own, such as `dataset.root`.
    """

    def __init__(
        self, *, server: str, client: int, tls: Tls | None, folder: Path | None, own: Mapping[str, Any]
    ) -> None:
        self._server, self._client, self._tls, self._folder, self._own = server, client, tls, folder, own
        self._instance = token_bytes(16)
        self._run = self._known_server = b""
        self._worker: Worker | None = None
        self._last: tuple[int, int, int] | None = None
        self._verb = pb.FromServer()
        self._answer: Answer = []
        self._served = False

    def attend(self) -> None:
        """Serve until the run has ended, whatever happens to the network meanwhile.

        Raises:
            RunFailed: the server does not let this client in, and will not.
            UserError: the run cannot be built here.
        """
        pause = _FIRST_PAUSE_S
        while True:
            self._served = False
            try:
                if self._attend_once():
                    return
                told = "the stream ended"
            except grpc.RpcError as error:
                told = _told(error)
            except Corrupt as error:
                told = f"the server sent what cannot be: {error}"
            pause = _FIRST_PAUSE_S if self._served else min(2 * pause, _LONGEST_PAUSE_S)
            wait = random.uniform(0, pause)  # full jitter: clients that lost one server do not come at once
            _LOG.info("client %s: %s; again in %.1f s", self._client, told, wait)
            time.sleep(wait)

    def _attend_once(self) -> bool:
        """One stream; whether the run has ended with it."""
        options = (*OPTIONS, ("grpc.enable_retries", 0))
        if self._tls is None:
            channel = grpc.insecure_channel(self._server, options)
        else:
            channel = grpc.secure_channel(self._server, self._tls.channel_credentials(), options)
        outbox: Outbox = SimpleQueue()
        with channel:
            stub = federation_pb2_grpc.FederationStub(channel)  # type: ignore[no-untyped-call]
            stream = stub.Attend(_frames(outbox), timeout=_STREAM_S)
            try:
                return self._serve(stream, outbox)
            finally:
                outbox.put(None)
                stream.cancel()

    def _serve(
        self, stream: Iterator[pb.FromServer], outbox: SimpleQueue[Parcel[pb.FromClient] | None]
    ) -> bool:
        hello = pb.Hello(version=VERSION, client=self._client, instance=self._instance)
        outbox.put(Parcel(pb.FromClient(hello=hello)))
        worker = None
        assembler: Assembler[pb.FromServer] = Assembler(
            lambda frame: worker is not None and self._admit(worker, frame)
        )
        for frame in stream:
            content = frame.WhichOneof("content")
            if content in ("refusal", "finish", "welcome") and frame.tensors:
                raise Corrupt(f"tensors in {content}, which carries none")
            if content == "refusal":
                reason = one_line(frame.refusal.reason)
                if frame.refusal.for_good:
                    raise RunFailed(f"the server refused: {reason}")
                _LOG.info("client %s: not yet: %s", self._client, reason)
            elif content == "finish":
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
                    self._served = True
        return False

    def _welcomed(self, frame: pb.FromServer) -> Worker:
        run, server = frame.identity.run, frame.welcome.server
        if frame.identity.client != self._client or len(run) != 16:
            raise Corrupt("a welcome that is not for this client")
        if self._worker is None or run != self._run:
            self._worker, self._last = self._built(run, frame.welcome.plan), None
        if server != self._known_server:
            self._last = None  # another process, whose count of attempts begins anew
        self._run, self._known_server = run, server
        return self._worker

    def _built(self, run: bytes, plan: pb.Plan) -> Worker:
        config = configuration(plan)
        config["engine"] = {"_target_": "fedsplit.parties.sequential.Sequential"}
        for key, value in self._own.items():
            *path, name = key.split(".")
            node = config
            for part in path:
                node = node[part]
            if key == "device" or name in node:
                node[name] = value
        check({key: value for key, value in config.items() if key != "choices"})
        if self._client >= config["num_clients"]:
            raise UserError("client.id", self._client, f"below num_clients={config['num_clients']}")
        if config["choices"]["distribution"] == "own" and "classes" in config["dataset"]:
            config["dataset"]["classes"] = list(plan.classes)
        member = Member(self._client, normalisation(plan), partial(check_data, plan))
        try:
            built = Parts(config, member).run(Ledger())
        except (UserError, RunFailed):
            raise
        except Exception as error:  # whatever models, data and optimizers raise
            reason = one_line((str(error).splitlines() or [type(error).__name__])[0])
            raise RunFailed(f"the run cannot be built here: {reason}") from error
        folder = self._folder or Path("saves", "clients", run.hex(), str(self._client))
        return Worker(built, self._client, folder)

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

    def _admit(self, worker: Worker, frame: pb.FromServer) -> bool:
        """See `Assembler`."""
        # what is expected next is no measure of what came before
        return self._is_again(frame) or worker.admit(frame)

    def _is_again(self, verb: pb.FromServer) -> bool:
        if _name(verb) == self._last and verb != self._verb:
            raise Corrupt("another verb under the name of the last")
        return _name(verb) == self._last

    def _answered(self, worker: Worker, verb: Parcel[pb.FromServer]) -> Answer:
        """The answer to a verb: the same again if it is the last one, whose answer was lost."""
        identity = verb.head.identity
        if identity.run != self._run or identity.client != self._client:
            raise Corrupt("a verb of another run, or for another client")
        if self._is_again(verb.head):
            return self._answer
        now = _name(verb.head)
        follows = self._last is not None and now == (*self._last[:2], self._last[2] + 1)
        if not follows and verb.head.WhichOneof("content") != "begin":
            raise Corrupt("a verb out of order")
        with torch.random.fork_rng(devices=[]):  # what dropout is seeded with stays in here
            self._answer = worker.answer(verb)
        self._last, self._verb = now, verb.head
        return self._answer


def _name(frame: pb.FromServer) -> tuple[int, int, int]:
    """Of a verb, among all that this server sends this client."""
    return (frame.identity.round, frame.identity.attempt, frame.identity.number)


def _frames(outbox: Outbox) -> Iterator[pb.FromClient]:
    while (parcel := outbox.get()) is not None:
        yield from parcel.frames()


def _told(error: grpc.RpcError) -> str:
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if code is None or details is None:
        return "the stream broke"
    # of a chain of causes the last is the one that a user can do something about
    return f"{code().name.lower()}, {one_line(details() or 'no details').rpartition(': ')[2]}"
