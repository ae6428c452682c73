"""Costs of each cut of a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from typing_extensions import override

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.algorithms.round_load import Population, RoundLoad
from fedsplit.building.client_cost import build_client_cost
from fedsplit.building.models import build_whole_model, refuse_tail
from fedsplit.building.parts import ClientParts
from fedsplit.building.process import prepare_process
from fedsplit.building.quantization import build_quantization
from fedsplit.building.run import build_clients
from fedsplit.computing.layout import unflattened_shape
from fedsplit.computing.model_state import travelling_tensors
from fedsplit.computing.multiply_adds import MultiplyAdds, attention_in_products
from fedsplit.config.choices import target_of
from fedsplit.config.component import import_target, is_class
from fedsplit.config.run_config import RunConfig
from fedsplit.config.traits import algorithm_traits
from fedsplit.config.values import PositiveInt
from fedsplit.errors import UserError
from fedsplit.files.paths import user_path
from fedsplit.machine.progress import track
from fedsplit.models.derived import DerivedAuxiliary
from fedsplit.models.splitting.cuts import Cut, Cuts, evaluating
from fedsplit.models.splitting.probed import ProbedCut, ProbedCuts
from fedsplit.models.splitting.probing import probe
from fedsplit.models.splitting.split import SplitModel, divide, find_cuts
from fedsplit.reports.figures.style import house_style
from fedsplit.state.weights import Weights
from fedsplit.tasks.cuts.costs import (
    CutCosts,
    column_names,
    cut_figure,
    print_csv,
    print_markdown,
    print_shown,
)
from fedsplit.tasks.task import Task


@dataclass(kw_only=True)
class CutTable(Task):
    """Prints for each cut what crosses it, what each side holds and computes, and each algorithm's load.

    Args:
        format: format of what is printed; csv has whole bytes and multiply-adds, the others millions.
        among: all cuts, or the model's stages only.
        columns: names as in the CSV; None takes all, of which a terminal shows the most important that fit.
        plot: file for a figure of load against the client's computation (png, pdf or svg); None draws none.
        server_update_interval: q of CSE-FSL and FSL-SAGE.
        align_interval: l of FSL-SAGE.
    """

    models_of_run = "refused"
    swept = False

    format: Literal["table", "csv", "md"]
    among: Literal["all", "stages"]
    columns: list[str] | None
    plot: str | None
    server_update_interval: PositiveInt
    align_interval: PositiveInt

    def __post_init__(self) -> None:
        known = column_names(list(algorithm_traits()))
        for column in self.columns or ():
            if column not in known:
                raise UserError("columns", column, f"must be among {', '.join(known)}")
        self.file = user_path(self.plot, "task.plot") if self.plot is not None else None
        if self.file is not None:
            if self.file.suffix not in (".png", ".pdf", ".svg"):
                raise UserError("plot", self.plot, "must end in .png, .pdf or .svg")
            if not self.file.parent.is_dir():
                raise UserError("plot", self.plot, f"there is no directory {self.file.parent}")

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        """Print a table of cuts, and write only the figure that was asked for."""
        prepare_process(config)
        parts = build_clients(config, sizes_only=True)
        found = self.costs(parts)
        about = _about(parts, self.server_update_interval, self.align_interval)
        columns = self.columns or column_names(list(found[0].load) if found else [])
        if self.format == "csv":
            print_csv(found, columns)
        elif self.format == "md":
            print_markdown(found, columns, about)
        else:
            print_shown(found, self.columns, about, config.choice("algorithm"))
        if self.file is not None:
            with house_style():
                cut_figure(found).savefig(self.file)

    def costs(self, parts: ClientParts) -> list[CutCosts]:
        """Costs of every cut, in the order of the model's operations."""
        refuse_tail(parts.config, "with task=cuts, which tries one cut after the other")
        whole, example = build_whole_model(parts.config, parts.data, parts.device)
        cuts = find_cuts(whole, example)
        stages = parts.config.splitting.stages or [cut.name for cut in cuts.stages()]
        numbers = {cuts[name].end: number for number, name in enumerate(stages, 1) if name in cuts}
        macs = multiply_adds_after(cuts, example)
        given = parts.config.auxiliary
        derived = given.target.endswith(f".{DerivedAuxiliary.__name__}")
        options: Any = {
            key: given.arguments[key] for key in ("width", "depth") if derived and key in given.arguments
        }
        population = self._population(parts)
        algorithms = _algorithms()
        found = []
        for cut in track(_outermost(cuts.possible, stages), "measuring cuts"):
            if self.among == "stages" and cut.end not in numbers:
                continue
            halves = divide(cuts, cut)
            shapes = halves.crossing
            z = (sum(map(_values, shapes)),) if len(shapes) > 1 else shapes[0]
            with torch.random.fork_rng():  # only its sizes are looked at
                auxiliary = DerivedAuxiliary(
                    smashed_shape=z,
                    num_classes=parts.data.dataset.num_classes,
                    server=halves.server,
                    crossing=halves.crossing,
                    **options,
                )
            head = _head(parts, halves, auxiliary.to(example.device), z)
            blueprint = replace(parts.engine.blueprint, body=halves.client, head=head, head_sees=None)
            cost = build_client_cost(parts, blueprint, trains_head=not parts.estimates)
            client, server = travelling_tensors(halves.client), travelling_tensors(halves.server)
            coded_shape = partial(unflattened_shape, halves.client, example)
            terms = RoundLoad(
                population=population,
                quantization=build_quantization(parts.config, z, coded_shape, parts.data.dataset.objective),
                smashed_shape=z,
                client=client,
                server=server,
                auxiliary=travelling_tensors(auxiliary),
                buffers={name for half in (halves.client, halves.server) for name, _ in half.named_buffers()},
            )
            loads = {name: algorithm.round_load(terms) for name, algorithm in algorithms.items()}
            found.append(
                CutCosts(
                    name=cut.name,
                    stage=numbers.get(cut.end),
                    tensors=len(shapes),
                    smashed_bytes=4 * _values(z),
                    client_bytes=_bytes(client),
                    server_bytes=_bytes(server),
                    auxiliary_bytes=_bytes(travelling_tensors(auxiliary)),
                    client_macs=macs[cut.end],
                    server_macs=macs[-1] - macs[cut.end],
                    memory_bytes=cost.memory,
                    held_bytes=cost.waiting,
                    load={name: load for name, load in loads.items() if load is not None},
                )
            )
        return found

    def _population(self, parts: ClientParts) -> Population:
        training, dataset = parts.config.training, parts.data.dataset
        padded = parts.quantization.positions.lengths is not None
        return Population(
            samples=parts.sample_counts,
            cohort=parts.config.population.cohort,
            batch_size=training.batch_size,
            local_epochs=training.local_epochs,
            server_update_interval=self.server_update_interval,
            align_interval=self.align_interval,
            labels=dataset.objective.labels(),
            positions=parts.data.positions if padded else None,
        )


