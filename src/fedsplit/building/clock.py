"""What simulates the seconds of rounds."""

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.building.data import Data
from fedsplit.building.models import Models
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.network.clock import Clock
from fedsplit.network.counting import counted_work
from fedsplit.network.network import Network, SimulatedNetwork


def build_clock(
    config: RunConfig,
    *,
    network: Network,
    algorithm: type[Algorithm],
    data: Data,
    models: Models,
    estimator: GradientEstimator,
) -> Clock | None:
    """The clock of a simulated network; None with network=none.

    Raises:
        UserError: the algorithm does not say who waits for whom.
    """
    if not isinstance(network, SimulatedNetwork):
        return None
    if algorithm.timeline is None:
        told = f"must be none: {algorithm.__name__} has no timeline, so nobody knows who waits"
        raise UserError("network", config.choice("network"), told)
    estimates = estimator if algorithm.client_head == "estimator" else None
    return Clock(
        network,
        algorithm.timeline,
        counted_work(models.halves, models.auxiliary, estimates, *data.batch(2)),
        batch_size=config.training.batch_size,
        local_epochs=config.training.local_epochs,
        seed=config.training.seed,
    )
