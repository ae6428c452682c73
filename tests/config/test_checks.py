import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fedsplit.config import compose as composition
from fedsplit.config.checks import SETTINGS
from fedsplit.config.overrides import spell_out
from fedsplit.config.run_config import RunConfig
from fedsplit.config.settings import GROUPS, OPTIONAL_GROUPS
from fedsplit.errors import UserError
from tests.conftest import Configure

CONFIGS = Path(__file__).resolve().parents[2] / "hydra_config"
REMOVED = object()


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(compose("config"), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _with_value(config: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    config = copy.deepcopy(config)
    *folders, name = path.split("/")
    node = config
    for folder in folders:
        node = node[folder]
    if value is REMOVED:
        del node[name]
    else:
        node[name] = value
    return config


def test_default_configuration_passes_the_check_and_holds_every_setting(composed: dict[str, Any]) -> None:
    RunConfig.parse(composed)
    assert set(SETTINGS) | set(GROUPS) <= set(composed)


def test_configuration_check_changes_nothing(composed: dict[str, Any]) -> None:
    before = copy.deepcopy(composed)
    RunConfig.parse(composed)
    assert composed == before


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("seed", -1, "seed"),
        ("threads", 0, "threads"),
        ("threads", 1025, "threads"),
        ("threads", 2.0, "threads"),
        ("threads", None, "threads"),
        ("rounds", 2.5, "rounds"),
        ("rounds", REMOVED, "rounds"),
        ("cohort_size", REMOVED, "cohort_size"),
        ("run", REMOVED, "run"),
        ("client/id", REMOVED, "client.id"),
        ("device", "gpu", "device"),
        ("device", "cuda:", "device"),
        ("device", "cuda:1x", "device"),
        ("device", "cuda:00", "device"),
        ("device", "cuda:01", "device"),
        ("device", "cuda:100", "device"),
        ("device", "cuda:-1", "device"),
        ("device", "cuda:0\n", "device"),
        ("device", "cpu:0", "device"),
        ("device", None, "device"),
        ("comm_threshold_mb", 0, "comm_threshold_mb"),
        ("comm_threshold_mb", 3.5e38, "comm_threshold_mb"),
        ("comm_threshold_mb", float("inf"), "comm_threshold_mb"),
        ("time_limit_s", float("inf"), "time_limit_s"),
        ("time_limit_s", 10**400, "time_limit_s"),
        ("choices", {"algorithm": "fsl_sage"}, "choices"),
        ("target_accuracy", 90, "target_accuracy"),
        ("progress", "yes", "progress"),
        ("cohort_size", 0, "cohort_size"),
        ("cohort_size", 11, "cohort_size"),
        ("num_client", 3, "num_client"),
        ("algorithm", None, "algorithm"),
        ("algorithm", REMOVED, "algorithm"),
        ("optimizer/lr", 0, "optimizer.lr"),
        ("optimizer/lr", "1e-3", "optimizer.lr"),
        ("optimizer/lr", 1e39, "optimizer.lr"),
        ("optimizer/lr", float("inf"), "optimizer.lr"),
        ("optimizer/weight_decay", float("inf"), "optimizer.weight_decay"),
        ("optimizer/betas", [0.9], "optimizer.betas"),
        ("optimizer/momentum", 0.9, "optimizer.momentum"),
        ("optimizer/_target_", "fedsplit.optim.optimizers.Adamm", "optimizer._target_"),
        ("optimizer/_target_", 3, "optimizer._target_"),
        ("auxiliary/align_epochs", 0, "auxiliary.align_epochs"),
        ("auxiliary/align_tolerance", -0.01, "auxiliary.align_tolerance"),
        ("auxiliary/align_tolerance", 1, "auxiliary.align_tolerance"),
        ("auxiliary/align_tolerance", "0.02", "auxiliary.align_tolerance"),
        ("auxiliary/align_tolerance", REMOVED, "auxiliary.align_tolerance"),
        ("auxiliary/optimizer", None, "auxiliary.optimizer"),
        ("auxiliary/optimizer", 5, "auxiliary.optimizer"),
        ("auxiliary/optimizer", REMOVED, "auxiliary.optimizer"),
        ("auxiliary/optimizer/lr", -1, "auxiliary.optimizer.lr"),
        ("auxiliary/optimizer/lr", float("inf"), "auxiliary.optimizer.lr"),
        ("auxiliary/optimizer/momentum", 0.9, "auxiliary.optimizer.momentum"),
        ("auxiliary/optimizer/_target_", REMOVED, "auxiliary.optimizer._target_"),
        ("auxiliary/optimizer/_target_", 3, "auxiliary.optimizer._target_"),
        ("auxiliary/optimizer/_target_", "fedsplit.optim.optimizers.Nothing", "auxiliary.optimizer._target_"),
        ("algorithm/local_rule", REMOVED, "algorithm.local_rule"),
        ("algorithm/local_rule/mu", 0.1, "algorithm.local_rule.mu"),
        ("algorithm/local_rule/_target_", 3, "algorithm.local_rule._target_"),
        ("auxiliary/hiden", 3, "auxiliary.hiden"),
        ("model/cut", 0, "model.cut"),
        ("model/cut", REMOVED, "model.cut"),
        ("auxiliary/align_epochs", REMOVED, "auxiliary.align_epochs"),
        ("estimator/trains_on_loss", False, "estimator.trains_on_loss"),
        ("dataset/max_train", 0, "dataset.max_train"),
        ("algorithm/align_interval", None, "algorithm.align_interval"),
    ],
)
def test_configuration_with_a_mistake_is_refused_by_its_key_and_value(
    composed: dict[str, Any], path: str, value: object, key: str
) -> None:
    with pytest.raises(UserError) as caught:
        RunConfig.parse(_with_value(composed, path, value), choices={})
    assert caught.value.key == key
    assert caught.value.value == (None if value is REMOVED else value)
    assert str(caught.value).startswith(f"{key}=")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("device", device) for device in ("auto", "cpu", "cuda", "cuda:0", "cuda:9", "cuda:12", "cuda:99")),
        ("threads", 1),
        ("threads", 1024),
        ("comm_threshold_mb", 3.4e38),
        ("cohort_size", 10),
        ("time_limit_s", 0.5),
        ("resume", "saves/a"),
        ("dataset/max_train", 20),
        ("optimizer/_target_", "torch.optim.Adam"),
        ("auxiliary/_target_", "my.own.Auxiliary"),
        *(("auxiliary/align_tolerance", value) for value in (None, 0, 0.0, 0.02, 0.999)),
        ("client_optimizer", {"_target_": "fedsplit.optim.optimizers.Adam", "lr": 1}),
    ],
)
def test_configuration_with_allowed_values_passes_the_check(
    composed: dict[str, Any], path: str, value: object
) -> None:
    RunConfig.parse(_with_value(composed, path, value))


