"""Evaluation of a split model on samples: its loss and what is measured beside it, or its outputs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import exp, inf
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedsplit.computing.computation import outputs_at
from fedsplit.computing.model_state import ModelState
from fedsplit.data.samples import Samples
from fedsplit.models.splitting.split import SplitModel
from fedsplit.objectives.objective import Objective
from fedsplit.state.weights import Weights


class Outputs(Protocol):
    """A model that is evaluated."""

    def __call__(
        self, x: Tensor, at: Tensor | None = None, received: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Outputs of inputs.

        Args:
            x: inputs.
            at: positions at which outputs are wanted, see `outputs_at`.
            received: function from smashed data to what the server receives; None: it receives them as they
                are.
        """


class Change(Protocol):
    """Change of smashed data on their way to the server."""

    def __call__(self, z: Tensor, y: Tensor, number: int) -> Tensor:
        """Smashed data as the server receives them, of a batch with labels `y`, the `number`-th."""


@dataclass(frozen=True)
class Scores:
    """Loss and accuracy of a model on a set of data.

    Args:
        loss: mean over the terms of all samples.
        accuracy: fraction of the terms that it gets right; None where being right has no meaning.
        perplexity: `exp(loss)`; None where that is no measure.
    """

    loss: float
    accuracy: float | None
    perplexity: float | None

    @classmethod
    def mean(cls, scores: Sequence["Scores"]) -> "Scores":
        """Mean of each measure over models, of which all have it or none."""
        accuracies = [score.accuracy for score in scores if score.accuracy is not None]
        perplexities = [score.perplexity for score in scores if score.perplexity is not None]
        return cls(
            fmean(score.loss for score in scores),
            fmean(accuracies) if accuracies else None,
            fmean(perplexities) if perplexities else None,
        )


class Evaluator:
    """Evaluates weights on fixed samples, with running statistics.

    Args:
        model: the halves, or three parts.
        samples: samples to evaluate on.
        objective: objective that is measured.
        batch_size: samples at a time.
        auxiliary: model that takes the server model's place where its weights are given too.
    """

    def __init__(
        self,
        model: SplitModel,
        samples: Samples,
        *,
        objective: Objective,
        batch_size: int,
        auxiliary: nn.Module | None = None,
    ) -> None:
        self.objective = objective
        self._halves = [ModelState(part) for part in model.modules]
        self._auxiliary = auxiliary
        self._samples, self._batch_size = samples, batch_size

    @property
    def classes(self) -> Tensor | None:
        """Class of each sample, `(n,)`; None where labels are no classes."""
        return self.objective.classes(self._samples.labels_at(slice(None)))

    def __call__(self, full_weights: Weights, auxiliary: Weights | None = None) -> Scores:
        """Scores of the model with these weights."""
        return self._scores(self._passes(full_weights, auxiliary))

    def _scores(self, passes: Iterable[tuple[Tensor, Tensor]]) -> Scores:
        """Scores of outputs and labels; outputs are dropped batch by batch."""
        loss, terms = torch.zeros((), dtype=torch.float64), 0
        hits: Tensor | None = torch.zeros((), dtype=torch.int64)
        for outputs, y in passes:
            sums = self.objective.measure(outputs, y)
            loss = loss + sums.loss
            hits = None if hits is None or sums.hits is None else hits + sums.hits
            terms += sums.terms
        mean = float(loss) / terms
        accuracy = None if hits is None else int(hits) / terms
        return Scores(mean, accuracy, _exp(mean) if self.objective.has_perplexity else None)

    def released_accuracy(
        self, full_weights: Weights, auxiliary: Weights | None, change: Change
    ) -> float | None:
        """Accuracy of the model where smashed data are changed on their way; see `Scores`."""
        return self._scores(self._passes(full_weights, auxiliary, change)).accuracy

    def correct(
        self, full_weights: Weights, auxiliary: Weights | None = None, within: slice = slice(None)
    ) -> Tensor:
        """Correctness of each sample's classification: bool `(n,)`."""
        batches = []
        for logits, y in self._passes(full_weights, auxiliary, within=within):
            classes = self.objective.classes(y)
            assert classes is not None, "labels are no classes"
            batches.append(logits.argmax(1) == classes)
        return torch.cat(batches)

    def logits(self, full_weights: Weights, auxiliary: Weights | None = None) -> Tensor:
        """Logits of each sample, `(n, classes)`."""
        return torch.cat([logits for logits, _ in self._passes(full_weights, auxiliary)])

    @contextmanager
    def model(self, full_weights: Weights, auxiliary: Weights | None = None) -> Iterator[Outputs]:
        """The whole model with these weights, in evaluation mode meanwhile."""
        client, *between, last_half = halves = self._load(full_weights, auxiliary)
        for half in halves:
            half.module.eval()

        def pass_through(half: ModelState, x: Tensor, **further: Tensor) -> Tensor:
            output: Tensor = functional_call(half.module, (half.parameters, half.buffers), (x,), further)
            return output

        def outputs(
            x: Tensor, at: Tensor | None = None, received: Callable[[Tensor], Tensor] | None = None
        ) -> Tensor:
            z = pass_through(client, x)
            z = z if received is None else received(z)
            for half in between:
                z = pass_through(half, z)
            return outputs_at(partial(pass_through, last_half), last_half.module, z, at)

        try:
            yield outputs
        finally:
            for half in halves:
                half.module.train()

    @torch.inference_mode()
    def _passes(
        self,
        full_weights: Weights,
        auxiliary: Weights | None,
        change: Change | None = None,
        within: slice = slice(None),
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs, of texts at targets alone, and labels, batch by batch of the samples `within` all."""
        first, end, _ = within.indices(len(self._samples))
        with self.model(full_weights, auxiliary) as outputs:
            for number, start in enumerate(range(first, end, self._batch_size)):
                piece = slice(start, min(start + self._batch_size, end))
                self._samples.prefetch(slice(start, piece.stop + self._batch_size))
                x, y = self._samples.inputs_at(piece), self._samples.labels_at(piece)
                received = None if change is None else partial(change, y=y, number=number)
                yield outputs(x, self.objective.targets(y), received), y

    def _load(self, full_weights: Weights, auxiliary: Weights | None) -> list[ModelState]:
        for half in self._halves:
            half.load(full_weights)
        if auxiliary is None:
            return self._halves
        assert self._auxiliary is not None, "this run has no auxiliary model"
        head = ModelState(self._auxiliary)
        head.load(auxiliary)
        return [self._halves[0], head]


def _exp(loss: float) -> float:
    try:
        return exp(loss)
    except OverflowError:
        return inf
