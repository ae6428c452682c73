"""Values read from a run's `metrics.csv`: progress, metrics, and a metric at one moment."""

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Annotated, Literal, TypeAlias, get_args

from fedsplit.config.values import Range
from fedsplit.errors import UserError
from fedsplit.recording.text_scores import SCORE_TITLES
from fedsplit.reports.runs import Run

Progress: TypeAlias = Literal["round", "load", "simulated_seconds", "seconds"]
"""Quantity that a run uses up: rounds, MB (10^6 bytes), seconds on the simulated network, seconds."""
_PROGRESS: tuple[str, ...] = get_args(Progress)
_MOMENT = re.compile(rf"final|best|({'|'.join(_PROGRESS)}):(\d+(?:\.\d+)?)")
Moment: TypeAlias = Annotated[
    str,
    Range(
        f"final, best, or what may be used up, as load:100 ({', '.join(_PROGRESS)})",
        lambda value: _MOMENT.fullmatch(value) is not None,
    ),
]
"""Evaluation at which a metric is read: the last, the best, or the last within a budget."""

_SHORT = {"accuracy": "test_accuracy", "loss": "test_loss", "perplexity": "test_perplexity"}
AXIS_LABELS: Mapping[str, str] = {
    "round": "Round",
    "load": "Communication load (MB)",
    "seconds": "Time (s)",
    "simulated_seconds": "Simulated time (s)",
    "cost": "Cost",
    "client_memory_mb": "Client memory (MB)",
    "held_mb": "Held at a client (MB)",
    "test_accuracy": "Test accuracy",
    "test_loss": "Test loss",
    "test_perplexity": "Test perplexity",
    "train_loss": "Training loss",
    "local_accuracy.mean": "Local accuracy, mean",
    "local_accuracy.std": "Local accuracy, spread",
    "local_accuracy.worst": "Local accuracy, worst client",
    "gradient_error": "Relative error of estimates",
    **SCORE_TITLES,
}
"""Labels of axes, by quantity; a quantity without one is labelled with its column's name."""


def column(y: str) -> str:
    """The column of `metrics.csv` that a metric's name means."""
    return _SHORT.get(y, y)


def axis_label(name: str) -> str:
    """Label of an axis for a metric or a kind of progress."""
    return AXIS_LABELS.get(name, name)


def lower_is_better(y: str) -> bool:
    """True if a metric gets better as it falls."""
    higher = ("accuracy", "accuracy.mean", "accuracy.worst", *SCORE_TITLES)
    return not column(y).endswith(higher)


def progress(run: Run, x: str) -> dict[int, float]:
    """Amount that the run has used up after each round; `UserError` where it was not measured."""
    if x == "round":
        return {t: float(t) for t in map(int, run.values("round"))}
    if x == "load":
        return {t: load / 1e6 for t, load in run.values("load").items()}
    if x == "simulated_seconds":
        return run.values(x)
    phases = [run.values(name) for name in run.columns if name.startswith("seconds.")]
    if not phases:
        raise UserError("run", run.path, "must have columns seconds.<phase> in metrics.csv")
    rounds = sorted(set.union(*(set(phase) for phase in phases)))
    of_rounds = [sum(phase.get(t, 0.0) for phase in phases) for t in rounds]
    return dict(zip(rounds, accumulate(of_rounds), strict=True))


def used_at_end(run: Run, x: str) -> float:
    """Amount that the whole run used up, or the last value of a column; `UserError` where there is none."""
    return max(progress(run, x).values()) if x in _PROGRESS else at_moment(run, x, "final")


def at_moment(run: Run, y: str, moment: str) -> float:
    """A metric at one moment; within a budget that the run did not use up, at its end.

    Raises:
        UserError: the run was not evaluated by then.
    """
    values = run.values(column(y))
    if moment == "final":
        return values[max(values)]
    if moment == "best":
        return min(values.values()) if lower_is_better(y) else max(values.values())
    x, _, budget = moment.partition(":")
    used = progress(run, x)
    within = [t for t in values if t in used and used[t] <= float(budget)]
    if not within:
        raise UserError("run", run.path, f"must have a {column(y)} within {x} {budget}")
    return values[max(within)]
