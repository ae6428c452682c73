"""Accuracy on what each client held out of its own data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean, pstdev

from fedsplit.files.whole import write_csv

LOCAL_ACCURACY = "local_accuracy.csv"
_COLUMNS = ("client", "samples", "accuracy")


@dataclass(frozen=True)
class LocalAccuracy:
    """Fractions over clients, each counted once however many samples it tests on; `std` of a population."""

    mean: float
    std: float
    worst: float


@dataclass(frozen=True)
class LocalAccuracies:
    """By client.

    Args:
        samples: that each tests on.
        accuracies: fractions; None where a client holds out nothing.
    """

    samples: tuple[int, ...]
    accuracies: tuple[float | None, ...]

    @classmethod
    def of(cls, correct: Iterable[bool], samples: Sequence[int]) -> "LocalAccuracies":
        """Count whether each sample is classified correctly, of one client's after the other's."""
        hits = [0, *accumulate(map(int, correct))]
        ends = list(accumulate(samples))
        found = [
            (hits[end] - hits[end - size]) / size if size else None
            for size, end in zip(samples, ends, strict=True)
        ]
        return cls(tuple(samples), tuple(found))

    @property
    def summary(self) -> LocalAccuracy:
        """Over those clients that hold out any."""
        found = [accuracy for accuracy in self.accuracies if accuracy is not None]
        return LocalAccuracy(fmean(found), pstdev(found), min(found))

    def write(self, path: Path) -> None:
        """Write as CSV: `client, samples, accuracy`; `accuracy` is empty where a client holds out nothing."""
        clients = range(len(self.samples))
        write_csv(path, _COLUMNS, zip(clients, self.samples, self.accuracies, strict=True))
