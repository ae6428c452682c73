"""The algorithms as plain PyTorch loops: what the package is compared with, in result and in speed.

Live modules, `backward()`, `torch.optim`, and alignment by differentiating twice. Nothing of
`fedsplit.parties`, `fedsplit.estimators` or `fedsplit.algorithms` is used; of the experiment only its
initial modules and its batches are, and these can be drawn ahead.
"""

import copy
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.randomness import generator

if TYPE_CHECKING:
    from fedsplit.training.experiment import Experiment

Modules = list[nn.Module]


def adam(*modules: nn.Module) -> torch.optim.Optimizer:
    """Adam of the parameters of some modules."""
    return torch.optim.Adam([p for module in modules for p in module.parameters()], lr=1e-3)


def fused_adam(*modules: nn.Module) -> torch.optim.Optimizer:
    """The same, in one pass over memory."""
    parameters = [p for module in modules for p in module.parameters()]
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def sgd(*modules: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for module in modules for p in module.parameters()], lr=1e-2)


def average_into(target: nn.Module, clients: Iterable[nn.Module], counts: list[int]) -> None:
    states = [client.state_dict() for client in clients]
    shares = [count / sum(counts) for count in counts]
    mean = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            mean[name] = first * shares[0]
            for share, state in zip(shares[1:], states[1:], strict=True):
                mean[name].add_(state[name], alpha=share)
        else:
            mean[name] = torch.stack([state[name] for state in states]).max()
    target.load_state_dict(mean)


