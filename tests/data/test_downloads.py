"""What torchvision downloads it downloads: here, real archives over HTTP, from a server of the test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from torch import Tensor

from fedsplit.data.image_source import ImageSource
from fedsplit.data.sources.femnist import Femnist
from fedsplit.data.sources.torchvision_files import EuroSat, Imagenette
from fedsplit.data.sources.torchvision_images import TorchvisionImages
from fedsplit.errors import UserError
from fedsplit.machine.torchvision_operators import torchvision
from tests.data.published import (
    WNIDS,
    checksum,
    cycle,
    gzipped,
    idx_bytes,
    jpeg_bytes,
    mat,
    noise,
    pickled,
    rows_of,
    tarred,
    zipped,
)


@dataclass(frozen=True)
class Server:
    """A folder, and where its files are served."""

    folder: Path
    port: int

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as http:
        thread = Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield Server(folder, http.server_port)
        http.shutdown()
        thread.join()


Serve = Callable[[Server, pytest.MonkeyPatch], None]


def _cifar10(server: Server, patch: pytest.MonkeyPatch) -> None:
    reader, files = torchvision().datasets.CIFAR10, {}
    sums = []
    for seed, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        content = {"data": rows_of(noise(seed, 2, 32)), "labels": [seed, 9]}
        sums.append([name, pickled(server.folder / name, content)])
        files[f"cifar-10-batches-py/{name}"] = (server.folder / name).read_bytes()
    meta = pickled(server.folder / "meta", {"label_names": list("abcdefghij")})
    files["cifar-10-batches-py/batches.meta"] = (server.folder / "meta").read_bytes()
    patch.setattr(reader, "train_list", sums[:5])
    patch.setattr(reader, "test_list", sums[5:])
    patch.setattr(reader, "meta", {**reader.meta, "md5": meta})
    patch.setattr(reader, "tgz_md5", tarred(server.folder / "cifar-10-python.tar.gz", files))
    patch.setattr(reader, "url", server.address("cifar-10-python.tar.gz"))


def _mnist(server: Server, patch: pytest.MonkeyPatch) -> None:
    reader, resources = torchvision().datasets.MNIST, []
    for seed, prefix in enumerate(("train", "t10k")):
        for name, values in (
            (f"{prefix}-images-idx3-ubyte.gz", noise(seed, 10, 28, 1)[..., 0]),
            (f"{prefix}-labels-idx1-ubyte.gz", np.arange(10)),
        ):
            (server.folder / name).write_bytes(gzipped(idx_bytes(values)))
            resources.append((name, checksum(server.folder / name)))
    patch.setattr(reader, "resources", resources)
    patch.setattr(reader, "mirrors", [server.address("")])


def _svhn(server: Server, patch: pytest.MonkeyPatch) -> None:
    reader, lists = torchvision().datasets.SVHN, {}
    for seed, split in enumerate(("train", "test")):
        name = f"{split}_32x32.mat"
        lists[split] = [
            server.address(name),
            name,
            mat(server.folder / name, noise(seed, 10, 32), cycle(10, 10)),
        ]
    patch.setattr(reader, "split_list", lists)


def _emnist(server: Server, patch: pytest.MonkeyPatch) -> None:
    reader, files = torchvision().datasets.EMNIST, {}
    for seed, split in enumerate(("train", "test")):
        name = f"gzip/emnist-byclass-{split}"
        files[f"{name}-images-idx3-ubyte.gz"] = gzipped(idx_bytes(noise(seed, 62, 28, 1)[..., 0]))
        files[f"{name}-labels-idx1-ubyte.gz"] = gzipped(idx_bytes(np.arange(62)))
    patch.setattr(reader, "md5", zipped(server.folder / "gzip.zip", files))
    patch.setattr(reader, "url", server.address("gzip.zip"))


def _imagenette(server: Server, patch: pytest.MonkeyPatch) -> None:
    files = {
        f"imagenette2-160/{split}/{wnid}/{wnid}_{i}.JPEG": jpeg_bytes(noise(10 * label + i, 1, 24)[0])
        for split, n in (("train", 3), ("val", 1))
        for label, wnid in enumerate(WNIDS)
        for i in range(n)
    }
    reader, archive = torchvision().datasets.Imagenette, server.folder / "imagenette2-160.tgz"
    sums = {"160px": (server.address(archive.name), tarred(archive, files))}
    patch.setattr(reader, "_ARCHIVES", {**reader._ARCHIVES, **sums})


def _eurosat(server: Server, patch: pytest.MonkeyPatch) -> None:
    files = {
        f"2750/{name}/{name}_{i}.jpg": jpeg_bytes(noise(20 * label + i, 1, 64)[0])
        for label, name in enumerate(("Forest", "River"))
        for i in range(5)
    }
    md5 = zipped(server.folder / "EuroSAT.zip", files)
    from torchvision.datasets import eurosat  # noqa: PLC0415  (its address stands inside a function)

    fetch = eurosat.download_and_extract_archive
    patch.setattr(
        eurosat,
        "download_and_extract_archive",
        lambda url, download_root, md5: fetch(server.address("EuroSAT.zip"), download_root, md5=served),
    )
    served = md5


def _of_torchvision(name: str) -> Callable[[str, bool], ImageSource]:
    return lambda root, download: TorchvisionImages(name=name, root=root, download=download)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """What is served, how it is read, and what must be there then."""

    serve: Serve
    source: Callable[[str, bool], ImageSource]
    samples: tuple[int, int]
    side: int


CASES = {
    "cifar10": Case(_cifar10, _of_torchvision("cifar10"), (10, 2), 32),
    "mnist": Case(_mnist, _of_torchvision("mnist"), (10, 10), 28),
    "svhn": Case(_svhn, _of_torchvision("svhn"), (10, 10), 32),
    "femnist": Case(_emnist, lambda root, download: Femnist(root=root, download=download), (62, 62), 28),
    "imagenette": Case(
        _imagenette,
        lambda root, download: Imagenette(root=root, download=download, size="160px", image_size=24),
        (9, 3),
        24,
    ),
    "eurosat": Case(_eurosat, lambda root, download: EuroSat(root=root, download=download), (8, 2), 64),
}


@pytest.mark.parametrize("name", CASES)
def test_download_fetches_and_unpacks_an_archive_that_is_then_read_offline(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, root = CASES[name], tmp_path / "data"
    case.serve(server, monkeypatch)
    with pytest.raises(UserError, match=r"dataset\.download=true fetches it"):
        case.source(str(root), False).load()
    assert not root.exists()
    fetched = case.source(str(root), True).load()
    for path in server.folder.iterdir():
        path.unlink()
    again = case.source(str(root), False).load()
    for data in (fetched, again):
        assert (len(data.train), len(data.test), data.image_size) == (*case.samples, case.side)
    assert isinstance(fetched.train.pixels, Tensor)
    assert (fetched.train.pixels == again.train.pixels).all()
    assert fetched.train.labels.tolist() == again.train.labels.tolist()


@pytest.mark.parametrize("name", CASES)
def test_download_of_an_altered_archive_is_refused_and_leaves_no_folder(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, root = CASES[name], tmp_path / "data"
    case.serve(server, monkeypatch)
    for path in server.folder.iterdir():
        path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="its download failed") as caught:
        case.source(str(root), True).load()
    assert caught.value.key == "dataset.root"
    assert "\n" not in str(caught.value)
    assert not root.exists()


def test_femnist_downloaded_as_emnist_has_62_classes_and_no_owners(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _emnist(server, monkeypatch)
    data = Femnist(root=str(tmp_path / "data"), download=True).load()
    assert (data.num_classes, data.channels) == (62, 1)
    assert "".join(data.class_names) == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert data.train.owners is None
    np.testing.assert_array_equal(data.train.pixels, noise(0, 62, 28, 1))
    assert data.train.labels.tolist() == list(range(62))
