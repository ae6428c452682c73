"""A client model at several precisions: what each costs and gains, as files and as a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, sqrt
from pathlib import Path
from typing import Self

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

from fedsplit.building.trained import TrainedRun
from fedsplit.deployment.backends.backend import DeployedModel
from fedsplit.deployment.measuring import DeviceCost
from fedsplit.deployment.precisions import Precision
from fedsplit.errors import UserError
from fedsplit.files.whole import write_csv, write_json
from fedsplit.machine.progress import track
from fedsplit.recording.classification import CONFUSION, ROC, ConfusionMatrix, RocCurves

REFERENCE = "fp32"
"""The precision that all are compared with."""
MODEL = "model"
"""Folder of a deployed model, below that of its precision."""


@dataclass(frozen=True)
class PrecisionScores:
    """A deployed client model in front of the server model, on all test samples.

    Args:
        correct: correctness of each sample's class, or of each predicted token, bool `(n,)`.
        perplexity: perplexity of tokens that are to be predicted; None where samples are classified.
        confusion: confusion matrix; None where tokens are predicted.
        roc: likewise.
        sample_bytes: bytes of a sample's smashed data, as the client model puts them out; of texts the mean.
        unquantized: operations that compute in float32.
    """

    correct: Tensor
    perplexity: float | None
    confusion: ConfusionMatrix | None
    roc: RocCurves | None
    sample_bytes: float
    unquantized: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Accuracy of the composed split model, a fraction."""
        return float(self.correct.double().mean())

    @classmethod
    def of(cls, trained: TrainedRun, deployed: DeployedModel, unquantized: tuple[str, ...]) -> Self:
        """Evaluation of a deployed client model in front of the server model."""
        objective, names = trained.parts.data.dataset.objective, trained.class_names
        correct, scores, classes, loss = [], [], [], 0.0
        for outputs, y in trained.test_outputs(deployed.run):
            own, targets = objective.classes(y), objective.targets(y)
            if own is not None:
                scores.append(outputs)
                classes.append(own)
            correct.append(outputs.argmax(1) == (y[targets] if own is None else own))
            loss += float(objective.measure(outputs, y).loss)
        right = torch.cat(correct)
        confusion, roc = None, None
        if scores:
            logits, labels = torch.cat(scores), torch.cat(classes).numpy()
            confusion = ConfusionMatrix.of(logits.numpy(), labels, names)
            roc = RocCurves.of(logits.double().numpy(), labels, names)
        return cls(
            correct=right,
            perplexity=exp(loss / len(right)) if objective.has_perplexity else None,
            confusion=confusion,
            roc=roc,
            sample_bytes=_sample_bytes(trained, deployed),
            unquantized=unquantized,
        )


def _sample_bytes(trained: TrainedRun, deployed: DeployedModel) -> float:
    """Bytes of the smashed data of a test sample without padding, in the mean."""
    dataset = trained.parts.data.dataset
    one = trained.parts.data.batch(1)[0].cpu()
    size = deployed.run_quantized(one).size
    lengths = dataset.objective.lengths(dataset.test.labels_at(slice(None)))
    return size if lengths is None else size / one.shape[1] * float(lengths.double().mean())


def evaluate_precisions(
    precisions: Sequence[str],
    trained: TrainedRun,
    draw_calibration: Callable[[], Sequence[Tensor]],
    folder: Path,
    console: Console,
) -> tuple[dict[str, PrecisionScores], dict[str, str]]:
    """Deploy a trained client model at each precision, and evaluate it there.

    Args:
        precisions: names of precisions, with `REFERENCE`.
        draw_calibration: function that draws batches of inputs, from which ranges of activations are taken;
            called where a precision needs them.
        folder: folder that gets the model, its confusion matrix and its ROC curves, in a folder for each.
        console: is told which precisions are left out, and what stays in float32.

    Returns:
        Precisions that were evaluated, and why others were not, both by name.

    Raises:
        UserError: calibration cannot be as asked for, or the reference cannot be deployed.
    """
    found: dict[str, PrecisionScores] = {}
    left_out: dict[str, str] = {}
    example = trained.parts.data.batch(2)[0].cpu()
    for name in track(precisions, "deploying and evaluating precisions"):
        try:
            backend = Precision.by_name(name).make_backend("task.precisions", name)
            model = Precision.by_name(name).model(trained.client, backend, name)
            backend.prepare(model, example)
            if backend.calibrates:
                backend.calibrate(draw_calibration())
            deployed = backend.convert()
            found[name] = PrecisionScores.of(trained, deployed, backend.unquantized)
        except UserError as error:
            if error.key in ("calibration", "task.calibration_batches") or name == REFERENCE:
                raise
            left_out[name] = error.allowed if "precision" in error.key else str(error)
            message = f"{name} is left out: {left_out[name]}"
            console.print(message, soft_wrap=True, highlight=False, markup=False)
            continue
        if backend.unquantized:
            message = f"{name}: {', '.join(backend.unquantized)} stay in fp32"
            console.print(message, soft_wrap=True, highlight=False, markup=False)
        deployed.save(folder / name / MODEL)
        for measured, file in ((found[name].confusion, CONFUSION), (found[name].roc, ROC)):
            if measured is not None:
                measured.write(folder / name / file)
    return found, left_out


