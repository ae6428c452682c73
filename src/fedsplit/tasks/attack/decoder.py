"""A small network of transposed convolutions, trained to turn smashed data back into images."""

import copy
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from fedsplit.computing.model_state import compute_format
from fedsplit.config.values import PositiveFloat, PositiveInt
from fedsplit.data.batches import batch_slices
from fedsplit.randomness import generator, seed_of
from fedsplit.tasks.attack.inversion import Inversion, Reconstruct


class DecoderAttack(Inversion):
    """A network that is the client model's inverse, as far as there is one.

    It is trained on exact smashed data first, and then for some epochs more on what the server receives. The
    first part is shared by all codecs.

    Source: Z. He et al., "Model Inversion Attacks Against Collaborative Inference", ACSAC 2019.

    Args:
        channels: channels of its layers; the last has half of them.
        epochs: epochs on exact smashed data.
        adapt_epochs: more of them, on what is received.
        batch_size: batch size of a step.
        learning_rate: the highest, of Adam on a one-cycle schedule; a third of it in the second part.
    """

    name = "decoder"

    def __init__(
        self,
        *,
        channels: PositiveInt,
        epochs: PositiveInt,
        adapt_epochs: PositiveInt,
        batch_size: PositiveInt,
        learning_rate: PositiveFloat,
    ) -> None:
        super().__init__()
        self.channels, self.epochs, self.adapt_epochs = channels, epochs, adapt_epochs
        self.batch_size, self.learning_rate = batch_size, learning_rate

    @override
    def learn(self, z: Tensor, x: Tensor, *, seed: int) -> Reconstruct:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(seed, "initialisation of a decoder"))
            network = decoder_network(tuple(z.shape[1:]), tuple(x.shape[1:]), self.channels)
        network = network.to(z.device, z.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        untrained = _DecoderState(self, network, epochs=0)
        return untrained.further(z, x, self.epochs, self.learning_rate, seed)


class _DecoderState(Reconstruct):
    def __init__(self, attacker: DecoderAttack, network: nn.Module, epochs: int) -> None:
        self._attacker, self._network, self.epochs = attacker, network, epochs

    @torch.inference_mode()
    @override
    def __call__(self, z: Tensor) -> Tensor:
        self._network.eval()
        size = self._attacker.batch_size
        return torch.cat([self._network(compute_format(part)) for part in torch.split(z, size)])

    @override
    def adapt(self, z: Tensor, x: Tensor, *, seed: int) -> Reconstruct:
        attacker = self._attacker
        return self.further(z, x, attacker.adapt_epochs, attacker.learning_rate / 3, seed)

    def further(self, z: Tensor, x: Tensor, epochs: int, learning_rate: float, seed: int) -> "_DecoderState":
        """A copy that is trained for further epochs."""
        network, size = copy.deepcopy(self._network).train(), self._attacker.batch_size
        steps = epochs * len(batch_slices(len(z), size))
        optimizer = torch.optim.Adam(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
        for epoch in range(self.epochs, self.epochs + epochs):
            order = torch.randperm(len(z), generator=generator(seed, "batches of a decoder", epoch=epoch))
            for piece in batch_slices(len(z), size):
                chosen = order[piece].to(z.device)
                optimizer.zero_grad()
                functional.mse_loss(network(compute_format(z[chosen])), x[chosen]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        return _DecoderState(self._attacker, network, self.epochs + epochs)


def decoder_network(
    smashed_shape: tuple[int, ...], image_shape: tuple[int, ...], channels: int
) -> nn.Sequential:
    """Layers from smashed data `(n, *smashed_shape)` to images `(n, *image_shape)`.

    A convolution takes channels where smashed data have them, else a linear layer makes some, an eighth of
    the image wide; then each transposed convolution doubles the side, until it is the image's or more.
    """
    colours, side = image_shape[0], image_shape[-1]
    layers: list[nn.Module] = []
    if len(smashed_shape) == 3:
        here = max(smashed_shape[1:])
        layers += [nn.Conv2d(smashed_shape[0], channels, 3, padding=1)]
    else:
        here = -(-side // 8)
        values = prod(smashed_shape)
        layers += [
            nn.Flatten(),
            nn.Linear(values, channels * here**2),
            nn.Unflatten(1, (channels, here, here)),
        ]
    layers += [nn.BatchNorm2d(channels), nn.ReLU()]
    width = channels
    while here < side:
        narrower = -(-channels // 2) if 2 * here >= side else channels
        layers += [nn.ConvTranspose2d(width, narrower, 4, stride=2, padding=1)]
        layers += [nn.BatchNorm2d(narrower), nn.ReLU()]
        width, here = narrower, 2 * here
    resize = nn.Upsample(size=image_shape[1:], mode="bilinear", align_corners=False)
    return nn.Sequential(
        *layers, *([resize] if here != side else []), nn.Conv2d(width, colours, 3, padding=1)
    )
