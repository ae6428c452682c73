from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from fedsplit.data.sources.torchvision_images import TorchvisionImages
from fedsplit.errors import UserError
from fedsplit.machine.torchvision_operators import torchvision
from tests.data.published import CIFAR_FOLDERS, IDX_FOLDERS, cycle, idx, mat, noise, pickled, svhn

CLASSES = {
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
    "MNIST": "mnist",
    "FashionMNIST": "fashion_mnist",
    "SVHN": "svhn",
}


@pytest.fixture(scope="module")
def datasets() -> ModuleType:
    module: ModuleType = torchvision().datasets
    return module


def _source(name: str, root: Path, *, download: bool = False) -> TorchvisionImages:
    return TorchvisionImages(name=name, root=str(root), download=download)  # type: ignore[arg-type]


def _batch(seed: int, samples: int, classes: int) -> tuple[np.ndarray, list[int]]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (samples, 3072), dtype=np.uint8), draw.integers(0, classes, samples).tolist()


def _images_of(rows: np.ndarray) -> np.ndarray:
    """A row is all of red, then green, then blue, each row by row."""
    out = np.zeros((len(rows), 32, 32, 3), np.uint8)
    for channel in range(3):
        out[..., channel] = rows[:, 1024 * channel : 1024 * (channel + 1)].reshape(-1, 32, 32)
    return out


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datasets: ModuleType) -> Path:
    folder = tmp_path / CIFAR_FOLDERS["cifar10"]
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    sums = []
    for seed, name in enumerate(names):
        data, labels = _batch(seed, 4, 10)
        sums.append([name, pickled(folder / name, {"data": data, "labels": labels, "batch_label": name})])
    meta = pickled(folder / "batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": meta})
    return tmp_path


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datasets: ModuleType) -> Path:
    folder = tmp_path / CIFAR_FOLDERS["cifar100"]
    sums = {}
    for seed, name in enumerate(("train", "test")):
        data, fine = _batch(seed, 12, 100)
        content = {"data": data, "fine_labels": fine, "coarse_labels": [label // 5 for label in fine]}
        sums[name] = pickled(folder / name, content)
    meta = pickled(folder / "meta", {"fine_label_names": [f"class {i}" for i in range(100)]})
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": meta})
    return tmp_path


def test_cifar10_is_read_batch_after_batch_as_published(cifar10: Path) -> None:
    train, test = _source("cifar10", cifar10).read()
    parts = [_batch(seed, 4, 10) for seed in range(5)]
    np.testing.assert_array_equal(train.pixels, _images_of(np.concatenate([data for data, _ in parts])))
    assert train.labels.tolist() == [label for _, labels in parts for label in labels]
    np.testing.assert_array_equal(test.pixels, _images_of(_batch(5, 4, 10)[0]))
    assert test.labels.tolist() == _batch(5, 4, 10)[1]


def test_cifar100_is_read_with_its_fine_labels(cifar100: Path) -> None:
    for split, seed in zip(_source("cifar100", cifar100).read(), (0, 1), strict=True):
        data, fine = _batch(seed, 12, 100)
        np.testing.assert_array_equal(split.pixels, _images_of(data))
        assert split.labels.tolist() == fine


def test_cifar10_with_a_damaged_batch_is_refused(cifar10: Path) -> None:
    path = cifar10 / CIFAR_FOLDERS["cifar10"] / "data_batch_3"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="cifar10 is not there") as caught:
        _source("cifar10", cifar10).read()
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(cifar10))


def _idx_split(seed: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (samples, 28, 28), dtype=np.uint8)
    labels = np.concatenate([np.arange(10), draw.integers(0, 10, samples - 10)]).astype(np.uint8)
    return images, labels


@pytest.fixture
def idx_files(tmp_path: Path) -> Path:
    for folder in IDX_FOLDERS.values():
        for prefix, seed, samples in (("train", 0, 15), ("t10k", 1, 11)):
            images, labels = _idx_split(seed + len(folder), samples)
            idx(tmp_path / folder / "raw" / f"{prefix}-images-idx3-ubyte", images)
            idx(tmp_path / folder / "raw" / f"{prefix}-labels-idx1-ubyte", labels)
    return tmp_path


@pytest.mark.parametrize("name", sorted(IDX_FOLDERS))
def test_idx_files_are_read_into_one_grey_channel(idx_files: Path, name: str) -> None:
    expected = [_idx_split(seed + len(IDX_FOLDERS[name]), n) for seed, n in ((0, 15), (1, 11))]
    for split, (images, labels) in zip(_source(name, idx_files).read(), expected, strict=True):
        np.testing.assert_array_equal(split.pixels, images[..., None])
        assert split.labels.tolist() == labels.tolist()
        assert str(split.labels.dtype) == "torch.int64"


