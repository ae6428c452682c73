"""Tensors as announcements and payloads."""

from fedsplit.parties.messages import Part
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.message import Payload
from fedsplit.quant.weights_link import Delivery
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import Expectations
from fedsplit.transport.grpc.protocol.frames import announcement

Packed = tuple[pb.Tensor, Payload]
"""An announcement, and the payload that follows."""


def pack(name: str, number: pb.Codec, coded: SentTensor) -> Packed:
    """A tensor that was coded, with its message."""
    message = coded.transfer.message
    assert message is not None, "this link packs no messages"
    signal, noise = float(coded.signal), float(coded.noise)
    return announcement(name, number, message, signal=signal, noise=noise), message.payload


def pack_weights(delivery: Delivery, expectations: Expectations, part: Part) -> list[Packed]:
    """Weights of a part, in the order in which they are expected."""
    expected = expectations.weights(part, delivery.codec, difference=delivery.difference)
    coded = dict(zip(delivery.weights, delivery.tensors, strict=True))
    return [pack(each.name, each.number, coded[each.name]) for each in expected]
