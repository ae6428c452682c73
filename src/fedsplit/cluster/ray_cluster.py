"""A cluster of Ray: what a configuration says of it."""

from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from fedsplit.cluster.ray_workers import RayWorkers
from fedsplit.config.values import NonNegativeFloat, PositiveFloat, PositiveInt
from fedsplit.parties.workers import Cluster, Needs, WorkerSize


@dataclass(frozen=True, kw_only=True)
class RayCluster(Cluster):
    """Workers that Ray starts, on this machine or on all of a cluster.

    Args:
        address: `host:port` of a cluster that is there, or `auto` for the one that `RAY_ADDRESS` or this
            machine names; None starts one here, and joins no other.
        workers: number of workers; `auto`: as many as there is room for.
        min_workers: number of workers below which a run neither starts nor goes on.
        start_deadline_s: seconds to wait for room for all workers.
        cpus_per_worker: cores that each takes; None: as many as it has threads.
        gpus_per_worker: GPUs that each takes, or a share of one; None: one where models are on a GPU.
        object_store_mb: MB of shared memory of a cluster that is started here; None: the data, and the
            weights of two cohorts.
    """

    address: str | None
    workers: PositiveInt | Literal["auto"]
    min_workers: PositiveInt
    start_deadline_s: PositiveFloat
    cpus_per_worker: PositiveFloat | None
    gpus_per_worker: NonNegativeFloat | None
    object_store_mb: PositiveInt | None

    @override
    def spawn(self, needs: Needs) -> RayWorkers:
        on_gpu = needs.device.type == "cuda"
        size = WorkerSize(
            workers=None if self.workers == "auto" else self.workers,
            least=self.min_workers,
            deadline_s=self.start_deadline_s,
            cpus=float(needs.threads) if self.cpus_per_worker is None else self.cpus_per_worker,
            gpus=float(on_gpu) if self.gpus_per_worker is None else self.gpus_per_worker,
        )
        store = None if self.object_store_mb is None else self.object_store_mb * 10**6
        return RayWorkers(self.address, size, needs, store)
