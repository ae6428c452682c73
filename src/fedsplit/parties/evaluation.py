"""What a split model makes of images: accuracy and loss, or its logits themselves."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fedsplit.computing.model_state import ModelState
from fedsplit.data.dataset import Images
from fedsplit.models.splitting.split import SplitModel
from fedsplit.state.weights import Weights


class Evaluator:
    """Evaluates weights on a fixed set of images, with running statistics.

    Args:
        model: the halves.
        auxiliary: takes the server model's place where its weights are given too.
        images: to evaluate on.
        normalise: uint8 pixels to inputs.
        batch_size: images at a time.
    """

    def __init__(
        self,
        model: SplitModel,
        images: Images,
        *,
        normalise: Callable[[Tensor], Tensor],
        batch_size: int,
        auxiliary: nn.Module | None = None,
    ) -> None:
        self._halves = [ModelState(model.client), ModelState(model.server)]
        self._auxiliary = auxiliary
        self._images, self._normalise, self._batch_size = images, normalise, batch_size

    @property
    def labels(self) -> Tensor:
        """Of the images, `(n,)`."""
        return self._images.labels

    def __call__(self, full_weights: Weights, auxiliary: Weights | None = None) -> tuple[float, float]:
        """Accuracy (a fraction) and mean cross-entropy."""
        device, samples = self.labels.device, len(self._images)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        for logits, y in self._passes(full_weights, auxiliary):
            correct += (logits.argmax(1) == y).sum()
            loss += F.cross_entropy(logits, y, reduction="sum")
        return int(correct) / samples, float(loss) / samples

    def correct(self, full_weights: Weights, auxiliary: Weights | None = None) -> Tensor:
        """Whether each image is classified correctly: bool `(n,)`."""
        return torch.cat([logits.argmax(1) == y for logits, y in self._passes(full_weights, auxiliary)])

    def logits(self, full_weights: Weights, auxiliary: Weights | None = None) -> Tensor:
        """Of each image, `(n, classes)`."""
        return torch.cat([logits for logits, _ in self._passes(full_weights, auxiliary)])

    @torch.inference_mode()
    def _passes(self, full_weights: Weights, auxiliary: Weights | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels, batch by batch."""
        halves = self._loaded(full_weights, auxiliary)
        for half in halves:
            half.module.eval()
        try:
            for start in range(0, len(self._images), self._batch_size):
                piece = slice(start, start + self._batch_size)
                self._images.prefetch(slice(start, piece.stop + self._batch_size))
                outputs = self._normalise(self._images.pixels[piece])
                for half in halves:
                    outputs = functional_call(half.module, (half.parameters, half.buffers), (outputs,))
                yield outputs, self._images.labels[piece]
        finally:
            for half in halves:
                half.module.train()

    def _loaded(self, full_weights: Weights, auxiliary: Weights | None) -> list[ModelState]:
        for half in self._halves:
            half.load(full_weights)
        if auxiliary is None:
            return self._halves
        assert self._auxiliary is not None, "this run has no auxiliary model"
        head = ModelState(self._auxiliary)
        head.load(auxiliary)
        return [self._halves[0], head]
