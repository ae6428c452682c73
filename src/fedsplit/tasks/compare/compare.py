"""Comparison of a run's client model at each precision."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from torch import Tensor
from typing_extensions import override

from fedsplit.building.process import prepare_process
from fedsplit.building.trained import TrainedRun
from fedsplit.config.run_config import RunConfig
from fedsplit.config.values import DeployedPrecision, NonNegativeInt, PositiveInt
from fedsplit.deployment import storage
from fedsplit.deployment.calibration import calibration_batches
from fedsplit.deployment.measuring import footprints, machine
from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line
from fedsplit.files.whole import appearing
from fedsplit.reports.figures.style import house_style
from fedsplit.reports.shown_table import print_table
from fedsplit.tasks.compare.comparison import (
    MODEL,
    REFERENCE,
    ComparedPrecision,
    Drop,
    comparison_table,
    evaluate_precisions,
    write_comparison,
)
from fedsplit.tasks.compare.comparison_figure import comparison_figure
from fedsplit.tasks.task import Task


@dataclass(kw_only=True)
class Compare(Task):
    """Deploys the trained client model at each precision, and evaluates and measures it there.

    Args:
        precisions: names of precisions; `fp32`, that all are compared with, is always among them.
        batch_sizes: samples at a time, at which latency is measured.
        repeats: runs at each that count.
        client: number of the client whose model is taken, in a run whose clients have models of their own.
    """

    beside = ("task", "run", "trust", "device", "threads", "network")
    models_of_run = "needed"
    swept = False

    precisions: list[DeployedPrecision]
    calibration_batches: PositiveInt
    calibration_batch_size: PositiveInt
    batch_sizes: list[PositiveInt]
    repeats: PositiveInt
    client: NonNegativeInt | None

    def __post_init__(self) -> None:
        if not self.batch_sizes:
            raise UserError("batch_sizes", self.batch_sizes, "must hold at least one number of samples")
        self.precisions = list(dict.fromkeys([REFERENCE, *self.precisions]))

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        """Print a table, and write to `compare/` in the run's directory, or `compare-3/`.

        What was there is replaced, once all is whole.
        """
        prepare_process(config)
        trained = TrainedRun.named_by(config, self.client)
        console = Console()
        whole = trained.path / ("compare" if self.client is None else f"compare-{self.client}")
        with in_one_line("run", trained.path, "cannot be written to"), appearing(whole) as partial:
            rows = self._write(trained, _price(config, trained), partial, console)
            shutil.rmtree(whole, ignore_errors=True)
        print_table(comparison_table(rows))
        print(whole)

    def _write(
        self, trained: TrainedRun, price: float | None, folder: Path, console: Console
    ) -> list[ComparedPrecision]:
        """Deploy, evaluate and measure, with everything written to `folder`."""
        calibration: list[Tensor] = []

        def draw_calibration() -> list[Tensor]:
            if not calibration:
                calibration.extend(self._calibration(trained))
            return calibration

        evaluated, left_out = evaluate_precisions(self.precisions, trained, draw_calibration, folder, console)
        measured = footprints(
            {name: folder / name / MODEL for name in evaluated},
            trained.architecture,
            batch_sizes=self.batch_sizes,
            repeats=self.repeats,
            threads=trained.config.computation.threads,
        )
        sizes = {name: storage.size(folder / name / MODEL) for name in evaluated}
        reference = evaluated[REFERENCE]
        rows = [
            ComparedPrecision(
                precision=name,
                scores=found,
                device=measured[name],
                drop=Drop.of(reference.correct, found.correct) if name != REFERENCE else None,
                file_bytes=sizes[name],
                compression=sizes[REFERENCE] / sizes[name],
                money=price,
            )
            for name, found in evaluated.items()
        ]
        write_comparison(folder, rows, self._about(trained, price, calibration), left_out)
        try:
            with house_style():
                comparison_figure(rows).savefig(folder / "comparison.png")
        except UserError as error:
            console.print(f"no figure: {error}", soft_wrap=True, highlight=False, markup=False)
        return rows

    def _calibration(self, trained: TrainedRun) -> list[Tensor]:
        """Samples that every backend takes its ranges from."""
        parts = trained.parts
        drawn = calibration_batches(
            parts.data.dataset.train,
            parts.data.shards,
            batches=self.calibration_batches,
            batch_size=self.calibration_batch_size,
            seed=trained.config.training.seed,
        )
        return [batch.cpu() for batch in drawn]

    def _about(
        self, trained: TrainedRun, price: float | None, calibration: Sequence[Tensor]
    ) -> dict[str, object]:
        return {
            "run": str(trained.path),
            "client": self.client,
            "model": trained.config.choices.get("model"),
            "cut": trained.architecture.cut,
            "test_samples": len(trained.labels),
            "calibration_samples": sum(map(len, calibration)),
            "repeats": self.repeats,
            "threads": trained.config.computation.threads,
            "cost_per_mb": price,
            "machine": machine(),
        }


def _price(config: RunConfig, trained: TrainedRun) -> float | None:
    """Money for each MB (10^6 bytes): as asked for here, else the run's; None where there is none."""
    for each in (config, trained.config):
        price = each.network.arguments.get("cost_per_mb")
        if isinstance(price, int | float):
            return price
    return None
