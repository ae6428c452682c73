import csv
import math
from pathlib import Path

import pytest

from fedsplit.recording.metrics import LocalAccuracies


def test_local_accuracy_of_each_client_is_that_of_its_own_samples() -> None:
    correct = [True, False, True, True, False, False, True]
    found = LocalAccuracies.of(correct, [3, 0, 1, 2, 1])
    assert found == LocalAccuracies((3, 0, 1, 2, 1), (2 / 3, None, 1.0, 0.0, 1.0))


def test_local_accuracy_summary_counts_each_client_once_whatever_it_holds() -> None:
    summary = LocalAccuracies((100, 1, 0, 7), (0.9, 0.5, None, 0.1)).summary
    assert summary.mean == pytest.approx(0.5)
    assert summary.std == pytest.approx(math.sqrt((0.4**2 + 0 + 0.4**2) / 3))
    assert summary.worst == 0.1


def test_local_accuracy_of_a_single_client_has_no_spread() -> None:
    assert LocalAccuracies((4,), (0.75,)).summary.std == 0.0


def test_local_accuracy_file_reads_back_exactly(tmp_path: Path) -> None:
    accuracies = LocalAccuracies((3, 0, 7), (1 / 3, None, 2 / 7))
    accuracies.write(tmp_path / "local_accuracy.csv")
    with (tmp_path / "local_accuracy.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [["client", "samples", "accuracy"]] * 3
    assert [int(row["client"]) for row in rows] == [0, 1, 2]
    assert [int(row["samples"]) for row in rows] == [3, 0, 7]
    assert [row["accuracy"] for row in rows] == [repr(1 / 3), "", repr(2 / 7)]
    assert [path.name for path in tmp_path.iterdir()] == ["local_accuracy.csv"]
