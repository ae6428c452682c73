"""Recovery of a run whose cluster lost a worker: the same as a resume, without a new start."""

from collections.abc import Callable

from fedsplit.building.parts import RunParts
from fedsplit.errors import RunFailed
from fedsplit.parties.spread.engine import SpreadEngine
from fedsplit.parties.workers import ClusterSummary, WorkerLost
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.state.state import copy_state

_MOST_IN_A_ROW = 5
"""Workers lost without a round between them that ends, at which a run gives up."""


class Recovery:
    """Holds the state after an earlier round where none is on disk, or where it is small.

    That is the start of the run before its first checkpoint, and the end of each round where clients keep
    nothing from round to round: then no more than the round in which a worker is lost is trained again.

    Args:
        parts: parts of the run.
        checkpoint: function that returns the run's state now.
    """

    def __init__(self, parts: RunParts, checkpoint: Callable[[], Checkpoint]) -> None:
        self._engine = parts.engine if isinstance(parts.engine, SpreadEngine) else None
        keeps_nothing = parts.config.client.stateless and not parts.engine.blueprint.keeps_head
        self._ledger, self._checkpoint, self._every_round = parts.ledger, checkpoint, keeps_nothing
        self._last_checkpoint: Checkpoint | None = None
        self._in_a_row = 0

    @property
    def cluster(self) -> ClusterSummary | None:
        """Use of a cluster by the run so far; None where it has none."""
        return self._engine.summary if self._engine else None

    def after_round(self, saved: int) -> None:
        """Hold the state where it has to be held, at the start of a run and after each of its rounds.

        Args:
            saved: number of rounds in the newest checkpoint on disk; 0 where there is none.
        """
        self._in_a_row = 0
        if self._engine is None:
            return
        if self._every_round or (saved == 0 and self._last_checkpoint is None):
            checkpoint = self._checkpoint()
            self._last_checkpoint = Checkpoint(checkpoint.rounds, copy_state(checkpoint.state))
        elif saved:
            self._last_checkpoint = None

    def go_back(
        self,
        lost_worker: WorkerLost,
        rounds: int,
        latest: Callable[[], Checkpoint | None],
        restore: Callable[[Checkpoint], None],
    ) -> None:
        """Bring workers back, and the run to where it stood; bytes of repeated rounds are counted apart.

        Args:
            lost_worker: error of the worker that was lost.
            rounds: number of rounds that had ended.
            latest: function that returns the newest checkpoint on disk.
            restore: function that takes a checkpoint over.

        Raises:
            RunFailed: too few workers are left, or one after the other is lost.
            WorkerLost: another worker was lost meanwhile.
        """
        self._in_a_row += 1
        if self._in_a_row >= _MOST_IN_A_ROW:
            raise RunFailed(
                f"{lost_worker}; {self._in_a_row} were lost without a round between them that ended"
            )
        assert self._engine is not None, "only a cluster loses workers"
        self._engine.recover()
        before = self._last_checkpoint or latest()
        assert before is not None, "the start is held until there is a checkpoint"
        lost_rounds = range(before.rounds, rounds + 1)
        for t in lost_rounds:
            self._ledger.abandon(t)
        repeated = [
            (t, way, size)
            for t in lost_rounds
            for way, size in self._ledger.repeated_bytes(t).items()
            if size
        ]
        restore(Checkpoint(before.rounds, copy_state(before.state)))
        for t, direction, size in repeated:
            self._ledger.add_again(t, direction, size)
