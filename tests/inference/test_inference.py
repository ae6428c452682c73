"""Split inference over gRPC: the same bits as in one process, and no more than was asked for."""

import csv
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsplit.config.compose import compose_config, composing, run_config
from fedsplit.config.run_config import RunConfig
from fedsplit.deployment.backends.backend import SmashedData
from fedsplit.errors import RunFailed, UserError
from fedsplit.inference.codes import DeviceCodes
from fedsplit.inference.grpc.device import DeviceClient
from fedsplit.inference.grpc.devices import DeviceGone, Devices, GrpcDevice, check_measured
from fedsplit.inference.server_half import RequestAnswer
from fedsplit.quant.message import Corrupt, Message
from fedsplit.tasks.infer import Infer
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Parcel, announcement
from fedsplit.transport.grpc.protocol.tls import Tls
from fedsplit.transport.grpc.server import listening as server_listening
from fedsplit.transport.grpc.server.meeting import Link, StreamRefused
from tests.conftest import TINY
from tests.warm import warm_children

SHORT = (
    *TINY,
    "task=infer",
    "task.requests=3",
    "task.warm_up=1",
    "task.calibration_batches=2",
    "batch_size=25",
)
LONG = 300.0
"""Seconds that no step of these tests takes."""
SAME = ("device", "request", "warm_up", "precision", "bytes.up", "bytes.down", "correct", "logits_crc32")
"""Columns that are the same over any wire."""


def infer(config: RunConfig, directory: Path) -> None:
    config.task.build(Infer).run(config, directory)


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "requests.csv").open(newline="", encoding="utf-8") as file:
        return [{name: row[name] for name in SAME} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def config() -> Callable[..., RunConfig]:
    def configure(*overrides: str) -> RunConfig:
        with composing():
            return run_config(compose_config([*SHORT, *overrides]))

    return configure


@pytest.fixture(scope="module")
def local(config: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("local") / "done"
    with warm_children():
        infer(config("precision=[fp32,int8]"), directory)
    return directory


def listening(monkeypatch: pytest.MonkeyPatch, dial: Callable[[int], None]) -> None:
    """Let `dial` know the port once the server listens."""
    start = server_listening.start

    def started(*given: Any, **named: Any) -> Any:
        server, port = start(*given, **named)
        dial(port)
        return server, port

    monkeypatch.setattr(server_listening, "start", started)


class Breaking(DeviceClient):
    """A device whose stream breaks after its first request, once."""

    broken = False

    def _measure(self, asked: Any, parcel: Any) -> Any:
        if not type(self).broken:
            type(self).broken = True
            raise Corrupt("the network broke")
        return super()._measure(asked, parcel)


@pytest.mark.long  # a spawned device's bits are compared in every run
def test_split_inference_of_devices_that_dial_in_has_the_bits_of_one_process_also_when_a_stream_breaks(
    config: Callable[..., RunConfig],
    local: Path,
    certificates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices: list[threading.Thread] = []

    def dial(port: int) -> None:
        for number, (kind, precision) in enumerate(((DeviceClient, "fp32"), (Breaking, "int8"))):
            made = kind(
                server=f"127.0.0.1:{port}",
                client=number,
                tls=Tls.read(certificates / f"client-{number}"),
                model=local / "deployed" / precision,
                own={"device": "cpu"},
            )
            devices.append(threading.Thread(target=made.attend, daemon=True))
            devices[-1].start()

    listening(monkeypatch, dial)
    over = ("transport=grpc", "transport.spawn=false", f"transport.tls={certificates / 'server'}")
    infer(config("precision=[fp32,int8]", *over), tmp_path / "done")
    for each in devices:
        each.join(LONG)
        assert not each.is_alive()
    assert Breaking.broken
    assert rows(tmp_path / "done") == rows(local)  # which tests/tasks/test_infer.py holds against plain torch
    first, second = json.loads((tmp_path / "done" / "summary.json").read_text())["precisions"]
    assert second["bytes.up"] / first["bytes.up"] == second["ratio.bytes.up"] <= 0.27
    assert first["seconds.wire.median"] > 0
    assert not (tmp_path / "done" / "deployed").exists()  # devices brought their own


@pytest.mark.usefixtures("warm_processes")
def test_split_inference_of_a_spawned_device_process_has_the_bits_of_one_process(
    config: Callable[..., RunConfig], local: Path, tmp_path: Path
) -> None:
    infer(config("precision=int8", "transport=grpc"), tmp_path / "done")
    mine = [row for row in rows(local) if row["precision"] == "int8"]
    assert rows(tmp_path / "done") == [{**row, "device": "0"} for row in mine]
    assert (tmp_path / "done" / "device-0.log").is_file()


def test_split_inference_fails_when_a_device_does_not_come_in_time(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    alone = config("transport=grpc", "transport.spawn=false", "task.wait_s=0.2")
    with pytest.raises(RunFailed, match=r"device 0 is not here after 0\.2 s \(task\.wait_s\)"):
        infer(alone, tmp_path / "done")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["transport.min_clients=1"], "transport.min_clients=1: must be null beside task=infer"),
        (["transport.listen=0.0.0.0:0", "transport.spawn=false"], "transport.listen=0.0.0.0:0: "),
        (["task.devices=4", "transport.spawn=false"], "task.devices=4: must be at most num_clients, 3"),
        (["task.devices=2"], "task.devices=2: must be null with transport.spawn=true"),
    ],
)
def test_split_inference_refuses_settings_that_no_server_can_have(
    config: Callable[..., RunConfig], tmp_path: Path, overrides: list[str], told: str
) -> None:
    with pytest.raises(UserError) as error:
        infer(config("transport=grpc", *overrides), tmp_path / "done")
    assert str(error.value).startswith(told)
    assert not list(tmp_path.iterdir())


def test_device_refuses_a_directory_without_a_deployed_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"client\.model=.*: holds no deployed client model"):
        DeviceClient(server="127.0.0.1:1", client=0, tls=None, model=tmp_path, own={})


