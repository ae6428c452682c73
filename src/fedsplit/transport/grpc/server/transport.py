"""The server's side of the verbs: what goes to clients is packed and sent, what comes back is checked."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from secrets import token_bytes

import torch
from torch import Tensor

from fedsplit.config.values import PositiveFloat, PositiveInt
from fedsplit.errors import UserError
from fedsplit.files.bounded import json_in
from fedsplit.files.whole import write_json
from fedsplit.machine.terminal import note
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import BatchLoss, LocalTraining, Part, Upload
from fedsplit.quant.quantization import rounding_seed
from fedsplit.quant.weights_link import Delivery, Downlink, added
from fedsplit.recording.checkpoint import KEPT
from fedsplit.recording.ledger import Direction, Kind
from fedsplit.state.state import State, copied
from fedsplit.state.weights import Weights
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import PARTS, Expectations
from fedsplit.transport.grpc.protocol.packing import pack_tensor, pack_weights
from fedsplit.transport.grpc.protocol.plan import choices_and_settings, tell_of_data
from fedsplit.transport.grpc.server.hub import AWAY_S, Hub, listed
from fedsplit.transport.grpc.server.listening import shown_on_terminal, tls_to_listen_with
from fedsplit.transport.grpc.server.server import Federation, start
from fedsplit.transport.grpc.server.session import Answer, Late, Lost
from fedsplit.transport.grpc.server.spawning import last_words, log_of, spawned
from fedsplit.transport.links import KIND_OF, count, receivers, sent_as, weights_seed
from fedsplit.transport.transport import Result, Run, Stateful, Transport

_LOG = logging.getLogger("fedsplit.network")
_GRACE_S = 5.0
_RUN_BYTES = 16


class GrpcTransport(Transport):
    """Clients as processes of their own, on this machine or others.

    A round that a client cannot go on with is begun again, with everybody as they were before it: what it
    gives depends on nothing else, so it gives the same.

    Args:
        run: whose clients.
        spawn: start the clients here; else wait for clients that dial in.
        listen: address and port of this server; port 0 takes a free one.
        server: of clients only.
        tls: folder with a certificate, its key, and the authority that clients' certificates are of.
        min_clients: go on without late clients once so many have done their part; with `round_deadline_s`
            alone one is enough.
        round_deadline_s: seconds after which clients are late in a round; with `min_clients` alone those
            are late that are not here.
    """

    def __init__(
        self,
        run: Run,
        *,
        spawn: bool,
        listen: str,
        server: str | None,
        tls: str | None,
        min_clients: PositiveInt | None,
        round_deadline_s: PositiveFloat | None,
    ) -> None:
        super().__init__(run)
        clients = len(run.sample_counts)
        if server is not None:
            raise UserError("transport.server", server, "is of task=client; a server says where it listens")
        if min_clients is not None and min_clients > clients:
            raise UserError("transport.min_clients", min_clients, f"at most the {clients} clients")
        self._tls = tls_to_listen_with(listen, tls, spawn=spawn, whom="clients")
        self._spawn, self._listen = spawn, listen
        self._min_clients, self._deadline_s = min_clients, round_deadline_s
        self.plan = choices_and_settings(run.config)
        tell_of_data(self.plan, run.dataset, run.normalisation)
        self.expectations = Expectations(run)
        self.downlinks = self._new_downlinks()
        self.hub: Hub | None = None
        self._after: dict[int, int] = {}
        self._checkpointed: list[dict[int, int]] = []

    def _new_downlinks(self) -> dict[Part, Downlink]:
        return {
            part: Downlink(self.run.quantization.weights, self.run.device, packs=True) for part in KIND_OF
        }

    def told(self, seconds: float) -> str:
        """See `Transport.told`."""
        assert self.hub is not None
        up, down = (size / 1e6 / seconds for size in self.hub.moved())
        return f"{self.hub.connected} clients here  {up:.1f} MB/s up  {down:.1f} MB/s down"

    @contextmanager
    def opened(self, directory: Path) -> Iterator[None]:
        """See `Transport.opened`: while the server runs, and the clients it started."""
        clients = len(self.run.sample_counts)
        hub = Hub(
            run=_run_id(directory),
            clients=clients,
            expectations=self.expectations,
            sample_counts=self.run.sample_counts,
            ledger=self.run.ledger,
            tell_away=partial(_tell_away, directory / "clients") if self._spawn else lambda clients: None,
        )
        federation = Federation(hub, self.plan, clients=clients, secured=self._tls is not None)
        server, port = start(federation, listen=self._listen, tls=self._tls)
        address = f"{self._listen.rpartition(':')[0]}:{port}"
        self.hub, ended = hub, False
        try:
            if self._spawn:
                # who is late is not to make others late that wait for its turn to end
                in_turn = not (self._min_clients or self._deadline_s)
                with spawned(address, directory / "clients", self.run, hub.fail, in_turn=in_turn):
                    try:
                        hub.wait_for_all()
                        yield
                    finally:
                        hub.finish(tell=True)  # also where the run failed: a resume starts others
            else:
                with shown_on_terminal(self.run.config.recording.progress):
                    _LOG.info("listening at %s, for clients 0 to %s", address, clients - 1)
                    yield
                ended = True
                hub.finish(tell=True)
                hub.see_off(AWAY_S)
        finally:
            hub.finish(tell=ended)
            server.stop(_GRACE_S).wait()
            federation.sum_up()
            self.hub = None

    def run_round(
        self, t: int, clients: Collection[int], train: Callable[[Cohort], Result], servers: Stateful
    ) -> Result:
        """See `Transport.run_round`."""
        assert self.hub is not None, "the transport is not open"
        left_out: set[int] = set()
        self.restored = False
        before = copied({"servers": servers.state(), "links": self._links_state()})
        while True:
            present = [client for client in sorted(clients) if client not in left_out]
            try:
                cohort = GrpcCohort(self, self.hub, t, present, self._until())
                cohort.begin(self._after)
                result = train(cohort)
                cohort.keep(
                    self._needed, durable=(t + 1) % self.run.config.recording.checkpoint_interval == 0
                )
            except Lost as lost:
                _LOG.warning("round %s begins again: client %s %s", t, lost.client, lost.reason)
            except Late as late:
                left_out.update(late.clients)
                told = ", ".join(map(str, sorted(late.clients)))
                _LOG.warning("round %s goes on without clients that are late: %s", t, told)
            except BaseException:
                self._go_back(t, before, servers)
                self.restored = True
                raise
            else:
                self.left_out = sorted(left_out)
                self._after = {**self._after, **dict.fromkeys(present, t + 1)}
                self.run.ledger.settle(t)
                return result
            self._go_back(t, before, servers)

    def _until(self) -> float | None:
        if self._deadline_s is not None:
            return time.monotonic() + self._deadline_s
        return None

    @property
    def enough(self) -> int | None:
        """How many clients have to have done their part before others can be late; None: all."""
        if self._min_clients is None and self._deadline_s is None:
            return None
        return self._min_clients or 1

    def _go_back(self, t: int, before: State, servers: Stateful) -> None:
        assert self.hub is not None
        again = copied(before)
        servers.load_state(again["servers"])
        self.downlinks = self._new_downlinks()
        self._load_links(again["links"])
        with self.hub.changed:
            self.run.ledger.abandon(t)

    def _needed(self, client: int) -> int:
        """After how many rounds the oldest state of a client is that a resume may ask for."""
        return self._checkpointed[0].get(client, 0) if len(self._checkpointed) == KEPT else 0

    def samples(self, client: int) -> int:
        """See `Transport.samples`: what it told."""
        assert self.hub is not None, "the transport is not open"
        return self.hub.samples(client)

    def forget_clients(self) -> None:
        """See `Transport.forget_clients`: they have done so at the end of the round."""

    def _links_state(self) -> State:
        return {part: self.downlinks[part].state() for part in KIND_OF}

    def _load_links(self, state: State) -> None:
        for part, downlink in self.downlinks.items():
            downlink.load_state(state[part])

    def state(self) -> State:
        """See `Transport.state`: what clients hold, and after how many rounds each kept its state last."""
        self._checkpointed = [*self._checkpointed, dict(self._after)][-KEPT:]
        after = {str(client): rounds for client, rounds in self._after.items()}
        return {"clients": {}, "links": self._links_state(), "after": after}

    def load_state(self, state: State) -> None:
        """See `Transport.load_state`."""
        self._load_links(state["links"])
        self._after = {int(client): rounds for client, rounds in state["after"].items()}
        self._checkpointed = [dict(self._after)]


def _tell_away(folder: Path, clients: Sequence[int]) -> None:
    """Say on the terminal which clients that were started here have not come, and what one of them says."""
    words = last_words(log_of(folder, clients[0]))
    said = f"; client {clients[0]} says: {words}" if words else ""
    note(f"waiting for {listed(clients)}, started and not here{said}")


def _run_id(directory: Path) -> bytes:
    """What names the run at its clients, the same when it is resumed.

    Raises:
        UserError: what the run was named before is damaged.
    """
    path = directory / "network.json"
    if path.is_file():
        try:
            run = bytes.fromhex(json_in(path)["run"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(path) from error
        if len(run) != _RUN_BYTES:
            raise _damaged(path)
        return run
    run = token_bytes(_RUN_BYTES)
    write_json(path, {"run": run.hex()})
    return run


def _damaged(path: Path) -> UserError:
    told = (
        'its network.json is damaged: it holds {"run": the 32 digits that each file run of its clients holds}'
    )
    return UserError("resume", path.parent, told)


class GrpcCohort(Cohort):
    """See `Cohort`."""

    def __init__(
        self, transport: GrpcTransport, hub: Hub, round: int, clients: Collection[int], until: float | None
    ) -> None:
        self._transport, self._hub, self._round = transport, hub, round
        self._clients, self._until = sorted(clients), until
        self._ledger = transport.run.ledger

    @property
    def clients(self) -> Sequence[int]:
        """See `Cohort.clients`."""
        return self._clients

    @property
    def sample_counts(self) -> Sequence[int]:
        """See `Cohort.sample_counts`."""
        return [self._hub.samples(client) for client in self._clients]

    def select(self, clients: Collection[int]) -> "GrpcCohort":
        """See `Cohort.select`."""
        return GrpcCohort(self._transport, self._hub, self._round, clients, self._until)

    def begin(self, after: Mapping[int, int]) -> None:
        """Let all begin the round with the state that each has after so many rounds."""
        self._hub.begin(self._round, self._clients, after)
        self._answers()

    def keep(self, needed: Callable[[int], int], *, durable: bool) -> None:
        """Let all keep their state after the round."""
        for client in self._clients:
            asked = pb.Keep(rounds=self._round + 1, needed=needed(client), durable=durable)
            self._hub.ask(client, keep=asked)
        self._answers()

    def install(self, part: Part, weights: Weights) -> None:
        """See `Cohort.install`."""
        seed = weights_seed(self._transport.run.seed, "down", part, 0, self._round)
        with sent_as(KIND_OF[part], None):
            sent = self._transport.downlinks[part].share(weights, self._clients, self._round, seed)
        self._install(part, sent)

    def install_each(self, part: Part, weights: Mapping[int, Weights]) -> None:
        """See `Cohort.install_each`."""
        sent = {}
        for client in self._clients:
            seed = weights_seed(self._transport.run.seed, "down", part, client, self._round)
            with sent_as(KIND_OF[part], client):
                sent[client] = self._transport.downlinks[part].send(client, weights[client], seed)
        self._install(part, sent)

    def _install(self, part: Part, sent: Mapping[int, Delivery]) -> None:
        for delivery, clients in receivers(sent):
            packed = pack_weights(delivery, self._transport.expectations, part)
            count(self._ledger, self._round, "down", KIND_OF[part], delivery.coded, clients=clients)
            asked = pb.Install(part=PARTS[part], difference=delivery.difference)
            for client in clients:
                self._hub.ask(client, install=asked, tensors=packed)
        self._answers()

    def forward(self, step: int) -> Sequence[Upload]:
        """See `Cohort.forward`."""
        for client in self._clients:
            self._hub.ask(client, step=step, forward=pb.Forward())
        return self._uploads(self._answers())

    def backward(self, step: int, dz: Mapping[int, Tensor]) -> None:
        """See `Cohort.backward`."""
        transport = self._transport
        number = transport.expectations.cut_number("cut_gradient")
        for client, gradient in dz.items():
            seed = rounding_seed(transport.run.seed, "cut_gradient", client, self._round, step)
            with sent_as("cut_gradient", client):
                packed = pack_tensor(
                    "dz", number, transport.run.quantization.cut_gradient, gradient.contiguous(), seed
                )
            self._count("down", "cut_gradient", packed[0], client, step)
            self._hub.ask(client, step=step, backward=pb.Backward(), tensors=[packed])
        self._answers(dz)

    def train_local(
        self,
        *,
        train_head: bool,
        upload_interval: int | None = None,
        skip_first_upload: Collection[int] = (),
    ) -> LocalTraining:
        """See `Cohort.train_local`."""
        for client in self._clients:
            asked = pb.TrainLocal(
                train_head=train_head,
                upload_interval=upload_interval or 0,
                skip_first_upload=client in skip_first_upload,
            )
            self._hub.ask(client, train_local=asked)
        answers = self._answers()
        losses = []
        for client, parcels in answers.items():
            done = parcels[-1].head.done
            for loss, samples in zip(done.losses, done.samples, strict=True):
                losses.append(BatchLoss([client], torch.tensor([loss], dtype=torch.float64), samples))
        return LocalTraining(self._uploads(answers), losses)

    def weights(self, part: Part) -> Sequence[Weights]:
        """See `Cohort.weights`."""
        for client in self._clients:
            difference = self._held(part, client) is not None
            asked = pb.UploadWeights(part=PARTS[part])
            self._hub.ask(client, difference=difference, upload_weights=asked)
        arrived = []
        for client, answers in self._answers().items():
            last = answers[-1]
            for tensor in last.head.tensors:
                self._count("up", KIND_OF[part], tensor, client)
            weights, held = self._placed(last), self._held(part, client)
            arrived.append(added(held, weights) if held is not None else weights)
        return arrived

    def _held(self, part: Part, client: int) -> Weights | None:
        """What a client sends the difference to; None where it sends weights as they are."""
        if self._transport.run.quantization.weights.up.lossless:
            return None
        return self._transport.downlinks[part].held(client)

    def _answers(self, clients: Collection[int] | None = None) -> dict[int, list[Answer]]:
        start = time.perf_counter()
        enough = self._transport.enough
        try:
            return self._hub.answers(
                self._clients if clients is None else clients, until=self._until, enough=enough
            )
        finally:
            self._transport.client_seconds += time.perf_counter() - start

    def _uploads(self, answered: Mapping[int, Sequence[Answer]]) -> list[Upload]:
        uploads = []
        for client, answers in answered.items():
            for answer in answers[:-1]:
                z, y = answer.head.tensors
                step = answer.head.identity.step
                self._count("up", "smashed", z, client, step)
                self._count("up", "labels", y, client, step)
                tensors = self._placed(answer)
                uploads.append(Upload(client, step, tensors["z"], tensors["y"]))
        return uploads

    def _placed(self, answer: Answer) -> Weights:
        return {name: tensor.to(self._transport.run.device) for name, tensor in answer.tensors.items()}

    def _count(self, direction: Direction, kind: Kind, tensor: pb.Tensor, client: int, step: int = 0) -> None:
        """Count one message by its announcement."""
        self._ledger.add(
            self._round,
            direction,
            kind,
            tensor.size,
            clients=[client],
            step=step,
            values=tensor.values,
            signal=tensor.signal,
            noise=tensor.noise,
        )
