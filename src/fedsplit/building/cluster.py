"""Spreads the clients of a run over the workers of a cluster."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import nn

from fedsplit.building.data import Data
from fedsplit.building.parts import ClientParts
from fedsplit.computing.model_state import travelling_tensors
from fedsplit.config.component import component_of
from fedsplit.config.run_config import RunConfig
from fedsplit.config.values import Plain
from fedsplit.errors import UserError
from fedsplit.machine.extras import extra
from fedsplit.parties.spread.engine import SpreadEngine
from fedsplit.parties.workers import Cluster, Needs, Verbs, Workers
from fedsplit.state.weights import Weights

BuildWorker: TypeAlias = Callable[[Plain, Data, Sequence[Weights | None]], Verbs]
"""Function that builds the clients of a worker from a configuration, data, and the weights of the models."""


def build_cluster(config: RunConfig) -> Cluster:
    """Cluster that computes the clients.

    Raises:
        UserError: the library that it needs is not installed.
    """
    with extra("cluster", config.choices.get("cluster")):
        return config.cluster.build(Cluster)


def spread(parts: ClientParts, cluster: Cluster, build_worker: BuildWorker) -> ClientParts:
    """The same parts, with an engine that asks workers where there are any.

    Args:
        parts: parts of the run.
        cluster: cluster that has the workers.
        build_worker: makes what computes in a worker.

    Raises:
        UserError: workers cannot compute the clients of this run.
    """
    workers = cluster.spawn(_needs(parts))
    if workers is None:
        return parts
    key, choice, name = "cluster", parts.config.choice("cluster"), parts.algorithm_class.__name__
    if parts.apart:
        raise UserError(key, choice, "must be none: with this transport each client has a process of its own")
    if parts.algorithm_class.takes_turns:
        raise UserError(key, choice, f"must be none: clients of {name} take turns, one computes at a time")
    return replace(parts, engine=SpreadEngine(parts.engine, workers, partial(_start, parts, build_worker)))


def _needs(parts: ClientParts) -> Needs:
    weights = [each for module in parts.models.halves.modules for each in travelling_tensors(module).values()]
    cohort = parts.config.population.cohort * sum(each.nbytes for each in weights)
    return Needs(
        threads=parts.config.computation.threads,
        device=parts.device,
        cohort_bytes=cohort,
    )


def _start(parts: ClientParts, build_worker: BuildWorker, workers: Workers) -> None:
    """Start workers that compute as this process would, from the same data and models."""
    device = "cuda" if parts.device.type == "cuda" else str(parts.device)
    config = replace(
        parts.config,
        cluster=component_of("cluster", Cluster),
        computation=replace(parts.config.computation, device=device),
    )
    modules = (*parts.models.halves.modules, parts.models.auxiliary)
    workers.start(build_worker, config.plain(), _without_tests(parts.data), [*map(_all_tensors, modules)])


def _without_tests(data: Data) -> Data:
    dataset = data.dataset
    return replace(
        data, dataset=replace(dataset, test=dataset.train.select(torch.arange(0))), local_test=None
    )


def _all_tensors(module: nn.Module | None) -> Weights | None:
    """All that a module holds, also what does not learn; no copies."""
    return None if module is None else module.state_dict()
