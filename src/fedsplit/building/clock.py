"""Building of the clock that simulates the seconds of rounds."""

from dataclasses import replace

from fedsplit.building.parts import Ingredients
from fedsplit.errors import UserError
from fedsplit.network.clock import Clock
from fedsplit.network.counting import count_work
from fedsplit.network.network import Network, SimulatedNetwork


def build_clock(parts: Ingredients, network: Network) -> Clock | None:
    """The clock of a simulated network; None with network=none.

    Raises:
        UserError: the algorithm does not say who waits for whom.
    """
    if not isinstance(network, SimulatedNetwork):
        return None
    timeline, training = parts.algorithm_class.timeline, parts.config.training
    if timeline is None:
        message = f"must be none: {parts.algorithm_class.__name__} has no timeline, so nobody knows who waits"
        raise UserError("network", parts.config.choice("network"), message)
    estimator = parts.estimator if parts.estimates else None
    work = count_work(
        parts.models.halves,
        parts.models.auxiliary,
        estimator,
        *parts.data.batch(2),
        objective=parts.data.dataset.objective,
    )
    return Clock(
        network,
        timeline,
        replace(work, local_passes=parts.rule.passes),
        batch_size=training.batch_size,
        local_epochs=training.local_epochs,
        seed=training.seed,
    )
