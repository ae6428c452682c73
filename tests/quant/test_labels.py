import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsplit.quant.codecs.labels import Labels
from fedsplit.quant.message import Corrupt, Message

CLASSES = (2, 256, 257, 65536, 65537)


@pytest.mark.parametrize(
    ("classes", "size"), [(1, 1), (2, 1), (10, 1), (256, 1), (257, 2), (65536, 2), (65537, 4), (2**32 + 1, 8)]
)
def test_label_takes_1_2_4_or_8_bytes_by_the_number_of_classes(classes: int, size: int) -> None:
    labels = torch.tensor([0, classes - 1, classes // 2])
    message = Labels(classes).encode(labels)
    assert len(message.payload) == Labels(classes).size(labels) == 3 * size
    expected = b"".join(label.to_bytes(size, "little") for label in labels.tolist())
    assert message.payload == expected


@pytest.mark.parametrize("classes", CLASSES)
@given(data=st.data())
def test_labels_are_decoded_exactly_as_int64(classes: int, data: st.DataObject) -> None:
    labels = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), max_size=20)), dtype=torch.int64)
    decoded = Labels(classes).decode(Labels(classes).encode(labels))
    assert torch.equal(decoded, labels)
    assert decoded.dtype == torch.int64


@pytest.mark.cover(1)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (2, 3)])
def test_labels_of_any_shape_are_decoded_in_that_shape(shape: tuple[int, ...], classes: int) -> None:
    labels = torch.full(shape, classes - 1)
    decoded = Labels(classes).decode(Labels(classes).encode(labels))
    assert decoded.shape == shape
    assert torch.equal(decoded, labels)


def test_labels_that_are_not_contiguous_in_memory_are_decoded_exactly() -> None:
    labels = torch.arange(12).view(3, 4)
    for cut in (labels.T, labels[:, 1], labels[:1].T, labels[::2], labels[0, ::4]):
        assert torch.equal(Labels(300).decode(Labels(300).encode(cut)), cut)


@pytest.mark.parametrize(("classes", "size"), [(2, 1), (10, 1), (255, 1), (257, 2), (65535, 2), (65537, 4)])
def test_label_decoder_refuses_numbers_of_no_class(classes: int, size: int) -> None:
    for number in {classes, (classes + 256**size) // 2, 256**size - 1}:
        payload = b"".join(label.to_bytes(size, "little") for label in (0, number, 1))
        with pytest.raises(Corrupt):
            Labels(classes).decode(Message.seal(payload, (3,), torch.int64))


@pytest.mark.parametrize("classes", [2, 10, *CLASSES])
def test_labels_of_no_class_are_refused_by_encoder_or_decoder(classes: int) -> None:
    labels = Labels(classes)
    for wrong in (classes, classes + 1, -1, 2**32, -(2**40)):
        with pytest.raises(ValueError):  # noqa: PT011  (by sender or receiver)
            labels.decode(labels.encode(torch.tensor([0, wrong])))


@pytest.mark.parametrize("classes", CLASSES)
def test_label_decoder_refuses_payloads_cut_lengthened_or_with_a_flipped_bit(classes: int) -> None:
    labels = Labels(classes)
    message = labels.encode(torch.tensor([0, 1, classes - 1]))
    payload = message.payload
    altered = [payload[:length] for length in range(len(payload))] + [payload + b"\0"]
    for other in altered:
        with pytest.raises(Corrupt):
            labels.decode(Message.seal(other, message.shape, torch.int64))
    flipped = [
        (int.from_bytes(payload, "little") ^ 1 << bit).to_bytes(len(payload), "little")
        for bit in range(8 * len(payload))
    ]
    for other in altered + flipped:
        with pytest.raises(Corrupt):
            labels.decode(Message(other, message.shape, message.dtype, message.checksum))


@pytest.mark.parametrize("shape", [(4,), (2,), (0,), (), (-3,), (10**18,)])
def test_label_decoder_refuses_a_shape_that_does_not_fit_the_payload(shape: tuple[int, ...]) -> None:
    message = Labels(10).encode(torch.tensor([0, 1, 2]))
    with pytest.raises(Corrupt):
        Labels(10).decode(Message.seal(message.payload, shape, torch.int64))
