"""Files of runs and deployed models run no code, whatever is in them."""

import os
import subprocess
from importlib import import_module

import pytest

from tests.hostile_files import MARK, SECRET, Files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Of one canary, for it hears the process for good."""
    return Files(tmp_path_factory.mktemp("hostile") / "files")


def test_canary_hears_whatever_hostile_files_try(files: Files) -> None:
    with files.canary.watching():
        os.environ.get(SECRET)
        import_module(MARK)
        (files.folder.parent / "elsewhere").write_text("")
        (files.folder / "here").write_text("")
        subprocess.run(["true"], check=True)
        compile(f"{MARK} = 1", "x", "exec")
    heard = sorted(hit.partition(" ")[0] for hit in files.canary.hits)
    assert heard == ["compile", "environment:", "exec", "open", "subprocess.Popen"]
    assert files.canary.hits[f"environment: {SECRET}"] == 2  # the module looks it up too
    files.canary.hits.clear()


def test_nothing_that_hostile_files_try_happens_and_all_are_refused_in_a_line_or_read(files: Files) -> None:
    assert (files.tally.refused, files.tally.tracebacks) == (0, [])
    assert files.tally.accepted > 10
    for _ in range(20):
        files.case()
    tally = files.tally
    assert not files.canary.hits
    assert not tally.tracebacks
    assert not tally.long_errors
    assert tally.cases == 20
    assert tally.refused