@pytest.mark.parametrize("group", GROUPS)
def test_group_without_a_target_is_refused(composed: dict[str, Any], group: str) -> None:
    with pytest.raises(UserError, match="is missing") as caught:
        RunConfig.parse(_with_value(composed, f"{group}/_target_", REMOVED))
    assert (caught.value.key, caught.value.value) == (f"{group}._target_", None)


@pytest.mark.parametrize("group", OPTIONAL_GROUPS)
def test_optimizer_of_one_side_is_checked_as_that_of_both_sides(composed: dict[str, Any], group: str) -> None:
    RunConfig.parse({**composed, group: composed["optimizer"]})
    with pytest.raises(UserError) as caught:
        RunConfig.parse({**composed, group: {**composed["optimizer"], "lr": float("inf")}})
    assert (caught.value.key, caught.value.value) == (f"{group}.lr", float("inf"))


def test_nan_in_the_configuration_is_refused_by_its_key(composed: dict[str, Any]) -> None:
    for path in ("optimizer/lr", "optimizer/weight_decay", "auxiliary/align_tolerance", "time_limit_s"):
        with pytest.raises(UserError) as caught:
            RunConfig.parse(_with_value(composed, path, float("nan")))
        assert caught.value.key == path.replace("/", ".")


def test_arguments_of_a_target_are_its_node_without_keys_of_other_readers(composed: dict[str, Any]) -> None:
    config = RunConfig.parse(composed)
    assert config.model.plain() == {"_target_": "fedsplit.models.zoo.digits_cnn.digits_cnn"}
    assert config.auxiliary.plain() == {"_target_": "fedsplit.models.auxiliary.LinearAuxiliary"}
    assert config.optimizer.plain() == composed["optimizer"]
    assert config.alignment.optimizer.plain() == composed["auxiliary"]["optimizer"]


def test_configuration_is_composed_and_checked_without_heavy_imports() -> None:
    program = f"""
import json, sys
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from fedsplit.config.run_config import RunConfig
with initialize_config_dir({str(CONFIGS)!r}, version_base="1.3"):
    config = OmegaConf.to_container(compose("config"), resolve=True)
RunConfig.parse(config)
print(json.dumps(sorted(name for name in ("torch", "numpy", "sklearn") if name in sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        pytest.param(["rounds=7", "scheduler=cosine"], marks=pytest.mark.long),
        ["algorithm=splitfed_v1", "quant=int4", "quant.weights.up=sign", "quant.weights.up.zstd=3"],
        ["dataset.distribution=dirichlet", "dataset.alpha=0.3", "cohort_size=null"],
        pytest.param(["network=lte", "network.up_mbps=[uniform,1,3]", "rounds=3"], marks=pytest.mark.long),
        pytest.param(["experiment=paper_cifar10", "optimizer.lr=1"], marks=pytest.mark.long),
        ["client_optimizer=sgd", "client_optimizer.lr=0.2", "dataset=image_folder", "dataset.root='a b'"],
        pytest.param(["model._target_=a.b.C", "+model.drop=0.1"], marks=pytest.mark.long),
        ["model._target_=a.b.C", "+model.drop=0.1", "algorithm=cse_fsl", "dataset=svhn", "task=cuts"],
        ["optimizer=sgd", "optimizer@auxiliary.optimizer=adamw", "auxiliary=mlp", "server_optimizer=sgd"],
        ["experiment=paper_cifar10", "dataset=digits", "model=digits_cnn"],
        ["quant=thrifty", "codec@quant.smashed=topk", "transport=grpc", "rounds=2", "rounds=3"],
    ],
    ids=" ".join,
)
def test_configurations_that_tests_take_are_those_that_hydra_composes(
    overrides: list[str], configured: Configure
) -> None:
    with composition.composing():
        config = composition.compose_config([each for override in overrides for each in spell_out(override)])
        expected = composition.run_config(config)
    assert configured(*overrides) == expected
    assert str(configured(*overrides).plain()) == str(expected.plain())  # in the same order
