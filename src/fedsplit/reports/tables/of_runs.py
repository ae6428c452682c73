"""From runs to a table: a row for all runs that differ only in their seed."""

from collections.abc import Sequence

from fedsplit.reports.figures.groups import Group, over_seeds
from fedsplit.reports.runs import Run
from fedsplit.reports.tables.measures import Measure, measures, usual
from fedsplit.reports.tables.request import TableRequest
from fedsplit.reports.tables.table import Column, Estimate, Row, Table, decimals_for


def table_of(
    request: TableRequest, runs: Sequence[Run], *, name: str, title: str, description: str = ""
) -> Table:
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
    return Table(name, title, description, tuple(columns), tuple(rows), tuple(runs))


def _estimate(measure: Measure, group: Group) -> Estimate:
    found = [measure.of(run) for run in group.runs]
    return Estimate(tuple(each for each in found if each is not None), len(group.runs))


def _column(measure: Measure, cells: Sequence[Estimate]) -> Column:
    shown = [measure.scale * cell.mean for cell in cells if cell.mean is not None]
    decimals = decimals_for(shown) if measure.decimals is None else measure.decimals
    return Column(measure.key, measure.title, measure.better, measure.scale, decimals)
