"""Every YAML file composes, builds and runs two tiny rounds; they are counted, so that none is left out."""

import math
from pathlib import Path

import pytest
import torch

from fedsplit.composition import CONFIGS
from fedsplit.config import CODECS
from tests.conftest import Build, Configure

CHOICES = sorted(path.relative_to(CONFIGS).with_suffix("") for path in CONFIGS.glob("*/*.yaml"))
NEEDS_FILES = {"cifar10", "cifar100", "mnist", "fashion_mnist"}
"""Datasets whose file formats are read in `tests/data`; here only their configuration is."""


def test_the_choices_are_all_there() -> None:
    counted: dict[str, int] = {}
    for choice in CHOICES:
        counted[choice.parts[0]] = counted.get(choice.parts[0], 0) + 1
    assert counted == {
        "algorithm": 7,
        "auxiliary": 4,
        "client_optimizer": 3,
        "codec": 19,
        "dataset": 6,
        "distribution": 5,
        "engine": 3,
        "transport": 2,
        "estimator": 3,
        "experiment": 1,
        "model": 24,
        "optimizer": 3,
        "quant": 7,
        "scheduler": 4,
        "task": 5,
        "server_optimizer": 3,
    }


ELSEWHERE = {"model"}
"""Groups whose choices are run in `tests/models/test_model_choices.py`."""


@pytest.mark.parametrize("choice", [each for each in CHOICES if each.parts[0] not in ELSEWHERE], ids=str)
def test_two_tiny_rounds_of(choice: Path, tiny: Build, cifar_sized: Build, configured: Configure) -> None:
    group, name = choice.parts
    build, overrides = tiny, [f"{group}={name}"]
    if group == "dataset" and name in NEEDS_FILES:
        config = configured(*overrides)
        assert config["dataset"]["name"] == name
        overrides = []
    if group == "experiment" or (group, name) in (("model", "resnet18"), ("dataset", "image_folder")):
        build = cifar_sized
    if (group, name) == ("distribution", "shards"):
        overrides.append("distribution.classes_per_client=4")
    if group == "codec":
        overrides = [f"codec@{path}={name}" for path in CODECS]
    if group == "model":
        overrides.append("batch_size=20")
    run = build(*overrides)
    before = run.algorithm.full_weights()
    for t in range(2):
        record = run.run_round(t)
        assert math.isfinite(record.train_loss)
    after = run.algorithm.full_weights()
    moved = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    assert len(moved) == len(after)


def test_the_papers_setting_is_the_papers(configured: Configure) -> None:
    config = configured("experiment=paper_cifar10")
    assert config["choices"]["model"] == "resnet18"
    assert config["choices"]["dataset"] == "cifar10"
    expected = {"rounds": 200, "num_clients": 10, "batch_size": 256, "local_epochs": 1}
    assert {key: config[key] for key in expected} == expected
    assert config["algorithm"] | {"server_update_interval": 5, "align_interval": 10} == config["algorithm"]
    for optimizer, decay in ((config["optimizer"], 1e-4), (config["auxiliary"]["optimizer"], 0.0)):
        assert optimizer["_target_"].endswith("Adam")
        assert (optimizer["lr"], optimizer["weight_decay"]) == (1e-3, decay)
    alignment = {
        "align_epochs": 100,
        "align_tolerance": 0,
        "align_batch_size": 1000,
        "max_dataset_size": 1000,
    }
    assert config["auxiliary"] | alignment == config["auxiliary"]
    assert config["scheduler"]["_target_"].endswith("Constant")
    assert (config["client_optimizer"], config["server_optimizer"]) == (None, None)
