"""What is equal to the last bit, where no other test says it; tests that the documentation names exist."""

import re
from pathlib import Path

import pytest

from tests.command_line import command_line
from tests.conftest import TINY
from tests.transport.runs import assert_same

ASKED = [*TINY, "algorithm=fsl_sage", "rounds=3", "quant=int4", "cohort_size=2"]
"""With draws of clients, batches and rounding, an alignment, and state that outlives rounds."""


def ran(*overrides: str) -> None:
    done = command_line(*ASKED, *overrides)
    assert (done.returncode, done.stderr) == (0, "")


def test_same_command_twice_leaves_the_same_bits(tmp_path: Path) -> None:
    for name in ("one", "other"):
        ran(f"hydra.run.dir={tmp_path / name}")
    assert_same(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize("jobs", [1, 2])
def test_jobs_of_a_sweep_leave_the_bits_of_single_runs(tmp_path: Path, jobs: int) -> None:
    ran("-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}", f"hydra.launcher.n_jobs={jobs}")
    ran("seed=1", f"hydra.run.dir={tmp_path / 'alone'}")
    assert_same(tmp_path / "sweep" / "1", tmp_path / "alone")


def test_tests_that_the_table_of_equal_bits_names_exist(root: Path) -> None:
    page = (root / "docs" / "assumptions.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) >= 10
    for file, name in named:
        assert re.search(rf"^def {name}\(", (root / file).read_text("utf-8"), re.MULTILINE), name
