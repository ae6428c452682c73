"""Labels of padded text as they travel: lengths, and labels of real positions."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.codecs.label_codec import LabelCodec, smallest_type
from fedsplit.quant.message import Corrupt, Message, expect


class TokenLabels(LabelCodec):
    """Labels `(b, t)` that are padded at the right of each sample.

    Payload: the length of each sample, then the labels of its real positions, each in the smallest unsigned
    type that holds them. The largest code, `vocabulary`, stands for a position that is ignored.

    Args:
        vocabulary: number of labels, which are from 0 to below it.
        context: most positions of a sample, which has one at least.
        ignored: label of a position that is no target.
        padding: label of a position behind the end of a sample.
        first_only: True if position 0 has the only label of a sample, such as its class, and all others are
          ignored: then that label alone travels.
    """

    context: int

    def __init__(
        self, vocabulary: int, context: int, *, ignored: int, padding: int, first_only: bool = False
    ) -> None:
        self.vocabulary, self.context, self.first_only = vocabulary, context, first_only
        self._ignored, self._padding = ignored, padding
        self._code, self._length = smallest_type(vocabulary), smallest_type(context)

    @override
    def size(self, labels: Tensor) -> int:
        return int(self.load(len(labels), int((labels != self._padding).sum())))

    @override
    def load(self, samples: int, positions: int | Fraction) -> int | Fraction:
        codes = samples if self.first_only else positions
        return samples * self._length.itemsize + codes * self._code.itemsize

    @override
    def encode(self, labels: Tensor) -> Message:
        lengths = (labels != self._padding).sum(1)
        if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= self.context:
            raise ValueError(f"a sample must have from 1 to {self.context} positions")
        sent_positions, other_positions = self._places(lengths, labels.shape[1])
        codes = labels[sent_positions]
        is_ignored = codes == self._ignored
        is_unknown = ((codes < 0) & ~is_ignored) | (codes >= self.vocabulary)
        if is_unknown.any() or (labels[other_positions] != self._ignored).any():
            raise ValueError(
                f"a label is not from 0 to {self.vocabulary - 1}, or stands where none is allowed"
            )
        codes = codes.masked_fill(is_ignored, self.vocabulary)
        payload = to_bytes(lengths.to(self._length)) + to_bytes(codes.to(self._code))
        return Message.seal(payload, tuple(labels.shape), torch.int64)

    @override
    def decode(self, message: Message) -> Tensor:
        payload = message.verified_payload()
        if message.dtype != torch.int64 or len(message.shape) != 2:
            raise Corrupt(f"labels of text have type {message.dtype} and shape {message.shape}")
        samples, positions = message.shape
        if positions > self.context:
            raise Corrupt(f"a batch has {positions} positions, and at most {self.context} are allowed")
        start = samples * self._length.itemsize
        expect(payload[:start], start)
        lengths = from_bytes(payload[:start], self._length).to(torch.int64)
        if samples and not 1 <= int(lengths.min()) <= int(lengths.max()) <= positions:
            raise Corrupt(f"a sample must have from 1 to {positions} positions")
        expect(payload, int(self.load(samples, int(lengths.sum()))))
        codes = from_bytes(payload[start:], self._code).to(torch.int64)
        if ((codes < 0) | (codes > self.vocabulary)).any():
            raise Corrupt(f"a label is not from 0 to {self.vocabulary - 1}")
        sent_positions, other_positions = self._places(lengths, positions)
        labels = torch.full(message.shape, self._padding)
        labels[other_positions] = self._ignored
        labels[sent_positions] = codes.masked_fill(codes == self.vocabulary, self._ignored)
        return labels

    @override
    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        samples, positions = shape
        return int(self.load(samples, samples * positions))

    def _places(self, lengths: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """Positions whose labels travel, and the other real positions; masks `(b, t)`."""
        place = torch.arange(positions, device=lengths.device)
        real = place < lengths[:, None]
        is_sent = real & (place == 0) if self.first_only else real
        return is_sent, real & ~is_sent
