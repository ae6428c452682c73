"""Evaluation of a run's whole model: on the test samples, on what each client held out, by what it writes.

Models come as a sequence: one that all clients share, or one for each client. What is measured of several is
the mean over clients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import TypeVar

import torch
from torch import Tensor

from fedsplit.errors import RunFailed
from fedsplit.generation.generation import Generation
from fedsplit.generation.writer import GeneratedTexts, Writer
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.evaluation import Evaluator, Scores
from fedsplit.parties.messages import Upload
from fedsplit.recording.metrics import LocalAccuracies
from fedsplit.state.weights import Weights


@dataclass(frozen=True)
class Evaluation:
    """Evaluators of a run.

    Args:
        test: evaluator on the test images.
        local: evaluator on what clients held out, client after client; None where they held out nothing.
        held_out: number of images that each client held out.
        generation: rule of when texts are generated.
        writer: model that generates texts; None where there are none.
        device: device of the model.
        blueprint: parts of clients, with their defence.
    """

    test: Evaluator
    local: Evaluator | None
    held_out: Sequence[int]
    generation: Generation
    writer: Writer | None
    device: torch.device
    blueprint: Blueprint

    def globally(self, models: Sequence[Weights], auxiliary: Weights | None = None) -> Scores:
        """Scores of the whole model on the test split.

        Args:
            models: weights of client and server model, of one or of each client.
            auxiliary: weights of the auxiliary model, where it is evaluated in place of the server model.

        Raises:
            RunFailed: the loss is not finite.
        """
        scores = Scores.mean(_measure_each(models, lambda full: self.test(full, auxiliary)))
        if not isfinite(scores.loss):
            raise RunFailed("the test loss is not finite")
        return scores

    def locally(self, models: Sequence[Weights], auxiliary: Weights | None = None) -> LocalAccuracies | None:
        """Accuracies of clients' models on what each held out itself; None where they held out nothing."""
        if self.local is None:
            return None
        if len(models) == 1:
            return LocalAccuracies.of(self.local.correct(models[0], auxiliary).tolist(), self.held_out)
        correct: list[bool] = []
        for full, samples in zip(models, self.held_out, strict=True):
            samples_of_client = slice(len(correct), len(correct) + samples)
            correct += self.local.correct(full, auxiliary, samples_of_client).tolist() if samples else []
        return LocalAccuracies.of(correct, self.held_out)

    def released_accuracy(self, models: Sequence[Weights], auxiliary: Weights | None, t: int) -> float | None:
        """Accuracy, see `globally`, with smashed data as clients release them after round `t`.

        None where their defence leaves them as they are.
        """
        if not self.blueprint.defence.releases:
            return None

        def change(z: Tensor, y: Tensor, number: int) -> Tensor:
            return self.blueprint.release(Upload(0, number, z, y), t, "smashed data of an evaluation").z

        accuracies_or_none = _measure_each(
            models, lambda full: self.test.released_accuracy(full, auxiliary, change)
        )
        accuracies = [accuracy for accuracy in accuracies_or_none if accuracy is not None]
        return fmean(accuracies) if accuracies else None

    def texts(self, full: Weights, auxiliary: Weights | None = None) -> GeneratedTexts | None:
        """Texts that the whole model writes, see `globally`; None where no texts are generated."""
        if self.writer is None:
            return None
        with self.test.model(full, auxiliary) as outputs, torch.inference_mode():
            return self.writer.write(lambda ids, at: outputs(ids.to(self.device), at.to(self.device)))


Measure = TypeVar("Measure")


def _measure_each(models: Sequence[Weights], measure: Callable[[Weights], Measure]) -> list[Measure]:
    """Measure each model, and one that several share only once."""
    distinct = {id(full): full for full in models}
    measures = {identity: measure(full) for identity, full in distinct.items()}
    return [measures[id(full)] for full in models]
