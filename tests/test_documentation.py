"""The code in the documentation is run as it stands."""

import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fedsplit.config.choices import CONFIGS
from fedsplit.config.overrides import join_list
from fedsplit.config.traits import algorithm_traits
from tests.command_line import command_line
from tests.conftest import Configure


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_model_of_the_contributing_guide_runs_from_the_current_directory(root: Path, tmp_path: Path) -> None:
    *_, code = blocks(root / "CONTRIBUTING.md", "python")
    (tmp_path / "my_package.py").write_text(code)
    asked = ["model._target_=my_package.MyNet", "auxiliary=derived", "progress=false", "rounds=1"]
    sizes = ["num_clients=2", "auxiliary.align_epochs=2", "dataset.max_train=40", "dataset.max_test=20"]

    def run(*overrides: str) -> str:
        done = command_line(*asked, *sizes, *overrides, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    directory = tmp_path / run("model.cut=blocks.3", "+model.width=16").strip()
    weights = load_file(directory / "model" / "client.safetensors")
    assert weights.keys() == {f"blocks.{i}.{each}" for i in range(4) for each in ("weight", "bias")} | {
        "stem.weight",
        "stem.bias",
    }
    assert weights["blocks.3.weight"].shape == (16, 16, 3, 3)
    told = run("task=cuts", "model.cut=null", "task.format=csv")
    assert [line.split(",")[0] for line in told.splitlines()] == [
        "cut",
        "stem",
        *(f"blocks.{i}" for i in range(5)),
    ]


def executed(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_run_example_of_the_readme_trains(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(root / "README.md", "python")
    names = executed(code)
    run = names["run"]
    assert run.directory.is_relative_to(tmp_path / "saves" / "fsl_sage")
    assert [row["round"] for row in run.metrics] == [0, 1]
    assert (run.config["choices"]["quant"], run.config["optimizer"]["lr"]) == ("int8", 0.002)
    weights = load_file(run.directory / "model" / "client.safetensors")
    assert {name: each.shape for name, each in names["client"].items()} == {
        name: each.shape for name, each in weights.items()
    }


def test_example_of_the_guide_to_python_runs_resumes_and_reads_back(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, frames, _ = blocks(root / "docs" / "python.md", "python")
    names = executed(code)
    one, longer = names["one"], names["longer"]
    assert names["accuracies"] == [row["test_accuracy"] for row in one.metrics]
    assert longer.metrics[:2] == one.metrics
    assert len(longer.metrics) == 3
    assert names["again"] == longer
    assert one.config["quant"]["smashed"]["_target_"].endswith(".Sign")

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    names = executed(frames)
    assert [row["round"] for row in names["rounds"]] == [0, 1, 2]
    (row,) = names["ended"]
    told = {"algorithm": "cse_fsl", "quant": "int8", "optimizer.lr": 0.002, "directory": str(one.directory)}
    assert told.items() <= row.items()
    assert row["rounds_run"] == 3


def test_split_example_of_the_guide_to_python_makes_halves_that_compute_the_whole(root: Path) -> None:
    *_, code = blocks(root / "docs" / "python.md", "python")
    names = executed(code)
    model, halves = names["model"], names["halves"]
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(halves.server(halves.client(x)), model(x))


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md", "docs/network.md", "docs/tutorials/*.md"])
def test_commands_that_are_shown_compose_to_the_choices_they_name(
    root: Path, configured: Configure, page: str
) -> None:
    text = "".join(path.read_text("utf-8") for path in sorted(root.glob(page)))
    lines = re.findall(r"^    python main\.py(.*?)(?:#.*)?$", text, re.MULTILINE)
    runs = [line for line in lines if shlex.split(line)[:1] == [] or "=" in shlex.split(line)[0]]
    commands = [shlex.split(line) for line in runs if "-m" not in line.split() and "resume=" not in line]
    assert len(commands) >= 3
    for overrides in commands:
        config = configured(*map(join_list, overrides))
        for override in overrides:
            key, _, value = override.partition("=")
            assert config.choices.get(key, value) == value


def test_table_of_algorithms_has_each_by_what_is_typed_and_what_is_shown(root: Path) -> None:
    page = (root / "docs" / "algorithms.md").read_text("utf-8").partition("What is shown")[0]
    shown: dict[str, str] = {}
    for typed, labels in re.findall(r"^\| (`\w+`[^|]*) \| ([^|]+) \|", page, re.MULTILINE):
        names = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", typed))
        shown.update(zip(names, labels.split(", "), strict=False))
    labels_of_classes = {name: traits.label for name, traits in algorithm_traits().items()}
    assert labels_of_classes.items() <= shown.items()


SHOWN = (
    "README.md",
    "CONTRIBUTING.md",
    "BENCHMARKS.md",
    "docs/*.md",
    "hydra_config/**/*.yaml",
    "src/**/*.py",
    ".ci/run",
    ".ci/long",
    ".ci/wheel",
)
"""Files that show commands to be typed, or to be run."""


def test_lists_and_patterns_are_quoted_for_the_shell_in_every_command_shown(root: Path) -> None:
    """An unquoted `[a,b]` is a pattern of file names; zsh refuses one that matches none."""
    command = re.compile(r"(?:python \S+\.py|pip install) (?P<arguments>.*?)(?: # .*)?$", re.MULTILINE)
    seen = 0
    for path in (each for pattern in SHOWN for each in root.glob(pattern)):
        for found in command.finditer(path.read_text("utf-8").replace("\\\n", " ")):
            arguments = re.split(r"[`\"|]|  ", re.sub(r"'[^']*'|\{[^}]*\}", "", found["arguments"]))[0]
            assert not re.search(r"[][(*?]", arguments), f"{path.name}: {found[0]}"
            seen += 1
    assert seen > 60


def test_table_of_choices_names_every_choice_of_every_group(root: Path) -> None:
    rows = re.findall(r"^\| `([\w.`, ]+)` \| (.*?) \|", (root / "docs/choosing.md").read_text(), re.MULTILINE)
    told = {
        group: set(re.findall(r"`([\w.]+)`", names))
        for groups, names in rows
        for group in re.split("`, `", groups)
    }
    told["model"] |= {f"resnet{depth}_32x32" for depth in (18, 34, 50, 101, 152)}
    told["local_rule"] = told.pop("algorithm.local_rule")
    for group in ("client_optimizer", "server_optimizer"):
        told[group] = told["optimizer"]
    of_tables_of_their_own = {"attacker", "codec", "deployment", "hydra"}
    folders = {path.name: path for path in CONFIGS.iterdir() if path.is_dir()}
    assert told.keys() == folders.keys() - of_tables_of_their_own
    for group, names in told.items():
        assert {path.stem for path in folders[group].glob("*.yaml")} <= names, group
