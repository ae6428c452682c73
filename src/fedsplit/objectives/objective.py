"""Objectives: losses and measures from the outputs of a model and the labels of a batch."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.objectives.losses import Losses
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


class Objective(Losses):
    """The loss of a batch and what is measured beside it.

    A loss is a sum of terms: a sample each in classification, a target token each in language modelling.
    Weights of clients in averages stay numbers of samples.
    """

    has_perplexity: ClassVar[bool] = False
    """True if the exponential of the mean loss is a measure of its own, the perplexity."""

    term_per_sample: ClassVar[bool] = True
    """True if each sample is one term of the loss, whatever its label."""

    @abstractmethod
    @override
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss summed over the terms of a batch, 0-d.

        Args:
            outputs: outputs that the model gives for the batch, `(b, ...)`.
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
        """True if outputs have the shape that goes with labels `y`."""

    @property
    @abstractmethod
    def outputs(self) -> str:
        """Outputs that a model must give, in words: `logits (n, 10)`."""

    @override
    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the terms of a batch, 0-d."""
        return self.total(outputs, y) / self.terms(y)

    def means(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss of each of K clients, `(K,)`, from outputs `(K, b, ...)` and labels `(K, b, ...)`."""
        pairs = zip(outputs.unbind(), y.unbind(), strict=True)
        return torch.stack([self.mean(own, labels) for own, labels in pairs])

    @override
    def counts(self, y: Tensor) -> Sequence[int]:
        return [self.terms(y)]

    def counts_of_each(self, y: Tensor) -> Sequence[int]:
        """Number of terms of each of K clients, from labels `(K, b, ...)`."""
        return [self.terms(own) for own in y.unbind()]

    @property
    def of_many(self) -> "LossesOfMany":
        """The same losses for K clients at once."""
        return LossesOfMany(self)

    def classes(self, y: Tensor) -> Tensor | None:
        """Class of each sample, `(b,)`; None where labels are no classes."""
        return None

    def lengths(self, y: Tensor) -> Tensor | None:
        """Positions of each sample before its padding, int64 `(b,)`; None for data that are never padded."""
        return None


@dataclass(frozen=True)
class LossesOfMany(Losses):
    """Losses of K clients at once: outputs and labels have a leading dimension of clients.

    Args:
        one: losses of one client.
    """

    one: Objective

    @override
    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.one.means(outputs, y)

    @override
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.one.total(outputs.flatten(0, 1), y.flatten(0, 1))

    @override
    def counts(self, y: Tensor) -> Sequence[int]:
        return self.one.counts_of_each(y)
