"""Latency and peak memory of deployed client models, each in a fresh process of its own.

The processes take turns: one run of each, then the next run of each, so that what else the machine does
meets all of them alike.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment.probe import serve
from fedsplit.machine.progress import track
from fedsplit.processes.child import AnsweringProcess

_WARM_UP = 3
"""Runs at each number of samples that are not counted: caches fill, compilers compile."""


@dataclass(frozen=True)
class Latency:
    """Seconds that a run takes: the median, and the 95th percentile."""

    median: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Latency as single runs measured it."""
        return cls(float(np.median(seconds)), float(np.percentile(seconds, 95)))


@dataclass(frozen=True)
class DeviceCost:
    """Costs of a deployed client model on a device.

    Args:
        latency: latency by number of samples.
        peak_memory: the most bytes that its process held, with all that was imported.
        model_memory: bytes beyond what the process held when it began to load the model.
    """

    latency: Mapping[int, Latency]
    peak_memory: int
    model_memory: int


def machine() -> dict[str, str | int | None]:
    """Description of the machine that is measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"processor": names[0] if names else platform.processor(), "cores": os.cpu_count()}


def footprints(
    directories: Mapping[str, Path],
    architecture: ClientArchitecture,
    *,
    batch_sizes: Sequence[int],
    repeats: int,
    threads: int,
) -> dict[str, DeviceCost]:
    """Costs of deployed models, by name.

    Args:
        batch_sizes: numbers of samples to run at a time.
        repeats: runs that are counted, at each.

    Raises:
        RunFailed: a process ended; says why.
    """
    asked = {"architecture": architecture.plain()}
    with ExitStack() as open_ones:
        probes = {
            name: open_ones.enter_context(AnsweringProcess(serve, name, threads)) for name in directories
        }
        held = {
            name: probe.ask(directory=str(directories[name]), threads=threads, **asked)
            for name, probe in probes.items()
        }
        latency: dict[str, dict[int, Latency]] = {name: {} for name in probes}
        peak = {name: each["before"] for name, each in held.items()}
        for samples in batch_sizes:
            seconds: dict[str, list[float]] = {name: [] for name in probes}
            for turn in track(range(_WARM_UP + repeats), f"measuring batches of {samples}"):
                for name, probe in probes.items():
                    ran = probe.ask(samples=samples)
                    peak[name] = ran["peak_memory"]
                    if turn >= _WARM_UP:
                        seconds[name].append(ran["seconds"])
            for name, each in seconds.items():
                latency[name][samples] = Latency.of(each)
    return {
        name: DeviceCost(latency[name], max(each["imported"], peak[name]), peak[name] - each["before"])
        for name, each in held.items()
    }
