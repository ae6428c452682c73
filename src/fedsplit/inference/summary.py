"""Requests of each precision in a few numbers, as files and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from rich.table import Table

from fedsplit.config.run_config import RunConfig
from fedsplit.files.whole import write_csv, write_json
from fedsplit.inference.device import COLUMNS, Footprint, Request
from fedsplit.network.network import Network
from fedsplit.recording.config_file import write_config

SECONDS = ("client", "server", "wire", "total")
"""Parts of a request that take time, and all of it."""
_COLUMNS = {
    **{"bytes.up": "bytes_up", "bytes.down": "bytes_down", "file_bytes": "file_bytes"},
    **{"peak_memory_bytes": "peak_memory", "peak_memory_before_loading_bytes": "memory_before"},
    "cost_per_1000": "cost_per_1000",
}
"""Columns of `summary.csv` between seconds and ratios, by what a `Summary` calls them."""


@dataclass(frozen=True)
class Seconds:
    """Seconds of requests: mean, standard deviation (of one request none), median and 95th percentile."""

    mean: float
    std: float | None
    median: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Statistics of the seconds of single requests."""
        std = float(np.std(seconds, ddof=1)) if len(seconds) > 1 else None
        return cls(float(np.mean(seconds)), std, float(np.median(seconds)), float(np.percentile(seconds, 95)))


@dataclass(frozen=True)
class Summary:
    """One precision.

    Args:
        requests: number of requests that were measured, over all devices.
        accuracy: over all its samples, a fraction.
        seconds: seconds of each part of a request.
        bytes_up: mean bytes of a request.
        bytes_down: likewise.
        peak_memory: the most bytes that a process held which ran the client half.
        memory_before: the most bytes of that process before it loaded the client half.
        cost_per_1000: money for the bytes of 1,000 samples; None where there is no price.
    """

    precision: str
    requests: int
    samples: int
    accuracy: float
    seconds: Mapping[str, Seconds]
    bytes_up: float
    bytes_down: float
    file_bytes: int
    peak_memory: int
    memory_before: int
    cost_per_1000: float | None

    @classmethod
    def of(
        cls,
        precision: str,
        requests: Sequence[Request],
        footprints: Sequence[Footprint],
        network: Network,
    ) -> Self:
        """Summary of the requests of one precision; warm-up does not count, but for memory."""
        counted = [each for each in requests if not each.warm_up]
        samples = sum(each.samples for each in counted)
        load = sum(each.bytes_up + each.bytes_down for each in counted)
        return cls(
            precision=precision,
            requests=len(counted),
            samples=samples,
            accuracy=sum(each.correct for each in counted) / sum(each.terms for each in counted),
            seconds={
                part: Seconds.of([getattr(each, f"{part}_seconds") for each in counted]) for part in SECONDS
            },
            bytes_up=float(np.mean([each.bytes_up for each in counted])),
            bytes_down=float(np.mean([each.bytes_down for each in counted])),
            file_bytes=footprints[0].file_bytes,
            peak_memory=max(each.peak_memory for each in requests),
            memory_before=max(each.memory_before for each in footprints),
            cost_per_1000=network.cost(1000 * load / samples),
        )

    def plain(self, first: "Summary") -> dict[str, object]:
        """A row of `summary.csv`, with ratios to the first precision: below 1 is less."""
        names = ("precision", "requests", "samples", "accuracy")
        values: dict[str, object] = {name: getattr(self, name) for name in names}
        for part, seconds in self.seconds.items():
            values |= {f"seconds.{part}.{name}": value for name, value in vars(seconds).items()}
        values |= {column: getattr(self, name) for column, name in _COLUMNS.items()}
        for part in SECONDS:
            ratio = _ratio(self.seconds[part].median, first.seconds[part].median)
            values[f"ratio.seconds.{part}"] = ratio
        for column in ("bytes.up", "file_bytes", "peak_memory_bytes"):
            name = _COLUMNS[column]
            values[f"ratio.{column}"] = _ratio(getattr(self, name), getattr(first, name))
        return values


def _ratio(own: float, other: float) -> float | None:
    """None where there is nothing to compare with: a wire that takes no time."""
    return own / other if other else None


def summary_table(summaries: Sequence[Summary], batch_size: int) -> Table:
    """Rows for a terminal: medians, with the 95th percentile in brackets; ratios to the first precision."""
    first = summaries[0]
    table = Table(caption=f"a request is {batch_size} samples; medians (p95), peak of process (of model)")
    table.add_column("precision", no_wrap=True)
    table.add_column("accuracy %", justify="right", no_wrap=True)
    for part in SECONDS:
        table.add_column(f"{part} ms", justify="right", no_wrap=True)
    for name in ("up kB", "down kB", "file kB", "peak MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in summaries:
        own = (each.peak_memory - each.memory_before) / 1e6
        table.add_row(
            each.precision,
            f"{100 * each.accuracy:.2f}",
            *(
                f"{_ms(each.seconds[part].median)} ({_ms(each.seconds[part].p95)})"
                + _ratio_note(each.seconds[part].median, first.seconds[part].median, each is first)
                for part in SECONDS
            ),
            f"{each.bytes_up / 1e3:,.1f}" + _ratio_note(each.bytes_up, first.bytes_up, each is first),
            f"{each.bytes_down / 1e3:,.2f}",
            f"{each.file_bytes / 1e3:,.1f}" + _ratio_note(each.file_bytes, first.file_bytes, each is first),
            f"{each.peak_memory / 1e6:,.0f} ({own:,.0f})",
        )
    return table


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def _ratio_note(own: float, other: float, is_first: bool) -> str:
    ratio = None if is_first else _ratio(own, other)
    return "" if ratio is None else f"\n{ratio:.2f}x"


def write_results(
    directory: Path,
    config: RunConfig,
    cut: str,
    requests: Sequence[Request],
    summaries: Sequence[Summary],
) -> None:
    """Write `config.yaml`, `requests.csv`, `summary.csv`, `summary.json` and `results.json`.

    Args:
        requests: requests in the order in which they were made.
        summaries: summaries of each precision; the others are compared with the first.
    """
    first = summaries[0]
    rows = [each.plain(first) for each in summaries]
    write_csv(directory / "requests.csv", COLUMNS, (each.row() for each in requests))
    write_csv(directory / "summary.csv", list(rows[0]), (list(row.values()) for row in rows))
    about = {
        "batch_size": config.training.batch_size,
        "threads": config.computation.threads,
        "device": config.computation.device,
        "run": config.origin.run,
        "model": config.choices.get("model"),
        "cut": cut,
        "transport": config.choice("transport"),
    }
    write_json(directory / "summary.json", {**about, "precisions": rows})
    write_config(directory, config.plain())
    write_json(
        directory / "results.json",
        {
            "final_accuracy": first.accuracy,
            "load": sum(each.bytes_up + each.bytes_down for each in requests if not each.warm_up),
            "seconds": sum(each.total_seconds for each in requests if not each.warm_up),
            "precisions": {row["precision"]: row for row in rows},
        },
    )
