"""The engine of a run, which `engine=auto` leaves to a rule."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.building.data import Data
from fedsplit.building.models import Models
from fedsplit.computing.model_state import ModelState
from fedsplit.computing.stacked_module import obstacle_to_stacking
from fedsplit.config.instantiate import make
from fedsplit.config.targets import located
from fedsplit.errors import UserError
from fedsplit.optim.optimizers import Optimizer, RowOptimizer
from fedsplit.parties.auto import Auto
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.vectorized import Vectorized

_ALLOWED = "must be auto or sequential"


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """Which engine computes the clients.

    Args:
        config: of the run.
        algorithm: of the run.
        blueprint: what clients are made of.
        data: of the run.
        models: of the run.
        server_optimizer: of the run.
        apart: whether clients are computed in processes of their own.
    """

    config: Mapping[str, Any]
    algorithm: type[Algorithm]
    blueprint: Blueprint
    data: Data
    models: Models
    server_optimizer: Optimizer
    apart: bool

    def settings(self) -> dict[str, Any]:
        """The engine's part of the configuration, with what `auto` stands for in its place.

        Raises:
            UserError: clients cannot be computed by the engine that is asked for.
        """
        asked: dict[str, Any] = self.config["engine"]
        engine = located("engine._target_", asked["_target_"])
        if engine is Auto:
            return self._by_rule()
        if engine is not Vectorized:
            return asked
        if self.apart:
            raise UserError("engine", "vectorized", f"{_ALLOWED}: each client has a process of its own")
        if self.algorithm.takes_turns:
            raise UserError("engine", "vectorized", f"{_ALLOWED}: clients of this algorithm take turns")
        if reason := self._obstacle():
            told = f"{_ALLOWED}: this model cannot be computed for many at once ({reason})"
            raise UserError("engine", "vectorized", told)
        return asked

    def _by_rule(self) -> dict[str, Any]:
        auto, step = make(Auto, self.config, "engine"), self.step_mmac
        chosen = auto.chosen(step, self._stackable())
        if located("engine._target_", chosen["_target_"]) is Vectorized and self._obstacle():
            return auto.chosen(step, stackable=False)
        return chosen

    def _stackable(self) -> bool:
        """Whether clients can be computed at once at all, and there are several in this process."""
        optimizers = (self.blueprint.optimizer, self.server_optimizer)
        together = self.config["cohort_size"] or self.config["num_clients"]
        return (
            together > 1
            and not self.apart
            and not self.algorithm.takes_turns
            and not self.config["compile"]
            and not self.config["qat"]
            and self.config["weight_bits"] is None
            and all(isinstance(each, RowOptimizer) for each in optimizers)
        )

    def _obstacle(self) -> str | None:
        """Why clients, or a split server's copies, cannot be computed as one; None if they can."""
        blueprint = self.blueprint
        x, _ = self.data.batch(2)
        with torch.no_grad(), torch.random.fork_rng():
            z = ModelState(blueprint.body).forward(x, seed=0)
        modules: list[tuple[nn.Module, Tensor]] = [(blueprint.body, x)]
        if blueprint.head is None:
            modules.append((self.models.halves.server, z))
        elif not blueprint.keeps_head or blueprint.estimator.trains_on_loss:
            modules.append((blueprint.head, z))  # others take more than smashed data
        return next(filter(None, (obstacle_to_stacking(module, inputs) for module, inputs in modules)), None)

    @cached_property
    def step_mmac(self) -> float:
        """Million multiply-adds of the forward passes of one local step, through body and head."""
        x, y = self.data.batch(2)
        blueprint = self.blueprint
        with FlopCounterMode(display=False) as counter:
            replace(blueprint, head=blueprint.head or self.models.halves.server).pass_through(x, y)
        most = max(self.data.shards.sizes) or self.config["batch_size"]
        samples = min(self.config["batch_size"], most)
        return float(counter.get_total_flops() / 2 / len(x) * samples / 1e6)
