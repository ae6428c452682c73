"""Run directories whose numbers a test chooses."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fedsplit.recording.config_file import FORMAT

CLASSES = {
    "fed_avg": "fedsplit.algorithms.fed_avg.FedAvg",
    "splitfed_v1": "fedsplit.algorithms.splitfed_v1.SplitFedV1",
    "cse_fsl": "fedsplit.algorithms.cse_fsl.CseFsl",
    "fsl_sage": "fedsplit.algorithms.fsl_sage.FslSage",
}
VERSIONS = {"python": "3.11.7", "fedsplit": "0.1.0", "torch": "2.13.0+cpu"}


def store_run(
    path: Path,
    algorithm: str = "fsl_sage",
    *,
    seed: int = 0,
    accuracy: Sequence[float | None] = (0.3, 0.6, 0.9),
    load: int = 1_000_000,
    ended: bool = True,
    columns: Mapping[str, Sequence[float | None]] | None = None,
    results: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A run of `load` bytes a round, with further columns and results."""
    config = {
        "format": FORMAT,
        "seed": seed,
        "num_clients": 10,
        "algorithm": {"_target_": CLASSES.get(algorithm, f"mine.{algorithm}")},
        **settings,
        "choices": {"algorithm": algorithm},
    }
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    rounds = range(len(accuracy))
    values: dict[str, Sequence[float | None]] = {
        "round": rounds,
        "test_accuracy": accuracy,
        "test_loss": [None if each is None else 1.0 - each for each in accuracy],
        "train_loss": [1.0] * len(accuracy),
        "load": [load * (t + 1) for t in rounds],
        **(columns or {}),
    }
    with (path / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(values)
        rows.writerows(zip(*values.values(), strict=True))
    if ended:
        parameters = {"client": 1248, "server": 17098, "auxiliary": 650}
        content = {"parameters": parameters, "versions": VERSIONS, **(results or {})}
        (path / "results.json").write_text(json.dumps(content), "utf-8")
    return path
