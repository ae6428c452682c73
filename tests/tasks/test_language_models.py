"""Tasks of runs on texts, as commands."""

import csv
import json
from pathlib import Path

import pytest

from tests.command_line import command_line
from tests.warm import import_language_models

SIZES = "{n_layer: 2, n_embd: 16, n_head: 2}"


@pytest.fixture
def texts(tmp_path: Path) -> tuple[str, ...]:
    """Overrides of a small run on texts of many lengths."""
    import_language_models()
    for split, count in (("train", 24), ("test", 8)):
        lines = [{"context": f"{i} and {i}", "completion": "is " + "x" * (1 + i % 7)} for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return (
        *("model=tiny_gpt2", f"model.sizes={SIZES}", "dataset=jsonl", "num_clients=2"),
        *(f"dataset.root={tmp_path}", "dataset.tokenizer=bytes", "dataset.context=24", "batch_size=4"),
        *("progress=false", "rounds=1", "threads=1", "optimizer.lr=0.02", "local_epochs=3"),
    )


def done(*arguments: str) -> str:
    told = command_line(*arguments)
    assert told.returncode == 0, told.stderr
    return told.stdout


def refused(*arguments: str) -> str:
    told = command_line(*arguments)
    assert told.returncode == 2, told.stdout + told.stderr
    (line,) = told.stderr.splitlines()
    return line


def test_tasks_of_a_run_on_texts_work_or_are_refused_in_a_line(
    texts: tuple[str, ...], tmp_path: Path
) -> None:
    trained, infer = tmp_path / "run", tmp_path / "infer"
    done(*texts, "algorithm=splitfed_v2", "network=lte", "quant=int8", f"hydra.run.dir={trained}")
    done(f"resume={trained}", "rounds=2")
    rows = list(csv.DictReader((trained / "metrics.csv").read_text("utf-8").splitlines()))
    assert [row["round"] for row in rows] == ["0", "1"]
    done(f"run={trained}", *texts, "algorithm=fed_avg", f"hydra.run.dir={tmp_path / 'on'}")

    done("task=infer", f"run={trained}", "task.requests=2", "task.warm_up=0", f"hydra.run.dir={infer}")
    (row,) = csv.DictReader((infer / "summary.csv").read_text("utf-8").splitlines())
    assert float(row["accuracy"]) > 0.1
    assert float(row["accuracy"]) == pytest.approx(float(rows[1]["test_accuracy"]), abs=1e-6)
    told = refused("task=infer", f"run={trained}", "transport=grpc", f"hydra.run.dir={tmp_path / 'over'}")
    assert "transport=grpc: must be local with texts" in told
    assert "must be a run on images" in refused("task=compare", f"run={trained}")
    assert "transformer.h.0" in done(*texts, "task=cuts")
    assert "int8" in done(*texts, "task=codecs")


@pytest.mark.long
def test_runs_on_texts_are_swept(texts: tuple[str, ...], tmp_path: Path) -> None:
    done("-m", *texts, "algorithm=fed_avg,splitfed_v1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    found = [json.loads(path.read_text()) for path in tmp_path.glob("sweep/*/results.json")]
    assert len(found) == 2
    assert len({each["final_perplexity"] for each in found}) == 1  # both algorithms take the same steps
