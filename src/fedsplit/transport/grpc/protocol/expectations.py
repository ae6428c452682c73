"""What tensors each message may carry: both sides know it from the plan, and believe nothing else."""

from collections.abc import Sequence
from functools import cached_property

import torch

from fedsplit.parties.messages import Part
from fedsplit.quant.codec import Codec
from fedsplit.quant.codecs.labels import Labels
from fedsplit.quant.message import Corrupt
from fedsplit.quant.weights_link import EXACT, HALF, codec_of
from fedsplit.state.weights import Weights
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Expected
from fedsplit.transport.transport import RunSetting

PARTS: dict[Part, pb.Part] = {"client": pb.CLIENT, "auxiliary": pb.AUXILIARY, "full": pb.FULL}
"""Their numbers in the protocol."""


class Expectations:
    """The tensors of one run's messages.

    Args:
        run: which.
    """

    def __init__(self, run: RunSetting) -> None:
        self._codecs, self.labels = run.quantization, Labels(run.dataset.num_classes)
        self._smashed_shape = run.smashed_shape
        self._batch_size = run.config.training.batch_size
        self._local_epochs = run.config.training.local_epochs
        self._dtype = torch.get_default_dtype()
        self._weights: dict[Part, Weights] = {
            "client": run.client_weights,
            "auxiliary": run.head_weights,
            "full": {**run.client_weights, **run.head_weights},
        }
        weights = run.quantization.weights
        self._numbers = {
            id(EXACT): pb.EXACT,
            id(HALF): pb.HALF,
            id(weights.up): pb.WEIGHTS_UP,
            id(weights.down): pb.WEIGHTS_DOWN,
            id(weights.whole): pb.WEIGHTS_WHOLE,
        }

    def part(self, number: pb.Part) -> Part:
        """The part that has this number in the protocol.

        Raises:
            Corrupt: none has, or clients of this run hold none.
        """
        for part, known in PARTS.items():
            if known == number and self._weights[part]:
                return part
        raise Corrupt(f"{number} is no part of this run's models")

    def weights(self, part: Part, codec: Codec, *, difference: bool) -> list[Expected]:
        """The tensors of weights, in the order in which they are counted."""
        expected = []
        for name, tensor in sorted(self._weights[part].items()):
            chosen = codec_of(name, tensor, codec, difference=difference)
            number = self._numbers[id(chosen)]
            expected.append(Expected(name, number, chosen, tuple(tensor.shape), tensor.dtype))
        return expected

    def sent_down(self, part: Part, tensors: Sequence[pb.Tensor], *, difference: bool) -> list[Expected]:
        """The tensors of weights to a client.

        The server forgets what a client holds that was left out for a round, and sends weights whole again.
        """
        weights = self._codecs.weights
        whole = any(tensor.codec == pb.WEIGHTS_WHOLE for tensor in tensors)
        exactly = weights.down.lossless and not whole
        codec = weights.down if difference or exactly else weights.whole
        return self.weights(part, codec, difference=difference)

    def sent_up(self, part: Part, *, difference: bool) -> list[Expected]:
        """The tensors of weights from a client."""
        return self.weights(part, self._codecs.weights.up, difference=difference)

    def upload(self, samples: int) -> list[Expected]:
        """Smashed data and labels of a batch of so many samples."""
        batch = (samples, *self._smashed_shape)
        return [
            Expected("z", self.cut_number("smashed"), self._codecs.smashed, batch, self._dtype),
            Expected("y", pb.LABELS, self.labels, batch[:1], torch.int64),
        ]

    def cut_gradient(self, tensors: Sequence[pb.Tensor]) -> list[Expected]:
        """A cut gradient, of as many samples as are announced.

        Raises:
            Corrupt: no batch has so many.
        """
        samples = tensors[0].shape[0] if tensors and tensors[0].shape else 0
        if not 1 <= samples <= self._batch_size + 1:  # a last batch of one sample joins the one before it
            raise Corrupt(f"no batch of this run has {samples} samples")
        codec, batch = self._codecs.cut_gradient, (samples, *self._smashed_shape)
        return [Expected("dz", self.cut_number("cut_gradient"), codec, batch, self._dtype)]

    def steps(self, samples: int) -> int:
        """Local steps in a round of a client with so many training samples."""
        return self._batches(samples) * self._local_epochs

    def batch(self, samples: int, step: int) -> int:
        """Samples of the batch of one of these steps."""
        batches = self._batches(samples)
        last = samples - (batches - 1) * self._batch_size
        return last if step % batches == batches - 1 else self._batch_size

    def _batches(self, samples: int) -> int:
        batches, rest = divmod(samples, self._batch_size)
        joins = rest == 1 and batches > 0
        return batches + (rest > 0 and not joins)

    @cached_property
    def most_up(self) -> int:
        """The most bytes of payload that a message of a client can have."""
        sent = [self.upload(self._batch_size + 1)]
        sent += [self.sent_up(part, difference=d) for part in self._weights for d in (False, True)]
        return max(sum(each.codec.largest(each.shape, each.dtype) for each in tensors) for tensors in sent)

    def cut_number(self, kind: str) -> pb.Codec:
        """Of the codec of smashed data or cut gradients."""
        codec = self._codecs.smashed if kind == "smashed" else self._codecs.cut_gradient
        if codec.lossless:
            return pb.EXACT
        return pb.SMASHED if kind == "smashed" else pb.CUT_GRADIENT