@pytest.mark.usefixtures("warm_processes")
def test_split_inference_refuses_a_client_that_trains_and_goes_on_with_its_device(
    config: Callable[..., RunConfig], local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[str] = []
    threads: list[threading.Thread] = []

    class Trains(DeviceClient):
        def call(self, stub: Any) -> Any:
            return stub.Attend

    def dial(port: int) -> None:
        def attend() -> None:
            for kind in (Trains, DeviceClient):
                device = kind(
                    server=f"127.0.0.1:{port}", client=0, tls=None, model=local / "deployed/fp32", own={}
                )
                try:
                    device.attend()
                except RunFailed as error:
                    refusals.append(str(error))

        threads.append(threading.Thread(target=attend, daemon=True))
        threads[0].start()

    listening(monkeypatch, dial)
    infer(config("precision=fp32", "transport=grpc", "transport.spawn=false"), tmp_path / "done")
    threads[0].join(LONG)
    (reason,) = refusals
    assert reason.startswith("the server refused: this server does split inference: ")
    assert rows(tmp_path / "done") == [row for row in rows(local) if row["precision"] == "fp32"]


# Answers that a hub of devices accepts

BATCH = (4, 3, 2, 2)


def hub(failure: str | None = None, batch: tuple[int, ...] = BATCH, context: int | None = None) -> Devices:
    return Devices(
        run=b"r" * 16,
        devices=2,
        allowed=["int8"],
        batch=batch,
        codes=DeviceCodes(context),
        wait_s=5.0,
        failure=lambda: failure,
    )


def hello(client: int = 0, instance: bytes = b"i" * 16) -> pb.Hello:
    return pb.Hello(version=1, client=client, instance=instance)


def smashed(identity: pb.Identity, message: Message | None = None, **others: Any) -> Parcel[pb.FromClient]:
    values = torch.zeros(BATCH, dtype=torch.uint8)
    message = message or DeviceCodes().encode(SmashedData(values, 0.1, 3))
    tensor = announcement("z", pb.DEVICE, message)
    for name, value in others.items():
        setattr(tensor, name, value)
    return Parcel(pb.FromClient(identity=identity, tensors=[tensor], smashed=pb.Smashed()), [message.payload])


class Asked:
    """A hub that has asked device 0 for smashed data."""

    def __init__(self, **of_hub: Any) -> None:
        self.hub, self.link = hub(**of_hub), Link(lambda: None)
        self.hub.attach(self.link, hello(), pb.Deployed(precision="int8"))
        self.answers: list[object] = []
        self.thread = threading.Thread(target=self._ask, daemon=True)
        self.thread.start()
        self.identity = next(self.link.frames()).identity

    def _ask(self) -> None:
        try:
            self.answers.append(self.hub.ask(0, "smashed", pb.FromServer(request=pb.Request(batch=0))))
        except DeviceGone as gone:
            self.answers.append(gone)


def test_hub_of_devices_returns_an_answer_to_its_request() -> None:
    asked = Asked()
    parcel = smashed(asked.identity)
    assert asked.hub.admit(asked.link, 0, parcel.head)
    asked.hub.receive(asked.link, 0, parcel)
    asked.thread.join(LONG)
    assert asked.answers == [parcel]


def of(dtype: torch.dtype, shape: tuple[int, ...] = BATCH) -> Message:
    return Message.seal(bytes(dtype.itemsize * torch.Size(shape).numel()), shape, dtype)


@pytest.mark.parametrize(
    ("message", "others", "told"),
    [
        (of(torch.float32, (5, 3, 2, 2)), {}, "must have shape"),
        (of(torch.float32, (4, 12)), {}, "must have shape"),
        (of(torch.int64), {}, r"smashed data have type torch\.int64"),
        (None, {"data_type": 99}, "smashed data have type None"),
        (None, {"size": 1 << 40}, "which is more than it can have"),
        (None, {"codec": pb.EXACT}, "came in place of"),
        (None, {"name": "y"}, "came in place of"),
        (None, {"values": 7}, "values, and 7 came"),
    ],
)
def test_hub_of_devices_refuses_tensors_other_than_smashed_data(
    message: Message | None, others: Any, told: str
) -> None:
    asked = Asked()
    with pytest.raises(Corrupt, match=told):
        asked.hub.admit(asked.link, 0, smashed(asked.identity, message, **others).head)
    asked.hub.detach(asked.link, 0, 0)
    asked.thread.join(LONG)
    assert isinstance(asked.answers[0], DeviceGone)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((2, 3, 5), None),
        ((2, 8, 5), None),
        ((2, 9, 5), "smashed data have 9 positions, which no batch has"),
        ((2, 0, 5), "smashed data have 0 positions, which no batch has"),
        ((3, 3, 5), "must have shape"),
        ((2, 3, 6), "must have shape"),
        ((2,), "must have shape"),
    ],
)
def test_hub_of_devices_admits_batches_of_texts_of_every_length_that_models_see(
    shape: tuple[int, ...], told: str | None
) -> None:
    asked = Asked(batch=(2, 8, 5), context=8)
    parcel = smashed(asked.identity, of(torch.float32, shape))
    if told is None:
        assert asked.hub.admit(asked.link, 0, parcel.head)
    else:
        with pytest.raises(Corrupt, match=told):
            asked.hub.admit(asked.link, 0, parcel.head)
    asked.hub.detach(asked.link, 0, 0)
    asked.thread.join(LONG)


