"""What Weights & Biases keeps of a run offline is what the run wrote to its own files."""

import csv
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from fedsplit.training.resume import resumed_config
from tests.conftest import Build
from tests.transport.runs import ran

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import Record

OVERRIDES = ("tracker=wandb", "tracker.mode=offline", "rounds=3", "eval_interval=2", "quant=int8")
BLOCK = 2**15


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")


def _records(content: bytes) -> "Iterator[Record]":
    """Of an offline file: a header of 7 bytes, then LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415  (takes a second)

    start, whole = 7, b""
    while start + 7 <= len(content):
        left = BLOCK - start % BLOCK
        if left < 7:  # too little for the head of a piece: padding
            start += left
            continue
        _, size, kind = struct.unpack("<IHB", content[start : start + 7])
        if start + 7 + size > len(content):
            return
        whole += content[start + 7 : start + 7 + size]
        start += 7 + size
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield Record.FromString(whole)
            whole = b""


def _history(folder: Path) -> dict[int, dict[str, float]]:
    """The logged numbers of each step, once all is on disk: its writer is a process of its own."""
    (path,) = folder.glob("*.wandb")
    deadline = time.monotonic() + 300
    while not any(record.HasField("exit") for record in _records(path.read_bytes())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found: dict[int, dict[str, float]] = {}
    for record in _records(path.read_bytes()):
        if record.WhichOneof("record_type") == "history":
            items = {
                item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item
            }
            step = int(items.pop("_step"))
            found[step] = {name: value for name, value in items.items() if not name.startswith("_")}
    return found


def _written(directory: Path) -> dict[int, dict[str, float]]:
    with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        int(row["round"]): {
            column.replace(".", "/", 1): float(cell)
            for column, cell in row.items()
            if cell != "" and column not in ("round", "left_out")
        }
        for row in rows
    }


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in (("WANDB_CONFIG_DIR", "config"), ("WANDB_CACHE_DIR", "cache"), ("NETRC", "netrc")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.mark.long  # a server process of Weights & Biases
def test_offline_files_of_wandb_hold_every_number_and_a_resumed_run_keeps_its_id(
    tiny: Build, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = RunDirectory(ran(tiny(*OVERRIDES), tmp_path / "run"))
    (first,) = (directory.path / "wandb").glob("offline-run-*")
    assert _history(first) == _written(directory.path)
    resumed = Experiment(resumed_config(directory, {"rounds": 4}))
    checkpoint = directory.latest_checkpoint()
    assert checkpoint is not None
    resumed.restore(checkpoint)
    resumed.run(directory)
    (second,) = set((directory.path / "wandb").glob("offline-run-*")) - {first}
    assert _history(second) == _written(directory.path)
    number = (directory.path / "wandb/id").read_text()
    assert first.name.endswith(f"-{number}")
    assert second.name.endswith(f"-{number}")
    assert "WARNING" not in (directory.path / "run.log").read_text()
    assert capfd.readouterr() == ("", "")


def test_run_goes_on_without_wandb_where_nobody_is_logged_in(tiny: Build, tmp_path: Path) -> None:
    directory = ran(tiny("tracker=wandb", "rounds=1"), tmp_path / "run")
    (warning,) = [line for line in (directory / "run.log").read_text().splitlines() if "WARNING" in line]
    assert "WeightsAndBiases is off from here on (RuntimeError: not logged in: wandb login" in warning
    assert json.loads((directory / "results.json").read_text())["rounds_run"] == 1
