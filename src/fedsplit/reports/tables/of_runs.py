"""What a table is asked for, as `exp_configs.yaml` says it, and how it is made of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedsplit.config.values import Share, fits
from fedsplit.errors import UserError
from fedsplit.reports.figures.groups import Group, over_seeds
from fedsplit.reports.runs import Run
from fedsplit.reports.tables.measures import NAMES, TO_ACCURACY, Measure, measures, usual
from fedsplit.reports.tables.table import Estimate, Row, Table, decimals_for

KEYS = ("targets", "columns")


@dataclass(frozen=True)
class TableRequest:
    """A table to be made.

    Args:
        targets: accuracies to be reached, as fractions.
        columns: see `measures.NAMES`; None: the usual ones, where a run has them.
    """

    targets: tuple[float, ...] = ()
    columns: tuple[str, ...] | None = None


def table_request(name: str, entry: object) -> TableRequest:
    """What the key `table` of an experiment asks for.

    Raises:
        UserError: something in it is wrong.
    """
    key = f"{name}.table"
    if not isinstance(entry, Mapping):
        raise UserError(key, entry, f"must be {{}} or have keys of {', '.join(KEYS)}")
    for each in entry:
        if each not in KEYS:
            raise UserError(f"{key}.{each}", entry[each], f"no such key; known: {', '.join(KEYS)}")
    reached = _targets(f"{key}.targets", entry["targets"]) if "targets" in entry else ()
    columns = _columns(f"{key}.columns", entry["columns"]) if "columns" in entry else None
    for column in columns or ():
        if column in TO_ACCURACY and not reached:
            raise UserError(f"{key}.columns", column, f"needs accuracies to be reached, in {key}.targets")
    return TableRequest(reached, columns)


def _targets(key: str, entry: object) -> tuple[float, ...]:
    told = "must be a list of different accuracies above 0, at most 1, as [0.8, 0.9]"
    if not isinstance(entry, list) or not fits(list[Share], entry):
        raise UserError(key, entry, told)
    if len({f"{each:g}" for each in entry}) < len(entry):  # they name columns
        raise UserError(key, entry, told)
    return tuple(map(float, entry))


def _columns(key: str, entry: object) -> tuple[str, ...]:
    if not isinstance(entry, list) or not entry:
        raise UserError(key, entry, f"must be a list of {', '.join(NAMES)}")
    for i, each in enumerate(entry):
        if each not in NAMES:
            raise UserError(key, each, f"must be among {', '.join(NAMES)}")
        if each in entry[:i]:
            raise UserError(key, each, "must be named once")
    return tuple(entry)


def table_of(request: TableRequest, runs: Sequence[Run], *, name: str, title: str) -> Table:
    """The table that is asked for; of each setting and seed there must be one run (see `without_repeats`)."""
    groups = over_seeds(runs)
    wanted = measures(usual(runs) if request.columns is None else request.columns, request.targets)
    cells = [[_estimate(measure, group) for group in groups] for measure in wanted]
    if request.columns is None:
        means = [{cell.mean for cell in column if cell.mean is not None} for column in cells]
        # what is neither good nor bad is worth a column only where rows differ
        kept = [place for place, measure in enumerate(wanted) if measure.better or len(means[place]) > 1]
        wanted, cells = [wanted[place] for place in kept], [cells[place] for place in kept]
    rows = [
        Row(group.hue, group.setting, group.seeds, tuple(column[place] for column in cells))
        for place, group in enumerate(groups)
    ]
    columns = [_column(measure, column) for measure, column in zip(wanted, cells, strict=True)]
    return Table(name, title, tuple(columns), tuple(rows), tuple(runs))


def _estimate(measure: Measure, group: Group) -> Estimate:
    found = [measure.of(run) for run in group.runs]
    return Estimate(tuple(each for each in found if each is not None), len(group.runs))


def _column(measure: Measure, cells: Sequence[Estimate]) -> Measure:
    """The measure, with its decimals."""
    shown = [measure.scale * cell.mean for cell in cells if cell.mean is not None]
    return replace(measure, decimals=decimals_for(shown)) if measure.decimals is None else measure
