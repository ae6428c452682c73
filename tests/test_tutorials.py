"""Tutorials, followed in an empty folder: their files are written and their commands typed, in order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import ROOT, command_line

PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
_BLOCK = re.compile(
    r'^```(?P<kind>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)


def typed(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    program, *arguments = shlex.split(line)
    if program == "python" and arguments[0] in ("main.py", "plot_results.py"):
        return command_line(*arguments[1:], cwd=folder, program=arguments[0])
    command = [sys.executable if program == "python" else program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tutorial_works_as_it_is_written(page: Path, tmp_path: Path) -> None:
    commands = 0
    for block in _BLOCK.finditer(page.read_text("utf-8")):
        if block["file"] is not None:
            file = tmp_path / block["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["text"], "utf-8")
            continue
        assert block["kind"] == "bash", block["text"]
        for line in block["text"].splitlines():
            done = typed(line, tmp_path)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            commands += 1
    assert commands > 1
