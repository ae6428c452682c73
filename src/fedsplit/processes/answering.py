"""A fresh process that answers questions, and what it says where it cannot."""

import os
import tempfile
from types import TracebackType
from typing import Any, Self

from fedsplit.errors import RunFailed
from fedsplit.processes.child import ChildProcess, Serve


class AnsweringProcess:
    """A fresh process that answers each question once, from entering to leaving.

    Args:
        serve: what it runs; questions and answers are dictionaries.
        what: it is for, in errors.
    """

    def __init__(self, serve: Serve, what: str, threads: int) -> None:
        self._serve, self._what, self._threads = serve, what, threads

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self._threads))
        self._child = ChildProcess(self._serve, os.environ | limits, self._said)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.close()
        self._said.close()

    def ask(self, **what: Any) -> dict[str, Any]:
        """Its answer.

        Raises:
            RunFailed: it ended; says why.
        """
        try:
            self._child.requests.send(what)
            answer: dict[str, Any] = self._child.answers.recv()
        except (EOFError, OSError) as error:
            self._child.process.wait()
            self._said.seek(0)
            lines = self._said.read().strip().splitlines()
            reason = lines[-1] if lines else "it was killed: out of memory?"
            raise RunFailed(f"the process of {self._what} ended: {reason}") from error
        return answer
