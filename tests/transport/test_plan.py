"""What a server tells its clients gives the very configuration that it has itself, and no other."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsplit.config.choices import CONFIGS
from fedsplit.config.compose import compose_config, composing, run_config
from fedsplit.config.run_config import RunConfig
from fedsplit.data.images import Normalisation
from fedsplit.data.sources.image_folder import ImageFolder
from fedsplit.errors import UserError
from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.plan import (
    GROUPS,
    OWN,
    choices_and_settings,
    configuration,
    configuration_of_client,
    normalisation,
    preparation,
)
from tests.conftest import Configure
from tests.transport.invariants import (
    composed_once,
    installed_targets,
    plan_names_only_what_is_installed,
    targets,
)
from tests.transport.strategies import nested

PARTIES_OWN = {
    *("attacker", "cluster", "deployment", "engine", "generation", "network", "transport", "task", "tracker")
}
"""Groups that a plan does not name."""
CHOICES = sorted(
    path.relative_to(CONFIGS).with_suffix("")
    for path in CONFIGS.glob("*/*.yaml")
    if path.parent.name not in PARTIES_OWN
)


def _compositions() -> list[list[str]]:
    """Overrides that between them make every choice: one of each group at a time, for composing is slow."""
    groups: dict[str, list[str]] = {}
    for choice in CHOICES:
        groups.setdefault(choice.parts[0], []).append(choice.parts[1])
    codecs, experiments = groups.pop("codec"), groups.pop("experiment")
    place = {"local_rule": "local_rule@algorithm.local_rule"}
    together = [
        [f"{place.get(group, group)}={names[n]}" for group, names in groups.items() if n < len(names)]
        for n in range(max(map(len, groups.values())))
    ]
    paths = [group for group in GROUPS if group.startswith("codec@")]
    together += [
        [f"{path}={name}" for path, name in zip(paths, codecs[n : n + len(paths)], strict=False)]
        for n in range(0, len(codecs), len(paths))
    ]
    return together + [[f"experiment={name}"] for name in experiments]


COMPOSITIONS = _compositions()
LIKE_OTHERS = {"classifier", "cifar_resnet", "resnet_32x32"}
"""Functions that several models come from: their configurations have the same keys."""


def _is_like_others(overrides: list[str]) -> bool:
    """Whether it chooses a model alone, and of a kind that other compositions choose too."""
    if len(overrides) > 1 or not overrides[0].startswith("model=") or overrides[0] == "model=torchvision":
        return False
    path = CONFIGS / "model" / f"{overrides[0].removeprefix('model=')}.yaml"
    return path.read_text("utf-8").split()[1].rpartition(".")[2] in LIKE_OTHERS


@pytest.fixture
def _compositions_are_remembered() -> Iterator[None]:
    with composed_once():
        yield


def _shared(config: RunConfig) -> dict[str, Any]:
    """A configuration without what is each party's own."""
    kept = {key: value for key, value in config.plain().items() if key not in OWN}
    for key in ("id", "directory"):
        kept["client"].pop(key)
    for key in ("root", "tokenizer_files", "download"):
        kept["dataset"].pop(key, None)
    return kept


def _over_the_wire(config: RunConfig) -> RunConfig:
    plan = choices_and_settings(config)
    return configuration(pb.Plan.FromString(plan.SerializeToString()))


def test_every_group_of_configurations_is_the_plans_or_each_partys_own() -> None:
    folders = {path.parent.name for path in CONFIGS.glob("*/*.yaml")}
    assert folders - PARTIES_OWN - {"experiment"} == {group.partition("@")[0] for group in GROUPS}


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(
            each, marks=pytest.mark.long if number > 9 or _is_like_others(each) else (), id=" ".join(each)
        )
        for number, each in enumerate(COMPOSITIONS)  # the first are of choices of every group
    ],
)
def test_plan_gives_clients_the_servers_configuration(overrides: list[str]) -> None:
    with composing():  # all at once, for no other test has these choices together
        config = run_config(compose_config(overrides))
    assert _shared(_over_the_wire(config)) == _shared(config)


def test_compositions_of_plans_make_every_choice_of_every_group() -> None:
    composed = {override for overrides in COMPOSITIONS for override in overrides}
    tried = {
        override.partition("@")[0] + "/" + override.partition("=")[2]
        for override in composed
        if "@" in override
    }
    tried |= {override.replace("=", "/") for override in composed if "@" not in override}
    assert tried == {str(choice) for choice in CHOICES}


def test_plan_carries_values_that_were_changed(configured: Configure) -> None:
    config = configured(
        *(
            "algorithm=cse_fsl",
            "algorithm.server_update_interval=3",
            "client_optimizer=sgd",
            "client_optimizer.lr=0.5",
        ),
        *("optimizer@auxiliary.optimizer=sgd", "auxiliary.optimizer.momentum=0.25", "scheduler=multistep"),
        *(
            "scheduler.milestones=[2,5]",
            "optimizer.betas=[0.5,0.75]",
            "quant=thrifty",
            "quant.smashed.zstd=3",
        ),
        *(
            "cohort_size=2",
            "comm_threshold_mb=1.5",
            "dataset.max_train=130",
            "client.stateless=true",
            "seed=123456789012",
        ),
    )
    arrived = _over_the_wire(config)
    assert _shared(arrived) == _shared(config)
    assert arrived.alignment.optimizer.arguments["momentum"] == 0.25


