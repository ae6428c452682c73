"""The parts of a run, put together."""

from collections.abc import Collection
from dataclasses import dataclass

import torch

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.building.data import Data, build_batches
from fedsplit.building.models import Models
from fedsplit.building.recorders import Recorders
from fedsplit.computing.memory import Memory
from fedsplit.config.run_config import RunConfig
from fedsplit.data.batches import ClientBatches
from fedsplit.estimators.alignment import Alignment
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.network.clock import Clock
from fedsplit.network.network import Network
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.engine import Engine
from fedsplit.parties.evaluation import Evaluator
from fedsplit.parties.local_rule import LocalRule
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.noise import Secrets
from fedsplit.quant.quantization import Quantization
from fedsplit.randomness import generator
from fedsplit.recording.class_counts import ClassCounts
from fedsplit.recording.ledger import Ledger
from fedsplit.transport.transport import Transport


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """Ingredients of the clients and servers of a run.

    Args:
        config: configuration of the run, with the device that was decided on, and later the engine.
        apart: True if clients are computed in processes of their own.
    """

    config: RunConfig
    device: torch.device
    apart: bool
    data: Data
    models: Models
    algorithm_class: type[Algorithm]
    estimator: GradientEstimator
    client_optimizer: Optimizer
    server_optimizer: Optimizer
    auxiliary_optimizer: Optimizer
    schedule: Schedule
    rule: LocalRule
    defence: Defence
    secrets: Secrets
    recorders: Recorders
    quantization: Quantization
    memory: Memory

    @property
    def estimates(self) -> bool:
        """True if clients hold an auxiliary model of the estimator's."""
        return self.algorithm_class.client_head == "estimator"

    @property
    def sample_counts(self) -> list[int]:
        """Training samples of every client."""
        return self.data.shards.sizes

    @property
    def class_counts(self) -> ClassCounts | None:
        """Training samples of each stratum at every client; None where clients bring what they have."""
        if self.data.distribution.at_clients:
            return None
        dataset = self.data.dataset
        return ClassCounts.of(self.data.shards, dataset.train.strata, dataset.class_names)

    def batches(self, client: int) -> ClientBatches:
        """A client's data, batch by batch."""
        return build_batches(self.config, self.data, client)


@dataclass(frozen=True, kw_only=True)
class ClientParts(Ingredients):
    """Parts that the process of one client builds: nothing of servers."""

    engine: Engine


@dataclass(frozen=True, kw_only=True)
class RunParts(ClientParts):
    """All parts of a run.

    Args:
        clock: simulates the seconds of rounds; None with network=none.
        evaluate: evaluator on the test samples.
        evaluate_locally: evaluator on what clients held out, client after client; None where they held out
            nothing.
    """

    alignment: Alignment
    algorithm: Algorithm
    network: Network
    clock: Clock | None
    ledger: Ledger
    transport: Transport
    evaluate: Evaluator
    evaluate_locally: Evaluator | None

    def cohort_of(self, t: int) -> Collection[int]:
        """The clients that take part in round `t`: all, or `cohort_size` drawn without replacement."""
        population = self.config.population
        if population.cohort_size is None:
            return range(population.num_clients)
        draw = generator(self.config.training.seed, "cohort", round=t)
        drawn = torch.randperm(population.num_clients, generator=draw)
        return sorted(drawn[: population.cohort_size].tolist())
