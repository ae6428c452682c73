"""Numbers by which a table compares runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from math import isfinite
from typing import Literal, TypeAlias

from fedsplit.recording.text_scores import SCORE_TITLES
from fedsplit.reports.runs import Run

Better: TypeAlias = Literal["higher", "lower"]
Amounts: TypeAlias = Callable[[Run], Sequence[float | None]]
"""Function from a run to the amount it has spent after each round."""


@dataclass(frozen=True)
class Measure:
    """A number that a run has, or has not (then `of` is None).

    Args:
        key: name of the measure in `results.json`; below `bytes_to_accuracy` and the like, the accuracy.
        title: title for people, with the unit in which it is shown.
        of: reads it from a run, in bytes, seconds, or as a fraction.
        better: end of the scale that is good; None where neither is.
        scale: factor of the number that is shown.
        decimals: shown; None: as many as the least of a column needs for three digits.
    """

    key: str
    title: str
    of: Callable[[Run], float | None]
    better: Better | None = None
    scale: float = 1.0
    decimals: int | None = None

    def show(self, number: float) -> str:
        """The number as people read it, with commas between thousands."""
        return f"{number * self.scale:,.{self.decimals}f}"


def measures(names: Sequence[str], targets: Sequence[float]) -> list[Measure]:
    """The measures of these names; some stand for several: one for each target, or each model."""
    return [measure for name in names for measure in _MEASURES[name](targets)]


def usual(runs: Sequence[Run]) -> list[str]:
    """Names of the usual columns: those that some run has, and that do not depend on the machine."""
    return [
        name
        for name in NAMES
        if name not in _UNUSUAL
        and any(
            measure.of(run) is not None
            for measure in measures([TO_ACCURACY.get(name, name)], ())
            for run in runs
        )
    ]


def _column(name: str) -> Amounts:
    return lambda run: run.columns.get(name, ())


def _last_in(name: str) -> Callable[[Run], float | None]:
    return partial(_last, _column(name))


def _seconds(run: Run) -> list[float]:
    """Seconds so far, after each round: what `seconds_to_accuracy` in `results.json` counts."""
    phases = [values for name, values in run.columns.items() if name.startswith("seconds.")]
    return list(accumulate(sum(value or 0.0 for value in phase) for phase in zip(*phases, strict=True)))


def _last(amounts: Amounts, run: Run) -> float | None:
    """The last that is known; None too where that is not finite: an earlier one would flatter the run."""
    value = next((each for each in reversed(amounts(run)) if each is not None), None)
    return value if value is not None and isfinite(value) else None


def _best_perplexity(run: Run) -> float | None:
    known = (each for each in run.columns.get("test_perplexity", ()) if each is not None and isfinite(each))
    return min(known, default=None)


def _best_accuracy(run: Run) -> float | None:
    known = (each for each in run.columns.get("test_accuracy", ()) if each is not None and isfinite(each))
    return max(known, default=None)


def _until(target: float, amounts: Amounts, run: Run) -> float | None:
    """The amount up to the first evaluation with so much accuracy; None where no evaluation has it."""
    pairs = zip(run.columns.get("test_accuracy", ()), amounts(run), strict=False)
    amount = next((spent for accuracy, spent in pairs if accuracy is not None and accuracy >= target), None)
    return amount if amount is not None and isfinite(amount) else None


def _parameters(side: str, run: Run) -> float | None:
    count: int | None = (run.results or {}).get("parameters", {}).get(side)
    return count


def _share(key: str, title: str, of: Callable[[Run], float | None]) -> Measure:
    return Measure(key, f"{title} (%)", of, "higher", scale=100, decimals=1)


def _one(measure: Measure) -> Callable[[Sequence[float]], list[Measure]]:
    return lambda targets: [measure]


def _measure_targets(
    key: str, title: str, amounts: Amounts, scale: float = 1.0
) -> Callable[[Sequence[float]], list[Measure]]:
    """A measure for each accuracy to be reached."""
    return lambda targets: [
        Measure(f"{key}.{a:g}", title.format(f"{100 * a:g}%"), partial(_until, a, amounts), "lower", scale)
        for a in targets
    ]


_MEASURES: Mapping[str, Callable[[Sequence[float]], list[Measure]]] = {
    "final_accuracy": _one(_share("final_accuracy", "Final accuracy", _last_in("test_accuracy"))),
    "best_accuracy": _one(_share("best_accuracy", "Best accuracy", _best_accuracy)),
    "released_accuracy": _one(
        _share("released_accuracy", "Accuracy with the defence", _last_in("released_accuracy"))
    ),
    "epsilon": lambda targets: [
        Measure(f"epsilon.{name}", f"Epsilon, {name}", _last_in(f"epsilon.{name}"), "lower")
        for name in ("smashed", "weights", "features", "labels")
    ],
    "final_perplexity": _one(
        Measure("final_perplexity", "Final perplexity", _last_in("test_perplexity"), "lower")
    ),
    "best_perplexity": _one(Measure("best_perplexity", "Best perplexity", _best_perplexity, "lower")),
    "local_accuracy": lambda targets: [
        _share("local_accuracy.mean", "Local accuracy", _last_in("local_accuracy.mean")),
        _share("local_accuracy.worst", "Local accuracy, worst client", _last_in("local_accuracy.worst")),
    ],
    "text_scores": lambda targets: [
        Measure(f"text_scores.{name}", title, _last_in(name), "higher")
        for name, title in SCORE_TITLES.items()
    ],
    "load": _one(Measure("load", "Load (MB)", _last_in("load"), "lower", scale=1e-6)),
    "bytes_to_accuracy": _measure_targets("bytes_to_accuracy", "Load to {} (MB)", _column("load"), 1e-6),
    "simulated_seconds": _one(
        Measure("simulated_seconds", "Simulated time (s)", _last_in("simulated_seconds"), "lower")
    ),
    "simulated_seconds_to_accuracy": _measure_targets(
        "simulated_seconds_to_accuracy", "Simulated time to {} (s)", _column("simulated_seconds")
    ),
    "seconds": _one(Measure("seconds", "Time (s)", partial(_last, _seconds), "lower")),
    "seconds_to_accuracy": _measure_targets("seconds_to_accuracy", "Time to {} (s)", _seconds),
    "gradient_error": _one(
        Measure("gradient_error", "Error of estimates", _last_in("gradient_error"), "lower")
    ),
    "cost": _one(Measure("cost", "Cost", _last_in("cost"), "lower")),
    "client_memory": _one(
        Measure("client_memory", "Client memory (MB)", _last_in("client_memory_mb"), "lower")
    ),
    "held": _one(Measure("held", "Held (MB)", _last_in("held_mb"), "lower")),
    "rounds_run": _one(
        Measure("rounds_run", "Rounds", lambda run: float(len(run.columns["round"])), decimals=0)
    ),
    "parameters": lambda targets: [
        Measure(f"parameters.{side}", f"Parameters, {side}", partial(_parameters, side), decimals=0)
        for side in ("client", "server", "auxiliary")
    ],
}
NAMES = tuple(_MEASURES)
"""Names of the columns that a table can have, those of `results.json`."""
TO_ACCURACY = {
    "bytes_to_accuracy": "load",
    "simulated_seconds_to_accuracy": "simulated_seconds",
    "seconds_to_accuracy": "seconds",
}
"""Columns that need target accuracies, and the quantity that each counts until they are reached."""
_UNUSUAL = {"seconds", "seconds_to_accuracy", "client_memory", "held", "gradient_error", "rounds_run"}
