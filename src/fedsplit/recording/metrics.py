"""Records of rounds, `metrics.csv`, and `results.json`: a run in a few numbers."""

import csv
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from statistics import fmean, pstdev
from typing import Literal, TypeAlias

from fedsplit.files.whole import write_csv
from fedsplit.privacy.accountant import COLUMNS
from fedsplit.recording.ledger import DIRECTIONS, KINDS, Direction, Kind
from fedsplit.recording.text_scores import SCORES, TextScores
from fedsplit.state.state import State

LOCAL_ACCURACY = "local_accuracy.csv"
_OF_CLIENTS = ("client", "samples", "accuracy")


@dataclass(frozen=True)
class LocalAccuracy:
    """Fractions over clients, each counted once however many samples it tests on; `std` of a population."""

    mean: float
    std: float
    worst: float


@dataclass(frozen=True)
class LocalAccuracies:
    """Accuracies of clients on their own samples.

    Args:
        samples: number of samples that each tests on.
        accuracies: fractions; None where a client holds out nothing.
    """

    samples: tuple[int, ...]
    accuracies: tuple[float | None, ...]

    @classmethod
    def of(cls, correct: Iterable[bool], samples: Sequence[int]) -> "LocalAccuracies":
        """Count whether each sample is classified correctly, of one client's after the other's."""
        hits = [0, *accumulate(map(int, correct))]
        ends = list(accumulate(samples))
        found = [
            (hits[end] - hits[end - size]) / size if size else None
            for size, end in zip(samples, ends, strict=True)
        ]
        return cls(tuple(samples), tuple(found))

    @property
    def summary(self) -> LocalAccuracy:
        """Mean, deviation and minimum over the clients that hold out samples."""
        found = [accuracy for accuracy in self.accuracies if accuracy is not None]
        return LocalAccuracy(fmean(found), pstdev(found), min(found))

    def write(self, path: Path) -> None:
        """Write as CSV: `client, samples, accuracy`; `accuracy` is empty where a client holds out nothing."""
        clients = range(len(self.samples))
        write_csv(path, _OF_CLIENTS, zip(clients, self.samples, self.accuracies, strict=True))


Quality: TypeAlias = dict[Direction, dict[Kind, float | None]]
"""A measure of what was sent, by direction and kind."""

PHASES = ("clients", "server", "evaluate")
"""Phases in which a round spends its seconds: the clients' verbs, the rest of the algorithm, evaluation."""