def test_load_of_mnist_gives_the_images_read_with_the_number_of_classes(idx_files: Path) -> None:
    source = TorchvisionImages(
        name="mnist", root=str(idx_files), download=False, max_train=10, flip=False, crop_padding=2
    )
    data = source.load()
    assert (data.num_classes, data.channels, data.image_size) == (10, 1, 28)
    assert data.train.labels.tolist() == list(range(10))  # the first of each class
    np.testing.assert_array_equal(data.train.pixels[..., 0], _idx_split(len("MNIST"), 15)[0][:10])


@pytest.mark.parametrize("size", [0, 3, 10, 1000])
def test_idx_file_cut_short_is_refused(idx_files: Path, size: int) -> None:
    path = idx_files / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"^dataset\.root="):
        _source("mnist", idx_files).read()


@pytest.mark.parametrize("name", sorted(CLASSES.values()))
def test_missing_files_are_refused_with_the_way_to_download_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        UserError, match=f"{name} is not there or damaged; dataset.download=true fetches it"
    ) as caught:
        _source(name, tmp_path).read()
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(tmp_path))
    told = str(caught.value)
    assert "https://" in told or "http://" in told
    assert any(layout in told for layout in ("/raw/ with ", "-py/*", "cifar-100-python/*", ".mat"))
    assert told.endswith("FOLDER/train/<class>/* and FOLDER/test/<class>/*")  # of image_folder


@pytest.mark.parametrize("reader", sorted(CLASSES))
@pytest.mark.parametrize(
    "error",
    [
        URLError("no route to host"),
        TimeoutError("timed out"),
        RuntimeError("File not found or corrupted.\nmore lines"),
        OSError(),
    ],
)
def test_failed_download_is_refused_in_one_line_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datasets: ModuleType, reader: str, error: Exception
) -> None:
    def fail(self: object) -> None:
        raise error

    monkeypatch.setattr(getattr(datasets, reader), "download", fail)
    with pytest.raises(
        UserError, match=f"{CLASSES[reader]} is not there or damaged, and its download failed"
    ) as caught:
        _source(CLASSES[reader], tmp_path, download=True).read()
    reason = str(error).splitlines()[0] if str(error) else "OSError"
    assert f"({reason})" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_download_happens_only_where_configured(
    idx_files: Path, monkeypatch: pytest.MonkeyPatch, datasets: ModuleType
) -> None:
    asked = []
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: asked.append(self.train))
    _source("mnist", idx_files, download=False).read()
    assert asked == []
    _source("mnist", idx_files, download=True).read()
    assert asked == [True, False]


@pytest.mark.parametrize("reader", sorted(CLASSES))
@pytest.mark.parametrize("was_there", [False, True])
def test_failed_download_leaves_a_folder_only_where_there_was_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datasets: ModuleType, reader: str, was_there: bool
) -> None:
    root = tmp_path / "data"
    if was_there:
        root.mkdir()
        (root / "mine.txt").write_text("kept")

    def fail(self: Any) -> None:
        Path(self.root, "raw").mkdir(parents=True)
        Path(self.root, "raw", "half").write_bytes(b"half")
        raise URLError("no route to host")

    monkeypatch.setattr(getattr(datasets, reader), "download", fail)
    with pytest.raises(UserError, match="its download failed"):
        _source(CLASSES[reader], root, download=True).read()
    assert root.exists() is was_there
    if was_there:
        assert (root / "mine.txt").read_text() == "kept"
    assert tmp_path.is_dir()


@pytest.mark.parametrize("name", sorted(CLASSES.values()))
def test_reading_missing_files_creates_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is not there or damaged"):
        _source(name, tmp_path / "data").read()
    assert list(tmp_path.iterdir()) == []


def test_svhn_is_read_from_its_matlab_files_with_the_digit_zero_as_label_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    svhn(tmp_path, monkeypatch)
    for seed, (split, n) in enumerate(zip(_source("svhn", tmp_path).read(), (50, 10), strict=True)):
        np.testing.assert_array_equal(split.pixels, noise(seed, n, 32))
        assert split.labels.tolist() == cycle(n, 10)
        assert split.pixels.is_contiguous()


def test_svhn_with_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    svhn(tmp_path, monkeypatch)
    mat(tmp_path / "test_32x32.mat", noise(5, 10, 32), cycle(10, 10))
    with pytest.raises(UserError, match="svhn is not there or damaged") as caught:
        _source("svhn", tmp_path).read()
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(tmp_path))
