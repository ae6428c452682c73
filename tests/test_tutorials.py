"""README and tutorials, followed in an empty folder: files are written and commands typed, in order."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import ROOT, command_line
from tests.followed import Cell, Command, ShownFile, Step, follow, steps_of_readme, steps_of_tutorial, write
from tests.warm import import_language_models

PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tutorial_can_be_followed_on_little_data(page: Path, tmp_path: Path) -> None:
    steps = steps_of_tutorial(page.read_text("utf-8"))
    assert sum(isinstance(step, Command) for step in steps) > 1
    if page.stem == "language-model":
        import_language_models()
    follow(steps, tmp_path)


def test_commands_of_the_readme_run_on_little_data(tmp_path: Path) -> None:
    steps = steps_of_readme((ROOT / "README.md").read_text("utf-8"))
    assert len(steps) > 6
    follow(steps, tmp_path)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (
            [ShownFile("a.py", "import no_such_module"), Command("python a.py")],
            "No module named 'no_such_mod",
        ),
        ([Command("python main.py rounds=none")], "error: rounds=none: must be a whole number"),
        ([Command("python main.py -m seed=0,1 quant=int9")], "error: quant=int9: no such choice"),
        ([Command("python plot_results.py saves --y cost")], "error: RUN_DIR=saves: "),
        ([Command("cmp a b")], "cmp: a: No such file"),
        (
            [Cell("import fedsplit\nfedsplit.run(algorithm='fsl_sag')")],
            "algorithm=fsl_sag: no such choice",
        ),
        ([Cell("assert 1 > 2")], "AssertionError"),
    ],
    ids=["file", "value", "sweep", "figure", "other program", "run", "cell"],
)
def test_step_that_fails_is_told(steps: list[Step], told: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as failed:
        follow(steps, tmp_path)
    assert told in str(failed.value)


def typed(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    program, *arguments = shlex.split(line)
    if program == "python" and arguments[0] in ("main.py", "plot_results.py"):
        return command_line(*arguments[1:], cwd=folder, program=arguments[0])
    command = [sys.executable if program == "python" else program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tutorial_works_as_it_is_written(page: Path, tmp_path: Path) -> None:
    for step in steps_of_tutorial(page.read_text("utf-8")):
        match step:
            case ShownFile():
                write(step, tmp_path)
            case Command(line):
                done = typed(line, tmp_path)
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
