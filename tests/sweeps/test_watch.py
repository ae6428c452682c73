"""What is told and shown of jobs is compared with what they have written."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fedsplit.sweeps.record import Job
from fedsplit.sweeps.status import STATUSES, Progress, Status, progress_of, write_status
from fedsplit.sweeps.watch import JobRow, Watch, narrow, rows_that_fit

METRICS = "round,test_accuracy,load,seconds.clients,seconds.server\n"


def row(number: int, state: str) -> JobRow:
    return JobRow(number, "", state, 1, None, "")  # type: ignore[arg-type]


def test_watch_shows_each_job_as_far_as_its_run_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [Job(n, str(n), ["rounds=9", f"seed={n}"], str(n)) for n in range(5)]
    for number in (0, 1, 2, 3):
        (tmp_path / str(number)).mkdir()
    (tmp_path / STATUSES).mkdir()
    result = {"rounds_run": 9, "final_accuracy": 0.5, "load": 3_000_000, "seconds": 1.5}
    for number in (0, 1):
        (tmp_path / str(number) / "results.json").write_text(json.dumps(result))
    for number in (2, 3):
        (tmp_path / f"{number}/metrics.csv").write_text(
            METRICS + "0,0.25,1000000,1,2\n1,,2000000,0.5,0.5\n2,"
        )
    watch = Watch(tmp_path, jobs, [9] * 5, ["results.json"] * 5, skipped={0}, live=False)
    with watch.watching():
        for number, status in ((1, Status("done")), (2, Status("running")), (3, Status("failed", "no luck"))):
            write_status(tmp_path / STATUSES, number, status)
    states = [(each.state, each.remark) for each in watch.rows]
    assert states[:3] == [
        ("skipped", str(tmp_path / "0")),
        ("done", str(tmp_path / "1")),
        ("running", str(tmp_path / "2")),
    ]
    assert states[3:] == [("failed", "no luck"), ("waiting", str(tmp_path / "4"))]
    done = watch.rows[1].progress
    assert done is not None
    assert (done.rounds, done.accuracy, done.load, done.seconds) == (9, 0.5, 3_000_000, 1.5)
    watch.fail_unfinished("power cut")
    assert watch.failed_count() == 3
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "error: job 3 (seed=3): no luck",
        "error: job 2 (seed=2): power cut",
        "error: job 4 (seed=4): not run: power cut",
    ]
    assert said.out.splitlines() == [
        "job 1 (seed=1) starts",
        "job 1 (seed=1) done: 9/9 rounds, accuracy 0.5000, 3.00 MB, 1.5 s",
        "job 2 (seed=2) starts",
        "job 3 (seed=3) starts",
    ]


@pytest.mark.parametrize(
    ("width", "terminal", "failing", "directories"),
    [(80, True, False, False), (80, True, True, True), (160, True, False, True), (80, False, False, True)],
)
def test_table_at_the_end_of_a_sweep_is_one_where_directories_say_nothing_new(
    tmp_path: Path, width: int, terminal: bool, failing: bool, directories: bool
) -> None:
    """On a narrow terminal they would only be the numbers of jobs below the directory of the sweep."""
    jobs = [
        Job(n, str(n), ["algorithm=splitfed_v2", "distribution=dirichlet", f"seed={n}"], str(n))
        for n in (0, 1)
    ]
    watch = Watch(Path("saves/mine"), jobs, [9] * 2, ["results.json"] * 2, skipped={0, 1}, live=False)
    if failing:
        watch._rows[1] = replace(watch._rows[1], state="failed", remark="saves/mine/1: no luck")
    out = io.StringIO()
    watch._console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    watch.show()
    assert ("saves/mine/0" in out.getvalue()) == directories
    assert ("no luck" in out.getvalue()) == failing
    assert "skipped" in out.getvalue()


def test_watch_shows_a_job_without_a_result_as_failed(tmp_path: Path) -> None:
    (tmp_path / STATUSES).mkdir()
    watch = Watch(tmp_path, [Job(0, "0", [], "0")], [9], ["results.json"], skipped=set(), live=False)
    with watch.watching():
        write_status(tmp_path / STATUSES, 0, Status("done"))
    assert [(each.state, each.remark) for each in watch.rows] == [("failed", "it left no results.json")]


def test_table_of_jobs_shows_running_and_failed_ones_first_where_not_all_fit() -> None:
    states = ("done", "failed", "done", "running", "waiting", "skipped")
    rows = [row(number, state) for number, state in enumerate(states)]
    assert [each.number for each in rows_that_fit(rows, 3)] == [1, 3, 4]
    assert rows_that_fit(rows, 10) == rows


def test_progress_of_a_run_has_its_last_accuracy_and_the_bytes_and_seconds_of_all_rounds(
    tmp_path: Path,
) -> None:
    names = "round,test_accuracy,load,seconds.clients,seconds.server"
    rows = (names, "0,0.9,10,1.5,1", "1,0.8,20,2,0.5", "2,,30,1,1")
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    assert progress_of(tmp_path) == Progress(rounds=3, accuracy=0.8, load=30, seconds=7.0)


@pytest.mark.parametrize(("width", "directories"), [(80, False), (160, True)])
def test_live_table_of_jobs_shows_states_and_numbers_whole_at_any_width(
    width: int, directories: bool
) -> None:
    progress = Progress(12, 0.875, 1_234_560_000, 61.5)
    overrides = "algorithm=splitfed_v2 model=resnet18 distribution.alpha=0.1 seed=2"
    rows = [JobRow(number, overrides, "running", 20, progress, "saves/multirun/now/1") for number in range(3)]
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(narrow(rows, "3 running", width))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    for word in ("job", "state", "rounds", "accuracy", "MB", "seconds"):
        assert sum(word in line for line in lines) == 1
    for word in ("running │", "12/20", "0.8750", "1,234.56", "61.5", "algorithm=spl"):
        assert sum(word in line for line in lines) == 3, word
    assert any("saves/multirun/now/1" in line for line in lines) == directories