@dataclass(frozen=True)
class Record:
    """One round. Accuracy and loss on the test split are None in a round without evaluation.

    Args:
        round: counted from 0.
        test_accuracy: fraction of the terms of the test loss that the model gets right, which are test images
            in classification and tokens in language modelling; None where being right has no meaning.
        test_loss: mean over those terms.
        train_loss: see `RoundMetrics`.
        load: bytes of all rounds so far.
        bytes: bytes of this round, by direction and kind.
        bits: bits a value of this round, by direction and kind; None where nothing was sent.
        sqnr: signal to quantization noise of this round in dB, likewise; infinite where all is exact.
        seconds: seconds of this round, by phase.
        again: bytes of this round that failures cost, by direction; no part of the load.
        left_out: clients that the round went on without.
        local_accuracy: accuracies on what clients held out; None without evaluation, or where they held out
            nothing.
        gradient_error: see `Algorithm.gradient_error`; None where it was not measured.
        simulated_seconds: seconds of all rounds so far, on the simulated network; None where there is none.
        test_perplexity: `exp(test_loss)` of a language model; None of other models.
        cost: money for the load so far; None where the network has no price.
        text_scores: scores of texts that the model generated; None in a round without.
        evaluated_auxiliary: True if evaluation is by the auxiliary model, the server model being untrained.
        client_memory: bytes that a client's largest local step takes.
        held: bytes of it that wait for a cut gradient.
        copies: bytes of this round that broadcasts cost beyond the load on a network that has none.
        observed: bytes of this round of models that clients showed to be measured; no part of the load.
        released_accuracy: accuracy, as `test_accuracy`, where smashed data go through the clients' defence;
            None where it leaves them as they are.
        epsilons: epsilons of what left clients so far: smashed data, weights, both, labels; empty without a
            defence.
    """

    round: int
    test_accuracy: float | None
    test_loss: float | None
    train_loss: float
    load: int
    bytes: dict[Direction, dict[Kind, int]]
    seconds: dict[str, float]
    bits: Quality = field(default_factory=dict)
    sqnr: Quality = field(default_factory=dict)
    again: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(DIRECTIONS, 0))
    left_out: list[int] = field(default_factory=list)
    local_accuracy: LocalAccuracy | None = None
    gradient_error: float | None = None
    simulated_seconds: float | None = None
    cost: float | None = None
    evaluated_auxiliary: bool = False
    test_perplexity: float | None = None
    client_memory: int = 0
    held: int = 0
    copies: int = 0
    observed: int = 0
    text_scores: TextScores | None = None
    released_accuracy: float | None = None
    epsilons: dict[str, float] = field(default_factory=dict)

    def state(self) -> State:
        """Plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: State) -> "Record":
        """The record that gave `state`."""
        local, scores = state.get("local_accuracy"), state.get("text_scores")
        parts = {
            "local_accuracy": LocalAccuracy(**local) if local else None,
            "text_scores": TextScores(**scores) if scores else None,
        }
        return cls(**{**state, **parts})

    def row(self) -> dict[str, object]:
        """The row of `metrics.csv`, by column."""
        row: dict[str, object] = {
            "round": self.round,
            "test_accuracy": self.test_accuracy,
            "test_loss": self.test_loss,
            "test_perplexity": self.test_perplexity,
            "train_loss": self.train_loss,
            "load": self.load,
        }
        row |= {f"bytes.{d}.{kind}": self.bytes[d][kind] for d in DIRECTIONS for kind in KINDS}
        row |= {f"seconds.{phase}": round(self.seconds[phase], 6) for phase in PHASES}
        for name, quality, digits in (("bits", self.bits, 4), ("sqnr", self.sqnr, 2)):
            for direction in DIRECTIONS:
                for kind in KINDS:
                    value = quality.get(direction, {}).get(kind)
                    row[f"{name}.{direction}.{kind}"] = None if value is None else round(value, digits)
        row |= {f"retransmitted.{direction}": self.again[direction] for direction in DIRECTIONS}
        row |= {"broadcast_copies": self.copies, "observed_bytes": self.observed}
        row["left_out"] = " ".join(map(str, self.left_out))
        for name in ("mean", "std", "worst"):
            row[f"local_accuracy.{name}"] = getattr(self.local_accuracy, name, None)
        row["gradient_error"] = self.gradient_error
        row |= {"simulated_seconds": self.simulated_seconds, "cost": self.cost}
        row["evaluated_auxiliary"] = int(self.evaluated_auxiliary)
        row |= {"client_memory_mb": self.client_memory / 1e6, "held_mb": self.held / 1e6}
        row |= {name: getattr(self.text_scores, name, None) for name in SCORES}
        row["released_accuracy"] = self.released_accuracy
        row |= {f"epsilon.{name}": self.epsilons.get(name) for name in COLUMNS}
        return row


def write_metrics(path: Path, records: Sequence[Record]) -> None:
    """Write `metrics.csv`, whole or not at all: a header, then a row a round."""
    write_csv(path, list(_EMPTY.row()), (list(record.row().values()) for record in records))


def append_metrics(path: Path, record: Record) -> None:
    """Add a round to `metrics.csv`."""
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(record.row().values())


_EMPTY = Record(
    0, None, None, 0.0, 0, {d: dict.fromkeys(KINDS, 0) for d in DIRECTIONS}, dict.fromkeys(PHASES, 0.0)
)


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
        "text_scores": asdict(scores) if (scores := records[-1].text_scores) else None,
        "parameters": dict(parameters),
        "frozen_bytes": dict(frozen_bytes),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
