"""Workers that Ray starts; the one module that knows Ray.

Ray is for simulation on machines of one's own: it executes what reaches its ports. A cluster that is started
here listens on the loopback interface alone.
"""

import logging
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import ceil
from typing import Any

from typing_extensions import override

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads it when it is imported
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns of a change of its own

import ray
import torch
from ray._private import ray_constants, services
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from fedsplit.cluster.listener import look_for_listener
from fedsplit.cluster.packing import pack, packed_bytes, unpack
from fedsplit.cluster.remote import RemoteWorker
from fedsplit.cluster.watch import start_watch
from fedsplit.config.choices import OWN_CHOICES
from fedsplit.errors import RunFailed, UserError, first_line, format_count
from fedsplit.machine.cores import jobs_at_once
from fedsplit.parties.workers import Build, Needs, PendingAnswer, SharedValue, WorkerLost, Workers, WorkerSize

_LOG = logging.getLogger("fedsplit")
_LOOPBACK = "127.0.0.1"
_STORE_MARGIN = 256 * 10**6
"""Bytes of shared memory beside data and weights: for smashed data on their way."""
_LOW_MEMORY = "due to the node running low on memory"
"""Words of Ray about a worker that its memory monitor ended."""
_RETURN_S = 60.0
"""Seconds to wait for a worker that takes the place of a lost one."""
_TOKEN = secrets.token_hex(32)
"""Token of all clusters that this process starts: Ray asks for it once."""
_LOOK_S = 0.2
"""Seconds between two looks at who is there."""
_TRY_S = 42.0
"""Seconds of one of Ray's tries to join a cluster; it makes twenty, with what listens and does not answer."""


class _Actor:
    """A shell: Ray sends it by value, and what it calls is imported."""

    def __init__(self) -> None:
        self.worker = RemoteWorker()

    def begin(self, *given: Any) -> str:
        """Begin, and say on which node."""
        self.worker.begin(*given)
        return str(ray.get_runtime_context().get_node_id())

    def is_there(self) -> bool:
        """Answer, so that who asks knows the actor is there."""
        return True

    def do(self, verb: str, *packed: Any) -> Any:
        """Do a verb; see `RemoteWorker.do`."""
        return self.worker.do(verb, *packed)


