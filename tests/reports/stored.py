"""Small made-up runs on disk, with all that a run leaves for figures."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from fedsplit.recording.config_file import FORMAT
from fedsplit.reports.labels import label_runs
from fedsplit.reports.runs import Run, read_run

CLASSES = {
    "fed_avg": "fedsplit.algorithms.fed_avg.FedAvg",
    "splitfed_v1": "fedsplit.algorithms.splitfed_v1.SplitFedV1",
    "splitfed_v2": "fedsplit.algorithms.splitfed_v2.SplitFedV2",
    "sl_multi_server": "fedsplit.algorithms.splitfed_v1.SplitFedV1",
    "sl_single_server": "fedsplit.algorithms.splitfed_v2.SplitFedV2",
    "cse_fsl": "fedsplit.algorithms.cse_fsl.CseFsl",
    "fsl_sage": "fedsplit.algorithms.fsl_sage.FslSage",
}
IID = {"_target_": "fedsplit.data.distributions.iid.Iid"}
LINKS = ("up.smashed", "up.labels", "up.client_weights", "down.client_weights", "down.auxiliary_weights")
PHASES = ("clients", "server", "evaluate")


def dirichlet(alpha: float) -> dict[str, Any]:
    return {"_target_": "fedsplit.data.distributions.dirichlet.Dirichlet", "alpha": alpha}


def make_run(
    path: Path,
    algorithm: str = "fsl_sage",
    *,
    seed: int = 0,
    ran: int = 5,
    evaluated: int = 1,
    bits: float = 32.0,
    auxiliary_size: int = 650,
    ended: bool = True,
    choices: dict[str, str | None] | None = None,
    **settings: Any,
) -> Path:
    """A run directory with made-up content that differs from seed to seed.

    Args:
        ran: rounds.
        evaluated: every how many rounds there is a test accuracy.
        bits: a value on the wire, of all but labels.
        auxiliary_size: parameters of the auxiliary model.
        ended: whether there are the files that runs write at their end.
        settings: of config.yaml; those with dots lie deeper.
    """
    drawn = np.random.default_rng([seed, crc32(path.name.encode())])
    config = {
        "format": FORMAT,
        "seed": seed,
        "progress": seed % 2 == 0,
        "num_clients": 10,
        "algorithm": {"_target_": CLASSES.get(algorithm, f"mine.{algorithm}")},
        "distribution": IID,
        "optimizer": {"_target_": "fedsplit.optim.optimizers.Adam", "lr": 0.001},
        "client_optimizer": None,
        "choices": {
            "experiment": None,
            "optimizer": "adam",
            "client_optimizer": None,
            "distribution": "iid",
            "algorithm": algorithm,
            **(choices or {}),
        },
    }
    for key, value in settings.items():
        node: dict[str, Any] = config
        *places, name = key.split(".")
        for place in places:
            node = node.setdefault(place, {})
        node[name] = value
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(json.dumps(config), "utf-8")  # which is YAML too
    _write_metrics(path / "metrics.csv", drawn, ran, evaluated, bits)
    if ended:
        parameters = {"client": 100, "server": 500, "auxiliary": auxiliary_size}
        (path / "results.json").write_text(json.dumps({"parameters": parameters}), "utf-8")
        _write_counts(path / "class_counts.csv", drawn)
        _write_confusion(path / "confusion.csv", drawn)
        _write_roc(path / "roc.csv", drawn)
    return path


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in these directories, labelled so that they can be told apart."""
    return label_runs([read_run(path) for path in paths])


def table(path: Path) -> dict[str, np.ndarray]:
    """metrics.csv, read by numpy; nan where a cell is empty."""
    read = np.genfromtxt(path / "metrics.csv", delimiter=",", names=True, deletechars="")
    return {name: np.atleast_1d(read[name]) for name in read.dtype.names or ()}


def _write_metrics(path: Path, drawn: np.random.Generator, ran: int, evaluated: int, bits: float) -> None:
    header = ["round", "test_accuracy", "test_loss", "train_loss", "load"]
    header += ["local_accuracy.mean", "local_accuracy.worst", "gradient_error", "simulated_seconds"]
    header += [f"bytes.{link}" for link in LINKS] + [f"bits.{link}" for link in LINKS]
    header += [f"seconds.{phase}" for phase in PHASES]
    load, simulated = 0, 0.0
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(header)
        for t in range(ran):
            sizes = drawn.integers(100_000, 500_000, len(LINKS)).tolist()
            sizes[-1] *= t % 2  # auxiliary models travel in some rounds only
            load += sum(sizes)
            simulated += float(drawn.uniform(1, 2))
            tested = drawn.uniform(size=4).tolist() if t % evaluated == evaluated - 1 else [""] * 4
            widths = [8.0 if link.endswith("labels") else bits for link in LINKS]
            rows.writerow(
                [t, *tested[:2], float(drawn.uniform()), load, *tested[2:], float(drawn.uniform()), simulated]
                + sizes
                + [width if size else "" for width, size in zip(widths, sizes, strict=True)]
                + drawn.uniform(size=len(PHASES)).tolist()
            )


def _write_counts(path: Path, drawn: np.random.Generator) -> None:
    rows = [f"{client},{label},,{drawn.integers(1, 50)}" for client in range(4) for label in range(3)]
    path.write_text("\n".join(["client,label,class,samples", *rows, ""]), "utf-8")


def _write_confusion(path: Path, drawn: np.random.Generator) -> None:
    rows = [f"{name},{','.join(map(str, drawn.integers(0, 9, 3)))}" for name in "abc"]
    path.write_text("\n".join(["label,a,b,c", *rows, ""]), "utf-8")


def _write_roc(path: Path, drawn: np.random.Generator) -> None:
    rows = []
    for name in "abc":
        x, y = (np.sort(drawn.integers(0, 11, 6)) / 10 for _ in range(2))
        points = [(0.0, 0.0), *zip(x.tolist(), y.tolist(), strict=True), (1.0, 1.0)]
        rows += [f"{name},{a},{b}" for a, b in points]
    path.write_text("\n".join(["class,false_positive_rate,true_positive_rate", *rows, ""]), "utf-8")
