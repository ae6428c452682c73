from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.objectives.next_token import IGNORED, PADDING
from fedsplit.quant.codecs.token_labels import TokenLabels
from fedsplit.quant.message import Corrupt, Message

SIZES = [
    (255, 255, 1, 1),
    (256, 256, 2, 2),
    (50_257, 1024, 2, 2),
    (65_535, 65_536, 2, 4),
    (151_936, 70, 4, 1),
]


def codec(vocabulary: int, context: int, *, first_only: bool = False) -> TokenLabels:
    return TokenLabels(vocabulary, context, ignored=IGNORED, padding=PADDING, first_only=first_only)


@st.composite
def batches(draw: st.DrawFn, vocabulary: int, *, first_only: bool) -> Tensor:
    """Labels of samples of 1 to 9 positions, padded to the longest or beyond."""
    own = st.integers(0, vocabulary - 1)
    any_label = own if first_only else st.one_of(own, st.just(IGNORED))
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    labels = torch.full((len(lengths), max(lengths) + draw(st.integers(0, 1))), PADDING)
    for row, length in zip(labels, lengths, strict=True):
        row[:length] = IGNORED
        for place in range(1 if first_only else length):
            row[place] = draw(any_label)
    return labels


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize(("vocabulary", "context", "item", "length"), SIZES)
@given(data=st.data())
def test_labels_of_texts_come_back_in_the_bytes_of_their_real_positions(
    *, vocabulary: int, context: int, item: int, length: int, first_only: bool, data: st.DataObject
) -> None:
    labels, coder = (
        data.draw(batches(vocabulary, first_only=first_only)),
        codec(vocabulary, context, first_only=first_only),
    )
    message = coder.encode(labels)
    real = len(labels) if first_only else int((labels != PADDING).sum())
    assert len(message.payload) == coder.size(labels) == length * len(labels) + item * real
    assert len(message.payload) <= coder.largest(labels.shape, torch.int64)
    assert torch.equal(coder.decode(message), labels)


def test_padding_of_labels_costs_no_byte() -> None:
    labels = torch.tensor([[3, IGNORED], [1, PADDING]])
    padded = torch.cat([labels, torch.full((2, 3), PADDING)], 1)
    assert codec(9, 8).encode(labels).payload == codec(9, 8).encode(padded).payload


def test_bytes_of_a_mean_number_of_positions_are_between_those_of_whole_ones() -> None:
    assert codec(300, 8).load(3, Fraction(9, 2)) == 3 + 9


@pytest.mark.parametrize(
    "labels",
    [
        [[3, PADDING, 4]],  # padding within
        [[PADDING, PADDING]],  # nothing
        [[9, 1]],  # beyond the vocabulary
        [[-1, 1]],
        [[1] * 9],  # longer than the context
    ],
)
def test_labels_that_no_batch_has_are_not_sent(labels: list[list[int]]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (one of several messages)
        codec(9, 8).encode(torch.tensor(labels))
    with pytest.raises(ValueError):  # noqa: PT011
        codec(9, 8, first_only=True).encode(torch.tensor([[1, 2]]))


@pytest.mark.parametrize(
    ("payload", "shape"),
    [
        (b"\x03\x01" + bytes(4), (2, 2)),  # a length beyond the batch's
        (b"\x00\x02" + bytes(2), (2, 2)),  # a sample without positions
        (b"\x02\x01" + bytes(2), (2, 2)),  # fewer labels than lengths say
        (b"\x02\x01" + bytes(4), (2, 2)),  # more
        (b"\x02\x01\x00\x0a\x00", (2, 2)),  # a label beyond the code of an ignored position
        (b"\x02", (2, 2)),
        (b"\x09" + bytes(9), (1, 9)),  # longer than the context
        (b"\x01" + bytes(1), (1, 2**40)),
        (b"\x02\x01" + bytes(3), (2, 2, 1)),
        (b"\x02\x01" + bytes(3), (4,)),
    ],
)
def test_messages_of_no_labels_are_refused(payload: bytes, shape: tuple[int, ...]) -> None:
    with pytest.raises(Corrupt):
        codec(9, 8).decode(Message.seal(payload, shape, torch.int64))
