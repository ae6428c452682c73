"""Classification: cross-entropy of logits, one class a sample."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from fedsplit.objectives.objective import Objective, Sums
from fedsplit.quant.codecs.labels import Labels


class Classification(Objective):
    """Cross-entropy of logits `(b, num_classes)` and classes `(b,)`.

    Args:
        num_classes: labels are from 0 to below this.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    @property
    @override
    def outputs(self) -> str:
        return f"logits (n, {self.num_classes})"

    @override
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y, reduction="sum")

    @override
    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y)

    @override
    def means(self, outputs: Tensor, y: Tensor) -> Tensor:
        flat = F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none")
        return flat.view(y.shape).mean(1)

    @override
    def terms(self, y: Tensor) -> int:
        return y.shape[-1]

    @override
    def counts_of_each(self, y: Tensor) -> Sequence[int]:
        return [y.shape[1]] * len(y)

    @override
    def measure(self, outputs: Tensor, y: Tensor) -> Sums:
        return Sums(self.total(outputs, y), (outputs.argmax(1) == y).sum(), len(y))

    @override
    def classes(self, y: Tensor) -> Tensor:
        return y

    @override
    def labels(self) -> Labels:
        return Labels(self.num_classes)

    @override
    def fits(self, outputs: Tensor, y: Tensor) -> bool:
        return outputs.shape == (len(y), self.num_classes)
