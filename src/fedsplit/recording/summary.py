"""`results.json`: a run in a few numbers."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Literal, TypeAlias

from fedsplit.recording.metrics import Record

StoppedBy: TypeAlias = Literal[
    "rounds", "comm_threshold_mb", "time_limit_s", "target_accuracy", "target_perplexity"
]

_MILESTONES = [round(0.05 * i, 2) for i in range(1, 20)] + [0.99]
_PACKAGES = ("fedsplit", "torch", "torchvision", "numpy", "hydra-core", "zstandard")


def _first_reaching(records: Sequence[Record], accuracy: float) -> int | None:
    return next(
        (i for i, r in enumerate(records) if r.test_accuracy is not None and r.test_accuracy >= accuracy),
        None,
    )


def summarise(
    records: Sequence[Record],
    *,
    stopped_by: StoppedBy,
    target_accuracy: float | None,
    parameters: Mapping[str, int],
    frozen_bytes: Mapping[str, int],
    target_perplexity: float | None = None,
) -> dict[str, object]:
    """The content of `results.json`.

    `bytes_to_accuracy`, `seconds_to_accuracy` and `simulated_seconds_to_accuracy` give, for each multiple of
    0.05 (and 0.99, and the target) that was reached, the load and the seconds up to the first evaluation that
    reached it; `bytes_to_perplexity` gives the load for `target_perplexity`. What was not simulated, has no
    price or is not measured is None.
    """
    accuracies = [record.test_accuracy for record in records if record.test_accuracy is not None]
    perplexities = [(r.test_perplexity, r.load) for r in records if r.test_perplexity is not None]
    target = target_perplexity
    to_target = [load for perplexity, load in perplexities if target is not None and perplexity <= target]
    milestones = sorted({*_MILESTONES, *([target_accuracy] if target_accuracy is not None else [])})
    reached = {a: i for a in milestones if (i := _first_reaching(records, a)) is not None}
    simulated = [record.simulated_seconds for record in records]
    elapsed = [sum(sum(r.seconds.values()) for r in records[: i + 1]) for i in range(len(records))]
    return {
        "final_accuracy": accuracies[-1] if accuracies else None,
        "best_accuracy": max(accuracies, default=None),
        "final_perplexity": perplexities[-1][0] if perplexities else None,
        "best_perplexity": min((perplexity for perplexity, _ in perplexities), default=None),
        "load": records[-1].load,
        "rounds_run": len(records),
        "stopped_by": stopped_by,
        "bytes_to_accuracy": {f"{a:g}": records[i].load for a, i in reached.items()},
        "bytes_to_perplexity": {f"{target:g}": to_target[0]} if to_target else {},
        "seconds_to_accuracy": {f"{a:g}": round(elapsed[i], 3) for a, i in reached.items()},
        "seconds": round(elapsed[-1], 3),
        "simulated_seconds": simulated[-1],
        "simulated_seconds_to_accuracy": (
            None if simulated[-1] is None else {f"{a:g}": simulated[i] for a, i in reached.items()}
        ),
        "cost": records[-1].cost,
        "local_accuracy": asdict(local) if (local := records[-1].local_accuracy) else None,
        "parameters": dict(parameters),
        "frozen_bytes": dict(frozen_bytes),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
