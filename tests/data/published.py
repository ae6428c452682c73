"""Small datasets in the formats in which they are published: real archives and files, filled with noise."""

import gzip
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torch import Tensor

from fedsplit.data import decoding
from fedsplit.machine.torchvision_operators import torchvision

CIFAR_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
IDX_FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
WNIDS = ("n01440764", "n02102040", "n02979186")


def digest_of(tensors: Mapping[str, Tensor], cache: Path, read: Callable[[], object]) -> str:
    """The digest by which tensors are taken for what was kept in a file.

    Args:
        tensors: to be kept there.
        cache: the file, which is written over.
        read: reads what the file is of.
    """
    sources: list[str] = []

    def noted(source: str, _: object) -> str:
        sources.append(source)
        return ""

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoding, "_digest", noted)
        read()
    (source,) = {each for each in sources if each.startswith(cache.stem.rpartition("-")[2])}
    return decoding._digest(source, tensors)


def noise(seed: int, n: int, side: int, channels: int = 3) -> np.ndarray:
    """Images `(n, side, side, channels)`."""
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


def cycle(n: int, classes: int) -> list[int]:
    """Labels: every class as often as the others."""
    return [i % classes for i in range(n)]


def checksum(path: Path) -> str:
    return md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_image(path: Path, pixels: np.ndarray) -> Path:
    """In the format of the path's name; a JPEG's pixels are not those written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
    return path


def stored(path: Path, mode: str = "RGB") -> np.ndarray:
    """Pixels of an image file."""
    return np.asarray(Image.open(path).convert(mode))


# The formats


def pickled(path: Path, content: dict[str, Any]) -> str:
    """As CIFAR's files are; gives the checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return checksum(path)


def idx_bytes(values: np.ndarray) -> bytes:
    """The idx format: two zeros, type (8: unsigned byte), dimensions, big-endian sizes, values."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


def idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(idx_bytes(values))


def rows_of(images: np.ndarray) -> np.ndarray:
    """As CIFAR stores them: all of red, then green, then blue, each row by row."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def mat(path: Path, images: np.ndarray, labels: Sequence[int]) -> str:
    """SVHN's MATLAB files: images last, the digit 0 labelled 10; gives the checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y = np.array([[label or 10] for label in labels], dtype=np.uint8)
    savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": y}, do_compression=True)
    return checksum(path)


def zipped(path: Path, files: dict[str, bytes]) -> str:
    """Gives the checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return checksum(path)


