"""The handle of a process that runs a deployed client half; see `fedsplit.inference.client_half`."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment import storage
from fedsplit.deployment.backend import SmashedData
from fedsplit.errors import RunFailed

_PROCESS = "fedsplit.inference.client_half"


@dataclass(frozen=True)
class Ran:
    """What a client half made of inputs.

    Args:
        smashed: of them.
        seconds: that it took, alone.
        peak_memory: the most bytes that its process has held so far.
    """

    smashed: SmashedData
    seconds: float
    peak_memory: int


class ClientHalf:
    """A fresh process with a deployed client half, from entering to leaving.

    Args:
        directory: of the deployed client half.
        architecture: what a module is made from, where the directory holds weights and no operations.
        threads: that the process may take.
    """

    def __init__(self, directory: Path, architecture: ClientArchitecture, threads: int) -> None:
        self.directory, self._architecture, self._threads = directory, architecture, threads
        self.memory_before = 0
        """The most bytes that the process held before it loaded the client half."""

    @property
    def file_bytes(self) -> int:
        """Of the client half's file."""
        return storage.size(self.directory)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="fedsplit-")
        self._inputs, self._outputs, said = (
            Path(self._folder.name, name) for name in ("inputs", "outputs", "said")
        )
        self._said = said
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self._threads))
        with said.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROCESS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | limits,
                start_new_session=True,  # Ctrl-C is for who started it: with that, this ends
                text=True,
            )
        try:
            told = self._ask(
                directory=str(self.directory.absolute()),
                architecture=self._architecture.plain(),
                threads=self._threads,
                here=str(Path.cwd()),
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.memory_before = told["memory_before"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def run(self, x: Tensor) -> Ran:
        """Run it once on inputs `(n, c, h, w)`.

        Raises:
            RunFailed: the process ended; says why.
        """
        save_file({"x": x.contiguous()}, self._inputs)
        told = self._ask(inputs=str(self._inputs), outputs=str(self._outputs))
        smashed = SmashedData(load_file(self._outputs)["z"], told["scale"], told["zero_point"])
        return Ran(smashed, told["seconds"], told["peak_memory"])

    def _ask(self, **what: Any) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(what), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            lines = self._said.read_text("utf-8", "replace").strip().splitlines()
            reason = lines[-1] if lines else "it was killed: out of memory?"
            raise RunFailed(f"the process of the client half in {self.directory} ended: {reason}")
        told: Mapping[str, Any] = json.loads(answer)
        return told
