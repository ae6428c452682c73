"""A deployed client half in a fresh process of its own, seen from the one that started it."""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import SmashedData
from fedsplit.deployment.probe import peak_memory
from fedsplit.processes.child import AnsweringProcess, receive


@dataclass(frozen=True)
class Ran:
    """Result of a client half for inputs.

    Args:
        seconds: seconds that the pass alone took.
        peak_memory: the most bytes that its process has held so far.
    """

    smashed: SmashedData
    seconds: float
    peak_memory: int


class ClientHalf:
    """A fresh process with a deployed client half, from entering to leaving.

    Args:
        architecture: architecture of the module, where the directory holds weights and no operations.
    """

    def __init__(self, directory: Path, architecture: ClientArchitecture, threads: int) -> None:
        self.directory, self._architecture, self._threads = directory, architecture, threads
        self.memory_before = 0
        """The most bytes that the process held before it loaded the client half."""

    @property
    def file_bytes(self) -> int:
        """Size of the client half's file in bytes."""
        return storage.size(self.directory)

    def __enter__(self) -> Self:
        with ExitStack() as open_ones:
            what = f"the client half in {self.directory}"
            process = AnsweringProcess(serve, what, self._threads)
            self._process = open_ones.enter_context(process)
            folder = open_ones.enter_context(tempfile.TemporaryDirectory(prefix="fedsplit-"))
            self._inputs, self._outputs = Path(folder, "inputs"), Path(folder, "outputs")
            footprint = self._process.ask(
                directory=str(self.directory.absolute()),
                architecture=self._architecture.plain(),
                threads=self._threads,
            )
            self._open_ones = open_ones.pop_all()
        self.memory_before = footprint["memory_before"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_ones.close()

    def run(self, x: Tensor) -> Ran:
        """Run it once on inputs `(n, c, h, w)`; `RunFailed`, which says why, where the process ended."""
        save_file({"x": x.contiguous()}, self._inputs)
        answer = self._process.ask(inputs=str(self._inputs), outputs=str(self._outputs))
        smashed = SmashedData(load_file(self._outputs)["z"], answer["scale"], answer["zero_point"])
        return Ran(smashed, answer["seconds"], answer["peak_memory"])


def serve(requests: Connection, answers: Connection) -> None:
    """Load what is asked first, then run it on inputs; they and the smashed data are files of safetensors.

    Raises:
        UserError: it cannot be loaded.
    """
    asked = requests.recv()
    torch.set_num_threads(asked["threads"])
    directory = Path(asked["directory"])
    storage.reader(directory)
    before = peak_memory()
    deployed = storage.load(directory, ClientArchitecture.of(asked["architecture"]).build)
    answers.send({"memory_before": before})
    for asked in receive(requests):
        x = load_file(asked["inputs"])["x"]
        start = time.perf_counter()
        smashed = deployed.run_quantized(x)
        seconds = time.perf_counter() - start
        peak = peak_memory()
        save_file({"z": smashed.values.contiguous()}, asked["outputs"])
        scales = {"scale": smashed.scale, "zero_point": smashed.zero_point}
        answers.send({"seconds": seconds, "peak_memory": peak, **scales})
