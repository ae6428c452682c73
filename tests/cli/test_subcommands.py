"""`ls`, `show` and `copy`, the summary at the end of a run, and completion in a shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsplit.config.choices import CONFIGS
from fedsplit.recording.run_lock import RunLock
from fedsplit.reports.runs import read_run
from fedsplit.reports.summary import next_commands
from tests.command_line import ROOT, command_line
from tests.reports.chosen import store_run


def test_list_has_a_row_for_each_run_below_a_folder_with_its_state(tmp_path: Path) -> None:
    store_run(tmp_path / "saves" / "a", accuracy=(0.5, 0.9), rounds=2)
    store_run(tmp_path / "saves" / "sweep" / "0", "fed_avg", accuracy=(0.25,), ended=False, rounds=7)
    lock = RunLock(store_run(tmp_path / "saves" / "b", "cse_fsl", accuracy=(0.5,), ended=False), "run")
    lock.take()
    (store_run(tmp_path / "saves" / "damaged") / "metrics.csv").write_text("round\n", "utf-8")
    done = command_line("ls", cwd=tmp_path)
    lock.release()
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines()[3:-1]]
    listed = {row[0]: (row[1], *row[5:]) for row in rows}
    assert listed == {
        "saves/a": ("fsl_sage", "0", "2 of 2", "90.0", "2.00", "finished"),
        "saves/b": ("cse_fsl", "0", "1 of ?", "50.0", "1.00", "running"),
        "saves/sweep/0": ("fed_avg", "0", "1 of 7", "25.0", "1.00", "stopped"),
    }
    assert done.stderr.splitlines() == [
        "left out: run=saves/damaged: metrics.csv must have the columns round and load"
    ]
    (tmp_path / "elsewhere").mkdir()
    assert command_line("ls", "elsewhere", cwd=tmp_path).stdout == "no runs below elsewhere\n"
    assert command_line("ls", cwd=tmp_path / "elsewhere").stdout == "no runs below saves\n"


def test_summary_tells_what_a_run_reached_and_how_to_go_on(tmp_path: Path) -> None:
    store_run(tmp_path / "ended", accuracy=(0.5, 0.85, 0.75), rounds=3)
    store_run(tmp_path / "killed", accuracy=(0.5,), ended=False)
    shown = command_line("show", "ended", cwd=tmp_path).stdout
    cells = [line.split("│")[1:3] for line in shown.splitlines() if line.startswith("│")]
    summary = {name.strip(): value.strip() for name, value in cells}
    assert summary["Final accuracy (%)"] == "75.0"
    assert summary["Best accuracy (%)"] == "85.0"
    assert summary["Load to 80% (MB)"] == "2.00"
    assert summary["Load to 90% (MB)"] == "not reached"
    assert "task=compare run=ended" in shown
    assert "resume=ended rounds=6" in shown
    assert shown.splitlines()[-1] == "ended"
    assert "resume=killed" in command_line("show", "killed", cwd=tmp_path).stdout


def test_summary_names_a_client_whose_model_is_compared_and_no_model_that_is_not_deployed(
    tmp_path: Path,
) -> None:
    runs = {name: store_run(tmp_path / name, "splitfed_v3", accuracy=(0.5,)) for name in ("shared", "own")}
    for path in runs.values():
        (path / "model").mkdir()
    for client in (7, 12):
        (runs["own"] / "model" / f"server-{client}.safetensors").touch()
        (runs["shared"] / "model" / f"auxiliary-{client}.safetensors").touch()
    store_run(tmp_path / "tail", "splitfed_v1", accuracy=(0.5,), model={"tail_cut": "relu3"})
    told = {
        name: " ".join(line for _, line in next_commands(read_run(tmp_path / name)))
        for name in ("shared", "own", "tail")
    }
    assert "task=compare" in told["shared"]
    assert "task.client" not in told["shared"]
    assert f"task=compare run={tmp_path / 'own'} task.client=7" in told["own"]
    assert "task=compare" not in told["tail"]


def test_run_ends_with_its_summary_unless_it_is_silent_and_its_directory_last(tmp_path: Path) -> None:
    tiny = ("rounds=1", "num_clients=2", "dataset.max_train=20", "dataset.max_test=10", "hydra.run.dir=run")
    done = command_line(*tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Final accuracy (%)" in done.stdout
    assert done.stdout.splitlines()[-1] == "run"
    silent = command_line("resume=run", "rounds=2", "progress=false", cwd=tmp_path)
    assert silent.stdout == "run\n", silent.stderr


def test_copied_choice_is_run_as_the_copy_says(tmp_path: Path) -> None:
    done = command_line("copy", "experiment/paper_cifar10", "own/experiment/mine.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    copied = (tmp_path / "own" / "experiment" / "mine.yaml").read_text("utf-8")
    assert copied == (CONFIGS / "experiment" / "paper_cifar10.yaml").read_text("utf-8")
    path, line = done.stdout.splitlines()
    assert path == "own/experiment/mine.yaml"
    assert line.endswith("--config-dir=own experiment=mine")
    elsewhere = command_line("copy", "optimizer/adam", "mine.yaml", cwd=tmp_path)
    assert "put it into OWN/optimizer/" in elsewhere.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("copy", "experiment/none", "mine.yaml"), "copy=experiment/none: the choices of experiment are "),
        (("copy", "none/adam", "mine.yaml"), "copy=none/adam: must be GROUP/CHOICE with a group of adapter,"),
        (("copy", "optimizer/../config", "mine.yaml"), "copy=optimizer/../config: must be GROUP/CHOICE"),
        (("copy", "optimizer/adam", "mine.txt"), "copy=mine.txt: must be a file whose name ends with .yaml"),
        (("copy", "optimizer/adam", "there.yaml"), "copy=there.yaml: cannot be written (File exists)"),
        (("ls", "nowhere"), "ls=nowhere: there is no such folder"),
        (("show", "nowhere"), "must be the directory of a run"),
        (("show",), "arguments=show: the following arguments are required: RUN"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    (tmp_path / "there.yaml").touch()
    done = command_line(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr
    assert (tmp_path / "there.yaml").read_text() == ""


@pytest.mark.parametrize(
    ("typed", "completion"),
    [("algorithm=fsl", "algorithm=fsl_sage"), ("auxiliary.align_t", "auxiliary.align_tolerance=")],
)
def test_shell_completes_choices_and_keys(typed: str, completion: str) -> None:
    line = f"python main.py {typed}"
    environment = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, "main.py", "-sc", "query=bash"]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == [completion], done.stderr
