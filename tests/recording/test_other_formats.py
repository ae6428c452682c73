"""Runs that another version left are refused in one line by whatever reads them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fedsplit.building.trained import TrainedRun
from fedsplit.building.trained_start import TrainedStart
from fedsplit.errors import UserError
from fedsplit.recording.config_file import FORMAT
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.reports.drawing import StoredRuns
from fedsplit.reports.notes import Notes
from fedsplit.reports.runs import read_run
from fedsplit.sweeps.record import RECORD, Job, fingerprint, write
from fedsplit.tasks.infer import Infer
from fedsplit.tasks.task import go_on
from tests.command_line import command_line
from tests.configurations import configuration
from tests.conftest import TINY, Configure
from tests.reports.stored import make_run


def of_format(path: Path, found: object) -> Path:
    """Give the number of another format to a run; None: none at all."""
    config = yaml.safe_load((path / "config.yaml").read_text("utf-8"))
    assert config.pop("format") == FORMAT
    kept = config if found is None else {"format": found, **config}
    (path / "config.yaml").write_text(yaml.safe_dump(kept), "utf-8")
    return path


def infer(path: Path) -> None:
    asked = configuration("task=infer", "precision=[fp32]", f"run={path}", "trust=true")
    asked.task.build(Infer).run(asked, path / "infer")


READERS: dict[str, Callable[[Path], object]] = {
    "resume": lambda path: go_on(path, {"trust": True}),
    "start": lambda path: TrainedStart.of(str(path)),
    "compare": lambda path: TrainedRun(path, device="cpu", threads=1, trust=True),
    "infer": infer,
    "figures": read_run,
}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "no format number"),
        (FORMAT + 1, f"format {FORMAT + 1}"),
        ("x", "format 'x'"),
        ([], "format []"),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_run_of_another_format_is_refused_by(
    reader: str, found: object, told: str, tmp_path: Path, configured: Configure
) -> None:
    make_run(tmp_path / "run")
    RunDirectory(tmp_path / "run").open(configured(*TINY).plain(), [])
    of_format(tmp_path / "run", found)
    with pytest.raises(UserError) as caught:
        READERS[reader](tmp_path / "run")
    expected = f"={tmp_path / 'run'}: its config.yaml has {told}; this version reads {FORMAT}"
    assert str(caught.value) == ("resume" if reader == "resume" else "run") + expected
    assert caught.value.exit_code == 2


def test_figures_of_a_folder_leave_runs_of_another_format_out_and_name_each(tmp_path: Path) -> None:
    kept = make_run(tmp_path / "kept")
    others = [of_format(make_run(tmp_path / name, seed=seed), 7) for seed, name in enumerate("ab", 1)]
    notes = Notes()
    runs = StoredRuns(notes).read_runs([str(tmp_path)], "RUN_DIR")
    assert [run.path for run in runs] == [kept]
    expected = [
        f"not drawn: run={path}: its config.yaml has format 7; this version reads {FORMAT}" for path in others
    ]
    assert notes.texts == expected
    with pytest.raises(UserError, match="has format 7"):
        StoredRuns(notes).read_runs([str(path) for path in others], "RUN_DIR")


def test_sweep_is_not_gone_on_with_where_a_run_of_it_has_another_format(
    tmp_path: Path, configured: Configure
) -> None:
    settings = configured(*TINY).plain()
    del settings["choices"]
    job = Job(0, "0", [], fingerprint(settings))
    write(tmp_path, [], [job])
    of_format(make_run(tmp_path / "0"), 7)
    before = (tmp_path / RECORD).read_bytes()
    asked = [*TINY, "seed=0,1", f"hydra.sweep.dir={tmp_path}", "sweep.skip_finished=true"]
    done = command_line("-m", *asked)
    assert done.returncode == 2
    told = f"hydra.sweep.dir={tmp_path / '0'}: its config.yaml has format 7; this version reads {FORMAT}"
    assert done.stderr == f"error: {told}\n"
    assert (tmp_path / RECORD).read_bytes() == before


def test_format_cannot_be_given_on_the_command_line() -> None:
    done = command_line(*TINY, f"+format={FORMAT}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: format={FORMAT}: no such key")
