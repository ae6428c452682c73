"""Language modelling: cross-entropy of the next token at the positions that are targets."""

from typing import Final

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from fedsplit.objectives.objective import Objective, Sums
from fedsplit.quant.codecs.token_labels import TokenLabels

IGNORED: Final = -100
"""Label of a position whose next token is no target, such as a position of the context."""
PADDING: Final = -101
"""Label of a position behind the end of a sample; all such positions are at its right."""


class NextToken(Objective):
    """Cross-entropy of logits `(b, t, vocabulary)` and tokens `(b, t)`, which are already shifted by one.

    Logits may also be those of the targets alone, `(targets, vocabulary)`, in their order.

    Args:
        vocabulary: tokens are from 0 to below this; `IGNORED` and `PADDING` are no terms of the loss.
        context: the most positions of a sample.
        label_smoothing: weight of the uniform distribution in the targets of training, 0 to below 1.
    """

    has_perplexity, term_per_sample = True, False

    def __init__(self, vocabulary: int, context: int, label_smoothing: float = 0.0) -> None:
        self.vocabulary, self.context, self.label_smoothing = vocabulary, context, label_smoothing

    @property
    @override
    def outputs(self) -> str:
        return f"logits (n, t, {self.vocabulary})"

    @override
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        # all positions, as passes for single samples allow no shape that depends on values
        every = outputs.dim() == 3
        return F.cross_entropy(
            outputs.flatten(0, -2),
            y.masked_fill(y < 0, IGNORED).flatten() if every else y[self.targets(y)],
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )

    @override
    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.total(outputs, y) / self.targets(y).sum().clamp_min(1)  # nothing waits for the device

    @override
    def terms(self, y: Tensor) -> int:
        return int((y >= 0).sum())

    @override
    def measure(self, outputs: Tensor, y: Tensor) -> Sums:
        targets = self.targets(y)
        logits, tokens = outputs if outputs.dim() == 2 else outputs[targets], y[targets]
        loss = F.cross_entropy(logits, tokens, reduction="sum")
        return Sums(loss, (logits.argmax(1) == tokens).sum(), len(tokens))

    @override
    def targets(self, y: Tensor) -> Tensor:
        return y >= 0

    @override
    def labels(self) -> TokenLabels:
        return TokenLabels(self.vocabulary, self.context, ignored=IGNORED, padding=PADDING)

    @override
    def fits(self, outputs: Tensor, y: Tensor) -> bool:
        return outputs.shape == (*y.shape, self.vocabulary)

    @override
    def lengths(self, y: Tensor) -> Tensor:
        return (y != PADDING).sum(1)
