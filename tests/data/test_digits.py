from collections import Counter

import numpy as np
import torch
from sklearn.datasets import load_digits

from fedsplit.data.sources.digits import Digits


def test_digits_of_both_splits_are_those_of_scikit_learn_each_once() -> None:
    data = Digits().load()
    bunch = load_digits()
    published = Counter(
        (int(label), image.astype(np.uint8).tobytes())
        for image, label in zip(bunch.images, bunch.target, strict=True)
    )
    found = Counter(
        (int(label), image.numpy().tobytes())
        for split in (data.train, data.test)
        for image, label in zip(split.pixels, split.labels, strict=True)
    )
    assert found == published


def test_digits_test_split_is_a_fifth_with_every_class_in_both_splits() -> None:
    data = Digits().load()
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert len(data.test) == 1797 // 5
    for split in (data.train, data.test):
        assert split.labels.unique().tolist() == list(range(10))


def test_digits_are_8x8_grey_images_with_levels_from_0_to_16() -> None:
    data = Digits().load()
    assert data.train.pixels.shape == (1438, 8, 8, 1)
    assert data.train.pixels.dtype == torch.uint8
    assert (int(data.train.pixels.min()), int(data.train.pixels.max())) == (0, 16)
    assert (data.num_classes, data.channels, data.image_size) == (10, 1, 8)


def test_digits_split_does_not_depend_on_global_random_state() -> None:
    first = Digits().load()
    np.random.seed(123)
    torch.manual_seed(123)
    again = Digits(max_train=100).load()
    assert torch.equal(Digits().load().train.pixels, first.train.pixels)
    assert torch.equal(again.test.pixels, first.test.pixels)
    assert torch.bincount(again.train.labels).tolist() == [10] * 10
