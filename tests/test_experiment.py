"""Invariants of whole runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fedsplit.errors import RunFailed, UserError
from fedsplit.experiment import Experiment
from fedsplit.parties.client import ClientWorker
from fedsplit.results.run_directory import RunDirectory
from fedsplit.transport.local import LocalCohort
from tests.conftest import ALGORITHMS, Build, Configure


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tiny: Build, algorithm: str) -> None:
    runs = [tiny(f"algorithm={algorithm}", f"seed={seed}") for seed in (7, 7, 8)]
    for run in runs:
        torch.manual_seed(id(run))  # nothing global may matter
        for t in range(2):
            run.run_round(t)
    first, again, other = (run.algorithm.full_weights() for run in runs)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in first.items())


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "splitfed_v2"])
def test_results_do_not_depend_on_the_order_in_which_clients_are_visited(
    tiny: Build, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, backwards = (tiny(f"algorithm={algorithm}") for _ in range(2))
    for t in range(2):
        straight.run_round(t)
    visited: list[int] = []

    def ask_backwards(cohort: LocalCohort, verb: Callable[[ClientWorker], object]) -> list[object]:
        visited.extend(reversed(cohort.clients))
        answers = {client: verb(cohort._transport.worker(client)) for client in reversed(cohort.clients)}
        return [answers[client] for client in cohort.clients]

    monkeypatch.setattr(LocalCohort, "_ask", ask_backwards)
    for t in range(2):
        backwards.run_round(t)
    assert visited[:3] == [2, 1, 0]
    ours, theirs = straight.algorithm.full_weights(), backwards.algorithm.full_weights()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_forward_changes_nothing_until_backward(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v1", "model=resnet18", "dataset.max_train=50")
    worker = run.transport.worker(0)
    before = {name: tensor.clone() for name, tensor in worker.weights("client").items()}
    first, again = worker.forward(0, 0), worker.forward(0, 0)
    assert first is not None
    assert again is not None
    assert torch.equal(first.z, again.z)
    assert all(torch.equal(tensor, before[name]) for name, tensor in worker.weights("client").items())
    worker.backward(0, 0, torch.ones_like(first.z))
    counters = [name for name in before if name.endswith("num_batches_tracked")]
    assert counters
    assert all(worker.weights("client")[name] == before[name] + 1 for name in counters)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("rounds=2", "rounds"),
        ("comm_threshold_mb=0.1", "comm_threshold_mb"),
        ("time_limit_s=0.001", "time_limit_s"),
        ("target_accuracy=0.01", "target_accuracy"),
    ],
)
def test_a_run_stops_at_whichever_limit_comes_first(
    tiny: Build, tmp_path: Path, override: str, reason: str
) -> None:
    run = tiny(
        "rounds=50", override, "eval_interval=3" if reason == "comm_threshold_mb" else "eval_interval=1"
    )
    run.run(RunDirectory(tmp_path / "run"))
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["stopped_by"] == reason
    assert results["rounds_run"] == {"rounds": 2}.get(reason, len(run.records))
    assert len(run.records) < 50
    assert run.records[-1].test_accuracy == results["final_accuracy"]
    if reason == "comm_threshold_mb":
        assert run.records[-1].load >= 1e5
        assert len(run.records) == 1 or run.records[-2].load < 1e5
        assert results["load"] == run.ledger.load


def test_evaluation_happens_every_interval_and_in_the_last_round(tiny: Build, tmp_path: Path) -> None:
    run = tiny("rounds=5", "eval_interval=3")
    run.run(RunDirectory(tmp_path / "run"))
    assert [record.test_accuracy is not None for record in run.records] == [False, False, True, False, True]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_divergence_names_round_client_and_learning_rate_and_keeps_the_checkpoint(
    tiny: Build, tmp_path: Path, algorithm: str
) -> None:
    run = tiny(f"algorithm={algorithm}", "optimizer=sgd", "checkpoint_interval=1", "rounds=40")
    directory = RunDirectory(tmp_path / "run")
    run.rounds = 1
    run.run(directory)
    run.rounds = 40
    object.__setattr__(run.parts.client_optimizer, "lr", 1e30)
    for worker in run.transport._workers.values():
        worker._body._learning_rate = 1e30
        if worker._head is not None:
            worker._head._learning_rate = 1e30
    with pytest.raises(RunFailed, match=r"round 1: .* of client 0 is not finite; learning rate 1e\+30"):
        run.run(directory)
    assert [path.name for path in (tmp_path / "run/checkpoint").iterdir()] == ["round-000001"]


def test_the_learning_rate_follows_the_schedule_on_both_sides(tiny: Build) -> None:
    runs = [
        tiny(
            "algorithm=splitfed_v1",
            "optimizer=sgd",
            "optimizer.lr=0.1",
            "scheduler=step",
            "scheduler.step_size=1",
        ),
        tiny("algorithm=splitfed_v1", "optimizer=sgd", "optimizer.lr=0.01"),
    ]
    runs[0].run_round(0)
    runs[1].algorithm.load_state(runs[0].algorithm.state())
    for run in runs:
        run.run_round(1)
    stepped, constant = (run.algorithm.full_weights() for run in runs)
    for name, tensor in stepped.items():
        torch.testing.assert_close(tensor, constant[name], rtol=1e-5, atol=1e-7)


def test_one_sides_optimizer_can_be_chosen_alone(tiny: Build) -> None:
    run = tiny("client_optimizer=sgd", "client_optimizer.lr=0.5", "optimizer.lr=0.25")
    assert type(run.parts.client_optimizer).__name__ == "Sgd"
    assert (run.parts.client_optimizer.lr, run.parts.server_optimizer.lr) == (0.5, 0.25)
    assert type(run.parts.server_optimizer).__name__ == "Adam"


def test_a_cohort_is_drawn_without_replacement_and_anew_each_round(tiny: Build) -> None:
    run = tiny("num_clients=10", "cohort_size=4", "batch_size=4")
    cohorts = [tuple(run.cohort_of(t)) for t in range(20)]
    assert all(len(set(cohort)) == 4 and list(cohort) == sorted(cohort) for cohort in cohorts)
    assert len(set(cohorts)) > 10
    assert cohorts == [tuple(run.cohort_of(t)) for t in range(20)]


def test_warm_start_is_cse_fsl_and_hands_its_auxiliary_model_on(tiny: Build) -> None:
    cse, warm = tiny("algorithm=cse_fsl"), tiny("algorithm=fsl_sage", "algorithm.warm_start=2")
    for t in range(2):
        ours, theirs = warm.run_round(t), cse.run_round(t)
        assert ours.bytes == theirs.bytes
        assert ours.train_loss == theirs.train_loss
    expected = cse.algorithm.auxiliary_weights()["auxiliary"]
    handed_on = warm.algorithm.alignment._of(0).auxiliary.weights()
    assert all(torch.equal(tensor, handed_on[name]) for name, tensor in expected.items())


def test_a_models_file_is_the_same_bytes_for_the_same_weights(tiny: Build, tmp_path: Path) -> None:
    for name in ("a", "b"):
        tiny("rounds=1").run(RunDirectory(tmp_path / name))
    files = sorted(path.name for path in (tmp_path / "a/model").iterdir())
    assert files == [
        *(f"auxiliary-{client}.safetensors" for client in range(3)),
        "client.safetensors",
        "server.safetensors",
    ]
    for file in files:
        assert (tmp_path / "a/model" / file).read_bytes() == (tmp_path / "b/model" / file).read_bytes()


def test_resuming_with_fewer_rounds_than_were_run_is_refused(tiny: Build) -> None:
    run = tiny("rounds=2")
    for t in range(2):
        run.records.append(run.run_round(t))
    with pytest.raises(UserError, match=r"rounds=1: at least the 2 rounds that were run"):
        tiny("rounds=1").restore(run.checkpoint())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_default_learns_digits_to_93_percent_within_20_rounds(
    configured: Configure, algorithm: str
) -> None:
    run = Experiment(configured(f"algorithm={algorithm}"))
    assert run.rounds == 20
    assert max(run.run_round(t).test_accuracy or 0.0 for t in range(20)) >= 0.93
