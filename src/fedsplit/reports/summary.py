"""Summaries of runs for a terminal: a list of runs, and one run with the commands that usually follow it."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from rich.console import Console
from rich.table import Table

from fedsplit.config.commands import command, compare_command, resume_command
from fedsplit.files.paths import display_path
from fedsplit.recording.run_lock import is_locked
from fedsplit.reports.runs import Run
from fedsplit.reports.shown_table import print_table
from fedsplit.reports.tables.measures import Measure, measures
from fedsplit.reports.tables.table import decimals_for

State: TypeAlias = Literal["running", "finished", "stopped"]

_LISTED = ("final_accuracy", "final_perplexity", "load")
_SUMMARISED = (
    *("final_accuracy", "best_accuracy", "final_perplexity", "best_perplexity", "local_accuracy", "load"),
    *("bytes_to_accuracy", "simulated_seconds", "seconds", "client_memory", "held"),
)
_TARGETS = (0.8, 0.9)


def state_of(run: Run) -> State:
    """State of a run: a process writes to its directory, it came to its end, or neither."""
    if is_locked(run.path):
        return "running"
    return "stopped" if run.results is None else "finished"


def list_table(runs: Sequence[Run]) -> Table:
    """Table of runs, a row each, with the columns of which some run has a value."""
    every = [(measure, [measure.of(run) for run in runs]) for measure in measures(_LISTED, ())]
    columns = [(measure, values) for measure, values in every if set(values) != {None}]
    table = Table("Run", "Algorithm", "Model", "Dataset", "Distribution")
    table.add_column("Seed", justify="right")
    table.add_column("Rounds", justify="right")
    for measure, _ in columns:
        table.add_column(measure.title, justify="right")
    table.add_column("State")
    for place, run in enumerate(runs):
        cells = [_cell(measure, values[place], values) for measure, values in columns]
        table.add_row(
            str(display_path(run.path)), *_names(run), str(run.seed), _rounds(run), *cells, state_of(run)
        )
    return table


def summary_table(run: Run) -> Table:
    """Table of one run: what it reached, and what it cost."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("State", state_of(run))
    table.add_row("Seed", str(run.seed))
    table.add_row("Rounds", _rounds(run))
    for measure in measures(_SUMMARISED, _TARGETS):
        value = measure.of(run)
        if value is not None:
            table.add_row(measure.title, _cell(measure, value, [value]))
        elif measure.key.startswith("bytes_to_accuracy") and _has(run, "test_accuracy"):
            table.add_row(measure.title, "not reached")
    return table


def next_commands(run: Run) -> list[tuple[str, str]]:
    """Commands that usually follow a run, each with what it does."""
    if run.results is None:
        return [] if is_locked(run.path) else [("go on", resume_command(run.path))]
    longer = 2 * len(run.columns["round"])
    return [
        ("draw its curves", command(str(display_path(run.path)), name="fedsplit-plot")),
        *_comparison(run),
        ("train for more rounds", f"{resume_command(run.path)} rounds={longer}"),
    ]


def _comparison(run: Run) -> list[tuple[str, str]]:
    """Command that compares precisions; none where clients hold a tail, as such a model is not deployed."""
    if run.values_by_key.get("model.tail_cut", "null") != "null":
        return []
    halves = (file.stem.partition("-") for file in (run.path / "model").glob("*-*.safetensors"))
    own = [int(name) for half, _, name in halves if half in ("client", "server") and name.isdecimal()]
    client = min(own, default=None)
    if client is None:
        return [("compare precisions of its client model", compare_command(run.path))]
    purpose = f"compare precisions of the model of client {client}"
    return [(purpose, compare_command(run.path, f"task.client={client}"))]


def print_summary(run: Run) -> None:
    """Print what a run reached and cost, and the commands that usually follow it."""
    algorithm, model, dataset, distribution = _names(run)
    print(f"{algorithm}: {model} on {dataset} ({distribution})")
    print_table(summary_table(run))
    following = next_commands(run)
    width = max((len(purpose) for purpose, _ in following), default=0)
    for purpose, line in following:
        Console().print(f"{purpose:<{width}}  {line}", markup=False, highlight=False, soft_wrap=True)


def _names(run: Run) -> tuple[str, str, str, str]:
    named = [run.choices.get(group, run.options.get(group, "")) for group in ("model", "dataset")]
    return run.algorithm, named[0], named[1], run.choices.get("distribution", "")


def _rounds(run: Run) -> str:
    ended, asked = len(run.columns["round"]), run.values_by_key.get("rounds", "?")
    return f"{ended} of {asked}"


def _has(run: Run, column: str) -> bool:
    return any(value is not None for value in run.columns.get(column, ()))


def _cell(measure: Measure, value: float | None, column: Sequence[float | None]) -> str:
    if value is None:
        return "-"
    decimals = measure.decimals
    if decimals is None:
        decimals = decimals_for([measure.scale * each for each in column if each is not None])
    return f"{value * measure.scale:,.{decimals}f}"
