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
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.quantization import WeightsCodecs
from fedsplit.randomness import seed_of
from fedsplit.state.state import State
from fedsplit.state.weights import Weights

EXACT, HALF = Identity(), Float16()


@dataclass(frozen=True)
class Delivery:
    """Weights as they arrive, and the tensors that travelled for them, in the same order.

    Args:
        codec: codec of the larger tensors.
        difference: True if they are to be added to what the receiver holds.
    """

    weights: Weights
    tensors: list[SentTensor]
    codec: Codec
    difference: bool


class _Link:
    """One end of the way that weights take; `packs`: True to make messages, not only decoded values."""

    def __init__(self, codecs: WeightsCodecs, device: torch.device, *, packs: bool = False) -> None:
        self._codecs, self._device, self._packs = codecs, device, packs

    def _send_whole(self, weights: Weights, codec: Codec, seed: int) -> Delivery:
        sent_tensors = self._send_tensors(weights, codec, seed, difference=False)
        return Delivery(_arrivals(sent_tensors), list(sent_tensors.values()), codec, difference=False)

    def _send_tensors(
        self, tensors: Weights, codec: Codec, seed: int, *, difference: bool
    ) -> dict[str, SentTensor]:
        sent_tensors = {}
        # an order of its own: that of weights is another after a resume, and so the last bits of energies
        for name, tensor in sorted(tensors.items()):
            tensor_codec = codec_of(name, tensor, codec, difference=difference)
            send = tensor_codec.transmit if self._packs else tensor_codec.simulate
            sent_tensors[name] = SentTensor(tensor, send(tensor, seed=seed_of(seed, name)))
        return sent_tensors


class Downlink(_Link):
    """The server's end, for one part of the model, which knows what each client holds of it."""

    def __init__(self, codecs: WeightsCodecs, device: torch.device, *, packs: bool = False) -> None:
        super().__init__(codecs, device, packs=packs)
        self._weights_at: dict[int, Weights] = {}
        self._shared_in: dict[int, int] = {}
        self._rounds = (-1, -1)

    def weights_at(self, client: int) -> Weights | None:
        """Weights that a client received last; None where weights travel as they are."""
        return self._weights_at.get(client)

    def share(self, weights: Weights, clients: Collection[int], round: int, seed: int) -> dict[int, Delivery]:
        """Send the same weights to clients, whole to those that were left out the last time."""
        before, last_round = self._rounds
        if round != last_round:
            self._rounds = before, last_round = last_round, round
            self._shared_in = {
                c: round_of_share for c, round_of_share in self._shared_in.items() if round_of_share == before
            }
            self._weights_at = {c: weights for c, weights in self._weights_at.items() if c in self._shared_in}
        self._shared_in |= dict.fromkeys(clients, round)
        delivery_by_version: dict[
            int | None, Delivery
        ] = {}  # by the weights held: who holds the same gets the same message
        deliveries = {}
        for client in clients:
            base = self._weights_at.get(client)
            version = id(base) if base is not None else None
            if version not in delivery_by_version:
                delivery_by_version[version] = self._deliver(
                    weights, base, seed_of(seed, "whole" if base is None else "difference")
                )
            deliveries[client] = delivery_by_version[version]
        self._keep(deliveries)
        return deliveries

    def send(self, client: int, weights: Weights, seed: int) -> Delivery:
        """Send a client weights of its own: a difference where it holds some, whole where it does not."""
        delivery = self._deliver(weights, self._weights_at.get(client), seed)
        self._keep({client: delivery})
        return delivery

    def _keep(self, deliveries: Mapping[int, Delivery]) -> None:
        if not self._codecs.lossless:
            self._weights_at |= {client: delivery.weights for client, delivery in deliveries.items()}

    def _deliver(self, weights: Weights, base: Weights | None, seed: int) -> Delivery:
        codec = self._codecs.whole if base is None else self._codecs.down
        if base is None or codec.lossless:
            return self._send_whole(weights, codec, seed)
        sent_tensors = self._send_tensors(_difference(weights, base), codec, seed, difference=True)
        return Delivery(
            add_difference(base, _arrivals(sent_tensors)), list(sent_tensors.values()), codec, difference=True
        )

    def drop(self, clients: Collection[int]) -> None:
        """Forget what clients hold, and send it whole the next time."""
        for client in clients:
            self._weights_at.pop(client, None)
            self._shared_in.pop(client, None)

    def state(self) -> State:
        """Weights that clients hold, each version once."""
        versions = {id(weights): weights for weights in self._weights_at.values()}
        numbers = {identity: str(number) for number, identity in enumerate(versions)}
        return {
            "versions": {numbers[identity]: weights for identity, weights in versions.items()},
            "held": {str(client): numbers[id(held)] for client, held in self._weights_at.items()},
            "shared_in": {
                str(client): self._shared_in[client]
                for client in self._weights_at
                if client in self._shared_in
            },
            "rounds": list(self._rounds),
        }

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        versions = {version: _place(weights, self._device) for version, weights in state["versions"].items()}
        self._weights_at = {int(client): versions[version] for client, version in state["held"].items()}
        self._shared_in = {int(client): round for client, round in state["shared_in"].items()}
        before, last_round = state["rounds"]
        self._rounds = (before, last_round)


class Uplink(_Link):
    """The clients' ends, for one part of the model: what was rounded away of each client's uploads."""

    def __init__(self, codecs: WeightsCodecs, device: torch.device, *, packs: bool = False) -> None:
        super().__init__(codecs, device, packs=packs)
        self._residuals: dict[int, Weights] = {}

    def send(self, client: int, weights: Weights, received: Weights | None, seed: int) -> Delivery:
        """Send a client's weights; `received` is what it was sent before, which the server holds too."""
        codec, residual = self._codecs.up, self._residuals.get(client, {})
        if received is None or codec.lossless:
            return self._send_whole(weights, codec, seed)
        difference = _difference(weights, received).items()
        corrected = {
            name: change + residual[name] if name in residual else change for name, change in difference
        }
        sent_tensors = self._send_tensors(corrected, codec, seed, difference=True)
        self._residuals[client] = {
            name: sent.original - sent.transfer.decoded
            for name, sent in sent_tensors.items()
            if sent.original.is_floating_point()
        }
        return Delivery(
            add_difference(received, _arrivals(sent_tensors)),
            list(sent_tensors.values()),
            codec,
            difference=True,
        )

    def forget(self) -> None:
        """Drop the residuals of all clients."""
        self._residuals.clear()

    def state(self) -> State:
        """Residuals of the clients, by client."""
        return {str(client): residual for client, residual in self._residuals.items()}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._residuals = {int(client): _place(residual, self._device) for client, residual in state.items()}


def _place(weights: Weights, device: torch.device) -> Weights:
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


def _arrivals(sent_tensors: Mapping[str, SentTensor]) -> Weights:
    return {name: sent.transfer.decoded for name, sent in sent_tensors.items()}


def _difference(weights: Weights, base: Weights) -> Weights:
    return {
        name: tensor - base[name] if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }


def add_difference(base: Weights, difference: Weights) -> Weights:
    """Add a decoded difference to a receiver's weights; replace whole numbers by the difference's."""
    return {
        name: base[name] + change if change.is_floating_point() else change
        for name, change in difference.items()
    }
