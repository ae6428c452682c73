"""Puts the parts of a run together, from its configuration."""

from collections.abc import Collection, Mapping
from functools import cached_property
from importlib import import_module
from typing import Any, cast

import torch
from torch import nn

from fedsplit.algorithms.algorithm import Algorithm, Start
from fedsplit.building.data import Data
from fedsplit.building.engines import EngineChoice
from fedsplit.building.models import ModelBuilder
from fedsplit.building.quantization import built_quantization
from fedsplit.building.recorders import Recorders, built_recorder
from fedsplit.building.trained_start import TrainedStart
from fedsplit.computing.memory import Memory, reuse_freed_memory
from fedsplit.computing.model_state import ModelState
from fedsplit.config.instantiate import make
from fedsplit.config.targets import is_class, located
from fedsplit.data.batches import ClientBatches
from fedsplit.errors import UserError
from fedsplit.estimators.alignment import Alignment
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.machine.extras import extra
from fedsplit.network.clock import Clock
from fedsplit.network.counting import counted_work
from fedsplit.network.network import Network, SimulatedNetwork
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.engine import Blueprint, Engine
from fedsplit.parties.evaluation import Evaluator
from fedsplit.parties.split_server import SplitServer
from fedsplit.parties.vectorized import Vectorized
from fedsplit.randomness import generator
from fedsplit.recording.class_counts import ClassCounts
from fedsplit.recording.ledger import Ledger
from fedsplit.transport.local import LocalTransport
from fedsplit.transport.transport import Member, Run, Transport

_ALIGNED_TOGETHER = ("auxiliary.align_batch_size", "auxiliary.max_dataset_size")


