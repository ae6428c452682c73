import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Thread

import pytest

from fedsplit.errors import UserError
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.recording.run_lock import LOCK, RunLock
from fedsplit.tasks.task import go_on, perform
from tests.conftest import TINY, Build, Configure


@contextmanager
def forked(act: Callable[[], object]) -> Iterator[int]:
    """While a forked process has done something, and waits to be killed; its number."""
    done, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        act()
        os.write(tell, b".")
        signal.pause()
    os.read(done, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(done)
        os.close(tell)


def refused(act: Callable[[], object], path: Path, key: str) -> None:
    with pytest.raises(UserError, match="another process is at work in this directory") as caught:
        act()
    assert (caught.value.key, caught.value.value) == (key, path)
    assert str(caught.value).count("\n") == 0


def test_lock_of_a_killed_process_is_free_though_its_file_stays(tmp_path: Path) -> None:
    with forked(RunLock(tmp_path, "resume").take):
        refused(RunLock(tmp_path, "resume").take, tmp_path, "resume")
    assert (tmp_path / LOCK).exists()
    lock = RunLock(tmp_path, "resume")
    lock.take()
    lock.take()  # held already
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_lock_ends_with_its_process_while_forked_and_started_ones_live_on(tmp_path: Path) -> None:
    lock, other = RunLock(tmp_path, "resume"), RunLock(tmp_path, "resume")
    lock.take()
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with (
        forked(lambda: None),
        subprocess.Popen(command, stdin=-1, stdout=subprocess.PIPE, close_fds=False) as started,
    ):
        assert started.stdout is not None
        assert started.stdout.readline()  # the kernel closes files a moment after it goes on here
        refused(other.take, tmp_path, "resume")
        lock.drop()  # what the kernel does at the end of a process
        other.take()
    other.release()


def test_lock_that_a_forked_process_drops_is_still_held(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, "resume")
    lock.take()
    with forked(lock.release):
        refused(RunLock(tmp_path, "resume").take, tmp_path, "resume")
        assert (tmp_path / LOCK).exists()
    lock.release()


def test_lock_file_that_was_replaced_meanwhile_is_not_the_one_that_is_held(tmp_path: Path) -> None:
    lock, other = RunLock(tmp_path, "resume"), RunLock(tmp_path, "resume")
    lock.take()
    (tmp_path / LOCK).unlink()
    other.take()
    lock.release()  # leaves the other's file
    refused(RunLock(tmp_path, "resume").take, tmp_path, "resume")
    other.release()


def test_run_directory_is_one_process_own_from_its_claim_to_its_close(tmp_path: Path) -> None:
    path = tmp_path / "run"
    first = RunDirectory.new(path, "hydra.run.dir")
    refused(lambda: RunDirectory.new(path, "hydra.run.dir"), path, "hydra.run.dir")
    refused(lambda: RunDirectory(path).open({}, []), path, "hydra.run.dir")
    first.open({"choices": {}}, [])
    refused(RunDirectory.existing(path).claim, path, "resume")
    assert RunDirectory.existing(path).config() == {"choices": {}}  # to read is no work
    first.close()
    with pytest.raises(UserError, match="holds a run already"):
        RunDirectory.new(path, "hydra.run.dir")
    again = RunDirectory.existing(path)
    again.claim()
    again.close()


def test_of_new_runs_that_race_for_a_directory_one_begins(tmp_path: Path) -> None:
    path, barrier = tmp_path / "run", Barrier(8)
    made: list[RunDirectory] = []
    errors: list[str] = []

    def begin() -> None:
        barrier.wait()
        try:
            directory = RunDirectory.new(path, "hydra.run.dir")
        except UserError as error:
            errors.append(str(error))
        else:
            made.append(directory)

    threads = [Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(errors)) == (1, 7)
    assert all(str(path) in error for error in errors)
    made[0].close()


def test_directory_begun_while_a_new_run_waits_for_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = RunLock.take

    def late(lock: RunLock) -> None:
        monkeypatch.setattr(RunLock, "take", take)
        other = RunDirectory.new(tmp_path, "hydra.run.dir")
        other.open({}, [])
        other.close()
        take(lock)

    monkeypatch.setattr(RunLock, "take", late)
    with pytest.raises(UserError, match="holds a run already"):
        RunDirectory.new(tmp_path, "hydra.run.dir")
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("checkpoints", [True, False])
def test_run_that_another_process_is_at_is_neither_resumed_nor_begun(
    tiny: Build, configured: Configure, tmp_path: Path, checkpoints: bool
) -> None:
    path = tmp_path / "run"
    tiny("rounds=1").run(RunDirectory.new(path, "hydra.run.dir"))
    if not checkpoints:
        (path / "checkpoint").rename(tmp_path / "elsewhere")
    before = {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
    with forked(RunDirectory.existing(path).claim):
        refused(lambda: go_on(path, {"rounds": 2}), path, "resume")
        config = configured(*TINY)
        with pytest.raises(UserError, match="holds a run already"):
            perform(path, config)
        assert {each: each.read_bytes() for each in before} == before
    go_on(path, {"rounds": 2})
    assert len((path / "metrics.csv").read_text().splitlines()) == 3
    assert not (path / LOCK).exists()


def test_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(UserError, match="cannot be written") as caught:
        RunDirectory(tmp_path, "resume").claim()
    assert (caught.value.key, caught.value.value) == ("resume", tmp_path)
