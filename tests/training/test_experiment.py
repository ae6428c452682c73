"""Invariants of whole runs."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fedsplit.errors import RunFailed, UserError
from fedsplit.parties.client import ClientWorker
from fedsplit.parties.messages import LocalTraining
from fedsplit.parties.sequential import Sequential
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from fedsplit.training.stopping import Limits
from tests.cases import long_but
from tests.conftest import ALGORITHMS, Build, Configure


@pytest.mark.parametrize("algorithm", long_but(["splitfed_v2", "fsl_sage"], ALGORITHMS))
def test_run_follows_bit_for_bit_from_its_seed_alone(tiny: Build, algorithm: str) -> None:
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
    straight, backwards = (tiny(f"algorithm={algorithm}", "engine=sequential") for _ in range(2))
    for t in range(2):
        straight.run_round(t)
    visited: list[int] = []
    worker = Sequential.worker

    def seen(engine: Sequential, client: int) -> ClientWorker:
        visited.append(client)
        return worker(engine, client)

    def backwards_by_client(verb: Callable[..., Any]) -> Callable[..., Any]:
        def ask(self: Sequential, clients: Sequence[int], *args: Any, **kwargs: Any) -> Any:
            answer = verb(self, clients[::-1], *args, **kwargs)
            if isinstance(answer, LocalTraining):
                return LocalTraining(sorted(answer.uploads, key=lambda u: (u.client, u.step)), answer.losses)
            return answer[::-1]

        return ask

    monkeypatch.setattr(Sequential, "worker", seen)
    monkeypatch.setattr(Sequential, "forward", backwards_by_client(Sequential.forward))
    monkeypatch.setattr(Sequential, "train_local", backwards_by_client(Sequential.train_local))
    for t in range(2):
        backwards.run_round(t)
    assert visited[3:6] == [2, 1, 0] or visited[6:9] == [2, 1, 0]  # behind the installation of weights
    ours, theirs = straight.algorithm.full_weights(), backwards.algorithm.full_weights()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_forward_pass_of_a_client_changes_no_weights_before_backward(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v1", "model=resnet20", "dataset.max_train=50", "engine=sequential")
    engine = run.parts.engine
    assert isinstance(engine, Sequential)
    worker = engine.worker(0)
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
def test_run_stops_at_the_limit_that_is_reached_first(
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


def test_evaluation_happens_every_interval_and_after_the_last_round(tiny: Build, tmp_path: Path) -> None:
    run = tiny("rounds=5", "eval_interval=3")
    run.run(RunDirectory(tmp_path / "run"))
    assert [record.test_accuracy is not None for record in run.records] == [False, False, True, False, True]
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] != "" for row in rows] == [False, False, True, False, True]


def test_run_resumed_with_more_rounds_has_the_results_of_a_run_that_long_from_the_start(
    tiny: Build, tmp_path: Path
) -> None:
    straight, short = tiny("rounds=5", "eval_interval=2"), tiny("rounds=3", "eval_interval=2")
    straight.run(RunDirectory(tmp_path / "straight"))
    short.run(RunDirectory(tmp_path / "longer"))
    assert short.records[-1].test_accuracy is not None
    longer = tiny("rounds=5", "eval_interval=2")
    checkpoint = RunDirectory(tmp_path / "longer").latest_checkpoint()
    assert checkpoint is not None
    longer.restore(checkpoint)
    longer.run(RunDirectory(tmp_path / "longer"))
    for ours, theirs in zip(longer.records, straight.records, strict=True):
        assert (ours.test_accuracy, ours.test_loss) == (theirs.test_accuracy, theirs.test_loss)


def test_run_on_a_disk_that_cannot_be_written_to_fails_in_one_line(tiny: Build, tmp_path: Path) -> None:
    run = tiny("checkpoint_interval=1")
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    (directory.path / "checkpoint").write_text("not a folder")
    with pytest.raises(RunFailed, match=r"round 1: .*run cannot be written \(.*exists"):
        run.run(directory)


def test_run_out_of_memory_fails_in_one_line(tiny: Build, tmp_path: Path) -> None:
    run = tiny()
    run.algorithm.run_round = lambda t, cohort: torch.empty(1 << 60)  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(RunFailed, match=r"^round 0: out of memory; lower batch_size"):
        run.run(RunDirectory(tmp_path / "run"))


def test_diverged_server_fails_the_run_before_a_checkpoint_is_written(tiny: Build, tmp_path: Path) -> None:
    run = tiny("algorithm=cse_fsl", "eval_interval=9", "checkpoint_interval=1", "rounds=2")
    with torch.no_grad():
        next(iter(run.algorithm.server._model.parameters.values())).fill_(3e38)
    with pytest.raises(RunFailed, match="round 0: "):
        run.run(RunDirectory(tmp_path / "run"))
    assert not (tmp_path / "run/checkpoint").exists()


def test_round_leaves_the_global_random_state_unchanged(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v1")
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    run.run_round(0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.cover(1)
@pytest.mark.parametrize("engine", ["auto", "sequential"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_diverged_run_names_round_client_and_learning_rate_and_keeps_its_checkpoint(
    tiny: Build, tmp_path: Path, algorithm: str, engine: str
) -> None:
    run = tiny(
        f"algorithm={algorithm}", "optimizer=sgd", "checkpoint_interval=1", "rounds=40", f"engine={engine}"
    )
    directory = RunDirectory(tmp_path / "run")
    run.limits = Limits(rounds=1)
    run.run(directory)
    run.limits = Limits(rounds=40)
    object.__setattr__(run.parts.client_optimizer, "lr", 1e30)
    for worker in getattr(run.parts.engine, "_workers", {}).values():
        worker._body._learning_rate = 1e30
        if worker._head is not None:
            worker._head._learning_rate = 1e30
    with pytest.raises(
        RunFailed, match=r"round 1: .* of client \d is not finite; learning rate 1e\+30"
    ) as told:
        run.run(directory)
    kept = f"the checkpoint after 1 round is kept: python main.py resume={tmp_path / 'run'}"
    assert str(told.value).endswith(kept)
    assert [path.name for path in (tmp_path / "run/checkpoint").iterdir()] == ["round-000001"]


def test_learning_rate_follows_the_schedule_on_both_sides(tiny: Build) -> None:
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


def test_client_optimizer_can_be_chosen_without_that_of_the_server(tiny: Build) -> None:
    run = tiny("client_optimizer=sgd", "client_optimizer.lr=0.5", "optimizer.lr=0.25")
    assert type(run.parts.client_optimizer).__name__ == "Sgd"
    assert (run.parts.client_optimizer.lr, run.parts.server_optimizer.lr) == (0.5, 0.25)
    assert type(run.parts.server_optimizer).__name__ == "Adam"


def test_cohort_is_drawn_without_replacement_and_anew_each_round(tiny: Build) -> None:
    run = tiny("num_clients=10", "cohort_size=4", "batch_size=4")
    cohorts = [tuple(run.parts.cohort_of(t)) for t in range(20)]
    assert all(len(set(cohort)) == 4 and list(cohort) == sorted(cohort) for cohort in cohorts)
    assert len(set(cohorts)) > 10
    assert cohorts == [tuple(run.parts.cohort_of(t)) for t in range(20)]


def test_warm_start_trains_as_cse_fsl_and_hands_auxiliary_model_and_uploads_on(tiny: Build) -> None:
    overrides = ["algorithm.server_update_interval=2"]
    cse = tiny("algorithm=cse_fsl", *overrides)
    warm = tiny("algorithm=fsl_sage", "algorithm.warm_start=2", *overrides)
    for t in range(2):
        ours, theirs = warm.run_round(t), cse.run_round(t)
        assert ours.bytes == theirs.bytes
        assert ours.train_loss == theirs.train_loss
    expected = cse.algorithm.auxiliary_weights()
    assert expected.keys() == warm.algorithm.auxiliary_weights().keys() == {"auxiliary"}
    handed_on = warm.algorithm.auxiliary
    assert all(torch.equal(tensor, handed_on[name]) for name, tensor in expected["auxiliary"].items())
    assert [len(warm.algorithm.alignment._rings[client]) for client in range(3)] == [24, 24, 24]
    warm.run_round(2)
    aligned = [f"auxiliary-{client}" for client in range(3)]
    assert list(warm.algorithm.auxiliary_weights()) == aligned


def test_model_files_of_equal_runs_are_equal_bytes(tiny: Build, tmp_path: Path) -> None:
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


def test_resume_with_fewer_rounds_than_were_run_is_refused(tiny: Build) -> None:
    run = tiny("rounds=2")
    for t in range(2):
        run.records.append(run.run_round(t))
    with pytest.raises(UserError, match=r"rounds=1: must be at least 2, the rounds that were run"):
        tiny("rounds=1").restore(run.checkpoint())


@pytest.mark.parametrize("algorithm", long_but(["fsl_sage"], ALGORITHMS))
def test_default_configuration_learns_digits_to_93_percent_within_20_rounds(
    configured: Configure, algorithm: str
) -> None:
    run = Experiment(configured(f"algorithm={algorithm}"))
    assert run.limits.rounds == 20
    assert max(run.run_round(t).test_accuracy or 0.0 for t in range(20)) >= 0.93


@pytest.mark.parametrize("engine", ["auto", "sequential"])
@pytest.mark.parametrize("quant", ["none", "int8"])
def test_non_finite_message_not_checked_when_sent_fails_the_end_of_the_round(
    tiny: Build, monkeypatch: pytest.MonkeyPatch, engine: str, quant: str
) -> None:
    """As on a GPU: there no message is looked at when it is sent."""
    run = tiny("algorithm=fed_avg", f"engine={engine}", f"quant={quant}")
    run.transport.looks_later = True
    for module in ("codec", "codecs.identity"):
        monkeypatch.setattr(f"fedsplit.quant.{module}.require_finite", lambda _: None)
    run.run_round(0)
    kind = type(run.parts.engine)
    weights = kind.weights

    def spoilt(self: Any, part: Any, clients: Any) -> Any:
        sent = weights(self, part, clients)
        sent[1]["conv1.weight"][0] = float("nan")
        return sent

    monkeypatch.setattr(kind, "weights", spoilt)
    with pytest.raises(RunFailed, match=r"^full_weights of client 1 is not finite$"):
        run.run_round(1)


def test_comm_threshold_of_one_mb_is_reached_at_a_million_bytes(tiny: Build, tmp_path: Path) -> None:
    whole = tiny()
    loads = [whole.run_round(t).load for t in range(3)]
    run = tiny(f"comm_threshold_mb={loads[1] / 1e6!r}")
    run.run(RunDirectory(tmp_path / "run"))
    assert [record.load for record in run.records] == loads[:2]


def test_resumed_run_continues_the_time_used_before(tiny: Build) -> None:
    run = tiny()
    run.elapsed = 12.5
    resumed = tiny()
    resumed.restore(run.checkpoint())
    assert resumed.elapsed == 12.5


def test_division_of_samples_depends_on_the_seed(tiny: Build) -> None:
    one, same, other = (tiny(f"seed={seed}").parts.data.shards[0].tolist() for seed in (0, 0, 1))
    assert one == same != other


def test_engine_auto_is_chosen_by_the_batches_that_clients_can_fill(tiny: Build) -> None:
    """A batch size beyond every client's samples does not make a step any larger."""
    choices = [tiny(f"batch_size={size}").config.choices["engine"] for size in (44, 1_000_000)]
    assert choices[0] == choices[1] == "vectorized"


