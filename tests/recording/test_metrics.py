import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.recording.metrics import PHASES, LocalAccuracy, Record, append_metrics, write_metrics
from fedsplit.recording.text_scores import SCORES, TextScores

COLUMNS = [
    "round",
    "test_accuracy",
    "test_loss",
    "test_perplexity",
    "train_loss",
    "load",
    *(f"bytes.{d}.{kind}" for d in ("up", "down") for kind in KINDS),
    "seconds.clients",
    "seconds.server",
    "seconds.evaluate",
    *(f"bits.{d}.{kind}" for d in ("up", "down") for kind in KINDS),
    *(f"sqnr.{d}.{kind}" for d in ("up", "down") for kind in KINDS),
    "retransmitted.up",
    "retransmitted.down",
    "broadcast_copies",
    "observed_bytes",
    "left_out",
    "local_accuracy.mean",
    "local_accuracy.std",
    "local_accuracy.worst",
    "gradient_error",
    "simulated_seconds",
    "cost",
    "evaluated_auxiliary",
    "client_memory_mb",
    "held_mb",
    *("bleu", "chrf", "rouge_l", "nist", "cider", "meteor"),
    "released_accuracy",
    *(f"epsilon.{what}" for what in ("smashed", "weights", "features", "labels")),
]


def _record(round: int, *, evaluated: bool = True) -> Record:
    sizes = {
        d: {kind: 100 * round + 10 * i + j for j, kind in enumerate(KINDS)} for i, d in enumerate(DIRECTIONS)
    }
    return Record(
        round=round,
        test_accuracy=1 / (round + 3) if evaluated else None,
        test_loss=0.1 + round if evaluated else None,
        train_loss=1 / 3 + round,
        load=2**40 + round,
        bytes=sizes,
        seconds={phase: round + 0.123456789 * (i + 1) for i, phase in enumerate(PHASES)},
        local_accuracy=LocalAccuracy(1 / (round + 3), 0.1 + round, 1 / 7) if evaluated else None,
        gradient_error=1 / (round + 7) if evaluated else None,
        simulated_seconds=1 / 7 + round if evaluated else None,
        cost=round / 3 if evaluated else None,
        text_scores=TextScores(bleu=1 / 3, chrf=2.0, rouge_l=0.1, nist=round, cider=0.0, meteor=None)
        if evaluated
        else None,
    )


RECORDS = [_record(0), _record(1, evaluated=False), _record(2)]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_metrics_file_has_a_row_for_each_round_under_a_header_with_every_column(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv", [])
    assert (tmp_path / "metrics.csv").read_text("utf-8").strip().split(",") == COLUMNS
    for number, record in enumerate(RECORDS):
        append_metrics(tmp_path / "metrics.csv", record)
        assert len(_rows(tmp_path / "metrics.csv")) == number + 1  # written at once
    assert [list(row) for row in _rows(tmp_path / "metrics.csv")] == [COLUMNS] * 3


def test_metrics_file_has_numbers_that_read_back_exactly(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv", RECORDS)
    for row, record in zip(_rows(tmp_path / "metrics.csv"), RECORDS, strict=True):
        assert int(row["round"]) == record.round
        assert float(row["train_loss"]) == record.train_loss
        assert int(row["load"]) == record.load
        scores = asdict(record.text_scores) if record.text_scores else {}
        assert [float(row[name]) if row[name] else None for name in SCORES] == [*map(scores.get, SCORES)]
        for name in ("test_accuracy", "test_loss", "simulated_seconds", "cost"):
            value = getattr(record, name)
            assert (float(row[name]) if row[name] else None) == value
        local = asdict(record.local_accuracy) if record.local_accuracy else {}
        measured = {f"local_accuracy.{name}": local.get(name) for name in ("mean", "std", "worst")}
        measured["gradient_error"] = record.gradient_error
        assert {name: float(row[name]) if row[name] else None for name in measured} == measured
        for direction in DIRECTIONS:
            assert [int(row[f"bytes.{direction}.{k}"]) for k in KINDS] == list(
                record.bytes[direction].values()
            )
        for phase in PHASES:
            assert float(row[f"seconds.{phase}"]) == pytest.approx(record.seconds[phase], abs=5e-7)


@pytest.mark.parametrize("kept", range(4))
def test_metrics_file_is_cut_to_the_rounds_there_are_and_goes_on(tmp_path: Path, kept: int) -> None:
    whole, path = tmp_path / "whole.csv", tmp_path / "metrics.csv"
    write_metrics(whole, RECORDS)
    write_metrics(path, [*RECORDS, _record(7)])
    write_metrics(path, RECORDS[:kept])
    assert [row["round"] for row in _rows(path)] == [str(i) for i in range(kept)]
    for record in RECORDS[kept:]:
        append_metrics(path, record)
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.csv", "whole.csv"]


@pytest.mark.parametrize("record", RECORDS)
def test_metrics_record_comes_back_from_its_state_as_json(record: Record) -> None:
    assert Record.from_state(json.loads(json.dumps(record.state()))) == record


def test_metrics_record_does_not_change_with_its_state() -> None:
    record = _record(1)
    state = record.state()
    state["bytes"]["up"]["labels"] = -1  # type: ignore[index]
    assert record == _record(1)


@pytest.mark.parametrize("record", RECORDS)
def test_metrics_record_state_holds_plain_values_under_the_names_of_its_fields(record: Record) -> None:
    state = record.state()
    assert list(state) == [
        "round",
        "test_accuracy",
        "test_loss",
        "train_loss",
        "load",
        "bytes",
        "seconds",
        "bits",
        "sqnr",
        "again",
        "left_out",
        "local_accuracy",
        "gradient_error",
        "simulated_seconds",
        "cost",
        "evaluated_auxiliary",
        "test_perplexity",
        "client_memory",
        "held",
        "copies",
        "observed",
        "text_scores",
        "released_accuracy",
        "epsilons",
    ]
    assert state["bytes"] == record.bytes
    assert state["bytes"] is not record.bytes
    assert Record.from_state(state) == record
