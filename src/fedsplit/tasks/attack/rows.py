"""Rows of what attackers found out: as CSV, JSON, and a table for a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text
from torch import Tensor

from fedsplit.errors import UserError
from fedsplit.files.bounded import number
from fedsplit.files.whole import write_csv, write_json
from fedsplit.tasks.attack.attacker import Finding
from fedsplit.tasks.attack.measures import SampleMean
from fedsplit.tasks.attack.scene import Setting


@dataclass(frozen=True)
class AttackRow:
    """Findings of one attacker in one setting.

    Args:
        originals: targets, `(n, c, h, w)`.
        seconds: seconds of processor time that it took.
    """

    setting: Setting
    finding: Finding
    originals: Tensor = field(repr=False, compare=False)
    seconds: float

    def plain(self) -> dict[str, object]:
        """Values as CSV and JSON hold them, by column."""
        found = self.finding
        return {
            "attacker": found.attacker,
            "way": found.way,
            "adapted": found.adapted,
            "epochs": found.epochs,
            **vars(self.setting),
            **_estimate("psnr", found.psnr),
            **_estimate("ssim", found.ssim),
            **_estimate("reidentified", found.reidentified),
            **_estimate("label_accuracy", found.label_accuracy),
            "label_auc": found.label_auc,
        }


def _estimate(name: str, estimate: SampleMean | None) -> dict[str, object]:
    mean, error = (None, None) if estimate is None else (estimate.mean, estimate.standard_error)
    return {name: mean, f"{name}_se": error}


def write_rows(folder: Path, rows: Sequence[AttackRow], about: Mapping[str, object]) -> None:
    """Write `attack.csv`, the same bytes for the same run and seed, and `attack.json` with what is not."""
    others = dict.fromkeys(name for row in rows for name in row.finding.others)
    plain = [{**row.plain(), **others, **row.finding.others} for row in rows]
    write_csv(folder / "attack.csv", list(plain[0]), (list(each.values()) for each in plain))
    timed = [{**each, "cpu_seconds": row.seconds} for each, row in zip(plain, rows, strict=True)]
    write_json(folder / "attack.json", {**about, "rows": timed})


def rows_table(rows: Sequence[AttackRow]) -> Table:
    """Table of rows for a terminal, with the columns in which an attacker has something."""
    table = Table()
    for name in ("cut", "sent as", "attacker"):
        table.add_column(name, no_wrap=True)
    for name in ("PSNR dB", "SSIM", "re-id. %", "labels %", "AUC", "dCor²", "bytes", "accuracy %"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        setting, found = row.setting, row.finding
        table.add_row(
            setting.cut + (" *" if setting.recut else ""),
            setting.title,
            found.title,
            _show(found.psnr, 2),
            _show(found.ssim, 3),
            _show(found.reidentified, 1, 100),
            _show(found.label_accuracy, 1, 100),
            "" if found.label_auc is None else f"{found.label_auc:.3f}",
            f"{setting.distance_correlation:.3f}",
            f"{setting.bytes_per_sample:,.0f}",
            f"{100 * setting.test_accuracy:.1f}",
        )
    table.columns = [column for column in table.columns if any(column.cells)]
    if any(row.setting.recut for row in rows):
        table.caption = "* the run's model, cut where it did not train with a cut"
    return table


def gathered_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """Table for a terminal of the best attacker of each job, cut and way, from rows that a sweep gathered.

    Args:
        rows: cells by column of `attack.csv`, after those of the job.

    Returns:
        A line for each job, cut and way, with the attacker whose reconstructions have the highest SSIM.

    Raises:
        UserError: a cell is missing, or holds no number where one must be.
    """
    try:
        return _table_of_best(rows)
    except (KeyError, ValueError) as error:
        raise UserError("hydra.sweep.dir", "attack.csv", f"is damaged: {error}") from error


def _table_of_best(rows: Sequence[Mapping[str, str]]) -> Table:
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        if row.get("ssim"):
            key = tuple(
                row.get(name, "") for name in ("job", "cut", "model", "defence", "codec", "precision")
            )
            groups.setdefault(key, []).append(row)
    table = Table()
    for name in ("job", "cut", "defence", "sent as", "attacker"):
        table.add_column(name, no_wrap=True)
    for name in ("PSNR dB", "SSIM", "re-id. %", "dCor²", "bytes", "accuracy %"):
        table.add_column(name, justify="right", no_wrap=True)
    for (job, cut, _, defence, codec, precision), of_a_way in groups.items():
        best = max(of_a_way, key=lambda row: number(row["ssim"]))
        table.add_row(
            *map(Text, (job, cut, defence, precision if codec == "device" else codec, best["attacker"])),
            f"{number(best['psnr']):.2f}",
            f"{number(best['ssim']):.3f}",
            f"{100 * number(best['reidentified']):.1f}",
            f"{number(best['distance_correlation']):.3f}",
            f"{number(best['bytes_per_sample']):,.0f}",
            f"{100 * number(best['test_accuracy']):.1f}",
        )
    return table


def _show(estimate: SampleMean | None, decimals: int, scale: float = 1) -> str:
    return "" if estimate is None else f"{scale * estimate.mean:.{decimals}f}"
