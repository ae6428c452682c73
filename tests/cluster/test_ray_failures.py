"""What is lost on a cluster of Ray: workers, nodes, the driver; and clusters of others beside it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedsplit.errors import UserError
from fedsplit.recording.run_directory import RunDirectory
from tests.cluster.ray_processes import marked, processes
from tests.cluster.test_lost_workers import SETTINGS, finished, left, undisturbed
from tests.cluster.test_ray import RAY, gone
from tests.cluster.test_same_results import built, differing, over
from tests.conftest import TINY

pytestmark = pytest.mark.long

FED_AVG = ("algorithm=fed_avg", "quant=int8")
NICENESS = "RAY_worker_niceness"


def actors(mark: str) -> list[int]:
    return sorted(pid for pid, words in processes(mark).items() if words.startswith("ray::_Actor"))


@pytest.mark.parametrize("verb", ["form", "install", "train_local", "weights", "align", "state"])
def test_killed_worker_is_replaced_and_the_run_leaves_the_bits_of_an_undisturbed_one(
    tmp_path: Path, verb: str
) -> None:
    settings = ("algorithm=fsl_sage", "quant=int8")
    with marked() as mark:
        run = built(*SETTINGS, *settings, *RAY)
        workers = run.parts.engine.workers  # type: ignore[attr-defined]
        ask, killed = workers.ask, list[float]()
        answered = list[float]()

        def harming(worker: int, asked: str, *arguments: object) -> object:
            pending = ask(worker, asked, *arguments)
            if asked == verb and not killed and run.records:
                os.kill(actors(mark)[0], signal.SIGKILL)
                killed.append(time.monotonic())
            return pending

        workers.ask = harming
        train = run.run_round

        def noted(t: int) -> object:
            record = train(t)
            if killed and not answered:
                answered.append(time.monotonic())
            return record

        run.run_round = noted  # type: ignore[method-assign, assignment]
        run.run(RunDirectory(tmp_path))
        assert killed
        assert run.parts.engine.summary.lost == 1  # type: ignore[attr-defined]
        assert gone(mark, within=20)
    print(f"first round after {answered[0] - killed[0]:.1f} s")
    assert differing(left(tmp_path), undisturbed(*settings)) == []


@contextmanager
def cluster_of_two_nodes() -> Iterator[tuple[object, str]]:
    """A head that has no room for workers, and two nodes of one core each."""
    import ray  # noqa: PLC0415  (takes its time, and only long tests need it)
    from ray._private import ray_constants  # noqa: PLC0415
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    ray_constants.ENABLE_RAY_CLUSTER = False  # nodes on the loopback interface
    os.environ[NICENESS] = "0"
    sizes = {"object_store_memory": 120 * 10**6}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **sizes})
    try:
        nodes = [cluster.add_node(num_cpus=1, **sizes) for _ in range(2)]
        cluster.wait_for_nodes()
        yield (cluster, nodes), cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()
        ray_constants.ENABLE_RAY_CLUSTER = True
        del os.environ[NICENESS]


def joining(address: str) -> tuple[str, ...]:
    return ("cluster=ray", f"cluster.address={address}", "cluster.start_deadline_s=120")


def test_cluster_that_is_there_is_joined_by_its_address_and_lives_on_after_its_node_is_lost(
    tmp_path: Path,
) -> None:
    with cluster_of_two_nodes() as ((cluster, nodes), address):  # type: ignore[misc]
        run = built(*SETTINGS, *FED_AVG, *joining(address))
        train = run.run_round

        def harming(t: int) -> object:
            if t == 1 and len(cluster.worker_nodes) == 2:
                cluster.remove_node(nodes[0], allow_graceful=False)
            return train(t)

        run.run_round = harming  # type: ignore[method-assign, assignment]
        run.run(RunDirectory(tmp_path))
        summary = run.parts.engine.summary  # type: ignore[attr-defined]
        assert (summary.workers, summary.nodes, summary.lost) == (2, 2, 1)
        assert differing(left(tmp_path), undisturbed(*FED_AVG)) == []

        with pytest.raises(UserError, match=r"there is room for 1 worker, as each needs 1 CPU; nodes have"):
            finished(
                tmp_path / "few",
                *FED_AVG,
                *joining(address),
                "cluster.min_workers=2",
                "cluster.start_deadline_s=3",
            )
        run = built(*SETTINGS, *FED_AVG, *RAY)  # starts one of its own beside the stranger's
        with run.transport.open(tmp_path):
            assert run.parts.engine.summary.workers == 2  # type: ignore[attr-defined]


def test_killed_driver_leaves_no_process_and_its_run_goes_on_with_another_number_of_workers(
    root: Path, tmp_path: Path
) -> None:
    settings = ("algorithm=fsl_sage", "quant=int8")
    with marked() as mark:
        told = [sys.executable, str(root / "main.py"), *TINY, *SETTINGS, *settings, *RAY]
        told += ["checkpoint_interval=1", f"hydra.run.dir={tmp_path}", "progress=false"]
        driver = subprocess.Popen(told, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while not list(tmp_path.glob("checkpoint/*/*")) and time.monotonic() < until:
            assert driver.poll() is None
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert gone(mark, within=60)
    resumed = [sys.executable, str(root / "main.py"), f"resume={tmp_path}", "cluster.workers=1"]
    subprocess.run(resumed, check=True, capture_output=True)
    assert differing(left(tmp_path), undisturbed(*settings)) == []


def test_run_whose_workers_the_memory_monitor_ends_says_that_it_was_the_memory(
    root: Path, tmp_path: Path
) -> None:
    with marked() as mark:
        told = [sys.executable, str(root / "main.py"), *TINY, *SETTINGS, *FED_AVG, *RAY]
        done = subprocess.run(
            [*told, f"hydra.run.dir={tmp_path}", "progress=false"],
            env=os.environ | {"RAY_memory_usage_threshold": "0.001"},  # of the cluster that is started
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 3
        assert "0 of 2 workers began, and cluster.min_workers is 1; worker" in done.stderr
        assert "ended as it began: Ray's memory monitor ended it" in done.stderr
        assert gone(mark, within=20)


def test_two_runs_of_one_process_start_a_cluster_each(tmp_path: Path) -> None:
    for name in ("first", "second"):
        finished(tmp_path / name, *FED_AVG, "cluster=ray", "cluster.workers=1", "rounds=1")
    assert differing(left(tmp_path / "first"), left(tmp_path / "second")) == []
    finished(tmp_path / "third", *FED_AVG, *over(1), "rounds=1")
    assert differing(left(tmp_path / "first"), left(tmp_path / "third")) == []
