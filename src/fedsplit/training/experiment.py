"""The experiment: owns the round loop, decides when to stop, and goes on after a kill."""

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors import SafetensorError
from torch import nn

from fedsplit.building.parts import Parts
from fedsplit.building.trained_start import TrainedStart
from fedsplit.config.checks import RESUMABLE
from fedsplit.config.chosen_names import chosen_name
from fedsplit.config.compose import composed, composing, plain
from fedsplit.config.dotted_keys import below
from fedsplit.config.instantiate import make
from fedsplit.errors import RunFailed, UserError, first_line
from fedsplit.files.form import Misfit
from fedsplit.files.shown_path import resume_command, shown
from fedsplit.machine.extras import extra
from fedsplit.machine.terminal import optional
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.recording.classification import (
    CONFUSION,
    MOST_CLASSES,
    ROC,
    ConfusionMatrix,
    Floats,
    Integers,
    RocCurves,
)
from fedsplit.recording.identity import identity, refuse_changed_config, refuse_changed_data
from fedsplit.recording.ledger import Ledger
from fedsplit.recording.local_accuracy import LOCAL_ACCURACY, LocalAccuracies
from fedsplit.recording.metrics import Record
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.recording.stored_config import checked, stored_config
from fedsplit.recording.summary import StoppedBy, summarise
from fedsplit.state.state import State
from fedsplit.state.weights import Weights, is_finite
from fedsplit.trackers.harmless import Harmless
from fedsplit.trackers.tracker import Tracker
from fedsplit.training.progress_lines import ProgressLines
from fedsplit.training.restoring import check_identity, check_state, check_taken_over

_LOG = logging.getLogger("fedsplit")


def resumed_config(
    directory: RunDirectory, changes: Mapping[str, Any], checkpoint: Checkpoint | None = None
) -> dict[str, Any]:
    """Configuration of the run in `directory`, with what may be given anew; `trust` is of this command alone.

    Args:
        directory: of the run.
        changes: what is given anew, by key.
        checkpoint: that the run goes on from; None where it begins.

    Raises:
        UserError: something else is given, or its configuration is damaged or not that of the checkpoint.
    """
    for key, value in changes.items():
        if not below(key, RESUMABLE) or key.startswith("dataset.root."):
            raise UserError(key, value, f"beside resume only {', '.join(RESUMABLE)} may be given")
    trust = changes.get("trust", False)
    if not isinstance(trust, bool):
        raise UserError("trust", trust, "must be true or false")
    config = stored_config(directory, trust=trust)
    if (task := config["choices"]["task"]) != "train":
        told = f"was left behind by task={task}, which is done again and not gone on with"
        raise UserError("resume", directory.path, told)
    own = {key: value for key, value in changes.items() if not below(key, ("tracker", "dataset"))}
    config = {**config, **own, **_tracked(config, changes)}
    if "dataset.root" in changes:
        if "root" not in config["dataset"]:
            told = f"dataset={config['choices'].get('dataset')} is in no files of its own"
            raise UserError("dataset.root", changes["dataset.root"], told)
        config["dataset"] = {**config["dataset"], "root": changes["dataset.root"]}
    checked(config)
    if checkpoint is not None:
        refuse_changed_config(_identity_of(checkpoint)["config"], config)
    return config


def _identity_of(checkpoint: Checkpoint) -> State:
    """What a checkpoint keeps of the run that it is of.

    Raises:
        UserError: it keeps nothing, or something else.
    """
    try:
        check_identity(checkpoint.state)
    except Misfit as misfit:
        raise checkpoint.unfit(misfit) from misfit
    kept: State = checkpoint.state["identity"]
    return kept


