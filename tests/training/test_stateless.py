"""Clients that keep nothing from round to round."""

import pytest
import torch

from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.conftest import ALGORITHMS, Build

SAMPLED = ("num_clients=5", "cohort_size=2", "client.stateless=true")
ENGINES = ("auto", "sequential")
EVERY_RUN = ("splitfed_v1", "splitfed_v2", "fsl_sage")
"""Algorithms of which one is with turns, one with cut gradients and one with what its clients keep."""


def _rounds(run: Experiment, number: int) -> dict[str, torch.Tensor]:
    for t in range(number):
        run.records.append(run.run_round(t))
    return run.algorithm.full_weights()


@pytest.mark.cover(1)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", long_but(EVERY_RUN, ALGORITHMS))
def test_stateless_clients_begin_each_round_with_a_new_optimizer(
    tiny: Build, algorithm: str, engine: str
) -> None:
    """Momentum is lost between rounds, so a second round differs; the first one does not."""
    settings = [f"algorithm={algorithm}", f"engine={engine}", "optimizer=sgd", "optimizer.momentum=0.9"]
    kept, dropped = tiny(*settings), tiny(*settings, "client.stateless=true")
    first, second = ([run.run_round(t).train_loss for run in (kept, dropped)] for t in range(2))
    assert first[0] == first[1]
    kept.run_round(2)
    dropped.run_round(2)
    ours, theirs = kept.algorithm.full_weights(), dropped.algorithm.full_weights()
    assert not all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert second[0] == pytest.approx(second[1], rel=0.5)


@pytest.mark.cover(1)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", long_but(EVERY_RUN, ALGORITHMS))
def test_stateless_clients_without_optimizer_state_give_the_bits_of_stateful_ones(
    tiny: Build, algorithm: str, engine: str
) -> None:
    settings = [f"algorithm={algorithm}", f"engine={engine}", "optimizer=sgd", "cohort_size=2"]
    ours, theirs = (_rounds(tiny(*settings, f"client.stateless={each}"), 3) for each in ("true", "false"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.cover(1)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", ["fed_avg", "splitfed_v1", "splitfed_v2", "cse_fsl"])
def test_checkpoint_of_a_stateless_run_holds_no_state_of_clients(
    tiny: Build, algorithm: str, engine: str
) -> None:
    run = tiny(f"algorithm={algorithm}", f"engine={engine}", *SAMPLED, "quant=int8")
    _rounds(run, 2)
    checkpoint = run.checkpoint().state
    assert checkpoint["clients"] == {}
    assert not checkpoint["algorithm"].get("copies")
    assert all(not link["up"] for link in checkpoint["links"].values())


@pytest.mark.parametrize("engine", ENGINES)
def test_stateless_clients_of_fsl_sage_keep_their_auxiliary_model_alone(tiny: Build, engine: str) -> None:
    run = tiny(f"engine={engine}", *SAMPLED, "algorithm.align_interval=100")
    _rounds(run, 4)
    seen = {client for t in range(4) for client in run.parts.cohort_of(t)}
    kept = run.checkpoint().state["clients"]
    assert set(kept) == {str(client) for client in seen}
    assert len(seen) > 2
    for client, state in kept.items():
        assert state["body"] is None
        aligned = run.algorithm.auxiliary_weights()[f"auxiliary-{client}"]
        assert all(torch.equal(state["head"]["weights"][name], tensor) for name, tensor in aligned.items())


@pytest.mark.cover(1)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", long_but(EVERY_RUN, ALGORITHMS))
def test_stateless_run_resumed_from_a_checkpoint_continues_bit_for_bit(
    tiny: Build, algorithm: str, engine: str
) -> None:
    settings = [f"algorithm={algorithm}", f"engine={engine}", *SAMPLED, "algorithm.align_interval=3"]
    settings = settings[:-1] if algorithm != "fsl_sage" else settings
    straight, killed, resumed = (tiny(*settings) for _ in range(3))
    expected = _rounds(straight, 4)
    _rounds(killed, 2)
    resumed.restore(killed.checkpoint())
    for t in (2, 3):
        resumed.run_round(t)
    ours = resumed.algorithm.full_weights()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.items())
