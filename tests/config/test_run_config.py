import json
from dataclasses import FrozenInstanceError, replace

import pytest

from fedsplit.config.component import Component, component_of
from fedsplit.config.compose import choices_of, compose_config, composing, plain
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.optim.optimizers import Optimizer, Sgd
from fedsplit.parties.sequential import Sequential
from tests.conftest import Configure

COMMANDS = [
    [],
    ["quant=thrifty", "client_optimizer=sgd", "auxiliary=derived", "auxiliary.width=0.5"],
    ["task=infer", "precision=[fp32,int8]"],
    ["task=codecs", "transport=grpc", "dataset=image_folder", "dataset.root=here"],
    ["model=resnet20", "model.cut=2", "qat=true", "distribution=dirichlet", "network=lte"],
    ["experiment=paper_cifar10", "~sweep", "scheduler=multistep", "scheduler.milestones=[1,2]"],
]


@pytest.mark.parametrize("overrides", COMMANDS, ids=" ".join)
def test_configuration_is_written_as_it_was_composed_key_by_key_in_the_same_order(
    overrides: list[str],
) -> None:
    with composing():
        config = compose_config(overrides)
        values, choices = plain(config), choices_of(config)
    written = RunConfig.parse(values, choices).plain()
    assert json.dumps(written) == json.dumps({**values, "choices": choices})
    assert RunConfig.parse(written) == RunConfig.parse(values, choices)


def test_every_key_that_is_changed_is_written_changed_and_where_it_was(configured: Configure) -> None:
    config = configured("client_optimizer=sgd")
    changes = {
        "seed": 3,
        "cohort_size": 2,
        "auxiliary.align_epochs": 7,
        "auxiliary.optimizer.lr": 0.5,
        "model.cut": "relu1",
        "quant.weights.up.zstd": 3,
        "client.stateless": True,
        "client_optimizer.lr": 0.25,
        "dataset.max_train": 20,
    }
    before, after = config.plain(), config.with_changes(changes).plain()
    assert list(before) == list(after)
    for key, value in changes.items():
        node, was = after, before
        *path, name = key.split(".")
        for part in path:
            node, was = node[part], was[part]
        assert (node[name], list(node)) == (value, list(was))
        node[name] = was[name]
    assert after == before
    with pytest.raises(UserError, match="seed=-1: must be a whole number, 0 or greater"):
        config.with_changes({"seed": -1})


def test_configuration_is_not_changed_by_what_is_made_of_it(configured: Configure) -> None:
    config = configured()
    values = config.plain()
    values["dataset"]["max_train"] = 7
    values["choices"]["model"] = "other"
    assert config.plain() == configured().plain() != values
    with pytest.raises(FrozenInstanceError):
        config.training.seed = 1  # type: ignore[misc]


def test_what_is_decided_later_is_another_configuration(configured: Configure) -> None:
    config = configured("engine=auto")
    decided = replace(config, engine=component_of("engine", Sequential))
    assert decided.plain()["engine"] == {"_target_": "fedsplit.parties.sequential.Sequential"}
    assert config.plain()["engine"]["_target_"].endswith(".Auto")
    assert {k: v for k, v in decided.plain().items() if k != "engine"} == {
        k: v for k, v in config.plain().items() if k != "engine"
    }


def test_keys_of_another_configuration_come_with_its_choices(configured: Configure) -> None:
    config = configured("model=resnet20", "seed=1")
    other = configured("task=infer", "precision=[fp32,w4]", "batch_size=3", "network=lte", "seed=2")
    merged = config.with_keys_of(other, ("task", "precision", "batch_size", "network"))
    assert merged.client_precisions == ("fp32", "w4")
    assert (merged.training.batch_size, merged.training.seed) == (3, 1)
    assert (merged.choice("task"), merged.choice("model"), merged.choice("network")) == (
        *("infer", "resnet20"),
        "lte",
    )
    assert (merged.network, merged.model) == (other.network, config.model)


def test_component_builds_what_it_is_the_component_of() -> None:
    arguments = {"lr": 0.5, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
    component = component_of("optimizer", Sgd, **arguments)
    assert component == Component.of("optimizer", component.plain())
    assert component.build(Optimizer) == Sgd(**arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"optimizer\._target_=.*must make a Sequential"):
        component.build(Sequential)
    with pytest.raises(UserError, match=r"optimizer\.lr=0\.5: no such key: it is given by the run itself"):
        component.build(Optimizer, lr=1.0)