def test_auxiliary_model_is_initialised_with_other_draws_than_the_model(tiny: Build) -> None:
    models = tiny("auxiliary=linear").parts.models
    assert models.auxiliary is not None
    modules = (models.halves.client, models.auxiliary)
    weights = [next(module.parameters()).detach() for module in modules]  # uniform in 1 / sqrt(fan in)
    draws = [(weight * weight[0].numel() ** 0.5).flatten()[:20] for weight in weights]
    assert float((draws[0] - draws[1]).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("train", "test", "auc"), [("a", "a", None), ("ab", "b", None), ("abc", "ab", float)]
)
def test_results_do_not_ask_for_test_images_of_several_classes(
    tiny: Build, tmp_path: Path, train: str, test: str, auc: type | None
) -> None:
    draw = np.random.default_rng(0)
    for split, classes in (("train", train), ("test", test)):
        for name in classes:
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    limits = ("dataset.max_train=null", "dataset.max_test=null", "rounds=1")
    run = tiny("dataset=image_folder", f"dataset.root={tmp_path / 'images'}", *limits)
    run.run(RunDirectory(tmp_path / "run"))
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert set(results["class_accuracy"]) == set(test)
    assert results["auc"] is None if auc is None else isinstance(results["auc"], auc)
    assert (tmp_path / "run" / "roc.csv").read_text("utf-8").startswith("class,false_positive_rate")


