"""What is told of the state of clients before a run begins is what the run comes to keep."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedsplit.building import kept_state
from fedsplit.building.kept_state import estimate_kept_state
from fedsplit.errors import UserError
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.state.by_client import ByClient
from tests.conftest import Build

ROUNDS = 3


def _bytes_by_client(node: Any, within: bool = False) -> int:
    """Bytes of all tensors in states of clients."""
    if isinstance(node, torch.Tensor):
        return node.nbytes if within else 0
    if isinstance(node, dict):
        return sum(_bytes_by_client(each, within or isinstance(node, ByClient)) for each in node.values())
    return 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=fed_avg"],
        ["algorithm=fed_avg", "optimizer=sgd", "optimizer.momentum=0.9", "engine=sequential"],
        ["algorithm=splitfed_v1"],
        ["algorithm=cse_fsl"],
        ["algorithm=fsl_sage", "client.stateless=true"],
        ["algorithm=fsl_sage", "auxiliary.keep_clients=3"],
    ],
    ids=" ".join,
)
def test_estimate_is_what_the_last_checkpoint_holds_of_clients(tiny: Build, overrides: list[str]) -> None:
    run = tiny(*overrides, f"rounds={ROUNDS}")
    kept = estimate_kept_state(run.parts)
    assert kept is not None
    for t in range(ROUNDS):
        run.records.append(run.run_round(t))
    assert _bytes_by_client(run.checkpoint().state) == pytest.approx(kept.checkpoint, rel=0.05)


def test_number_of_clients_that_take_part_is_that_of_cohorts(tiny: Build) -> None:
    run = tiny("num_clients=60", "cohort_size=4", "rounds=20", "algorithm=fed_avg")
    kept = estimate_kept_state(run.parts)
    assert kept is not None
    seen = {client for t in range(20) for client in run.parts.cohort_of(t)}
    assert kept.clients == pytest.approx(len(seen), rel=0.1)
    kept = estimate_kept_state(tiny("num_clients=60", "rounds=20", "algorithm=fed_avg").parts)
    assert kept is not None
    assert kept.clients == pytest.approx(60)


def test_stateless_clients_of_fed_avg_keep_nothing(tiny: Build) -> None:
    assert estimate_kept_state(tiny("algorithm=fed_avg", "client.stateless=true").parts) is None


def test_state_beyond_the_machine_is_refused_and_says_what_keeps_less(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_state, "machine_memory", lambda: 500e3)
    with pytest.raises(UserError, match=r"^client.stateless=False: state of clients: about 3 of 3") as caught:
        tiny("algorithm=fed_avg")
    assert "this machine has 0.5 MB of memory: set client.stateless=true" in str(caught.value)
    assert str(caught.value).count("\n") == 0
    tiny("algorithm=fed_avg", "client.stateless=true")
    many = ("client.stateless=true", "distribution=resampled", "num_clients=900", "cohort_size=4")
    with pytest.raises(UserError, match=r"^auxiliary.memory_mb=.*: set auxiliary.keep_clients"):
        tiny(*many, "auxiliary.memory_mb=null", "rounds=100")
    tiny(*many, "auxiliary.memory_mb=0.1", "rounds=100")  # what is beyond is in files
    tiny(*many, "auxiliary.memory_mb=null", "rounds=100", "auxiliary.keep_clients=4")
    monkeypatch.setattr(kept_state, "_room", lambda: 1e3)
    with pytest.raises(UserError, match=r"^auxiliary.keep_clients=null: .* has room for 0.0 MB"):
        tiny(*many, "auxiliary.memory_mb=0.1", "rounds=100")


def test_estimate_is_a_line_of_the_log(tiny: Build, tmp_path: Path) -> None:
    run = tiny("algorithm=fed_avg", "rounds=1")
    run.run(RunDirectory(tmp_path / "run"))
    lines = [
        line for line in (tmp_path / "run/run.log").read_text().splitlines() if "state of clients" in line
    ]
    assert len(lines) == 1
    assert lines[0].endswith(str(estimate_kept_state(run.parts)))
