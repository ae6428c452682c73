"""Builds the parts of a run from its configuration, and owns the round loop."""

import inspect
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from rich.console import Console
from torch import nn

from fedsplit.algorithms.algorithm import Algorithm, Start
from fedsplit.config import RESUMABLE, arguments, check
from fedsplit.data.batches import ClientBatches, Normalisation
from fedsplit.data.dataset import Dataset
from fedsplit.errors import NonFinite, RunFailed, UserError
from fedsplit.estimators.alignment import Alignment
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.models.model_state import ModelState
from fedsplit.models.split import SplitModel, split
from fedsplit.optimizers import Optimizer
from fedsplit.parties.client import ClientWorker
from fedsplit.parties.evaluation import Evaluator
from fedsplit.parties.split_server import SplitServer
from fedsplit.randomness import generator, seed_of
from fedsplit.results.checkpoint import Checkpoint
from fedsplit.results.ledger import Ledger
from fedsplit.results.metrics import Record, record_state
from fedsplit.results.run_directory import RunDirectory
from fedsplit.results.summary import StoppedBy, summarise
from fedsplit.schedules import Schedule
from fedsplit.state import State
from fedsplit.transport.local import LocalTransport
from fedsplit.weights import Weights

_LOG = logging.getLogger("fedsplit")


def make(config: Mapping[str, Any], group: str, **objects: Any) -> Any:
    """Instantiate the choice of a group, with objects that no configuration can hold.

    Raises:
        UserError: the choice's `_target_` cannot be imported or does not take these arguments.
    """
    node = arguments(group, config[group])
    for name in objects.keys() & node.keys():
        raise UserError(f"{group}.{name}", node[name], "no such key: the experiment gives it")
    try:
        factory = instantiate(node, _partial_=True, _convert_="all")
        inspect.signature(factory).bind(**objects)
    except UserError:
        raise
    except Exception as error:  # whatever an unknown class of the user's raises on import
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise UserError(f"{group}._target_", node.get("_target_"), reason) from error
    return factory(**objects)


