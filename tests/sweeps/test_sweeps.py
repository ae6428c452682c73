"""Sweeps as their users meet them: real processes, killed ones among them."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cases import long_but
from tests.command_line import command_line
from tests.conftest import TINY
from tests.processes.living import alive, descendants, until
from tests.sweeps.processes import command, results, sweep, table
from tests.transport.processes import Command

FATES = """
import os
from torch import nn
from fedsplit.models.zoo.digits_cnn import digits_cnn

def net(*, num_classes, channels, image_size, fate) -> nn.Module:
    if fate == "killed":
        os.kill(os.getpid(), 9)
    if fate == "aborted":
        os.abort()
    if fate == "lost":  # what runs the process that runs jobs
        os.kill(int(open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1]), 9)
    if fate == "raised":
        raise AssertionError("first words\\nlast words")
    return digits_cnn(num_classes=num_classes, channels=channels, image_size=image_size)
"""


def test_sweep_names_jobs_that_die_and_runs_the_others(tmp_path: Path) -> None:
    (tmp_path / "fates.py").write_text(FATES)
    fates = "+model.fate=killed,lives,aborted,raised"
    done = sweep(tmp_path, "algorithm=fed_avg", "model._target_=fates.net", "rounds=1", fates)
    assert done.returncode == 3, done.stderr
    directory = done.stdout.splitlines()[-1]
    told = sorted(done.stderr.splitlines()[:-1])
    assert told[0] == "error: job 0 (+model.fate=killed): killed by SIGKILL: out of memory?"
    log = tmp_path / directory / ".jobs/2.log"
    assert told[1] == f"error: job 2 (+model.fate=aborted): killed by SIGABRT; see {log}"
    assert told[2].startswith("error: job 3 (+model.fate=raised): ")
    assert told[2].endswith("last words")
    assert len(told) == 3
    assert done.stderr.splitlines()[-1] == f"error: 3 of 4 jobs failed; the others are in {directory}"
    assert "Aborted" in log.read_text()
    assert "fates.py" in log.read_text()
    states = {row[0]: row[2] for row in table(done.stdout)}
    assert states == {"0": "failed", "1": "done", "2": "failed", "3": "failed"}


def test_killed_sweep_is_resumed_by_the_same_command_to_the_results_of_undisturbed_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["algorithm=fsl_sage", "checkpoint_interval=5", "rounds=1,50"]
    monkeypatch.chdir(tmp_path)
    process = Command(["-m", *TINY, "hydra.launcher.n_jobs=1", *asked], tmp_path / "killed.txt")
    try:
        until(lambda: list(tmp_path.glob("saves/multirun/*/*/1/checkpoint/round-*5")))
        until(lambda: list(tmp_path.glob("saves/multirun/*/*/0/results.json")))
        born = descendants(process.pid)
    finally:
        process.kill()
    until(lambda: not alive(born))
    (directory,) = tmp_path.glob("saves/multirun/*/*")
    finished = {path.parent.name for path in directory.glob("*/results.json")}
    assert finished == {"0"}
    untouched = {path: path.stat().st_mtime_ns for each in finished for path in (directory / each).rglob("*")}

    again = sweep(tmp_path, *asked, "sweep.skip_finished=true")
    assert again.returncode == 0, again.stderr
    shown = str(directory.relative_to(tmp_path))
    assert again.stdout.splitlines()[0] == f"going on with the sweep in {shown}"
    assert again.stdout.splitlines()[-1] == shown
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    log = (directory / "1/run.log").read_text()
    assert log.count("round    0 ") == 1  # it went on from its checkpoint
    assert log.count(" rounds, 3 clients, on cpu") == 2
    rows = {row[0]: row for row in table(again.stdout)}
    assert {number: row[2] for number, row in rows.items()} == {"0": "skipped", "1": "done"}

    for (number, row), rounds in zip(rows.items(), (1, 50), strict=True):
        alone = tmp_path / "undisturbed" / number
        undisturbed = command_line(*TINY, *asked[:2], f"rounds={rounds}", f"hydra.run.dir={alone}")
        assert undisturbed.returncode == 0, undisturbed.stderr
        assert results(directory / number) == results(alone)
        written = json.loads((directory / number / "results.json").read_text())
        assert row[3:6] == [
            f"{written['rounds_run']}/{written['rounds_run']}",
            f"{written['final_accuracy']:.4f}",
            f"{written['load'] / 1e6:,.2f}",
        ]


@pytest.mark.long  # what is skipped and what is new of a sweep: tests/sweeps/test_record.py
def test_sweep_with_one_more_value_runs_only_its_jobs_in_the_same_directory(tmp_path: Path) -> None:
    place = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    first = sweep(tmp_path, "rounds=1", "algorithm=fed_avg", "seed=0", place)
    assert first.returncode == 0, first.stderr
    refused = sweep(tmp_path, "rounds=1", "algorithm=fed_avg", "seed=0", place)
    assert refused.returncode == 2
    told = f"error: {place}: holds a sweep; sweep.skip_finished=true goes on with it\n"
    assert refused.stderr == told
    more = [
        "seed=1,0",
        "algorithm=fed_avg",
        "rounds=1",
        "sweep.skip_finished=true",
        place,
    ]  # in other words
    second = sweep(tmp_path, *more)
    assert second.returncode == 0, second.stderr
    states = [(row[0], row[1], row[2]) for row in table(second.stdout)]
    assert states == [("0", "seed=0", "skipped"), ("1", "seed=1", "done")]
    config = yaml.safe_load((tmp_path / "sweep/1/config.yaml").read_text())
    assert config["seed"] == 1
    assert "sweep" not in config


@pytest.mark.parametrize("at_once", long_but([2], [1, 2]))
def test_interrupted_sweep_leaves_no_process_behind(root: Path, tmp_path: Path, at_once: int) -> None:
    asked = command(root, "rounds=100000", "seed=0,1", f"hydra.launcher.n_jobs={at_once}")
    process = subprocess.Popen(
        asked,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until(lambda: len(list(tmp_path.glob("saves/multirun/*/*/*/metrics.csv"))) == at_once)
        born = descendants(process.pid)
        assert len(born) >= 2 * at_once
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert told.splitlines()[-1].startswith("interrupted; ")
    until(lambda: not alive(born))


@pytest.mark.long  # each of the two is in every run, and so is each transport
def test_jobs_of_a_sweep_give_over_grpc_what_they_give_in_one_process(tmp_path: Path) -> None:
    asked = ["rounds=2", "algorithm=splitfed_v1", "quant=int8", "engine=sequential", "transport=grpc,local"]
    done = sweep(tmp_path, *asked, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "sweep/0") == results(tmp_path / "sweep/1")


@pytest.mark.long  # the jobs are those of any sweep, on another launcher
@pytest.mark.parametrize("fates", ["raised,lives", "lost,lives"])
def test_sweep_on_a_cluster_launcher_runs_the_same_jobs_and_waits_for_all(tmp_path: Path, fates: str) -> None:
    pytest.importorskip("submitit", reason="the extra 'slurm' is not installed")
    (tmp_path / "fates.py").write_text(FATES)
    asked = [*TINY, "rounds=1", "algorithm=fed_avg", "model._target_=fates.net"]
    asked += ["hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = command_line("-m", *asked, f"+model.fate={fates}", cwd=tmp_path)
    assert done.returncode == 3
    assert {row[0]: row[2] for row in table(done.stdout)} == {"0": "failed", "1": "done"}
    assert f"error: job 0 (+model.fate={fates.partition(',')[0]}): " in done.stderr
    alone = command_line(*TINY, "rounds=1", "algorithm=fed_avg", f"hydra.run.dir={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr
    assert results(tmp_path / "sweep/1") == results(tmp_path / "alone")
