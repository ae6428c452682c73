from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fedsplit.data.augmentation import Augmentation
from fedsplit.data.image_source import ImageSource, class_balanced_prefix
from fedsplit.data.images import Images
from fedsplit.errors import UserError

CLASSES = 5


def _labels(samples: int = 200, seed: int = 0) -> Tensor:
    return torch.randint(CLASSES, (samples,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [5, 6, 9, 10, 52, 99])
def test_class_balanced_prefix_takes_equally_many_of_each_class_and_the_remainder_of_the_first(
    size: int,
) -> None:
    labels = _labels()
    counts = torch.bincount(labels[class_balanced_prefix(labels, size, CLASSES, "k")], minlength=CLASSES)
    assert counts.tolist() == [size // CLASSES + (label < size % CLASSES) for label in range(CLASSES)]


@pytest.mark.parametrize("size", [5, 17, 60])
def test_class_balanced_prefix_keeps_the_first_samples_of_each_class_in_order(size: int) -> None:
    labels = _labels(seed=1)
    wanted = {label: size // CLASSES + (label < size % CLASSES) for label in range(CLASSES)}
    expected = []
    for index, label in enumerate(labels.tolist()):  # one pass over the samples, as they come
        if wanted[label] > 0:
            wanted[label] -= 1
            expected.append(index)
    assert class_balanced_prefix(labels, size, CLASSES, "k").tolist() == expected


def test_class_balanced_prefix_is_part_of_a_larger_one() -> None:
    labels = _labels(seed=2)
    kept = [set(class_balanced_prefix(labels, size, CLASSES, "k").tolist()) for size in range(5, 80, 5)]
    assert all(small < large for small, large in pairwise(kept))


def test_class_balanced_prefix_without_a_size_keeps_every_sample_of_unbalanced_classes() -> None:
    labels = torch.tensor([0, 0, 0, 4])
    assert class_balanced_prefix(labels, None, CLASSES, "k").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "size", "words"),
    [
        ([0, 1, 2, 3, 4], 4, "must be at least 5: one sample for each class"),
        ([0, 1, 2, 3, 4], 6, "must be smaller: class 0 has 1 samples, not 2"),
        ([0, 1, 2, 3, 3], 5, "must be smaller: class 4 has 0 samples, not 1"),
    ],
)
def test_class_balanced_prefix_refuses_a_size_the_classes_cannot_give_by_its_key(
    labels: list[int], size: int, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        class_balanced_prefix(torch.tensor(labels), size, CLASSES, "dataset.max_test")
    assert (caught.value.key, caught.value.value) == ("dataset.max_test", size)


@dataclass(frozen=True, kw_only=True)
class _Numbered(ImageSource):
    """Images whose first pixel is their position, in memory that is not contiguous as the files may give."""

    def read(self) -> tuple[Images, Images]:
        train = torch.arange(60, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 2, 4)
        labels = torch.arange(60) % 3
        return Images(train.permute(0, 2, 3, 1), labels), Images(train[:30].permute(0, 2, 3, 1), labels[:30])


def test_load_with_limits_cuts_both_splits_and_keeps_images_with_their_labels() -> None:
    data = _Numbered(max_train=12, max_test=7, flip=True, crop_padding=2).load()
    assert (len(data.train), len(data.test), data.num_classes) == (12, 7, 3)
    for split in (data.train, data.test):
        assert torch.equal(split.pixels[:, 0, 0, 0].long() % 3, split.labels)
        assert split.pixels.is_contiguous()
    assert data.train.augmentation == Augmentation(flip=True, crop_padding=2)
    assert (data.channels, data.image_size) == (3, 2)


def test_load_without_limits_keeps_everything() -> None:
    data, (train, test) = _Numbered().load(), _Numbered().read()
    assert torch.equal(data.train.pixels, train.pixels)
    assert torch.equal(data.test.labels, test.labels)


@pytest.mark.parametrize(
    ("limits", "key"), [({"max_train": 61}, "max_train"), ({"max_test": 31}, "max_test")]
)
def test_load_with_too_large_a_limit_names_the_split_that_is_too_small(
    limits: dict[str, int], key: str
) -> None:
    with pytest.raises(UserError, match=f"^dataset.{key}="):
        _Numbered(**limits).load()


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_crop_padding_up_to_the_shorter_side_is_accepted(padding: int) -> None:
    assert _Numbered(crop_padding=padding).load().train.augmentation.crop_padding == padding


@pytest.mark.parametrize("padding", [3, 4, 1000])
def test_crop_padding_beyond_the_shorter_side_is_refused(padding: int) -> None:
    with pytest.raises(
        UserError, match="must be at most 2, the side of the images in pixels"
    ) as caught:  # 2 high, 4 wide
        _Numbered(crop_padding=padding).load()
    assert (caught.value.key, caught.value.value) == ("dataset.crop_padding", padding)


def _positions(images: Images) -> list[int]:
    return images.pixels[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("max_train", [None, 3, 12, 48])
@pytest.mark.parametrize("size", [3, 7, 12])
def test_validation_images_are_the_last_training_images_of_each_class_and_never_trained_on(
    size: int, max_train: int | None
) -> None:
    data = _Numbered(validation=size, max_train=max_train).load()
    train, held_out = _positions(data.train), _positions(data.test)
    left = {label: size // 3 + (label < size % 3) for label in range(3)}
    expected = []
    for position in reversed(range(60)):  # labels are position % 3
        if left[position % 3]:
            left[position % 3] -= 1
            expected.insert(0, position)
    assert held_out == expected
    assert not set(train) & set(held_out)
    assert len(train) == (max_train or 60 - size)
    if max_train is None:
        assert sorted(train + held_out) == list(range(60))
    for split in (data.train, data.test):
        assert torch.equal(split.pixels[:, 0, 0, 0].long() % 3, split.labels)


def test_validation_images_are_contiguous_in_memory() -> None:
    data = _Numbered(validation=9).load()
    assert data.test.pixels.is_contiguous()
    assert data.train.pixels.is_contiguous()


def test_validation_images_are_the_same_for_any_number_of_training_images() -> None:
    loaded = [_Numbered(validation=9, max_train=size).load() for size in (None, 3, 30, 51)]
    assert all(_positions(data.test) == _positions(loaded[0].test) for data in loaded)


def test_validation_takes_equally_many_images_of_unbalanced_classes() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Unbalanced(ImageSource):
        def read(self) -> tuple[Images, Images]:
            labels = torch.tensor([0] * 20 + [1] * 3 + [2] * 7)
            pixels = torch.arange(30, dtype=torch.uint8)[:, None, None, None].repeat(1, 2, 2, 1)
            return Images(pixels, labels), Images(pixels[:0], labels[:0])

    data = Unbalanced(validation=6).load()
    assert _positions(data.test) == [18, 19, 21, 22, 28, 29]
    assert len(data.train) == 24
    with pytest.raises(UserError, match="no training image of class 1 is left"):
        Unbalanced(validation=9).load()


def test_test_images_are_never_evaluated_on_with_a_validation_split() -> None:
    class Marked(_Numbered):
        def read(self) -> tuple[Images, Images]:
            train, test = super().read()
            return train, Images(test.pixels + 100, test.labels)

    assert min(_positions(Marked().load().test)) >= 100
    for max_test in (None, 6):
        data = Marked(validation=9, max_test=max_test).load()
        assert max(_positions(data.test) + _positions(data.train)) < 60
        assert len(data.test) == 9  # `max_test` is of test images


@pytest.mark.parametrize(
    ("sizes", "key", "words"),
    [
        ({"validation": 60}, "validation", "no training image of class 0 is left"),
        ({"validation": 58}, "validation", "no training image of class 0 is left"),
        ({"validation": 61}, "validation", "must be smaller: class 0 has 20 samples, not 21"),
        ({"validation": 1000}, "validation", "must be smaller: class 0 has 20 samples"),
        ({"validation": 2}, "validation", "must be at least 3: one sample for each class"),
        ({"validation": 30, "max_train": 33}, "max_train", "must be smaller: class 0 has 10 samples, not 11"),
    ],
)
def test_validation_split_that_leaves_too_few_images_is_refused(
    sizes: dict[str, int], key: str, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        _Numbered(**sizes).load()
    assert (caught.value.key, caught.value.value) == (f"dataset.{key}", sizes[key])


def test_largest_validation_split_leaves_one_training_image_of_each_class() -> None:
    data = _Numbered(validation=57).load()
    assert _positions(data.train) == [0, 1, 2]
