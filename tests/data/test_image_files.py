"""The datasets of image files in the folders they are published in."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsplit.config.choices import CONFIGS
from fedsplit.data.decoding import crop_to_square
from fedsplit.data.image_source import ImageSource
from fedsplit.data.sources.chest_xray import ChestXray
from fedsplit.data.sources.image_folder import ImageFolder
from fedsplit.data.sources.imagenet import ImageNet
from fedsplit.data.sources.tiny_imagenet import TinyImageNet
from fedsplit.data.sources.torchvision_files import EuroSat, Imagenette
from fedsplit.errors import UserError
from tests.conftest import TINY, Configure
from tests.data import published
from tests.data.published import WNIDS, stored


def _imagenette(root: Path, **settings: Any) -> Imagenette:
    return Imagenette(root=str(root), download=False, **({"size": "160px", "image_size": 16} | settings))


def _eurosat(root: Path, **settings: Any) -> EuroSat:
    return EuroSat(root=str(root), download=False, **settings)


def _tiny(root: Path, **settings: Any) -> TinyImageNet:
    return TinyImageNet(root=str(root), **settings)


def _expected(files: list[Path], side: int, mode: str = "RGB") -> np.ndarray:
    from PIL import Image  # noqa: PLC0415

    images = [np.asarray(crop_to_square(Image.fromarray(stored(file, mode)), side)) for file in files]
    return np.stack(images).reshape(len(files), side, side, -1)


def test_imagenette_is_read_class_by_class_from_the_folder_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.imagenette(tmp_path, monkeypatch)
    data = _imagenette(tmp_path).load()
    for split, of, n in ((data.train, "train", 6), (data.test, "val", 2)):
        files = sorted((tmp_path / "imagenette2-160" / of).glob("*/*.JPEG"))
        np.testing.assert_array_equal(split.pixels, _expected(files, 16))
        assert split.labels.tolist() == [label for label in range(3) for _ in range(n)]
    assert data.class_names == WNIDS
    with pytest.raises(UserError, match=r"imagenette is not there or damaged; dataset\.download=true"):
        _imagenette(tmp_path, size="320px").load()


def test_eurosat_keeps_a_fixed_fifth_of_each_class_to_test_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.eurosat(tmp_path, monkeypatch)
    train, test = _eurosat(tmp_path).list_files()
    everything = sorted((tmp_path / "eurosat" / "2750").glob("*/*.jpg"))
    assert sorted(file for file, _ in train + test) == everything
    for listed, n in ((train, 8), (test, 2)):
        assert [label for _, label in listed] == [label for label in range(3) for _ in range(n)]
    assert _eurosat(tmp_path).list_files() == (train, test)
    data = _eurosat(tmp_path).load()
    np.testing.assert_array_equal(data.test.pixels, np.stack([stored(file) for file, _ in test]))
    assert data.class_names == ("Forest", "Highway", "River")
    assert data.image_size == 64


def test_tinyimagenet_is_read_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.tinyimagenet(tmp_path, monkeypatch)
    data = _tiny(tmp_path).load()
    assert data.class_names == WNIDS[::-1]  # the order of wnids.txt
    files = [file for wnid in WNIDS[::-1] for file in sorted((tmp_path / "train" / wnid).glob("images/*"))]
    np.testing.assert_array_equal(data.train.pixels, np.stack([stored(file) for file in files]))
    assert data.train.labels.tolist() == [label for label in range(3) for _ in range(6)]
    validation = [tmp_path / f"val/images/val_{i}.JPEG" for i in range(6)]
    np.testing.assert_array_equal(data.test.pixels, np.stack([stored(file) for file in validation]))
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def _annotate(root: Path, text: str) -> None:
    (root / "val" / "val_annotations.txt").write_text(text)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda root: (root / "wnids.txt").unlink(), "a folder that holds wnids.txt, train/<wnid>/images/*"),
        (lambda root: shutil.rmtree(root / "train" / WNIDS[1]), f"train/{WNIDS[1]}/images/ holds no image"),
        (lambda root: shutil.rmtree(root / "val"), "val/ must hold images/* and val_annotations.txt"),
        (lambda root: _annotate(root, ""), "val/ must hold images/* and val_annotations.txt"),
        (
            lambda root: _annotate(root, "val_0.JPEG\tn0\t0\t0\t9\t9\n"),
            "names a class 'n0' that wnids.txt does not",
        ),
        (lambda root: _annotate(root, "val_0.JPEG\n"), "names a class '' that wnids.txt does not"),
        (lambda root: (root / "val/images/val_3.JPEG").unlink(), "val/images/ must hold 'val_3.JPEG'"),
    ],
)
def test_tinyimagenet_with_missing_files_is_refused_with_what_is_missing_and_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None], told: str
) -> None:
    published.tinyimagenet(tmp_path, monkeypatch)
    damage(tmp_path)
    with pytest.raises(UserError) as caught:
        _tiny(tmp_path).load()
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(tmp_path))
    assert told in caught.value.allowed
    assert "http://cs231n.stanford.edu/tiny-imagenet-200.zip" in caught.value.allowed


def test_chest_xray_is_read_from_train_and_test_in_grey_without_val(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.chest_xray(tmp_path, monkeypatch)
    data = ChestXray(root=str(tmp_path), image_size=20, grayscale=True).load()
    files = sorted((tmp_path / "train").glob("*/*.jpeg"))
    np.testing.assert_array_equal(data.train.pixels, _expected(files, 20, "L"))
    assert (len(data.train), len(data.test), data.channels) == (16, 4, 1)
    assert data.class_names == ("NORMAL", "PNEUMONIA")


def test_imagenet_is_read_with_val_as_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.imagenet(tmp_path, monkeypatch)
    data = ImageNet(root=str(tmp_path), image_size=24).load()
    for split, of in ((data.train, "train"), (data.test, "val")):
        files = sorted((tmp_path / of).glob("*/*.JPEG"))
        np.testing.assert_array_equal(split.pixels, _expected(files, 24))
        assert [WNIDS[label] for label in split.labels] == [file.parent.name for file in files]


@pytest.mark.parametrize(
    ("source", "folders", "origin"),
    [
        (ImageFolder, "train/<class>/* and test/<class>/*", ""),
        (ImageNet, "train/<class>/* and val/<class>/*", "image-net.org"),
        (ChestXray, "train/<class>/* and test/<class>/*", "chest-xray-pneumonia"),
    ],
)
def test_missing_image_folder_is_refused_with_the_expected_folders_and_their_origin(
    tmp_path: Path, source: type[ImageFolder], folders: str, origin: str
) -> None:
    with pytest.raises(UserError) as caught:
        source(root=str(tmp_path / "none")).load()
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(tmp_path / "none"))
    assert folders in caught.value.allowed
    assert origin in caught.value.allowed


@pytest.mark.parametrize(("name", "source"), [("imagenette", _imagenette), ("eurosat", _eurosat)])
def test_missing_files_that_torchvision_can_download_are_refused_with_that_way(
    tmp_path: Path, name: str, source: Callable[[Path], ImageSource]
) -> None:
    with pytest.raises(
        UserError, match=rf"{name} is not there or damaged; dataset\.download=true fetches it"
    ):
        source(tmp_path / "none").load()
    assert list(tmp_path.iterdir()) == []


def test_dataset_root_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    published.eurosat(tmp_path / "data", monkeypatch)
    published.image_folder(tmp_path / "own", monkeypatch)
    published.femnist(tmp_path / "data", monkeypatch)
    assert len(EuroSat(root="~/data", download=False).load().train) == 24
    assert len(ImageFolder(root="~/own", image_size=8).load().train) == 18


def test_hidden_files_in_an_image_folder_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.image_folder(tmp_path, monkeypatch)
    (tmp_path / "train" / "ant" / "._ant_0.png").write_bytes(
        b"what an unpacked archive of a Mac leaves behind"
    )
    assert len(ImageFolder(root=str(tmp_path), image_size=8).load().train) == 18


REAL = Path(os.environ.get("FEDSPLIT_CIFAR10_JPEG", CONFIGS.parent / "datas" / "cifar10_jpeg"))


@pytest.mark.skipif(
    not (REAL / "train").is_dir(),
    reason=f"no CIFAR-10 images in {REAL}; FEDSPLIT_CIFAR10_JPEG names their folder",
)
def test_cifar10_as_image_files_has_the_statistics_of_cifar10() -> None:
    source = ImageFolder(root=str(REAL), workers=2)
    train, test = source.list_files()
    assert (len(train), len(test)) == (50_000, 10_000)
    assert source.class_names()[:3] == ("airplane", "automobile", "bird")
    data = source.load()
    sample = torch.linspace(0, 49_999, 2000).long()
    pixels = data.train.pixels[sample].double() / 255
    expected = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    torch.testing.assert_close(pixels.mean((0, 1, 2)), expected[0].double(), atol=0.02, rtol=0)
    torch.testing.assert_close(pixels.std((0, 1, 2)), expected[1].double(), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["", "..", "../other", "/etc", ".git", "a/b", "a\0"])
def test_class_name_that_is_a_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    published.image_folder(tmp_path, monkeypatch)
    with pytest.raises(UserError, match="must be the name of a folder, not a path") as caught:
        ImageFolder(root=str(tmp_path), classes=["ant", "bee", "cat", name]).load()
    assert caught.value.key == "dataset.classes"


@pytest.mark.parametrize("workers", [0, 65, 1.5])
def test_dataset_workers_beyond_their_range_are_refused_with_the_configuration(
    configured: Configure, workers: float
) -> None:
    with pytest.raises(UserError, match="a whole number from 1 to 64 or null") as caught:
        configured(*TINY, "dataset=imagenet", f"dataset.workers={workers}")
    assert (caught.value.key, caught.value.value) == ("dataset.workers", workers)
