"""What runs leave behind, and whether it is the same in every bit."""

import csv
from pathlib import Path

import torch

from fedsplit.recording.checkpoint import load_latest
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.state.state import State
from fedsplit.training.experiment import Experiment


def ran(experiment: Experiment, directory: Path) -> Path:
    """The directory of an experiment, once it has ended."""
    directory.mkdir(parents=True)
    experiment.run(RunDirectory(directory))
    return directory


def metrics(directory: Path) -> list[dict[str, str]]:
    """The rows of `metrics.csv`, but for seconds."""
    with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in row if not name.startswith("seconds.")} for row in rows]


def state(directory: Path) -> State:
    """What the newest checkpoint holds."""
    found = load_latest(directory / "checkpoint")
    assert found is not None
    return found.state


def assert_same(one: Path, other: Path) -> None:
    """Models, metrics, the ledger and all servers' state are the same, bit for bit."""
    rows = metrics(one)
    assert rows
    assert rows == metrics(other)
    ledger = state(one)["ledger"]
    assert len(ledger) == len(rows)
    assert ledger == state(other)["ledger"]
    _assert_same_state(state(one)["algorithm"], state(other)["algorithm"], "")
    models = sorted(path.name for path in (one / "model").iterdir())
    assert {"client", "server"} <= {Path(name).stem.partition("-")[0] for name in models}
    assert models == sorted(path.name for path in (other / "model").iterdir())
    for name in models:
        assert (one / "model" / name).read_bytes() == (other / "model" / name).read_bytes(), name


def _assert_same_state(one: object, other: object, path: str) -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys(), path
        for name in one:
            _assert_same_state(one[name], other[name], f"{path}/{name}")
    elif isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other), path
    else:
        assert one == other, path
