import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsplit.files.whole import write_json
from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.recording.metrics import Record, summarise

ACCURACIES = [0.07, None, 0.31, 0.3, None, 0.52, 0.5]
"""Accuracies by round; None is a round without evaluation. Round i brings the load to 1,000 (i + 1)."""


def _records(accuracies: list[float | None]) -> list[Record]:
    return [
        Record(
            round=i,
            test_accuracy=accuracy,
            test_loss=None if accuracy is None else 1.0,
            train_loss=1.0,
            load=1000 * (i + 1),
            bytes={d: dict.fromkeys(KINDS, 0) for d in DIRECTIONS},
            seconds={"clients": 1.0, "server": 0.5, "evaluate": 0.25 * i},
        )
        for i, accuracy in enumerate(accuracies)
    ]


def _summary(accuracies: list[float | None], target: float | None = None) -> dict[str, Any]:
    return summarise(
        _records(accuracies),
        stopped_by="rounds",
        target_accuracy=target,
        parameters={"client": 3},
        frozen_bytes={"client": 8},
    )


def test_summary_has_the_final_and_best_accuracy_of_the_evaluations() -> None:
    summary = _summary([*ACCURACIES, None])
    assert (summary["final_accuracy"], summary["best_accuracy"]) == (0.5, 0.52)
    assert (summary["rounds_run"], summary["load"]) == (8, 8000)
    assert summary["seconds"] == pytest.approx(8 * 1.5 + 0.25 * 28)
    assert (summary["stopped_by"], summary["parameters"]) == ("rounds", {"client": 3})
    assert summary["frozen_bytes"] == {"client": 8}
    assert (summary["final_perplexity"], summary["bytes_to_perplexity"]) == (None, {})


def test_summary_has_perplexities_and_the_bytes_up_to_the_first_that_is_low_enough() -> None:
    found = [40.0, None, 25.0, 31.0, 24.0]
    records = [
        replace(record, test_perplexity=perplexity)
        for record, perplexity in zip(_records([None] * 5), found, strict=True)
    ]
    for target, load in ((30.0, {"30": 3000}), (24.5, {"24.5": 5000}), (20.0, {}), (None, {})):
        summary = summarise(
            records,
            stopped_by="rounds",
            target_accuracy=None,
            target_perplexity=target,
            parameters={},
            frozen_bytes={},
        )
        assert summary["bytes_to_perplexity"] == load
        assert (summary["final_perplexity"], summary["best_perplexity"]) == (24.0, 24.0)


def test_summary_has_bytes_and_seconds_of_the_first_evaluation_that_reached_an_accuracy() -> None:
    summary = _summary(ACCURACIES)
    first = {"0.05": 0, **dict.fromkeys(("0.1", "0.15", "0.2", "0.25", "0.3"), 2)}
    first |= dict.fromkeys(("0.35", "0.4", "0.45", "0.5"), 5)
    assert summary["bytes_to_accuracy"] == {a: 1000 * (i + 1) for a, i in first.items()}
    seconds = {a: sum(1.5 + 0.25 * j for j in range(i + 1)) for a, i in first.items()}
    assert summary["seconds_to_accuracy"] == pytest.approx(seconds)


def test_summary_has_simulated_seconds_and_cost_up_to_an_accuracy_and_null_without_them() -> None:
    records = [
        replace(record, simulated_seconds=2.5 * (record.round + 1), cost=0.125 * (record.round + 1))
        for record in _records(ACCURACIES)
    ]
    summary: dict[str, Any] = summarise(
        records, stopped_by="rounds", target_accuracy=0.511, parameters={}, frozen_bytes={}
    )
    assert (summary["simulated_seconds"], summary["cost"]) == (2.5 * 7, 0.125 * 7)
    rounds = {a: load / 1000 for a, load in summary["bytes_to_accuracy"].items()}
    assert summary["simulated_seconds_to_accuracy"] == {a: 2.5 * n for a, n in rounds.items()}
    assert rounds["0.511"] == 6
    without = _summary(ACCURACIES)
    assert [without[key] for key in ("simulated_seconds", "simulated_seconds_to_accuracy", "cost")] == [
        None
    ] * 3


@pytest.mark.parametrize(
    ("target", "expected"), [(0.511, 6000), (0.31, 3000), (0.07, 1000), (0.06999, 1000), (0.53, None)]
)
def test_summary_has_the_target_among_its_accuracies_where_it_was_reached(
    target: float, expected: int | None
) -> None:
    assert _summary(ACCURACIES, target)["bytes_to_accuracy"].get(f"{target:g}") == expected


def test_summary_of_a_round_without_evaluation_reaches_no_accuracy() -> None:
    assert _summary([None, 0.4], target=0.0)["bytes_to_accuracy"]["0"] == 2000
    summary = _summary([None, None])
    assert (summary["final_accuracy"], summary["best_accuracy"]) == (None, None)
    assert summary["bytes_to_accuracy"] == summary["seconds_to_accuracy"] == {}


def test_summary_of_a_perfect_run_reaches_every_milestone() -> None:
    reached = _summary([1.0])["bytes_to_accuracy"]
    assert sorted(map(float, reached)) == pytest.approx([0.05 * i for i in range(1, 20)] + [0.99])


def test_summary_names_the_versions_at_work() -> None:
    versions = _summary([0.5])["versions"]
    assert versions["torch"].split("+")[0] == str(torch.__version__).split("+", maxsplit=1)[0]
    assert set(versions) == {"python", "fedsplit", "torch", "torchvision", "numpy", "hydra-core", "zstandard"}


def test_results_json_is_written_whole_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("of an earlier run")
    summary = _summary(ACCURACIES, 0.31)
    write_json(path, summary)
    assert json.loads(path.read_text("utf-8")) == summary
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_results_that_cannot_be_written_leave_the_json_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text("utf-8")) == {"a": 1}
