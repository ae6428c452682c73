"""The models of a run: made, cut in two, and given an auxiliary model where the algorithm has one."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fedsplit.algorithms.algorithm import ClientHead
from fedsplit.building.data import Data
from fedsplit.computing.computation import set_computation, set_float32
from fedsplit.computing.hooks import hooked, refuse_lost_hooks
from fedsplit.computing.layout import unflattened
from fedsplit.config.instantiate import make
from fedsplit.config.targets import is_class
from fedsplit.errors import UserError, first_line
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.machine.allowance import claim_model
from fedsplit.models.auxiliary import ExplicitErrorGradient, ExplicitInputGradient
from fedsplit.models.rounding.quantized_training import FakeQuantization, fake_quantized
from fedsplit.models.splitting.checks import check_output, check_tensors
from fedsplit.models.splitting.cuts import Cuts, chosen
from fedsplit.models.splitting.split import SplitModel, split
from fedsplit.models.splitting.tied import untied
from fedsplit.parties.vectorized import Vectorized
from fedsplit.randomness import seed_of

_LOG = logging.getLogger("fedsplit")


@dataclass(frozen=True)
class Models:
    """The split model and the auxiliary model, as skeletons that many states share.

    Args:
        halves: client and server model.
        auxiliary: what the algorithm's clients or alignment use, None where they use none.
        smashed_shape: of one sample.
        coded_shape: of one sample, as codecs see it: with its channels, also where the cut is behind a
            layer that flattens them.
    """

    halves: SplitModel
    auxiliary: nn.Module | None
    smashed_shape: tuple[int, ...]
    coded_shape: tuple[int, ...]

    def set_computation(self, config: Mapping[str, Any], device: torch.device) -> None:
        """Of the halves, as `precision` and `compile` say; auxiliary models and alignment stay exact.

        Raises:
            UserError: this device or engine cannot.
        """
        precision, compiled = config["precision"], config["compile"]
        if compiled and is_class("engine._target_", config["engine"]["_target_"], Vectorized):
            raise UserError("compile", compiled, "must be false with engine=vectorized")
        if precision == "tf32" and device.type != "cuda":
            raise UserError("precision", precision, f"fp32 or bf16 on device={device}")
        if precision == "bf16" and device.type == "cpu":
            _LOG.warning("precision=bf16: without bf16 units in the processor this is slower than fp32")
        set_float32(precision)
        for half in (self.halves.client, self.halves.server):
            if compiled and (found := hooked(half)):
                raise UserError("compile", compiled, f"must be false with this model: {found}")
            set_computation(half, precision, compiled=compiled)


@dataclass(frozen=True)
class ModelBuilder:
    """Makes the models that a configuration names, for some data.

    Args:
        config: of the run.
        data: what models take and tell.
        device: where they are.
        estimator: of the run.
        client_head: what a client of the algorithm holds behind its client model.
    """

    config: Mapping[str, Any]
    data: Data
    device: torch.device
    estimator: GradientEstimator
    client_head: ClientHead

    def whole(self) -> tuple[nn.Module, Tensor]:
        """The model before it is cut, and a batch of its inputs.

        Raises:
            UserError: it cannot be made, or is no model that gives logits of the data.
        """
        chosen = self.config.get("choices", {}).get("model", self.config["model"]["_target_"])
        claim_model("model", chosen, lambda: make(nn.Module, self.config, "model", **self.data.sizes))
        with _initialisation(self.config["seed"], "model"):
            whole = make(nn.Module, self.config, "model", **self.data.sizes)
            check_tensors(whole)
            whole = self._placed(untied(whole) if self.config["model"]["untie"] else whole)
        example = self.data.batch(2)[0]
        check_output(whole, example, self.data.dataset.num_classes)
        return whole, example

    def built(self) -> Models:
        """All models.

        Raises:
            UserError: they cannot be made, or not cut like that, or do not fit the data.
        """
        whole, example = self.whole()
        try:
            halves = split(whole, self.cut(whole, example), example)
        except RuntimeError as error:  # shapes that do not fit
            told = f"does not fit images of {self.data.sizes} ({first_line(error)})"
            raise UserError("model", type(whole).__name__, told) from error
        with torch.no_grad():
            z = halves.client.eval()(example)
        halves.client.train()
        auxiliary = self._auxiliary(z, halves)
        coded_shape = unflattened(halves.client, example)
        rounded = FakeQuantization.asked(qat=self.config["qat"], weight_bits=self.config["weight_bits"])
        if rounded:
            halves = replace(halves, client=fake_quantized(halves.client, example, rounded))
        return Models(halves, auxiliary, tuple(z.shape[1:]), coded_shape)

    def cut(self, whole: nn.Module, example: Tensor) -> str:
        """The name of the cut, which may be chosen by number, or left to the model."""
        cut: str | int | None = self.config["model"]["cut"]
        if isinstance(cut, str):
            return cut
        return chosen(Cuts(whole, example), cut, self.config["model"]["stages"])

    def _auxiliary(self, z: Tensor, halves: SplitModel) -> nn.Module | None:
        """The model that a client's head is, or that its estimator uses; `z` are some smashed data."""
        if self.client_head not in ("auxiliary", "estimator"):
            return None
        classes = self.data.dataset.num_classes
        sizes: dict[str, Any] = {"smashed_shape": tuple(z.shape[1:]), "num_classes": classes}
        offered = {"server": halves.server, "crossing": halves.crossing}

        def build() -> nn.Module:
            return make(nn.Module, self.config, "auxiliary", offered=offered, **sizes)

        claim_model("auxiliary._target_", self.config["auxiliary"]["_target_"], build)
        with _initialisation(self.config["seed"], "auxiliary model"):
            auxiliary = build()
            self._refuse_lost_hooks(auxiliary)
            try:
                fits = auxiliary.to(z.device, z.dtype).eval()(z).shape == (len(z), classes)
            except (RuntimeError, ValueError, IndexError) as error:
                raise self._misfit(z) from error
            if not fits:
                raise self._misfit(z)
            if self.client_head == "estimator":
                auxiliary = self.estimator.model(auxiliary, **sizes)
        return self._placed(auxiliary)

    def _refuse_lost_hooks(self, auxiliary: nn.Module) -> None:
        target = self.config["auxiliary"]["_target_"]
        refuse_lost_hooks("auxiliary._target_", target, auxiliary)
        explicit = isinstance(auxiliary, ExplicitInputGradient | ExplicitErrorGradient)
        if explicit and self.client_head == "estimator" and (found := hooked(auxiliary)):
            told = f"{found}, which gradients in closed form leave out"
            raise UserError("auxiliary._target_", target, told)

    def _misfit(self, z: Tensor) -> UserError:
        target = self.config["auxiliary"]["_target_"]
        return UserError("auxiliary._target_", target, f"makes no logits of smashed data {tuple(z.shape)}")

    def _placed(self, module: nn.Module) -> nn.Module:
        # channels_last: convolutions on a CPU are up to twice as fast, on a GPU no slower
        dtype = torch.get_default_dtype()
        return module.to(self.device, dtype).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]


@contextmanager
def _initialisation(seed: int, what: str) -> Iterator[None]:
    """Modules initialise themselves from torch's global generator: seed it, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, f"initialisation of the {what}"))
        yield
