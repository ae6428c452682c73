"""Runs whose clients hold out part of their data."""

import copy
import csv
import json
from pathlib import Path
from statistics import fmean, pstdev

import pytest
import torch

from fedsplit.data.dataset import Dataset
from fedsplit.data.sources.digits import Digits
from fedsplit.errors import UserError
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from tests.conftest import ALGORITHMS, Build
from tests.transport.runs import metrics, ran

FRACTION = "dataset.local_test_fraction=0.2"
NONE = ["local_accuracy.mean", "local_accuracy.std", "local_accuracy.worst"]


def _accuracies_by_hand(run: Experiment) -> list[float]:
    """Accuracy of the model on each client's held-out images, client by client, one image at a time."""
    models, data, full = run.parts.models, run.parts.data, run.algorithm.full_weights()
    halves = [copy.deepcopy(half).eval() for half in (models.halves.client, models.halves.server)]
    samples, held_out = data.dataset.train, data.local_test
    assert held_out is not None
    for half in halves:
        half.load_state_dict({name: full[name] for name in half.state_dict()})
    accuracies = []
    for client in range(len(held_out)):
        right = []
        for index in held_out[client].tolist():
            one = slice(index, index + 1)
            logits = halves[1](halves[0](samples.inputs_at(one)))
            right.append(int(logits.argmax()) == int(samples.labels_at(one)))
        accuracies.append(fmean(right))
    return accuracies


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=fed_avg", "eval_batch_size=7"],
        ["distribution=dirichlet", "distribution.alpha=0.3"],
        ["distribution=feature_shift"],
        [
            "model._target_=tests.estimators.test_gradient_error.with_batch_statistics",
            *("model.cut=body", "auxiliary=derived"),
        ],
    ],
    ids=" ".join,
)
def test_local_accuracy_is_that_of_the_model_on_the_held_out_images_of_each_client(
    tiny: Build, tmp_path: Path, overrides: list[str]
) -> None:
    run = tiny(FRACTION, *overrides)
    directory = ran(run, tmp_path / "run")
    expected, held_out = _accuracies_by_hand(run), run.parts.data.local_test
    assert held_out is not None
    with (directory / "local_accuracy.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == expected
    assert [int(row["samples"]) for row in rows] == held_out.sizes
    summary = {"mean": fmean(expected), "std": pstdev(expected), "worst": min(expected)}
    assert json.loads((directory / "results.json").read_text())["local_accuracy"] == summary
    last = metrics(directory)[-1]
    assert {name: float(last[f"local_accuracy.{name}"]) for name in summary} == summary


def test_held_out_images_are_shifted_as_the_training_images_of_their_client(tiny: Build) -> None:
    overrides = ["distribution=feature_shift", "distribution.rotation=90"]
    plain, run = tiny("distribution=iid").parts.data.dataset.train, tiny(FRACTION, *overrides).parts
    held_out = run.data.local_test
    assert held_out is not None
    for client in range(3):
        index = held_out[client]
        expected = run.data.distribution.seen_by(client, plain.pixels[index], run.config.training.seed)
        assert not torch.equal(expected, plain.pixels[index])
        assert torch.equal(run.data.dataset.train.pixels[index], expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_held_out_images_have_no_part_in_training(
    tiny: Build, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [FRACTION, f"algorithm={algorithm}", "quant=int8"]
    straight = tiny(*overrides)
    held_out = straight.parts.data.local_test
    assert held_out is not None

    load = Digits.load

    def spoilt(source: Digits) -> Dataset:
        dataset = load(source)
        dataset.train.pixels[held_out.indices] = 200  # pixels of digits are 0 to 16
        dataset.train.labels[held_out.indices] = 0
        return dataset

    monkeypatch.setattr(Digits, "load", spoilt)
    other = tiny(*overrides)
    assert other.parts.data.local_test is not None
    assert torch.equal(other.parts.data.local_test.indices, held_out.indices)
    ours, theirs = straight.run_round(0), other.run_round(0)
    assert ours.train_loss == theirs.train_loss
    assert ours.bytes == theirs.bytes
    assert ours.local_accuracy != theirs.local_accuracy
    weights = other.algorithm.full_weights()
    for name, tensor in straight.algorithm.full_weights().items():
        assert torch.equal(tensor, weights[name]), name


def test_sample_and_class_counts_leave_held_out_images_out(tiny: Build) -> None:
    whole, run = tiny(), tiny(FRACTION)
    assert whole.parts.sample_counts == [44, 43, 43]
    assert run.parts.sample_counts == [35, 34, 34]  # 8.8, 8.6 and 8.6 are held out
    counts = run.parts.class_counts
    assert counts is not None
    assert [sum(n for c, _, n in counts.table.tolist() if c == client) for client in range(3)] == [35, 34, 34]
    labels = run.parts.data.dataset.train.labels
    for client, label, samples in counts.table.tolist():
        assert samples == int((labels[run.parts.data.shards[client]] == label).sum())


def test_local_accuracy_without_a_fraction_is_left_out_of_all_results(tiny: Build, tmp_path: Path) -> None:
    directory = ran(tiny("rounds=1"), tmp_path / "run")
    assert not (directory / "local_accuracy.csv").exists()
    assert json.loads((directory / "results.json").read_text())["local_accuracy"] is None
    assert [metrics(directory)[0][name] for name in NONE] == ["", "", ""]


def test_local_accuracy_is_measured_in_the_rounds_with_evaluation(tiny: Build, tmp_path: Path) -> None:
    directory = ran(tiny(FRACTION, "rounds=4", "eval_interval=3"), tmp_path / "run")
    rows = metrics(directory)
    assert [row["test_accuracy"] != "" for row in rows] == [False, False, True, True]
    for name in NONE:
        assert [row[name] != "" for row in rows] == [False, False, True, True]


def test_local_accuracy_of_a_resumed_run_is_that_of_an_uninterrupted_one(tiny: Build, tmp_path: Path) -> None:
    overrides = [FRACTION, "algorithm=cse_fsl"]
    whole = ran(tiny(*overrides, "rounds=3"), tmp_path / "whole")
    ran(tiny(*overrides, "rounds=1"), tmp_path / "resumed")
    directory, resumed = RunDirectory(tmp_path / "resumed"), tiny(*overrides, "rounds=3")
    checkpoint = directory.latest_checkpoint()
    assert checkpoint is not None
    resumed.restore(checkpoint)
    resumed.run(directory)
    assert metrics(directory.path) == metrics(whole)
    for name in ("local_accuracy.csv", "confusion.csv", "roc.csv"):
        assert (directory.path / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["distribution=own", "transport=grpc"],
            "must be 0 with distribution=own: the server, which tests, does not see clients' data",
        ),
        (
            ["num_clients=130", "batch_size=1", "algorithm=fed_avg"],
            "must be 0: no client has two samples, one of which it could hold out",
        ),
    ],
)
def test_local_test_fraction_where_nothing_can_be_held_out_is_refused(
    tiny: Build, overrides: list[str], told: str
) -> None:
    with pytest.raises(UserError) as caught:
        tiny(FRACTION, *overrides)
    assert str(caught.value) == f"dataset.local_test_fraction=0.2: {told}"


@pytest.mark.parametrize("value", ["1", "-0.1", "1.5", "null"])
def test_local_test_fraction_outside_zero_to_below_one_is_refused(tiny: Build, value: str) -> None:
    with pytest.raises(
        UserError, match=r"^dataset\.local_test_fraction=.*: must be a number from 0 to below 1"
    ):
        tiny(f"dataset.local_test_fraction={value}")
