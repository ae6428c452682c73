"""Test accuracy and loss of a split model."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from fedsplit.data.dataset import Images
from fedsplit.models.model_state import ModelState
from fedsplit.models.split import SplitModel
from fedsplit.weights import Weights


class Evaluator:
    """Evaluates weights on a fixed set of images.

    Args:
        model: the halves.
        images: to evaluate on.
        normalise: uint8 pixels to inputs.
        batch_size: images at a time.
    """

    def __init__(
        self, model: SplitModel, images: Images, *, normalise: Callable[[Tensor], Tensor], batch_size: int
    ) -> None:
        self._halves = [ModelState(model.client), ModelState(model.server)]
        self._images, self._normalise, self._batch_size = images, normalise, batch_size

    def __call__(self, full_weights: Weights) -> tuple[float, float]:
        """Accuracy (a fraction) and mean cross-entropy, with running statistics."""
        for half in self._halves:
            half.load(full_weights)
            half.module.eval()
        try:
            return self._evaluate()
        finally:
            for half in self._halves:
                half.module.train()

    @torch.inference_mode()
    def _evaluate(self) -> tuple[float, float]:
        device, samples = self._images.labels.device, len(self._images)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        for start in range(0, samples, self._batch_size):
            piece = slice(start, start + self._batch_size)
            self._images.prefetch(slice(start, piece.stop + self._batch_size))
            y = self._images.labels[piece]
            outputs = self._normalise(self._images.pixels[piece])
            for half in self._halves:
                outputs = functional_call(half.module, (half.parameters, half.buffers), (outputs,))
            correct += (outputs.argmax(1) == y).sum()
            loss += F.cross_entropy(outputs, y, reduction="sum")
        return int(correct) / samples, float(loss) / samples
