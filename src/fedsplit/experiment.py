"""The experiment: owns the round loop, decides when to stop, and goes on after a kill."""

import logging
import time
from collections.abc import Collection, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from fedsplit.config import RESUMABLE, check
from fedsplit.errors import NonFinite, RunFailed, UserError
from fedsplit.parts import Parts
from fedsplit.randomness import generator
from fedsplit.results.checkpoint import Checkpoint
from fedsplit.results.ledger import Ledger
from fedsplit.results.metrics import Record, record_state
from fedsplit.results.run_directory import RunDirectory
from fedsplit.results.summary import StoppedBy, summarise
from fedsplit.state import State
from fedsplit.transport.local import LocalTransport
from fedsplit.weights import Weights

_LOG = logging.getLogger("fedsplit")


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


class Experiment:
    """One run: everything is built here, nothing is written before `run`.

    Args:
        config: composed and checked (see `fedsplit.config.check`).

    Raises:
        UserError: what is asked for cannot be built.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.parts = Parts(config)
        self.config = self.parts.config
        self.seed: int = config["seed"]
        self.rounds: int = config["rounds"]
        self.algorithm = self.parts.algorithm
        self.evaluate = self.parts.evaluator()
        self.ledger = Ledger()
        self.transport = LocalTransport(
            self.parts.worker,
            sample_counts=[len(shard) for shard in self.parts.shards],
            num_classes=self.parts.dataset.num_classes,
            ledger=self.ledger,
        )
        self.records: list[Record] = []
        self.elapsed = 0.0

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
        _LOG.info(
            "%s rounds, %s clients, on %s", self.rounds, self.config["num_clients"], self.config["device"]
        )
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
        factor = self.parts.schedule.factor(t)
        client, server = self.parts.client_optimizer.lr * factor, self.parts.server_optimizer.lr * factor
        rates = f"{client:g} (clients), {server:g} (server)"
        return f"round {t}: {what}; learning rate {rates}: lower optimizer.lr. The last checkpoint is kept."

    def _finish(self, directory: RunDirectory, stopped_by: StoppedBy) -> None:
        full = self.algorithm.full_weights()
        halves = self.parts.models.halves
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
                "auxiliary": _parameters(self.parts.models.head) if has_auxiliary else 0,
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


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
