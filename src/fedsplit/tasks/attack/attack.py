"""Attacks on a run: what its server, or who sees its messages, can find out about images and labels."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from rich.console import Console
from typing_extensions import override

from fedsplit.building.process import prepare_process
from fedsplit.config.component import Component
from fedsplit.config.run_config import RunConfig
from fedsplit.config.settings import QuantSettings
from fedsplit.config.values import (
    AttackerName,
    CodecName,
    DefenceName,
    HalfPrecision,
    NonNegativeInt,
    PositiveInt,
    PresetName,
)
from fedsplit.deployment.precisions import Int8Backend
from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line
from fedsplit.files.whole import appearing
from fedsplit.inference.deploying import Deploying
from fedsplit.reports.figures.style import house_style
from fedsplit.reports.shown_table import print_table
from fedsplit.tasks.attack.attacker import Attacker, NotExposed
from fedsplit.tasks.attack.channels import Channels, defence_asked_for, quant_settings
from fedsplit.tasks.attack.pictures import leakage_figure, reconstruction_figure, strongest
from fedsplit.tasks.attack.rows import AttackRow, rows_table, write_rows
from fedsplit.tasks.attack.scene import Scene, Scenes
from fedsplit.tasks.attack.victim import AttackedRun, Mode
from fedsplit.tasks.task import Task

_FLOOR = "mean"
_LEAST_TARGETS = 4
_KNOWN = 1500

Model: TypeAlias = Literal["trained", "untrained"]


@dataclass(kw_only=True)
class Attack(Task):
    """Attacks what the clients of a run sent, or would send with another cut, codec or precision.

    Args:
        attackers: names of attackers; `mean`, the floor that nothing is below, is always among them.
        models: `trained`, as the run left it, and `untrained`, as it began.
        cuts: names or numbers of cuts; None: the run's own.
        codecs: names of codecs, or of presets of `quant`; None: the run's own.
        defences: defences of clients, each a name, or a name with keys that are not as by default, as
            `{"gaussian": {"sigma": 0.1}}`; None: the run's own.
        precisions: precisions of client models; deployed ones send what they compute, without a codec.
        mode: mode of the client model: `train` with batch statistics, dropout and augmentation, as in rounds
            of a run; `eval` as in inference.
        adapted: settings to try: with True, attackers that learn from smashed data learn from those that
            went through defence and codec, with False from exact ones.
        known: test images that the attacker has; None: 1,500, or all where there are fewer.
        targets: training images of the clients that are attacked.
        pictures: reconstructions in each row of the pictures; 0: none are written.
        options: the attackers that there are, by name.
    """

    beside: ClassVar[tuple[str, ...] | None] = ("task", "run", "trust", "device", "threads", "progress")
    models_of_run: ClassVar[Literal["refused", "taken", "needed"]] = "needed"
    swept = False

    attackers: list[AttackerName]
    models: list[Model]
    cuts: list[str | PositiveInt] | None
    codecs: list[CodecName | PresetName] | None
    defences: list[DefenceName | dict[str, Any]] | None
    precisions: list[HalfPrecision]
    mode: Mode
    adapted: list[bool]
    known: PositiveInt | None
    targets: PositiveInt
    pictures: NonNegativeInt
    backend: Int8Backend
    calibration_batches: PositiveInt
    calibration_batch_size: PositiveInt
    options: dict[str, dict[str, object]]

    def __post_init__(self) -> None:
        for key in ("models", "cuts", "codecs", "defences", "precisions", "adapted"):
            given = getattr(self, key)
            if given is not None and (not given or len(set(map(str, given))) < len(given)):
                raise UserError(key, given, "must hold at least one, and each only once")
        if self.targets < _LEAST_TARGETS:
            raise UserError(
                "targets",
                self.targets,
                f"must be at least {_LEAST_TARGETS}: distances between them are compared",
            )
        for name in self.attackers:
            if name not in self.options:
                known = ", ".join(self.options)
                message = f"must be one of {known}; another with +attacker@task.options.{name}={name}"
                raise UserError("attackers", name, message)

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        """Print a table, and write to `attack/` in the run's directory.

        What was there is replaced, once all is whole.
        """
        prepare_process(config)
        self.attack(AttackedRun.named_by(config))

    def attack(self, run: AttackedRun) -> None:
        """Attack a run that has ended; see `run`."""
        names = dict.fromkeys([_FLOOR, *self.attackers])
        nodes = {name: Component.of(f"task.options.{name}", self.options[name]) for name in names}
        attackers = [node.build(Attacker) for node in nodes.values()]
        console = Console()
        rows, left_out = self._attack_all(run, attackers, console)
        whole = run.path / "attack"
        with in_one_line("run", run.path, "cannot be written to"), appearing(whole) as partial:
            partial.mkdir()
            write_rows(partial, rows, self._about(run, left_out))
            try:
                self._draw(partial, rows)
            except UserError as error:
                console.print(f"no pictures: {error}", soft_wrap=True, highlight=False, markup=False)
            shutil.rmtree(whole, ignore_errors=True)
        print_table(rows_table(rows), names=3)
        print(whole)

    def _attack_all(
        self, run: AttackedRun, attackers: Sequence[Attacker], console: Console
    ) -> tuple[list[AttackRow], dict[str, str]]:
        """Rows, and attackers that had nothing to work on with the reason."""
        rows: list[AttackRow] = []
        left_out: dict[str, str] = {}

        def take(attacker: Attacker, scene: Scene) -> None:
            began = time.process_time()
            try:
                found = list(attacker.attack(scene))
            except NotExposed as error:
                if attacker.name not in left_out:
                    message = f"{attacker.name} is left out: {error}"
                    console.print(message, soft_wrap=True, highlight=False, markup=False)
                left_out[attacker.name] = str(error)
                return
            seconds = (time.process_time() - began) / max(len(found), 1)
            rows.extend(AttackRow(scene.setting, each, scene.targets.x, seconds) for each in found)

        scenes, channels = self._scenes(run), self._channels(run)
        cuts = [run.cut] if self.cuts is None else [run.find_cut(cut) for cut in self.cuts]
        for cut in dict.fromkeys(cuts):
            for model in self.models:
                victim = run.victim(cut, trained=model == "trained")
                for scene in scenes.of(victim, channels.of(victim)):
                    for attacker in attackers:
                        if not attacker.of_a_run:
                            take(attacker, scene)
        if of_the_run := [attacker for attacker in attackers if attacker.of_a_run]:
            victim = run.victim(run.cut, trained=True)
            (scene,) = scenes.of(victim, [channels.of_the_run(victim)])
            for attacker in of_the_run:
                take(attacker, scene)
        return rows, left_out

    def _draw(self, folder: Path, rows: Sequence[AttackRow]) -> None:
        """Write a figure of all settings and, for each cut, one of images; `UserError` where none can be."""
        cuts = dict.fromkeys((row.setting.cut, row.setting.model) for row in rows) if self.pictures else ()
        with house_style():
            if len(strongest(rows)) > 1:  # one point says less than the table
                leakage_figure(rows).savefig(folder / "leakage.png")
            for cut, model in cuts:
                own = [row for row in rows if (row.setting.cut, row.setting.model) == (cut, model)]
                drawn = reconstruction_figure(own[0].originals[: self.pictures], own)
                drawn.savefig(
                    folder / f"reconstructions-{cut}{'-untrained' if model == 'untrained' else ''}.png"
                )

    def _scenes(self, run: AttackedRun) -> Scenes:
        known = min(_KNOWN, len(run.dataset.test)) if self.known is None else self.known
        return Scenes(run, self.mode, self.adapted, run.draw_known(known), run.targets(self.targets))

    def ways(self) -> tuple[dict[str, QuantSettings] | None, dict[str, Component] | None]:
        """Codecs and defences that are asked for, by name; None where only the run's own are.

        Raises:
            UserError: a defence has no such name or key, or a key no such value.
        """
        codecs = None if self.codecs is None else {name: quant_settings(name) for name in self.codecs}
        defences = None if self.defences is None else dict(map(defence_asked_for, self.defences))
        return codecs, defences

    def _channels(self, run: AttackedRun) -> Channels:
        codecs, defences = self.ways()
        batches, of_batch = self.calibration_batches, self.calibration_batch_size
        deploying = Deploying(self.backend, batches, of_batch, run.seed)
        return Channels(run.config, codecs, defences, self.precisions, deploying)

    def _about(self, run: AttackedRun, left_out: dict[str, str]) -> dict[str, object]:
        choices = run.config.choices
        return {
            "run": str(run.path),
            **{group: choices.get(group) for group in ("algorithm", "model", "dataset")},
            "cut": run.cut,
            "defence": run.config.defence.plain(),
            "uploads_smashed_data": run.uploads_smashed_data,
            "batch_size": run.config.training.batch_size,
            "threads": run.config.computation.threads,
            "left_out": left_out,
        }
