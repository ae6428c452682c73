from pathlib import Path

from fedsplit.reports.runs import runs_at
from tests.reports.stored import make_run


def test_runs_are_found_at_any_depth_and_what_stands_beside_them_is_named(tmp_path: Path) -> None:
    deep = [make_run(tmp_path / "multirun" / "today" / "noon" / job) for job in ("0", "2")]
    (tmp_path / "multirun" / "today" / "noon" / "1").mkdir()
    (tmp_path / "plots").mkdir()
    single = make_run(tmp_path / "fsl_sage" / "iid" / "a")
    (single / "checkpoint").mkdir()
    found = runs_at(str(tmp_path), "runs")
    assert found.runs == (single, *deep)
    assert found.others == (tmp_path / "multirun" / "today" / "noon" / "1",)
    assert runs_at(str(tmp_path / "multi*" / "*"), "runs").runs == tuple(deep)
    assert runs_at(str(single), "runs").runs == (single,)
    assert runs_at(str(tmp_path / "plots"), "runs").runs == ()
    assert runs_at(str(tmp_path / "gone"), "runs").runs == ()


def test_finding_runs_ends_where_a_link_leads_back(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert runs_at(str(tmp_path), "runs").runs == (run,)


def test_finding_runs_leaves_out_hidden_folders_of_a_sweep(tmp_path: Path) -> None:
    job = make_run(tmp_path / "sweep" / "0")
    make_run(tmp_path / "sweep" / ".jobs" / "0")
    found = runs_at(str(tmp_path), "runs")
    assert (found.runs, found.others) == ((job,), ())
