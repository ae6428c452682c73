import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedsplit.data.decoding import Decoder, crop_to_square, resize_images
from fedsplit.data.image_source import ImageSource
from fedsplit.data.images import Images
from fedsplit.data.sources.digits import Digits
from fedsplit.errors import UserError
from tests.conftest import TINY, Configure
from tests.data.published import noise, write_image


@pytest.mark.parametrize(("width", "height", "side"), [(12, 8, 8), (8, 12, 8), (9, 4, 4), (13, 7, 7)])
def test_fitted_image_of_the_right_height_or_width_is_its_middle_square(
    width: int, height: int, side: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    left, top = (width - side) // 2, (height - side) // 2
    if (width - side) % 2 == 0 and (height - side) % 2 == 0:  # the middle lies between no pixels
        expected = pixels[top : top + side, left : left + side]
        np.testing.assert_array_equal(np.asarray(crop_to_square(Image.fromarray(pixels), side)), expected)
    else:
        assert crop_to_square(Image.fromarray(pixels), side).size == (side, side)


def test_fitted_image_of_a_wide_one_keeps_a_disc_round() -> None:
    """A disc in the middle of a wide image stays one: as wide as high."""
    y, x = np.mgrid[:60, :90]
    disc = (255 * (np.hypot(y - 29.5, x - 44.5) < 20)).astype(np.uint8)
    mask = np.asarray(crop_to_square(Image.fromarray(disc), 30)) > 127
    assert mask.any(0).sum() == mask.any(1).sum() == 20


def test_fitted_square_image_is_resized_as_pillow_resizes_it() -> None:
    image = Image.fromarray(noise(0, 1, 20)[0])
    expected = image.resize((7, 7), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.asarray(crop_to_square(image, 7)), np.asarray(expected))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [4, 9, 17])
def test_resizing_in_memory_gives_the_pixels_of_resizing_decoded_files(
    tmp_path: Path, channels: int, side: int
) -> None:
    pixels = noise(1, 3, 9, channels)
    decoder = Decoder(str(tmp_path), resize=True, grayscale=channels == 1)
    files = [write_image(tmp_path / f"{i}.png", each) for i, each in enumerate(pixels)]
    expected = np.stack([decoder.decode(file, side) for file in files])
    np.testing.assert_array_equal(resize_images(torch.from_numpy(pixels), side), expected)


@dataclass(frozen=True, kw_only=True)
class _Wide(ImageSource):
    """Images of 4 rows and 8 columns, of a value for each column, and owners."""

    def read(self) -> tuple[Images, Images]:
        pixels = torch.arange(8, dtype=torch.uint8)[None, None, :, None].expand(6, 4, 8, 1).contiguous()
        labels = torch.arange(6) % 2
        return Images(pixels, labels, torch.arange(6) * 10), Images(pixels, labels)


def test_image_size_resizes_both_splits_once_loaded_and_keeps_owners() -> None:
    data = _Wide(image_size=4, max_train=4).load()
    for split in (data.train, data.test):
        assert split.pixels.shape[1:] == (4, 4, 1)
        assert split.pixels[0, 0, :, 0].tolist() == [2, 3, 4, 5]
    assert data.train.owners.tolist() == [0, 10, 20, 30]
    assert data.image_size == 4
    assert _Wide(image_size=2, validation=2).load().test.pixels.shape == (2, 2, 2, 1)


def test_crop_padding_is_checked_against_the_size_that_images_are_resized_to() -> None:
    assert _Wide(image_size=16, crop_padding=16).load().train.augmentation.crop_padding == 16
    with pytest.raises(UserError, match="must be at most 3, the side of the images in pixels"):
        _Wide(image_size=3, crop_padding=4).load()


def test_pixels_without_an_image_size_or_at_their_own_are_not_resized() -> None:
    assert torch.equal(Digits().load().train.pixels, Digits().read()[0].pixels)
    assert torch.equal(Digits(image_size=8).load().train.pixels, Digits().read()[0].pixels)


@pytest.mark.parametrize("value", [0, -3, 2.5])
def test_image_size_that_is_no_positive_whole_number_is_refused(configured: Configure, value: float) -> None:
    with pytest.raises(UserError, match="a whole number greater than 0 or null") as caught:
        configured(*TINY, f"dataset.image_size={value}")
    assert caught.value.key == "dataset.image_size"


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe.png cannot be read as an image \(it is no file\)"):
        Decoder("root", True, False).open_image(tmp_path / "pipe.png")
