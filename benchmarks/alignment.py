"""What an alignment costs beside the field's way, and how its error falls over the epochs.

    python benchmarks/alignment.py
    python benchmarks/alignment.py --curves datas/cifar10_jpeg --plot docs/alignment.png

The field's way: a `DataLoader` over `(z, y, dz)`, the estimate by `autograd.grad(create_graph=True)` and
`backward()` through it. Both fit the same chunks in the same order in one thread, turn by turn; a row
counts only if both end at the same error. `--curves` runs FSL-SAGE on the training images of an image
folder, never on its test images, and asks what stopping early would have cost each alignment.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.experiments import build, seconds
from fedsplit.computing.model_state import ModelState, compute_format
from fedsplit.estimators.estimator import WINDOW, Chunk, FitStep, Settling
from fedsplit.estimators.gradient_of_loss import GradientOfLoss
from fedsplit.models.auxiliary import LinearAuxiliary, MlpAuxiliary
from fedsplit.models.zoo.resnet import ResNetAuxiliary
from fedsplit.objectives.classification import Classification
from fedsplit.objectives.objective import Objective
from fedsplit.optim.optimizers import Adam

OBJECTIVE = Classification(10)
ADAM = Adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False)


def linear() -> nn.Module:
    """The auxiliary model of `simple_conv`."""
    return LinearAuxiliary(smashed_shape=(4096,), num_classes=10)


def mlp() -> nn.Module:
    """A hidden layer at the same cut."""
    return MlpAuxiliary(smashed_shape=(4096,), num_classes=10, hidden=64)


def resnet() -> nn.Module:
    """The auxiliary model of `resnet18`."""
    return ResNetAuxiliary(smashed_shape=(128, 4, 4), num_classes=10)


@dataclass(frozen=True)
class Case:
    """A row of the table of speeds."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    samples: int
    batch: int
    epochs: int


CASES = (
    Case("linear", linear, (4096,), 1000, 1000, 10),
    Case("linear", linear, (4096,), 1000, 250, 10),
    Case("linear", linear, (4096,), 1000, 100, 10),
    Case("mlp", mlp, (4096,), 1000, 1000, 5),
    Case("resnet", resnet, (128, 4, 4), 1000, 1000, 2),
    Case("resnet", resnet, (128, 4, 4), 1000, 250, 2),
    Case("resnet", resnet, (128, 4, 4), 256, 256, 4),
)


def fit_plainly(
    module: nn.Module, optimizer: torch.optim.Optimizer, chunks: Sequence[Chunk], batch: int, epochs: int
) -> None:
    """By a DataLoader and double backward."""
    whole = TensorDataset(
        *(torch.cat([getattr(chunk, part) for chunk in chunks]) for part in ("z", "y", "dz"))
    )
    loader = DataLoader(whole, batch_size=batch)
    for _ in range(epochs):
        for z, y, dz in loader:
            leaf = compute_format(z).requires_grad_()
            loss = F.cross_entropy(module(leaf), y, reduction="sum")
            (estimate,) = torch.autograd.grad(loss, leaf, create_graph=True)
            optimizer.zero_grad()
            (estimate - dz).square().sum().backward()
            optimizer.step()


def total_error(model: ModelState, chunks: Sequence[Chunk]) -> float:
    """Relative error of the estimates, `|estimate - dz| / |dz|`."""
    errors = [GradientOfLoss().error_gradients(model, OBJECTIVE, chunk, seed=0)[0] for chunk in chunks]
    return float((torch.stack(errors).sum() / sum(float(chunk.dz_square) for chunk in chunks)).sqrt())


