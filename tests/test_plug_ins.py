"""Plug-ins as CONTRIBUTING.md prints them pass what walks over choices, with nothing else changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plug_ins import printed

COPIED = ("src", "hydra_config", "tests", "docs", ".ci")
FILES = ("*.md", "*.py", "*.yaml", "*.toml", "*.txt", "Makefile")
WALKING = {
    "tests/test_every_case.py": "has_a_case_that_runs_it",
    "tests/test_documentation.py": "quoted_for_the_shell",
    "tests/test_house.py": "rooms or named_in_strings",
    "tests/config/test_signature.py": "signature or annotations or targets",
    "tests/config/test_chosen_names.py": "told_from_a_class_of_ones_own",
    "tests/transport/test_plan.py": "make_every_choice or every_group",
}
"""Files whose tests walk over all choices, and words in the names of those that do."""
RUNNING = {
    "algorithm": ("tests/test_every_choice.py", "tests/transport/test_plan.py"),
    "model": ("tests/models",),
    "dataset": ("tests/data/test_every_combination.py",),
    "distribution": ("tests/data/test_every_combination.py",),
    "codec": ("tests/test_every_choice.py",),
    "tracker": ("tests/test_every_choice.py", "tests/trackers"),
}
"""Files with cases of a choice, which have its name."""


def test_examples_are_of_the_kinds_that_users_write_most_and_short(root: Path) -> None:
    examples = printed(root / "CONTRIBUTING.md")
    assert examples.keys() == RUNNING.keys()
    for files in examples.values():
        code, choice = files.values()
        assert len(code.splitlines()) <= 45
        (module,) = (path for path in files if path.endswith(".py"))
        target = module.removeprefix("src/").removesuffix(".py").replace("/", ".")
        assert choice.startswith(f"_target_: {target}.")


@pytest.mark.long
@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(list(RUNNING), id="together"),
        *(pytest.param([kind], id=kind) for kind in RUNNING),
    ],
)
def test_printed_plug_ins_pass_what_walks_over_choices(kinds: list[str], root: Path, tmp_path: Path) -> None:
    for folder in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "*.png", "*.pyc")
        shutil.copytree(root / folder, tmp_path / folder, ignore=ignored)
    for pattern in FILES:
        for file in root.glob(pattern):
            shutil.copy(file, tmp_path)
    examples = printed(root / "CONTRIBUTING.md")
    for kind in kinds:
        for path, content in examples[kind].items():
            (tmp_path / path).write_text(content)
    names = {kind: Path(next(iter(examples[kind]))).stem for kind in kinds}
    running = [file for kind in kinds for file in RUNNING[kind]]
    passed = _passed(tmp_path, [*WALKING, *running], " or ".join([*names.values(), *WALKING.values()]))
    for kind, name in names.items():
        own = [case for case in passed if name in case and case.startswith(RUNNING[kind])]
        assert own, f"no case of {name} has run"
    for file in WALKING:
        assert any(case.startswith(file) for case in passed), f"nothing of {file} has run"


def _passed(tree: Path, files: list[str], words: str) -> list[str]:
    """The cases that pass; fails where one does not."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    options = ["-q", "-rp", "--durations=0", "-p", "no:cacheprovider", "-n", "0", "-m", "", "-k", words]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *dict.fromkeys(files)],
        cwd=tree,
        env=own | {"PYTHONPATH": str(tree / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.removeprefix("PASSED ") for line in done.stdout.splitlines() if line.startswith("PASSED ")]
