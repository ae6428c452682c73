import pytest
import torch
from torch import Tensor

from fedsplit.estimators.ring import Ring
from fedsplit.objectives.next_token import PADDING

CAPACITY = 7


def _numbered(start: int, count: int) -> tuple[Tensor, Tensor]:
    y = torch.arange(start, start + count)
    return y[:, None, None].expand(count, 2, 3) + torch.tensor([0.25, 0.5, 0.75]), y


def _filled(lengths: list[int]) -> tuple[Ring, int]:
    ring, stored = Ring(CAPACITY), 0
    for length in lengths:
        ring.store(*_numbered(stored, length))
        stored += length
    return ring, stored


HISTORIES = [
    [1],
    [3, 3],
    [7],
    [3, 3, 1],
    [3, 3, 3],
    [7, 7],
    [5, 5, 5],
    [9],
    [2, 16],
    [16, 2],
    [7, 1],
    [1] * 30,
]


@pytest.mark.parametrize("lengths", HISTORIES)
def test_ring_keeps_the_last_samples_oldest_first(lengths: list[int]) -> None:
    ring, stored = _filled(lengths)
    kept = min(stored, CAPACITY)
    z, y = ring.samples()
    expected_z, expected_y = _numbered(stored - kept, kept)
    assert len(ring) == kept
    assert torch.equal(y, expected_y)
    assert torch.equal(z, expected_z)


@pytest.mark.parametrize("lengths", HISTORIES)
def test_ring_loaded_from_its_state_continues_with_the_same_samples(lengths: list[int]) -> None:
    ring, stored = _filled(lengths)
    other, _ = _filled([4, 4])  # what it held before is forgotten
    kept = {key: value.clone() for key, value in ring.state().items()}
    other.load_state(kept, torch.device("cpu"))
    for count in (0, 2, 4, 9):
        for each in (ring, other):
            each.store(*_numbered(stored, count))
        stored += count
        assert len(other) == len(ring)
        for found, expected in zip(other.samples(), ring.samples(), strict=True):
            assert torch.equal(found, expected)


def test_ring_loaded_from_the_state_of_an_empty_ring_is_empty() -> None:
    ring, _ = _filled([3])
    ring.load_state(Ring(CAPACITY).state(), torch.device("cpu"))
    assert len(ring) == 0
    assert ring.state() == {"z": None, "y": None}
    ring.store(*_numbered(0, 2))
    assert ring.samples()[1].tolist() == [0, 1]


def test_ring_shares_no_memory_with_stored_tensors() -> None:
    ring = Ring(CAPACITY)
    z, y = (tensor.clone() for tensor in _numbered(0, 3))
    ring.store(z, y)
    z.zero_()
    y.zero_()
    expected_z, expected_y = _numbered(0, 3)
    assert torch.equal(ring.samples()[0], expected_z)
    assert torch.equal(ring.samples()[1], expected_y)


@pytest.mark.parametrize("lengths", HISTORIES)
def test_samples_of_a_ring_are_given_without_a_copy(lengths: list[int]) -> None:
    ring, _ = _filled(lengths)
    first = [tensor.data_ptr() for tensor in ring.samples()]
    assert [tensor.data_ptr() for tensor in ring.samples()] == first
    chunk = ring.samples()[0][: len(ring) // 2 + 1]
    chunk.zero_()
    assert ring.samples()[0][: len(chunk)].count_nonzero() == 0


def test_images_in_a_ring_are_in_channels_last_memory() -> None:
    ring = Ring(4)
    for start in range(3):  # at the second the ring is full, at the third it is turned
        ring.store(torch.randn(3, 2, 3, 5), torch.arange(start, start + 3))
        assert ring.samples()[0].is_contiguous(memory_format=torch.channels_last)
        assert ring.samples()[0][1:3].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_activations_in_a_ring_keep_the_uploaded_type_and_values(dtype: torch.dtype) -> None:
    z = torch.randn(4, 2, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    ring = Ring(CAPACITY)
    ring.store(z.contiguous(memory_format=torch.channels_last), torch.arange(4))
    assert ring.samples()[0].dtype == dtype
    assert torch.equal(ring.samples()[0], z)


def test_ring_of_batches_of_different_lengths_pads_to_the_longest() -> None:
    ring, stored = Ring(4), []
    for length in (3, 5, 2):
        z, y = torch.randn(2, length, 6), torch.randint(9, (2, length))
        ring.store(z, y)
        stored += list(zip(z, y, strict=True))
    z, y = ring.samples()
    assert (z.shape, y.shape) == ((4, 5, 6), (4, 5))
    for own_z, own_y, (kept_z, kept_y) in zip(z, y, stored[-4:], strict=True):
        length = len(kept_y)
        assert torch.equal(own_z[:length], kept_z)
        assert not own_z[length:].any()
        assert own_y.tolist() == [*kept_y.tolist(), *[PADDING] * (5 - length)]
    again = Ring(4)
    again.load_state(ring.state(), torch.device("cpu"))
    assert all(map(torch.equal, again.samples(), (z, y)))
