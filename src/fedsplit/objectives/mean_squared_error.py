"""Regression: squared differences of values."""

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from fedsplit.objectives.objective import Objective, Sums
from fedsplit.quant.codecs.values import Values


class MeanSquaredError(Objective):
    """Squared differences of outputs `(b, 1)` to labels `(b,)`, floats."""

    @property
    @override
    def outputs(self) -> str:
        return "values (n, 1)"

    @override
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(outputs[:, 0], y, reduction="sum")

    @override
    def terms(self, y: Tensor) -> int:
        return len(y)

    @override
    def measure(self, outputs: Tensor, y: Tensor) -> Sums:
        return Sums(self.total(outputs, y), None, len(y))

    @override
    def labels(self) -> Values:
        return Values()

    @override
    def fits(self, outputs: Tensor, y: Tensor) -> bool:
        return outputs.shape == (len(y), 1)