class RayWorkers(Workers):
    """Actors of Ray, each a process.

    Args:
        address: address of a cluster that is there; None starts one here.
        size: number of workers, and what each needs.
        needs: needs of the run.
        store: bytes of shared memory of a cluster that is started here; None is a guess.
    """

    def __init__(self, address: str | None, size: WorkerSize, needs: Needs, store: int | None) -> None:
        super().__init__()
        self._address, self._size, self._needs, self._store = address, size, needs, store
        self._actors: dict[int, Any] = {}
        self._lost: set[int] = set()
        self._waiting: dict[Any, None] = {}
        """Answers that were asked for and not waited for."""
        self._own: _OwnCluster | None = None
        self._begin: tuple[Any, ...] = ()
        """Arguments of `RemoteWorker.begin`; data in shared memory live as long as this."""

    @property
    @override
    def present(self) -> Sequence[int]:
        return sorted(self._actors)

    @override
    def start(self, build: Build, *given: Any) -> None:
        packed = pack(given)
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._connect(packed_bytes(packed))
        environment = {OWN_CHOICES: own} if (own := os.environ.get(OWN_CHOICES)) else {}
        self._begin = (build, environment, ray.put(packed))
        wanted = self._wait_for_room()
        nodes, ended = self._wait_for_start(range(wanted), self._size.deadline_s)
        self.summary.workers, self.summary.nodes = len(nodes), len(set(nodes.values()))
        if len(nodes) < self._size.least:
            began = f"{len(nodes)} of {wanted} workers began"
            least = self._size.least_in_words(ended)
            if ended:
                raise RunFailed(f"{began}, and {least}")
            late = f"{began} in that time, and {least}"
            raise UserError("cluster.start_deadline_s", self._size.deadline_s, late)
        _LOG.info("%s workers on %s nodes", self.summary.workers, self.summary.nodes)

    def _connect(self, data: int) -> None:
        if ray.is_initialized():
            message = "must be none: this process has joined a cluster of Ray; ray.shutdown() leaves it"
            raise UserError("cluster", "ray", message)
        if self._address is None:
            self._own = _OwnCluster(
                self._size, self._store or data + 2 * self._needs.cohort_bytes + _STORE_MARGIN
            )
            try:
                self._own.start()
            except Exception as error:  # Ray raises plain ones too, as where its node starts too slowly
                raise RunFailed(f"Ray does not start on this machine: {first_line(error)}") from error
            return
        deadline = self._size.deadline_s
        try:
            address = services.canonicalize_bootstrap_address(self._address)
            if address is None:
                raise ValueError("local is none's: null starts a cluster on this machine")
            look_for_listener(address, deadline)
            with _constant_of_ray("NUM_REDIS_GET_RETRIES", max(1, int(deadline / _TRY_S))):
                ray.init(address=address, configure_logging=False, log_to_driver=False)
        except Exception as error:  # Ray raises plain ones too
            message = f"no cluster of Ray can be joined there ({first_line(error)})"
            raise UserError("cluster.address", self._address, message) from error
        addresses = {node["NodeManagerAddress"] for node in _nodes()}
        if addresses != {_LOOPBACK} and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
            message = (
                "beyond loopback (127.0.0.1) a cluster must have a token: RAY_AUTH_MODE=token on all nodes"
            )
            raise UserError("cluster.address", self._address, message)

    def _wait_for_room(self) -> int:
        """Number of workers that there is room for, at most as many as are wanted."""
        until = time.monotonic() + (0 if self._own else self._size.deadline_s)
        while True:
            room = sum(self._size.room(*_free_of(node)) for node in _nodes())
            wanted = max(room, self._size.least) if self._size.workers is None else self._size.workers
            if room >= wanted:
                return wanted
            if time.monotonic() >= until:
                if room < self._size.least:
                    raise self._lack_of_workers(room)
                _LOG.warning("%s workers in place of %s: there is room for no more", room, wanted)
                return room
            time.sleep(_LOOK_S)

    def _lack_of_workers(self, there: int) -> UserError:
        free = [_free_of(node) for node in _nodes()]
        shown = ", ".join(f"{cpus:g} CPU and {gpus:g} GPU" for cpus, gpus in free)
        if self._size.workers is None or self._size.workers < self._size.least or there:
            key, value = "cluster.min_workers", self._size.least
        else:
            key, value = "cluster.workers", self._size.workers
        room, needs = format_count(there, "worker"), self._size.needs_in_words
        message = f"there is room for {room}, as {needs}; nodes have {shown or 'nothing'}"
        return UserError(key, value, message)

    def _wait_for_start(self, workers: Sequence[int], within: float) -> tuple[dict[int, str], dict[int, str]]:
        """Nodes of those of some workers that begin in time, and why others ended; the rest is given up."""
        options = {
            "num_cpus": self._size.cpus,
            "num_gpus": self._size.gpus,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }
        remote: Any = ray.remote(_Actor).options(**options)
        actors = {worker: remote.remote() for worker in workers}
        begun = {actors[worker].begin.remote(*self._begin): worker for worker in workers}
        ready, late = ray.wait(list(begun), num_returns=len(begun), timeout=within) if begun else ([], [])
        for handle in late:
            ray.kill(actors[begun[handle]])
        nodes, ended = {}, {}
        for handle in ready:
            try:
                nodes[begun[handle]] = ray.get(handle)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                ended[begun[handle]] = lost_reason(error)
                _LOG.warning("worker %s did not start: %s", begun[handle], ended[begun[handle]])
        self._actors |= {worker: actors[worker] for worker in nodes}
        return nodes, ended

    @override
    def ask(self, worker: int, verb: str, *arguments: Any) -> PendingAnswer:
        sent = [each.handle if isinstance(each, SharedValue) else pack(each) for each in arguments]
        handle = self._actors[worker].do.remote(verb, *sent)
        self._waiting[handle] = None
        return PendingAnswer(worker, handle)

    @override
    def share(self, value: Any) -> SharedValue:
        return SharedValue(ray.put(pack(value)))

    @override
    def gather(self, pending: Sequence[PendingAnswer]) -> list[Any]:
        return [self._answer(each) for each in pending]

    def _answer(self, pending: PendingAnswer) -> Any:
        try:
            handle: Any = pending.handle
            seconds, answer = ray.get(handle)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            self._lost.add(pending.worker)
            raise WorkerLost(pending.worker, lost_reason(error)) from error
        finally:
            self._waiting.pop(pending.handle, None)
        busy = self.summary.busy_seconds
        busy[pending.worker] = busy.get(pending.worker, 0.0) + seconds
        return unpack(answer, self._needs.device)

    @override
    def recover(self) -> None:
        for handle in self._waiting:
            with suppress(RayError):
                ray.cancel(handle, recursive=False)
        self._waiting.clear()
        self._lost |= self._silent()
        lost, self._lost = sorted(self._lost), set()
        for worker in lost:
            with suppress(RayError):
                ray.kill(self._actors.pop(worker))
        self.summary.lost += len(lost)
        until, gone, ended = time.monotonic() + _RETURN_S, lost, dict[int, str]()
        while gone and (left := until - time.monotonic()) > 0:
            came, ended = self._wait_for_start(gone, left)
            gone = [worker for worker in gone if worker not in came]
        if gone:
            _LOG.warning("the run goes on without workers %s", ", ".join(map(str, gone)))
        if len(self._actors) < self._size.least:
            raise RunFailed(f"workers left: {len(self._actors)}, and {self._size.least_in_words(ended)}")

    def _silent(self) -> set[int]:
        """Workers that are known to be gone, whatever others are doing."""
        asked = {actor.is_there.remote(): worker for worker, actor in self._actors.items()}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_S)
        silent = set()
        for handle in answered:
            try:
                ray.get(handle)
            except RayError:  # OutOfMemoryError, of those that the memory monitor ended, is no RayActorError
                silent.add(asked[handle])
        return silent

    @override
    def stop(self) -> None:
        for actor in self._actors.values():
            with suppress(RayError):
                ray.kill(actor)
        self._actors, self._begin = {}, ()
        self._waiting.clear()
        ray.shutdown()
        if self._own:
            self._own.clean()


