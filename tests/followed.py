"""Steps of documentation, followed: files are written, commands are typed, cells are executed.

One process follows a page or a notebook to its end: a fork that has imported everything, in which each
command is a call. What trains does it on few samples for few rounds. Fresh processes that train at full
length are for `make test-long`.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from fedsplit.cli import python
from fedsplit.cli.start import SUBCOMMANDS
from fedsplit.sweeps import sweep
from fedsplit.sweeps.forked_job import run_job
from fedsplit.sweeps.record import Job
from fedsplit.sweeps.status import STATUSES, Status, write_status
from fedsplit.sweeps.sweep import RequestedJob
from tests.command_line import ROOT
from tests.warm import end_warm_processes, start_warm_processes, warm_forker


@dataclass(frozen=True)
class ShownFile:
    """A file that a page says to write."""

    name: str
    content: str


@dataclass(frozen=True)
class Command:
    """A line that a page says to type."""

    line: str


@dataclass(frozen=True)
class Cell:
    """Code of a notebook, or of a block of Python."""

    code: str


Step: TypeAlias = ShownFile | Command | Cell
_BLOCK = re.compile(
    r'^```(?P<kind>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)
_OF_THE_README = re.compile(r"(?:^    |`)(python (?:main|plot_results)\.py\b[^`\n]*)", re.MULTILINE)


def steps_of_tutorial(text: str) -> list[Step]:
    """Files and commands of a tutorial's blocks, in their order; what is indented is for other machines."""
    steps: list[Step] = []
    for block in _BLOCK.finditer(text):
        if block["file"] is not None:
            steps.append(ShownFile(block["file"], block["text"]))
        else:
            assert block["kind"] == "bash", block["text"]
            steps += map(Command, block["text"].splitlines())
    return steps


def steps_of_readme(text: str) -> list[Step]:
    """Commands of a text, indented or in a line, in their order; blocks show what is printed."""
    commands = _OF_THE_README.findall(_BLOCK.sub("", text))
    return [Command(each) for each in commands if "..." not in each]


def follow(steps: Sequence[Step], folder: Path) -> None:
    """Follow steps in a folder, on little data; `AssertionError` with what was printed where one fails."""
    with TemporaryDirectory() as place:
        said = Path(place, "said")
        ended = warm_forker().start(partial(_follow, steps, folder), said).end.result()
        assert ended.code == 0, said.read_text("utf-8")


def _follow(steps: Sequence[Step], folder: Path) -> None:
    os.chdir(folder)
    os.environ["MPLBACKEND"] = "agg"
    sys.path[:0] = [str(folder), str(ROOT)]
    python.run = partial(_run_small, python.run)  # type: ignore[assignment]
    sweep._run = _run_jobs
    start_warm_processes()
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for step in steps:
            match step:
                case ShownFile():
                    write(step, folder)
                case Command():
                    print(f"$ {step.line}", flush=True)
                    assert _code(small_command(shlex.split(step.line))) == 0, step.line
                case Cell():
                    print(step.code, flush=True)
                    _execute(step.code, names)
    finally:
        end_warm_processes()


def write(file: ShownFile, folder: Path) -> None:
    """Write a file, and the folders that it is in."""
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file.content, "utf-8")


SMALL = ("num_clients=2", "dataset.max_train=20", "dataset.max_test=10", "auxiliary.align_epochs=1")
"""Settings with which a run takes a tenth of a second; they stand before those of a command."""
_SMALL_ATTACK = (
    *("task.targets=10", "task.known=10", "task.pictures=0"),
    *("task.options.decoder.epochs=1", "task.options.decoder.adapt_epochs=1"),
)
_ROUNDS = re.compile(r"rounds=(\d+)")


def small_command(words: Sequence[str]) -> list[str]:
    """A command with fewer rounds; one that trains or attacks with few samples."""
    program, *arguments = words
    if program != "python" or arguments[0] != "main.py" or {*SUBCOMMANDS, "--help"}.intersection(arguments):
        return list(words)
    given = [_ROUNDS.sub(_fewer, each) for each in arguments[1:]]
    task = [each for each in given if each.startswith("task=")]
    if task == ["task=attack"]:
        given += _SMALL_ATTACK
    elif not task and not any(each.startswith("resume=") for each in given):
        rounds = [] if any(each.startswith("rounds=") for each in given) else ["rounds=1"]
        given = [*SMALL, *given, *rounds]
    return [program, arguments[0], *given]


def _fewer(rounds: re.Match[str]) -> str:
    """A fifth of the rounds: more rounds than others stay more."""
    return f"rounds={-(-int(rounds[1]) // 5)}"


def _run_small(run: Callable[..., Any], *overrides: str, **values: Any) -> Any:
    """`fedsplit.run` on few samples, for a round."""
    return run(*SMALL, *overrides, **{**values, "rounds": 1})


def _code(words: Sequence[str]) -> int:
    """Exit code of a command; one of Python is a call."""
    program, *arguments = words
    if program != "python":
        return subprocess.run(words, check=False).returncode
    before = sys.argv, sys.stdout, sys.stderr
    own = arguments[0] in ("main.py", "plot_results.py")
    sys.argv = [str(ROOT / arguments[0]) if own else arguments[0], *arguments[1:]]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.argv, sys.stdout, sys.stderr = before
    return 0


_WRITTEN = re.compile(r"%%writefile (\S+)\n")


def _execute(code: str, names: dict[str, Any]) -> None:
    """Execute a cell, as IPython does: a file, or code."""
    if file := _WRITTEN.match(code):
        write(ShownFile(file[1], code[file.end() :]), Path.cwd())
    else:
        exec(compile(code, "a cell", "exec"), names)


def _run_jobs(directory: Path, to_run: Sequence[tuple[Job, RequestedJob]]) -> str:
    """Run the jobs of a sweep here, one after the other, in place of processes that compose them again."""
    for place, (job, asked) in enumerate(to_run):
        run_job(asked.run, directory.absolute() / job.directory, place, directory / STATUSES)
        write_status(directory / STATUSES, job.number, Status("done"))
    return "nobody runs it"
