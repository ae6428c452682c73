"""Damaged files of a run are told in one line by whatever reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from fedsplit.building.trained import TrainedRun
from fedsplit.building.trained_start import TrainedStart
from fedsplit.errors import UserError
from fedsplit.inference.subject import subject_of
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.reports.runs import read_run
from fedsplit.training.resume import resumed_config
from fedsplit.transport.grpc.server.transport import run_id
from tests.conftest import TINY, Configure
from tests.reports.stored import make_run


@pytest.mark.parametrize(
    "choices", [None, [], ["task"], "train", 3, {"task": ["train"]}, {"task": {}}, {1: "train"}, {"model": 1}]
)
def test_choices_of_a_run_that_are_none_are_one_line(tmp_path: Path, choices: Any) -> None:
    path = make_run(tmp_path / "run")
    config = yaml.safe_load((path / "config.yaml").read_text("utf-8"))
    if isinstance(choices, dict):
        choices = config["choices"] | choices
    (path / "config.yaml").write_text(yaml.safe_dump(config | {"choices": choices}), "utf-8")
    readers: list[Callable[[], object]] = [
        lambda: resumed_config(RunDirectory.existing(path), {}),
        lambda: TrainedRun(path, device="cpu", threads=1),
        lambda: TrainedStart.of(str(path)),
        lambda: read_run(path),
    ]
    for read in readers:
        with pytest.raises(UserError, match=r"config.yaml (is not|must be) that of a run") as caught:
            read()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("group", ["task", "tracker", "transport"])
def test_run_whose_configuration_names_no_choice_of_a_group_is_refused(
    tmp_path: Path, configured: Configure, group: str
) -> None:
    config = configured(*TINY)
    choices = {name: choice for name, choice in config.choices.items() if name != group}
    RunDirectory(tmp_path).open({**config.plain(), "choices": choices}, [])
    with pytest.raises(UserError, match=f"choices must name the {group}"):
        resumed_config(RunDirectory.existing(tmp_path), {})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("half", ["client", "server"])
def test_models_that_diverged_are_taken_by_no_task(
    tmp_path: Path, configured: Configure, half: str, value: float
) -> None:
    directory = RunDirectory(tmp_path / "run")
    config = configured(*TINY)
    directory.open(config.plain(), [])
    directory.close()
    weights = {"conv.weight": torch.ones(3), "batches": torch.ones(1, dtype=torch.int64)}
    directory.save_model({"client": weights, "server": weights})
    save_file(
        weights | {"conv.weight": torch.tensor([1.0, value])}, tmp_path / f"run/model/{half}.safetensors"
    )
    readers: list[Callable[[], object]] = [
        lambda: TrainedRun(directory.path, device="cpu", threads=1),
        lambda: TrainedStart.of(str(directory.path)),
        lambda: subject_of(config.with_changes({"run": str(directory.path)})),
    ]
    told = (
        f"run={directory.path}: model/{half}.safetensors holds weights that are not finite: the run diverged"
    )
    for read in readers:
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value) == told


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"run": 3}',
        b'{"run": null}',
        b'{"run": "zz"}',
        b'{"run": "ab"}',
        b"\xff",
    ],
)
def test_damaged_name_of_a_run_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "network.json").write_bytes(content)
    with pytest.raises(UserError, match=r"its network\.json is damaged") as caught:
        run_id(tmp_path)
    assert (caught.value.key, caught.value.value) == ("resume", tmp_path)


def test_name_of_a_run_is_drawn_once(tmp_path: Path) -> None:
    assert (
        run_id(tmp_path)
        == run_id(tmp_path)
        == bytes.fromhex(json.loads((tmp_path / "network.json").read_text())["run"])
    )
