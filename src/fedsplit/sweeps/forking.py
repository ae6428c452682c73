"""The process in which jobs run: it imports torch once, and forks itself for each job.

`python -m fedsplit.sweeps.forking` reads a request a line from standard input (see `isolated.Request`), and
answers each by a line on standard output. It ends, and the job with it, once that input ends.
"""

import faulthandler
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from fedsplit.config.run_config import RunConfig
from fedsplit.errors import RunFailed, UserError
from fedsplit.processes.lifeline import end_with_parent
from fedsplit.sweeps.isolated import Outcome, Request
from fedsplit.sweeps.status import at_work

_NEEDED = ("fedsplit.tasks.train", "fedsplit.data.sources.digits")
_PACKAGES = ("fedsplit", "torch", "torchvision", "sklearn", "scipy", "numpy", "zstandard")
_LONGEST = 2000
"""Characters of an error."""


def _forked(request: Request) -> Outcome:
    """Run a job in a fork of this process."""
    ended, telling = os.pipe()  # closed by the end of the job, whatever ends it
    pid = os.fork()
    if pid == 0:
        os.close(ended)
        os._exit(_live(request, telling))
    os.close(telling)
    words = b""
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if 0 in ready:  # the answer to this request was not waited for
            os.kill(pid, signal.SIGKILL)
            os._exit(0)
        read = os.read(ended, 1 << 16)
        if not read:
            break
        words += read
    os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    imported, _, error = words.decode("utf-8", "replace").partition("\n")
    _import(imported.split())
    if code < 0:
        why = ": out of memory?" if -code == signal.SIGKILL else f"; see {request.log}"
        return Outcome(f"killed by {signal.Signals(-code).name}{why}")
    return Outcome((error or f"ended with exit code {code}") if code else None)


def _import(modules: list[str]) -> None:
    """Import here what a job had to, so that the next one finds it."""
    for module in modules:
        with suppress(Exception):  # whoever needs it will say what is wrong with it
            import_module(module)


def _live(request: Request, telling: int) -> int:
    """A job's life; its exit code."""
    end_with_parent()
    found = set(sys.modules)
    error = ""
    log = os.open(request.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for stream, file in ((0, nothing), (1, log), (2, log)):
        os.dup2(file, stream)
    faulthandler.enable()
    if request.here not in sys.path:
        sys.path.append(request.here)
    code = 0
    try:
        _run(request)
    except (UserError, RunFailed) as failed:
        code, error = failed.exit_code, str(failed)
    except BaseException as failed:
        traceback.print_exc()
        code, error = 1, "".join(traceback.format_exception_only(failed))
    if error:
        print(error, file=sys.stderr)
    sys.stdout.flush()
    imported = [name for name in sys.modules if name not in found and name.partition(".")[0] in _PACKAGES]
    last = error.strip().rpartition("\n")[2][:_LONGEST]
    os.write(telling, f"{' '.join(imported)}\n{last}".encode())
    return code


def _run(request: Request) -> None:
    import torch  # noqa: PLC0415

    from fedsplit.machine.cores import device_of  # noqa: PLC0415
    from fedsplit.tasks.running import go_on, perform  # noqa: PLC0415

    directory, config = Path(request.directory), RunConfig.parse(request.config)
    asked = config.computation.device
    device = device_of(asked, request.place, torch.cuda.device_count())  # only now: CUDA outlives no fork
    with at_work(Path(request.log).parent):
        if (directory / "config.yaml").is_file():
            trust = {"trust": config.origin.trust}
            go_on(directory, trust if device == asked else {**trust, "device": device})
        else:
            perform(directory, config.changed({"device": device}))


def main() -> int:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what is printed is no answer
    end_with_parent()
    _import(list(_NEEDED))
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(asdict(_forked(Request(**json.loads(line))))), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    os._exit(main())  # taking down all that was imported takes seconds, and nobody needs it
