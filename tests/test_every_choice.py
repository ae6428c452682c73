"""Every YAML file of the configuration composes, builds and runs two tiny rounds."""

import math
from itertools import zip_longest
from pathlib import Path

import pytest
import torch

from fedsplit.config.choices import CONFIGS
from fedsplit.config.settings import CODECS
from tests.cases import long_but
from tests.conftest import METHODS, Build, Configure

RUN_ELSEWHERE = {"adapter", "attacker", "dataset", "deployment", "distribution", "model"}
"""Groups whose choices have cases of their own, see tests/test_every_case.py."""
LARGE = {"paper_cifar10", "accuracy_study", "split_grid", "privacy_study", "method_study_cifar"}
"""Experiments of larger models: every run composes them, in tests/transport/test_plan.py."""
OTHER_NAMES = {"sl_multi_server", "sl_single_server"}
"""Algorithms that have another name: what they compose to is compared below."""
OF_A_TRAINED_RUN = {("task", "attack"), ("task", "compare"), ("task", "generate")}
"""Choices that read what a run left behind: `tests/tasks` tests them."""
OF_TEXTS = {
    ("generation", "greedy"),
    *(("experiment", name) for name in ("e2e_tiny", "e2e_smollm2", "e2e_gpt2_medium")),
}
"""Choices that need a language model: `tests/tasks/test_generate.py` tests them."""
INDEPENDENT = (
    "client_optimizer",
    "server_optimizer",
    "scheduler",
    "network",
    "tracker",
    "engine",
    "cluster",
    "optimizer",
    "quant",
    "task",
    "transport",
    "generation",
)
"""Groups whose choices do not depend on each other: one run trains a choice of each."""
OVER_THE_NETWORK = {("task", "client"), ("transport", "grpc"), ("cluster", "ray")}
"""Choices that need a server, or processes of clients or workers: `tests/transport` and `tests/cluster`."""
CHOICES = sorted(path.relative_to(CONFIGS).with_suffix("") for path in CONFIGS.glob("*/*.yaml"))
TRAINED_HERE = [
    each
    for each in CHOICES
    if each.parts[0] not in RUN_ELSEWHERE and each.parts not in OVER_THE_NETWORK | OF_A_TRAINED_RUN | OF_TEXTS
]


def choices_by_run() -> list[list[Path]]:
    """Choices by the runs that train them: of independent groups one each, codecs together, others alone."""
    codecs = [each for each in TRAINED_HERE if each.parts[0] == "codec"]
    alone = [[each] for each in TRAINED_HERE if each.parts[0] not in (*INDEPENDENT, "codec")]
    alone += [codecs[n : n + len(CODECS)] for n in range(0, len(codecs), len(CODECS))]
    groups = [[each for each in TRAINED_HERE if each.parts[0] == group] for group in INDEPENDENT]
    runs = [[each for each in row if each is not None] for row in zip_longest(*groups)]
    return [*alone, *runs]


@pytest.mark.parametrize(
    "choices",
    long_but(lambda choices: choices[0].name not in LARGE | OTHER_NAMES, choices_by_run()),
    ids=lambda choices: ",".join(map(str, choices)),
)
def test_choice_trains_what_its_algorithm_says_in_two_tiny_rounds(
    choices: list[Path], tiny: Build, cifar_sized: Build
) -> None:
    build, overrides = tiny, ["dataset.max_train=60"]
    codecs = iter(CODECS)
    for group, name in (choice.parts for choice in choices):
        if group == "experiment":
            build, overrides = cifar_sized, []
        if group == "local_rule":
            overrides += ["algorithm=cse_fsl", f"algorithm.local_rule={name}"]
        else:
            overrides.append(f"codec@{next(codecs)}={name}" if group == "codec" else f"{group}={name}")
        overrides += METHODS.get(name, ()) if group == "algorithm" else ()
    run = build(*overrides)
    before = run.algorithm.full_weights()
    for t in range(2):
        record = run.run_round(t)
        assert math.isfinite(record.train_loss)
    after = run.algorithm.models(len(run.parts.sample_counts))[0]
    halves = {"client": run.algorithm.client_weights, "server": run.algorithm.server.weights()}
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == {name for half in run.algorithm.trains for name in halves[half]}


def test_paper_cifar10_experiment_has_the_settings_of_the_paper(configured: Configure) -> None:
    config = configured("experiment=paper_cifar10").plain()
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


def test_older_names_of_algorithms_select_the_same_algorithms(configured: Configure) -> None:
    for older, name in (("sl_multi_server", "splitfed_v1"), ("sl_single_server", "splitfed_v2")):
        assert (
            configured(f"algorithm={older}").plain()["algorithm"]
            == configured(f"algorithm={name}").plain()["algorithm"]
        )