def test_plan_does_not_tell_what_is_each_partys_own(configured: Configure) -> None:
    config = configured(
        *("dataset=image_folder", "dataset.root=/home/server/images", "device=cpu", "engine=vectorized"),
        *(
            "transport=grpc",
            "transport.listen=127.0.0.1:1",
            "client.directory=/home/server",
            "progress=false",
            "tracker=wandb",
            "tracker.entity=server",
        ),
    )
    plan = choices_and_settings(config)
    keys = {setting.key for setting in plan.settings}
    assert not [
        key for key in keys if key.partition(".")[0] in (*OWN, "engine") or key.endswith(("root", "download"))
    ]
    assert b"server" not in plan.SerializeToString().replace(b"server_optimizer", b"").replace(
        b"server_update", b""
    )


TEXTS = ("dataset=e2e_nlg", "adapter=lora")


def test_plan_carries_the_sizes_of_a_model_with_those_that_its_choice_does_not_name(
    configured: Configure,
) -> None:
    for sizes in (
        ("model=causal_lm", "model.architecture=llama", "model.sizes={hidden_size: 16, rope_scaling: null}"),
        ("model=tiny_gpt2", "+model.sizes.n_inner=24", "model.sizes.n_layer=3"),
    ):
        config = configured(*TEXTS, *sizes)
        assert _shared(_over_the_wire(config)) == _shared(config)


def test_folder_of_a_model_is_said_by_each_machine_and_by_no_server(configured: Configure) -> None:
    config = configured(
        *(*TEXTS, "model=causal_lm", "model.name=/home/server/base", "dataset.root=/home/server"),
        "dataset.tokenizer_files=/home/server",
    )
    plan = choices_and_settings(config)
    assert b"/home" not in plan.SerializeToString()
    assert config.of_this_machine()["model.name"] == "/home/server/base"
    own = {"model.name": "/home/client/base", "dataset.root": "/home/client"}
    assert configuration_of_client(plan, 0, own).model.arguments["name"] == "/home/client/base"
    plan.settings.add(key="model.name", value=pb.Value(text="/etc/passwd"))
    with pytest.raises(Corrupt, match=r"the plan sets the key 'model.name', which no server decides"):
        configuration(plan)


def test_name_that_is_no_path_is_the_servers_to_say(configured: Configure) -> None:
    plan = choices_and_settings(configured("model=torchvision", "model.name=resnet18"))
    given = configuration_of_client(plan, 0, {"model.name": "/home/client/base"})
    assert given.model.arguments["name"] == "resnet18"


@pytest.mark.usefixtures("_compositions_are_remembered")
@pytest.mark.parametrize("key", ["_target_", "_attn_implementation", "", "a b"])
def test_plan_with_a_mapping_whose_keys_no_server_sends_is_corrupt(key: str) -> None:
    sizes = pb.Value(map=pb.Map(items={key: pb.Value(whole=1)}))
    with pytest.raises(Corrupt, match="a mapping with keys"):
        configuration(
            pb.Plan(choices={"model": "causal_lm"}, settings=[pb.Setting(key="model.sizes", value=sizes)])
        )


@pytest.mark.parametrize(
    "override",
    [
        "model._target_=benchmarks.codecs.SmallCnn",
        "optimizer._target_=fedsplit.optim.optimizers.Sgd",
        "quant.smashed._target_=fedsplit.quant.codecs.sign.Sign",
        "model.auxiliary=fedsplit.models.auxiliary.MlpAuxiliary",
        "+optimizer.foreach=true",
    ],
)
def test_plan_of_a_class_that_is_no_choice_cannot_be_made(override: str, configured: Configure) -> None:
    key, _, value = override.lstrip("+").partition("=")
    with pytest.raises(UserError, match=r"choices of their own|no such key") as told:
        choices_and_settings(configured().with_changes({key: value}))
    assert told.value.key.partition(".")[0] == key.partition(".")[0]


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, "${oc.env:HOME}", "???", "a\nb", "x" * 5000, {1, 2}, "\ud800"]
)
def test_plan_of_a_value_that_cannot_be_sent_is_the_users_error(value: object, configured: Configure) -> None:
    config = configured()
    config = replace(config, splitting=replace(config.splitting, cut=value))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"model\.cut"):
        choices_and_settings(config)


@pytest.mark.usefixtures("_compositions_are_remembered")
@pytest.mark.parametrize(
    ("group", "choice"),
    [
        *(
            ("task", "train"),
            ("transport", "local"),
            ("experiment", "paper_cifar10"),
            ("hydra/launcher", "joblib"),
        ),
        *(
            ("", ""),
            ("codec", "none"),
            ("codec@quant.other", "none"),
            ("model", ""),
            ("model", "../model/digits_cnn"),
        ),
        *(
            ("model", "/etc/passwd"),
            ("model", "digits_cnn,resnet18"),
            ("model", "digits_cnn\n"),
            ("model", "a" * 200),
        ),
        *(("model", "digits_cnn +evil=1"), ("model", "${oc.env:HOME}"), ("optimizer@client", "sgd")),
    ],
)
def test_plan_with_a_choice_that_no_server_makes_is_corrupt(group: str, choice: str) -> None:
    with pytest.raises(Corrupt):
        configuration(pb.Plan(choices={group: choice}))


