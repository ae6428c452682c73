"""What each cut of a model costs."""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import floor, log10
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from fedsplit.building.parts import Parts
from fedsplit.building.quantization import built_quantization
from fedsplit.computing.layout import unflattened
from fedsplit.computing.multiply_adds import attention_in_products
from fedsplit.config.values import PositiveInt
from fedsplit.errors import UserError
from fedsplit.files.paths import user_path
from fedsplit.models.derived import DerivedAuxiliary
from fedsplit.models.splitting.cuts import Cut, Cuts, evaluating
from fedsplit.models.splitting.split import divided
from fedsplit.quant.codecs.labels import Labels
from fedsplit.reports.figures.style import house_style
from fedsplit.reports.shown_table import print_table
from fedsplit.state.weights import Weights
from fedsplit.tasks.cuts.cut_figure import cut_figure
from fedsplit.tasks.cuts.round_load import ALGORITHMS, Population, RoundLoad
from fedsplit.tasks.task import Task


@dataclass(frozen=True)
class CutCosts:
    """Of one cut.

    Args:
        name: of the cut.
        stage: its number; None where it is no stage.
        tensors: that cross.
        smashed_bytes: of one sample, as float32.
        client_bytes: of the client model's state.
        server_bytes: of the server model's state.
        auxiliary_bytes: of the state of an auxiliary model that is derived from the server model.
        client_macs: multiply-adds of the client model's forward pass for one sample.
        server_macs: of the server model's.
        load: bytes a round, by algorithm.
    """

    name: str
    stage: int | None
    tensors: int
    smashed_bytes: int
    client_bytes: int
    server_bytes: int
    auxiliary_bytes: int
    client_macs: int
    server_macs: int
    load: dict[str, float]


class CutTable(Task):
    """Prints for each cut what crosses it, what each side holds and computes, and each algorithm's load.

    Args:
        format: of what is printed; csv has whole bytes and multiply-adds, the others millions.
        among: all cuts, or the model's stages only.
        plot: file for a figure of load against the client's computation (png, pdf or svg); None draws none.
        server_update_interval: q of CSE-FSL and FSL-SAGE.
        align_interval: l of FSL-SAGE.
    """

    models_of_run = "refused"
    swept = False

    def __init__(
        self,
        *,
        format: Literal["table", "csv", "md"],
        among: Literal["all", "stages"],
        plot: str | None,
        server_update_interval: PositiveInt,
        align_interval: PositiveInt,
    ) -> None:
        self.format, self.among = format, among
        self.server_update_interval, self.align_interval = server_update_interval, align_interval
        self.plot = user_path(plot, "task.plot") if plot is not None else None
        if self.plot is not None:
            if self.plot.suffix not in (".png", ".pdf", ".svg"):
                raise UserError("plot", plot, "must end in .png, .pdf or .svg")
            if not self.plot.parent.is_dir():
                raise UserError("plot", plot, f"there is no directory {self.plot.parent}")

    def run(self, config: Mapping[str, Any], directory: Path) -> None:
        """See `Task.run`: prints, and writes only the figure that was asked for."""
        parts = Parts(config, sizes_only=True)
        found = self.costs(parts)
        if self.format == "csv":
            _print_csv(found)
        else:
            about = _about(parts, self.server_update_interval, self.align_interval)
            (_print_markdown if self.format == "md" else _print_table)(found, about)
        if self.plot is not None:
            with house_style():
                cut_figure(found).savefig(self.plot)

    def costs(self, parts: Parts) -> list[CutCosts]:
        """Of every cut, in the order of the model's operations."""
        whole, example = parts.model_builder.whole()
        cuts = Cuts(whole, example)
        stages = parts.config["model"]["stages"] or [cut.name for cut in cuts.stages()]
        numbers = {cuts[name].end: number for number, name in enumerate(stages, 1) if name in cuts}
        macs = _multiply_adds(cuts, example)
        given = parts.config["auxiliary"]
        derived = given["_target_"].endswith(f".{DerivedAuxiliary.__name__}")
        options = {key: given[key] for key in ("width", "depth") if derived and key in given}
        population = self._population(parts)
        found = []
        for cut in _outermost(cuts, stages):
            if self.among == "stages" and cut.end not in numbers:
                continue
            halves = divided(cuts, cut)
            z = (sum(map(_values, cut.shapes)),) if len(cut.crossing) > 1 else cut.shapes[0]
            with torch.random.fork_rng():  # only its sizes are looked at
                auxiliary = DerivedAuxiliary(
                    smashed_shape=z,
                    num_classes=parts.data.dataset.num_classes,
                    server=halves.server,
                    crossing=halves.crossing,
                    **options,
                )
            client, server = halves.client.state_dict(), halves.server.state_dict()
            coded_shape = partial(unflattened, halves.client, example)
            load = RoundLoad(
                population=population,
                quantization=built_quantization(parts.config, z, coded_shape),
                smashed_shape=z,
                client=client,
                server=server,
                auxiliary=auxiliary.state_dict(),
            )
            found.append(
                CutCosts(
                    name=cut.name,
                    stage=numbers.get(cut.end),
                    tensors=len(cut.crossing),
                    smashed_bytes=4 * _values(z),
                    client_bytes=_bytes(client),
                    server_bytes=_bytes(server),
                    auxiliary_bytes=_bytes(auxiliary.state_dict()),
                    client_macs=macs[cut.end],
                    server_macs=macs[-1] - macs[cut.end],
                    load={algorithm: load.of(algorithm) for algorithm in ALGORITHMS},
                )
            )
        return found

    def _population(self, parts: Parts) -> Population:
        config = parts.config
        return Population(
            samples=parts.sample_counts,
            cohort=config["cohort_size"] or config["num_clients"],
            batch_size=config["batch_size"],
            local_epochs=config["local_epochs"],
            server_update_interval=self.server_update_interval,
            align_interval=self.align_interval,
            label_bytes=Labels(parts.data.dataset.num_classes).dtype.itemsize,
        )


