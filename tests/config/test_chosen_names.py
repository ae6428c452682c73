"""A class of one's own is named as what it is, wherever the name of a choice is used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedsplit.config.choices import CONFIGS
from fedsplit.config.compose import choice_name, compose_config, composing, hydra_path
from fedsplit.config.overrides import spell_out
from fedsplit.errors import UserError
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.reports.runs import read_run
from fedsplit.reports.selection import fits, settings_of
from fedsplit.training.resume import resumed_config
from fedsplit.transport.grpc.protocol.plan import choices_and_settings
from tests.command_line import command_line
from tests.conftest import Configure

OWN_CLASSES = {
    "algorithm": "my_package.MyAlgorithm",
    "model": "my_package.nets.MyNet",
    "auxiliary": "my_package.MyAuxiliary",
    "estimator": "my_package.MyEstimator",
    "dataset": "my_package.MyData",
    "distribution": "my_package.MyDistribution",
    "optimizer": "my_package.MyOptimizer",
    "scheduler": "my_package.MySchedule",
    "engine": "my_package.MyEngine",
    "transport": "my_package.MyTransport",
    "network": "my_package.MyNetwork",
    "tracker": "my_package.MyTracker",
    "task": "my_package.MyTask",
    "codec@quant.smashed": "my_package.MyCodec",
    "codec@quant.weights.up": "my_package.MyOtherCodec",
    "optimizer@auxiliary.optimizer": "my_package.MyFit",
    "local_rule@algorithm.local_rule": "my_package.MyRule",
}


def choices_of(*overrides: str) -> dict[str, str | None]:
    with composing():
        config = compose_config([each for override in overrides for each in spell_out(override)])
        return dict(config.hydra.runtime.choices)


def test_classes_of_ones_own_are_recorded_by_their_names_in_every_group() -> None:
    overrides = [f"{key.partition('@')[2] or key}._target_={path}" for key, path in OWN_CLASSES.items()]
    found = choices_of(*overrides)
    assert {key: found[key] for key in OWN_CLASSES} == {
        key: path.rpartition(".")[2] for key, path in OWN_CLASSES.items()
    }
    others = {key: choice for key, choice in choices_of().items() if key not in OWN_CLASSES}
    assert {key: found[key] for key in others} == others


@pytest.mark.parametrize(
    "overrides",
    [
        ["distribution=extreme", "client_optimizer=sgd", "quant=int8", "auxiliary=derived"],
        ["algorithm=sl_multi_server", "distribution=noniid_dirichlet", "quant.smashed=thrifty_smashed"],
        [
            "experiment=paper_cifar10",
            "optimizer.lr=0.1",
            "model._target_=fedsplit.models.zoo.resnet.resnet18",
        ],
    ],
)
def test_choices_that_keep_their_class_keep_their_names(overrides: list[str]) -> None:
    found = choices_of(*overrides)
    for override in overrides:
        key, _, choice = override.partition("=")
        if "." not in key:
            assert found[key] == choice
    assert found["model"] == ("resnet18" if "experiment=paper_cifar10" in overrides else "digits_cnn")


def test_class_called_as_a_choice_goes_by_its_whole_path() -> None:
    assert choices_of("model._target_=my.resnet18")["model"] == "my.resnet18"


def test_class_where_nothing_was_chosen_is_named() -> None:
    assert choice_name({"server_optimizer": {"_target_": "my.Sgd"}}, "server_optimizer", None) == "Sgd"
    assert choice_name({"server_optimizer": None}, "server_optimizer", None) is None


def test_directories_of_runs_are_named_after_classes_of_ones_own() -> None:
    with composing():
        config = compose_config(
            [f"{key}._target_={OWN_CLASSES[key]}" for key in ("model", "dataset", "algorithm")]
        )
        directory = hydra_path(config, "hydra.run.dir")
    assert directory.parts[:-1] == ("saves", "MyAlgorithm", "MyNet", "MyData", "iid")


MODEL = """\
from torch import nn

def MyNet(*, num_classes, channels, image_size) -> nn.Module:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(nn.Conv2d(channels, 4, 3), *pooled, nn.Linear(16, num_classes))
"""


@pytest.mark.long  # that a model of the current directory runs is tried in every run, and so is each name
@pytest.mark.parametrize("sweeps", [False, True])
def test_run_of_a_model_of_ones_own_is_filed_recorded_and_selected_as_it(
    tmp_path: Path, sweeps: bool
) -> None:
    (tmp_path / "my_package.py").write_text(MODEL)
    own = ["model._target_=my_package.MyNet", "model.cut=1", "auxiliary=linear", "algorithm=fed_avg"]
    tiny = ["rounds=1", "num_clients=2", "dataset.max_train=40", "dataset.max_test=20", "progress=false"]
    swept = ["-m", "hydra.sweep.dir=sweep", "hydra.launcher.n_jobs=1"] * sweeps
    done = command_line(*swept, *own, *tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("sweep/0" if sweeps else "saves/fed_avg/MyNet/digits/iid/*")
    assert yaml.safe_load((path / "config.yaml").read_text())["choices"]["model"] == "MyNet"
    run = read_run(path)
    assert run.choices["model"] == "MyNet"
    assert fits(run, settings_of("where", {"model": "MyNet"}))
    assert not fits(run, settings_of("where", {"model": "digits_cnn"}))


def test_tracker_of_ones_own_given_anew_beside_resume_is_recorded_by_its_name(
    configured: Configure, tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.open(configured().plain(), [])
    directory.close()
    changes: dict[str, Any] = {"tracker._target_": "fedsplit.trackers.tracker.Tracker"}
    assert resumed_config(directory, changes).choices["tracker"] == "Tracker"


@pytest.mark.parametrize("place", ["model", "optimizer", "quant.smashed", "auxiliary.optimizer"])
def test_server_over_grpc_refuses_classes_of_ones_own_with_their_paths(
    configured: Configure, place: str
) -> None:
    target = "fedsplit.quant.codecs.sign.Sign" if place.startswith("quant") else "tests.conftest.Configure"
    config = configured().with_changes({f"{place}._target_": target})
    if place.startswith("quant"):
        config = configured(f"{place}._target_={target}")
    else:
        key = {"auxiliary.optimizer": "optimizer@auxiliary.optimizer"}.get(place, place)
        config = replace(config, choices={**config.choices, key: "Configure"})
    with pytest.raises(UserError, match="clients compose choices of their own") as told:
        choices_and_settings(config)
    assert (told.value.key, told.value.value) == (f"{place}._target_", target)


def test_every_choice_of_a_group_with_classes_is_told_from_a_class_of_ones_own() -> None:
    for group in OWN_CLASSES:
        folder = group.partition("@")[0]
        for path in sorted((CONFIGS / folder).glob("*.yaml")):
            config: dict[str, Any] = {folder: {"_target_": "my_package.Mine"}}
            assert choice_name(config, folder, path.stem) == "Mine"