@pytest.mark.parametrize(
    ("broken", "file"),
    [
        ("classification.RocCurves.of", "roc.csv"),
        ("classification.RocCurves.write", "roc.csv"),
        ("classification.ConfusionMatrix.of", "confusion.csv"),
        ("metrics.LocalAccuracies.write", "local_accuracy.csv"),
    ],
)
def test_what_is_computed_after_the_last_round_cannot_cost_the_results(
    tiny: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str, file: str
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no\nluck")

    whole, run = (tiny("rounds=1", "dataset.local_test_fraction=0.2") for _ in range(2))
    whole.run(RunDirectory(tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(f"fedsplit.recording.{broken}", fail)
        run.run(RunDirectory(tmp_path / "run"))
    told = f"{file}: left out (ValueError: no)"
    assert capsys.readouterr().err == f"note: {told}\n"
    assert told in (tmp_path / "run" / "run.log").read_text("utf-8")
    left = {folder: {path.name for path in (tmp_path / folder).rglob("*")} for folder in ("whole", "run")}
    assert left["whole"] - left["run"] == {file}
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert results["final_accuracy"] is not None
    assert (results["auc"] is None) == (file == "roc.csv")
    assert ("class_accuracy" in results) == (file != "confusion.csv")


def test_results_and_models_are_written_before_the_classification(
    tiny: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny("rounds=1")
    monkeypatch.setattr(run.evaluate, "logits", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.run(RunDirectory(tmp_path / "run"))
    assert (tmp_path / "run" / "results.json").is_file()
    assert (tmp_path / "run" / "model" / "client.safetensors").is_file()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
