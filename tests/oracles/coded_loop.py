"""Training with coded messages, as a plain loop over one client."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.quant.codec import Codec
from fedsplit.quant.quantization import rounding_seed
from fedsplit.state.weights import Weights
from fedsplit.training.experiment import Experiment


def decoded_from_bytes(codec: Codec, x: Tensor, seed: int = 0) -> Tensor:
    """Return what arrives of a tensor that really goes through bytes."""
    return codec.decode(codec.encode(x.detach(), seed=seed))


class CodedLoop:
    """One client and one server as plain modules, between which every message goes through bytes."""

    def __init__(self, run: Experiment, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        halves = run.parts.models.halves
        self.run, self.quantization = run, run.parts.quantization
        self.client, self.server = copy.deepcopy(halves.client), copy.deepcopy(halves.server)
        self.auxiliary = copy.deepcopy(run.parts.models.auxiliary) or nn.Linear(1, 1)
        self.steppers = {
            id(module): optimizer(module) for module in (self.client, self.server, self.auxiliary)
        }
        self.central = self.state()
        self.held: Weights = {}
        self.residual: Weights = {name: torch.zeros_like(tensor) for name, tensor in self.central.items()}

    def state(self) -> Weights:
        return {name: tensor.clone() for name, tensor in self.client.state_dict().items()}

    def step(self, module: nn.Module, loss: Tensor | None = None) -> None:
        """Along the gradients of a loss, or those that are there; afterwards there are none."""
        if loss is not None:
            loss.backward()
        self.steppers[id(module)].step()
        self.steppers[id(module)].zero_grad()

    def smashed(self, z: Tensor, t: int, step: int) -> Tensor:
        seed = rounding_seed(self.run.config.training.seed, "smashed", 0, t, step)
        return decoded_from_bytes(self.quantization.smashed, z, seed).requires_grad_()

    def difference(self, x: Tensor, codec: Codec) -> Tensor:
        return decoded_from_bytes(codec, x) if x.ndim > 1 else x.float().half().to(x.dtype)

    def receive(self) -> None:
        codecs = self.quantization.weights
        for name, tensor in self.central.items():
            if name in self.held:
                self.held[name] = self.held[name] + self.difference(tensor - self.held[name], codecs.down)
            else:
                self.held[name] = decoded_from_bytes(codecs.whole, tensor) if tensor.ndim > 1 else tensor
        self.client.load_state_dict(self.held)

    def send(self) -> None:
        for name, tensor in self.state().items():
            meant = tensor - self.held[name] + self.residual[name]
            arrived = self.difference(meant, self.quantization.weights.up)
            self.residual[name] = meant - arrived
            self.central[name] = self.held[name] + arrived

    def splitfed(self, t: int) -> None:
        self.receive()
        for step, x, y in self.run.parts.batches(0).round(t):
            z = self.client(x)
            seen = self.smashed(z, t, step)
            self.step(self.server, F.cross_entropy(self.server(seen), y))
            assert seen.grad is not None
            seed = rounding_seed(self.run.config.training.seed, "cut_gradient", 0, t, step)
            z.backward(decoded_from_bytes(self.quantization.cut_gradient, seen.grad, seed))
            self.step(self.client)
        self.send()
