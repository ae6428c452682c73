"""Workers that Ray starts on this machine: the same bits, nothing beyond loopback, nothing left behind."""

import socket
import time
from pathlib import Path

import pytest
import ray
import torch
from ray.exceptions import ActorDiedError, OutOfMemoryError

from fedsplit.cluster import ray_workers
from fedsplit.cluster.ray_workers import RayWorkers, lost_reason
from fedsplit.errors import RunFailed, UserError
from fedsplit.parties.spread.engine import SpreadEngine
from fedsplit.parties.workers import Needs, WorkerLost, WorkerSize
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


def workers(address: str | None) -> RayWorkers:
    size = WorkerSize(workers=2, least=1, deadline_s=5.0, cpus=1, gpus=0)
    return RayWorkers(address, size, Needs(threads=1, device=torch.device("cpu"), cohort_bytes=0), None)


def test_address_where_no_cluster_is_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address, told in ((f"127.0.0.1:{port}", "nothing listens at"), ("local", "null starts a cluster")):
        began = time.monotonic()
        with pytest.raises(UserError, match=f"^cluster.address={address}: no cluster of Ray .*{told}"):
            workers(address).start(dict)
        assert time.monotonic() - began < 10  # Ray asks for 14 minutes, or starts one that is not on loopback


def test_cluster_that_ray_cannot_start_is_a_failed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    told = "Ray does not start on this machine: The current node timed out during startup"
    refused = workers(None)
    with pytest.raises(RunFailed, match=told):
        refused.start(dict)
    refused.stop()


def test_cluster_beyond_loopback_is_joined_only_where_it_asks_for_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = ["127.0.0.1"]
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray_workers, "look_for_listener", lambda *_: None)
    monkeypatch.setattr(ray_workers, "_nodes", lambda: [{"NodeManagerAddress": place} for place in places])
    joined = workers("10.0.0.5:6379")
    monkeypatch.setattr(joined, "_wait_for_start", lambda *_: ({0: "a", 1: "a"}, {}))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(joined, "_wait_for_room", lambda: 2)
    joined.start(dict)
    places.append("10.0.0.5")
    with pytest.raises(UserError, match=r"^cluster.address=10.0.0.5:6379: beyond loopback .* a token"):
        joined.start(dict)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    joined.start(dict)


LOW_MEMORY = "Ray's memory monitor ended it, since memory of its node ran low, whoever took it"


def test_workers_that_end_as_they_begin_are_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = workers("somewhere")
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(begun, "_connect", lambda data: None)
    monkeypatch.setattr(begun, "_wait_for_room", lambda: 2)
    few = "0 of 2 workers began"
    for ended, kind, told in (
        ({0: LOW_MEMORY}, RunFailed, f"^{few}, .*; worker 0 ended as it began: {LOW_MEMORY}$"),
        ({}, UserError, f"^cluster.start_deadline_s=5.0: {few} in that time, and cluster.min_workers is 1$"),
    ):
        monkeypatch.setattr(begun, "_wait_for_start", lambda *_, ended=ended: ({}, ended))
        with pytest.raises(kind, match=told):
            begun.start(dict)


class Ended:
    """A handle of an actor that the memory monitor has ended; it answers each method with itself."""

    def __getattr__(self, method: str) -> "Ended":
        return self

    def remote(self, *_: object) -> "Ended":
        return self


def test_worker_that_the_memory_monitor_ended_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(_: object) -> None:
        raise OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.")

    harmed, ended = workers(None), Ended()
    harmed._actors = {1: ended}
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", lambda handles, **_: (handles, []))
    monkeypatch.setattr(ray, "cancel", lambda *_, **__: None)
    monkeypatch.setattr(ray, "kill", lambda _: None)
    with pytest.raises(WorkerLost, match=f"^worker 1 of the cluster was lost: {LOW_MEMORY}$"):
        harmed.gather([harmed.ask(1, "weights")])
    ends: tuple[dict[int, str], dict[int, str]] = ({}, {1: LOW_MEMORY})
    came: list[tuple[dict[int, str], dict[int, str]]] = [ends, ({1: "node"}, {})]

    def start(lost: list[int], within: float) -> tuple[dict[int, str], dict[int, str]]:
        assert lost == [1]
        nodes, reasons = came.pop(0) if came else ends
        harmed._actors = dict.fromkeys(nodes, ended)
        return nodes, reasons

    monkeypatch.setattr(harmed, "_wait_for_start", start)
    harmed.recover()
    assert (harmed.present, harmed.summary.lost) == ([1], 1)
    monkeypatch.setattr(ray_workers, "_RETURN_S", 0.1)
    with pytest.raises(RunFailed, match=f"^workers left: 0, .*; worker 1 ended as it began: {LOW_MEMORY}"):
        harmed.recover()  # nobody was asked anything since, and it is gone again


def test_jobs_of_a_sweep_that_would_each_take_all_of_this_machine_are_refused() -> None:
    told = command_line("-m", "seed=0,1", "cluster=ray")
    assert told.returncode == 2
    assert "must be 1 with cluster=ray: a job takes all cores of this machine" in told.stderr
