import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsplit.data.partition import Draws
from fedsplit.data.shards import ClientShards
from fedsplit.errors import UserError
from fedsplit.recording import class_counts
from fedsplit.recording.class_counts import CLASS_COUNTS, ClassCounts, read_class_counts
from fedsplit.recording.run_directory import RunDirectory
from tests.conftest import Build

LABELS = torch.tensor([2, 0, 0, 1, 2, 2, 0])
SHARDS = ClientShards([np.array([0, 1, 4]), np.array([3]), np.array([2, 5, 6])])
ROWS = [[0, 0, 1], [0, 2, 2], [1, 1, 1], [2, 0, 2], [2, 2, 1]]


@pytest.mark.parametrize("names", [(), ("ant", "bee, or wasp", 'the "cat"')])
def test_class_counts_are_written_and_read_back(tmp_path: Path, names: tuple[str, ...]) -> None:
    counts = ClassCounts.of(SHARDS, LABELS, names)
    assert counts.table.tolist() == ROWS
    assert counts.clients == 3
    assert counts.classes == (names or ("0", "1", "2"))
    counts.write(tmp_path / CLASS_COUNTS)
    assert read_class_counts(tmp_path) == counts
    assert [path.name for path in tmp_path.iterdir()] == [CLASS_COUNTS]


def test_class_counts_file_has_a_row_for_each_class_that_a_client_has(tmp_path: Path) -> None:
    ClassCounts.of(SHARDS, LABELS, ("a", "b", "c")).write(tmp_path / CLASS_COUNTS)
    lines = (tmp_path / CLASS_COUNTS).read_text().splitlines()
    assert lines == ["client,label,class,samples", "0,0,a,1", "0,2,c,2", "1,1,b,1", "2,0,a,2", "2,2,c,1"]


@pytest.mark.parametrize("at_a_time", [1, 7, 1 << 20])
def test_class_counts_of_many_clients_are_those_of_each_of_them(
    at_a_time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_AT_A_TIME", "_WRITTEN_AT_A_TIME"):
        monkeypatch.setattr(class_counts, name, at_a_time)
    shards = ClientShards(Draws(len(LABELS), num_clients=50, each=4, seed=3))
    labels = LABELS * 5 - 1  # numbers that do not follow each other
    counts = ClassCounts.of(shards, labels, ())
    one_by_one = [
        [client, label, int((labels[shard] == label).sum())]
        for client, shard in enumerate(shards)
        for label in sorted(set(labels[shard].tolist()))
    ]
    assert counts.table.tolist() == one_by_one
    assert (counts.clients, counts.samples) == (50, 200)
    counts.write(tmp_path / CLASS_COUNTS)
    lines = (tmp_path / CLASS_COUNTS).read_text().splitlines()
    assert lines[1:] == [f"{client},{label},,{samples}" for client, label, samples in one_by_one]


def test_sample_of_class_counts_is_of_clients_evenly_spaced_and_numbered_anew() -> None:
    counts = ClassCounts(
        np.array([[client, label, 10 * client + label] for client in range(9) for label in (0, 3)])
    )
    assert counts.sample(9) == counts
    sampled = counts.sample(4)
    assert sampled.table.tolist() == [
        [place, label, 10 * client + label] for place, client in enumerate((0, 2, 4, 6)) for label in (0, 3)
    ]


def test_class_counts_keep_the_place_of_a_class_that_nobody_has(tmp_path: Path) -> None:
    (tmp_path / CLASS_COUNTS).write_text("client,label,class,samples\n0,0,ant,4\n1,2,cat,1\n")
    assert read_class_counts(tmp_path).classes == ("ant", "1", "cat")


@pytest.mark.parametrize(
    "content",
    [
        *("", "client,label,class,samples\n", "client,label\n0,1\n", "client,label,class,samples\n0,a,,1\n"),
        *("client,label,class,samples\n0\n", "client,label,class,samples\n0,-1,,3\n"),
    ],
)
def test_damaged_file_of_class_counts_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / CLASS_COUNTS).write_text(content)
    with pytest.raises(UserError, match=r"class_counts\.csv must not be damaged") as caught:
        read_class_counts(tmp_path)
    assert (caught.value.key, caught.value.value) == ("run", tmp_path)


def test_class_counts_of_a_run_without_the_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must hold class_counts\.csv; runs with distribution=own do not"):
        read_class_counts(tmp_path)


def test_class_counts_that_a_run_leaves_are_those_of_its_division(tiny: Build, tmp_path: Path) -> None:
    run = tiny("rounds=1", "distribution=pathological", "algorithm=fed_avg")
    run.run(RunDirectory(tmp_path))
    with (tmp_path / CLASS_COUNTS).open() as file:
        written = {
            (int(row["client"]), int(row["label"])): int(row["samples"]) for row in csv.DictReader(file)
        }
    labels = run.parts.data.dataset.train.labels
    for client, shard in enumerate(run.parts.data.shards):
        for label, samples in enumerate(torch.bincount(labels[shard], minlength=10).tolist()):
            assert written.get((client, label), 0) == samples
    assert sum(written.values()) == len(labels)
