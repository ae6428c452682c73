"""Defences over a network: the bits of one process, and a secret that never leaves its client."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from fedsplit.building.run import run_of_member
from fedsplit.errors import UserError
from fedsplit.parties.messages import Upload
from fedsplit.transport.grpc.client.client import TrainingClient
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Parcel
from tests.conftest import Build
from tests.transport.runs import assert_same, metrics, ran
from tests.transport.test_failures import Stream, install
from tests.transport.test_strangers import listening

NOISY = ("algorithm=splitfed_v1", "defence=gaussian", "defence.clip=5", "num_clients=2", "rounds=2")


@pytest.mark.usefixtures("warm_clients")
def test_local_and_grpc_give_the_same_with_noise(tiny: Build, tmp_path: Path) -> None:
    overrides = [
        *NOISY,
        "algorithm=fsl_sage",
        "quant.smashed=int8_channel",
        "quant.continue_from_decoded=true",
    ]
    local = ran(tiny(*overrides, "engine=sequential"), tmp_path / "local")
    grpc = ran(tiny(*overrides, "transport=grpc"), tmp_path / "grpc")
    assert_same(local, grpc)
    assert all(float(row["epsilon.smashed"]) > 0 for row in metrics(grpc))


class Device(Stream):
    """A client on a machine of its own, and what a server sends it."""

    def __init__(self, tiny: Build, folder: Path, **given: float) -> None:
        super().__init__(tiny(*NOISY, "transport=grpc", "transport.spawn=false"), folder)
        self.folder, self.given = folder, given
        self.start()

    def start(self) -> None:
        """Start its process, as after a kill."""
        self.client = TrainingClient(
            server="-",
            client=0,
            tls=None,
            folder=self.folder,
            own={"device": "cpu"},
            build=run_of_member,
            keeps_secret=True,
            **self.given,  # type: ignore[arg-type]
        )

    def smashed(self) -> bytes:
        """What the client uploads of its first step, of a round that has just begun."""
        begin = Parcel(pb.FromServer(identity=self.named(0), begin=pb.Begin()))
        forward = Parcel(pb.FromServer(identity=self.named(2), forward=pb.Forward()))
        sent = self.serve([begin, install(self, 1), forward])
        return b"".join(frame.chunk.content for frame in sent if frame.WhichOneof("content") == "chunk")


def test_client_that_is_killed_gives_the_same_noise_and_other_noise_to_other_weights(
    tiny: Build, tmp_path: Path
) -> None:
    device = Device(tiny, tmp_path / "kept")
    first = device.smashed()
    device.start()
    assert device.smashed() == first != b""
    elsewhere = Device(tiny, tmp_path / "elsewhere")
    assert elsewhere.smashed() != first
    worker = device.client._worker
    assert worker is not None
    blueprint = worker.run.engine.blueprint
    z = torch.ones(4, 3)
    exact = Upload(0, 0, z, torch.zeros(4, dtype=torch.int64))
    noise = [blueprint.release(replace(exact, z=each), 0).z - each for each in (z, z, 2 * z)]
    torch.testing.assert_close(noise[0], noise[1], rtol=0, atol=0)
    assert float((noise[2] - noise[0]).abs().max()) > 0.1


@pytest.mark.parametrize(("least", "refused"), [(0.05, False), (0.06, True)])
def test_client_that_insists_on_noise_refuses_a_run_with_less(
    tiny: Build, tmp_path: Path, least: float, refused: bool
) -> None:
    device = Device(tiny, tmp_path, min_noise=least)
    if not refused:
        assert device.smashed()
        return
    with pytest.raises(UserError, match=r"client\.min_noise=0\.06: the run's defence=gaussian guards"):
        device.smashed()


def test_secret_is_in_nothing_that_a_server_has_or_is_sent(
    tiny: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    run = tiny(*NOISY, "transport=grpc", "transport.spawn=false", "client.min_noise=7")
    sent: list[bytes] = []
    to_wire = Parcel.frames

    def noted(parcel: Parcel[pb.FromClient]) -> object:
        for frame in to_wire(parcel):
            sent.append(frame.SerializeToString())
            yield frame

    monkeypatch.setattr(Parcel, "frames", noted)
    with listening(run, tmp_path / "run", monkeypatch) as running:
        for client in range(2):
            made = TrainingClient(
                server=f"127.0.0.1:{running.port}",
                client=client,
                tls=None,
                folder=tmp_path / f"state-{client}",
                own={},
                build=run_of_member,
                keeps_secret=True,
            )
            running.start(made.attend)
            running.until(lambda client=client: run.records or running._connected() > client)
    secrets = [(tmp_path / f"state-{client}" / "secret").read_bytes() for client in range(2)]
    written = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    names = {path.name for path in written}
    assert {"config.yaml", "run.log", "results.json", "state.safetensors"} <= names
    plan = run.transport.plan.SerializeToString()  # type: ignore[attr-defined]
    assert b"defence" in plan
    assert b"min_noise" not in plan
    everything = [*written.values(), *sent, plan, caplog.text.encode()]
    for secret in secrets:
        forms = (secret, secret.hex().encode(), str(list(secret)).encode())
        assert not any(form in content for form in forms for content in everything)
        kept = [
            path.name
            for path in tmp_path.glob("state-*/**/*")
            if path.is_file() and secret in path.read_bytes()
        ]
        assert kept == ["secret"]
    assert b'"noise": "secret"' in written[tmp_path / "run" / "results.json"]
    local = ran(tiny(*NOISY, "engine=sequential"), tmp_path / "local")
    assert metrics(local)[-1]["epsilon.smashed"] == metrics(tmp_path / "run")[-1]["epsilon.smashed"]
    ours, theirs = (
        (each / "model" / "client.safetensors").read_bytes() for each in (local, tmp_path / "run")
    )
    assert any(not torch.equal(a, b) for a, b in zip(load(ours).values(), load(theirs).values(), strict=True))
