"""Evaluation of a run's whole model: on the test samples, on what each client held out, by what it writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from fedsplit.errors import RunFailed
from fedsplit.generation.generation import Generation
from fedsplit.generation.writer import Writer, Written
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.evaluation import Evaluator, Scores
from fedsplit.parties.messages import Upload
from fedsplit.recording.metrics import LocalAccuracies
from fedsplit.state.weights import Weights


@dataclass(frozen=True)
class Evaluation:
    """Evaluators of a run.

    Args:
        test: evaluates on the test images.
        local: evaluates on what clients held out, one client's after the other's; None where they did not.
        held_out: images that each client held out.
        generation: says when texts are generated.
        writer: generates them; None where none are.
        device: that the model is on.
        blueprint: of clients, with their defence.
    """

    test: Evaluator
    local: Evaluator | None
    held_out: Sequence[int]
    generation: Generation
    writer: Writer | None
    device: torch.device
    blueprint: Blueprint

    def globally(self, full: Weights, auxiliary: Weights | None = None) -> Scores:
        """Scores of the whole model on the test split.

        Args:
            full: weights of client and server model.
            auxiliary: of the auxiliary model, where it is evaluated in place of the server model.

        Raises:
            RunFailed: the loss is not finite.
        """
        scores = self.test(full, auxiliary)
        if not isfinite(scores.loss):
            raise RunFailed("the test loss is not finite")
        return scores

    def locally(self, full: Weights, auxiliary: Weights | None = None) -> LocalAccuracies | None:
        """Accuracies of the whole model on what each client held out; None where they held out nothing."""
        if self.local is None:
            return None
        return LocalAccuracies.of(self.local.correct(full, auxiliary).tolist(), self.held_out)

    def released(self, full: Weights, auxiliary: Weights | None, t: int) -> float | None:
        """Accuracy, see `globally`, with smashed data as clients release them after round `t`.

        None where their defence leaves them as they are.
        """
        if not self.blueprint.defence.releases:
            return None

        def change(z: Tensor, y: Tensor, number: int) -> Tensor:
            return self.blueprint.released(Upload(0, number, z, y), t, "smashed data of an evaluation").z

        return self.test.released(full, auxiliary, change)

    def texts(self, full: Weights, auxiliary: Weights | None = None) -> Written | None:
        """What the whole model writes, see `globally`; None where no texts are generated."""
        if self.writer is None:
            return None
        with self.test.model(full, auxiliary) as outputs, torch.inference_mode():
            return self.writer.write(lambda ids, at: outputs(ids.to(self.device), at.to(self.device)))
