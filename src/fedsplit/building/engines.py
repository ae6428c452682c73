"""The engine of a run, which `engine=auto` leaves to a rule."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from fedsplit.building.parts import Ingredients
from fedsplit.computing.model_state import ModelState
from fedsplit.computing.multiply_adds import MultiplyAdds
from fedsplit.computing.stacked_module import obstacle_to_stacking
from fedsplit.config.component import component_of
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.models.splitting.stubs import StubbedClient
from fedsplit.optim.optimizers import RowOptimizer
from fedsplit.parties.auto import Auto
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.sequential import Sequential
from fedsplit.parties.vectorized import Vectorized

_ALLOWED = "must be auto or sequential"


def decide_engine(parts: Ingredients, blueprint: Blueprint) -> RunConfig:
    """The configuration, with the engine that `engine=auto` stands for in its place.

    Raises:
        UserError: clients cannot be computed by the engine that is asked for.
    """
    config, takes_turns = parts.config, parts.algorithm_class.takes_turns
    if config.engine.import_target() is Auto:
        auto = config.engine.build(Auto)
        stacked = (
            not parts.apart
            and not takes_turns
            and _may_be_stacked(parts)
            and auto.pays(step_mmac(parts, blueprint))
            and _obstacle(parts, blueprint) is None
        )
        engine = component_of("engine", Vectorized, stack_mb=auto.stack_mb)
        engine = engine if stacked else component_of("engine", Sequential)
        named = {"engine": "vectorized" if stacked else "sequential"} if config.choices else {}
        return replace(config, engine=engine, choices={**config.choices, **named})
    if config.engine.import_target() is Vectorized:
        if parts.apart:
            raise UserError("engine", "vectorized", f"{_ALLOWED}: each client has a process of its own")
        if takes_turns:
            raise UserError("engine", "vectorized", f"{_ALLOWED}: clients of this algorithm take turns")
        if reason := _obstacle(parts, blueprint):
            message = f"{_ALLOWED}: this model cannot be computed for many at once ({reason})"
            raise UserError("engine", "vectorized", message)
    return config


def step_mmac(parts: Ingredients, blueprint: Blueprint) -> float:
    """Million multiply-adds of the forward passes of one local step, through body and head."""
    x, y = parts.data.batch(2)
    server, tail = parts.models.halves.server, parts.models.halves.tail
    counter = MultiplyAdds()
    with counter:
        replace(blueprint, head=blueprint.head or server).pass_through(x, y)
        if tail is not None:
            z = torch.zeros(len(x), *parts.models.smashed_shape, device=x.device)
            with torch.no_grad():
                ModelState(server).forward(z, seed=0)
    batch_size = parts.config.training.batch_size
    samples = min(batch_size, max(parts.data.shards.sizes) or batch_size)
    return counter.total / len(x) * samples / 1e6


def _may_be_stacked(parts: Ingredients) -> bool:
    """True if there are several clients, and all that is asked for can be computed for them at once."""
    config, optimizers = parts.config, (parts.client_optimizer, parts.server_optimizer)
    return (
        config.population.cohort > 1
        and not config.computation.compile
        and not config.rounding.qat
        and config.rounding.weight_bits is None
        and all(isinstance(each, RowOptimizer) for each in optimizers)
    )


def _obstacle(parts: Ingredients, blueprint: Blueprint) -> str | None:
    """Reason why clients, or a split server's copies, cannot be computed as one; None if they can."""
    if isinstance(blueprint.body, StubbedClient):
        return "its code cannot be traced"
    x, _ = parts.data.batch(2)
    with torch.no_grad(), torch.random.fork_rng():
        z = ModelState(blueprint.body).forward(x, seed=0)
    modules: list[tuple[nn.Module, Tensor]] = [(blueprint.body, x)]
    head, tail = blueprint.head, parts.models.halves.tail
    if head is None or tail is not None:
        modules.append((parts.models.halves.server, z))
    if tail is not None:
        modules.append((tail, blueprint.trunk_outputs(x)))
    elif head is not None and (not blueprint.estimates or blueprint.estimator.trains_on_loss):
        modules.append((head, z))  # others take more than smashed data
    return next(filter(None, (obstacle_to_stacking(module, inputs) for module, inputs in modules)), None)
