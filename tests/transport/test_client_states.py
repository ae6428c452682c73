"""States that clients keep in their folders: each takes only its own."""

import json
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fedsplit.building.run import carried_run
from fedsplit.errors import UserError
from fedsplit.recording import checkpoint
from fedsplit.recording.ledger import Ledger
from fedsplit.transport.grpc.client.client import _claim
from fedsplit.transport.grpc.client.worker import Worker
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Parcel
from tests.conftest import Build

RUN, OTHER = bytes(16), bytes([1] * 16)
OVERRIDES = ("engine=sequential", "algorithm=fed_avg")


@pytest.fixture
def worker(tiny: Build, tmp_path: Path) -> Callable[..., Worker]:
    """A client of a run in this process; all have one folder."""

    def build(client: int, *overrides: str, run: bytes = RUN) -> Worker:
        parts = tiny(*OVERRIDES, *overrides).parts
        return Worker(carried_run(parts, Ledger()), client, tmp_path / "state", run.hex())

    return build


def asked(worker: Worker, **verb: Any) -> str:
    """What a worker says that failed; nothing where it did not."""
    (answer,) = worker.answer(Parcel(pb.FromServer(**verb), []))
    return str(answer.head.failed.what)


def keep(worker: Worker, rounds: int) -> None:
    assert asked(worker, keep=pb.Keep(rounds=rounds, needed=0, durable=False)) == ""


def begin(worker: Worker, after: int) -> str:
    return asked(worker, begin=pb.Begin(after=after))


def test_client_goes_on_from_a_state_of_its_own(worker: Callable[..., Worker]) -> None:
    keep(worker(1), 2)
    assert begin(worker(1), 2) == ""


@pytest.mark.parametrize(
    ("client", "overrides", "run", "words"),
    [
        (2, (), RUN, "is that of client 1"),
        (1, (), OTHER, "is that of another run"),
        (1, ("dataset.max_train=129",), RUN, "its images are not those .*train.images 129, not 130"),
        (1, ("seed=1", "distribution=dirichlet"), RUN, "its images are not those .*other division"),
    ],
)
def test_client_refuses_a_state_that_is_not_its_own(
    worker: Callable[..., Worker], client: int, overrides: tuple[str, ...], run: bytes, words: str
) -> None:
    keep(worker(1), 2)
    other = worker(client, *overrides, run=run)
    failed = begin(other, 2)
    assert str(other.folder) in failed
    assert re.search(words, failed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda values: values.pop("format"),
            "state.json is not what this version writes: it has no format number",
        ),
        (lambda values: values["state"].pop("identity"), "does not say whose it is"),
        (lambda values: values["state"].update(identity=[]), "does not say whose it is"),
        (lambda values: values["state"].pop("up"), "is not what this version writes"),
        (lambda values: values["state"].update(clients={"1": 3}), "is not what this version writes"),
    ],
)
def test_client_refuses_a_state_of_another_form(
    worker: Callable[..., Worker], change: Callable[[dict[str, Any]], object], words: str
) -> None:
    keep(worker(1), 2)
    (folder,) = worker(1).folder.iterdir()
    values = json.loads((folder / "state.json").read_text())
    change(values)
    (folder / "state.json").write_text(json.dumps(values))
    names = ("state.safetensors", "state.json")
    sums = [f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums))
    assert words in begin(worker(1), 2)


def test_client_neither_counts_nor_removes_copies_of_its_states(worker: Callable[..., Worker]) -> None:
    one = worker(1)
    keep(one, 2)
    copies = ["round-2 (copy)", "round-000002.bak", "round-x"]
    for name in copies:
        shutil.copytree(one.folder / "round-000002", one.folder / name)
    assert one.states() == [2]
    assert asked(one, keep=pb.Keep(rounds=3, needed=3, durable=False)) == ""
    assert one.states() == checkpoint.kept_rounds(one.folder) == [3]
    assert sorted(path.name for path in one.folder.iterdir()) == sorted([*copies, "round-000003"])


def test_folder_of_a_client_is_that_of_one_client_of_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "client"
    for _ in range(2):
        _claim(folder, RUN, 1)
    with pytest.raises(UserError, match="holds the state of client 1; take another"):
        _claim(folder, RUN, 2)
    with pytest.raises(UserError, match="holds the state of another run; take another") as caught:
        _claim(folder, OTHER, 1)
    assert (caught.value.key, caught.value.value) == ("client.directory", folder)
