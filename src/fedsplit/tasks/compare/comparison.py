"""A client model at several precisions: what each costs and gains, as files and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Self

from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

from fedsplit.files.whole import write_csv, write_json


@dataclass(frozen=True)
class Drop:
    """What a classifier loses against a reference.

    Args:
        drop: of accuracy, a fraction; below zero where it gains.
        standard_error: of the drop, over samples: of the mean of paired differences.
        p_value: exact, two-sided (McNemar): how likely samples on which one of both is right would be
            divided at least as unevenly, if both were as good.
    """

    drop: float
    standard_error: float
    p_value: float

    @classmethod
    def of(cls, reference: Tensor, other: Tensor) -> Self:
        """Of which samples each classifies correctly.

        Source: McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12, 1947; exact, as a binomial test of the samples that differ.

        Args:
            reference: bool `(n,)`, two samples or more.
            other: bool `(n,)`, of the same samples.
        """
        n = len(reference)
        lost, won = int((reference & ~other).sum()), int((~reference & other).sum())
        mean = (lost - won) / n
        variance = (lost + won - n * mean**2) / (n - 1)
        p = binomtest(lost, lost + won).pvalue if lost + won else 1.0
        return cls(mean, sqrt(max(variance, 0.0) / n), float(p))


SAMPLES = 1000
"""Inferences that bytes and money are told for."""


@dataclass(frozen=True)
class Compared:
    """One precision.

    Args:
        test_accuracy: of the composed split model, a fraction.
        drop: against float32; None of float32 itself.
        class_accuracy: by name of class.
        roc_areas: under the curve of each class against the others, by name.
        compression: how many times as large the file of float32 is.
        latency: seconds of a run, median and 95th percentile, by number of samples.
        peak_memory: the most bytes that a process held which loaded and ran it.
        model_memory: how many of them beyond what that process held before it loaded it.
        smashed_bytes: of `SAMPLES` samples.
        cost: of sending them; None where no price is known.
        unquantized: operations that compute in float32, of precisions that quantize operations.
    """

    precision: str
    runtime: str
    test_accuracy: float
    drop: Drop | None
    class_accuracy: Mapping[str, float]
    roc_areas: Mapping[str, float]
    file_bytes: int
    compression: float
    latency: Mapping[int, tuple[float, float]]
    peak_memory: int
    model_memory: int
    smashed_bytes: int
    cost: float | None
    unquantized: tuple[str, ...]

    def plain(self) -> dict[str, object]:
        """As JSON can hold it; a row of the CSV file is its values that are single numbers or words."""
        drop = self.drop
        return {
            "precision": self.precision,
            "runtime": self.runtime,
            "test_accuracy": self.test_accuracy,
            "accuracy_drop": drop.drop if drop else None,
            "accuracy_drop_standard_error": drop.standard_error if drop else None,
            "mcnemar_p": drop.p_value if drop else None,
            "file_bytes": self.file_bytes,
            "compression": self.compression,
            **{
                f"latency_s.{samples}.{name}": seconds
                for samples, both in self.latency.items()
                for name, seconds in zip(("median", "p95"), both, strict=True)
            },
            "peak_memory_bytes": self.peak_memory,
            "model_memory_bytes": self.model_memory,
            "smashed_bytes_per_1000": self.smashed_bytes,
            "cost_per_1000": self.cost,
            "unquantized": " ".join(self.unquantized),
            "class_accuracy": dict(self.class_accuracy),
            "roc_area": dict(self.roc_areas),
        }


def write_comparison(
    directory: Path, rows: Sequence[Compared], about: Mapping[str, object], left_out: Mapping[str, str]
) -> None:
    """Write `comparison.json` and `comparison.csv`.

    Args:
        rows: float32 first.
        left_out: by precision, why it is not there.
    """
    plain = [row.plain() for row in rows]
    write_json(directory / "comparison.json", {**about, "left_out": dict(left_out), "precisions": plain})
    columns = [key for key, value in plain[0].items() if not isinstance(value, dict)]
    write_csv(directory / "comparison.csv", columns, ([row[key] for key in columns] for row in plain))


def comparison_table(rows: Sequence[Compared]) -> Table:
    """Rows for a terminal."""
    table = Table()
    table.add_column("precision", no_wrap=True)
    table.add_column("runtime")
    for name in ("accuracy %", "drop (points)", "p", "file kB", "smaller"):
        table.add_column(name, justify="right", no_wrap=True)
    for samples in rows[0].latency:
        table.add_column(f"ms at {samples}\n(p95)", justify="right", no_wrap=True)
    table.add_column("peak MB\n(model)", justify="right", no_wrap=True)
    table.add_column("z, MB a\nthousand", justify="right", no_wrap=True)
    priced = rows[0].cost is not None
    if priced:
        table.add_column("money a\nthousand", justify="right", no_wrap=True)
    for row in rows:
        drop = row.drop
        table.add_row(
            row.precision,
            row.runtime,
            f"{100 * row.test_accuracy:.2f}",
            f"{100 * drop.drop:.2f} ± {100 * drop.standard_error:.2f}" if drop else "",
            f"{drop.p_value:.2g}" if drop else "",
            f"{row.file_bytes / 1e3:,.1f}",
            f"{row.compression:.2f}x",
            *(f"{1e3 * median:.2f} ({1e3 * p95:.2f})" for median, p95 in row.latency.values()),
            f"{row.peak_memory / 1e6:.0f} ({row.model_memory / 1e6:.1f})",
            f"{row.smashed_bytes / 1e6:.3f}",
            *([f"{row.cost:.4g}"] if priced else []),
        )
    return table
