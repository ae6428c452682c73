"""Server that only pretends to train while it draws clients towards a model of its own."""

import copy
from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from fedsplit.computing.model_state import compute_format
from fedsplit.data.batches import batch_slices
from fedsplit.objectives.objective import Objective
from fedsplit.parties.messages import BatchLoss, Upload
from fedsplit.parties.server_copies import ServerCopies
from fedsplit.parties.split_server import SplitServer
from fedsplit.randomness import generator, seed_of
from fedsplit.state.state import State
from fedsplit.state.weights import Weights
from fedsplit.tasks.attack.decoder import decoder_network


class Imposter:
    """A pilot model with its decoder, and a discriminator that tells the pilot's smashed data from clients'.

    Pilot and decoder first learn to give back the attacker's images. Then clients are sent the
    gradient along which their smashed data look like the pilot's, and then the decoder gives back theirs.

    Args:
        client: the client model as it was initialised, which the pilot begins as.
        x: inputs of the attacker's images, `(n, c, h, w)`.
        pixels: pixels of these images.
        coded_shape: shape of one sample's smashed data, with their channels.
        channels: channels of decoder and discriminator.
        epochs: epochs of pilot and decoder on the attacker's images, before the first round.
        learning_rate: learning rate of all three, by Adam.
        penalty: penalty on the squared slope of the discriminator at the pilot's smashed data. Without one it
            soon tells all apart, and clients are led nowhere (L. Mescheder et al., "Which Training Methods
            for GANs do actually Converge?", ICML 2018).
        batch_size: batch size of a step.
        seed: seed of everything that is drawn.
    """

    def __init__(
        self,
        client: nn.Module,
        x: Tensor,
        pixels: Tensor,
        *,
        coded_shape: tuple[int, ...],
        channels: int,
        epochs: int,
        learning_rate: float,
        penalty: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self._x, self._pixels, self._shape = x, pixels, coded_shape
        self._batch_size, self._penalty, self._seed, self._steps = batch_size, penalty, seed, 0
        self._pilot = copy.deepcopy(client).train()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(seed, "initialisation of an imposter"))
            self._decoder = decoder_network(coded_shape, tuple(pixels.shape[1:]), channels).to(x.device)
            self._discriminator = discriminator_network(coded_shape, channels).to(x.device)
        self._of_discriminator = torch.optim.Adam(
            self._discriminator.parameters(), learning_rate, betas=(0.5, 0.99)
        )
        self._prepare(epochs, learning_rate)

    def _prepare(self, epochs: int, learning_rate: float) -> None:
        """Train pilot and decoder to give back the attacker's images, before any client is there."""
        learning = [*self._pilot.parameters(), *self._decoder.parameters()]
        optimizer = torch.optim.Adam((each for each in learning if each.requires_grad), learning_rate)
        for epoch in range(epochs):
            draw = generator(self._seed, "batches of a pilot", epoch=epoch)
            order = torch.randperm(len(self._x), generator=draw).to(self._x.device)
            for piece in batch_slices(len(order), self._batch_size):
                optimizer.zero_grad()
                z = self._pilot(compute_format(self._x[order[piece]])).reshape(-1, *self._shape)
                loss = functional.mse_loss(self._decoder(compute_format(z)), self._pixels[order[piece]])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def learn(self, z: Tensor) -> Tensor:
        """Step the discriminator on smashed data that came from a client; its loss, 0-d."""
        draw = generator(self._seed, "batches of an imposter", step=self._steps)
        self._steps += 1
        chosen = torch.randperm(len(self._x), generator=draw)[: len(z)].to(self._x.device)
        with torch.no_grad():
            own = self._pilot(compute_format(self._x[chosen])).reshape(-1, *self._shape)
        own.requires_grad_()
        of_pilot, of_client = self._logits(own), self._logits(z.detach())
        loss = functional.softplus(-of_pilot).mean() + functional.softplus(of_client).mean()
        (slope,) = torch.autograd.grad(of_pilot.sum(), own, create_graph=True)
        steepness = slope.square().flatten(1).sum(1).mean()
        self._of_discriminator.zero_grad()
        (loss + self._penalty / 2 * steepness).backward()
        self._of_discriminator.step()
        return loss.detach()

    def gradients(self, z: Tensor) -> Tensor:
        """Gradients of a loss that is small where a sample looks like the pilot's, in the shape of `z`."""
        z = z.detach().requires_grad_()
        logits = self._logits(z)
        loss = functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, z)
        return gradient

    def reconstruct(self, z: Tensor) -> Tensor:
        """Images `(n, c, h, w)` of smashed data."""
        with torch.no_grad():
            images: Tensor = self._decoder.eval()(compute_format(z.reshape(-1, *self._shape)))
        self._decoder.train()
        return images

    def _logits(self, z: Tensor) -> Tensor:
        logits: Tensor = self._discriminator(compute_format(z.reshape(-1, *self._shape)))
        return logits


