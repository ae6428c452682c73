"""A run over gRPC that is disturbed gives the bits, metrics and load of one in one process that is not."""

# ruff: noqa: PLR0917  (fixtures)

import csv
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from fedsplit.building.run import run_of_member
from fedsplit.parties.evaluation import Scores
from fedsplit.quant.message import Corrupt
from fedsplit.recording import checkpoint
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.evaluation import Evaluation
from fedsplit.training.experiment import Experiment
from fedsplit.transport.grpc.client.client import TrainingClient
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Parcel
from fedsplit.transport.grpc.protocol.packing import pack_weights
from fedsplit.transport.grpc.server import hub as hub_module
from fedsplit.transport.grpc.server.hub import Hub
from fedsplit.transport.grpc.server.meeting import Link, StreamRefused
from fedsplit.transport.grpc.server.transport import GrpcTransport
from tests.conftest import TINY, Build
from tests.transport.processes import Command, started_by
from tests.transport.proxy import Proxy

CLIENTS = 3
LONG = 300.0
"""Seconds that nothing takes, on a busy machine either."""
SAGE = ("algorithm=fsl_sage", "algorithm.align_interval=2", "quant=int8")
V2 = ("algorithm=splitfed_v2", "dataset.max_train=70")


class Clients:
    """Clients that dial in, as processes.

    Args:
        folder: for what they keep and say.
        port: of the server.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.running: dict[int, Command] = {}

    def start(
        self,
        client: int,
        *,
        port: int | None = None,
        keeps: str | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> Command:
        """Start a client, or start it again where it was."""
        keeps = keeps or f"client-{client}"
        own = [f"transport.server=127.0.0.1:{port or self.port}", f"client.directory={self.folder / keeps}"]
        arguments = ["task=client", f"client.id={client}", "progress=false", *own]
        return Command(arguments, self.folder / f"{keeps}.txt", prepare)

    def start_all(self) -> None:
        """Start those that do not run."""
        for client in range(CLIENTS):
            if client not in self.running:
                self.running[client] = self.start(client)

    def start_again(self, client: int) -> None:
        """Kill it and start it."""
        self.running[client].kill()
        self.running[client] = self.start(client)

    def end(self) -> None:
        """All have ended by themselves."""
        assert {client: process.wait(LONG) for client, process in self.running.items()} == dict.fromkeys(
            self.running, 0
        )


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[Clients]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    clients = Clients(tmp_path, port)
    yield clients
    for process in clients.running.values():
        process.kill()


@pytest.fixture
def serve(tiny: Build, clients: Clients, tmp_path: Path) -> Callable[..., Experiment]:
    """Runs the server in this process, with clients that dial in."""

    def serve(*overrides: str) -> Experiment:
        own = ("transport=grpc", "transport.spawn=false", f"transport.listen=127.0.0.1:{clients.port}")
        experiment = tiny(*overrides, *own)
        clients.start_all()
        experiment.run(RunDirectory.new(tmp_path / "run", "hydra.run.dir"))
        return experiment

    return serve


def run_undisturbed(tiny: Build, folder: Path, *overrides: str) -> Experiment:
    """The same run in one process."""
    experiment = tiny(*overrides, "engine=sequential")
    experiment.run(RunDirectory.new(folder / "undisturbed", "hydra.run.dir"))
    return experiment


def tensors(node: object, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(node, torch.Tensor):
        yield path, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from tensors(value, f"{path}/{key}")


def rows(experiment: Experiment) -> list[dict[str, object]]:
    apart = ("seconds.", "retransmitted.")
    return [
        {k: v for k, v in record.row().items() if not k.startswith(apart)} for record in experiment.records
    ]


def assert_same(disturbed: Experiment, straight: Experiment) -> None:
    ours = dict(tensors(disturbed.algorithm.state()))
    theirs = dict(tensors(straight.algorithm.state()))
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert rows(disturbed) == rows(straight)
    assert disturbed.ledger.load == straight.ledger.load


def retransmitted(experiment: Experiment) -> list[tuple[int, int]]:
    """Bytes up and down that failures cost in each round."""
    return [(record.again["up"], record.again["down"]) for record in experiment.records]


def is_upload(frame: pb.FromClient, round: int) -> bool:
    return frame.WhichOneof("content") == "upload" and frame.identity.round == round


def _send_to_myself(number: signal.Signals, round: int) -> None:
    """When the first upload of a client comes in a round."""
    original, sent = Hub.receive, list[int]()

    def receive(hub: Hub, link: Link, client: int, parcel: Parcel[pb.FromClient]) -> None:
        if not sent and is_upload(parcel.head, round):
            sent.append(client)
            os.kill(os.getpid(), number)
        original(hub, link, client, parcel)

    Hub.receive = receive  # type: ignore[method-assign]


def left_behind(directory: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    models = {path.name: path.read_bytes() for path in directory.glob("model/*.safetensors")}
    with (directory / "metrics.csv").open(newline="") as file:
        apart = ("seconds.", "retransmitted.")
        kept = [{k: v for k, v in row.items() if not k.startswith(apart)} for row in csv.DictReader(file)]
    return models, kept


STOPPED = (*TINY, *SAGE, "cohort_size=2", "checkpoint_interval=2", "rounds=5")


@pytest.mark.parametrize(
    ("number", "kept", "spawn"),
    [
        (signal.SIGKILL, [2], True),
        pytest.param(signal.SIGINT, [2, 3], True, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, [2], False, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, [2, 3], False, marks=pytest.mark.long),
    ],
    ids=[
        "killed with its clients",
        "interrupted with its clients",
        "killed and its clients survive",
        "interrupted and its clients survive",
    ],
)
def test_server_that_is_stopped_in_a_round_ends_with_the_same_bits_when_resumed(
    tiny: Build, clients: Clients, tmp_path: Path, number: signal.Signals, kept: list[int], spawn: bool
) -> None:
    run_undisturbed(tiny, tmp_path, *STOPPED)
    directory, log = tmp_path / "run", tmp_path / "server.txt"
    if not spawn:
        clients.start_all()
    listen = f"transport.listen=127.0.0.1:{clients.port}"
    arguments = [*STOPPED, "transport=grpc", f"transport.spawn={spawn}", listen, f"hydra.run.dir={directory}"]
    server = Command(arguments, log, partial(_send_to_myself, number, 3))
    assert server.wait(LONG) == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[number]
    assert all(process.exit_code is None for process in clients.running.values())
    end = time.monotonic() + LONG
    while number == signal.SIGKILL and started_by(log) and time.monotonic() < end:
        time.sleep(0.01)
    assert started_by(log) == []
    assert checkpoint.kept_rounds(directory / "checkpoint") == kept
    assert Command([f"resume={directory}"], log).wait(LONG) == 0
    clients.end()
    assert started_by(log) == []
    assert left_behind(directory) == left_behind(tmp_path / "undisturbed")


def test_checkpoint_of_a_round_interrupted_after_training_is_of_the_state_before_it(
    tiny: Build,
    serve: Callable[..., Experiment],
    clients: Clients,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, rounds = Evaluation.globally, count()

    def evaluate(evaluation: Evaluation, *given: Any) -> Scores:
        if next(rounds) == 1:
            raise KeyboardInterrupt
        return original(evaluation, *given)

    monkeypatch.setattr(Evaluation, "globally", evaluate)
    with pytest.raises(KeyboardInterrupt):
        serve(*V2, "checkpoint_interval=2")
    monkeypatch.setattr(Evaluation, "globally", original)
    assert Command([f"resume={tmp_path / 'run'}"], tmp_path / "resumed.txt").wait(LONG) == 0
    clients.end()
    run_undisturbed(tiny, tmp_path, *V2, "checkpoint_interval=2")
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "undisturbed")


@pytest.fixture
def rounds_begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds that were rounds_begun, those that were rounds_begun again too."""
    rounds: list[int] = []
    original = Hub.begin

    def begin(hub: Hub, round: int, clients: Collection[int], after: Mapping[int, int]) -> None:
        rounds.append(round)
        original(hub, round, clients, after)

    monkeypatch.setattr(Hub, "begin", begin)
    return rounds


