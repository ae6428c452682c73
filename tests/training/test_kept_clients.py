"""FSL-SAGE with room for the rings and auxiliary models of some clients: those that took part last."""

from pathlib import Path

import pytest

from fedsplit.errors import UserError
from fedsplit.recording.checkpoint import load_latest
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from tests.conftest import Build
from tests.training.test_resume import bits

SAGE = (
    *("num_clients=9", "cohort_size=2", "client.stateless=true", "auxiliary.keep_clients=4"),
    *("algorithm.align_interval=100", "checkpoint_interval=1", "batch_size=8"),
)
ROUNDS = 7


def _trained(run: Experiment, rounds: range) -> Experiment:
    for t in rounds:
        run.records.append(run.run_round(t))
    return run


def _seen_last(run: Experiment, rounds: int, most: int) -> list[int]:
    """The clients that took part last, those that did so longest ago first."""
    seen: list[int] = []
    for t in range(rounds):
        cohort = sorted(run.parts.cohort_of(t))
        seen = [client for client in seen if client not in cohort] + cohort
    return seen[-most:]


@pytest.mark.parametrize("quant", ["none", "int8"])
def test_clients_that_took_part_longest_ago_are_dropped_and_align_anew(tiny: Build, quant: str) -> None:
    run = tiny(*SAGE, f"quant={quant}")
    aligned: dict[int, list[int]] = {}
    for t in range(ROUNDS):
        before = _seen_last(run, t, 4)
        _trained(run, range(t, t + 1))
        kept = _seen_last(run, t + 1, 4)
        state = run.checkpoint().state
        assert [int(client) for client in state["algorithm"]["alignment"]["rings"]] == kept
        assert {int(client) for client in state["algorithm"]["alignment"]["auxiliaries"]} == set(kept)
        assert {int(client) for client in state["clients"]} == set(kept)
        assert {int(c) for c in state["links"]["auxiliary"]["down"]["held"]} <= set(kept)
        fits = run.parts.alignment.fits
        aligned[t] = [client for client, fit in fits.items() if fit.round == t]
        assert set(aligned[t]) == set(run.parts.cohort_of(t)) - set(before)
    times = [sum(client in each for each in aligned.values()) for client in range(9)]
    assert max(times) > 1  # one was dropped, and came again


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_run_with_dropped_clients_that_is_resumed_continues_bit_for_bit(
    tiny: Build, tmp_path: Path, engine: str
) -> None:
    overrides = (*SAGE, f"engine={engine}", "rounds=4")
    straight = _trained(tiny(*overrides), range(ROUNDS))
    begun = tiny(*overrides)
    begun.run(RunDirectory(tmp_path / "run"))
    found = load_latest(tmp_path / "run/checkpoint")
    assert found is not None
    resumed = tiny(*SAGE, f"engine={engine}", f"rounds={ROUNDS}")
    resumed.restore(found)
    resumed.run(RunDirectory(tmp_path / "run"))  # with checkpoints that share files of clients
    for ended in (resumed, tiny(*SAGE, f"engine={engine}", f"rounds={ROUNDS}")):
        if not ended.records:  # what the last checkpoint holds
            last = load_latest(tmp_path / "run/checkpoint")
            assert last is not None
            ended.restore(last)
        expected, actual = bits(straight), bits(ended)
        assert expected.keys() == actual.keys()
        assert [name for name in expected if not expected[name].equal(actual[name])] == []
        rings = [each.checkpoint().state["algorithm"]["alignment"]["rings"] for each in (straight, ended)]
        assert list(rings[0]) == list(rings[1])


def test_checkpoints_write_only_clients_that_took_part(tiny: Build, tmp_path: Path) -> None:
    run = tiny("num_clients=6", "cohort_size=2", "rounds=5", "checkpoint_interval=1", "algorithm=splitfed_v1")
    run.run(RunDirectory(tmp_path / "run"))
    before, after = (
        {p.name: p.stat().st_ino for p in path.glob("client-*")}
        for path in sorted((tmp_path / "run/checkpoint").iterdir())
    )
    cohort = {f"client-{client}.safetensors" for client in run.parts.cohort_of(4)}
    assert {name for name, inode in after.items() if before.get(name) != inode} == cohort
    assert before.keys() <= after.keys()


def test_fewer_kept_clients_than_take_part_in_a_round_are_refused(tiny: Build) -> None:
    with pytest.raises(
        UserError, match=r"^auxiliary.keep_clients=2: must be at least 3, the clients of a round"
    ):
        tiny("auxiliary.keep_clients=2")
    tiny("auxiliary.keep_clients=2", "algorithm=cse_fsl")  # which keeps none


def test_memory_of_dropped_clients_is_used_again(tiny: Build) -> None:
    run = _trained(tiny(*SAGE), range(3))
    used = run.parts.memory.used_bytes
    _trained(run, range(3, ROUNDS))
    assert run.parts.memory.used_bytes == used
