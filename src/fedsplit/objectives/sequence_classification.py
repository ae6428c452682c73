"""Classification of token sequences: cross-entropy of logits, one class a sequence."""

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from fedsplit.objectives.next_token import IGNORED, PADDING
from fedsplit.objectives.objective import Objective, Sums
from fedsplit.quant.codecs.token_labels import TokenLabels


class SequenceClassification(Objective):
    """Cross-entropy of logits `(b, num_classes)` and labels `(b, t)`, whose first position holds the class.

    The other positions are `IGNORED`, and `PADDING` behind the end, so that labels tell lengths.

    Args:
        num_classes: classes are from 0 to below this.
        context: the most positions of a sequence.
    """

    def __init__(self, num_classes: int, context: int) -> None:
        self.num_classes, self.context = num_classes, context

    @property
    @override
    def outputs(self) -> str:
        return f"logits (n, {self.num_classes})"

    @override
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y[..., 0], reduction="sum")

    @override
    def terms(self, y: Tensor) -> int:
        return y.shape[-2]

    @override
    def measure(self, outputs: Tensor, y: Tensor) -> Sums:
        return Sums(self.total(outputs, y), (outputs.argmax(1) == y[:, 0]).sum(), len(y))

    @override
    def classes(self, y: Tensor) -> Tensor:
        return y[:, 0]

    @override
    def labels(self) -> TokenLabels:
        return TokenLabels(self.num_classes, self.context, ignored=IGNORED, padding=PADDING, first_only=True)

    @override
    def fits(self, outputs: Tensor, y: Tensor) -> bool:
        return outputs.shape == (len(y), self.num_classes)

    @override
    def lengths(self, y: Tensor) -> Tensor:
        return (y != PADDING).sum(1)
