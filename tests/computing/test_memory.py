"""Tensors kept for clients: in memory up to a budget, then in mapped files."""

import os
from pathlib import Path

import pytest
import torch

from fedsplit.computing.memory import Memory
from tests.conftest import Build


def _files(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith("fedsplit-")]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_memory_beyond_the_budget_is_mapped_and_leaves_no_file(temporary: Path) -> None:
    memory = Memory(100)
    tensors = [
        memory.empty(torch.zeros(5, 4)),
        memory.empty(torch.zeros(5), 7, 3),
        memory.empty(torch.zeros(5)),
    ]
    assert (memory.used_bytes, memory.mapped_bytes) == (100, 84)
    tensors[1].fill_(3.0)
    assert tensors[1].shape == (7, 3)
    assert tensors[1].sum() == 63
    assert _files(temporary) == []
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(temporary) in line]
    assert len(mapped) == 1


def test_tree_kept_in_memory_is_a_copy_and_reused_where_the_next_fits() -> None:
    memory = Memory(None)
    tree = {"a": {"b": torch.arange(3.0)}, "step": 2, "none": None}
    kept = memory.keep(tree)
    tree["a"]["b"].zero_()  # type: ignore[index]
    assert kept["a"]["b"].tolist() == [0.0, 1.0, 2.0]
    assert (kept["step"], kept["none"]) == (2, None)
    again = memory.keep({"a": {"b": torch.ones(3)}, "step": 3, "none": None}, kept)
    assert again["a"]["b"].data_ptr() == kept["a"]["b"].data_ptr()
    assert again["step"] == 3
    assert memory.used_bytes == 12
    assert memory.keep({"b": torch.ones(4)}, {"b": torch.ones(3)})["b"].shape == (4,)


@pytest.mark.cover(1)
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("stateless", ["true", "false"])
@pytest.mark.parametrize("model", ["digits_cnn", "resnet20"])
def test_run_with_rings_on_disk_gives_the_bits_of_one_with_rings_in_memory(
    tiny: Build, engine: str, stateless: str, model: str, temporary: Path
) -> None:
    settings = [f"engine={engine}", f"client.stateless={stateless}", f"model={model}", "dataset.max_train=60"]
    settings += ["num_clients=4", "cohort_size=2", "algorithm.align_interval=1"]
    runs = [tiny(*settings, f"auxiliary.memory_mb={megabytes}") for megabytes in ("null", "0.00001")]
    for t in range(3):
        for run in runs:
            run.run_round(t)
    assert (runs[0].parts.memory.mapped_bytes, runs[1].parts.memory.mapped_bytes > 0) == (0, True)
    ours, theirs = (run.algorithm.full_weights() for run in runs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert _files(temporary) == []
