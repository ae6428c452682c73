"""Weights on their way: as differences to weights that both ends hold, with error feedback.

Server to client, the difference to what the client holds is coded, and that is what the client decoded
before: what was rounded away is in the next difference by itself. Client to server, the difference is
to what the client received this round, and the client keeps what was rounded away and adds it to its
next upload. So the sum of what was sent converges to what was meant.

Source: S. P. Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes",
2019.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsplit.quant.codec import Codec
from fedsplit.quant.codecs.float16 import Float16
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.coded import Coded
from fedsplit.quant.quantization import WeightsCodecs
from fedsplit.randomness import seed_of
from fedsplit.state.state import State
from fedsplit.state.weights import Weights

EXACT, HALF = Identity(), Float16()


@dataclass(frozen=True)
class Delivery:
    """Weights as they arrive, and the tensors that travelled for them, in the same order.

    Args:
        codec: of the larger ones.
        difference: whether they are to be added to what the receiver holds.
    """

    weights: Weights
    coded: list[Coded]
    codec: Codec
    difference: bool


class _Link:
    """One end of the way that weights take; `packs`: whether messages are made, not only decoded values."""

    def __init__(self, codecs: WeightsCodecs, device: torch.device, *, packs: bool = False) -> None:
        self._codecs, self._device, self._packs = codecs, device, packs

    def _whole(self, weights: Weights, codec: Codec, seed: int) -> Delivery:
        coded = self._coded(weights, codec, seed, difference=False)
        return Delivery(_decoded(coded), list(coded.values()), codec, difference=False)

    def _coded(self, tensors: Weights, codec: Codec, seed: int, *, difference: bool) -> dict[str, Coded]:
        coded = {}
        # an order of its own: that of weights is another after a resume, and so the last bits of energies
        for name, tensor in sorted(tensors.items()):
            chosen = codec_of(name, tensor, codec, difference=difference)
            send = chosen.transmit if self._packs else chosen.simulate
            coded[name] = Coded(tensor, send(tensor, seed=seed_of(seed, name)))
        return coded


class Downlink(_Link):
    """The server's end, for one part of the model: what each client holds of it."""

    def __init__(self, codecs: WeightsCodecs, device: torch.device, *, packs: bool = False) -> None:
        super().__init__(codecs, device, packs=packs)
        self._held: dict[int, Weights] = {}
        self._shared_in: dict[int, int] = {}
        self._rounds = (-1, -1)

    def held(self, client: int) -> Weights | None:
        """Weights that a client received last; None where weights travel as they are."""
        return self._held.get(client)

    def share(self, weights: Weights, clients: Collection[int], round: int, seed: int) -> dict[int, Delivery]:
        """Send the same weights to clients; whole to those that were left out the last time."""
        before, last = self._rounds
        if round != last:
            self._rounds = before, last = last, round
            self._shared_in = {c: shared for c, shared in self._shared_in.items() if shared == before}
            self._held = {c: held for c, held in self._held.items() if c in self._shared_in}
        self._shared_in |= dict.fromkeys(clients, round)
        sent: dict[int | None, Delivery] = {}  # by the weights held: who holds the same gets the same message
        deliveries = {}
        for client in clients:
            held = self._held.get(client)
            version = id(held) if held is not None else None
            if version not in sent:
                sent[version] = self._delivery(
                    weights, held, seed_of(seed, "whole" if held is None else "difference")
                )
            deliveries[client] = sent[version]
        self._keep(deliveries)
        return deliveries

    def send(self, client: int, weights: Weights, seed: int) -> Delivery:
        """Send a client weights of its own: a difference where it holds some, whole where it does not."""
        delivery = self._delivery(weights, self._held.get(client), seed)
        self._keep({client: delivery})
        return delivery

    def _keep(self, deliveries: Mapping[int, Delivery]) -> None:
        if not self._codecs.lossless:
            self._held |= {client: delivery.weights for client, delivery in deliveries.items()}

    def _delivery(self, meant: Weights, held: Weights | None, seed: int) -> Delivery:
        codec = self._codecs.whole if held is None else self._codecs.down
        if held is None or codec.lossless:
            return self._whole(meant, codec, seed)
        coded = self._coded(_difference(meant, held), codec, seed, difference=True)
        return Delivery(add_difference(held, _decoded(coded)), list(coded.values()), codec, difference=True)

    def drop(self, clients: Collection[int]) -> None:
        """Forget what clients hold, and send it whole the next time."""
        for client in clients:
            self._held.pop(client, None)
            self._shared_in.pop(client, None)

    def state(self) -> State:
        """Weights that clients hold, each version once."""
        versions = {id(held): held for held in self._held.values()}
        numbers = {identity: str(number) for number, identity in enumerate(versions)}
        return {
            "versions": {numbers[identity]: held for identity, held in versions.items()},
            "held": {str(client): numbers[id(held)] for client, held in self._held.items()},
            "shared_in": {
                str(client): self._shared_in[client] for client in self._held if client in self._shared_in
            },
            "rounds": list(self._rounds),
        }

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        versions = {version: _placed(held, self._device) for version, held in state["versions"].items()}
        self._held = {int(client): versions[version] for client, version in state["held"].items()}
        self._shared_in = {int(client): round for client, round in state["shared_in"].items()}
        before, last = state["rounds"]
        self._rounds = (before, last)


