"""The engine of a run, which `engine=auto` leaves to a rule."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.building.data import Data
from fedsplit.building.models import Models
from fedsplit.computing.model_state import ModelState
from fedsplit.computing.stacked_module import obstacle_to_stacking
from fedsplit.config.component import component_of
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.optim.optimizers import Optimizer, RowOptimizer
from fedsplit.parties.auto import Auto
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.sequential import Sequential
from fedsplit.parties.vectorized import Vectorized

_ALLOWED = "must be auto or sequential"


def decide_engine(
    config: RunConfig,
    *,
    blueprint: Blueprint,
    data: Data,
    models: Models,
    algorithm: type[Algorithm],
    server_optimizer: Optimizer,
    apart: bool,
) -> RunConfig:
    """The configuration, with the engine that `engine=auto` stands for in its place.

    Args:
        config: of the run.
        blueprint: what clients are made of.
        data: of the run.
        models: of the run.
        algorithm: of the run.
        server_optimizer: of the run.
        apart: whether clients are computed in processes of their own.

    Raises:
        UserError: clients cannot be computed by the engine that is asked for.
    """
    if config.engine.located() is Auto:
        optimizers = (blueprint.optimizer, server_optimizer)
        auto = config.engine.build(Auto)
        stacked = (
            not apart
            and not algorithm.takes_turns
            and _may_be_stacked(config, optimizers)
            and auto.pays(step_mmac(config, blueprint, data, models))
            and _obstacle(blueprint, data, models) is None
        )
        engine = component_of("engine", Vectorized, stack_mb=auto.stack_mb)
        engine = engine if stacked else component_of("engine", Sequential)
        named = {"engine": "vectorized" if stacked else "sequential"} if config.choices else {}
        return replace(config, engine=engine, choices={**config.choices, **named})
    if config.engine.located() is Vectorized:
        if apart:
            raise UserError("engine", "vectorized", f"{_ALLOWED}: each client has a process of its own")
        if algorithm.takes_turns:
            raise UserError("engine", "vectorized", f"{_ALLOWED}: clients of this algorithm take turns")
        if reason := _obstacle(blueprint, data, models):
            told = f"{_ALLOWED}: this model cannot be computed for many at once ({reason})"
            raise UserError("engine", "vectorized", told)
    return config


def step_mmac(config: RunConfig, blueprint: Blueprint, data: Data, models: Models) -> float:
    """Million multiply-adds of the forward passes of one local step, through body and head."""
    x, y = data.batch(2)
    with FlopCounterMode(display=False) as counter:
        replace(blueprint, head=blueprint.head or models.halves.server).pass_through(x, y)
    most = max(data.shards.sizes) or config.training.batch_size
    samples = min(config.training.batch_size, most)
    return float(counter.get_total_flops() / 2 / len(x) * samples / 1e6)


def _may_be_stacked(config: RunConfig, optimizers: tuple[Optimizer, ...]) -> bool:
    """Whether there are several clients, and what is asked for can be computed for all of them at once."""
    return (
        config.population.cohort > 1
        and not config.computation.compile
        and not config.rounding.qat
        and config.rounding.weight_bits is None
        and all(isinstance(each, RowOptimizer) for each in optimizers)
    )


def _obstacle(blueprint: Blueprint, data: Data, models: Models) -> str | None:
    """Why clients, or a split server's copies, cannot be computed as one; None if they can."""
    x, _ = data.batch(2)
    with torch.no_grad(), torch.random.fork_rng():
        z = ModelState(blueprint.body).forward(x, seed=0)
    modules: list[tuple[nn.Module, Tensor]] = [(blueprint.body, x)]
    if blueprint.head is None:
        modules.append((models.halves.server, z))
    elif not blueprint.keeps_head or blueprint.estimator.trains_on_loss:
        modules.append((blueprint.head, z))  # others take more than smashed data
    return next(filter(None, (obstacle_to_stacking(module, inputs) for module, inputs in modules)), None)
