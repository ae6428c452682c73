"""A process that does several runs: none of them leaves models or freed memory behind."""

import ctypes
import gc
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedsplit.computing.memory import reuse_freed_memory
from tests.cases import long_but
from tests.conftest import ALGORITHMS, Build


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("algorithm", "engine"),
    long_but(
        [("splitfed_v2", "sequential"), ("fsl_sage", "sequential"), ("fsl_sage", "vectorized")],
        [(each, "sequential") for each in ALGORITHMS]
        + [("fed_avg", "vectorized"), ("fsl_sage", "vectorized")],
    ),
)
def test_models_of_a_run_are_freed_with_the_run(algorithm: str, engine: str, tiny: Build) -> None:
    """An auxiliary model of several layers is traced for its alignment; the trace may not outlive it."""
    run = tiny(f"algorithm={algorithm}", f"engine={engine}", "auxiliary=mlp", "rounds=1")
    run.run_round(0)
    models = run.parts.models
    kept: list[weakref.ref[nn.Module] | weakref.ref[Tensor]] = [
        weakref.ref(module) for module in (models.halves.client, models.halves.server)
    ]
    if models.auxiliary is not None:
        kept.append(weakref.ref(models.auxiliary))
    kept += [weakref.ref(tensor) for tensor in run.algorithm.full_weights().values()]
    del run, models
    gc.collect()
    assert [each for each in kept if each() is not None] == []


def test_batches_of_a_client_are_freed_without_the_garbage_collector(tiny: Build) -> None:
    batches = tiny().parts.batches(0)
    batches.batch(0, 0)
    freed = weakref.ref(batches)
    gc.disable()
    try:
        del batches
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("algorithm", ["fed_avg", "splitfed_v1"])
def test_clients_of_a_round_are_freed_with_it_without_the_garbage_collector(
    tiny: Build, algorithm: str
) -> None:
    run = tiny(f"algorithm={algorithm}", "engine=vectorized", "client.stateless=true", "cohort_size=2")
    freed = []
    enter = run.parts.engine.enter

    def entered(clients: Sequence[int]) -> None:
        enter(clients)
        stacks = run.parts.engine._stacks  # type: ignore[attr-defined]
        freed.extend(weakref.ref(stack.body) for stack in stacks)

    run.parts.engine.enter = entered  # type: ignore[method-assign]
    gc.disable()
    try:
        run.run_round(0)
        assert freed
        assert [each for each in freed if each() is not None] == []
    finally:
        gc.enable()


@pytest.mark.skipif(
    not (os.path.exists("/proc/self/statm") and hasattr(ctypes.CDLL(None), "malloc_trim")),
    reason="resident memory and the heap are looked at as Linux with glibc shows them",
)
def test_memory_freed_by_an_earlier_run_is_returned_to_the_system_for_the_next_run() -> None:
    reuse_freed_memory()
    before = _resident_bytes()
    blocks = [torch.full((250_000,), 1.0) for _ in range(100)]  # 1 MB each, from the heap
    above = torch.ones(1_000)  # keeps the top of the heap where it is
    del blocks
    assert _resident_bytes() > before + 80e6
    reuse_freed_memory()
    assert _resident_bytes() < before + 20e6
    assert above.sum() == 1_000