class Uplink(_Link):
    """The clients' ends, for one part of the model: what was rounded away of each client's uploads."""

    def __init__(self, codecs: WeightsCodecs, device: torch.device, *, packs: bool = False) -> None:
        super().__init__(codecs, device, packs=packs)
        self._residuals: dict[int, Weights] = {}

    def send(self, client: int, weights: Weights, received: Weights | None, seed: int) -> Delivery:
        """Send a client's weights; `received` is what it was sent before, which the server holds too."""
        codec, residual = self._codecs.up, self._residuals.get(client, {})
        if received is None or codec.lossless:
            return self._whole(weights, codec, seed)
        difference = _difference(weights, received).items()
        meant = {name: each + residual[name] if name in residual else each for name, each in difference}
        coded = self._coded(meant, codec, seed, difference=True)
        self._residuals[client] = {
            name: each.original - each.arrived.decoded
            for name, each in coded.items()
            if each.original.is_floating_point()
        }
        return Delivery(
            add_difference(received, _decoded(coded)), list(coded.values()), codec, difference=True
        )

    def forget(self) -> None:
        """Drop the residuals of all clients."""
        self._residuals.clear()

    def state(self) -> State:
        """Residuals of the clients, by client."""
        return {str(client): residual for client, residual in self._residuals.items()}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._residuals = {int(client): _placed(residual, self._device) for client, residual in state.items()}


def _placed(weights: Weights, device: torch.device) -> Weights:
    return {name: tensor.to(device) for name, tensor in weights.items()}


def codec_of(name: str, tensor: Tensor, codec: Codec, *, difference: bool) -> Codec:
    """The codec of one tensor of weights: `codec` if it is a larger one, else exact, or half precision.

    Biases and BatchNorm's parameters are few, and matter much: their differences go in half precision,
    they themselves exactly. BatchNorm's statistics and ranges of activations always go exactly: a variance
    that falls to a thousandth within a round would not survive half precision of the difference.
    """
    statistic = name.endswith(("running_mean", "running_var", "running_min", "running_max"))
    if codec.lossless or statistic or not tensor.is_floating_point():
        return EXACT
    if tensor.ndim > 1:
        return codec
    return HALF if difference else EXACT


def _decoded(coded: Mapping[str, Coded]) -> Weights:
    return {name: each.arrived.decoded for name, each in coded.items()}


def _difference(weights: Weights, held: Weights) -> Weights:
    return {
        name: tensor - held[name] if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }


def add_difference(held: Weights, decoded: Weights) -> Weights:
    """Add a decoded difference to a receiver's weights; whole numbers travel as they are."""
    return {name: held[name] + each if each.is_floating_point() else each for name, each in decoded.items()}
