"""Measures against closed forms and slow loops."""

import math

import pytest
import torch
from torch import Tensor

from fedsplit.tasks.attack.measures import (
    SampleMean,
    distance_correlation,
    psnr,
    reidentify,
    ssim,
    ssim_window,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_psnr_of_a_constant_offset_is_its_square_in_decibels_and_at_most_100() -> None:
    images = drawn(3, 3, 8, 8) * 0.5
    offsets = torch.tensor([0.1, 0.01, 0.0], dtype=torch.float64).view(3, 1, 1, 1)
    assert psnr(images, images + offsets).tolist() == pytest.approx([20, 40, 100])


def test_ssim_of_constant_images_has_its_closed_form() -> None:
    a, b = torch.full((1, 3, 16, 16), 0.3), torch.full((1, 3, 16, 16), 0.7)
    expected = (2 * 0.3 * 0.7 + 1e-4) / (0.3**2 + 0.7**2 + 1e-4)
    assert float(ssim(a, b)) == pytest.approx(expected, abs=1e-6)
    images = drawn(2, 1, 16, 16)
    assert ssim(images, images).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("side", "window"), [(13, 11), (8, 7)])
def test_ssim_is_that_of_a_loop_over_windows(side: int, window: int) -> None:
    a, b = drawn(1, 2, side, side), drawn(1, 2, side, side, seed=1)
    assert ssim_window(side) == window
    weights = [
        [math.exp(-((i - window // 2) ** 2 + (j - window // 2) ** 2) / 4.5) for j in range(window)]
        for i in range(window)
    ]
    total = sum(map(sum, weights))
    found = []
    for channel in range(2):
        for top in range(side - window + 1):
            for left in range(side - window + 1):
                sums = dict.fromkeys(("x", "y", "xx", "yy", "xy"), 0.0)
                for i in range(window):
                    for j in range(window):
                        weight = weights[i][j] / total
                        x = float(a[0, channel, top + i, left + j])
                        y = float(b[0, channel, top + i, left + j])
                        for key, value in zip(sums, (x, y, x * x, y * y, x * y), strict=True):
                            sums[key] += weight * value
                mx, my = sums["x"], sums["y"]
                vx, vy, cxy = sums["xx"] - mx**2, sums["yy"] - my**2, sums["xy"] - mx * my
                luminance = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
                found.append(luminance * (2 * cxy + 9e-4) / (vx + vy + 9e-4))
    assert float(ssim(a, b)) == pytest.approx(sum(found) / len(found), abs=1e-12)


def test_reidentified_images_are_those_nearest_to_their_own_original_whatever_their_contrast() -> None:
    images = drawn(6, 1, 8, 8)
    mean = images.mean(0)
    faint = mean + 0.01 * (images - mean)
    exchanged = faint[[1, 0, 2, 3, 4, 5]]
    assert reidentify(images, faint).all()
    assert reidentify(images, exchanged).tolist() == [False, False, True, True, True, True]
    assert not reidentify(images, mean.expand_as(images)).any()


def test_distance_correlation_of_a_rotated_scaled_and_shifted_sample_is_one() -> None:
    x = normals(20, 6)
    rotation = torch.linalg.qr(normals(6, 6, seed=1)).Q
    assert distance_correlation(x, 3 * x @ rotation + 5) == pytest.approx(1)
    assert distance_correlation(x, torch.ones(20, 3)) == 0


def test_distance_correlation_of_bivariate_normals_has_its_closed_form() -> None:
    """Source: Szekely, Rizzo and Bakirov, Annals of Statistics 35(6), 2007, theorem 7."""
    rho, root = 0.6, math.sqrt
    x, other = normals(2000, 1), normals(2000, 1, seed=1)
    y = rho * x + root(1 - rho**2) * other
    above = rho * math.asin(rho) + root(1 - rho**2) - rho * math.asin(rho / 2) - root(4 - rho**2) + 1
    assert distance_correlation(x, y) == pytest.approx(above / (1 + math.pi / 3 - root(3)), abs=0.03)


def test_distance_correlation_of_independent_samples_is_zero_in_the_mean() -> None:
    found = [
        distance_correlation(normals(32, 3000, seed=2 * n), normals(32, 3000, seed=2 * n + 1))
        for n in range(20)
    ]
    mean = SampleMean.of(torch.tensor(found))
    assert mean.standard_error is not None
    assert abs(mean.mean) < 3 * mean.standard_error < 0.1


def test_estimate_is_a_mean_with_the_deviation_of_means() -> None:
    assert SampleMean.of(torch.tensor([1.0, 2.0, 3.0])) == SampleMean(2.0, 1 / math.sqrt(3))
    assert SampleMean.of(torch.tensor([True, False])).mean == 0.5
    assert SampleMean.of(torch.tensor([4.0])).standard_error is None