def tarred(path: Path, files: dict[str, bytes]) -> str:
    """Compressed with gzip; gives the checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    return checksum(path)


def jpeg_bytes(pixels: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def leaf(path: Path, writers: dict[str, tuple[np.ndarray, Sequence[int]]]) -> None:
    """LEAF's JSON: pixels from 0 to 1, by writer."""
    content = {
        "users": list(writers),
        "num_samples": [len(y) for _, y in writers.values()],
        "user_data": {
            name: {"x": (x.reshape(len(x), 28 * 28) / 255).tolist(), "y": list(y)}
            for name, (x, y) in writers.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


# Whole datasets: each makes its files below a folder, has torchvision take their checksums for the right
# ones, and gives what to set to read them.


def cifar10(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    reader, folder = torchvision().datasets.CIFAR10, root / CIFAR_FOLDERS["cifar10"]
    sums = []
    for seed, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        content = {"data": rows_of(noise(seed, 10, 32)), "labels": cycle(10, 10), "batch_label": name}
        sums.append([name, pickled(folder / name, content)])
    meta = pickled(folder / "batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    patch.setattr(reader, "train_list", sums[:5])
    patch.setattr(reader, "test_list", sums[5:])
    patch.setattr(reader, "meta", {**reader.meta, "md5": meta})
    return [f"dataset.root={root}", "dataset.download=false"]


def cifar100(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    reader, folder = torchvision().datasets.CIFAR100, root / CIFAR_FOLDERS["cifar100"]
    for seed, (split, n) in enumerate({"train": 400, "test": 100}.items()):
        content = {"data": rows_of(noise(seed, n, 32)), "fine_labels": cycle(n, 100)}
        patch.setattr(reader, f"{split}_list", [[split, pickled(folder / split, content)]])
    meta = pickled(folder / "meta", {"fine_label_names": [f"class {i}" for i in range(100)]})
    patch.setattr(reader, "meta", {**reader.meta, "md5": meta})
    return [f"dataset.root={root}", "dataset.download=false"]


def mnist(root: Path, patch: pytest.MonkeyPatch, folder: str = "MNIST") -> list[str]:
    for seed, (prefix, n) in enumerate({"train": 50, "t10k": 10}.items()):
        idx(root / folder / "raw" / f"{prefix}-images-idx3-ubyte", noise(seed, n, 28, 1)[..., 0])
        idx(root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", np.array(cycle(n, 10)))
    return [f"dataset.root={root}", "dataset.download=false"]


def fashion_mnist(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    return mnist(root, patch, "FashionMNIST")


def svhn(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    reader = torchvision().datasets.SVHN
    lists = {}
    for seed, (split, n) in enumerate({"train": 50, "test": 10}.items()):
        url, name, _ = reader.split_list[split]
        lists[split] = [url, name, mat(root / name, noise(seed, n, 32), cycle(n, 10))]
    patch.setattr(reader, "split_list", {**reader.split_list, **lists})
    return [f"dataset.root={root}", "dataset.download=false"]


def femnist(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    for seed, (split, n) in enumerate({"train": 14, "test": 4}.items()):
        for part in range(2):
            writers = {f"f{part}{w}": (noise(9 * seed + w, n, 28, 1), cycle(n, 10)) for w in range(2 + part)}
            leaf(root / "femnist" / split / f"all_data_{part}_niid_0_keep_0_{split}_9.json", writers)
    return [f"dataset.root={root}", "dataset.download=false"]


def _folders(
    folder: Path, classes: Sequence[str], n: int, *, sides: Sequence[int], seed: int, suffix: str
) -> None:
    for label, name in enumerate(classes):
        for i in range(n):
            side = sides[i % len(sides)]
            pixels = noise(100 * seed + 10 * label + i, 1, side)[0][:, : side - i % 3]
            write_image(folder / name / f"{name}_{i}{suffix}", pixels)


def image_folder(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    for seed, (split, n) in enumerate({"train": 6, "test": 2}.items()):
        _folders(root / split, ("ant", "bee", "cat"), n, sides=(12, 9), seed=seed, suffix=".png")
    return [f"dataset.root={root}"]


def imagenet(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    for seed, (split, n) in enumerate({"train": 6, "val": 2}.items()):
        _folders(root / split, WNIDS, n, sides=(40, 25), seed=seed, suffix=".JPEG")
    return [f"dataset.root={root}"]


def chest_xray(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    for seed, (split, n) in enumerate({"train": 8, "test": 2, "val": 1}.items()):
        _folders(root / split, ("NORMAL", "PNEUMONIA"), n, sides=(50, 31), seed=seed, suffix=".jpeg")
    return [f"dataset.root={root}"]


def imagenette(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    for seed, (split, n) in enumerate({"train": 6, "val": 2}.items()):
        _folders(root / "imagenette2-160" / split, WNIDS, n, sides=(16, 20), seed=seed, suffix=".JPEG")
    return [f"dataset.root={root}", "dataset.download=false"]


def eurosat(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    for seed, name in enumerate(("Forest", "Highway", "River")):
        for i in range(1, 11):
            write_image(root / "eurosat" / "2750" / name / f"{name}_{i}.jpg", noise(50 * seed + i, 1, 64)[0])
    return [f"dataset.root={root}", "dataset.download=false"]


def tinyimagenet(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    order = WNIDS[::-1]  # as published: in no alphabetical order
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(order) + "\n")
    lines = []
    for label, wnid in enumerate(order):
        for i in range(6):
            write_image(
                root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", noise(20 * label + i, 1, 64)[0]
            )
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
    for i in range(6):
        write_image(root / "val" / "images" / f"val_{i}.JPEG", noise(90 + i, 1, 64)[0])
        lines.append(f"val_{i}.JPEG\t{order[i % 3]}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return [f"dataset.root={root}"]


def digits(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    return ["dataset.max_train=50", "dataset.max_test=10"]


MAKERS: dict[str, Callable[[Path, pytest.MonkeyPatch], list[str]]] = {
    each.__name__: each
    for each in (
        *(digits, cifar10, cifar100, mnist, fashion_mnist, svhn, femnist, image_folder, imagenet),
        *(chest_xray, imagenette, eurosat, tinyimagenet),
    )
}
"""Functions that write small files of each dataset, by the name of its choice."""
