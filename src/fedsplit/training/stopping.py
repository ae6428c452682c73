"""Limits at which a run stops."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from fedsplit.recording.metrics import Record, StoppedBy


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a run, which stops at the first that it reaches; None is no limit.

    Args:
        rounds: most rounds that the run has.
        target_accuracy: fraction of the terms of the test loss that are right.
        target_perplexity: perplexity on the test split.
        comm_threshold_mb: communication load, in 10^6 bytes.
        time_limit_s: seconds of training, evaluation and checkpoints.
    """

    rounds: int
    target_accuracy: float | None = None
    target_perplexity: float | None = None
    comm_threshold_mb: float | None = None
    time_limit_s: float | None = None

    def find_first(self, records: Sequence[Record], elapsed: float) -> StoppedBy | None:
        """Name of the first limit that a run has reached; None where there is none, or no round yet.

        Args:
            records: records of all rounds of the run.
            elapsed: seconds that they took.
        """
        if not records:
            return None
        last_record = records[-1]
        if self.target_accuracy is not None and (last_record.test_accuracy or 0.0) >= self.target_accuracy:
            return "target_accuracy"
        if (
            self.target_perplexity is not None
            and (last_record.test_perplexity or inf) <= self.target_perplexity
        ):
            return "target_perplexity"
        if self.comm_threshold_mb is not None and last_record.load >= self.comm_threshold_mb * 1e6:
            return "comm_threshold_mb"
        if self.time_limit_s is not None and elapsed >= self.time_limit_s:
            return "time_limit_s"
        return "rounds" if len(records) >= self.rounds else None