def test_hub_of_devices_refuses_answers_to_what_was_not_requested() -> None:
    asked = Asked()
    other = pb.Identity(run=b"r" * 16, client=0, number=99)
    with pytest.raises(Corrupt, match="in place of smashed"):
        asked.hub.admit(asked.link, 0, smashed(other).head)
    measured = pb.FromClient(identity=asked.identity, measured=pb.Measured())
    with pytest.raises(Corrupt, match="measured came in place of smashed"):
        asked.hub.receive(asked.link, 0, Parcel(measured))
    with pytest.raises(Corrupt, match="had asked for nothing"):
        asked.hub.admit(Link(lambda: None), 0, smashed(asked.identity).head)
    bare = pb.FromClient(identity=asked.identity, smashed=pb.Smashed())
    with pytest.raises(Corrupt, match="without its smashed data"):
        asked.hub.receive(asked.link, 0, Parcel(bare))


def test_hub_of_devices_lets_in_known_devices_of_a_measured_precision_once() -> None:
    known = hub()
    with pytest.raises(StreamRefused, match="this study has devices 0 to 1"):
        known.greet(hello(2))
    with pytest.raises(StreamRefused, match="it runs precision 'fp32', and this server measures int8"):
        known.attach(Link(lambda: None), hello(), pb.Deployed(precision="fp32"))
    known.attach(Link(lambda: None), hello(), pb.Deployed(precision="int8"))
    known.attach(Link(lambda: None), hello(), pb.Deployed(precision="int8"))  # the same process again
    with pytest.raises(StreamRefused, match="is here already"):
        known.greet(hello(0, b"o" * 16))


def test_hub_of_devices_does_not_wait_for_a_device_that_failed_to_start() -> None:
    with pytest.raises(RunFailed, match="device 1: no such file"):
        hub("device 1: no such file").wait_for(1)


@pytest.mark.parametrize(
    "measured",
    [
        pb.Measured(client_seconds=float("nan")),
        pb.Measured(client_seconds=-1.0),
        pb.Measured(journey_seconds=float("inf")),
        pb.Measured(correct=5),
        pb.Measured(peak_memory=1 << 60),
    ],
)
def test_impossible_measurements_of_a_device_are_refused(measured: pb.Measured) -> None:
    with pytest.raises(Corrupt):
        check_measured(measured, 4)


@pytest.mark.parametrize("flipped", [0, 1])
def test_measurements_of_a_device_that_got_other_logits_than_were_sent_are_refused(flipped: int) -> None:
    answered = RequestAnswer(torch.tensor([[1.0, 2.0], [4.0, 3.0]]), 0.01)

    class Hub:
        def wait_for(self, number: int) -> pb.Deployed:
            return pb.Deployed()

        def ask(self, number: int, kind: str, head: pb.FromServer, *payloads: bytes) -> Parcel:
            measured = pb.Measured(checksum=answered.checksum ^ flipped)
            return Parcel(pb.FromClient(measured=measured), [])

    device = GrpcDevice(0, Hub(), None, None)  # type: ignore[arg-type]
    if flipped:
        with pytest.raises(Corrupt, match="not those that the server sent"):
            device._answer(answered, 2)
    else:
        assert device._answer(answered, 2).checksum == answered.checksum
