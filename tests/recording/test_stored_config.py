"""Files of a run directory run no code: they name choices of this installation, and plain values."""

import sys
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest

from fedsplit.building.trained import TrainedRun
from fedsplit.config.checks import RESUMABLE
from fedsplit.config.choices import names_of
from fedsplit.config.run_config import RunConfig
from fedsplit.config.traits import traits_of_choice
from fedsplit.errors import UserError
from fedsplit.recording.config_file import write_config
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.tasks.infer import Infer
from fedsplit.training.experiment import Experiment
from fedsplit.training.resume import resumed_config
from tests.conftest import TINY, Configure


def stored(path: Path, config: RunConfig, changes: dict[str, object]) -> RunDirectory:
    """A run directory with a configuration in which dotted keys are set."""
    plain = config.plain()
    for key, value in changes.items():
        *places, name = key.split("/")
        reduce(getitem, places, plain)[name] = value  # type: ignore[arg-type]
    path.mkdir(exist_ok=True)
    write_config(path, plain)
    return RunDirectory.existing(path)


FOREIGN: list[tuple[dict[str, object], str]] = [
    ({"model/_target_": "torch.utils.collect_env.run"}, "model._target_"),
    ({"model/_target_": "torchvision.models.resnet18"}, "model._target_"),
    ({"optimizer/_target_": "fedsplit.optim.optimizers.Sgd"}, "optimizer._target_"),
    ({"auxiliary/optimizer/_target_": "os.system"}, "auxiliary.optimizer._target_"),
    ({"quant/smashed/_target_": "os.system"}, "quant.smashed._target_"),
    ({"quant/weights/down/_target_": "os.system"}, "quant.weights.down._target_"),
    ({"task/_target_": "os.system"}, "task._target_"),
    ({"tracker/_target_": "mine.Tracker"}, "tracker._target_"),
    ({"transport/_target_": "mine.Transport"}, "transport._target_"),
    ({"model/auxiliary": "os.system"}, "model.auxiliary"),
    ({"model/norm": {"_target_": "os.system"}}, "model.norm._target_"),
    ({"model/layers": [1, {"deep": [{"_target_": "os.system"}]}]}, "model.layers.deep._target_"),
    ({"model/_partial_": True}, "model._partial_"),
    ({"model/_args_": ["true"]}, "model._args_"),
    ({"estimator/_recursive_": False}, "estimator._recursive_"),
    ({"scheduler/_convert_": "object"}, "scheduler._convert_"),
    ({"server_optimizer": {"_target_": "os.system"}}, "server_optimizer._target_"),
    ({"choices/model": "resnet20"}, "model._target_"),
    ({"choices/model": "../../evil"}, "model"),
    ({"choices/model": "nowhere"}, "model"),
    ({"choices/codec@quant.smashed": "nowhere"}, "quant.smashed"),
]


@pytest.mark.parametrize(("changes", "key"), FOREIGN, ids=str)
def test_code_that_only_a_run_directory_names_is_refused_unless_trusted(
    configured: Configure, tmp_path: Path, changes: dict[str, object], key: str
) -> None:
    run = stored(tmp_path, configured(*TINY), changes)
    with pytest.raises(UserError) as caught:
        run.run_config(trust=False)
    assert caught.value.key == key
    assert "trust=true" in str(caught.value)
    assert "\n" not in str(caught.value)
    found: object
    try:
        found = run.run_config(trust=True).plain()
    except UserError as error:
        found = str(error)  # for what it is, and not for whose it is
    assert "trust=true" not in found if isinstance(found, str) else found == run.config() | {"trust": True}


@pytest.mark.parametrize(
    "changes",
    [
        {"model/name": "${oc.env:HOME}"},
        {"dataset/root": ["a", "${oc.env:HOME}"]},
        {"seed": "???"},
        {"model/1": None, "choices": {"model": 3}},
        {"choices": ["model"]},
        {"choices": None},
        {"model": {3: 4}},
    ],
    ids=str,
)
@pytest.mark.parametrize("trust", [False, True])
def test_values_that_stand_for_others_are_refused_also_where_code_is_trusted(
    configured: Configure, tmp_path: Path, changes: dict[Any, object], trust: bool
) -> None:
    config = configured(*TINY)
    run = stored(tmp_path, config, changes)
    with pytest.raises(UserError) as caught:
        run.run_config(trust=trust)
    assert caught.value.key == "resume"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("algorithm=sl_single_server", "model=resnet20", "auxiliary=derived", "server_optimizer=sgd"),
        ("quant=thrifty", "codec@quant.smashed=topk", "tracker=wandb", "network=lte", "transport=grpc"),
        ("scheduler=cosine", "distribution=dirichlet", "engine=vectorized"),
        ("experiment=accuracy_study",),
    ],
    ids=str,
)
def test_what_a_run_of_this_installation_wrote_is_taken_as_it_was(
    configured: Configure, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    config = configured(*overrides)
    run = stored(tmp_path, config, {"seed": 7})
    assert run.run_config(trust=False).plain() == run.config() | {"trust": False}
    assert run.config() == {**config.plain(), "seed": 7}


def test_trust_is_of_the_command_alone_whatever_the_file_says(configured: Configure, tmp_path: Path) -> None:
    run = stored(tmp_path, configured(*TINY), {"trust": True, "model/_target_": "beside.Missing"})
    with pytest.raises(UserError, match="trust=true"):
        resumed_config(run, {})
    assert resumed_config(run, {"trust": True}).model.target.endswith("Missing")
    with pytest.raises(UserError, match="trust=1: must be true or false"):
        resumed_config(run, {"trust": 1})
    assert "trust" in RESUMABLE
    takers = [each for each in map(traits_of_choice, names_of("task")) if each.models_of_run != "refused"]
    assert {"task", "run", "trust"} <= set.intersection(*(set(each.beside) for each in takers if each.beside))


def test_every_reader_of_a_run_refuses_its_code_before_it_is_imported(
    configured: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    run = stored(tmp_path, configured(*TINY), {"model/_target_": "beside.Net"})
    asked = configured("task=infer", "precision=[fp32]", f"run={tmp_path}")
    for read in (
        lambda: resumed_config(run, {}),
        lambda: TrainedRun(tmp_path, device="cpu", threads=1),
        lambda: asked.task.build(Infer).run(asked, tmp_path / "infer"),
    ):
        with pytest.raises(UserError, match=r"model\._target_=beside\.Net"):
            read()
    assert "beside" not in sys.modules
    assert not (tmp_path / "infer").exists()


def test_run_with_a_class_of_its_own_goes_on_where_it_is_trusted(
    configured: Configure, tmp_path: Path
) -> None:
    config = configured(*TINY, "optimizer=sgd")
    run = stored(tmp_path, config, {"choices/optimizer": "adam"})
    with pytest.raises(UserError, match=r"optimizer\._target_=fedsplit\.optim\.optimizers\.Sgd"):
        resumed_config(run, {})
    assert Experiment(resumed_config(run, {"trust": True})).config.optimizer == config.optimizer
