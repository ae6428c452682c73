"""What a split model makes of samples: accuracy and loss, or its logits themselves."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from fedsplit.computing.model_state import ModelState
from fedsplit.data.samples import Samples
from fedsplit.models.splitting.split import SplitModel
from fedsplit.state.weights import Weights


class Evaluator:
    """Evaluates weights on fixed samples, with running statistics.

    Args:
        model: the halves.
        samples: to evaluate on.
        batch_size: samples at a time.
    """

    def __init__(self, model: SplitModel, samples: Samples, *, batch_size: int) -> None:
        self._halves = [ModelState(model.client), ModelState(model.server)]
        self._samples, self._batch_size = samples, batch_size

    @property
    def labels(self) -> Tensor:
        """Of all samples, `(n,)`."""
        return self._samples.labels_at(slice(None))

    def __call__(self, full_weights: Weights) -> tuple[float, float]:
        """Accuracy (a fraction) and mean cross-entropy."""
        device, samples = self.labels.device, len(self._samples)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        for logits, y in self._passes(full_weights):
            correct += (logits.argmax(1) == y).sum()
            loss += F.cross_entropy(logits, y, reduction="sum")
        return int(correct) / samples, float(loss) / samples

    def correct(self, full_weights: Weights) -> Tensor:
        """Whether each image is classified correctly: bool `(n,)`."""
        return torch.cat([logits.argmax(1) == y for logits, y in self._passes(full_weights)])

    def logits(self, full_weights: Weights) -> Tensor:
        """Of each image, `(n, classes)`."""
        return torch.cat([logits for logits, _ in self._passes(full_weights)])

    @torch.inference_mode()
    def _passes(self, full_weights: Weights) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels, batch by batch."""
        for half in self._halves:
            half.load(full_weights)
            half.module.eval()
        try:
            for start in range(0, len(self._samples), self._batch_size):
                piece = slice(start, start + self._batch_size)
                self._samples.prefetch(slice(start, piece.stop + self._batch_size))
                outputs = self._samples.inputs_at(piece)
                for half in self._halves:
                    outputs = functional_call(half.module, (half.parameters, half.buffers), (outputs,))
                yield outputs, self._samples.labels_at(piece)
        finally:
            for half in self._halves:
                half.module.train()
