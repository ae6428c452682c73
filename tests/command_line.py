"""Commands as users give them, without the seconds that importing everything costs each of them.

Run as a program it imports what runs need once, and forks a process for each command, which does what
`python main.py` does from there on. What is about processes themselves starts real ones.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]


def command_line(
    *arguments: str, cwd: Path | None = None, program: str = "main.py"
) -> "subprocess.CompletedProcess[str]":
    """A command to its end: `python <program> <arguments>`."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        asked = {
            "arguments": [str(ROOT / program), *arguments],
            "cwd": str(cwd or Path.cwd()),
            "outputs": [str(path) for path in outputs],
        }
        process = _process()
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(asked), file=process.stdin, flush=True)
        code = int(process.stdout.readline())
        stdout, stderr = (path.read_text("utf-8") for path in outputs)
    return subprocess.CompletedProcess([program, *arguments], code, stdout, stderr)


@cache
def _process() -> "subprocess.Popen[str]":
    command = [sys.executable, str(Path(__file__).resolve())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    atexit.register(process.stdin.close)
    return process


def _main() -> None:
    import matplotlib.figure  # noqa: F401, PLC0415
    import sklearn.datasets  # noqa: F401, PLC0415
    import torch._dynamo  # noqa: F401, PLC0415

    import fedsplit.training.experiment  # noqa: F401, PLC0415
    from fedsplit.config.compose import composed, composing, run_config  # noqa: PLC0415

    with composing():  # what Hydra imports and reads for the first, it has for all others
        run_config(composed([]))
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(**asked)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(*, arguments: list[str], cwd: str, outputs: list[str]) -> NoReturn:
    """Be the process of a command."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in outputs]
    for descriptor, standard in zip([nothing, *written], (0, 1, 2), strict=True):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(cwd)
    sys.argv, sys.path[0] = arguments, str(ROOT)
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without taking all modules apart, which takes a second


if __name__ == "__main__":
    _main()
