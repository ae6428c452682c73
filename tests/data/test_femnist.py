import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedsplit.data.images import Images
from fedsplit.data.sources.femnist import Femnist
from fedsplit.errors import UserError
from tests.conftest import Build
from tests.data.published import cycle, digest_of, femnist, leaf, noise

TRAIN = "femnist/train/all_data_0_niid_0_keep_0_train_9.json"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files a split, of two and three writers with 14 training images each."""
    femnist(tmp_path, monkeypatch)
    return tmp_path


def _source(root: Path, **settings: Any) -> Femnist:
    return Femnist(root=str(root), download=False, **settings)


def test_femnist_files_of_leaf_are_read_with_the_writer_of_each_sample(root: Path) -> None:
    data = _source(root).load()
    writers = [noise(w, 14, 28, 1) for w in (0, 1, 0, 1, 2)]
    np.testing.assert_array_equal(data.train.pixels, np.concatenate(writers))
    assert data.train.labels.tolist() == cycle(14, 10) * 5
    assert data.train.owners.tolist() == [w for w in range(5) for _ in range(14)]
    assert (len(data.test), data.num_classes, data.image_size, data.channels) == (20, 62, 28, 1)
    assert [str(data.train.owners.dtype), str(data.train.labels.dtype)] == ["torch.int64"] * 2


def fields_of(images: Images) -> tuple[torch.Tensor, ...]:
    assert isinstance(images.pixels, torch.Tensor)
    assert images.owners is not None
    return images.pixels, images.labels, images.owners


@pytest.mark.parametrize("change", ["pixels", "fewer", "label", "owner", "type", "missing", "more"])
@pytest.mark.parametrize("signed", [False, True])
def test_what_was_kept_otherwise_is_parsed_anew(root: Path, change: str, signed: bool) -> None:
    """Also where its digest is right, of what cannot be of these files."""
    first = fields_of(_source(root).read()[0])
    (cache,) = (root / "femnist" / ".fedsplit-cache").glob("train-*")
    pixels, labels, owners = (each.clone() for each in first)
    tensors = {"pixels": pixels, "labels": labels, "owners": owners}
    match change:
        case "pixels":
            pixels[0, 0, 0, 0] ^= 1
        case "fewer":
            tensors["labels"] = labels[1:]
        case "label":
            labels[0] = 62
        case "owner":
            owners[0] = -1
        case "type":
            tensors["pixels"] = pixels.to(torch.int32)
        case "missing":
            del tensors["owners"]
        case "more":
            tensors["x"] = labels.clone()
    if signed and change != "pixels":
        save_file(tensors, cache, {"digest": digest_of(tensors, cache, _source(root).read)})
    else:
        save_file(tensors, cache)
    for one, other in zip(fields_of(_source(root).read()[0]), first, strict=True):
        assert torch.equal(one, other)


def test_femnist_read_again_comes_from_the_cache_until_a_file_is_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _source(root).read()[0]
    with monkeypatch.context() as patched:
        patched.setattr(Femnist, "_parse", None)
        again = _source(root).read()[0]
    for one, other in zip(fields_of(first), fields_of(again), strict=True):
        assert torch.equal(one, other)
    leaf(root / TRAIN, {"f07": (noise(9, 3, 28, 1), [61, 0, 35])})
    train = _source(root).read()[0]
    np.testing.assert_array_equal(train.pixels[:3], noise(9, 3, 28, 1))
    assert train.owners.tolist() == [0] * 3 + [w for w in (1, 2, 3) for _ in range(14)]


def test_femnist_writer_in_two_files_is_one_owner(root: Path) -> None:
    leaf(root / "femnist/train/more.json", {"f10": (noise(3, 2, 28, 1), [1, 2])})
    owners = _source(root).read()[0].owners.tolist()
    assert owners[-2:] == [2, 2]  # f00, f01, f10
    assert len(set(owners)) == 5


def test_femnist_writer_without_a_sample_is_no_owner(root: Path) -> None:
    leaf(root / TRAIN, {"f00": (noise(9, 0, 28, 1), []), "f01": (noise(9, 2, 28, 1), [1, 2])})
    assert len(_source(root).read()[0].owners.unique()) == 4


def test_natural_division_of_femnist_gives_clients_whole_writers(root: Path, tiny: Build) -> None:
    run = tiny(
        *("dataset=femnist", f"dataset.root={root}", "dataset.max_train=null", "dataset.max_test=null"),
        "distribution=natural",
    )
    owners = run.parts.data.dataset.train.owners
    held = [set(owners[shard].tolist()) for shard in run.parts.data.shards[:]]
    assert sorted(map(len, held)) == [1, 2, 2]
    assert set().union(*held) == set(range(5))


def test_natural_division_of_a_dataset_without_owners_is_refused(tiny: Build) -> None:
    with pytest.raises(UserError, match="needs a dataset that names the owner") as caught:
        tiny("distribution=natural")
    assert (caught.value.key, caught.value.value) == ("distribution", "natural")


def _without(content: dict[str, Any], key: str) -> None:
    del content[key]


def _label(content: dict[str, Any], value: int) -> None:
    content["user_data"]["f00"]["y"][0] = value


def _pixel(content: dict[str, Any], value: object) -> None:
    content["user_data"]["f00"]["x"][0][5] = value


def _short(content: dict[str, Any], of: str) -> None:
    content["user_data"]["f00"][of].pop()


@pytest.mark.parametrize(
    ("damage", "argument"),
    [
        *((_without, "users"), (_without, "user_data")),
        *((_label, 62), (_label, -1), (_label, "a")),
        *((_pixel, 255), (_pixel, -0.5), (_pixel, float("nan")), (_pixel, "black"), (_pixel, [1])),
        *((_short, "x"), (_short, "y")),
    ],
)
def test_femnist_file_that_is_not_of_the_leaf_format_is_named(root: Path, damage: Any, argument: Any) -> None:
    content = json.loads((root / TRAIN).read_text())
    damage(content, argument)
    (root / TRAIN).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"train_9\.json must be JSON of LEAF") as caught:
        _source(root).read()
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(root))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"null"])
def test_femnist_file_that_is_not_a_json_object_is_named(root: Path, content: bytes) -> None:
    (root / TRAIN).write_bytes(content)
    with pytest.raises(UserError, match=r"train_9\.json must be JSON of LEAF"):
        _source(root).read()


@pytest.mark.parametrize("split", ["train", "test"])
def test_femnist_with_the_files_of_only_one_split_is_refused(root: Path, split: str) -> None:
    for file in (root / "femnist" / split).iterdir():
        file.unlink()
    with pytest.raises(UserError, match="must both hold LEAF's JSON files"):
        _source(root).read()


def test_femnist_without_files_is_refused_with_the_way_to_download_them(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"femnist is not there or damaged; dataset\.download=true fetches it"
    ):
        _source(tmp_path).read()
