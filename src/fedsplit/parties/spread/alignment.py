"""Alignments that workers compute; rings and auxiliary models stay where the servers are."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from fedsplit.estimators.alignment import Alignment, AlignmentTask, FixedServer
from fedsplit.parties.spread.engine import SpreadEngine
from fedsplit.parties.spread.placement import place
from fedsplit.parties.workers import PendingAnswer
from fedsplit.state.weights import Weights

_AHEAD = 2
"""Alignments that each worker is asked for at a time: rings are large, and wait in shared memory."""


class SpreadAlignment(Alignment):
    """Asks workers for the alignments of clients; see `Alignment`.

    Args:
        engine: engine that has the workers.
        arguments: arguments of `Alignment`.
    """

    def __init__(self, engine: SpreadEngine, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._engine, self._workers = engine, engine.workers

    @override
    def align_many(
        self, clients: Sequence[int], round: int, server: FixedServer, *, initially: Weights
    ) -> dict[int, Weights]:
        workers = self._workers.present
        shared_weights = [self._workers.share(weights) for weights in (server.weights(), initially)]
        for worker in workers:
            self._engine.tell(worker, "fix_server", *shared_weights)
        samples = [float(len(self._rings[client])) for client in clients]
        homes = place([[client] for client in clients], samples, {}, workers)
        waiting: deque[tuple[AlignmentTask, PendingAnswer]] = deque()
        auxiliary_weights: dict[int, Weights] = {}
        for client, worker in zip(clients, homes, strict=True):
            if len(waiting) == _AHEAD * len(workers):
                auxiliary_weights |= self._finish(*waiting.popleft())
            task = self.task(client, round)
            waiting.append((task, self._workers.ask(worker, "align", task)))
        while waiting:
            auxiliary_weights |= self._finish(*waiting.popleft())
        return auxiliary_weights

    def _finish(self, task: AlignmentTask, pending: PendingAnswer) -> dict[int, Weights]:
        ((state, fit),) = self._engine.gather([pending])
        model = self._new_auxiliary()
        model.load_state(state)
        return {task.client: self.finish(task, model, fit)}
