"""The round loop of a run: it trains, evaluates and records round by round until a limit is reached."""

import logging
import time
from dataclasses import replace
from functools import partial

from rich.console import Console

from fedsplit.building.kept_state import estimate_kept_state
from fedsplit.building.run import build_run
from fedsplit.building.trained_start import TrainedStart
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import RunFailed, UserError
from fedsplit.files.paths import display_path
from fedsplit.generation.generation import Generation
from fedsplit.machine.extras import extra
from fedsplit.models.adapters.adapter import Adapter
from fedsplit.parties.workers import WorkerLost
from fedsplit.recording.checkpoint import Checkpoint, Since
from fedsplit.recording.identity import identity, refuse_changed_data, refuse_changed_model
from fedsplit.recording.metrics import Record, StoppedBy
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.trackers.tracker import Harmless, Tracker
from fedsplit.training.evaluation import Evaluation
from fedsplit.training.failures import report_failure, report_lack_of_room
from fedsplit.training.final_report import FinalReport
from fedsplit.training.progress import Activity, ProgressLines, describe_activity, describe_round, first_line
from fedsplit.training.recovery import Recovery
from fedsplit.training.round_callback import call_after_round
from fedsplit.training.rounds import Rounds
from fedsplit.training.run_state import run_state, take_over
from fedsplit.training.state_form import identity_of
from fedsplit.training.stopping import Limits

_LOG = logging.getLogger("fedsplit")


