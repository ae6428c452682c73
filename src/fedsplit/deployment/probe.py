"""A process that loads one deployed client model, runs it when asked to, and tells how long and how much.

`python -m fedsplit.deployment.probe` reads lines of JSON and answers each with one: first what to load,
then a number of samples to run, again and again. Its end of input ends it.
"""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.computing.memory import reuse_freed_memory
from fedsplit.deployment import storage

_BYTES = 1 if sys.platform == "darwin" else 1024
"""That `ru_maxrss` counts in."""


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


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    sys.path.append(os.getcwd())  # as main.py does: a model may be in a file there

    def answer(**told: object) -> None:
        print(json.dumps(told), file=answers)

    asked = json.loads(sys.stdin.readline())
    torch.set_num_threads(asked["threads"])
    reuse_freed_memory()
    directory = Path(asked["directory"])
    storage.reader(directory)
    imported = peak_memory()
    forget_peak()
    before = peak_memory()
    architecture = ClientArchitecture.of(asked["architecture"])
    deployed = storage.load(directory, architecture.build)
    answer(imported=imported, before=before)
    inputs: dict[int, torch.Tensor] = {}
    for line in sys.stdin:
        samples = json.loads(line)["samples"]
        if samples not in inputs:
            draw = torch.Generator().manual_seed(samples)
            inputs[samples] = torch.randn(samples, *asked["input_shape"], generator=draw)
        start = time.perf_counter()
        deployed.run_quantized(inputs[samples])
        seconds = time.perf_counter() - start
        answer(seconds=seconds, peak_memory=peak_memory())


if __name__ == "__main__":
    main()
