"""Workers that Ray starts on this machine: the same bits, nothing beyond loopback, nothing left behind."""

import time
from pathlib import Path

from ray.exceptions import ActorDiedError, OutOfMemoryError

from fedsplit.cluster.ray_workers import lost_reason
from fedsplit.parties.spread.engine import SpreadEngine
from tests.cluster.ray_processes import LOOPBACK, listening, marked, processes
from tests.cluster.test_same_results import built, differing, in_one_process, settings_of, trained
from tests.command_line import command_line

RAY = ("cluster=ray", "cluster.workers=2")


def gone(mark: str, within: float) -> bool:
    until = time.monotonic() + within
    while processes(mark) and time.monotonic() < until:
        time.sleep(0.1)
    return not processes(mark)


def test_run_over_workers_of_ray_leaves_the_bits_of_one_process_and_no_process() -> None:
    settings = settings_of("fsl_sage", "int8", "sequential")
    with marked() as mark:
        run = built(*settings, *RAY)
        engine = run.parts.engine
        assert isinstance(engine, SpreadEngine)
        with run.transport.open(Path()):
            places = listening(list(processes(mark)))
            state = trained(run, opened=True)
        summary = engine.summary
    assert differing(state, in_one_process(settings)) == []
    assert places
    assert places <= LOOPBACK
    assert (summary.workers, summary.nodes, summary.lost) == (2, 1, 0)
    assert all(seconds > 0 for seconds in summary.busy_seconds.values())
    assert gone(mark, within=20)


def test_worker_that_the_memory_monitor_ended_is_told_as_that_and_no_other_is() -> None:
    killed = "1 worker(s) were killed due to the node running low on memory. Memory on the node was 95%."
    assert "memory monitor ended it" in lost_reason(OutOfMemoryError(killed))
    ended = "The actor died: (1) the process was killed by the OOM killer due to high memory usage"
    assert lost_reason(ActorDiedError()).startswith("The actor died unexpectedly")
    assert "memory monitor" not in lost_reason(OSError(ended))


def test_jobs_of_a_sweep_that_would_each_take_all_of_this_machine_are_refused() -> None:
    told = command_line("-m", "seed=0,1", "cluster=ray")
    assert told.returncode == 2
    assert "must be 1 with cluster=ray: a job takes all cores of this machine" in told.stderr
