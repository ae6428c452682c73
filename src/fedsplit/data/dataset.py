"""The data of a run, of whatever kind, and where they come from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from fedsplit.config.values import BelowOne, PositiveInt
from fedsplit.data.fingerprint import Fingerprint
from fedsplit.data.partition import Partition
from fedsplit.data.samples import Samples
from fedsplit.objectives.objective import Objective


@dataclass(frozen=True)
class Sizes:
    """Sizes that models are built for.

    Args:
        arguments: keyword arguments of every model.
        shape: shape of an input: `(c, h, w)` of images, the most positions `(t,)` of token ids.
        outputs: logits of a sample, or of a position of a text.
        tokens: True if inputs are token ids, int64.
    """

    arguments: Mapping[str, Any]
    shape: tuple[int, ...]
    outputs: int
    tokens: bool = False

    def zeros(self, count: int) -> Tensor:
        """A batch of inputs in which every value is 0."""
        return torch.zeros(count, *self.shape, dtype=torch.int64 if self.tokens else None)


@dataclass(frozen=True)
class Dataset:
    """Training and test samples, and what is made of them.

    Args:
        train: samples to be divided over clients.
        test: samples to evaluate on.
        sizes: sizes that models are built for.
        objective: objective that is minimised and measured.
        class_names: class names of the strata, where they have names.
        local_test_fraction: fraction of each client's training samples that it tests on instead.
    """

    train: Samples
    test: Samples
    sizes: Sizes
    objective: Objective
    class_names: tuple[str, ...] = ()
    local_test_fraction: float = 0.0

    @property
    def num_classes(self) -> int:
        """Number of classes, or of the tokens of a vocabulary."""
        return self.sizes.outputs

    def to(self, device: torch.device) -> Self:
        """The same data, for batches on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def scale(self, seen: Tensor | None) -> Self:
        """The same data; inputs that are scaled are by statistics of training samples.

        Args:
            seen: indices of the samples to take statistics of; None takes them of all.
        """
        return self

    def fingerprint(self, partition: Partition) -> Fingerprint:
        """Fingerprint of the data of a run as they are before clients see them.

        Args:
            partition: partition of the training samples over clients.
        """
        return {
            "classes": [self.num_classes, *self.class_names],
            "train": self.train.fingerprint(),
            "test": self.test.fingerprint(),
            "division": partition.digest,
        }


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Source of a run's data.

    Args:
        max_train: number of training samples to keep; None keeps all.
        max_test: the same for test samples.
        validation: number of training samples, none of those that are trained on, to evaluate on in place of
            the test samples, whatever `max_test`: for tuning; None evaluates on the test samples.
        local_test_fraction: fraction of the training samples of each client, held out to test the model on,
            see `fedsplit.data.local_test`; 0 holds out none.
    """

    max_train: PositiveInt | None = None
    max_test: PositiveInt | None = None
    validation: PositiveInt | None = None
    local_test_fraction: BelowOne = 0.0

    @abstractmethod
    def load(self) -> Dataset:
        """Both splits, cut to `max_train` and `max_test`.

        Raises:
            UserError: the files are not there, or are fewer than asked for.
        """

    def stand_in(self) -> Dataset | None:
        """Data of the published numbers and sizes without the files; None where those are not known.

        For what asks only for numbers and sizes.
        """
        return None
