"""Checkpoints keep a file a client, and write again only those of clients that have changed."""

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsplit.recording import checkpoint
from fedsplit.recording.checkpoint import Checkpoint, Since, load_latest, save
from fedsplit.state.by_client import ByClient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


def _state(values: dict[int, float]) -> dict[str, Any]:
    """Rings and models of some clients, in this order; what a client has says its value."""
    rings = ByClient({str(c): {"z": torch.full((2, 3), v), "y": None} for c, v in values.items()})
    models = ByClient({str(c): {"model": {"w": torch.tensor(v)}, "last": int(v)} for c, v in values.items()})
    return {"weights": torch.ones(2), "server": {"rings": rings}, "clients": models}


def _saved(folder: Path, rounds: int, values: dict[int, float], since: Since | None = None) -> None:
    save(folder, Checkpoint(rounds, _state(values), since=since))


def _values(folder: Path) -> tuple[int, dict[int, float]]:
    """Rounds of the newest whole checkpoint, and what it says of clients, in its order."""
    found = load_latest(folder)
    assert found is not None
    values = {int(c): float(each["model"]["w"]) for c, each in found.state["clients"].items()}
    expected = _state(values)
    assert torch.equal(found.state["weights"], expected["weights"])
    for client, ring in found.state["server"]["rings"].items():
        assert torch.equal(ring["z"], expected["server"]["rings"][client]["z"])
        assert ring["y"] is None
        assert found.state["clients"][client]["last"] == expected["clients"][client]["last"]
    assert list(found.state["server"]["rings"]) == list(found.state["clients"])
    return found.rounds, values


def _inodes(folder: Path, rounds: int) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (folder / f"round-{rounds:06d}").glob("client-*")}


def test_clients_that_did_not_change_keep_their_file(folder: Path) -> None:
    first = {7: 1.0, 3: 2.0, 11: 3.0}
    _saved(folder, 1, first)
    second = first | {3: 20.0, 5: 4.0}
    _saved(folder, 2, second, Since(1, {3, 5}))
    before, after = _inodes(folder, 1), _inodes(folder, 2)
    assert set(after) == {f"client-{c}.safetensors" for c in second}
    shared = {name for name in after if before.get(name) == after[name]}
    assert shared == {"client-7.safetensors", "client-11.safetensors"}
    found = _values(folder)
    assert found == (2, second)
    assert list(found[1]) == list(second)
    shutil.rmtree(folder / "round-000002")
    assert _values(folder) == (1, first)


def test_files_of_clients_go_with_the_last_checkpoint_that_has_them(folder: Path) -> None:
    _saved(folder, 1, {0: 1.0, 1: 1.0})
    (file,) = (folder / "round-000001").glob("client-0.*")
    kept = os.open(file, os.O_RDONLY)
    try:
        _saved(folder, 2, {0: 1.0, 1: 2.0}, Since(1, {1}))
        assert os.fstat(kept).st_nlink == 2
        _saved(folder, 3, {1: 2.0}, Since(2, {0}))
        assert os.fstat(kept).st_nlink == 1  # the first checkpoint is gone
        _saved(folder, 4, {1: 2.0}, Since(3, ()))
        assert os.fstat(kept).st_nlink == 0
    finally:
        os.close(kept)
    assert _values(folder) == (4, {1: 2.0})


def _without_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)


def _removed(folder: Path, _: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "round-000001")


def _without_sums(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "round-000001" / "SHA256SUMS").unlink()


@pytest.mark.parametrize("trouble", [_without_links, _removed, _without_sums])
def test_all_clients_are_written_where_nothing_can_be_shared(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    _saved(folder, 1, {0: 1.0, 1: 1.0})
    trouble(folder, monkeypatch)
    _saved(folder, 2, {0: 1.0, 1: 2.0}, Since(1, {1}))
    assert {path.stat().st_nlink for path in (folder / "round-000002").iterdir()} == {1}
    assert _values(folder) == (2, {0: 1.0, 1: 2.0})


def test_damaged_file_of_a_client_falls_back_to_the_checkpoint_before(folder: Path) -> None:
    _saved(folder, 1, {0: 1.0, 1: 1.0})
    _saved(folder, 2, {0: 1.0, 1: 2.0}, Since(1, {1}))
    file = folder / "round-000002" / "client-1.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert _values(folder) == (1, {0: 1.0, 1: 1.0})


def test_states_that_a_client_keeps_itself_are_in_one_file(folder: Path) -> None:
    checkpoint.replace(folder, Checkpoint(1, _state({0: 1.0})), needed=0, durable=False)
    names = {path.name for path in (folder / "round-000001").iterdir()}
    assert names == {"state.safetensors", "state.json", "SHA256SUMS"}
    assert _values(folder) == (1, {0: 1.0})


def _killed_at(instant: int, work: Callable[[], None]) -> bool:
    """Whether a process of its own was killed as it called the system for the `instant`-th time in `work`."""
    child = os.fork()
    if not child:
        calls = 0

        def before(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == instant:
                    os._exit(9)  # as by SIGKILL: nothing is tidied up
                return function(*arguments, **named)

            return call

        for name in ("mkdir", "open", "link", "rename", "replace", "unlink", "rmdir", "fsync"):
            setattr(os, name, before(getattr(os, name)))
        checkpoint.save_file = before(checkpoint.save_file)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_kill_at_any_instant_leaves_one_of_both_checkpoints_whole(folder: Path, tmp_path: Path) -> None:
    values: list[dict[int, float]] = [{0: 1.0, 1: 1.0, 2: 1.0}, {0: 1.0, 1: 2.0, 2: 2.0}, {0: 3.0, 2: 2.0}]
    changed: list[Collection[int]] = [(), (1, 2), (0, 1)]
    _saved(folder, 1, values[0])
    _saved(folder, 2, values[1], Since(1, changed[1]))
    begun, found = tmp_path / "begun", set[int]()
    shutil.copytree(folder, begun)  # without links: each start is the same
    for instant in range(1, 200):
        shutil.rmtree(folder)
        shutil.copytree(begun, folder)
        killed = _killed_at(instant, lambda: _saved(folder, 3, values[2], Since(2, changed[2])))
        rounds, after = _values(folder)
        assert (rounds, after) in ((2, values[1]), (3, values[2])), f"killed at instant {instant}"
        found.add(rounds)
        if not killed:
            break
        _saved(folder, 4, values[2], Since(rounds, (0, 1, 2)))  # goes on beside what the kill left
        assert _values(folder) == (4, values[2])
        assert not (folder / ".partial").exists()
    else:
        raise AssertionError("more calls than instants")
    assert instant > 15
    assert found == {2, 3}
