"""Texts of a trained language model for the contexts of the test split, and their scores."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor
from typing_extensions import override

from fedsplit.building.process import prepare_process
from fedsplit.building.trained import TrainedRun
from fedsplit.computing.computation import outputs_at
from fedsplit.config.run_config import RunConfig
from fedsplit.config.values import PositiveInt
from fedsplit.files.paths import in_one_line
from fedsplit.files.whole import appearing, write_json
from fedsplit.generation.writer import GeneratedTexts, Writer, build_prompts
from fedsplit.recording.text_scores import SCORE_TITLES
from fedsplit.reports.shown_table import print_table
from fedsplit.tasks.task import Task


@dataclass(kw_only=True)
class Generate(Task):
    """Continues the contexts of the test split through the split model of a run, and scores the texts.

    Args:
        beams: likely texts that each step keeps; with 1 each token is the likeliest.
        max_tokens: most tokens of a text.
        samples: contexts, evenly spaced; None takes all.
        batch_size: contexts at a time.
    """

    beside = ("task", "run", "trust", "device", "threads")
    models_of_run = "needed"
    swept = False

    beams: PositiveInt
    max_tokens: PositiveInt
    samples: PositiveInt | None
    batch_size: PositiveInt

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        """Print a table, and write to `generate/` in the run's directory.

        What was there is replaced, once all is whole.
        """
        prepare_process(config)
        trained = TrainedRun.named_by(config)
        prompts = build_prompts(trained.config.dataset, self.samples, key="run", value=config.origin.run)
        writer = Writer(
            prompts=prompts, max_tokens=self.max_tokens, batch_size=self.batch_size, beams=self.beams
        )

        def logits(ids: Tensor, at: Tensor) -> Tensor:
            z = trained.client(ids).to(trained.parts.device)
            return outputs_at(trained.server, trained.server, z, at.to(z.device))

        with torch.inference_mode():
            written = writer.write(logits)
        place = trained.path / "generate"
        with in_one_line("run", trained.path, "cannot be written to"), appearing(place) as partial:
            partial.mkdir()
            (partial / "texts.jsonl").write_bytes(written.lines())
            asked = {"beams": self.beams, "max_tokens": self.max_tokens}
            write_json(partial / "generate.json", {**asked, **written.results()})
            shutil.rmtree(place, ignore_errors=True)
        print_table(_table(written))
        print(place)


def _table(written: GeneratedTexts) -> Table:
    """The scores that there are."""
    table = Table()
    scores = {SCORE_TITLES[name]: value for name, value in asdict(written.scores).items()}
    shown = {title: value for title, value in scores.items() if value is not None}
    for title in ("texts", *shown):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_row(str(len(written.texts)), *(f"{value:.4g}" for value in shown.values()))
    return table
