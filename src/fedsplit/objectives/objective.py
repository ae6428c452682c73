"""What a run minimises and measures, from the outputs of a model and the labels of a batch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsplit.quant.codecs.label_codec import LabelCodec


@dataclass(frozen=True)
class Sums:
    """Sums over the terms of a batch, which add up over batches.

    Args:
        loss: sum of the losses, 0-d.
        hits: number of terms that the model gets right, 0-d; None where being right has no meaning.
        terms: number of terms.
    """

    loss: Tensor
    hits: Tensor | None
    terms: int


class Objective(ABC):
    """The loss of a batch and what is measured beside it.

    A loss is a sum of terms: a sample each in classification, a target token each in language modelling.
    Weights of clients in averages stay numbers of samples.
    """

    @abstractmethod
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss summed over the terms of a batch, 0-d.

        Args:
            outputs: what the model gives for the batch, `(b, ...)`.
            y: labels, `(b, ...)`.
        """

    @abstractmethod
    def terms(self, y: Tensor) -> int:
        """Number of terms in the loss of a batch with labels `y (b, ...)`."""

    @abstractmethod
    def measure(self, outputs: Tensor, y: Tensor) -> Sums:
        """Loss, hits and terms of a batch."""

    @abstractmethod
    def labels(self) -> LabelCodec:
        """The codec that labels travel with."""

    @abstractmethod
    def fits(self, outputs: Tensor, y: Tensor) -> bool:
        """Whether outputs have the shape that goes with labels `y`."""

    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the terms of a batch, 0-d."""
        return self.total(outputs, y) / self.terms(y)

    def means(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss of each of K clients, `(K,)`, from outputs `(K, b, ...)` and labels `(K, b, ...)`."""
        pairs = zip(outputs.unbind(), y.unbind(), strict=True)
        return torch.stack([self.mean(own, labels) for own, labels in pairs])

    def lengths(self, y: Tensor) -> Tensor | None:
        """Positions of each sample before its padding, int64 `(b,)`; None for data that are never padded."""
        return None
