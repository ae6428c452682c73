"""A client model at several precisions: what each costs and gains, as files and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Self

from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

from fedsplit.deployment.measuring import DeviceCost
from fedsplit.deployment.precisions import Precision
from fedsplit.files.whole import write_csv, write_json
from fedsplit.tasks.compare.evaluated import Evaluated


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
        drop: against float32; None of float32 itself.
        compression: how many times as large the file of float32 is.
        money: for each MB (10^6 bytes) that is sent; None where no price is known.
    """

    precision: str
    found: Evaluated
    device: DeviceCost
    drop: Drop | None
    file_bytes: int
    compression: float
    money: float | None

    @property
    def smashed_bytes(self) -> int:
        """Bytes of the smashed data of `SAMPLES` samples."""
        return self.found.sample_bytes * SAMPLES

    @property
    def cost(self) -> float | None:
        """Money for sending them."""
        return None if self.money is None else self.money * self.smashed_bytes / 1e6

    def plain(self) -> dict[str, object]:
        """As JSON can hold it; a row of the CSV file is its values that are single numbers or words."""
        drop, found, device = self.drop, self.found, self.device
        return {
            "precision": self.precision,
            "runtime": Precision.named(self.precision).runtime,
            "test_accuracy": found.accuracy,
            "accuracy_drop": drop.drop if drop else None,
            "accuracy_drop_standard_error": drop.standard_error if drop else None,
            "mcnemar_p": drop.p_value if drop else None,
            "file_bytes": self.file_bytes,
            "compression": self.compression,
            **{
                f"latency_s.{samples}.{name}": seconds
                for samples, latency in device.latency.items()
                for name, seconds in vars(latency).items()
            },
            "peak_memory_bytes": device.peak_memory,
            "model_memory_bytes": device.model_memory,
            "smashed_bytes_per_1000": self.smashed_bytes,
            "cost_per_1000": self.cost,
            "unquantized": " ".join(found.unquantized),
            "class_accuracy": found.confusion.class_accuracy,
            "roc_area": dict(found.roc.areas),
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
    for samples in rows[0].device.latency:
        table.add_column(f"ms at {samples}\n(p95)", justify="right", no_wrap=True)
    table.add_column("peak MB\n(model)", justify="right", no_wrap=True)
    table.add_column("z, MB a\nthousand", justify="right", no_wrap=True)
    priced = rows[0].money is not None
    if priced:
        table.add_column("money a\nthousand", justify="right", no_wrap=True)
    for row in rows:
        drop, device = row.drop, row.device
        table.add_row(
            row.precision,
            Precision.named(row.precision).runtime,
            f"{100 * row.found.accuracy:.2f}",
            f"{100 * drop.drop:.2f} ± {100 * drop.standard_error:.2f}" if drop else "",
            f"{drop.p_value:.2g}" if drop else "",
            f"{row.file_bytes / 1e3:,.1f}",
            f"{row.compression:.2f}x",
            *(f"{1e3 * each.median:.2f} ({1e3 * each.p95:.2f})" for each in device.latency.values()),
            f"{device.peak_memory / 1e6:.0f} ({device.model_memory / 1e6:.1f})",
            f"{row.smashed_bytes / 1e6:.3f}",
            *([f"{row.cost:.4g}"] if priced else []),
        )
    return table
