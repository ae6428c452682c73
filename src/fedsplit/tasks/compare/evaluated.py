"""A run's client model, deployed at each precision and evaluated on all test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from torch import Tensor

from fedsplit.building.trained import TrainedRun
from fedsplit.deployment.backends.backend import Deployed
from fedsplit.deployment.precisions import Precision
from fedsplit.errors import UserError
from fedsplit.recording.classification import CONFUSION, ROC, ConfusionMatrix, RocCurves

REFERENCE = "fp32"
"""The precision that all are compared with."""
MODEL = "model"
"""Folder of a deployed model, below that of its precision."""


@dataclass(frozen=True)
class Evaluated:
    """A deployed client model in front of the server model, on all test images.

    Args:
        correct: whether each is classified correctly, bool `(n,)`.
        sample_bytes: of one sample's smashed data, as the client model puts them out.
        unquantized: operations that compute in float32.
    """

    correct: Tensor
    confusion: ConfusionMatrix
    roc: RocCurves
    sample_bytes: int
    unquantized: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Of the composed split model, a fraction."""
        return float(self.correct.double().mean())

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


def evaluate_precisions(
    precisions: Sequence[str],
    trained: TrainedRun,
    calibration: Sequence[Tensor],
    folder: Path,
    console: Console,
) -> tuple[dict[str, Evaluated], dict[str, str]]:
    """Deploy a trained client model at each precision, and evaluate it there.

    Args:
        precisions: by name, with `REFERENCE`.
        calibration: batches of images, from which ranges of activations are taken.
        folder: where the model, its confusion matrix and its ROC curves are written, in a folder for each.
        console: is told which precisions are left out, and what stays in float32.

    Returns:
        Precisions that were evaluated, and why others were not, both by name.

    Raises:
        UserError: calibration cannot be as asked for, or the reference cannot be deployed.
    """
    found: dict[str, Evaluated] = {}
    left_out: dict[str, str] = {}
    for name in precisions:
        try:
            backend = Precision.named(name).make_backend("task.precisions", name)
            backend.prepare(Precision.named(name).model(trained.client), calibration[0][:2])
            if backend.calibrates:
                backend.calibrate(calibration)
            deployed = backend.convert()
            found[name] = Evaluated.of(trained, deployed, backend.unquantized)
        except UserError as error:
            if error.key == "calibration" or name == REFERENCE:
                raise
            left_out[name] = error.allowed if "precision" in error.key else str(error)
            told = f"{name} is left out: {left_out[name]}"
            console.print(told, soft_wrap=True, highlight=False, markup=False)
            continue
        if backend.unquantized:
            told = f"{name}: {', '.join(backend.unquantized)} stay in fp32"
            console.print(told, soft_wrap=True, highlight=False, markup=False)
        deployed.save(folder / name / MODEL)
        found[name].confusion.write(folder / name / CONFUSION)
        found[name].roc.write(folder / name / ROC)
    return found, left_out
