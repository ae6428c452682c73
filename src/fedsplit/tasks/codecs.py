"""Comparison of codecs on a model's own tensors."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from typing_extensions import override

from fedsplit.building.models import refuse_tail
from fedsplit.building.parts import ClientParts
from fedsplit.building.process import prepare_process
from fedsplit.building.quantization import build_codec, codec_at_cut
from fedsplit.building.run import build_clients
from fedsplit.computing.model_state import ModelState
from fedsplit.config.run_config import RunConfig
from fedsplit.config.settings import CodecChoice
from fedsplit.config.values import PositiveInt
from fedsplit.errors import RunFailed, UserError
from fedsplit.parties.local_rule import LocalRule
from fedsplit.parties.local_step import descend_body, train_head
from fedsplit.quant.survey import Survey, survey
from fedsplit.randomness import seed_of
from fedsplit.reports.shown_table import print_table
from fedsplit.tasks.task import Task


@dataclass(kw_only=True)
class Codecs(Task):
    """Trains the split model on the first client's data for some steps, then codes what crosses the cut.

    Args:
        steps: local steps to train.
        samples: samples whose smashed data and cut gradients are taken, those trained on last; of texts,
            positions.
        repeats: encodings and decodings that a speed is the median of.
    """

    models_of_run = "refused"
    swept = False

    steps: PositiveInt
    samples: PositiveInt
    repeats: PositiveInt
    codecs: dict[str, dict[str, object]]

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        """Print a table for each kind of tensor, and write nothing."""
        prepare_process(config)
        parts = build_clients(config)
        choices = {name: CodecChoice.of(f"task.codecs.{name}", node) for name, node in self.codecs.items()}
        plain = {name: build_codec(choice) for name, choice in choices.items()}
        models = parts.models
        seen = {
            name: codec_at_cut(choice, models.smashed_shape, lambda: models.coded_shape)
            for name, choice in choices.items()
        }
        codecs = {True: seen, False: plain}
        tensors = self.tensors(parts)
        console = Console()
        console.print(
            f"After {self.steps} local steps. Bits a value as packed, with zstandard behind, and the order-0 "
            "entropy of the codes; SQNR in dB; speeds in MB of float32 values a second, median of "
            f"{self.repeats}, threads={config.computation.threads}.",
            soft_wrap=True,
        )
        for title, x, at_cut in tensors:
            table = Table()
            table.add_column("codec", no_wrap=True)
            for column in ("bits", "with zstd", "entropy", "SQNR", "encode", "decode"):
                table.add_column(column, justify="right", no_wrap=True)
            for name, codec in codecs[at_cut].items():
                table.add_row(name, *_cells(survey(codec, x, self.repeats)))
            zeros = float((x == 0).float().mean())
            console.print(f"\n{title} {tuple(x.shape)}, {zeros:.0%} zeros", soft_wrap=True, highlight=False)
            print_table(table, console)

    def tensors(self, parts: ClientParts) -> list[tuple[str, Tensor, bool]]:
        """Title, tensor, and whether it crosses the cut, of each kind."""
        refuse_tail(parts.config, "with task=codecs, which looks at one cut")
        body = ModelState(parts.models.halves.client, parts.client_optimizer)
        head = ModelState(parts.models.halves.server, parts.server_optimizer)
        batches = parts.batches(0)
        smashed: list[Tensor] = []
        gradients: list[Tensor] = []
        before, packed = body.weights(), parts.quantization.positions.pack
        seed, objective = parts.config.training.seed, parts.data.dataset.objective
        every = (batch for epoch in count() for batch in batches.round(epoch))
        for number, (step, x, y) in zip(range(self.steps), every, strict=False):
            dropout = seed_of(seed, "dropout of a look at codecs", step=number)
            if step == 0:
                before = body.weights()
            z = body.forward(x, seed=dropout)
            done = train_head(head, objective, z, y, learning_rate_factor=1.0, seed=dropout)
            descend_body(body, x, z, done.dz, rule=LocalRule(), learning_rate_factor=1.0)
            smashed = [*smashed, packed(z.detach(), y)][-self.samples :]
            gradients = [*gradients, packed(done.dz, y)][-self.samples :]
        for kind, found in (("smashed data", smashed), ("cut gradients", gradients)):
            if not all(torch.isfinite(each).all() for each in found):
                raise RunFailed(f"{kind} are not finite after {self.steps} steps; lower the learning rate")
        seen = sum(len(each) for each in smashed)
        if seen < self.samples:
            raise UserError(
                "task.samples",
                self.samples,
                f"must be at most {seen}, the samples of task.steps={self.steps}",
            )
        moved = {name: tensor - before[name] for name, tensor in body.weights().items()}
        tensors = [
            ("smashed data", torch.cat(smashed)[-self.samples :].contiguous(), True),
            ("cut gradients", torch.cat(gradients)[-self.samples :].contiguous(), True),
        ]
        larger = [name for name, each in moved.items() if each.ndim > 1]
        if larger:
            largest = max(larger, key=lambda name: moved[name].numel())
            tensors.append((f"{largest}, what the last pass moved", moved[largest], False))
        return tensors


def _cells(found: Survey) -> tuple[str, ...]:
    bits = (found.bits, found.compressed_bits, found.entropy)
    speeds = (f"{speed:,.0f}" for speed in (found.encode_mb_s, found.decode_mb_s))
    return *("" if each is None else f"{each:.2f}" for each in bits), f"{found.sqnr:.1f}", *speeds
