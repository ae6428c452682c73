import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fedsplit.data.distributions.feature_shift import FeatureShift
from fedsplit.data.images import Images
from fedsplit.errors import UserError
from fedsplit.randomness import generator
from tests.conftest import TINY, Build, Configure


def _smooth(side: int, channels: int, n: int = 3) -> Tensor:
    """Images of slow waves: what interpolates differently differs little."""
    ramp = torch.linspace(0, 3, side)
    waves = [
        torch.sin(ramp[:, None] * (i + 1) + c) * torch.cos(ramp * (c + 1))
        for i in range(n)
        for c in range(channels)
    ]
    return (
        (100 + 80 * torch.stack(waves).view(n, channels, side, side).permute(0, 2, 3, 1))
        .round()
        .to(torch.uint8)
    )


def _drawn(client: int, channels: int, seed: int) -> list[float]:
    """From -1 to 1: of the angle, then of each channel."""
    draw = generator(seed, "feature shift", client=client)
    return (2 * torch.rand(1 + channels, generator=draw, dtype=torch.float64) - 1).tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_shift_without_rotation_and_colour_changes_no_pixel(channels: int) -> None:
    pixels = torch.randint(256, (5, 9, 9, channels), dtype=torch.uint8)
    assert torch.equal(FeatureShift(rotation=0.0, colour=0.0).seen_by(3, pixels, 0), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_shift_scales_colours_by_the_factors_of_the_client_clamped_to_a_byte(channels: int) -> None:
    pixels = torch.randint(256, (4, 6, 6, channels), dtype=torch.uint8)
    for client in range(6):
        seen = FeatureShift(rotation=0.0, colour=0.5).seen_by(client, pixels, 7)
        _, *factors = _drawn(client, channels, 7)
        expected = np.clip(np.rint(pixels.numpy() * (1 + 0.5 * np.array(factors))), 0, 255)
        assert np.abs(seen.numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("client", range(4))
def test_feature_shift_rotates_images_by_the_angle_of_the_client_about_their_middle(client: int) -> None:
    side = 33
    pixels = _smooth(side, 3)
    seen = FeatureShift(rotation=90.0, colour=0.0).seen_by(client, pixels, 1)
    angle = 90 * _drawn(client, 3, 1)[0]
    y, x = np.mgrid[:side, :side] - side // 2
    inside = np.hypot(x, y) < side / 2 - 2  # beyond, the frame shows
    for one, turned in zip(pixels.numpy(), seen.numpy(), strict=True):
        expected = np.asarray(Image.fromarray(one).rotate(angle, Image.Resampling.BILINEAR))
        assert np.abs(turned.astype(int) - expected)[inside].max() <= 3


def test_feature_shift_follows_from_client_and_seed_alone() -> None:
    pixels, shift = _smooth(16, 1), FeatureShift(rotation=45.0, colour=0.3)
    seen = [shift.seen_by(client, pixels, seed) for client, seed in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[3])


def test_feature_shift_replaces_the_pixels_of_each_shard_and_leaves_all_others() -> None:
    shift, pixels = FeatureShift(rotation=30.0, colour=0.2), _smooth(8, 3, n=300)
    images = Images(pixels.clone(), torch.zeros(300, dtype=torch.int64))
    shards = [np.arange(0, 290, 2), np.arange(1, 290, 2)]  # more than are turned at a time
    seen = images.seen_by(shards, lambda client, part: shift.seen_by(client, part, 0)).pixels
    for client, shard in enumerate(shards):
        assert torch.equal(seen[shard], shift.seen_by(client, pixels[shard], 0))
    assert torch.equal(seen[290:], pixels[290:])


def test_run_with_feature_shift_trains_on_shifted_images_and_tests_on_unshifted_ones(tiny: Build) -> None:
    plain, shifted = tiny("distribution=iid"), tiny("distribution=feature_shift")
    assert torch.equal(plain.parts.data.dataset.test.pixels, shifted.parts.data.dataset.test.pixels)
    for client in range(3):
        shard = plain.parts.data.shards[client]
        assert torch.equal(shard, shifted.parts.data.shards[client])
        expected = FeatureShift(rotation=45.0, colour=0.3).seen_by(
            client, plain.parts.data.dataset.train.pixels[shard], 0
        )
        assert torch.equal(shifted.parts.data.dataset.train.pixels[shard], expected)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("rotation", 181, "from 0 to 180"), ("rotation", -1, "from 0 to 180"), ("colour", 1.5, "from 0 to 1")],
)
def test_feature_shift_beyond_its_ranges_is_refused_with_the_configuration(
    configured: Configure, key: str, value: float, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        configured(*TINY, "distribution=feature_shift", f"distribution.{key}={value}")
    assert (caught.value.key, caught.value.value) == (f"distribution.{key}", value)
