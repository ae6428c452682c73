"""A process that loads one deployed client model, runs it when asked to, and tells how long and how much."""

import resource
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.computing.memory import reuse_freed_memory
from fedsplit.data.dataset import Sizes
from fedsplit.deployment import storage
from fedsplit.processes.child import receive

_BYTES = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of `ru_maxrss`: macOS counts bytes, Linux KiB."""


def peak_memory() -> int:
    """The most bytes that this process has held since `forget_peak`, or since it began.

    On Linux the high-water mark of its own memory: that of `getrusage` begins with what the process held
    that started it.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES


def forget_peak() -> None:
    """Let the peak start anew from what is held now, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def serve(requests: Connection, answers: Connection) -> None:
    """Load what is asked first, then run it on as many samples as is asked, again and again."""
    asked = requests.recv()
    torch.set_num_threads(asked["threads"])
    reuse_freed_memory()
    directory = Path(asked["directory"])
    storage.reader(directory)
    imported = peak_memory()
    forget_peak()
    before = peak_memory()
    architecture = ClientArchitecture.of(asked["architecture"])
    deployed = storage.load(directory, architecture.build)
    answers.send({"imported": imported, "before": before})
    inputs: dict[int, torch.Tensor] = {}
    for request in receive(requests):
        samples = request["samples"]
        if samples not in inputs:
            inputs[samples] = _inputs(samples, architecture.sizes)
        start = time.perf_counter()
        deployed.run_quantized(inputs[samples])
        seconds = time.perf_counter() - start
        answers.send({"seconds": seconds, "peak_memory": peak_memory()})


def _inputs(samples: int, sizes: Sizes) -> torch.Tensor:
    """Drawn inputs of so many samples; texts are as long as any."""
    draw = torch.Generator().manual_seed(samples)
    if sizes.tokens:
        return torch.randint(sizes.arguments["vocabulary"], (samples, *sizes.shape), generator=draw)
    return torch.randn(samples, *sizes.shape, generator=draw)
