"""The handle of a process that runs a deployed client half; see `fedsplit.inference.client_half`."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import SmashedData
from fedsplit.processes.answering import AnsweringProcess

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
        with ExitStack() as open_ones:
            what = f"the client half in {self.directory}"
            process = AnsweringProcess(_PROCESS, what, self._threads)
            self._process = open_ones.enter_context(process)
            folder = open_ones.enter_context(tempfile.TemporaryDirectory(prefix="fedsplit-"))
            self._inputs, self._outputs = Path(folder, "inputs"), Path(folder, "outputs")
            told = self._process.ask(
                directory=str(self.directory.absolute()),
                architecture=self._architecture.plain(),
                threads=self._threads,
                here=str(Path.cwd()),
            )
            self._open_ones = open_ones.pop_all()
        self.memory_before = told["memory_before"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_ones.close()

    def run(self, x: Tensor) -> Ran:
        """Run it once on inputs `(n, c, h, w)`.

        Raises:
            RunFailed: the process ended; says why.
        """
        save_file({"x": x.contiguous()}, self._inputs)
        told = self._process.ask(inputs=str(self._inputs), outputs=str(self._outputs))
        smashed = SmashedData(load_file(self._outputs)["z"], told["scale"], told["zero_point"])
        return Ran(smashed, told["seconds"], told["peak_memory"])