def test_plan_with_a_choice_that_is_not_installed_is_the_users_error() -> None:
    with pytest.raises(UserError, match="no such choice"):
        configuration(pb.Plan(choices={"model": "transformer"}))


@pytest.mark.usefixtures("_compositions_are_remembered")
@pytest.mark.parametrize(
    "key",
    [
        *("device", "progress", "resume", "task.out", "transport.tls", "engine.stack_mb", "choices.model"),
        *(
            "client.id",
            "client.directory",
            "dataset.root",
            "dataset.tokenizer_files",
            "dataset.download",
            "model.auxiliary",
            "model._target_",
        ),
        *(
            "optimizer._args_",
            "_target_",
            "auxiliary.optimizer._target_",
            "a b",
            "optimizer.lr\n",
            "x" * 300,
            "",
        ),
    ],
)
def test_plan_with_a_key_that_no_server_sets_is_corrupt(key: str) -> None:
    with pytest.raises(Corrupt):
        configuration(pb.Plan(settings=[pb.Setting(key=key, value=pb.Value(text="x"))]))


@pytest.mark.usefixtures("_compositions_are_remembered")
@pytest.mark.parametrize(
    "key", ["optimizer", "no.such.key", "optimizer.lr.x", "client_optimizer", "hydra.run.dir", "."]
)
def test_plan_with_a_key_that_is_not_installed_is_the_users_error(key: str) -> None:
    with pytest.raises(UserError):
        configuration(pb.Plan(settings=[pb.Setting(key=key, value=pb.Value(text="x"))]))


@pytest.mark.usefixtures("_compositions_are_remembered")
@pytest.mark.parametrize(
    "value",
    [
        pb.Value(),
        nested(9),
        nested(25),
        pb.Value(list=pb.List(items=[pb.Value()])),
        pb.Value(text="${oc.env:HOME}"),
        pb.Value(list=pb.List(items=[pb.Value(text="${seed}")])),
        pb.Value(text="???"),
        pb.Value(text="x" * 10**6),
        pb.Value(text="\x1b[31m"),
    ],
)
def test_plan_with_a_value_that_does_not_stand_for_itself_is_corrupt(value: pb.Value) -> None:
    with pytest.raises(Corrupt):
        configuration(pb.Plan(settings=[pb.Setting(key="model.cut", value=value)]))


def test_plan_names_installed_classes_only(configured: Configure) -> None:
    found = set(targets(_over_the_wire(configured("algorithm=cse_fsl", "quant=thrifty")).plain()))
    assert len(found) > 10
    assert found <= installed_targets()


@pytest.mark.parametrize("key", ["model._target_", "model.cut", "optimizer"])
def test_plan_makes_a_client_import_nothing_that_it_names(key: str) -> None:
    evil = "tests.transport.sentinel.Sentinel"
    assert "tests.transport.sentinel" not in sys.modules
    with suppress(Corrupt, UserError):
        configuration(pb.Plan(settings=[pb.Setting(key=key, value=pb.Value(text=evil))]))
    assert "tests.transport.sentinel" not in sys.modules


def test_check_for_installed_classes_notices_another_class() -> None:
    plan_names_only_what_is_installed(pb.Plan())
    with pytest.raises(AssertionError):
        assert set(targets({"a": [{"_target_": "os.system"}]})) <= installed_targets()


def test_plan_carries_a_normalisation_and_refuses_what_is_none() -> None:
    sent = Normalisation(torch.tensor([2.0, 3.0]), torch.tensor([-1.0, 0.5]))
    told = pb.Images(scale=[2.0, 3.0], shift=[-1.0, 0.5], channels=2, side=8)
    arrived = normalisation(told).to(torch.device("cpu"), torch.float32)
    assert torch.equal(arrived.scale, sent.scale)
    assert torch.equal(arrived.shift, sent.shift)
    for scale, channels in (([], 2), ([2.0, 1e300], 2), ([2.0, 3.0], 3), ([2.0, 3.0], 0)):
        damaged = pb.Plan(images=pb.Images(scale=scale, shift=[-1.0, 0.5], channels=channels, side=8))
        with pytest.raises(Corrupt):
            preparation(damaged)
    with pytest.raises(Corrupt, match="does not describe the data"):
        preparation(pb.Plan())


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/b", "..", ".", "", ".hidden", "a\0"])
def test_class_name_of_an_image_folder_leads_to_no_other_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "images" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "secret").mkdir()
    folder = ImageFolder(root=str(tmp_path / "images"), classes=["cat", name], flip=False, crop_padding=0)
    with pytest.raises(UserError, match=r"dataset\.classes"):
        folder.load()