def _values(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


def _bytes(weights: Weights) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def _outermost(cuts: Cuts, stages: Sequence[str]) -> list[Cut]:
    """Different ones; of several names a stage's, or that of the outermost part."""
    by_end: dict[int, list[Cut]] = {}
    for cut in cuts.possible:
        by_end.setdefault(cut.end, []).append(cut)
    return [
        min(alike, key=lambda cut: (cut.name not in stages, cut.name.count("."))) for alike in by_end.values()
    ]


class _Counting(fx.Interpreter):
    """Runs operations, and notes the multiply-adds after each."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module)
        self.counter, self.after = counter, [0]

    def run_node(self, n: fx.Node) -> Any:
        """See `fx.Interpreter.run_node`."""
        value = super().run_node(n)
        self.after.append(self.counter.get_total_flops() // 2)
        return value


def _multiply_adds(cuts: Cuts, example: Tensor) -> list[int]:
    """For one sample, by how many operations were run."""
    runner = fx.GraphModule(cuts.module, cuts.nodes[0].graph)
    with evaluating(cuts.module), attention_in_products(), FlopCounterMode(display=False) as counter:
        counting = _Counting(runner, counter)
        counting.run(example)
    return [macs // len(example) for macs in counting.after]


# What is printed

_EXACT = (
    "smashed_bytes",
    "client_bytes",
    "server_bytes",
    "auxiliary_bytes",
    "client_macs",
    "server_macs",
)
_SHOWN = ("z", "client", "server", "auxiliary", "client MMAC", "server MMAC", *ALGORITHMS)


def _about(parts: Parts, q: int, l: int) -> str:  # noqa: E741
    config = parts.config
    images = sum(parts.sample_counts)
    cohort = config["cohort_size"] or config["num_clients"]
    coded = config.get("choices", {}).get("quant", "none")
    return (
        "Sizes in MB: one sample's smashed data (z) and the models; auxiliary=derived. Forward multiply-adds "
        f"of one sample in millions. By algorithm, MB a round, up and down: {images:,} images, "
        f"{cohort} of {config['num_clients']} clients a round, batch_size={config['batch_size']}, "
        f"local_epochs={config['local_epochs']}, q={q}, l={l}, quant={coded}."
    )


def _rows(found: Sequence[CutCosts]) -> list[list[str]]:
    return [
        [
            cut.name,
            "" if cut.stage is None else str(cut.stage),
            str(cut.tensors),
            *(_millions(getattr(cut, key)) for key in _EXACT),
            *(_millions(cut.load[algorithm]) for algorithm in ALGORITHMS),
        ]
        for cut in found
    ]


def _millions(number: float) -> str:
    """With three digits that count, or all before the point."""
    millions = number / 1e6
    return f"{millions:,.{max(0, 2 - floor(log10(millions))) if millions else 0}f}"


def _print_csv(found: Sequence[CutCosts]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["cut", "stage", "tensors", *_EXACT, *(f"load_{name}" for name in ALGORITHMS)])
    for cut in found:
        stage = "" if cut.stage is None else cut.stage
        loads = (f"{cut.load[name]:.0f}" for name in ALGORITHMS)
        writer.writerow([cut.name, stage, cut.tensors, *(getattr(cut, key) for key in _EXACT), *loads])


def _print_markdown(found: Sequence[CutCosts], about: str) -> None:
    header = ["cut", "stage", "tensors", *_SHOWN]
    print(f"{about}\n")
    print(f"| {' | '.join(header)} |")
    print("|---" + "|--:" * (len(header) - 1) + "|")
    for row in _rows(found):
        print(f"| {' | '.join(row)} |")


def _print_table(found: Sequence[CutCosts], about: str) -> None:
    table = Table()
    table.add_column("cut", no_wrap=True)
    for column in ("stage", "tensors", *_SHOWN):
        table.add_column(column, justify="right", no_wrap=True)
    for row in _rows(found):
        table.add_row(*row)
    console = Console()
    console.print(about, soft_wrap=True, highlight=False)
    print_table(table, console)