def discriminator_network(smashed_shape: tuple[int, ...], channels: int) -> nn.Sequential:
    """Layers from smashed data `(n, *smashed_shape)` to a logit `(n, 1)`."""
    if len(smashed_shape) != 3:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(smashed_shape), 2 * channels),
            nn.LeakyReLU(0.2),
            nn.Linear(2 * channels, 1),
        )
    depth, height, width = smashed_shape
    layers: list[nn.Module] = [nn.Conv2d(depth, channels, 3, padding=1), nn.LeakyReLU(0.2)]
    while min(height, width) > 4:
        layers += [nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, 1))


class HijackingServer(SplitServer):
    """A split server whose cut gradients are an imposter's; the server model stays as it was.

    Args:
        honest: the server in whose place it stands.
        imposter: imposter that is trained in place of the server model.
        objective: objective of the run.
    """

    def __init__(self, honest: SplitServer, imposter: Imposter, objective: Objective) -> None:
        self._honest, self.imposter, self._counted = honest, imposter, objective

    @override
    def step(self, round: int, upload: Upload) -> tuple[BatchLoss, Tensor]:
        loss = self.imposter.learn(upload.z)
        return self.batch_loss(upload, loss), self.answer(upload)

    def answer(self, upload: Upload) -> Tensor:
        """The cut gradient that a client gets."""
        return self.imposter.gradients(upload.z) / len(upload.y)

    def batch_loss(self, upload: Upload, loss: Tensor) -> BatchLoss:
        """The loss of a client's batch, as the algorithm takes it."""
        return BatchLoss([upload.client], loss[None], self._counted.counts(upload.y))

    @override
    def cut_gradients(self, z: Tensor, y: Tensor, *, seed: int) -> Tensor:
        return self.imposter.gradients(z)

    @override
    def terms(self, y: Tensor) -> int:
        return self._honest.terms(y)

    @override
    def weights(self) -> Weights:
        return self._honest.weights()

    @override
    def load(self, weights: Weights) -> None:
        self._honest.load(weights)


class HijackingCopies(ServerCopies):
    """Copies of a server model which are one imposter.

    Args:
        server: server that stands for all of them.
    """

    def __init__(self, server: HijackingServer) -> None:
        self._server = server

    @override
    def load(self, samples: Mapping[int, int], weights: Weights) -> None:
        self._server.load(weights)

    @override
    def step(self, round: int, uploads: Sequence[Upload]) -> tuple[list[BatchLoss], Mapping[int, Tensor]]:
        # one step on all of them: a discriminator that steps more often than clients leaves them behind
        loss = self._server.imposter.learn(torch.cat([upload.z for upload in uploads]))
        answered = {upload.client: self._server.answer(upload) for upload in uploads}
        losses = [self._server.batch_loss(upload, loss) for upload in uploads]
        return losses, answered

    @override
    def weights(self, clients: Sequence[int]) -> list[Weights]:
        return [self._server.weights() for _ in clients]

    @override
    def state(self) -> State:
        return {}

    @override
    def load_state(self, state: State) -> None:
        raise AssertionError("an attack is not resumed")

    @override
    def forget(self) -> None:
        """Keep the imposter: it is no client's."""