@pytest.mark.parametrize(
    "overrides", [SAGE, pytest.param(V2, marks=pytest.mark.long)], ids=["fsl_sage", "splitfed_v2"]
)
def test_client_that_is_killed_in_a_round_costs_only_that_round(
    tiny: Build,
    serve: Callable[..., Experiment],
    clients: Clients,
    rounds_begun: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: Sequence[str],
) -> None:
    original, killed = Hub.receive, []

    def receive(hub: Hub, link: Link, client: int, parcel: Parcel[pb.FromClient]) -> None:
        if not killed and client == 1 and is_upload(parcel.head, 1):
            killed.append(client)
            clients.start_again(client)
        original(hub, link, client, parcel)

    monkeypatch.setattr(Hub, "receive", receive)
    disturbed = serve(*overrides)
    clients.end()
    assert killed == [1]
    assert rounds_begun == [0, 1, 1, 2]
    assert_same(disturbed, run_undisturbed(tiny, tmp_path, *overrides))
    (up0, down0), (up1, down1), (up2, down2) = retransmitted(disturbed)
    assert (up0, down0, up2, down2) == (0, 0, 0, 0)
    assert up1 > 0
    assert down1 > 0


def test_connection_that_breaks_in_an_upload_costs_only_that_upload(
    tiny: Build,
    serve: Callable[..., Experiment],
    clients: Clients,
    rounds_begun: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overrides = ("algorithm=cse_fsl", "algorithm.server_update_interval=2")
    original_ask, original_received = Hub.ask, Hub.receive
    midway, uploads = threading.Event(), list[int]()
    with Proxy(clients.port) as proxy:

        def ask(hub: Hub, client: int, **asked: Any) -> None:
            if client == 1 and rounds_begun == [0, 1] and "train_local" in asked:
                proxy.when_up(2 * 8192 + 4096, "hold", midway.set)
            original_ask(hub, client, **asked)

        def receive(hub: Hub, link: Link, client: int, parcel: Parcel[pb.FromClient]) -> None:
            original_received(hub, link, client, parcel)
            if client == 1 and is_upload(parcel.head, 1):
                uploads.append(parcel.head.identity.step)
                if len(uploads) == 2:
                    assert midway.wait(LONG)
                    proxy.cut()
                    proxy.release()

        monkeypatch.setattr(Hub, "ask", ask)
        monkeypatch.setattr(Hub, "receive", receive)
        clients.running[1] = clients.start(1, port=proxy.port)
        disturbed = serve(*overrides)
        clients.end()
    assert rounds_begun == [0, 1, 2]
    assert uploads == [0, 2, 0, 2, 4]
    assert_same(disturbed, run_undisturbed(tiny, tmp_path, *overrides))
    # two uploads of eight samples had come, with a byte for each label
    assert retransmitted(disturbed) == [(0, 0), (2 * 8 * (1024 + 1), 0), (0, 0)]


def _answer_everything_twice() -> None:
    original, before = TrainingClient.answer, list[Parcel[pb.FromClient]]()

    def answered(client: TrainingClient, verb: Parcel[pb.FromServer]) -> Sequence[Parcel[pb.FromClient]]:
        answer = original(client, verb)
        late = list(before)
        before[:] = answer
        return [*late, *answer[:-1], *answer, *answer]

    TrainingClient.answer = answered  # type: ignore[method-assign]


def test_late_and_repeated_answers_of_a_client_leave_the_run_unchanged(
    tiny: Build, serve: Callable[..., Experiment], clients: Clients, rounds_begun: list[int], tmp_path: Path
) -> None:
    clients.running[1] = clients.start(1, prepare=_answer_everything_twice)
    disturbed = serve(*SAGE)
    clients.end()
    assert rounds_begun == [0, 1, 2]
    assert_same(disturbed, run_undisturbed(tiny, tmp_path, *SAGE))
    assert all(up > 0 and down == 0 for up, down in retransmitted(disturbed))


def test_second_process_of_a_client_is_refused_while_the_first_is_connected(
    tiny: Build,
    serve: Callable[..., Experiment],
    clients: Clients,
    rounds_begun: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original_begin, original_greet, refused = Hub.begin, Hub.greet, threading.Event()
    impostors, refusals = list[Command](), list[tuple[str, bool]]()

    def begin(hub: Hub, round: int, clients_: Collection[int], after: Mapping[int, int]) -> None:
        original_begin(hub, round, clients_, after)
        if round == 1:
            impostors.append(clients.start(1, keeps="impostor"))
            assert refused.wait(LONG)

    def greet(hub: Hub, hello: pb.Hello) -> None:
        try:
            original_greet(hub, hello)
        except StreamRefused as error:
            refusals.append((error.reason, error.for_good))
            refused.set()
            raise

    monkeypatch.setattr(Hub, "begin", begin)
    monkeypatch.setattr(Hub, "greet", greet)
    disturbed = serve(*V2)
    impostors[0].kill()
    assert set(refusals) == {("client 1 is here already", False)}
    clients.end()
    assert rounds_begun == [0, 1, 2]
    assert_same(disturbed, run_undisturbed(tiny, tmp_path, *V2))
    assert retransmitted(disturbed) == [(0, 0)] * 3


def without_one_in_round_1(tiny: Build, folder: Path, *overrides: str) -> Experiment:
    experiment = tiny(*overrides, "engine=sequential", "rounds=4")
    cohort_of = {"cohort_of": lambda t: [0, 1] if t == 1 else [0, 1, 2]}
    vars(experiment.parts).update(cohort_of)  # they are frozen
    experiment.run(RunDirectory.new(folder / "without", "hydra.run.dir"))
    return experiment


def assert_left_out_in_round_1(disturbed: Experiment, without: Experiment) -> None:
    assert [record.left_out for record in disturbed.records] == [[], [2], [], []]
    for record in disturbed.records:
        record.left_out.clear()
    assert_same(disturbed, without)


@pytest.mark.parametrize(
    "overrides", [pytest.param(SAGE, marks=pytest.mark.long), V2], ids=["fsl_sage", "splitfed_v2"]
)
def test_round_goes_on_without_a_client_that_is_not_connected(
    tiny: Build,
    serve: Callable[..., Experiment],
    clients: Clients,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: Sequence[str],
) -> None:
    original, rounds_begun = Hub.begin, list[int]()

    def begin(hub: Hub, round: int, cohort: Collection[int], after: Mapping[int, int]) -> None:
        rounds_begun.append(round)
        if rounds_begun == [0, 1]:
            clients.running[2].kill()
        if rounds_begun == [0, 1, 1, 2]:
            clients.running[2] = clients.start(2)
        if rounds_begun in ([0], [0, 1, 1, 2]):
            hub.wait_for_all()
        original(hub, round, cohort, after)

    monkeypatch.setattr(Hub, "begin", begin)
    monkeypatch.setattr(hub_module, "AWAY_S", 0.0)
    disturbed = serve(*overrides, "transport.min_clients=2", "rounds=4")
    clients.end()
    assert rounds_begun == [0, 1, 1, 2, 3]
    assert_left_out_in_round_1(disturbed, without_one_in_round_1(tiny, tmp_path, *overrides))


def test_round_goes_on_without_a_client_that_misses_the_deadline(
    tiny: Build,
    serve: Callable[..., Experiment],
    clients: Clients,
    rounds_begun: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Hub.answers

    def answers(
        hub: Hub, asked: Collection[int], *, until: float | None, enough: int | None
    ) -> dict[int, list[Parcel[pb.FromClient]]]:
        if rounds_begun == [0, 1] and 2 in asked:
            clients.running[2].send(signal.SIGSTOP)
            original(hub, [client for client in asked if client != 2], until=until, enough=enough)
            until = time.monotonic()
        if rounds_begun == [0, 1, 1, 2]:
            clients.running[2].send(signal.SIGCONT)
        return original(hub, asked, until=until, enough=enough)

    monkeypatch.setattr(Hub, "answers", answers)
    disturbed = serve(*SAGE, f"transport.round_deadline_s={LONG}", "transport.min_clients=2", "rounds=4")
    clients.end()
    assert rounds_begun == [0, 1, 1, 2, 3]
    assert_left_out_in_round_1(disturbed, without_one_in_round_1(tiny, tmp_path, *SAGE))


# One side alone, and what it is sent


class Stream:
    """What a server sends a client, and what the client's process makes of it."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        assert isinstance(experiment.transport, GrpcTransport)
        self.transport, self.run = experiment.transport, bytes(16)
        self.client = TrainingClient(
            server="-", client=0, tls=None, folder=folder, own={"device": "cpu"}, build=run_of_member
        )

    def named(self, number: int) -> pb.Identity:
        return pb.Identity(run=self.run, attempt=1, number=number)

    def serve(self, verbs: Sequence[Parcel[pb.FromServer]]) -> list[pb.FromClient]:
        """All that the client sends in a stream with these verbs."""
        welcome = pb.Welcome(server=bytes(16), plan=self.transport.plan)
        frames = [pb.FromServer(identity=pb.Identity(run=self.run), welcome=welcome)]
        frames += [frame for verb in verbs for frame in verb.frames()]
        outbox: Any = SimpleQueue()
        assert not self.client.serve(iter(frames), outbox)
        sent = []
        while not outbox.empty():
            sent += list(outbox.get().frames())
        return [frame for frame in sent if frame.WhichOneof("content") not in ("hello", "ready")]


@pytest.fixture
def stream(tiny: Build, tmp_path: Path) -> Stream:
    return Stream(tiny(*SAGE, "transport=grpc", "quant.weights.whole=fp16"), tmp_path)


def install(stream: Stream, number: int) -> Parcel[pb.FromServer]:
    transport, weights = stream.transport, stream.transport.run.client_weights
    delivery = transport.downlinks["client"].share(weights, [0], 0, 0)[0]
    packed = pack_weights(delivery, transport.expectations, "client")
    head = pb.FromServer(
        identity=stream.named(number),
        tensors=[tensor for tensor, _ in packed],
        install=pb.Install(part=pb.CLIENT, difference=delivery.difference),
    )
    return Parcel(head, [payload for _, payload in packed])


@pytest.mark.parametrize("before", [0, 1], ids=["whole", "difference"])
def test_client_that_is_sent_the_same_weights_again_does_not_add_them_twice(
    stream: Stream, before: int
) -> None:
    begin = Parcel(pb.FromServer(identity=stream.named(0), begin=pb.Begin()))
    verbs = [begin, *(install(stream, 1 + number) for number in range(before + 1))]
    answered = stream.serve(verbs)
    assert [frame.WhichOneof("content") for frame in answered] == ["done"] * len(verbs)
    worker = stream.client._worker
    assert worker is not None
    held = {name: tensor.clone() for name, tensor in worker._held["client"].items()}
    assert stream.serve(verbs[-1:]) == answered[-1:]
    assert all(torch.equal(tensor, worker._held["client"][name]) for name, tensor in held.items())
    upload = Parcel(
        pb.FromServer(identity=stream.named(before + 2), upload_weights=pb.UploadWeights(part=pb.CLIENT))
    )
    assert stream.serve([upload])[0].done.difference


def test_client_refuses_another_verb_under_the_identity_of_the_last(stream: Stream) -> None:
    begin = Parcel(pb.FromServer(identity=stream.named(0), begin=pb.Begin()))
    stream.serve([begin, install(stream, 1)])
    other = Parcel(pb.FromServer(identity=stream.named(1), forward=pb.Forward()))
    with pytest.raises(Corrupt, match="with the identity of the last one"):
        stream.serve([other])


@pytest.fixture
def hub(tiny: Build) -> Hub:
    transport = tiny("transport=grpc").transport
    assert isinstance(transport, GrpcTransport)
    hub = Hub(
        run=bytes(16),
        clients=1,
        expectations=transport.expectations,
        sample_counts=transport.run.sample_counts,
        ledger=transport.run.ledger,
    )
    hub.transport = transport  # type: ignore[attr-defined]
    return hub


def connect(hub: Hub, *, going_on: bool = False, number: int = 0) -> Link:
    link, instance = Link(lambda: None), b"i" * 16
    ready = pb.Ready(samples=hub._sample_counts[0], going_on=going_on, attempt=1, number=number)
    hub.attach(link, pb.Hello(version=1, client=0, instance=instance), ready)
    return link


def contents_of(link: Link) -> list[str | None]:
    link.close()
    return [frame.WhichOneof("content") for frame in link.frames()]


def test_hub_counts_as_retransmitted_only_what_it_had_sent_before(hub: Hub) -> None:
    hub.begin(0, [0], {})
    weights = hub.transport.run.client_weights  # type: ignore[attr-defined]
    delivery = hub.transport.downlinks["client"].share(weights, [0], 0, 0)[0]  # type: ignore[attr-defined]
    packed = pack_weights(delivery, hub._expectations, "client")
    hub.ask(0, tensors=packed, install=pb.Install(part=pb.CLIENT))
    link = connect(hub, going_on=True)
    assert hub._ledger.repeated_bytes(0) == {"up": 0, "down": 0}
    hub.detach(link, 0, 0)
    connect(hub, going_on=True)
    assert hub._ledger.repeated_bytes(0) == {"up": 0, "down": sum(tensor.size for tensor, _ in packed)}


def test_hub_counts_the_half_sent_message_of_a_replaced_stream_as_retransmitted(hub: Hub) -> None:
    hub.begin(0, [0], {})
    first = connect(hub)
    connect(hub)
    hub.detach(first, 0, 100)
    assert hub.connected_count == 1
    assert hub._ledger.repeated_bytes(0) == {"up": 100, "down": 0}


def test_hub_tells_a_client_that_was_away_at_the_end_of_the_run_to_finish_when_it_returns(hub: Hub) -> None:
    hub.detach(connect(hub), 0, 0)
    hub.finish(tell=True)
    links: list[Link] = []
    back = threading.Timer(0.01, lambda: links.append(connect(hub)))
    back.start()
    assert hub.see_off(LONG)
    back.join()
    assert contents_of(links[0]) == ["finish"]
