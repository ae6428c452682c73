"""The command, as a user gives it, and what it refuses."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from fedsplit.building.trained import TrainedRun
from fedsplit.cli.run import main
from fedsplit.deployment import storage
from fedsplit.machine.extras import install_command
from fedsplit.tasks.compare.comparison import evaluate_precisions
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("warm_processes")
ASKED = ("task.calibration_batches=2", "task.calibration_batch_size=16", "task.repeats=2")


def run(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    monkeypatch.setattr("sys.argv", ["main.py", *overrides])
    return main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tiny rounds."""
    path = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        tiny = [each for each in TINY if not each.startswith("rounds=")]
        assert run(patch, *tiny, "rounds=2", "algorithm=fed_avg", f"hydra.run.dir={path}") == 0
    return path


def test_comparison_writes_what_was_evaluated_and_measured_and_replaces_an_older_one(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "compare").mkdir()
    (trained / "compare" / "old").touch()
    asked = "task.precisions=[w4,static_int8,qat_int8,dynamic_int8_torch]"
    assert run(monkeypatch, "task=compare", f"run={trained}", asked, "task.batch_sizes=[3]", *ASKED) == 0
    printed = capsys.readouterr().out
    assert "qat_int8 is left out: needs a run that was trained with qat=true" in printed
    assert "dynamic_int8_torch is left out" in printed
    assert printed.splitlines()[-1].endswith("compare")
    folder = trained / "compare"
    assert not (folder / "old").exists()
    assert not (trained / "compare.partial").exists()
    assert (folder / "comparison.png").stat().st_size > 1000
    told = json.loads((folder / "comparison.json").read_text())
    with (folder / "comparison.csv").open() as file:
        rows = {row["precision"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["fp32", "w4", "static_int8"]
    assert set(told["left_out"]) == {"qat_int8", "dynamic_int8_torch"}
    assert told["calibration_samples"] == 32
    final = json.loads((trained / "results.json").read_text())["final_accuracy"]
    assert float(rows["fp32"]["test_accuracy"]) == pytest.approx(final)
    smashed = 16 * 4 * 4 * 1000
    assert [int(rows[each]["smashed_bytes_per_1000"]) / smashed for each in rows] == [4, 4, 1]
    for name, row in rows.items():
        assert int(row["file_bytes"]) == storage.size(folder / name / "model")
        ratio = int(rows["fp32"]["file_bytes"]) / int(row["file_bytes"])
        assert float(row["compression"]) == pytest.approx(ratio)
        assert float(row["latency_s.3.p95"]) >= float(row["latency_s.3.median"]) > 0
        assert int(row["peak_memory_bytes"]) > int(row["model_memory_bytes"]) > 0
        with (folder / name / "confusion.csv").open() as file:
            cells = [[int(cell) for cell in line[1:]] for line in list(csv.reader(file))[1:]]
        assert sum(map(sum, cells)) == 60
        assert sum(cells[i][i] for i in range(10)) / 60 == pytest.approx(float(row["test_accuracy"]))
    drop = float(rows["fp32"]["test_accuracy"]) - float(rows["w4"]["test_accuracy"])
    assert float(rows["w4"]["accuracy_drop"]) == pytest.approx(drop)


@pytest.mark.long  # each way to deploy such a model is in every run
def test_comparison_deploys_a_model_trained_for_int8_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tiny = tmp_path / "run", [each for each in TINY if not each.startswith("rounds=")]
    overrides = ["rounds=2", "algorithm=splitfed_v2", "qat=true", "dataset.max_test=250"]
    assert run(monkeypatch, *tiny, *overrides, f"hydra.run.dir={path}") == 0
    asked = ["task.precisions=[static_int8,qat_int8]", "task.batch_sizes=[1]"]
    assert run(monkeypatch, "task=compare", f"run={path}", *asked, *ASKED) == 0
    with (path / "compare" / "comparison.csv").open() as file:
        rows = {row["precision"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["fp32", "static_int8", "qat_int8"]
    final = json.loads((path / "results.json").read_text())["final_accuracy"]
    assert float(rows["qat_int8"]["test_accuracy"]) == pytest.approx(final, abs=0.01)
    assert int(rows["qat_int8"]["smashed_bytes_per_1000"]) == int(
        rows["static_int8"]["smashed_bytes_per_1000"]
    )
    ranges = [
        name for name in load_file(path / "model" / "client.safetensors") if "activation_ranges" in name
    ]
    plain = load_file(path / "compare" / "fp32" / "model" / "client.safetensors")
    assert ranges
    assert not any("activation_ranges" in name for name in plain)


def test_comparison_without_an_extra_goes_on_and_says_what_to_install(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [each for each in sys.modules if each.startswith("fedsplit.deployment.backends.onnx_")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    copied = shutil.copytree(trained, tmp_path / "run")
    assert run(monkeypatch, "task=compare", f"run={copied}", "task.precisions=[static_int8]", *ASKED) == 0
    printed = capsys.readouterr().out
    assert f"static_int8 is left out: needs onnxruntime: {install_command('onnx')}\n" in printed
    told = json.loads((copied / "compare" / "comparison.json").read_text())
    assert set(told["left_out"]) == {"static_int8"}


def test_precisions_without_ranges_draw_no_samples_to_take_them_from(trained: Path, tmp_path: Path) -> None:
    again = TrainedRun(trained, device="cpu", threads=1)
    evaluated, left_out = evaluate_precisions(
        ["fp32", "w4"], again, lambda: pytest.fail("samples are drawn"), tmp_path, Console()
    )
    assert list(evaluated) == ["fp32", "w4"]
    assert left_out == {}


def test_trained_run_read_from_disk_has_the_models_and_the_accuracy_of_its_training(trained: Path) -> None:
    again = TrainedRun(trained, device="cpu", threads=1)
    saved = load_file(trained / "model" / "client.safetensors")
    assert {name: t.shape for name, t in again.architecture.build().state_dict().items()} == {
        name: t.shape for name, t in saved.items()
    }
    logits = torch.cat([outputs for outputs, _ in again.test_outputs(again.client)])
    accuracy = (logits.argmax(1) == again.labels).double().mean()
    assert float(accuracy) == pytest.approx(
        json.loads((trained / "results.json").read_text())["final_accuracy"]
    )


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["task=compare"], "run=null: must be the directory of a trained run"),
        (
            ["task=cuts", "run={run}"],
            "run={run}: must be null: only task=attack or compare or generate or infer or train",
        ),
        (
            ["task=compare", "run={run}", "rounds=3"],
            "rounds=3: is that of the run; beside this task ",
        ),
        (["task=compare", "run={run}/model"], "must be the directory of a run: it holds no config.yaml"),
        (["task=compare", "run={run}/none"], "no such directory"),
        (["task=compare", "run={run}", "task.precisions=[int3]"], "task.precisions=['int3']: must be a list"),
        (["task=compare", "run={run}", "task.batch_sizes=[]"], "task.batch_sizes=[]: must hold at least one"),
        (
            ["task=compare", "run={run}", "task.calibration_batches=99"],
            "task.calibration_batches=99: must be at most 4",
        ),
    ],
)
def test_comparison_asked_for_wrongly_ends_in_one_line_and_leaves_the_run_as_it_was(
    overrides: list[str],
    told: str,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(trained.rglob("*"))
    assert run(monkeypatch, *(each.format(run=trained) for each in overrides)) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert told.format(run=trained) in error
    assert sorted(trained.rglob("*")) == before


def test_comparison_of_a_run_without_its_model_or_with_another_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = shutil.copytree(trained, tmp_path / "run")
    path = copied / "model" / "client.safetensors"
    weights = load_file(path)
    for content, told in (
        (path.unlink, "holds no trained model, model/client.safetensors"),
        (lambda: path.write_bytes(b"0123456789"), "model/client.safetensors is damaged"),
        (
            lambda: save_file({"other": weights["conv1.bias"]}, path),
            "is not of the model that config.yaml names",
        ),
    ):
        content()
        assert run(monkeypatch, "task=compare", f"run={copied}") == 2
        assert told in capsys.readouterr().err
