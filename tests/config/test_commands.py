"""Commands that are printed are those by which a process was started."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fedsplit.config.commands import command, compare_command, resume_command


@pytest.mark.parametrize(
    ("program", "run", "plot"),
    [
        ("main.py", "python main.py", "python plot_results.py"),
        ("/a/checkout/plot_results.py", "python main.py", "python plot_results.py"),
        ("/a/notebook/kernel.py", "python main.py", "python plot_results.py"),  # of this checkout
        ("/usr/bin/fedsplit", "fedsplit", "fedsplit-plot"),
        ("/usr/bin/fedsplit-plot", "fedsplit", "fedsplit-plot"),
        ("/another/__main__.py", "python main.py", "python plot_results.py"),
    ],
)
def test_printed_command_is_the_one_that_was_used(
    monkeypatch: pytest.MonkeyPatch, program: str, run: str, plot: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    assert command() == run
    assert command(name="fedsplit-plot") == plot


def test_module_that_is_run_names_itself_in_its_help_and_in_what_is_to_be_pasted(
    root: Path, tmp_path: Path
) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "fedsplit", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "\n  python -m fedsplit resume=saves/...  " in shown.stdout
    assert "main.py" not in shown.stdout


def test_shell_reads_the_arguments_of_a_printed_command_as_they_are() -> None:
    arguments = ["-m", "resume=my run", "a='b'", "seed=0,1"]
    assert shlex.split(command(*arguments)) == ["python", "main.py", *arguments]


@pytest.mark.parametrize(
    ("given", "trusted"),
    [
        ("model._target_=nets.Net", True),
        ("+model._target_=nets.Net", True),
        ("model.auxiliary=nets.Head", True),
        ("trust=true", True),
        ("trust=false", False),
        ("run=model._target_=x", False),
        ("model=resnet18", False),
    ],
)
def test_commands_that_follow_trust_a_run_only_where_its_own_command_named_code(
    monkeypatch: pytest.MonkeyPatch, given: str, trusted: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py", "rounds=2", given])
    for line in (resume_command(Path("saves/a")), compare_command(Path("saves/a"))):
        assert ("trust=true" in line) is trusted