@dataclass(frozen=True)
class Drop:
    """Difference of a classifier's accuracy to that of a reference.

    Tokens of a text are not independent of each other: of a language model errors are larger, and
    probabilities too, than what is told here.

    Args:
        drop: drop of accuracy, a fraction; below zero where it gains.
        standard_error: standard error of the drop, over samples or tokens: of the mean of paired differences.
        p_value: exact, two-sided (McNemar): how likely samples on which one of both is right would be
            divided at least as unevenly, if both were as good.
    """

    drop: float
    standard_error: float
    p_value: float

    @classmethod
    def of(cls, reference: Tensor, other: Tensor) -> Self:
        """Difference between two classifiers, from the samples that each classifies correctly.

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
class ComparedPrecision:
    """One precision.

    Args:
        drop: against float32; None of float32 itself.
        compression: ratio of the size of the float32 file to this one's.
        money: money for each MB (10^6 bytes) that is sent; None where no price is known.
    """

    precision: str
    scores: PrecisionScores
    device: DeviceCost
    drop: Drop | None
    file_bytes: int
    compression: float
    money: float | None

    @property
    def smashed_bytes(self) -> int:
        """Bytes of the smashed data of `SAMPLES` samples."""
        return round(self.scores.sample_bytes * SAMPLES)

    @property
    def cost(self) -> float | None:
        """Price of sending the smashed data."""
        return None if self.money is None else self.money * self.smashed_bytes / 1e6

    def plain(self) -> dict[str, object]:
        """Values as JSON holds them; a row of the CSV file is its values that are single numbers or words."""
        drop, found, device = self.drop, self.scores, self.device
        return {
            "precision": self.precision,
            "runtime": Precision.by_name(self.precision).runtime,
            "test_accuracy": found.accuracy,
            **({} if found.perplexity is None else {"test_perplexity": found.perplexity}),
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
            **({} if found.confusion is None else {"class_accuracy": found.confusion.class_accuracy}),
            **({} if found.roc is None else {"roc_area": dict(found.roc.areas)}),
        }


def write_comparison(
    directory: Path,
    rows: Sequence[ComparedPrecision],
    about: Mapping[str, object],
    left_out: Mapping[str, str],
) -> None:
    """Write `comparison.json` and `comparison.csv`.

    Args:
        rows: float32 first.
        left_out: reason why a precision is not there, by precision.
    """
    plain = [row.plain() for row in rows]
    write_json(directory / "comparison.json", {**about, "left_out": dict(left_out), "precisions": plain})
    columns = [key for key, value in plain[0].items() if not isinstance(value, dict)]
    write_csv(directory / "comparison.csv", columns, ([row[key] for key in columns] for row in plain))


def comparison_table(rows: Sequence[ComparedPrecision]) -> Table:
    """Table of precisions for a terminal."""
    table = Table()
    table.add_column("precision", no_wrap=True)
    table.add_column("runtime")
    of_text = rows[0].scores.perplexity is not None
    perplexity = ["perplexity"] if of_text else []
    for name in (*perplexity, "accuracy %", "drop (points)", "p", "file kB", "smaller"):
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
            Precision.by_name(row.precision).runtime,
            *([f"{row.scores.perplexity:.2f}"] if of_text else []),
            f"{100 * row.scores.accuracy:.2f}",
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
