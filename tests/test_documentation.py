"""The code in the documentation is run as it stands."""

import re
import shlex
from pathlib import Path

import torch
from safetensors.torch import load_file

from fedsplit.config.overrides import one_list
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


def test_library_example_of_the_readme_splits_a_model_into_halves_that_compute_the_whole(root: Path) -> None:
    (code,) = blocks(root / "README.md", "python")
    names: dict[str, object] = {}
    exec(code, names)
    model, halves = names["model"], names["halves"]
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(halves.server(halves.client(x)), model(x))  # type: ignore[attr-defined, operator]


def test_commands_of_the_readme_compose_to_the_choices_they_name(root: Path, configured: Configure) -> None:
    lines = re.findall(
        r"^    python main\.py(.*?)(?:#.*)?$", (root / "README.md").read_text("utf-8"), re.MULTILINE
    )
    commands = [shlex.split(line) for line in lines if "-m" not in line.split() and "resume=" not in line]
    assert len(commands) >= 4
    for overrides in commands:
        config = configured(*map(one_list, overrides))
        for override in overrides:
            key, _, value = override.partition("=")
            assert config["choices"].get(key, value) == value


SHOWN = (
    "README.md",
    "CONTRIBUTING.md",
    "BENCHMARKS.md",
    "docs/*.md",
    "hydra_config/**/*.yaml",
    "src/**/*.py",
    ".ci/run",
)
"""Where commands are shown to be typed, or to be run."""


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
