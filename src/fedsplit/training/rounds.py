"""One round of a run: it is trained, evaluated and counted."""

import time
from collections.abc import Collection, Sequence
from functools import cached_property, partial

import torch

from fedsplit.algorithms.algorithm import RoundMetrics
from fedsplit.building.client_cost import build_client_cost
from fedsplit.building.parts import RunParts
from fedsplit.errors import RunFailed
from fedsplit.generation.writer import GeneratedTexts
from fedsplit.parties.client_cost import ClientCost
from fedsplit.parties.cohort import Cohort
from fedsplit.recording.metrics import Record
from fedsplit.state.weights import is_finite
from fedsplit.training.evaluation import Evaluation
from fedsplit.training.privacy import PrivacyRecord


class Rounds:
    """Rounds of a run, one at a time.

    parts: parts of the run.
        evaluation: evaluation of the whole model.
        evaluation: of the whole model.
    """

    def __init__(self, parts: RunParts, evaluation: Evaluation) -> None:
        self._parts, self._config, self._evaluation = parts, parts.config, evaluation
        self._algorithm, self._transport, self._ledger = parts.algorithm, parts.transport, parts.ledger
        self.privacy = PrivacyRecord(parts)
        self.phase = "training"
        """Current phase of the round, as progress shows it."""
        self.began = time.monotonic()
        """Time at which the round began, in seconds of `time.monotonic`."""
        self._samples, self._read = 0, 0
        self.changed_clients: set[int] = set()
        """Clients whose state may differ from that in the last checkpoint."""
        self.texts: GeneratedTexts | None = None
        """Texts of the last round; None where none were generated in it."""

    def run(self, t: int, before: Sequence[Record]) -> Record:
        """Train round `t`, evaluate if it is time to, and count.

        Args:
            t: number of the round.
            before: records of the rounds before it.

        Raises:
            NonFinite: a client's loss or weights are no longer finite.
            RunFailed: the averaged model or its test loss is not finite.
        """
        start, self.phase = time.perf_counter(), "training"
        self._transport.client_seconds = 0.0
        cohort = self._parts.cohort_of(t)
        self.changed_clients.update(cohort)
        self.began, self._read = time.monotonic(), self._parts.data.count.read
        self._samples = sum(self._parts.sample_counts[client] for client in cohort)
        metrics = self._transport.run_round(t, cohort, partial(self._train, t), self._algorithm)
        if dropped_clients := self._parts.alignment.dropped_clients:
            self._transport.drop_auxiliaries(dropped_clients)
            self.changed_clients.update(dropped_clients)
        self.forget()
        end_of_training = time.perf_counter()
        self.phase = "evaluating"
        models = self._algorithm.models(self._config.population.num_clients)
        auxiliary = self._algorithm.evaluated_auxiliary()
        if not all(map(is_finite, models)):
            raise RunFailed("the model is not finite")
        scores = local = released_accuracy = self.texts = None
        evaluations, remainder = divmod(t + 1, self._config.evaluation.eval_interval)
        if not remainder:
            scores = self._evaluation.globally(models, auxiliary)
            local = self._evaluation.locally(models, auxiliary)
            released_accuracy = self._evaluation.released_accuracy(models, auxiliary, t)
            if self._evaluation.generation.is_due(evaluations):
                self.texts = self._evaluation.texts(models[0], auxiliary)
        error = self._gradient_error(t, cohort)
        clients = self._transport.client_seconds
        traffic, load = self._ledger.traffic(t), self._ledger.load
        return Record(
            round=t,
            test_accuracy=scores.accuracy if scores else None,
            test_loss=scores.loss if scores else None,
            test_perplexity=scores.perplexity if scores else None,
            evaluated_auxiliary=auxiliary is not None,
            train_loss=metrics.train_loss,
            load=load,
            bytes=self._ledger.of_round(t),
            bits={
                d: {kind: traffic_of_kind.bits for kind, traffic_of_kind in kinds.items()}
                for d, kinds in traffic.items()
            },
            sqnr={
                d: {kind: traffic_of_kind.sqnr for kind, traffic_of_kind in kinds.items()}
                for d, kinds in traffic.items()
            },
            again=dict(self._ledger.repeated_bytes(t)),
            copies=self._ledger.copies(t),
            observed=self._ledger.observed_bytes(t),
            left_out=list(self._transport.left_out),
            local_accuracy=local.summary if local else None,
            gradient_error=error,
            simulated_seconds=self._simulated_seconds(t, before),
            cost=self._parts.network.cost(load),
            client_memory=self.client_cost.memory,
            held=self.client_cost.waiting,
            text_scores=self.texts.scores if self.texts else None,
            released_accuracy=released_accuracy,
            epsilons=self.privacy.epsilons(t),
            seconds={
                "clients": clients,
                "server": end_of_training - start - clients,
                "evaluate": time.perf_counter() - end_of_training,
            },
        )

    @property
    def fraction(self) -> float | None:
        """Fraction of the round's local training that is done; None where none was done in this process."""
        read = self._parts.data.count.read - self._read
        expected_reads = self._samples * self._config.training.local_epochs
        return min(1.0, read / expected_reads) if read and expected_reads else None

    def _train(self, t: int, cohort: Cohort) -> RoundMetrics:
        metrics = self._algorithm.run_round(t, cohort)
        self._algorithm.observe(cohort)
        return metrics

    @cached_property
    def client_cost(self) -> ClientCost:
        """Memory of a client, which is the same in all rounds."""
        return build_client_cost(self._parts, trains_head=self._algorithm.trains_head)

    def forget(self) -> None:
        """Drop what is kept for each client, after a round with stateless clients."""
        if self._config.client.stateless:
            self._transport.forget_clients()
            self._algorithm.forget_clients()

    def _gradient_error(self, t: int, cohort: Collection[int]) -> float | None:
        if not self._config.evaluation.measure_gradient_error:
            return None
        with torch.random.fork_rng(devices=[]):  # seeds of dropout stay in here
            return self._algorithm.gradient_error(t, cohort)

    def _simulated_seconds(self, t: int, before: Sequence[Record]) -> float | None:
        """Simulated seconds of all rounds so far."""
        if (clock := self._parts.clock) is None:
            return None
        seconds_before = (before[-1].simulated_seconds if before else None) or 0.0
        messages, fits = self._ledger.pop_messages(t), self._parts.alignment.fits
        at_rest = self._algorithm.samples_at_rest
        return seconds_before + clock.seconds(t, messages, self._transport.samples, fits, at_rest)
