"""Which steps are captured as CUDA graphs."""

from dataclasses import dataclass

import torch
from torch import nn

from fedsplit.building.data import Data
from fedsplit.building.models import Models
from fedsplit.computing.captured_steps import CudaRecorder, Recorder
from fedsplit.computing.hooks import describe_hook
from fedsplit.computing.model_state import ModelState
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.optim.optimizers import Optimizer
from fedsplit.randomness import draws


@dataclass(frozen=True)
class Recorders:
    """Says what captures the steps of a model, if anything does.

    Args:
        recorder: captures steps; None where that is not asked for.
        data: data of the run.
        models: models of the run.
        estimator: estimator of the run.
        estimates: True if the auxiliary model is one of the estimator's.
        device: device of the models.
    """

    recorder: Recorder | None
    data: Data
    models: Models
    estimator: GradientEstimator
    estimates: bool
    device: torch.device

    def of(self, *modules: nn.Module | None) -> Recorder | None:
        """Captures steps of these models.

        Not if one of them draws, as a graph would draw the same again, or has hooks: a graph leaves them out.
        """
        if self.recorder is None or any(map(self._draws, modules)):
            return None
        return (
            None if any(module is not None and describe_hook(module) for module in modules) else self.recorder
        )

    def _draws(self, module: nn.Module | None) -> bool:
        if module is None:
            return False
        client = self.models.halves.client
        x, y = self.data.batch(2)
        z = x if module is client else ModelState(client).forward(x, seed=0).detach()
        model = ModelState(module)
        if module is self.models.auxiliary and self.estimates and not self.estimator.trains_on_loss:
            return draws(
                lambda: self.estimator.estimate(model, self.data.dataset.objective, z, y, seed=None),
                self.device,
            )
        return draws(lambda: model.forward(z, seed=None), self.device)


def build_recorder(config: RunConfig, device: torch.device, *optimizers: Optimizer) -> Recorder | None:
    """Captures steps as CUDA graphs, if that is asked for.

    Raises:
        UserError: one of these optimizers cannot be captured, or there is no CUDA device.
    """
    if not config.computation.cuda_graphs:
        return None
    for optimizer in optimizers:
        if not optimizer.capturable:
            message = f"must be false: {type(optimizer).__name__} takes no learning rate in a tensor"
            raise UserError("cuda_graphs", True, message)
    return CudaRecorder(device)