class PlainLoop:
    """State of a plain run: the modules of everybody."""

    def __init__(
        self, experiment: "Experiment", optimizer: Callable[..., torch.optim.Optimizer] = adam
    ) -> None:
        self.experiment, self.optimizer = experiment, optimizer
        halves = experiment.parts.models.halves
        self.client, self.server = copy.deepcopy(halves.client), copy.deepcopy(halves.server)
        self.auxiliary = copy.deepcopy(experiment.parts.models.auxiliary) or nn.Identity()
        self.counts = [len(shard) for shard in experiment.parts.data.shards]
        self.number = len(self.counts)
        self.clients = [copy.deepcopy(self.client) for _ in range(self.number)]
        self.servers = [copy.deepcopy(self.server) for _ in range(self.number)]
        self.auxiliaries = [copy.deepcopy(self.auxiliary) for _ in range(self.number)]
        self.client_steppers = [optimizer(module) for module in self.clients]
        self.server_steppers = [optimizer(module) for module in self.servers]
        aligner = fused_adam if optimizer is fused_adam else adam
        self.auxiliary_steppers = [aligner(m) for m in self.auxiliaries if list(m.parameters())]
        self.server_stepper = optimizer(self.server)
        nothing = torch.empty(0), torch.empty(0)
        self.rings: list[tuple[Tensor, Tensor]] = [nothing] * self.number

        self.preloading: dict[int, float] = {}
        """Seconds that drawing a round's batches took."""
        self._drawn: dict[int, list[list[tuple[int, Tensor, Tensor]]]] = {}

    def preload(self, t: int) -> None:
        """Draw the batches of a round, and drop those of others."""
        start = time.perf_counter()
        clients = map(self.experiment.parts.batches, range(self.number))
        self._drawn = {t: [list(batches.round(t)) for batches in clients]}
        self.preloading[t] = time.perf_counter() - start

    def batches(self, t: int, client: int) -> Iterable[tuple[int, Tensor, Tensor]]:
        if t not in self._drawn:
            self.preload(t)
        return self._drawn[t][client]

    def full_weights(self) -> dict[str, Tensor]:
        return self.client.state_dict() | self.server.state_dict()

    def step_server(self, z: Tensor, y: Tensor) -> None:
        self.server_stepper.zero_grad()
        loss = F.cross_entropy(self.server(z), y)
        if loss.requires_grad:  # not where all of the server model is frozen
            loss.backward()
        self.server_stepper.step()

    def fed_avg(self, t: int) -> None:
        for number, (client, server, *steppers) in enumerate(
            zip(self.clients, self.servers, self.client_steppers, self.server_steppers, strict=True)
        ):
            client.load_state_dict(self.client.state_dict())
            server.load_state_dict(self.server.state_dict())
            for _, x, y in self.batches(t, number):
                for stepper in steppers:
                    stepper.zero_grad()
                F.cross_entropy(server(client(x)), y).backward()
                for stepper in steppers:
                    stepper.step()
        average_into(self.client, self.clients, self.counts)
        average_into(self.server, self.servers, self.counts)

    splitfed_v1 = fed_avg

    def splitfed_v2(self, t: int) -> None:
        order = torch.randperm(
            self.number, generator=generator(self.experiment.config.training.seed, "client order", round=t)
        )
        for i in order.tolist():
            self.clients[i].load_state_dict(self.client.state_dict())
            for _, x, y in self.batches(t, i):
                self.client_steppers[i].zero_grad()
                self.server_stepper.zero_grad()
                F.cross_entropy(self.server(self.clients[i](x)), y).backward()
                self.client_steppers[i].step()
                self.server_stepper.step()
        average_into(self.client, self.clients, self.counts)

    def cse_fsl(self, t: int, q: int = 5) -> None:
        uploads = []
        for i, client in enumerate(self.clients):
            auxiliary = self.auxiliaries[i]
            client.load_state_dict(self.client.state_dict())
            auxiliary.load_state_dict(self.auxiliary.state_dict())
            for step, x, y in self.batches(t, i):
                self.client_steppers[i].zero_grad()
                self.auxiliary_steppers[i].zero_grad()
                z = client(x)
                F.cross_entropy(auxiliary(z), y).backward()
                self.client_steppers[i].step()
                self.auxiliary_steppers[i].step()
                if step % q == 0:
                    uploads.append((z.detach(), y))
        for z, y in uploads:
            self.step_server(z, y)
        average_into(self.client, self.clients, self.counts)
        average_into(self.auxiliary, self.auxiliaries, self.counts)

    def fsl_sage(self, t: int, q: int = 5, l: int = 2) -> None:  # noqa: E741  (the paper's letter)
        for client in self.clients:
            client.load_state_dict(self.client.state_dict())
        if t % l == 0:
            for i, client in enumerate(self.clients):
                _, x, y = next(iter(self.batches(t, i)))
                with torch.no_grad():
                    z = copy.deepcopy(client)(x)
                self.step_server(z, y)
                self.remember(i, z, y)
            for i in range(self.number):
                self.align(t, i)
        uploads = []
        for i, client in enumerate(self.clients):
            for step, x, y in self.batches(t, i):
                z = client(x)
                leaf = z.detach().requires_grad_()
                (dz,) = torch.autograd.grad(F.cross_entropy(self.auxiliaries[i](leaf), y), leaf)
                self.client_steppers[i].zero_grad()
                z.backward(dz)
                self.client_steppers[i].step()
                if step % q == 0 and not (step == 0 and t % l == 0):
                    uploads.append((i, z.detach(), y))
        for i, z, y in uploads:
            self.step_server(z, y)
            self.remember(i, z, y)
        average_into(self.client, self.clients, self.counts)

    def remember(self, i: int, z: Tensor, y: Tensor) -> None:
        kept = self.experiment.config.alignment.max_dataset_size
        old_z, old_y = self.rings[i]
        all_z = torch.cat([old_z, z]) if len(old_y) else z
        all_y = torch.cat([old_y, y]) if len(old_y) else y
        self.rings[i] = all_z[-kept:], all_y[-kept:]

    def align(self, t: int, i: int) -> None:
        settings = self.experiment.config.alignment
        z, y = self.rings[i]
        size = settings.align_batch_size
        starts = list(range(0, len(y), size))
        if size > 1 and len(y) % size == 1 and len(starts) > 1:
            starts.pop()
        targets, server = [], copy.deepcopy(self.server)
        for start, stop in zip(starts, [*starts[1:], len(y)], strict=True):
            leaf = z[start:stop].clone().requires_grad_()
            loss = F.cross_entropy(server(leaf), y[start:stop], reduction="sum")
            targets.append((leaf.detach(), y[start:stop], torch.autograd.grad(loss, leaf)[0]))
        auxiliary, stepper = self.auxiliaries[i], self.auxiliary_steppers[i]
        for epoch in range(settings.align_epochs):
            draw = generator(
                self.experiment.config.training.seed, "alignment", client=i, round=t, epoch=epoch
            )
            for position in torch.randperm(len(targets), generator=draw).tolist():
                chunk, labels, target = targets[position]
                leaf = chunk.clone().requires_grad_()
                loss = F.cross_entropy(auxiliary(leaf), labels, reduction="sum")
                (estimate,) = torch.autograd.grad(loss, leaf, create_graph=True)
                stepper.zero_grad()
                (estimate - target).square().sum().backward()
                stepper.step()
