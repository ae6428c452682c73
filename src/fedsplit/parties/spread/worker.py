"""Worker of a cluster: an engine for some of the clients, and what serves them there."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from fedsplit.estimators.alignment import Alignment, AlignmentTask
from fedsplit.estimators.fit import Fit
from fedsplit.parties.engine import Engine
from fedsplit.parties.messages import BatchLoss, LocalWork, Part, StackedUploads, Upload, UploadStack
from fedsplit.parties.server_copies import SequentialCopies
from fedsplit.parties.split_server import SplitServer
from fedsplit.state.state import State
from fedsplit.state.weights import StackedWeights, Weights


class SpreadWorker:
    """Answers an engine that spreads clients over workers.

    Args:
        engine: engine that computes the clients of this worker.
        device: device that the engine computes on.
        copies: copies of the server model for those clients; None where other processes have them.
        alignment: alignment that fits auxiliary models of any client; it keeps none.
        server: server that gives cut gradients for alignments.
    """

    def __init__(
        self,
        engine: Engine,
        device: torch.device,
        *,
        copies: SequentialCopies | None,
        alignment: Alignment,
        server: SplitServer,
    ) -> None:
        self._engine, self.device = engine, device
        self._copies, self._alignment, self._server = copies, alignment, server
        self._initially: Weights = {}
        self._verbs: dict[str, Callable[..., Any]] = {
            "form": self.form,
            "install": self.install,
            "weights": self.weights,
            "forward": self.forward,
            "forward_evaluating": self.forward_evaluating,
            "backward": self.backward,
            "probe": self.probe,
            "move": engine.move,
            "step_tail": engine.step_tail,
            "train_local": self.train_local,
            "state": engine.state,
            "take": engine.take,
            "forget": engine.forget,
            "drop_heads": engine.drop_heads,
            "clear": self.clear,
            "fix_server": self.fix_server,
            "align": self.align,
        }
        if copies is not None:
            self._verbs |= {
                "load_copies": partial(_load_copies, copies),
                "step_copies": copies.step,
                "copies_weights": copies.weights,
                "copies_state": copies.state,
                "take_copies": copies.take,
                "forget_copies": copies.forget,
            }

    def answer(self, verb: str, *arguments: Any) -> Any:
        """Do what an engine asks for."""
        with torch.random.fork_rng(devices=[]):  # seeds of dropout stay in here
            return self._verbs[verb](*arguments)

    def form(self, units: Sequence[Sequence[int]], states: State) -> None:
        """Compute these clients, those of a unit together; some come with their states."""
        self._engine.give(states)
        self._engine.form(units)

    def install(self, part: Part, receivers: Sequence[Sequence[int]], *weights: Weights) -> None:
        """Give clients weights; `receivers` are those of each of `weights`."""
        messages = zip(receivers, weights, strict=True)
        self._engine.install(
            part, {client: client_weights for clients, client_weights in messages for client in clients}
        )

    def weights(self, part: Part, clients: Sequence[int]) -> list[Weights] | list[Any]:
        """Weights in the order of `clients`, or stacks of them, as `StackedWeights` takes them."""
        client_weights = self._engine.weights(part, clients)
        if isinstance(client_weights, StackedWeights):
            return [(list(positions), tensors) for positions, tensors in client_weights.stacks]
        return list(client_weights)

    def forward(
        self, clients: Sequence[int], round: int, step: int
    ) -> tuple[bool, Sequence[UploadStack] | Sequence[Upload]]:
        """Smashed data, and True where they are stacks."""
        uploads = self._engine.forward(clients, round, step)
        if isinstance(uploads, StackedUploads):
            return True, list(uploads.stacks)
        return False, list(uploads)

    def forward_evaluating(self, clients: Sequence[int], round: int, step: int) -> list[Upload]:
        """Smashed data as models are evaluated."""
        return list(self._engine.forward_evaluating(clients, round, step))

    def backward(self, round: int, step: int, dz: Mapping[int, torch.Tensor]) -> None:
        """Step clients along cut gradients."""
        self._engine.backward(round, step, dz)

    def probe(
        self, round: int, step: int, dz: Mapping[int, torch.Tensor], seeds: Sequence[int]
    ) -> dict[int, torch.Tensor]:
        """Slopes of clients along random directions, by client."""
        return dict(self._engine.probe(round, step, dz, seeds))

    def train_local(
        self, clients: Sequence[int], round: int, work: LocalWork
    ) -> tuple[list[Upload], list[BatchLoss]]:
        """Uploads and losses of local epochs."""
        training = self._engine.train_local(clients, round, work)
        return list(training.uploads), training.losses

    def fix_server(self, server: Weights, initially: Weights) -> None:
        """Take over the server model of later alignments, and the weights that first ones start from."""
        self._server.load(server)
        self._initially = initially

    def align(self, task: AlignmentTask) -> tuple[State, Fit]:
        """The state of an auxiliary model after an alignment, and what it took."""
        model, fit = self._alignment.fit(task, self._server, initially=self._initially)
        return model.state(), fit

    def clear(self) -> None:
        """Hold no client any more."""
        self._engine.load_state({})


def _load_copies(copies: SequentialCopies, clients: Sequence[int], states: State, weights: Weights) -> None:
    """Let copies begin a round; some of them come with their states."""
    copies.give(states)
    copies.load(dict.fromkeys(clients, 0), weights)  # copies that are stepped one by one ask for no samples