def turns(case: Case, repeats: int) -> tuple[dict[str, list[float]], str]:
    """Seconds an epoch, of both sides in turns, and the relative errors that both end at."""
    torch.manual_seed(0)
    module = case.make().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    z = compute_format(torch.rand(case.samples, *case.shape))
    y = torch.randint(10, (case.samples,))
    dz = torch.randn_like(z) * 0.01
    pieces = [slice(start, start + case.batch) for start in range(0, case.samples, case.batch)]
    chunks = [Chunk(z[piece], y[piece], dz[piece]) for piece in pieces]
    steps = [FitStep(number, seed=0) for _ in range(case.epochs) for number in range(len(chunks))]
    model, estimator = ModelState(module, ADAM), GradientOfLoss()
    optimizer = torch.optim.Adam(module.parameters(), lr=ADAM.lr)
    taken: dict[str, list[float]] = {"loop": [], "fedsplit": []}
    for _ in range(repeats + 1):
        plainly = seconds(lambda: fit_plainly(module, optimizer, chunks, case.batch, case.epochs))
        taken["loop"].append(plainly / case.epochs)
        taken["fedsplit"].append(
            seconds(lambda: estimator.fit(model, OBJECTIVE, chunks, steps)) / case.epochs
        )
    errors = [total_error(each, chunks) for each in (model, ModelState(module))]
    same = abs(errors[0] - errors[1]) <= 1e-4 * errors[0]
    after_warming_up = {side: each[1:] for side, each in taken.items()}
    return after_warming_up, f"{errors[0]:.5f} {'=' if same else '!='} {errors[1]:.5f}"


def measure(case: Case, repeats: int) -> list[str]:
    """A row of the table of speeds."""
    taken, ends = turns(case, repeats)
    return [
        f"{case.name}, {case.samples} in chunks of {case.batch}",
        *(f"{1000 * median(taken[side]):.1f}" for side in ("loop", "fedsplit")),
        f"{median(a / b for a, b in zip(taken['loop'], taken['fedsplit'], strict=True)):.2f}",
        ends,
    ]


def measure_speeds(repeats: int, only: str | None) -> None:
    """Print the table of speeds."""
    table = Table("auxiliary model", "double backward (ms)", "fedsplit (ms)", "ratio", "error at the end")
    for case in CASES:
        if only in (None, case.name):
            table.add_row(*measure(case, repeats))
    told = f"an epoch; one thread, torch {torch.__version__}; medians of {repeats} turns"
    Console(width=120).print(told, table)


@dataclass(frozen=True)
class Course:
    """The relative error `|estimate - dz| / |dz|` of one alignment before each epoch, and after the last."""

    first: bool
    samples: int
    errors: list[float]

    def epochs(self, tolerance: float) -> int:
        """Epochs run with a tolerance."""
        settling = Settling(tolerance)
        for epoch, error in enumerate(self.errors[:-1], start=1):
            if settling.is_reached([torch.tensor(error**2, dtype=torch.float64)]):
                return epoch
        return len(self.errors) - 1

    def cost(self, tolerance: float) -> float:
        """By which fraction the error ends higher than after all epochs."""
        return self.errors[self.epochs(tolerance)] / self.errors[-1] - 1


