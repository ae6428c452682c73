"""Records what the partitioners of flwr-datasets do, as answers for `test_against_flwr.py`.

    pip install --target FOLDER flwr-datasets==0.6.1
    PYTHONPATH=FOLDER python tests/data/record_flwr_partitions.py

No dependency of the tests, because it comes with half a gigabyte (pyarrow, pandas, a client of a model
hub) and puts older versions in place of ours (rich, fsspec). What it draws is recorded with what it makes
of it, so that ours can be given the same draws.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    IidPartitioner,
    NaturalIdPartitioner,
    PathologicalPartitioner,
    ShardPartitioner,
)

ANSWERS = Path(__file__).with_name("flwr_partitions.json")


class Recorder:
    """A generator that remembers what it drew."""

    def __init__(self, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self.drawn: list[list[float]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            result = getattr(self._draw, name)(*arguments, **options)
            self.drawn.append(np.asarray(result).tolist())
            return result

        return call


def divided(partitioner: Any, labels: list[int]) -> list[list[int]]:
    """Indices of each partition."""
    partitioner.dataset = Dataset.from_dict({"label": labels, "index": list(range(len(labels)))})
    count = partitioner.num_partitions
    return [list(partitioner.load_partition(i)["index"]) for i in range(count)]


def main() -> None:
    answers: dict[str, Any] = {"flwr-datasets": version("flwr-datasets"), "datasets": version("datasets")}
    answers["iid"] = [
        {"samples": n, "sizes": [len(each) for each in divided(IidPartitioner(clients), [0] * n)]}
        for n, clients in ((10, 10), (11, 4), (1000, 7), (1438, 10))
    ]
    answers["dirichlet"] = []
    for balancing in (False, True):
        for seed, alpha, clients, classes in (
            (0, 0.1, 5, 10),
            (1, 0.5, 7, 10),
            (2, 10.0, 4, 3),
            (3, 0.05, 3, 6),
        ):
            labels = np.random.default_rng(seed).integers(classes, size=1200).tolist()
            partitioner = DirichletPartitioner(
                clients, "label", alpha, min_partition_size=0, self_balancing=balancing, shuffle=False
            )
            partitioner._rng = recorder = Recorder(seed)
            counts = [
                np.bincount(np.array(labels)[each], minlength=classes).tolist()
                for each in divided(partitioner, labels)
            ]
            answers["dirichlet"].append(
                {"self_balancing": balancing, "labels": labels, "drawn": recorder.drawn, "counts": counts}
            )
    answers["shards of sorted labels"] = []
    for clients, each, size in ((10, 2, 6), (4, 3, 5), (7, 1, 8)):
        labels = sorted(i % 5 for i in range(clients * each * size))
        partitioner = ShardPartitioner(clients, "label", num_shards_per_partition=each, shuffle=False)
        partitioner._rng = recorder = Recorder(clients)
        shards = divided(partitioner, labels)
        answers["shards of sorted labels"].append(
            {"labels": labels, "per_client": each, "dealt": recorder.drawn[0], "shards": shards}
        )
    answers["classes a client"] = []
    for clients, k in ((10, 2), (10, 4), (10, 10)):
        labels = [i % 10 for i in range(600)]
        partitioner = PathologicalPartitioner(
            clients, "label", k, class_assignment_mode="deterministic", shuffle=False
        )
        counts = [
            np.bincount(np.array(labels)[s], minlength=10).tolist() for s in divided(partitioner, labels)
        ]
        answers["classes a client"].append({"labels": labels, "classes_per_client": k, "counts": counts})
    owners = np.random.default_rng(5).integers(12, size=150).tolist()
    answers["natural"] = {"owners": owners, "shards": divided(NaturalIdPartitioner("label"), owners)}
    ANSWERS.write_text(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
