"""How a model classifies a test set: its confusion matrix, and receiver operating characteristics (ROC)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsplit.files.whole import write_csv

CONFUSION, ROC = "confusion.csv", "roc.csv"
MOST_CLASSES = 100
"""Most classes that files list one by one."""

Floats: TypeAlias = NDArray[np.floating]
Integers: TypeAlias = NDArray[np.integer]


@dataclass(frozen=True)
class ConfusionMatrix:
    """Samples by true and predicted class.

    Args:
        counts: `(classes, classes)`, a row a true class.
        names: names of the classes, by label.
    """

    counts: Integers
    names: tuple[str, ...]

    @classmethod
    def of(cls, logits: Floats, labels: Integers, names: Sequence[str]) -> "ConfusionMatrix":
        """Confusion matrix of predictions, the class with the largest logit.

        Args:
            logits: or other scores, `(n, classes)`.
            labels: true classes, `(n,)`.
        """
        classes = len(names)
        cells = labels.astype(np.int64) * classes + logits.argmax(1)
        return cls(np.bincount(cells, minlength=classes**2).reshape(classes, classes), tuple(names))

    @property
    def class_accuracy(self) -> dict[str, float]:
        """Fraction classified correctly (recall) of each class that has samples, by name."""
        totals, hits = self.counts.sum(1).tolist(), self.counts.diagonal().tolist()
        return {name: h / n for name, h, n in zip(self.names, hits, totals, strict=True) if n}

    def write(self, path: Path) -> None:
        """Write as CSV: `label`, then a column a predicted class; a row a true class."""
        rows = ([name, *counts] for name, counts in zip(self.names, self.counts.tolist(), strict=True))
        write_csv(path, ["label", *self.names], rows)


@dataclass(frozen=True)
class RocCurve:
    """ROC curve of one class against all others, without points in the middle of a straight line.

    Args:
        name: name of the class; `micro` where all decisions of all classes are taken together.
        false_positive_rate: ascending from 0 to 1, `(points,)`.
        true_positive_rate: likewise.
        area: under the curve (AUC).
    """

    name: str
    false_positive_rate: Floats
    true_positive_rate: Floats
    area: float

    @classmethod
    def of(cls, name: str, scores: Floats, positive: NDArray[np.bool_]) -> "RocCurve":
        """ROC curve of scores `(n,)` and of which samples are positive, `(n,)`: some, but not all."""
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last of each score
        hits = np.cumsum(positive[order])[ends]
        true, false = (np.append(0, counts) / counts[-1] for counts in (hits, 1 + ends - hits))
        turns = [np.diff(rate[:-1]) * np.diff(other[1:]) for rate, other in ((false, true), (true, false))]
        kept = np.concatenate(([True], turns[0] != turns[1], [True]))
        area = (np.diff(false) * (true[1:] + true[:-1]) / 2).sum()
        return cls(name, false[kept], true[kept], float(area))


@dataclass(frozen=True)
class RocCurves:
    """One against the rest, for each class that some of the samples have and not all.

    Args:
        classes: their curves; empty beyond `MOST_CLASSES` classes.
        areas: area of each such class, by name, however many there are.
        micro: area of all decisions of all classes together; None where there is one class only, and so
            nothing to decide.
    """

    classes: tuple[RocCurve, ...]
    areas: dict[str, float]
    micro: RocCurve | None

    @classmethod
    def of(cls, logits: Floats, labels: Integers, names: Sequence[str]) -> "RocCurves":
        """Ranked by the probabilities that the softmax of the logits gives each class.

        Args:
            logits: `(n, classes)`.
            labels: true classes, `(n,)`.
        """
        if len(names) < 2:
            return cls((), {}, None)
        scores, curves, areas = log_odds(logits), [], {}
        for label, name in enumerate(names):
            positive = labels == label
            if positive.any() and not positive.all():
                curve = RocCurve.of(name, scores[:, label], positive)
                areas[name] = curve.area
                if len(names) <= MOST_CLASSES:
                    curves.append(curve)
        every = labels[:, None] == np.arange(len(names))
        return cls(tuple(curves), areas, RocCurve.of("micro", scores.ravel(), every.ravel()))

    @property
    def macro(self) -> float | None:
        """Mean area of the classes; None where there is none."""
        return float(np.mean(list(self.areas.values()))) if self.areas else None

    def write(self, path: Path) -> None:
        """Write as CSV, a row a point: of each class, or of `micro` alone where there are none of those."""
        points = (
            (curve.name, *point)
            for curve in self.classes or (self.micro,)
            if curve is not None
            for point in zip(
                curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist(), strict=True
            )
        )
        write_csv(path, ("class", "false_positive_rate", "true_positive_rate"), points)


def log_odds(logits: Floats) -> Floats:
    """`log(p / (1 - p))` of the softmax probability `p` of each class, `(n, classes)`.

    It ranks as `p` does, but does not round to a tie where `p` is all but 1.
    """
    rows, top = np.arange(len(logits)), logits.argmax(1)
    largest = logits[rows, top]
    odds = logits.copy()
    odds[rows, top] = -np.inf
    others = np.logaddexp.reduce(odds, axis=1)
    total = np.logaddexp(largest, others)[:, None]
    odds -= total
    odds -= np.log1p(-np.exp(odds))
    odds[rows, top] = largest - others
    return odds
