"""Runs with more clients than samples, and what goes with them."""

import csv
from pathlib import Path

import pytest
import torch

from fedsplit.building.run import run_of_member
from fedsplit.errors import UserError
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.transport.transport import Member
from tests.conftest import TINY, Build, Configure

MANY = ("distribution=resampled", "num_clients=200000", "client.stateless=true", "algorithm=fed_avg")


def test_two_hundred_thousand_clients_share_a_hundred_samples(tiny: Build, tmp_path: Path) -> None:
    run = tiny(*MANY, "cohort_size=4", "distribution.samples_per_client=2", "rounds=2")
    assert run.parts.sample_counts == [2] * 200_000
    before = run.algorithm.full_weights()
    for t in range(2):
        run.records.append(run.run_round(t))
    assert not any(torch.equal(each, before[name]) for name, each in run.algorithm.full_weights().items())
    counts = run.parts.class_counts
    assert counts is not None
    assert (counts.clients, counts.samples) == (200_000, 400_000)
    labels = run.parts.data.dataset.train.strata
    for client in (0, 77, 199_999):
        own = counts.table[counts.table[:, 0] == client]
        expected = torch.bincount(labels[run.parts.data.shards[client]], minlength=10)
        assert own[:, 2].tolist() == expected[expected > 0].tolist()
        assert own[:, 1].tolist() == expected.nonzero().flatten().tolist()


def test_member_of_another_process_has_the_samples_that_the_server_counts_with(configured: Configure) -> None:
    overrides = (*TINY, "distribution=resampled", "num_clients=400", "engine=sequential", "algorithm=fed_avg")
    config = configured(*overrides)
    scaled = []

    def prepare(dataset: torch.nn.Module) -> torch.nn.Module:
        scaled.append(dataset.scale(None))  # type: ignore[operator]
        return scaled[0]

    member = run_of_member(config, Member(399, prepare))  # type: ignore[arg-type]
    assert member.sample_counts == [32] * 400


def test_clients_that_share_samples_hold_out_none_to_test_on(tiny: Build) -> None:
    with pytest.raises(UserError) as caught:
        tiny("distribution=resampled", "dataset.local_test_fraction=0.2")
    told = (
        "must be 0 with distribution=resampled: clients share samples, and train on what others would test on"
    )
    assert str(caught.value) == f"dataset.local_test_fraction=0.2: {told}"


def test_more_clients_than_samples_are_refused_where_clients_share_none(tiny: Build) -> None:
    with pytest.raises(
        UserError, match=r"^num_clients=131: must be at most 130, the number of training samples"
    ):
        tiny("num_clients=131")


def test_more_clients_than_a_server_has_streams_for_are_refused(tiny: Build) -> None:
    with pytest.raises(
        UserError, match=r"^num_clients=200000: must be at most 10,000 with transport=grpc: each is"
    ):
        tiny(*MANY, "transport=grpc")


def test_resampled_run_leaves_counts_of_each_client(tiny: Build, tmp_path: Path) -> None:
    run = tiny("distribution=resampled", "num_clients=150", "cohort_size=2", "rounds=1", "algorithm=fed_avg")
    run.run(RunDirectory(tmp_path / "run"))
    with (tmp_path / "run/class_counts.csv").open() as file:
        rows = [(int(row["client"]), int(row["samples"])) for row in csv.DictReader(file)]
    assert sorted({client for client, _ in rows}) == list(range(150))
    assert sum(samples for _, samples in rows) == 150 * 32
