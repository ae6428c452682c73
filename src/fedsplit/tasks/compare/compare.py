"""What a run's client model costs and gains at each precision."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from torch import Tensor

from fedsplit.building.trained import TrainedRun
from fedsplit.config.values import DeployedPrecision, PositiveInt
from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import Deployed
from fedsplit.deployment.calibration import calibration_batches
from fedsplit.deployment.measuring import footprints, machine
from fedsplit.deployment.precisions import Precision
from fedsplit.errors import UserError
from fedsplit.files.paths import user_path
from fedsplit.files.whole import appearing
from fedsplit.recording.classification import CONFUSION, ROC, ConfusionMatrix, RocCurves
from fedsplit.reports.figures.style import house_style
from fedsplit.reports.shown_table import print_table
from fedsplit.tasks.compare.comparison import SAMPLES, Compared, comparison_table, write_comparison
from fedsplit.tasks.compare.comparison_figure import comparison_figure
from fedsplit.tasks.compare.paired import Drop
from fedsplit.tasks.task import Task

_REFERENCE, _MODEL = "fp32", "model"


class Compare(Task):
    """Deploys the trained client model at each precision, and evaluates and measures it there.

    Args:
        precisions: by name; `fp32`, that all are compared with, is always among them.
        calibration_batches: of the clients' training images.
        calibration_batch_size: images of each.
        batch_sizes: samples at a time, at which latency is measured.
        repeats: runs at each that count.
    """

    beside = ("task", "run", "trust", "device", "threads", "network")
    models_of_run = "needed"
    swept = False

    def __init__(
        self,
        *,
        precisions: list[DeployedPrecision],
        calibration_batches: PositiveInt,
        calibration_batch_size: PositiveInt,
        batch_sizes: list[PositiveInt],
        repeats: PositiveInt,
    ) -> None:
        if not batch_sizes:
            raise UserError("batch_sizes", batch_sizes, "at least one number of samples")
        self.precisions = list(dict.fromkeys([_REFERENCE, *precisions]))
        self.calibration_batches, self.calibration_batch_size = calibration_batches, calibration_batch_size
        self.batch_sizes, self.repeats = batch_sizes, repeats

    def run(self, config: Mapping[str, Any], directory: Path) -> None:
        """See `Task.run`: prints a table, and writes to `compare/` in the run's directory.

        What was there is replaced, once all is whole.
        """
        own = {key: config[key] for key in ("device", "threads", "trust")}
        trained = TrainedRun(user_path(config["run"], "run"), **own)
        console = Console()
        whole = trained.path / "compare"
        try:
            with appearing(whole) as partial:
                rows = self._written(trained, _price(config, trained), partial, console)
                shutil.rmtree(whole, ignore_errors=True)
        except OSError as error:
            raise UserError("run", trained.path, f"cannot be written to ({error.strerror})") from error
        print_table(comparison_table(rows))
        print(whole)

    def _written(
        self, trained: TrainedRun, price: float | None, folder: Path, console: Console
    ) -> list[Compared]:
        """Deploy, evaluate and measure, with everything written to `folder`."""
        evaluated, left_out = self._evaluated(trained, folder, console)
        measured = footprints(
            {name: folder / name / _MODEL for name in evaluated},
            trained.architecture,
            batch_sizes=self.batch_sizes,
            repeats=self.repeats,
            threads=trained.config["threads"],
        )
        sizes = {name: storage.size(folder / name / _MODEL) for name in evaluated}
        reference = evaluated[_REFERENCE]
        rows = []
        for name, found in evaluated.items():
            footprint, sent = measured[name], found.sample_bytes * SAMPLES
            rows.append(
                Compared(
                    precision=name,
                    runtime=Precision.named(name).runtime,
                    test_accuracy=float(found.correct.double().mean()),
                    drop=Drop.of(reference.correct, found.correct) if name != _REFERENCE else None,
                    class_accuracy=found.confusion.class_accuracy,
                    roc_areas=found.roc.areas,
                    file_bytes=sizes[name],
                    compression=sizes[_REFERENCE] / sizes[name],
                    latency={n: (each.median, each.p95) for n, each in footprint.latency.items()},
                    peak_memory=footprint.peak_memory,
                    model_memory=footprint.model_memory,
                    smashed_bytes=sent,
                    cost=None if price is None else price * sent / 1e6,
                    unquantized=found.unquantized,
                )
            )
        write_comparison(folder, rows, self._about(trained, price), left_out)
        try:
            with house_style():
                comparison_figure(rows).savefig(folder / "comparison.png")
        except UserError as error:
            console.print(f"no figure: {error}", soft_wrap=True, highlight=False, markup=False)
        return rows

    def _evaluated(
        self, trained: TrainedRun, folder: Path, console: Console
    ) -> tuple[dict[str, "Evaluated"], dict[str, str]]:
        """Precisions deployed below `folder` and evaluated, by name; and why others are not."""
        calibration = self._calibration(trained)
        found: dict[str, Evaluated] = {}
        left_out: dict[str, str] = {}
        for name in self.precisions:
            try:
                backend = Precision.named(name).make_backend("task.precisions", name)
                backend.prepare(Precision.named(name).model(trained.client), calibration[0][:2])
                if backend.calibrates:
                    backend.calibrate(calibration)
                deployed = backend.convert()
                found[name] = Evaluated.of(trained, deployed, backend.unquantized)
            except UserError as error:
                if error.key == "calibration" or name == _REFERENCE:
                    raise
                left_out[name] = error.allowed if "precision" in error.key else str(error)
                told = f"{name} is left out: {left_out[name]}"
                console.print(told, soft_wrap=True, highlight=False, markup=False)
                continue
            if backend.unquantized:
                told = f"{name}: {', '.join(backend.unquantized)} stay in fp32"
                console.print(told, soft_wrap=True, highlight=False, markup=False)
            deployed.save(folder / name / _MODEL)
            found[name].confusion.write(folder / name / CONFUSION)
            found[name].roc.write(folder / name / ROC)
        return found, left_out

    def _calibration(self, trained: TrainedRun) -> list[Tensor]:
        """The same samples for every backend."""
        parts = trained.parts
        drawn = calibration_batches(
            parts.data.dataset.train,
            list(parts.data.shards),
            normalise=parts.data.normalise,
            batches=self.calibration_batches,
            batch_size=self.calibration_batch_size,
            seed=parts.seed,
        )
        return [batch.cpu() for batch in drawn]

    def _about(self, trained: TrainedRun, price: float | None) -> dict[str, Any]:
        """How it was measured."""
        return {
            "run": str(trained.path),
            "model": trained.config["choices"].get("model"),
            "cut": trained.architecture.cut,
            "test_samples": len(trained.labels),
            "calibration_samples": self.calibration_batches * self.calibration_batch_size,
            "repeats": self.repeats,
            "threads": trained.config["threads"],
            "cost_per_mb": price,
            "machine": machine(),
        }


@dataclass(frozen=True)
class Evaluated:
    """A deployed client model in front of the server model, on all test images.

    Args:
        correct: whether each is classified correctly, bool `(n,)`.
        confusion: of them.
        roc: of them.
        sample_bytes: of one sample's smashed data, as the client model puts them out.
        unquantized: operations that compute in float32.
    """

    correct: Tensor
    confusion: ConfusionMatrix
    roc: RocCurves
    sample_bytes: int
    unquantized: tuple[str, ...]

    @classmethod
    def of(cls, trained: TrainedRun, deployed: Deployed, unquantized: tuple[str, ...]) -> Self:
        """Evaluate."""
        logits, labels, names = trained.test_logits(deployed.run), trained.labels, trained.class_names
        one = trained.parts.data.batch(1)[0].cpu()
        return cls(
            correct=logits.argmax(1) == labels,
            confusion=ConfusionMatrix.of(logits.numpy(), labels.numpy(), names),
            roc=RocCurves.of(logits.double().numpy(), labels.numpy(), names),
            sample_bytes=deployed.run_quantized(one).size,
            unquantized=unquantized,
        )


def _price(config: Mapping[str, Any], trained: TrainedRun) -> float | None:
    """Money for each MB (10^6 bytes): as asked for here, else the run's; None where there is none."""
    for each in (config, trained.config):
        price: float | None = (each.get("network") or {}).get("cost_per_mb")
        if price is not None:
            return price
    return None
