"""What a split model makes of test data: its loss and what is measured beside it, or its outputs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp, inf

import torch
from torch import Tensor
from torch.func import functional_call

from fedsplit.computing.model_state import ModelState
from fedsplit.data.dataset import Images
from fedsplit.models.splitting.split import SplitModel
from fedsplit.objectives.objective import Objective
from fedsplit.state.weights import Weights


@dataclass(frozen=True)
class Scores:
    """How good a model is on a set of data.

    Args:
        loss: mean over the terms of all samples.
        accuracy: fraction of the terms that it gets right; None where being right has no meaning.
        perplexity: `exp(loss)`; None where that is no measure.
    """

    loss: float
    accuracy: float | None
    perplexity: float | None


class Evaluator:
    """Evaluates weights on a fixed set of images, with running statistics.

    Args:
        model: the halves.
        images: to evaluate on.
        objective: what is measured.
        normalise: uint8 pixels to inputs.
        batch_size: images at a time.
    """

    def __init__(
        self,
        model: SplitModel,
        images: Images,
        *,
        objective: Objective,
        normalise: Callable[[Tensor], Tensor],
        batch_size: int,
    ) -> None:
        self.objective = objective
        self._halves = [ModelState(model.client), ModelState(model.server)]
        self._images, self._normalise, self._batch_size = images, normalise, batch_size

    @property
    def labels(self) -> Tensor:
        """Of the images, `(n,)`."""
        return self._images.labels

    def __call__(self, full_weights: Weights) -> Scores:
        """Scores of the model; its outputs are dropped batch by batch."""
        device, terms = self.labels.device, 0
        hits: Tensor | None = torch.zeros((), dtype=torch.int64, device=device)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        for outputs, y in self._passes(full_weights):
            sums = self.objective.measure(outputs, y)
            loss += sums.loss
            hits = None if hits is None or sums.hits is None else hits + sums.hits
            terms += sums.terms
        mean = float(loss) / terms
        accuracy = None if hits is None else int(hits) / terms
        return Scores(mean, accuracy, _exp(mean) if self.objective.has_perplexity else None)

    def correct(self, full_weights: Weights) -> Tensor:
        """Whether each image is classified correctly: bool `(n,)`."""
        return torch.cat([logits.argmax(1) == y for logits, y in self._passes(full_weights)])

    def logits(self, full_weights: Weights) -> Tensor:
        """Of each image, `(n, classes)`."""
        return torch.cat([logits for logits, _ in self._passes(full_weights)])

    @torch.inference_mode()
    def _passes(self, full_weights: Weights) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs and labels, batch by batch."""
        for half in self._halves:
            half.load(full_weights)
            half.module.eval()
        try:
            for start in range(0, len(self._images), self._batch_size):
                piece = slice(start, start + self._batch_size)
                self._images.prefetch(slice(start, piece.stop + self._batch_size))
                outputs = self._normalise(self._images.pixels[piece])
                for half in self._halves:
                    outputs = functional_call(half.module, (half.parameters, half.buffers), (outputs,))
                yield outputs, self._images.labels[piece]
        finally:
            for half in self._halves:
                half.module.train()


def _exp(loss: float) -> float:
    try:
        return exp(loss)
    except OverflowError:
        return inf
