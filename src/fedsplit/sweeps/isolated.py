"""A process beside this one in which jobs run, each in a fork of its own: what kills a job kills only it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

_PROCESS = "fedsplit.sweeps.forking"


@dataclass(frozen=True)
class Request:
    """A job to run.

    Args:
        config: of the run, plain.
        directory: of the run; one that is there already is gone on with.
        place: of the job among those launched together, which decides on its GPU.
        log: file for what it prints.
        here: where the command was given; a `_target_` may be in a file there.
    """

    config: dict[str, object]
    directory: str
    place: int
    log: str
    here: str


@dataclass(frozen=True)
class Outcome:
    """How a job ended; None is well, else the last line of its error."""

    error: str | None


class Isolated:
    """The process; it imports what jobs need once, and ends with this one.

    Args:
        environment: its environment variables.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is the sweep's: with it this ends, and with this the job
            text=True,
        )

    @property
    def alive(self) -> bool:
        """Whether it takes another request."""
        return self._process.poll() is None

    def run(self, request: Request) -> Outcome:
        """Run a job to its end."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        answer = ""
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(asdict(request)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        if not answer:
            process.wait()
            return Outcome("the process that runs jobs was killed: out of memory?")
        return Outcome(**json.loads(answer))

    def close(self) -> None:
        """End it, and the job that it runs."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()
