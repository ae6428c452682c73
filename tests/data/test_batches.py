from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsplit.data.augmentation import NO_AUGMENTATION, Augmentation
from fedsplit.data.batches import ClientBatches, batch_slices
from fedsplit.data.images import Images, Normalisation


def _draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(n: int, height: int = 6, width: int = 6, channels: int = 3) -> Images:
    pixels = torch.randint(256, (n, height, width, channels), generator=_draw(), dtype=torch.uint8)
    return Images(pixels, torch.arange(n))


def _batches(
    images: Images,
    indices: Tensor,
    *,
    batch_size: int = 4,
    local_epochs: int = 2,
    augmentation: Augmentation = NO_AUGMENTATION,
    client: int = 0,
    seed: int = 0,
) -> ClientBatches:
    return ClientBatches(
        replace(images, augmentation=augmentation, normalise=Normalisation.of(images)),
        indices,
        batch_size=batch_size,
        local_epochs=local_epochs,
        client=client,
        seed=seed,
    )


@pytest.mark.parametrize(
    ("samples", "batch_size", "lengths"),
    [
        (8, 4, [4, 4]),
        (9, 4, [4, 5]),
        (10, 4, [4, 4, 2]),
        (3, 4, [3]),
        (1, 4, [1]),
        (5, 4, [5]),
        (4, 1, [1, 1, 1, 1]),
        (2, 1, [1, 1]),
        (1, 1, [1]),
    ],
)
def test_batch_slices_join_a_last_batch_of_one_sample_to_the_batch_before_it(
    samples: int, batch_size: int, lengths: list[int]
) -> None:
    slices = batch_slices(samples, batch_size)
    assert [s.stop - s.start for s in slices] == lengths
    assert [i for s in slices for i in range(samples)[s]] == list(range(samples))


@pytest.mark.parametrize("samples", [1, 2, 7, 9, 12, 13])
@pytest.mark.parametrize("local_epochs", [1, 3])
def test_client_batches_give_every_sample_of_the_shard_once_an_epoch(samples: int, local_epochs: int) -> None:
    shard = torch.randperm(20, generator=_draw())[:samples]
    batches = _batches(_images(20), shard, local_epochs=local_epochs)
    steps, labels = [], []
    for step, x, y in batches.round(3):
        steps.append(step)
        labels += y.tolist()
        assert len(x) == len(y)
    assert batches.samples == samples
    assert steps == list(range(batches.steps))
    epochs = [labels[i * samples : (i + 1) * samples] for i in range(local_epochs)]
    assert all(sorted(epoch) == sorted(shard.tolist()) for epoch in epochs)


def test_batch_of_a_round_and_step_is_the_same_in_any_order_of_access() -> None:
    images, shard = _images(20), torch.arange(3, 16)
    augmentation = Augmentation(flip=True, crop_padding=2)
    in_order = {
        step: (x, y) for step, x, y in _batches(images, shard, augmentation=augmentation).round(round=5)
    }
    batches = _batches(images, shard, augmentation=augmentation)
    batches.batch(6, 1)  # of another round
    torch.manual_seed(99)
    for step in reversed(range(batches.steps)):
        x, y = batches.batch(5, step)
        assert torch.equal(x, in_order[step][0])
        assert torch.equal(y, in_order[step][1])


def test_order_and_augmentation_differ_by_client_round_epoch_and_seed() -> None:
    images, shard = _images(20), torch.arange(20)

    def order(round: int, epoch: int, *, client: int = 0, seed: int = 0) -> tuple[int, ...]:
        batches = _batches(images, shard, batch_size=20, client=client, seed=seed)
        return tuple(batches.batch(round, epoch)[1].tolist())

    assert len({order(0, 0), order(1, 0), order(0, 1), order(0, 0, client=1), order(0, 0, seed=1)}) == 5
    one = Images(images.pixels[:1].repeat(20, 1, 1, 1), torch.zeros(20, dtype=torch.int64))
    augmented = _batches(one, shard, batch_size=10, augmentation=Augmentation(flip=True, crop_padding=2))
    drawn = {augmented.batch(round, step)[0].numpy().tobytes() for round in (0, 1) for step in range(4)}
    assert len(drawn) == 8


