"""A process that answers lines of JSON, each with one."""

import json
import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any, Self

from fedsplit.errors import RunFailed


class AnsweringProcess:
    """A fresh Python process, from entering to leaving.

    It finds modules where this one does, and ends when its input does.

    Args:
        module: that it runs.
        what: it is for, in errors.
        threads: that it may take.
    """

    def __init__(self, module: str, what: str, threads: int) -> None:
        self._module, self._what, self._threads = module, what, threads

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self._threads))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | limits | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for who started it: with that, this ends
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def ask(self, **what: Any) -> dict[str, Any]:
        """Its answer.

        Raises:
            RunFailed: it ended; says why.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(what), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._said.seek(0)
            lines = self._said.read().strip().splitlines()
            reason = lines[-1] if lines else "it was killed: out of memory?"
            raise RunFailed(f"the process of {self._what} ended: {reason}")
        told: dict[str, Any] = json.loads(answer)
        return told