def resumed_config(path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of the run at `path`, with what may be given anew.

    Raises:
        UserError: there is no run, or something else is given.
    """
    for key, value in changes.items():
        if key not in RESUMABLE:
            raise UserError(key, value, f"beside resume only {', '.join(RESUMABLE)} may be given")
    config = {**RunDirectory.existing(path).config(), **changes}
    check(config)
    return config


@dataclass(frozen=True)
class _Models:
    """The split model and the model behind the client's, as skeletons that many states share."""

    halves: SplitModel
    head: nn.Module
    smashed_shape: tuple[int, ...]


class Experiment:
    """One run: everything is built here, nothing is written before `run`.

    Args:
        config: composed and checked (see `fedsplit.config.check`).

    Raises:
        UserError: what is asked for cannot be built.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = {**config, "device": str(_device(config["device"]))}
        self.device = torch.device(self.config["device"])
        self.seed: int = config["seed"]
        self.rounds: int = config["rounds"]
        torch.set_num_threads(config["threads"])
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False

        self.dataset = self._load_dataset()
        self.shards = self._divide(self.dataset)
        self.normalise = Normalisation.of(self.dataset.train, torch.get_default_dtype())
        self.schedule: Schedule = make(config, "scheduler")
        self.client_optimizer = self._optimizer("client_optimizer")
        self.server_optimizer = self._optimizer("server_optimizer")
        self.estimator: GradientEstimator = make(config, "estimator")
        self.models = self._build_models()
        self.algorithm = self._build_algorithm()
        self.ledger = Ledger()
        self.transport = LocalTransport(
            self._new_worker,
            sample_counts=[len(shard) for shard in self.shards],
            num_classes=self.dataset.num_classes,
            ledger=self.ledger,
        )
        self.evaluate = Evaluator(
            self.models.halves,
            self.dataset.test,
            normalise=self.normalise,
            batch_size=config["eval_batch_size"],
        )
        self.records: list[Record] = []
        self.elapsed = 0.0

    # Building the parts

    def _load_dataset(self) -> Dataset:
        loaded: Dataset = make(self.config, "dataset").load()
        return Dataset(
            loaded.train.to(self.device), loaded.test.to(self.device), loaded.num_classes, loaded.augmentation
        )

    def _divide(self, dataset: Dataset) -> list[torch.Tensor]:
        clients = self.config["num_clients"]
        if clients > len(dataset.train):
            raise UserError("num_clients", clients, f"at most the {len(dataset.train)} training samples")
        labels = dataset.train.labels.cpu().numpy()
        shards = make(self.config, "distribution").split(labels, clients, self.seed)
        for client, shard in enumerate(shards):
            if len(shard) == 0:
                raise UserError(
                    "num_clients", clients, f"too many for this distribution: client {client} has no sample"
                )
        return [torch.from_numpy(shard) for shard in shards]

    def _optimizer(self, side: str) -> Optimizer:
        optimizer: Optimizer = make(self.config, side if self.config.get(side) else "optimizer")
        return optimizer

    def _build_models(self) -> _Models:
        sizes = {
            "num_classes": self.dataset.num_classes,
            "channels": self.dataset.channels,
            "image_size": self.dataset.image_size,
        }
        with _initialisation(self.seed, "model"):
            whole = self._placed(make(self.config, "model", **sizes))
        example = self.normalise(self.dataset.train.pixels[:2])
        try:
            halves = split(whole, self.config["model"]["cut"], example)
        except RuntimeError as error:  # shapes that do not fit
            reason = str(error).splitlines()[0]
            raise UserError(
                "model", type(whole).__name__, f"does not fit images of {sizes} ({reason})"
            ) from error
        with torch.no_grad():
            smashed_shape = tuple(halves.client.eval()(example).shape[1:])
        halves.client.train()
        return _Models(halves, self._build_head(halves, smashed_shape), smashed_shape)

    def _build_head(self, halves: SplitModel, smashed_shape: tuple[int, ...]) -> nn.Module:
        """What a client holds behind its client model, if anything."""
        kind = self._algorithm_class().client_head
        if kind in ("none", "server"):
            return halves.server
        sizes: dict[str, Any] = {"smashed_shape": smashed_shape, "num_classes": self.dataset.num_classes}
        with _initialisation(self.seed, "auxiliary model"):
            head: nn.Module = make(self.config, "auxiliary", **sizes)
            if kind == "estimator":
                warm_start = self.config["algorithm"].get("warm_start", 0)
                if warm_start and not self.estimator.trains_on_loss:
                    raise UserError(
                        "algorithm.warm_start",
                        warm_start,
                        "must be 0: this estimator has no loss of its own to train on",
                    )
                head = self.estimator.model(head, **sizes)
        return self._placed(head)

    def _placed(self, module: nn.Module) -> nn.Module:
        # channels_last: convolutions on a CPU are up to twice as fast, on a GPU no slower
        dtype = torch.get_default_dtype()
        return module.to(self.device, dtype).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]

    def _algorithm_class(self) -> type[Algorithm]:
        made = instantiate(self.config["algorithm"], _partial_=True)
        algorithm: type[Algorithm] = made.func
        return algorithm

    def _build_algorithm(self) -> Algorithm:
        auxiliary = self.config["auxiliary"]
        aligner: Optimizer = instantiate(auxiliary["optimizer"], _convert_="all")
        start = Start(
            client_weights=ModelState(self.models.halves.client).weights(),
            auxiliary_weights=ModelState(self.models.head).weights(),
            server=SplitServer(self.models.halves.server, self.server_optimizer, self.schedule, self.seed),
            alignment=Alignment(
                new_auxiliary=lambda: ModelState(self.models.head, aligner),
                estimator=self.estimator,
                epochs=auxiliary["align_epochs"],
                batch_size=auxiliary["align_batch_size"],
                max_dataset_size=auxiliary["max_dataset_size"],
                seed=self.seed,
            ),
            seed=self.seed,
        )
        algorithm: Algorithm = make(self.config, "algorithm", start=start)
        return algorithm

    def _new_worker(self, client: int) -> ClientWorker:
        batches = ClientBatches(
            self.dataset.train,
            self.shards[client],
            normalise=self.normalise,
            augmentation=self.dataset.augmentation,
            batch_size=self.config["batch_size"],
            local_epochs=self.config["local_epochs"],
            client=client,
            seed=self.seed,
        )
        has_head = self.algorithm.client_head != "none"
        return ClientWorker(
            client=client,
            batches=batches,
            body=ModelState(self.models.halves.client, self.client_optimizer),
            head=ModelState(self.models.head, self.client_optimizer) if has_head else None,
            estimator=self.estimator,
            schedule=self.schedule,
            seed=self.seed,
        )

    # The round loop

    def cohort_of(self, t: int) -> Collection[int]:
        """The clients that take part in round `t`: all, or `cohort_size` drawn without replacement."""
        clients, size = self.config["num_clients"], self.config["cohort_size"]
        if size is None:
            return range(clients)
        return sorted(
            torch.randperm(clients, generator=generator(self.seed, "cohort", round=t))[:size].tolist()
        )

    def run_round(self, t: int) -> Record:
        """One round: train, evaluate if it is time to, count.

        Raises:
            NonFinite: a loss or weights are no longer finite.
        """
        start = time.perf_counter()
        self.transport.client_seconds = 0.0
        metrics = self.algorithm.run_round(t, self.transport.cohort(t, self.cohort_of(t)))
        trained = time.perf_counter()
        accuracy = loss = None
        if (
            (t + 1) % self.config["eval_interval"] == 0
            or t + 1 == self.rounds
            or self._budget_spent(trained - start)
        ):
            accuracy, loss = self.evaluate(self.algorithm.full_weights())
        clients = self.transport.client_seconds
        return Record(
            round=t,
            test_accuracy=accuracy,
            test_loss=loss,
            train_loss=metrics.train_loss,
            load=self.ledger.load,
            bytes=self.ledger.of_round(t),
            seconds={
                "clients": clients,
                "server": trained - start - clients,
                "evaluate": time.perf_counter() - trained,
            },
        )

    def _budget_spent(self, seconds: float) -> StoppedBy | None:
        threshold, limit = self.config["comm_threshold_mb"], self.config["time_limit_s"]
        if threshold is not None and self.ledger.load >= threshold * 1e6:
            return "comm_threshold_mb"
        if limit is not None and self.elapsed + seconds >= limit:
            return "time_limit_s"
        return None

    def _stopped_by(self) -> StoppedBy | None:
        target = self.config["target_accuracy"]
        accuracy = self.records[-1].test_accuracy if self.records else None
        if target is not None and accuracy is not None and accuracy >= target:
            return "target_accuracy"
        if self.records and (budget := self._budget_spent(0.0)):
            return budget
        return "rounds" if len(self.records) >= self.rounds else None

    def run(self, directory: RunDirectory) -> None:
        """Run from where the state stands to the end, and leave everything behind in `directory`.

        Raises:
            UserError: the directory cannot be written.
            RunFailed: training diverged; the last checkpoint is kept.
        """
        directory.open(self.config, self.records)
        try:
            self._run(directory)
        except RunFailed as error:
            _LOG.error("%s", error)
            raise
        finally:
            directory.close()

    def _run(self, directory: RunDirectory) -> None:
        _LOG.info("%s rounds, %s clients, on %s", self.rounds, self.config["num_clients"], self.device)
        console = Console()
        while (stopped_by := self._stopped_by()) is None:
            began, t = time.perf_counter(), len(self.records)
            try:
                record = self.run_round(t)
            except NonFinite as error:
                raise RunFailed(self._diverged(t, str(error))) from error
            if record.test_loss is not None and not isfinite(record.test_loss):
                raise RunFailed(self._diverged(t, "the test loss is not finite"))
            self.records.append(record)
            directory.record(record)
            self._tell(console, record)
            self.elapsed += time.perf_counter() - began
            if len(self.records) % self.config["checkpoint_interval"] == 0:
                began = time.perf_counter()
                directory.save_checkpoint(self.checkpoint())
                self.elapsed += time.perf_counter() - began
        if len(self.records) % self.config["checkpoint_interval"]:
            directory.save_checkpoint(self.checkpoint())
        self._finish(directory, stopped_by)

    def _diverged(self, t: int, what: str) -> str:
        factor = self.schedule.factor(t)
        rates = (
            f"{self.client_optimizer.lr * factor:g} (clients), {self.server_optimizer.lr * factor:g} (server)"
        )
        return f"round {t}: {what}; learning rate {rates}: lower optimizer.lr. The last checkpoint is kept."

    def _finish(self, directory: RunDirectory, stopped_by: StoppedBy) -> None:
        full = self.algorithm.full_weights()
        halves = self.models.halves
        models: dict[str, Weights] = {
            "client": {name: full[name] for name in halves.client.state_dict()},
            "server": {name: full[name] for name in halves.server.state_dict()},
            **self.algorithm.auxiliary_weights(),
        }
        directory.save_model(models)
        has_auxiliary = self.algorithm.client_head in ("auxiliary", "estimator")
        results = summarise(
            self.records,
            stopped_by=stopped_by,
            target_accuracy=self.config["target_accuracy"],
            parameters={
                "client": _parameters(halves.client),
                "server": _parameters(halves.server),
                "auxiliary": _parameters(self.models.head) if has_auxiliary else 0,
            },
        )
        directory.save_results(results)
        _LOG.info("stopped by %s after %s rounds", stopped_by, len(self.records))

    def _tell(self, console: Console, record: Record) -> None:
        accuracy = "" if record.test_accuracy is None else f"accuracy {record.test_accuracy:.4f}  "
        line = (
            f"round {record.round:>4}  {accuracy}loss {record.train_loss:.4f}  "
            f"{record.load / 1e6:,.2f} MB  {sum(record.seconds.values()):.2f} s"
        )
        _LOG.info("%s", line)
        if self.config["progress"] and console.is_terminal:
            console.print(line, highlight=True)

    # Going on after a kill

    def checkpoint(self) -> Checkpoint:
        """Everything the next round depends on."""
        state: State = {
            "algorithm": self.algorithm.state(),
            "clients": self.transport.state(),
            "ledger": self.ledger.state(),
            "records": [record_state(record) for record in self.records],
            "elapsed": self.elapsed,
        }
        return Checkpoint(len(self.records), state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint.

        Raises:
            UserError: more rounds were run already than `rounds` allows.
        """
        if checkpoint.rounds > self.rounds:
            raise UserError("rounds", self.rounds, f"at least the {checkpoint.rounds} rounds that were run")
        state = checkpoint.state
        self.algorithm.load_state(state["algorithm"])
        self.transport.load_state(state["clients"])
        self.ledger.load_state(state["ledger"])
        self.records = [Record.from_state(record) for record in state["records"]]
        self.elapsed = state["elapsed"]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device", name, "there is no CUDA device here; cpu or auto")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError("device", name, f"there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _initialisation(seed: int, what: str) -> Iterator[None]:
    """Modules initialise themselves from torch's global generator: seed it, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, f"initialisation of the {what}"))
        yield
