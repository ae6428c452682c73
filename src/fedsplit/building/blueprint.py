"""What the clients of a run are made of, put together for an engine."""

from functools import partial

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.building.data import Data, build_batches
from fedsplit.building.models import Models
from fedsplit.building.recorders import Recorders
from fedsplit.computing.memory import Memory
from fedsplit.config.run_config import RunConfig
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.engine import Blueprint
from fedsplit.quant.quantization import Quantization


def build_blueprint(
    config: RunConfig,
    *,
    data: Data,
    models: Models,
    algorithm: type[Algorithm],
    estimator: GradientEstimator,
    optimizer: Optimizer,
    schedule: Schedule,
    quantization: Quantization,
    memory: Memory,
    recorders: Recorders,
) -> Blueprint:
    """What clients are made of; the algorithm says which model their head is, if any."""
    client_head, body = algorithm.client_head, models.halves.client
    head = models.halves.server if client_head == "server" else models.auxiliary
    sees_decoded = client_head in ("auxiliary", "estimator") and quantization.continue_from_decoded
    return Blueprint(
        body=body,
        head=head,
        keeps_head=client_head == "estimator",
        optimizer=optimizer,
        batches=partial(build_batches, config, data),
        estimator=estimator,
        schedule=schedule,
        seed=config.training.seed,
        head_sees=quantization.smashed if sees_decoded else None,
        memory=memory,
        recorder=None if sees_decoded else recorders.of(body, head),
    )
