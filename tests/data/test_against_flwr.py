"""Divisions beside those of flwr-datasets, of the same draws; see `record_flwr_partitions.py`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsplit.data.distributions import pathological
from fedsplit.data.distributions.dirichlet import Dirichlet
from fedsplit.data.distributions.iid import Iid
from fedsplit.data.distributions.natural import Natural
from fedsplit.data.distributions.pathological import Pathological
from fedsplit.data.distributions.shards import Shards

ANSWERS: dict[str, Any] = json.loads(Path(__file__).with_name("flwr_partitions.json").read_text())


class _Given:
    """A generator that draws what it is given, and permutes nothing else."""

    def __init__(self, shares: Sequence[list[float]] = (), dealt: list[int] | None = None) -> None:
        self._shares, self._dealt = iter(shares), dealt

    def dirichlet(self, alpha: np.ndarray) -> np.ndarray:
        return np.array(next(self._shares))

    def permutation(self, of: int | np.ndarray) -> np.ndarray:
        if self._dealt is not None and of == len(self._dealt):
            return np.array(self._dealt)
        return np.arange(of) if isinstance(of, int) else of


def _counts(labels: np.ndarray, shards: list[np.ndarray], classes: int) -> np.ndarray:
    return np.array([np.bincount(labels[shard], minlength=classes) for shard in shards])


@pytest.mark.parametrize("answer", ANSWERS["iid"], ids=lambda answer: str(answer["samples"]))
def test_iid_shard_sizes_are_those_of_flwr(answer: dict[str, Any]) -> None:
    labels = np.zeros(answer["samples"], dtype=np.int64)
    shards = Iid().split(labels, len(answer["sizes"]), 0)
    assert [len(shard) for shard in shards] == answer["sizes"]


@pytest.mark.parametrize("answer", ANSWERS["dirichlet"], ids=lambda a: f"balancing={a['self_balancing']}")
def test_dirichlet_counts_for_the_same_shares_are_those_of_flwr_but_for_rounding(
    answer: dict[str, Any],
) -> None:
    labels, theirs = np.array(answer["labels"]), np.array(answer["counts"])
    distribution = Dirichlet(alpha=1.0, min_samples=1, attempts=1, self_balancing=answer["self_balancing"])
    # The draw itself: `split` would refuse a client without a sample, which theirs are free to leave.
    samples, clients = distribution._draw(labels, len(theirs), _Given(answer["drawn"]))  # type: ignore[arg-type]
    shards = [samples[clients == client] for client in range(len(theirs))]
    ours = _counts(labels, shards, theirs.shape[1])
    assert ours.sum() == theirs.sum() == len(labels)
    assert np.abs(ours - theirs).max() <= 1  # ours rounds where theirs truncates


def test_flwr_self_balancing_lowers_the_largest_shard_for_the_same_shares() -> None:
    by_balancing: dict[bool, list[Any]] = {False: [], True: []}
    for answer in ANSWERS["dirichlet"]:
        by_balancing[answer["self_balancing"]].append(answer)
    for without, balanced in zip(by_balancing[False], by_balancing[True], strict=True):
        assert without["drawn"] == balanced["drawn"]
        largest = [max(map(sum, answer["counts"])) for answer in (balanced, without)]
        assert largest[0] <= largest[1]
    assert any(a["counts"] != b["counts"] for a, b in zip(*by_balancing.values(), strict=True))


@pytest.mark.parametrize(
    "answer", ANSWERS["shards of sorted labels"], ids=lambda a: f"{a['per_client']} each"
)
def test_pathological_shards_for_the_same_deal_are_those_of_flwr(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pathological, "numpy_generator", lambda seed, purpose: _Given(dealt=answer["dealt"]))
    distribution = Pathological(shards_per_client=answer["per_client"])
    shards = distribution.split(np.array(answer["labels"]), len(answer["shards"]), 0)
    assert [shard.tolist() for shard in shards] == answer["shards"]


@pytest.mark.parametrize("answer", ANSWERS["classes a client"], ids=lambda a: str(a["classes_per_client"]))
def test_shards_have_the_numbers_of_classes_and_samples_of_flwr(answer: dict[str, Any]) -> None:
    labels, theirs = np.array(answer["labels"]), np.array(answer["counts"])
    shards = Shards(classes_per_client=answer["classes_per_client"]).split(labels, len(theirs), 0)
    ours = _counts(labels, shards, 10)
    for counts in (ours, theirs):
        assert (counts > 0).sum(1).tolist() == [answer["classes_per_client"]] * len(theirs)
    for label in range(10):  # who holds a class is drawn; how its samples are divided is not
        assert sorted(ours[:, label].tolist()) == sorted(theirs[:, label].tolist())


def test_natural_division_with_a_client_for_each_owner_is_that_of_flwr() -> None:
    owners, theirs = np.array(ANSWERS["natural"]["owners"]), ANSWERS["natural"]["shards"]
    ours = Natural().split(owners, len(theirs), 3)
    assert {tuple(shard.tolist()) for shard in ours} == {tuple(sorted(shard)) for shard in theirs}
