"""Choices in a directory of one's own: found wherever choices are looked up, and nowhere else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fedsplit.config.choices import (
    CONFIGS,
    canonical,
    directories,
    file_of,
    names_of,
    target_of,
    user_choices,
)
from fedsplit.config.compose import compose_config, composing, run_config
from fedsplit.errors import UserError
from fedsplit.transport.grpc.protocol.plan import choices_and_settings, configuration
from tests.command_line import command_line
from tests.conftest import TINY

MINE = """
from fedsplit.algorithms.fed_avg import FedAvg

class Mine(FedAvg):
    pass
"""
FEW = ("num_clients=2", "dataset.max_train=20", "dataset.max_test=10", "rounds=1", "progress=false")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a package of one's own, and choices beside it."""
    (tmp_path / "my_package.py").write_text(MINE)
    (tmp_path / "my_configs" / "algorithm").mkdir(parents=True)
    (tmp_path / "my_configs" / "algorithm" / "mine.yaml").write_text("_target_: my_package.Mine\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(*arguments: str, fails: bool = False) -> str:
    done = command_line(*arguments)
    assert done.returncode == (2 if fails else 0), done.stderr
    return done.stderr if fails else done.stdout


def test_own_choice_runs_and_goes_on_only_with_the_directory_that_it_was_begun_with(place: Path) -> None:
    told("--config-dir", "my_configs", "algorithm=mine", *FEW, "hydra.run.dir=run")
    stored = yaml.safe_load((place / "run" / "config.yaml").read_text())
    assert stored["choices"]["algorithm"] == "mine"
    assert stored["algorithm"]["_target_"] == "my_package.Mine"
    missing = told("resume=run", "rounds=2", fails=True)
    began = f"the run was begun with --config-dir={str(place / 'my_configs')!r}, to be given again"
    assert missing == (
        f"error: algorithm=mine: this installation has no such choice; {began}; "
        "trust=true runs the code that config.yaml names, for runs that you trust\n"
    )
    assert told("--config-dir=my_configs", "resume=run", "rounds=2") == "run\n"


def test_own_choice_is_in_help_and_in_the_configuration_shown(place: Path) -> None:
    assert "lgl_sl, mine, minibatch_sfl" in told("--config-dir", "my_configs", "--help")
    shown = told("-cd", "my_configs", "algorithm=mine", "--cfg", "job", "--package", "algorithm")
    assert yaml.safe_load(shown)["_target_"] == "my_package.Mine"
    assert (
        "mine"
        not in told("--help").partition("Keys of these choices")[0].split("algorithm: ")[1].split("\n")[0]
    )


def test_own_choice_is_swept_beside_those_of_this_package(place: Path) -> None:
    told("--config-dir", "my_configs", "-m", "algorithm=mine,fed_avg", *FEW, "hydra.sweep.dir=sweep")
    metrics = [(place / "sweep" / job / "model" / "client.safetensors").read_bytes() for job in "01"]
    assert metrics[0] == metrics[1]


@pytest.mark.long  # what clients do with the name is below
def test_own_choice_reaches_clients_that_a_server_starts(place: Path) -> None:
    asked = ("--config-dir", "my_configs", "algorithm=mine", *FEW, "engine=sequential")
    told(*asked, "transport=grpc", "hydra.run.dir=grpc")
    told(*asked, "hydra.run.dir=local")
    weights = [(place / run / "model" / "client.safetensors").read_bytes() for run in ("grpc", "local")]
    assert weights[0] == weights[1]


def test_client_takes_the_name_of_an_own_choice_and_looks_it_up_where_it_is(place: Path) -> None:
    with user_choices("my_configs"):
        with composing():
            config = compose_config(["algorithm=mine", *TINY])
        plan = choices_and_settings(run_config(config))
        assert configuration(plan).algorithm.target == "my_package.Mine"
    with pytest.raises(UserError, match="algorithm=mine: this installation has no such choice"):
        configuration(plan)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config-dir", "nowhere"], "--config-dir=nowhere: there is no such directory"),
        (["--config-dir"], "--config-dir=: must be one directory, given once"),
        (["--config-dir=a", "-cd", "b"], "--config-dir=a b: must be one directory, given once"),
        (
            ["--config-dir", "other"],
            "--config-dir=other: model/resnet18.yaml is a file of fedsplit's own; rename it",
        ),
        (["--config-name", "x"], "flag=--config-name: the configuration is hydra_config/config.yaml"),
    ],
)
def test_directory_of_choices_that_cannot_be_one_is_refused_in_a_line(
    place: Path, arguments: list[str], line: str
) -> None:
    (place / "other" / "model").mkdir(parents=True)
    (place / "other" / "model" / "resnet18.yaml").write_text("_target_: my_package.Mine\n")
    assert told(*arguments, fails=True).startswith(f"error: {line}")


def test_own_choices_are_there_as_long_as_they_are_asked_for(place: Path) -> None:
    before = names_of("algorithm")
    with user_choices("my_configs"):
        assert directories() == [CONFIGS, place / "my_configs"]
        assert names_of("algorithm") == sorted([*before, "mine"])
        assert target_of("algorithm", "mine") == "my_package.Mine"
    assert names_of("algorithm") == before
    assert directories() == [CONFIGS]


def test_directory_that_the_environment_names_is_taken_and_checked_as_that_of_the_flag(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSPLIT_CONFIG_DIR", "my_configs")
    with user_choices(None):
        assert file_of("algorithm", "mine") == place / "my_configs" / "algorithm" / "mine.yaml"
    monkeypatch.setenv("FEDSPLIT_CONFIG_DIR", "nowhere")
    with (
        pytest.raises(UserError, match="--config-dir=nowhere: there is no such directory"),
        user_choices(None),
    ):
        pass


def test_file_of_ones_own_that_is_no_mapping_names_no_class(place: Path) -> None:
    for content in ("[1, 2]", "{", "text"):
        (place / "my_configs" / "algorithm" / "mine.yaml").write_text(content)
        with user_choices("my_configs"):
            assert target_of("algorithm", "mine") is None


@pytest.mark.parametrize("name", ["../model/resnet18", "a/b", "", "..", "x" * 300, "a\0b", "no_such"])
def test_text_that_is_no_name_of_a_choice_has_no_file(name: str) -> None:
    assert file_of("algorithm", name) is None
    assert target_of("algorithm", name) is None
    assert canonical("algorithm", name) == name


def test_another_name_of_a_choice_stands_for_it() -> None:
    assert canonical("algorithm", "sl_multi_server") == "splitfed_v1"
    assert canonical("distribution", "noniid_dirichlet") == "dirichlet"
    assert canonical("distribution", "extreme") == "extreme"  # has values of its own