class Watched(GradientOfLoss):
    """Notes the course of each fit over all epochs, and then fits as it is asked to."""

    def __init__(self) -> None:
        self.courses: list[Course] = []
        self._errors: list[Tensor] = []

    def error_gradients(
        self, model: ModelState, objective: Objective, chunk: Chunk, *, seed: int
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """See `GradientEstimator.error_gradients`."""
        error, gradients = super().error_gradients(model, objective, chunk, seed=seed)
        self._errors.append((error / chunk.dz_square).sqrt())
        return error, gradients

    def fit(
        self,
        model: ModelState,
        objective: Objective,
        chunks: Sequence[Chunk],
        steps: Sequence[FitStep],
        *,
        tolerance: float = 0.0,
    ) -> None:
        """See `GradientEstimator.fit`; all in one chunk."""
        (chunk,) = chunks
        before = copy.deepcopy(model.state())
        self._errors.clear()
        super().fit(model, objective, chunks, steps)
        self.error_gradients(model, objective, chunk, seed=0)
        first = not any(before["optimizer"].values())
        self.courses.append(Course(first, len(chunk.y), [float(error) for error in self._errors]))
        model.load_state(before)
        super().fit(model, objective, chunks, steps, tolerance=tolerance)


@dataclass(frozen=True)
class Setting:
    """A run of FSL-SAGE whose alignments are watched."""

    overrides: tuple[str, ...]
    rounds: int


SMALL = ("model=simple_conv", "dataset.max_train=2000", "num_clients=4", "batch_size=32")
SETTINGS = {
    "simple_conv": Setting(SMALL, 21),
    "dirichlet": Setting(
        (*SMALL, "distribution=dirichlet", "distribution.alpha=0.3", "algorithm.align_interval=5", "seed=1"),
        11,
    ),
    "mlp": Setting((*SMALL, "auxiliary=mlp", "algorithm.align_interval=5", "seed=2"), 11),
    "resnet18": Setting(("model=resnet18", "dataset.max_train=600", "num_clients=2", "batch_size=64"), 11),
}
TOLERANCES = (0.003, 0.01, 0.02, 0.03, 0.05, 0.1)
SHOWN = (0, 1, 5, 10, 20, 30, 50, 70, 100)


def courses(name: str, images: str) -> list[Course]:
    """Of all alignments of a run with the default tolerance."""
    setting = SETTINGS[name]
    overrides = [
        "algorithm=fsl_sage",
        "algorithm.server_update_interval=2",
        "progress=false",
    ]
    overrides += ["dataset=image_folder", f"dataset.root={images}", "dataset.validation=200"]
    experiment = build(*overrides, *setting.overrides)
    watched = experiment.algorithm.alignment.estimator = Watched()  # type: ignore[attr-defined]
    clients = range(experiment.config.population.num_clients)
    for t in range(setting.rounds):
        experiment.algorithm.run_round(t, experiment.transport.cohort(t, clients))
    return watched.courses


def groups(found: Sequence[Course]) -> dict[str, list[Course]]:
    """First alignments and later ones."""
    return {"first": [c for c in found if c.first], "later": [c for c in found if not c.first]}


def show_curves(setting: str, found: Sequence[Course]) -> None:
    """Print what the error is over the epochs, and what each tolerance would save and cost."""
    curves = Table("alignments", "n", "samples", *(f"{epoch}" for epoch in SHOWN))
    saving = Table(
        "tolerance", *(f"{name}: {what}" for name in ("first", "later") for what in ("epochs", "cost"))
    )
    for name, some in groups(found).items():
        errors = [f"{mean(c.errors[epoch] for c in some):.3f}" for epoch in SHOWN]
        curves.add_row(name, str(len(some)), f"{mean(c.samples for c in some):.0f}", *errors)
    for tolerance in TOLERANCES:
        row = []
        for some in groups(found).values():
            costs = [c.cost(tolerance) for c in some]
            row += [
                f"{mean(c.epochs(tolerance) for c in some):.1f}",
                f"{mean(costs):.2%}, at most {max(costs):.2%}",
            ]
        saving.add_row(f"{tolerance:g}", *row)
    told = f"{setting}: {' '.join(SETTINGS[setting].overrides)}; relative error after so many epochs"
    Console(width=140).print(told, curves, f"by the fall over {WINDOW} epochs", saving)


def draw_curves(found: dict[str, list[Course]], path: Path) -> None:
    """Draw all courses, and the mean of each group."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (optional)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 3 * (len(found) + 1) // 2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots((len(found) + 1) // 2, 2, squeeze=False, sharex=True).flatten()
    for axes, (setting, some) in zip(panels, found.items(), strict=False):
        for (name, group), colour in zip(groups(some).items(), ("tab:orange", "tab:blue"), strict=True):
            for course in group:
                axes.plot(course.errors, color=colour, alpha=0.25, linewidth=0.7)
            means = [mean(errors) for errors in zip(*(course.errors for course in group), strict=True)]
            axes.plot(means, color=colour, label=f"{name} alignments")
        axes.set(title=setting, yscale="log")
        axes.legend()
        axes.grid(visible=True, alpha=0.3, which="both")
    figure.supylabel("|estimate - dz| / |dz|", fontsize="medium")
    figure.supxlabel("epoch", fontsize="medium")
    figure.savefig(path)


def main() -> None:
    """Print tables, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns counted, after one that warms up")
    parser.add_argument("--only", choices=sorted({case.name for case in CASES}), help="one auxiliary model")
    parser.add_argument("--curves", metavar="FOLDER", help="an image folder; instead of the speeds")
    parser.add_argument("--setting", choices=list(SETTINGS), help="curves of one setting")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the curves")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.curves is None:
        measure_speeds(options.repeats, options.only)
        return
    found = {}
    for setting in [options.setting] if options.setting else SETTINGS:
        found[setting] = courses(setting, options.curves)
        show_curves(setting, found[setting])
    if options.plot:
        draw_curves(found, options.plot)


if __name__ == "__main__":
    main()