def _tracked(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration is about the tracker, with a choice and keys of its own given anew."""
    node, choices = config["tracker"], config["choices"]
    if "tracker" in changes:
        choices = {**choices, "tracker": str(changes["tracker"])}
        with composing():
            node = plain(composed([f"tracker={choices['tracker']}"]))["tracker"]
    keys = {k.removeprefix("tracker."): v for k, v in changes.items() if k.startswith("tracker.")}
    tracker = {**node, **keys}
    if "_target_" in keys:
        choices = {**choices, "tracker": chosen_name({"tracker": tracker}, "tracker", choices["tracker"])}
    return {"tracker": tracker, "choices": choices}


class Experiment:
    """One run: everything is built here, nothing is written before `run`.

    Args:
        config: composed and checked (see `fedsplit.config.checks.check`).
        start: trained models to start from; None starts from models as they are made.

    Raises:
        UserError: what is asked for cannot be built.
    """

    def __init__(self, config: Mapping[str, Any], start: TrainedStart | None = None) -> None:
        with extra("tracker", config.get("choices", {}).get("tracker")):
            self.tracker = Harmless(make(Tracker, config, "tracker"))  # type: ignore[type-abstract]
        self.parts = Parts(config, start=start)
        self.config = self.parts.config
        self.seed: int = config["seed"]
        self.rounds: int = config["rounds"]
        self.algorithm = self.parts.algorithm
        self.evaluate = self.parts.evaluator()
        self._evaluate_locally = self.parts.local_evaluator()
        self.clock = self.parts.clock()
        self.ledger = Ledger(keeps_messages=self.clock is not None)
        self.transport = self.parts.transport(self.ledger)
        self.records: list[Record] = []
        self.elapsed = 0.0
        self._saved = 0  # rounds in the newest checkpoint
        self._phase = "training"

    def run_round(self, t: int) -> Record:
        """One round: train, evaluate if it is time to, count.

        Raises:
            NonFinite: a client's loss or weights are no longer finite.
            RunFailed: the averaged model or its test loss is not.
        """
        start, self._phase = time.perf_counter(), "training"
        self.transport.client_seconds = 0.0
        cohort = self.parts.cohort_of(t)
        metrics = self.transport.run_round(
            t, cohort, lambda cohort: self.algorithm.run_round(t, cohort), self.algorithm
        )
        self.forget()
        trained = time.perf_counter()
        self._phase = "evaluating"
        full = self.algorithm.full_weights()
        if not is_finite(full):
            raise RunFailed("the model is not finite")
        accuracy = loss = local = None
        if (t + 1) % self.config["eval_interval"] == 0:
            accuracy, loss = self._evaluate(full)
            local = self._local_accuracies(full)
        error = self._gradient_error(t, cohort)
        clients = self.transport.client_seconds
        traffic = self.ledger.traffic(t)
        return Record(
            round=t,
            test_accuracy=accuracy,
            test_loss=loss,
            train_loss=metrics.train_loss,
            load=self.ledger.load,
            bytes=self.ledger.of_round(t),
            bits={d: {kind: each.bits for kind, each in kinds.items()} for d, kinds in traffic.items()},
            sqnr={d: {kind: each.sqnr for kind, each in kinds.items()} for d, kinds in traffic.items()},
            again=dict(self.ledger.again(t)),
            left_out=list(self.transport.left_out),
            local_accuracy=local.summary if local else None,
            gradient_error=error,
            simulated_seconds=self._simulated_seconds(t),
            cost=self.parts.network.cost(self.ledger.load),
            seconds={
                "clients": clients,
                "server": trained - start - clients,
                "evaluate": time.perf_counter() - trained,
            },
        )

    def _simulated_seconds(self, t: int) -> float | None:
        """Of all rounds so far."""
        if self.clock is None:
            return None
        before = self.records[-1].simulated_seconds if self.records else None
        messages, fits = self.ledger.taken(t), self.parts.alignment.fits
        return (before or 0.0) + self.clock.seconds(t, messages, self.transport.samples, fits)

    def forget(self) -> None:
        """After a round with stateless clients: drop what is kept for each."""
        if self.config["client"]["stateless"]:
            self.transport.forget_clients()
            self.algorithm.forget_clients()

    def _evaluate(self, full: Weights) -> tuple[float, float]:
        accuracy, loss = self.evaluate(full)
        if not isfinite(loss):
            raise RunFailed("the test loss is not finite")
        return accuracy, loss

    def _local_accuracies(self, full: Weights) -> LocalAccuracies | None:
        """On what each client held out; None where they held out nothing."""
        evaluator, held_out = self._evaluate_locally, self.parts.data.local_test
        if evaluator is None or held_out is None:
            return None
        return LocalAccuracies.of(evaluator.correct(full).tolist(), held_out.sizes)

    def _gradient_error(self, t: int, cohort: Collection[int]) -> float | None:
        if not self.config["measure_gradient_error"]:
            return None
        with torch.random.fork_rng(devices=[]):  # what dropout is seeded with stays in here
            return self.algorithm.gradient_error(t, cohort)

    def stopped_by(self) -> StoppedBy | None:
        """The first limit that is reached, once there is a round."""
        if not self.records:
            return None
        last, config = self.records[-1], self.config
        if config["target_accuracy"] is not None and (last.test_accuracy or 0.0) >= config["target_accuracy"]:
            return "target_accuracy"
        if config["comm_threshold_mb"] is not None and last.load >= config["comm_threshold_mb"] * 1e6:
            return "comm_threshold_mb"
        if config["time_limit_s"] is not None and self.elapsed >= config["time_limit_s"]:
            return "time_limit_s"
        return "rounds" if len(self.records) >= self.rounds else None

    def run(self, directory: RunDirectory) -> None:
        """Run from where the state stands to the end, and leave everything behind in `directory`.

        Raises:
            UserError: the directory cannot be written.
            RunFailed: training diverged; the last checkpoint is kept.
        """
        directory.open(self.config, self.records, self.parts.class_counts)
        results = None
        try:
            self.tracker.start(self.config, directory.path, [record.row() for record in self.records])
            lines = ProgressLines(self._doing, Console() if self.config["progress"] else None)
            with lines.going_on():
                lines.tell(self._beginning(directory))
                with self.transport.opened(directory.path):
                    results = self._run(directory, lines)
        except (OSError, SafetensorError) as error:
            told = f"{directory.path} cannot be written ({error})"
            raise self._failed(told, directory) from error
        except RuntimeError as error:
            # a GPU's allocator has an error of its own, the CPU's only these words
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                told = "out of memory; lower batch_size, num_clients or auxiliary.max_dataset_size"
                raise self._failed(told, directory) from error
            raise
        finally:
            self.tracker.finish(results)
            directory.close()

    def _beginning(self, directory: RunDirectory) -> str:
        """What is run, where, and where to."""
        clients, device = self.config["num_clients"], self.config["device"]
        before = f", going on after {len(self.records)}" if self.records else ""
        told = f"{self.rounds} rounds, {clients} clients, on {device}{before}"
        _LOG.info("%s", told)
        if (root := self.config["dataset"].get("root")) is not None:
            _LOG.info("images from %s", root)
        return f"{told}; saved in {shown(directory.path)}"

    def _doing(self) -> str:
        """What is done now, in a few words."""
        if self._phase == "training" and (aligned := self._aligned(len(self.records))):
            return f"round {len(self.records):>4}  aligning: {aligned} clients done"
        return f"round {len(self.records):>4}  {self._phase}"

    def _aligned(self, t: int) -> int:
        """How many clients' auxiliary models were aligned in round `t`."""
        return sum(fit.round == t for fit in list(self.parts.alignment.fits.values()))

    def _run(self, directory: RunDirectory, lines: ProgressLines) -> dict[str, object]:
        interval = self.config["checkpoint_interval"]
        while (stopped_by := self.stopped_by()) is None:
            began = time.perf_counter()
            try:
                record = self.run_round(len(self.records))
            except KeyboardInterrupt:
                if self.transport.restored and self._saved != len(self.records):
                    self._save(directory)
                raise
            except (RunFailed, OverflowError) as error:  # OverflowError: a schedule that grows without bound
                told = f"{error}; learning rate {self._learning_rates()}: lower it"
                raise self._failed(told, directory) from error
            self.records.append(record)
            directory.record(record)
            self.tracker.round(record.row())
            self._tell(lines, record)
            self.elapsed += time.perf_counter() - began  # before the checkpoint, which keeps it
            if len(self.records) % interval == 0:
                began = time.perf_counter()
                self._save(directory)
                self.elapsed += time.perf_counter() - began
        if self._saved != len(self.records):
            self._save(directory)
        return self._finish(directory, stopped_by)

    def _save(self, directory: RunDirectory) -> None:
        directory.save_checkpoint(self.checkpoint())
        self._saved = len(self.records)

    def _failed(self, what: str, directory: RunDirectory) -> RunFailed:
        kept = ""
        if self._saved:
            kept = f"; the checkpoint after {self._saved} rounds is kept: {resume_command(directory.path)}"
        failed = RunFailed(f"round {len(self.records)}: {what}{kept}")
        _LOG.error("%s", failed)
        return failed

    def _learning_rates(self) -> str:
        """Of both sides, before the schedule's factor."""
        return f"{self.parts.client_optimizer.lr:g} (clients), {self.parts.server_optimizer.lr:g} (server)"

    def _finish(self, directory: RunDirectory, stopped_by: StoppedBy) -> dict[str, object]:
        """Measure the final model, and write what is left of a run that has ended; its results."""
        full = self.algorithm.full_weights()
        halves = self.parts.models.halves
        models: dict[str, Weights] = {
            "client": {name: full[name] for name in halves.client.state_dict()},
            "server": {name: full[name] for name in halves.server.state_dict()},
            **self.algorithm.auxiliary_weights(),
        }
        directory.save_model(models)
        local = self._local_accuracies(full)
        if (last := self.records[-1]).test_accuracy is None:
            # After the checkpoint, which a longer run could go on from: there this round is not evaluated.
            accuracy, loss = self._evaluate(full)
            self.records[-1] = replace(
                last,
                test_accuracy=accuracy,
                test_loss=loss,
                local_accuracy=local.summary if local else None,
            )
            directory.rewrite(self.records)
            before, after = last.row(), self.records[-1].row()
            self.tracker.round({k: v for k, v in after.items() if k == "round" or v != before[k]})
        results = summarise(
            self.records,
            stopped_by=stopped_by,
            target_accuracy=self.config["target_accuracy"],
            parameters={
                "client": _parameters(halves.client),
                "server": _parameters(halves.server),
                "auxiliary": _parameters(self.parts.models.auxiliary),
            },
        )
        results |= {"auc": None}
        directory.save_results(results)
        if local:
            with optional(LOCAL_ACCURACY):
                directory.save_local_accuracies(local)
        results |= self._save_classification(full, directory)
        directory.save_results(results)
        _LOG.info("stopped by %s after %s rounds", stopped_by, len(self.records))
        return results

    def _save_classification(self, full: Weights, directory: RunDirectory) -> dict[str, object]:
        """Write how the final model classifies test images, each part by itself; what results hold of it."""
        results: dict[str, object] = {}
        with optional(f"{CONFUSION} and {ROC}"):
            logits, labels, names = self._test_logits(full)
            with optional(ROC):
                curves = RocCurves.of(logits, labels, names)
                directory.save_roc(curves)
                results |= {"auc": curves.macro}
            with optional(CONFUSION):
                confusion = ConfusionMatrix.of(logits, labels, names)
                directory.save_confusion(confusion)
                if len(names) <= MOST_CLASSES:
                    results |= {"class_accuracy": confusion.class_accuracy}
        return results

    def _test_logits(self, full: Weights) -> tuple[Floats, Integers, tuple[str, ...]]:
        """Of the test images, their labels, and the names of the classes."""
        dataset = self.parts.data.dataset
        names = dataset.class_names or tuple(map(str, range(dataset.num_classes)))
        logits, labels = self.evaluate.logits(full).cpu().numpy(), self.evaluate.labels.cpu().numpy()
        if not np.isfinite(logits).all():
            raise ValueError("the test logits are not finite")
        return logits, labels, names

    def _tell(self, lines: ProgressLines, record: Record) -> None:
        accuracy = "" if record.test_accuracy is None else f"accuracy {record.test_accuracy:.4f}  "
        line = (
            f"round {record.round:>4}  {accuracy}loss {record.train_loss:.4f}  "
            f"{record.load / 1e6:,.2f} MB  {sum(record.seconds.values()):.2f} s"
        )
        if aligned := self._aligned(record.round):
            line += f"  {aligned} clients aligned"
        if record.simulated_seconds is not None:
            line += f"  {record.simulated_seconds:,.1f} s simulated"
        if network := self.transport.told(sum(record.seconds.values())):
            line += f"  {network}"
        _LOG.info("%s", line)
        lines.round(line)

    # Going on after a kill

    def checkpoint(self) -> Checkpoint:
        """Everything the next round depends on."""
        state: State = {
            "algorithm": self.algorithm.state(),
            **self.transport.state(),
            "ledger": self.ledger.state(),
            "records": [record.state() for record in self.records],
            "elapsed": self.elapsed,
            "identity": identity(self.config, self.parts.data.fingerprint),
        }
        return Checkpoint(len(self.records), state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint.

        Raises:
            UserError: it is of a run with other data, or of another form than this version writes, or more
                rounds were run already than `rounds` allows.
        """
        if checkpoint.rounds > self.rounds:
            raise UserError("rounds", self.rounds, f"at least the {checkpoint.rounds} rounds that were run")
        refuse_changed_data(_identity_of(checkpoint)["data"], self.parts.data.fingerprint, self.config)
        try:
            check_state(checkpoint, self.checkpoint().state, self.transport.run)
            self._take_over(checkpoint.state)
            check_taken_over(checkpoint, self.algorithm.state(), self.transport.run.engine.state())
        except Misfit as misfit:
            raise checkpoint.unfit(misfit) from misfit
        self._saved = checkpoint.rounds

    def _take_over(self, state: State) -> None:
        try:
            self.algorithm.load_state(state["algorithm"])
            self.transport.load_state(state)
            self.ledger.load_state(state["ledger"])
            self.records = [Record.from_state(record) for record in state["records"]]
            self.elapsed = float(state["elapsed"])
        except (UserError, RunFailed, Misfit):
            raise
        except Exception as error:  # whatever comes of what somebody else wrote
            told = first_line(error)
            raise Misfit("state", f"cannot be taken over ({type(error).__name__}: {told})") from error


def _parameters(module: nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in module.parameters()) if module else 0
