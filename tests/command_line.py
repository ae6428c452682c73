"""Commands as users give them, without the seconds that importing everything costs each of them.

What is about processes themselves starts real ones.
"""

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fedsplit.errors import UserError
from fedsplit.tasks.task import perform
from tests.configurations import configuration
from tests.warm import end_warm_processes, start_warm_processes, warm_forker

ROOT = Path(__file__).resolve().parents[1]


def command_line(
    *arguments: str, cwd: Path | None = None, program: str = "main.py"
) -> "subprocess.CompletedProcess[str]":
    """A command to its end: `python <program> <arguments>`."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        command = partial(_become, program, arguments, cwd or Path.cwd())
        code = warm_forker().start(command, *outputs).end.result().code
        stdout, stderr = (path.read_text("utf-8") for path in outputs)
    assert code is not None
    return subprocess.CompletedProcess([program, *arguments], code, stdout, stderr)


def refusal(*arguments: str, directory: Path) -> str:
    """Line in which a run of its own is refused, as a command's is, without what composing anew takes."""
    try:
        perform(directory, configuration(*arguments))
    except UserError as error:
        return str(error)
    raise AssertionError(f"done: {' '.join(arguments)}")


def _become(program: str, arguments: Sequence[str], cwd: Path) -> None:
    """Be the process of a command."""
    os.chdir(cwd)
    sys.argv = [str(ROOT / program), *arguments]
    sys.path.insert(0, str(ROOT))
    start_warm_processes()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        end_warm_processes()
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
