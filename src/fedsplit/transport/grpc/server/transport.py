"""The server's side of the verbs: what goes to clients is packed and sent, what comes back is checked."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from secrets import token_bytes

from typing_extensions import override

from fedsplit.config.values import PositiveFloat, PositiveInt
from fedsplit.errors import UserError, format_count
from fedsplit.files.bounded import json_in
from fedsplit.files.whole import write_json
from fedsplit.machine.terminal import note
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import Part
from fedsplit.quant.weights_link import Downlink
from fedsplit.recording.checkpoint import KEPT
from fedsplit.state.state import State, copy_state
from fedsplit.transport.cohort import CodedCohort
from fedsplit.transport.grpc.protocol.expectations import Expectations
from fedsplit.transport.grpc.protocol.plan import choices_and_settings, tell_of_data
from fedsplit.transport.grpc.server.hub import AWAY_S, Hub, name_clients
from fedsplit.transport.grpc.server.listening import Listener, shown_on_terminal
from fedsplit.transport.grpc.server.spawning import last_words, log_of, spawn
from fedsplit.transport.grpc.server.streams import Answer, ClientLost, Late
from fedsplit.transport.grpc.server.wire import GrpcWire
from fedsplit.transport.links import KIND_OF
from fedsplit.transport.tally import Tally
from fedsplit.transport.transport import Result, RunSetting, Stateful, Transport

_LOG = logging.getLogger("fedsplit.network")


class GrpcTransport(Transport):
    """Clients as processes of their own, on this machine or others.

    A round that a client cannot go on with is begun again, with everybody as they were before it: what it
    gives depends on nothing else, so it gives the same.

    Args:
        spawn: start the clients here; else wait for clients that dial in.
        listen: address and port of this server; port 0 takes a free one.
        server: server that serves clients only.
        tls: folder with a certificate, its key, and the authority that clients' certificates are of.
        min_clients: go on without late clients once so many have done their part; with `round_deadline_s`
            alone one is enough.
        round_deadline_s: seconds after which clients are late in a round; with `min_clients` alone those
            are late that are not here.
    """

    def __init__(
        self,
        run: RunSetting,
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
            raise UserError(
                "transport.min_clients", min_clients, f"must be at most {clients}, the number of clients"
            )
        self._listener = Listener(listen, tls, spawn=spawn, whom="clients")
        self._spawn, self._recording = spawn, run.config.recording
        self._min_clients, self._deadline_s = min_clients, round_deadline_s
        self.plan = choices_and_settings(run.config)
        tell_of_data(self.plan, run.dataset)
        self.plan.frozen_weights = run.frozen_digest
        self.expectations = Expectations(run)
        self.downlinks = self._new_downlinks()
        self.hub: Hub | None = None
        self._after: dict[int, int] = {}
        self._checkpointed: list[dict[int, int]] = []

    def _new_downlinks(self) -> dict[Part, Downlink]:
        return {
            part: Downlink(self.run.quantization.weights, self.run.device, packs=True) for part in KIND_OF
        }

    @override
    def describe_traffic(self, seconds: float) -> str:
        assert self.hub is not None
        up, down = (size / 1e6 / seconds for size in self.hub.take_traffic())
        clients = format_count(self.hub.connected_count, "client")
        return f"{clients} here  {up:.1f} MB/s up  {down:.1f} MB/s down"

    @contextmanager
    @override
    def open(self, directory: Path) -> Iterator[None]:
        """Run the server, and the clients that it starts, for as long as the context is open."""
        clients = len(self.run.sample_counts)
        hub = Hub(
            run=run_id(directory),
            clients=clients,
            expectations=self.expectations,
            sample_counts=self.run.sample_counts,
            ledger=self.run.ledger,
            tell_away=partial(_tell_away, directory / "clients") if self._spawn else lambda clients: None,
        )
        with self._listener.serving(hub, self.plan, clients=clients) as address:
            self.hub, ended = hub, False
            try:
                if self._spawn:
                    # who is late is not to make others late that wait for its turn to end
                    in_turn = not (self._min_clients or self._deadline_s)
                    with spawn(address, directory / "clients", self.run, hub.fail, in_turn=in_turn):
                        try:
                            hub.wait_for_all()
                            yield
                        finally:
                            hub.finish(tell=True)  # also where the run failed: a resume starts others
                else:
                    with shown_on_terminal(self._recording.progress):
                        _LOG.info("listening at %s, for clients 0 to %s", address, clients - 1)
                        yield
                    ended = True
                    hub.finish(tell=True)
                    hub.see_off(AWAY_S)
            finally:
                hub.finish(tell=ended)
                self.hub = None

    @override
    def run_round(
        self, t: int, clients: Collection[int], train: Callable[[Cohort], Result], servers: Stateful
    ) -> Result:
        assert self.hub is not None, "the transport is not open"
        left_out: set[int] = set()
        self.has_restored = False
        before = copy_state({"servers": servers.state(), "links": self._links_state()})
        while True:
            present = [client for client in sorted(clients) if client not in left_out]
            try:
                wire = self._wire(t, self.hub)
                cohort = CodedCohort(self.run, self.downlinks, wire, present)
                wire.begin(present, self._after)
                result = train(cohort)
                wire.keep(
                    present, self._oldest_rounds, durable=(t + 1) % self._recording.checkpoint_interval == 0
                )
                cohort.settle()
            except ClientLost as lost:
                _LOG.warning("round %s begins again: client %s %s", t, lost.client, lost.reason)
            except Late as late:
                left_out.update(late.clients)
                message = ", ".join(map(str, sorted(late.clients)))
                _LOG.warning("round %s goes on without clients that are late: %s", t, message)
            except BaseException:
                self._go_back(t, before, servers)
                self.has_restored = True
                raise
            else:
                self.left_out = sorted(left_out)
                self._after = {**self._after, **dict.fromkeys(present, t + 1)}
                return result
            self._go_back(t, before, servers)

    def _wire(self, t: int, hub: Hub) -> GrpcWire:
        someone_may_be_late = self._min_clients is not None or self._deadline_s is not None
        enough = (self._min_clients or 1) if someone_may_be_late else None
        until = None if self._deadline_s is None else time.monotonic() + self._deadline_s

        def answers(clients: Iterable[int]) -> dict[int, list[Answer]]:
            with self.at_clients():
                return hub.answers(clients, until=until, enough=enough)

        tally, device = Tally(self.run.ledger, t), self.run.device
        return GrpcWire(t, tally, hub=hub, expectations=self.expectations, device=device, answers=answers)

    def _go_back(self, t: int, before: State, servers: Stateful) -> None:
        assert self.hub is not None
        again = copy_state(before)
        servers.load_state(again["servers"])
        self.downlinks = self._new_downlinks()
        self._load_links(again["links"])
        with self.hub.condition:
            self.run.ledger.abandon(t)

    def _oldest_rounds(self, client: int) -> int:
        """Number of rounds after which the oldest client state was kept that a resume may ask for."""
        return self._checkpointed[0].get(client, 0) if len(self._checkpointed) == KEPT else 0

    @override
    def samples(self, client: int) -> int:
        assert self.hub is not None, "the transport is not open"
        return self.hub.samples(client)

    @override
    def forget_clients(self) -> None:
        """Do nothing: clients forgot their state at the end of the round."""

    def _links_state(self) -> State:
        return {part: self.downlinks[part].state() for part in KIND_OF}

    def _load_links(self, state: State) -> None:
        for part, downlink in self.downlinks.items():
            downlink.load_state(state[part])

    @override
    def state(self) -> State:
        """State of what clients hold, and after how many rounds each of them last kept its own."""
        self._checkpointed = [*self._checkpointed, dict(self._after)][-KEPT:]
        after = {str(client): rounds for client, rounds in self._after.items()}
        return {"clients": {}, "links": self._links_state(), "after": after}

    @override
    def load_state(self, state: State) -> None:
        self._load_links(state["links"])
        self._after = {int(client): rounds for client, rounds in state["after"].items()}
        self._checkpointed = [dict(self._after)]


def _tell_away(folder: Path, clients: Sequence[int]) -> None:
    """Say on the terminal which clients that were started here have not come, and what one of them says."""
    words = last_words(log_of(folder, clients[0]))
    said = f"; client {clients[0]} says: {words}" if words else ""
    note(f"waiting for {name_clients(clients)}, started and not here{said}")


_RUN_BYTES = 16


def run_id(directory: Path) -> bytes:
    """The 16 bytes that name the run of a directory; drawn where it has none yet.

    Raises:
        UserError: what the run was named before is damaged.
    """
    path = directory / "network.json"
    if path.is_file():
        try:
            run = bytes.fromhex(json_in(path)["run"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damage_error(path) from error
        if len(run) != _RUN_BYTES:
            raise _damage_error(path)
        return run
    run = token_bytes(_RUN_BYTES)
    write_json(path, {"run": run.hex()})
    return run


def _damage_error(path: Path) -> UserError:
    message = (
        'its network.json is damaged: it holds {"run": the 32 digits that each file run of its clients holds}'
    )
    return UserError("resume", path.parent, message)
