import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from fedsplit.errors import UserError
from fedsplit.processes.forker import Forker, import_all
from tests.processes.living import alive, until

LONG = 100.0
"""Seconds that nothing takes, on a busy machine either."""


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with closing(Forker(partial(import_all, ["no_module"]), "tests")) as forker:
        yield forker


def sleep() -> None:
    time.sleep(600)


def speak() -> tuple[int, str]:
    print("out")
    print("err", file=sys.stderr)
    return os.getpid(), os.getcwd()


def refuse() -> None:
    raise UserError("key", 1, "must be 2")


def fail() -> None:
    raise ValueError("first\nlast words")


def leave(code: int) -> None:
    sys.exit(code)


def import_something() -> bool:
    before = "fedsplit.reports.tables.files" in sys.modules
    import fedsplit.reports.tables.files  # noqa: F401, PLC0415

    return before


def test_call_is_answered_by_a_fork_that_stands_here_and_adds_to_the_files_named(
    forker: Forker, tmp_path: Path
) -> None:
    both, errors = tmp_path / "both", tmp_path / "errors"
    first, second = forker.start(speak, both), forker.start(speak, both, errors)
    for fork in (first, second):
        ended = fork.end.result(LONG)
        assert (ended.code, ended.error) == (0, None)
        assert ended.value == (fork.pid.result(LONG), os.getcwd())
    assert first.pid.result(LONG) != second.pid.result(LONG)
    assert sorted(both.read_text().split()) == ["err", "out", "out"]
    assert errors.read_text() == "err\n"


@pytest.mark.parametrize(
    ("call", "code", "error"),
    [
        (refuse, 2, "key=1: must be 2"),
        (fail, 1, "last words"),
        (partial(leave, 7), 7, "ended with exit code 7"),
        (partial(leave, 0), 0, None),
        (os.abort, -signal.SIGABRT, "killed by SIGABRT; see {log}"),
    ],
)
def test_fork_that_does_not_end_well_is_told_with_its_last_words(
    forker: Forker, tmp_path: Path, call: Callable[[], object], code: int, error: str | None
) -> None:
    log = tmp_path / "log"
    ended = forker.start(call, log).end.result(LONG)
    assert (ended.code, ended.error) == (code, error and error.format(log=log))
    if code == 1:
        assert log.read_text().startswith("Traceback")
    assert forker.start(speak, log).end.result(LONG).code == 0  # the others live on


def test_killed_fork_is_told_while_others_run_on(forker: Forker, tmp_path: Path) -> None:
    killed, other = forker.start(sleep, tmp_path / "log"), forker.start(sleep, tmp_path / "log")
    killed.send(signal.SIGKILL)
    ended = killed.end.result(LONG)
    assert (ended.code, ended.error) == (-signal.SIGKILL, "killed by SIGKILL: out of memory?")
    assert alive({other.pid.result(LONG)})
    assert not other.end.done()


def test_fork_finds_imported_what_one_before_it_had_to_import(forker: Forker, tmp_path: Path) -> None:
    found = [forker.start(import_something, tmp_path / "log").end.result(LONG).value for _ in range(2)]
    assert found == [False, True]


def test_closed_forker_leaves_no_fork(tmp_path: Path) -> None:
    forker = Forker(partial(import_all, []), "tests")
    forks = [forker.start(sleep, tmp_path / "log") for _ in range(3)]
    born = {fork.pid.result(LONG) for fork in forks}
    forker.close()
    assert not alive(born)
    assert {fork.end.result(LONG).code for fork in forks} == {None}


def test_killed_forker_is_told_and_its_forks_end(tmp_path: Path) -> None:
    forker = Forker(partial(import_all, []), "tests")
    fork = forker.start(sleep, tmp_path / "log")
    parent = forker.start(os.getppid, tmp_path / "log").end.result(LONG).value
    os.kill(parent, signal.SIGKILL)
    told = "the process that tests was killed: out of memory?"
    assert fork.end.result(LONG).error == told
    assert forker.start(sleep, tmp_path / "log").end.result(LONG).error == told
    assert not forker.alive
    until(lambda: not alive({fork.pid.result(LONG)}))
    forker.close()
