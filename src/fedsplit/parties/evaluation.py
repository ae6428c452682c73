"""Test accuracy and loss of a split model."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from fedsplit.data.dataset import Images
from fedsplit.models.split import SplitModel
from fedsplit.parties.model_state import ModelState
from fedsplit.parties.weights import Weights


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
        correct = torch.zeros((), dtype=torch.int64, device=self._images.labels.device)
        loss = torch.zeros((), dtype=torch.float64, device=self._images.labels.device)
        with torch.inference_mode():
            batches = zip(
                torch.split(self._images.pixels, self._batch_size),
                torch.split(self._images.labels, self._batch_size),
                strict=True,
            )
            for pixels, y in batches:
                outputs = self._normalise(pixels)
                for half in self._halves:
                    outputs = functional_call(half.module, (half.parameters, half.buffers), (outputs,))
                correct += (outputs.argmax(1) == y).sum()
                loss += F.cross_entropy(outputs, y, reduction="sum")
        for half in self._halves:
            half.module.train()
        samples = len(self._images)
        return int(correct) / samples, float(loss) / samples