def _head(
    parts: ClientParts, halves: SplitModel, auxiliary: nn.Module, z: tuple[int, ...]
) -> nn.Module | None:
    """Model that a client of the configuration's algorithm holds behind its client model, at this cut."""
    match parts.algorithm_class.client_head:
        case "none":
            return None
        case "server":
            return halves.server
        case "auxiliary":
            return auxiliary
        case "estimator":
            objective = parts.data.dataset.objective
            return parts.estimator.model(auxiliary, smashed_shape=z, objective=objective)


def _algorithms() -> dict[str, type[Algorithm]]:
    """All that can be chosen, in the order of tables."""
    found = {}
    for name in algorithm_traits():
        target = target_of("algorithm", name) or ""
        if not is_class(f"algorithm/{name}.yaml: _target_", target, Algorithm):
            raise UserError(f"algorithm/{name}.yaml: _target_", target, "must be an Algorithm")
        found[name] = import_target("algorithm", target)
    return found


def _values(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


def _bytes(weights: Weights) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def _outermost(possible: Sequence[Cut | ProbedCut], stages: Sequence[str]) -> list[Cut | ProbedCut]:
    """Different ones; of several names a stage's, or that of the outermost part."""
    by_end: dict[int, list[Cut | ProbedCut]] = {}
    for cut in possible:
        by_end.setdefault(cut.end, []).append(cut)
    return [
        min(alike, key=lambda cut: (cut.name not in stages, cut.name.count("."))) for alike in by_end.values()
    ]


def _about(parts: ClientParts, q: int, l: int) -> str:  # noqa: E741
    population, training = parts.config.population, parts.config.training
    images = sum(parts.sample_counts)
    coded = parts.config.choices.get("quant", "none")
    return (
        "Sizes in MB: one sample's smashed data (z) and the models; auxiliary=derived. Forward multiply-adds "
        f"of one sample in millions. By algorithm, MB a round, up and down: {images:,} images, "
        f"{population.cohort} of {population.num_clients} clients a round, batch_size={training.batch_size}, "
        f"local_epochs={training.local_epochs}, q={q}, l={l}, quant={coded}."
    )


class _Counting(fx.Interpreter):
    """Runs operations, and notes the multiply-adds after each."""

    def __init__(self, module: fx.GraphModule, counter: MultiplyAdds) -> None:
        super().__init__(module)
        self.counter, self.after = counter, [0]

    @override
    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.after.append(self.counter.total)
        return value


def multiply_adds_after(cuts: Cuts | ProbedCuts, example: Tensor) -> list[int]:
    """Multiply-adds of a forward pass for one example of `(n, ...)`, after no operation, one, ..."""
    counter = MultiplyAdds()
    if isinstance(cuts, ProbedCuts):
        after = [0]
        with attention_in_products(), counter:
            probe(cuts.module, example, lambda: after.append(counter.total))
        return [macs // len(example) for macs in after]
    runner = fx.GraphModule(cuts.module, cuts.nodes[0].graph)
    with evaluating(cuts.module), attention_in_products(), counter:
        counting = _Counting(runner, counter)
        counting.run(example)
    return [macs // len(example) for macs in counting.after]
