"""Names of files are bytes, and stay these bytes wherever they are written."""

import csv
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedsplit.data.images import ImageDataset, Images
from fedsplit.errors import UserError
from fedsplit.files.whole import write_csv, write_json
from fedsplit.recording.classification import ConfusionMatrix
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.reports.figures.confusion import read_confusion
from fedsplit.reports.runs import read_run
from tests.reports.stored import make_run

NAME = os.fsdecode(b"\xff\xe9 caf\xc3\xa9")


def test_csv_and_json_hold_names_as_they_are(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["class"], [[NAME]])
    assert os.fsencode(NAME) in (tmp_path / "a.csv").read_bytes()
    with (tmp_path / "a.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert list(csv.reader(file)) == [["class"], [NAME]]
    write_json(tmp_path / "a.json", {NAME: 1})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {NAME: 1}


def test_configuration_and_log_hold_names_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("fedsplit"), "propagate", False)  # pytest-xdist sends texts only
    config = {"seed": 0, "dataset": {"root": NAME}, "choices": {"algorithm": "fed_avg"}}
    directory = RunDirectory(tmp_path / "run")
    directory.open(config, [])
    logging.getLogger("fedsplit").warning("%s", NAME)
    directory.close()
    assert RunDirectory.existing(tmp_path / "run").config() == config
    assert os.fsencode(NAME) in (tmp_path / "run" / "run.log").read_bytes()


def test_run_with_such_a_name_in_its_configuration_is_read(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    config = yaml.safe_load((path / "config.yaml").read_text("utf-8")) | {"dataset": {"root": NAME}}
    (path / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    assert read_run(path).settings["dataset.root"] == NAME


def test_figures_are_of_escapes(tmp_path: Path) -> None:
    ConfusionMatrix.of(np.eye(2), np.arange(2), ("a", NAME)).write(tmp_path / "confusion.csv")
    assert read_confusion(tmp_path)[0] == ("a", "\\xff\\xe9 café")


def test_class_that_is_no_text_cannot_be_told_to_clients() -> None:
    import torch  # noqa: PLC0415

    from fedsplit.transport.grpc.protocol import federation_pb2 as pb  # noqa: PLC0415
    from fedsplit.transport.grpc.protocol.plan import tell_of_data  # noqa: PLC0415

    images = Images(torch.zeros(1, 2, 2, 1, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    dataset = ImageDataset.of(images, images, 1, (NAME,))
    with pytest.raises(UserError, match="is no UTF-8 and cannot be sent to clients"):
        tell_of_data(pb.Plan(), dataset)