@pytest.mark.parametrize("channels", [1, 3])
def test_batch_holds_the_normalised_images_of_its_labels(channels: int) -> None:
    images = _images(12, 5, 7, channels)
    x, y = _batches(images, torch.arange(12)).batch(0, 1)
    flat = images.pixels.numpy().reshape(-1, channels).astype(np.float64)
    expected = (images.pixels[y].numpy() - flat.mean(0)) / flat.std(0)
    np.testing.assert_allclose(x.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalisation_gives_the_data_mean_0_and_standard_deviation_1_per_channel(dtype: torch.dtype) -> None:
    skewed = (_images(50).pixels.float() * torch.tensor([1.0, 0.3, 0.05])).to(torch.uint8)
    images = Images(skewed, torch.zeros(50, dtype=torch.int64))
    normalised = Normalisation.of(images, dtype)(images.pixels)
    assert normalised.dtype == dtype
    per_channel = normalised.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(per_channel.mean(1), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(per_channel.std(1, correction=0), torch.ones(3).double(), atol=1e-6, rtol=0)


def test_normalisation_of_a_constant_channel_is_finite_and_zero() -> None:
    pixels = torch.full((4, 2, 2, 2), 7, dtype=torch.uint8)
    pixels[0, 0, 0, 1] = 9
    normalised = Normalisation.of(Images(pixels, torch.zeros(4)))(pixels)
    assert normalised.isfinite().all()
    assert normalised[:, 0].abs().max() < 1e-3


def test_normalisation_gives_channels_last_memory_and_leaves_the_pixels_unchanged() -> None:
    images = _images(4, 5, 7)
    before = images.pixels.clone()
    x = Normalisation.of(images)(images.pixels)
    assert x.shape == (4, 3, 5, 7)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images.pixels, before)


def _augmented_one_by_one(pixels: np.ndarray, pad: int, flip: bool, draw: torch.Generator) -> np.ndarray:
    n, height, width, _ = pixels.shape
    top, left = np.full(n, pad), np.full(n, pad)
    if pad:
        top, left = torch.randint(2 * pad + 1, (2, n), generator=draw).numpy()
    mirrored = torch.rand(n, generator=draw).numpy() < 0.5 if flip else np.zeros(n, bool)
    out = np.zeros_like(pixels)
    for i in range(n):
        for row in range(height):
            for column in range(width):
                source_row = row + top[i] - pad
                source_column = (width - 1 - column if mirrored[i] else column) + left[i] - pad
                if 0 <= source_row < height and 0 <= source_column < width:
                    out[i, row, column] = pixels[i, source_row, source_column]
    return out


@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(9, 6, 6, 3), (5, 4, 7, 1), (1, 3, 2, 2)])
def test_augmentation_of_a_batch_is_that_of_each_image_by_itself(
    pad: int, flip: bool, shape: tuple[int, int, int, int]
) -> None:
    pixels = torch.randint(1, 256, shape, generator=_draw(3), dtype=torch.uint8)
    before = pixels.clone()
    augmentation = Augmentation(flip=flip, crop_padding=pad)
    augmented = augmentation(pixels, augmentation.draw(len(pixels), _draw(4)))
    np.testing.assert_array_equal(augmented, _augmented_one_by_one(pixels.numpy(), pad, flip, _draw(4)))
    assert torch.equal(pixels, before)
    assert augmented.dtype == torch.uint8


def test_augmentation_draws_every_offset_and_both_directions_about_equally_often() -> None:
    n, pad = 4500, 1
    pixels = torch.arange(1, 10, dtype=torch.uint8).view(1, 3, 3, 1).repeat(n, 1, 1, 1)
    augmentation = Augmentation(flip=True, crop_padding=pad)
    augmented = augmentation(pixels, augmentation.draw(n, _draw(5)))
    seen, counts = augmented.flatten(1).unique(dim=0, return_counts=True)
    assert len(seen) == (2 * pad + 1) ** 2 * 2
    expected = n / len(seen)  # 250; a binomial standard deviation is below 16
    assert (counts - expected).abs().max() < 5 * expected**0.5


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_batch_size_one_gives_one_step_per_sample_and_epoch(samples: int) -> None:
    batches = _batches(_images(20), torch.arange(samples), batch_size=1, local_epochs=3)
    assert batches.steps == 3 * samples
    assert [len(y) for _, _, y in batches.round(0)] == [1] * (3 * samples)


def test_augmentation_differs_between_clients_with_the_same_images() -> None:
    images = _images(8)
    both = [
        _batches(images, torch.arange(8), augmentation=Augmentation(flip=True, crop_padding=2), client=client)
        for client in (0, 1)
    ]
    first, second = (batches.draws(0, 0) for batches in both)
    assert first is not None
    assert second is not None
    assert not torch.equal(first[:, :2], second[:, :2])