class _OwnCluster:
    """Ray on this machine alone: in a folder of its own, so that nobody joins it by accident."""

    def __init__(self, size: WorkerSize, store: int) -> None:
        self._size, self._store = size, store
        self._folder, self._token = "", "RAY_AUTH_TOKEN" not in os.environ
        self._mode = os.environ.get("RAY_AUTH_MODE")
        self._watch: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        cores, gpus = jobs_at_once(1), torch.cuda.device_count() if self._size.gpus else 0
        workers = min(self._size.workers or cores, self._size.room(cores, gpus))
        self._folder = tempfile.mkdtemp(prefix="fedsplit-", dir="/tmp")  # its sockets need short paths
        os.environ.setdefault("RAY_worker_niceness", "0")  # or all else on this machine comes before
        if self._token:
            os.environ["RAY_AUTH_TOKEN"] = _TOKEN
        with _constant_of_ray("ENABLE_RAY_CLUSTER", False):  # nodes listen on the loopback interface alone
            ray.init(
                address="local",
                num_cpus=max(1, ceil(workers * self._size.cpus)),
                num_gpus=gpus,
                object_store_memory=self._store,
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
                _node_ip_address=_LOOPBACK,
                _temp_dir=self._folder,
            )
        node: Any = ray._private.worker.global_worker.node
        pids = [each.process.pid for group in node.all_processes.values() for each in group]
        self._watch = start_watch(self._folder, pids)

    def clean(self) -> None:
        """Leave nothing of the cluster behind."""
        if self._watch:
            self._watch.kill()
            self._watch.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._token:
            os.environ.pop("RAY_AUTH_TOKEN", None)
        if self._mode is None:
            os.environ.pop("RAY_AUTH_MODE", None)


@contextmanager
def _constant_of_ray(name: str, value: object) -> Iterator[None]:
    """Let Ray have a constant of ours for a while, of those that no argument sets."""
    before = getattr(ray_constants, name)
    setattr(ray_constants, name, value)
    try:
        yield
    finally:
        setattr(ray_constants, name, before)


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _free_of(node: dict[str, Any]) -> tuple[float, float]:
    """Cores and GPUs of a node."""
    resources = node["Resources"]
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


def lost_reason(error: Exception) -> str:
    """Reason why a worker was lost, in a line."""
    if isinstance(error, OutOfMemoryError) or _LOW_MEMORY in str(error):
        return "Ray's memory monitor ended it, since memory of its node ran low, whoever took it"
    return first_line(error)