class Experiment:
    """One run: it builds everything here, and writes nothing before `run`.

    Args:
        config: configuration of the run.
        start: trained models to start from; None starts from models as they are initialised.

    Raises:
        UserError: the run cannot be built as configured.
    """

    def __init__(self, config: RunConfig, start: TrainedStart | None = None) -> None:
        with extra("tracker", config.choices.get("tracker")):
            self.tracker = Harmless(config.tracker.build(Tracker))
        self.parts = parts = build_run(config, start)
        self.config, self.algorithm, self.evaluate = parts.config, parts.algorithm, parts.evaluate
        self.ledger, self.transport = parts.ledger, parts.transport
        held_out = parts.data.local_test.sizes if parts.data.local_test else ()
        generation = self.config.generation.build(Generation)
        writer = generation.writer(self.config.dataset, self.config.evaluation.eval_batch_size)
        if writer is not None and self.algorithm.own_half is not None:
            message = "must be none with this algorithm, whose clients have models of their own"
            raise UserError("generation", self.config.choice("generation"), message)
        self.evaluation = Evaluation(
            parts.evaluate,
            parts.evaluate_locally,
            held_out,
            generation,
            writer,
            parts.device,
            parts.engine.blueprint,
        )
        self.rounds = Rounds(parts, self.evaluation)
        self.limits = Limits(**vars(self.config.budget))
        self.records: list[Record] = []
        self.elapsed = 0.0
        self._saved = 0  # rounds in the newest checkpoint
        self._recovery = Recovery(parts, self.checkpoint)

    def run_round(self, t: int) -> Record:
        """Train, evaluate and count round `t`; its record, see `Rounds.run`."""
        return self.rounds.run(t, self.records)

    def stopped_by(self) -> StoppedBy | None:
        """The first limit that the run has reached, once there is a round."""
        return self.limits.find_first(self.records, self.elapsed)

    def run(self, directory: RunDirectory) -> None:
        """Run from where the state stands to the end, and write results and models into `directory`.

        Raises:
            UserError: the directory cannot be written.
            RunFailed: training diverged; the last checkpoint is kept.
        """
        directory.open(self.config.plain(), self.records, self.parts.class_counts)
        results = None
        try:
            self.tracker.start(self.config.plain(), directory.path, [record.row() for record in self.records])
            console = Console() if self.config.recording.progress else None
            lines = ProgressLines(self._activity, console)
            with (
                report_lack_of_room(partial(self._report_failure, directory), directory.path),
                lines.beating(),
            ):
                began = self._begin()
                if self.stopped_by() is None:  # else nothing begins
                    lines.tell(f"{began}; saved in {display_path(directory.path)}")
                self._recovery.after_round(self._saved)
                with self.transport.open(directory.path):
                    results = self._run_to_the_end(directory, lines)
        finally:
            self.tracker.finish(results)
            directory.close()

    def _begin(self) -> str:
        message = first_line(
            self.limits.rounds, len(self.parts.sample_counts), self.parts.device, len(self.records)
        )
        _LOG.info("%s", message)
        for line in self.rounds.privacy.reasons():
            _LOG.info("%s", line)
        if (kept_state := estimate_kept_state(self.parts)) is not None:
            _LOG.info("%s", kept_state)
        if (root := self.config.dataset_root) is not None:
            _LOG.info("images from %s", root)
        return message

    def _activity(self) -> Activity:
        if len(self.records) >= self.limits.rounds:
            return Activity("writing results")
        return describe_activity(
            len(self.records),
            self.rounds.phase,
            self.parts.alignment.fits,
            seconds=time.monotonic() - self.rounds.began,
            fraction=self.rounds.fraction,
            load=self.ledger.load,
            before=[sum(record.seconds.values()) for record in self.records[-5:]],
            rounds=self.limits.rounds,
        )

    def _run_to_the_end(self, directory: RunDirectory, lines: ProgressLines) -> dict[str, object]:
        while True:
            try:
                stopped_by = self._train(directory, lines)
            except WorkerLost as lost_worker:
                self._go_back(directory, lost_worker)
            else:
                break
        dataset = self.parts.data.dataset
        report = FinalReport(
            directory=directory,
            tracker=self.tracker,
            algorithm=self.algorithm,
            models=self.parts.models,
            adapter=self.parts.config.adapter.build(Adapter),
            class_names=dataset.class_names or tuple(map(str, range(dataset.num_classes))),
            clients=self.config.population.num_clients,
            evaluation=self.evaluation,
            privacy=self.rounds.privacy,
            cluster=self._recovery.cluster,
        )
        return report.write(self.records, stopped_by, self.limits)

    def _train(self, directory: RunDirectory, lines: ProgressLines) -> StoppedBy:
        while (stopped_by := self.stopped_by()) is None:
            began = time.perf_counter()
            try:
                record = self.run_round(len(self.records))
            except KeyboardInterrupt:
                if self.transport.has_restored and self._saved != len(self.records):
                    self._save(directory)
                raise
            except WorkerLost:
                raise
            except (RunFailed, OverflowError) as error:  # OverflowError: a schedule that grows without bound
                client, server = self.parts.client_optimizer.lr, self.parts.server_optimizer.lr
                rates = f"{client:g} (clients), {server:g} (server)"
                raise self._report_failure(directory, f"{error}; learning rate {rates}: lower it") from error
            self.records.append(record)
            directory.record(record)
            if (written := self.rounds.texts) is not None:
                directory.save_texts(record.round, written.lines())
            self.tracker.round(record.row())
            line = describe_round(record, self.parts.alignment.fits, self.transport.describe_traffic)
            _LOG.info("%s", line)
            lines.round(line)
            self.elapsed += time.perf_counter() - began  # before the checkpoint, which keeps it
            if len(self.records) % self.config.recording.checkpoint_interval == 0:
                began = time.perf_counter()
                self._save(directory)
                self.elapsed += time.perf_counter() - began
            self._recovery.after_round(self._saved)
            call_after_round(record.row())
        if self._saved != len(self.records):
            self._save(directory)
        return stopped_by

    def _go_back(self, directory: RunDirectory, lost_worker: WorkerLost) -> None:
        """Go on from an earlier round with workers in the place of those that were lost."""
        saved = self._saved
        try:
            self._recovery.go_back(lost_worker, len(self.records), directory.latest_checkpoint, self.restore)
        except WorkerLost as other:
            self._go_back(directory, other)
            return
        except RunFailed as error:
            raise self._report_failure(directory, str(error)) from error
        self._saved = saved
        _LOG.warning("%s; the run goes on with round %s", lost_worker, len(self.records))
        directory.rewrite(self.records)

    def _report_failure(self, directory: RunDirectory, reason: str) -> RunFailed:
        return report_failure(reason, directory.path, t=len(self.records), saved=self._saved)

    def _save(self, directory: RunDirectory) -> None:
        since = Since(self._saved, self.rounds.changed_clients) if self._saved else None
        directory.save_checkpoint(replace(self.checkpoint(), since=since))
        self._saved = len(self.records)
        self.rounds.changed_clients.clear()

    def checkpoint(self) -> Checkpoint:
        """Everything the next round depends on."""
        run_identity = identity(self.config, self.parts.data.fingerprint, self.parts.models.frozen_digest)
        parts = (self.algorithm, self.transport, self.ledger)
        state = run_state(*parts, records=self.records, elapsed=self.elapsed, identity=run_identity)
        return Checkpoint(len(self.records), state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint.

        Raises:
            UserError: it is of a run with other data, or in another form than this version writes, or more
                  rounds were run already than `rounds` allows.
        """
        if checkpoint.rounds > self.limits.rounds:
            message = f"must be at least {checkpoint.rounds}, the rounds that were run"
            raise UserError("rounds", self.limits.rounds, message)
        before = identity_of(checkpoint)
        refuse_changed_data(before["data"], self.parts.data.fingerprint, self.config)
        refuse_changed_model(before["frozen"], self.parts.models.frozen_digest, self.config)
        parts = (self.algorithm, self.transport, self.ledger)
        self.records, self.elapsed = take_over(checkpoint, self.checkpoint().state, *parts)
        self._saved = checkpoint.rounds
