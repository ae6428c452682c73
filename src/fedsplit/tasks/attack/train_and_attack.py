"""Training of a run and, once it has ended, an attack on it: one job of a study of privacy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line
from fedsplit.files.whole import appearing
from fedsplit.reports.figures.style import encode_figure, house_style
from fedsplit.reports.shown_table import print_table
from fedsplit.tasks.attack.attack import Attack
from fedsplit.tasks.attack.rows import gathered_table
from fedsplit.tasks.attack.study_figure import study_figure
from fedsplit.tasks.attack.victim import AttackedRun
from fedsplit.tasks.train import Train


@dataclass(kw_only=True)
class TrainAndAttack(Attack):
    """A run of the algorithm and the attack on it, which have the arguments of `Attack`."""

    beside = None
    models_of_run = "taken"
    swept = True
    gathered = "attack/attack.csv"
    counts_rounds = True
    announces = "{algorithm}: {model} on {dataset} ({distribution}), then attacked"

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        self.ways()  # what cannot be is refused before hours of training
        Train().run(config, directory)
        self.follow(config, directory)

    @override
    def follow(self, config: RunConfig, directory: Path) -> None:
        self.attack(AttackedRun(directory, config))

    @override
    def show_gathered(self, rows: Sequence[Mapping[str, str]], directory: Path) -> None:
        print_table(gathered_table(rows), names=5)
        if any(row.get("psnr") for row in rows):
            self._draw_study(rows, directory / "attack.png")

    def _draw_study(self, rows: Sequence[Mapping[str, str]], path: Path) -> None:
        try:
            with house_style():
                image = encode_figure(study_figure(rows), "png")
        except UserError as error:
            print(f"no figure: {error}")
            return
        with in_one_line("hydra.sweep.dir", path.parent, "cannot be written to"), appearing(path) as partial:
            partial.write_bytes(image)
