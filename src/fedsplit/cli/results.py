"""Results of a run, for Python."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fedsplit.config.dotted_keys import leaves
from fedsplit.config.values import Plain
from fedsplit.errors import UserError
from fedsplit.files.bounded import Damage, csv_table, number, parse_whole_number
from fedsplit.files.paths import user_path
from fedsplit.reports.runs import read_run, runs_at

if TYPE_CHECKING:
    import pandas
    from torch import Tensor


@dataclass(frozen=True)
class RunResults:
    """A run read back from its directory.

    Args:
        config: configuration, as in its `config.yaml`; `choices` names the choice of each group.
        metrics: a row of `metrics.csv` a round, by column: numbers, None where there was nothing to measure;
            loads and bytes in bytes, and `left_out`, clients that a round went on without, is a text.
        results: results, as in its `results.json`; None where the run has not ended.
    """

    directory: Path
    config: Plain = field(repr=False)
    metrics: list[dict[str, object]] = field(repr=False)
    results: Plain | None = field(repr=False)

    @cached_property
    def settings(self) -> Mapping[str, object]:
        """Every setting by its dotted key, and each group's choice by the group: columns of a frame."""
        config = {key: value for key, value in self.config.items() if key != "choices"}
        chosen = {place.rpartition("@")[2]: choice for place, choice in self.config["choices"].items()}
        return {**dict(leaves(config)), **chosen}

    @cached_property
    def models(self) -> "Mapping[str, Mapping[str, Tensor]]":
        """State dicts of the trained models on the CPU: `client`, `server`, and what else the run has.

        Empty where the run has not ended.

        Raises:
            UserError: a file is damaged, or holds what is no number.
        """
        from fedsplit.recording.run_directory import RunDirectory  # noqa: PLC0415  (imports torch)

        run = RunDirectory.existing(self.directory, "run")
        names = sorted(path.stem for path in self.directory.glob("model/*.safetensors"))
        return {name: run.model(name) for name in names}

    def to_pandas(self) -> "pandas.DataFrame":
        """The metrics as a frame, a row a round; `UserError` where pandas is not installed."""
        try:
            import pandas  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise UserError("to_pandas", "pandas", "is not installed: pip install pandas") from error
        return pandas.DataFrame(self.metrics)


def load_run(path: str | Path) -> RunResults:
    """Results that the run in a directory has left so far.

    Raises:
        UserError: the directory is not that of a run, or one of its files is damaged.
    """
    directory = user_path(path, "run").absolute()
    run = read_run(directory)
    try:
        metrics = [
            {column: _value(column, cell) for column, cell in row.items()}
            for _, row in csv_table(directory / "metrics.csv")[1]
        ]
    except (Damage, OSError, ValueError) as error:
        raise UserError("run", directory, f"metrics.csv must not be damaged ({error})") from error
    return RunResults(directory, run.config, metrics, run.results)


def load_runs(*places: str | Path) -> list[RunResults]:
    """Results of all runs in or below folders, such as a sweep's, in alphabetical order.

    Args:
        places: directories of runs, folders of such, or globs.

    Raises:
        UserError: there is no run at a place, or one cannot be read.
    """
    found: dict[Path, None] = {}
    for place in places:
        there = runs_at(str(place), "run").runs
        if not there:
            raise UserError("run", place, "holds no run, with config.yaml and metrics.csv")
        found |= dict.fromkeys(path.absolute() for path in there)
    return [load_run(path) for path in sorted(found)]


def _value(column: str, cell: str) -> object:
    if column == "left_out":
        return cell
    if cell == "":
        return None
    return parse_whole_number(cell) if cell.isdecimal() else number(cell)
