"""The algorithm of a run, with the servers that it trains."""

from fedsplit.algorithms.algorithm import Algorithm, Start
from fedsplit.building.models import Models
from fedsplit.computing.captured_steps import Recorder
from fedsplit.computing.model_state import ModelState
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.estimators.alignment import Alignment
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.engine import Engine
from fedsplit.parties.split_server import SplitServer


def find_algorithm(config: RunConfig) -> type[Algorithm]:
    """The class of the algorithm, which says what clients hold before there is an algorithm.

    Raises:
        UserError: the configuration names something else.
    """
    algorithm = config.algorithm.located()
    if not isinstance(algorithm, type) or not issubclass(algorithm, Algorithm):
        raise UserError("algorithm._target_", config.algorithm.target, "must be an Algorithm")
    return algorithm


def build_algorithm(
    config: RunConfig,
    *,
    models: Models,
    engine: Engine,
    alignment: Alignment,
    optimizer: Optimizer,
    schedule: Schedule,
    recorder: Recorder | None,
) -> Algorithm:
    """The algorithm; `optimizer`, `schedule` and `recorder` are those of the server model's steps."""
    halves, auxiliary, seed = models.halves, models.auxiliary, config.training.seed
    trained = [module for module in (halves.client, auxiliary) if module is not None]
    start = Start(
        client_weights=ModelState(halves.client).weights(),
        auxiliary_weights=ModelState(auxiliary).weights() if auxiliary else {},
        server=SplitServer(halves.server, optimizer, schedule, seed, recorder),
        server_copies=engine.server_copies(halves.server, optimizer, schedule, seed, recorder),
        alignment=alignment,
        seed=seed,
        frozen=frozenset(
            name
            for module in trained
            for name, parameter in module.named_parameters()
            if not parameter.requires_grad
        ),
    )
    return config.algorithm.build(Algorithm, start=start)
