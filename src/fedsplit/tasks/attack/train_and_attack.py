"""Training of a run and, once it has ended, an attack on it: one job of a study of privacy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from fedsplit.config.run_config import RunConfig
from fedsplit.reports.shown_table import print_table
from fedsplit.tasks.attack.attack import Attack
from fedsplit.tasks.attack.rows import gathered_table
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
    def show_gathered(self, rows: Sequence[Mapping[str, str]]) -> None:
        print_table(gathered_table(rows))