class Parts:
    """The parts of a run: data and its division, models, optimizers, the algorithm, and makers of the rest.

    Args:
        config: composed and checked (see `fedsplit.config.checks.check`); `device` is replaced by the one
            taken, and `engine=auto` by its choice.
        member: in the process of one client; None where all is known.
        start: trained models to start from; None starts from models as they are made.
        sizes_only: whether nothing is asked of the images but how many and how large they are.

    Raises:
        UserError: what is asked for cannot be built.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        member: Member | None = None,
        start: TrainedStart | None = None,
        *,
        sizes_only: bool = False,
    ) -> None:
        with extra("transport", config.get("choices", {}).get("transport")):
            import_module(config["transport"]["_target_"].rpartition(".")[0])
        self.config = {**config, "device": str(found_device(config["device"]))}
        self.device = torch.device(self.config["device"])
        self.seed: int = config["seed"]
        torch.set_num_threads(config["threads"])
        reuse_freed_memory()
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False

        self.data = Data.built(
            self.config, self.device, member=member, apart=self._apart, sizes_only=sizes_only
        )
        self.schedule = make(Schedule, config, "scheduler")  # type: ignore[type-abstract]
        self.client_optimizer = self._optimizer("client_optimizer")
        self.server_optimizer = self._optimizer("server_optimizer")
        self.auxiliary_optimizer = make(Optimizer, config, "auxiliary.optimizer")  # type: ignore[type-abstract]
        self.estimator = make(GradientEstimator, config, "estimator")  # type: ignore[type-abstract]
        self.algorithm_class = self._algorithm_class()
        self.client_head = self.algorithm_class.client_head
        self.model_builder = ModelBuilder(
            self.config, self.data, self.device, self.estimator, self.client_head
        )
        self.models = self.model_builder.built()
        if start is not None:
            start.load_into(self.models.halves, self.models.auxiliary)
        self.models.set_computation(self.config, self.device)
        self.recorders = self._build_recorders()
        models = self.models
        self.quantization = built_quantization(config, models.smashed_shape, lambda: models.coded_shape)
        self._refuse_batches_of_one()
        budget = config["auxiliary"]["memory_mb"]
        self.memory = Memory(None if budget is None else budget * 1e6)
        self.engine = self._build_engine()

    @property
    def sample_counts(self) -> list[int]:
        """Training samples of every client."""
        return self.data.shards.sizes

    @property
    def class_counts(self) -> ClassCounts | None:
        """Training samples of each class at every client; None where clients bring what they have."""
        if self.data.distribution.at_clients:
            return None
        dataset = self.data.dataset
        return ClassCounts.of(self.data.shards, dataset.train.labels, dataset.class_names)

    @property
    def _apart(self) -> bool:
        """Whether clients are computed elsewhere."""
        target: str = self.config["transport"]["_target_"]
        return not is_class("transport._target_", target, LocalTransport)

    def _optimizer(self, side: str) -> Optimizer:
        chosen = side if self.config.get(side) else "optimizer"
        return make(Optimizer, self.config, chosen)  # type: ignore[type-abstract]

    def _algorithm_class(self) -> type[Algorithm]:
        target = self.config["algorithm"]["_target_"]
        algorithm = located("algorithm._target_", target)
        if not isinstance(algorithm, type) or not issubclass(algorithm, Algorithm):
            raise UserError("algorithm._target_", target, "must be an Algorithm")
        return algorithm

    def _build_recorders(self) -> Recorders:
        optimizers = (self.client_optimizer, self.server_optimizer, self.auxiliary_optimizer)
        return Recorders(
            recorder=built_recorder(self.config, self.device, *optimizers),
            data=self.data,
            models=self.models,
            estimator=self.estimator,
            estimates=self.client_head == "estimator",
            device=self.device,
        )

    def _refuse_batches_of_one(self) -> None:
        """Batch normalisation cannot train on one sample of one pixel: better told now than in a round."""
        settings = self.config | {f"auxiliary.{key}": v for key, v in self.config["auxiliary"].items()}
        risky = [key for key in ("batch_size", *_ALIGNED_TOGETHER) if settings[key] == 1]
        risky += ["num_clients"] if min(self.sample_counts) == 1 else []
        if not risky:
            return
        halves, auxiliary = self.models.halves, self.models.auxiliary
        try:
            with torch.no_grad():
                z = ModelState(halves.client).forward(self.data.batch(1)[0], seed=0)
                ModelState(halves.server).forward(z, seed=0)
                if auxiliary is not None and self.estimator.trains_on_loss:
                    ModelState(auxiliary).forward(z, seed=0)
        except ValueError as error:
            told = "makes batches of one sample, and this model's batch normalisation needs two"
            raise UserError(risky[0], settings[risky[0]], told) from error

    @cached_property
    def algorithm(self) -> Algorithm:
        """The algorithm, with its servers; a process that only holds clients never asks for it."""
        halves, auxiliary = self.models.halves, self.models.auxiliary
        at_server = self.recorders.of(halves.server)
        start = Start(
            client_weights=ModelState(halves.client).weights(),
            auxiliary_weights=ModelState(auxiliary).weights() if auxiliary else {},
            server=SplitServer(halves.server, self.server_optimizer, self.schedule, self.seed, at_server),
            server_copies=self.engine.server_copies(
                halves.server, self.server_optimizer, self.schedule, self.seed, at_server
            ),
            alignment=self.alignment,
            seed=self.seed,
            frozen=frozenset(
                name
                for module in (halves.client, auxiliary)
                if module is not None
                for name, parameter in module.named_parameters()
                if not parameter.requires_grad
            ),
        )
        return make(Algorithm, self.config, "algorithm", start=start)  # type: ignore[type-abstract]

    @cached_property
    def alignment(self) -> Alignment:
        """Fits clients' auxiliary models, where the algorithm has that done."""
        auxiliary, settings = self.models.auxiliary, self.config["auxiliary"]
        optimizer, recorder = self.auxiliary_optimizer, self.recorders.of(auxiliary)
        return Alignment(
            new_auxiliary=lambda: ModelState(cast(nn.Module, auxiliary), optimizer, recorder=recorder),
            estimator=self.estimator,
            epochs=settings["align_epochs"],
            batch_size=settings["align_batch_size"],
            max_dataset_size=settings["max_dataset_size"],
            memory=self.memory,
            tolerance=settings["align_tolerance"] or 0.0,
            seed=self.seed,
        )

    @cached_property
    def network(self) -> Network:
        """What crosses the network costs."""
        return make(Network, self.config, "network")

    def clock(self) -> Clock | None:
        """What simulates the seconds of rounds; None with network=none."""
        if not isinstance(self.network, SimulatedNetwork):
            return None
        timeline = self.algorithm_class.timeline
        if timeline is None:
            chosen = self.config.get("choices", {}).get("network", self.config["network"]["_target_"])
            told = f"must be none: {self.algorithm_class.__name__} has no timeline, so nobody knows who waits"
            raise UserError("network", chosen, told)
        estimator = self.estimator if self.client_head == "estimator" else None
        work = counted_work(self.models.halves, self.models.auxiliary, estimator, *self.data.batch(2))
        return Clock(
            self.network,
            timeline,
            work,
            batch_size=self.config["batch_size"],
            local_epochs=self.config["local_epochs"],
            seed=self.seed,
        )

    def transport(self, ledger: Ledger) -> Transport:
        """What carries verbs to the clients and back.

        Args:
            ledger: where bytes are counted.
        """
        return make(Transport, self.config, "transport", run=self.run(ledger))  # type: ignore[type-abstract]

    def run(self, ledger: Ledger) -> Run:
        """What a transport needs to know; bytes are counted in `ledger`."""
        head = self.engine.blueprint.head
        return Run(
            config=self.config,
            engine=self.engine,
            sample_counts=self.sample_counts,
            dataset=self.data.dataset,
            fingerprint=self.data.fingerprint,
            normalisation=self.data.normalise,
            quantization=self.quantization,
            smashed_shape=self.models.smashed_shape,
            client_weights=self.models.halves.client.state_dict(),
            head_weights=head.state_dict() if head else {},
            device=self.device,
            seed=self.seed,
            ledger=ledger,
            build=run_of_member,
        )

    def cohort_of(self, t: int) -> Collection[int]:
        """The clients that take part in round `t`: all, or `cohort_size` drawn without replacement."""
        clients, size = self.config["num_clients"], self.config["cohort_size"]
        if size is None:
            return range(clients)
        drawn = torch.randperm(clients, generator=generator(self.seed, "cohort", round=t))
        return sorted(drawn[:size].tolist())

    def evaluator(self) -> Evaluator:
        """Evaluates on the test images."""
        return Evaluator(
            self.models.halves,
            self.data.dataset.test,
            normalise=self.data.normalise,
            batch_size=self.config["eval_batch_size"],
        )

    def local_evaluator(self) -> Evaluator | None:
        """Evaluates on what is held out, one client's after the other's; None where nothing is."""
        if self.data.local_test is None:
            return None
        return Evaluator(
            self.models.halves,
            self.data.dataset.train.chosen(self.data.local_test.indices),
            normalise=self.data.normalise,
            batch_size=self.config["eval_batch_size"],
        )

    def batches(self, client: int) -> ClientBatches:
        """A client's data, batch by batch."""
        return ClientBatches(
            self.data.dataset.train,
            self.data.shards[client],
            normalise=self.data.normalise,
            augmentation=self.data.dataset.augmentation,
            batch_size=self.config["batch_size"],
            local_epochs=self.config["local_epochs"],
            client=client,
            seed=self.seed,
        )

    def _build_engine(self) -> Engine:
        """What computes the clients; of `engine=auto`, its choice replaces it in the configuration."""
        body, auxiliary = self.models.halves.client, self.models.auxiliary
        head = self.models.halves.server if self.client_head == "server" else auxiliary
        uploads = self.client_head in ("auxiliary", "estimator")
        sees_decoded = uploads and self.quantization.continue_from_decoded
        blueprint = Blueprint(
            body=body,
            head=head,
            keeps_head=self.client_head == "estimator",
            optimizer=self.client_optimizer,
            batches=self.batches,
            estimator=self.estimator,
            schedule=self.schedule,
            seed=self.seed,
            head_sees=self.quantization.smashed if sees_decoded else None,
            memory=self.memory,
            recorder=None if sees_decoded else self.recorders.of(body, head),
        )
        choice = EngineChoice(
            config=self.config,
            algorithm=self.algorithm_class,
            blueprint=blueprint,
            data=self.data,
            models=self.models,
            server_optimizer=self.server_optimizer,
            apart=self._apart,
        )
        self.step_mmac = choice.step_mmac
        chosen = choice.settings()
        if chosen is not self.config["engine"] and "choices" in self.config:
            name = (
                "vectorized" if is_class("engine._target_", chosen["_target_"], Vectorized) else "sequential"
            )
            self.config["choices"] = {**self.config["choices"], "engine": name}
        self.config["engine"] = chosen
        return make(Engine, self.config, "engine", blueprint=blueprint)  # type: ignore[type-abstract]


def run_of_member(config: Mapping[str, Any], member: Member) -> Run:
    """What the process of one client needs of a run; see `Parts` for the rest."""
    return Parts(config, member).run(Ledger())


def found_device(name: str) -> torch.device:
    """What `device=` names.

    Raises:
        UserError: there is none such here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device", name, "there is no CUDA device here; cpu or auto")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError("device", name, f"there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device
