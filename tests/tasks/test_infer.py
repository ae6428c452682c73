"""Split inference as its users meet it: files, a table, and one clear line for every mistake."""

import csv
import json
import zlib
from pathlib import Path

import pytest
import torch
import yaml

from fedsplit.computing.model_state import compute_format
from fedsplit.config.run_config import RunConfig
from fedsplit.deployment import storage
from fedsplit.errors import UserError
from fedsplit.inference.codes import DeviceCodes
from fedsplit.inference.subject import Batches, subject_of
from fedsplit.tasks.infer import Infer
from fedsplit.tasks.train import Train
from tests.command_line import command_line
from tests.conftest import TINY, Configure

pytestmark = pytest.mark.usefixtures("warm_processes")
SHORT = ("task.requests=4", "task.warm_up=1", "task.calibration_batches=2", "batch_size=25")
PRECISIONS = ("fp32", "int8")


def infer(config: RunConfig, directory: Path) -> None:
    config.task.build(Infer).run(config, directory)


@pytest.fixture(scope="module")
def root() -> Path:
    return Path(__file__).resolve().parents[2]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_inference_requests_are_answered_as_by_the_same_halves_in_one_process(
    configured: Configure, tmp_path: Path
) -> None:
    config = configured(*TINY, "task=infer", f"precision=[{','.join(PRECISIONS)}]", *SHORT)
    infer(config, tmp_path / "done")
    subject = subject_of(config)
    batches, codes = Batches(subject.data, 25), DeviceCodes()
    found = rows(tmp_path / "done" / "requests.csv")
    assert len(found) == 2 * 5
    correct = dict.fromkeys(PRECISIONS, 0)
    for precision in PRECISIONS:
        deployed = storage.load(tmp_path / "done" / "deployed" / precision, subject.architecture.build)
        own = [row for row in found if row["precision"] == precision]
        assert [row["warm_up"] for row in own] == ["1", "0", "0", "0", "0"]
        for row, number in zip(own, (0, 0, 1, 2, 3), strict=True):
            x, y = batches[number]
            smashed = deployed.run_quantized(x)
            with torch.inference_mode():
                logits = subject.server.eval()(compute_format(smashed.decode()))
            assert row["logits_crc32"] == f"{zlib.crc32(logits.contiguous().numpy().tobytes()):08x}"
            assert int(row["bytes.up"]) == codes.largest(smashed.values.shape, smashed.values.dtype)
            assert int(row["bytes.down"]) == 25 * 10 * 4
            correct[precision] += 0 if row["warm_up"] == "1" else int((logits.argmax(1) == y).sum())
    summary = json.loads((tmp_path / "done" / "summary.json").read_text())
    by_name = {row["precision"]: row for row in summary["precisions"]}
    assert {name: row["accuracy"] for name, row in by_name.items()} == {
        n: c / 100 for n, c in correct.items()
    }
    assert by_name["int8"]["ratio.bytes.up"] <= 0.27
    assert by_name["int8"]["file_bytes"] == storage.size(tmp_path / "done" / "deployed" / "int8")
    results = json.loads((tmp_path / "done" / "results.json").read_text())
    assert results["final_accuracy"] == by_name["fp32"]["accuracy"]
    assert yaml.safe_load((tmp_path / "done" / "config.yaml").read_text())["precision"] == list(PRECISIONS)


def test_inference_of_a_trained_run_takes_its_model_and_settings(
    configured: Configure, tmp_path: Path
) -> None:
    Train().run(configured(*TINY, "rounds=1", "seed=3", "model.cut=conv1"), tmp_path / "run")
    config = configured("task=infer", f"run={tmp_path / 'run'}", "batch_size=60", "task.requests=1")
    infer(config, tmp_path / "done")
    trained = json.loads((tmp_path / "run" / "results.json").read_text())
    found = json.loads((tmp_path / "done" / "summary.json").read_text())
    assert found["precisions"][0]["accuracy"] == pytest.approx(
        trained["final_accuracy"]
    )  # all 60 test images
    assert (found["cut"], found["run"]) == ("conv1", str(tmp_path / "run"))
    (tmp_path / "run" / "model" / "server.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no trained model, model/server\.safetensors"):
        infer(config, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["run={tmp}/none"], "run={tmp}/none: must be the directory of a run: there is no such directory"),
        (["run={tmp}"], "run={tmp}: must be the directory of a run: it holds no config.yaml"),
        (
            ["precision=int8", "task.calibration_batches=99"],
            "task.calibration_batches=99: must be at most 4 with",
        ),
        (
            ["task.devices=2"],
            "task.devices=2: must be null without transport=grpc: it counts devices that dial in",
        ),
        (["model.cut=99"], "model.cut=99: "),
    ],
)
def test_inference_that_cannot_be_is_refused_before_anything_is_written(
    configured: Configure, tmp_path: Path, overrides: list[str], told: str
) -> None:
    asked = configured(*TINY, "task=infer", *(each.format(tmp=tmp_path) for each in overrides))
    with pytest.raises(UserError) as error:
        infer(asked, tmp_path / "done")
    assert str(error.value).startswith(told.format(tmp=tmp_path))
    assert not list(tmp_path.iterdir())


MISTAKES = [
    (["task=infer", "precision=int3"], "precision=int3: must be one of bf16, dynamic_int8, "),
    (["task=infer", "precision=fp32,tf32"], "precision=tf32: must be one of bf16, dynamic_int8, "),
    (
        ["task=infer", "precision=int8,int8"],
        "precision=['int8', 'int8']: must hold at least one, and each only once",
    ),
    (["task=infer", "precision=[]"], "precision=[]: must hold at least one, and each only once"),
    (["precision=fp32,bf16"], "precision=['fp32', 'bf16']: must be one of fp32, tf32, bf16"),
    (
        ["task=infer", "run={tmp}", "model=resnet18"],
        "model=resnet18: is that of the run; beside this task ",
    ),
    (["run={tmp}"], "run={tmp}: must be the directory of a run: it holds no config.yaml"),
    (["task=infer", "task.requests=0"], "task.requests=0: must be a whole number greater than 0"),
    (
        ["task=infer", "task.backend=tflite"],
        "task.backend=tflite: must be one of onnx, openvino, pt2e, pt2e_compiled",
    ),
    (["-m", "task=infer", "run={tmp}", "seed=1,2"], "seed=1: is that of the run; beside this task "),
]


@pytest.mark.parametrize(("arguments", "told"), MISTAKES, ids=[told[:40] for _, told in MISTAKES])
def test_inference_asked_for_wrongly_is_one_line_and_leaves_nothing(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    done = command_line(*(each.format(tmp=tmp_path) for each in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {told.format(tmp=tmp_path)}")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.long  # in every run a sweep of trainings is gone on with
def test_sweep_over_precisions_infers_each_in_a_job_and_none_again(tmp_path: Path) -> None:
    asked = [
        "-m",
        "task=infer",
        "precision=fp32,fp16",
        *TINY,
        *SHORT,
        "task.requests=1",
        "hydra.launcher.n_jobs=1",
    ]
    done = command_line(*asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / done.stdout.splitlines()[-1]
    for number, precision in enumerate(("fp32", "fp16")):
        results = json.loads((directory / str(number) / "results.json").read_text())
        assert list(results["precisions"]) == [precision]
    assert "job 1 (precision=fp16) done: accuracy " in done.stdout
    again = command_line(*asked, "sweep.skip_finished=true", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "starts" not in again.stdout
    resumed = command_line(f"resume={directory / '0'}", cwd=tmp_path)
    assert resumed.returncode == 2
    assert "was left behind by task=infer" in resumed.stderr
