import os
import pickle
import shutil
import socket
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fedsplit.data.decoding import Decoder, ignore_pillows_warnings
from fedsplit.data.sources.image_folder import ImageFolder
from fedsplit.errors import UserError
from tests.data.published import digest_of

FILES = {
    "train/ant/b.png": 0,
    "train/ant/a.png": 1,
    "train/bee/1.png": 2,
    "train/bee/2.PNG": 3,
    "test/ant/x.png": 4,
    "test/bee/y.bmp": 5,
}


def _pixels(seed: int, width: int = 6, height: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, noise of 6x6 pixels, and files that are no images."""
    for name, seed in FILES.items():
        _write(tmp_path / name, _pixels(seed))
    (tmp_path / "train/ant/notes-on-figures.txt").write_text("not an image")
    (tmp_path / "train/readme.png").write_text("not in a class")
    return tmp_path


def _source(
    root: Path, image_size: int | None = None, grayscale: bool = False, max_train: int | None = None
) -> ImageFolder:
    return ImageFolder(root=str(root), image_size=image_size, grayscale=grayscale, max_train=max_train)


def _caches(root: Path) -> list[Path]:
    return sorted((root / ".fedsplit-cache").glob("*"))


def test_image_folder_is_read_by_class_then_by_name_with_the_pixels_of_the_files(root: Path) -> None:
    train, test = _source(root).read()
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(train.pixels, np.stack([_pixels(seed) for seed in (1, 0, 2, 3)]))
    np.testing.assert_array_equal(test.pixels, np.stack([_pixels(seed) for seed in (4, 5)]))


def test_image_folder_with_max_train_keeps_equally_many_of_each_class(root: Path) -> None:
    data = _source(root, max_train=2).load()
    np.testing.assert_array_equal(data.train.pixels, np.stack([_pixels(1), _pixels(2)]))
    assert (data.num_classes, data.channels, data.image_size) == (2, 3, 6)


def test_jpeg_files_are_read_as_pillow_decodes_them(root: Path) -> None:
    for split in ("train", "test"):
        _write(root / split / "cat" / "c.JPEG", _pixels(9))
    expected = np.asarray(Image.open(root / "train/cat/c.JPEG").convert("RGB"))
    np.testing.assert_array_equal(_source(root).read()[0].pixels[-1], expected)


def test_grayscale_gives_the_luma_of_the_colours_in_one_channel(root: Path) -> None:
    train, _ = _source(root, grayscale=True).read()
    assert train.pixels.shape == (4, 6, 6, 1)
    luma = _pixels(1).astype(np.float64) @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    assert np.abs(train.pixels[0, :, :, 0].numpy() - luma).max() <= 1


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "CMYK"])
def test_image_of_any_mode_is_read_as_three_channels(root: Path, mode: str) -> None:
    name = "a.tif" if mode == "CMYK" else "a.png"
    (root / "train/ant/a.png").unlink()
    stored = Image.fromarray(_pixels(1)).convert(mode)
    stored.save(root / "train/ant" / name)
    train, _ = _source(root).read()
    assert train.pixels.shape == (4, 6, 6, 3)
    np.testing.assert_array_equal(train.pixels[0], np.asarray(stored.convert("RGB")))


def test_image_size_resizes_files_of_any_shape(root: Path) -> None:
    _write(root / "train/ant/a.png", np.full((3, 9, 3), 77, np.uint8))
    train, test = _source(root, image_size=4).read()
    assert train.pixels.shape == (4, 4, 4, 3)
    assert test.pixels.shape == (2, 4, 4, 3)
    assert (train.pixels[0] == 77).all()
    expected = Image.fromarray(_pixels(2)).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(train.pixels[2], np.asarray(expected))


@pytest.mark.parametrize(
    ("name", "width", "height", "words"),
    [
        ("train/ant/a.png", 6, 5, "a.png is 6x5: give the size"),  # the first file
        ("train/bee/1.png", 5, 6, "1.png is 5x6 and not 6x6: give the size"),
        ("test/bee/y.bmp", 7, 7, "y.bmp is 7x7 and not 6x6: give the size"),
    ],
)
def test_files_not_square_or_of_different_sizes_without_image_size_are_named(
    root: Path, name: str, width: int, height: int, words: str
) -> None:
    _write(root / name, _pixels(0, width, height))
    with pytest.raises(UserError, match=words) as caught:
        _source(root).read()
    assert (caught.value.key, caught.value.value) == ("dataset.image_size", None)


def test_splits_of_different_image_sizes_are_refused(root: Path) -> None:
    for name in ("test/ant/x.png", "test/bee/y.bmp"):
        _write(root / name, _pixels(0, 8, 8))
    with pytest.raises(UserError, match=r"8x8 and not 6x6"):
        _source(root).read()


@pytest.mark.parametrize("missing", ["", "train"])
def test_image_folder_without_train_is_refused(tmp_path: Path, missing: str) -> None:
    root = tmp_path / "nothing" if missing == "" else tmp_path
    with pytest.raises(UserError, match="wanted are train/<class>") as caught:
        _source(root).read()
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(root))


@pytest.mark.parametrize(("split", "place"), [("train", "train/"), ("test", "test/<class>/")])
def test_split_without_an_image_is_refused(root: Path, split: str, place: str) -> None:
    for name in FILES:
        if name.startswith(split):
            (root / name).unlink()
    with pytest.raises(UserError, match=f"{place}.* ?holds no image") as caught:
        _source(root).read()
    assert ("move some images of each class there" in caught.value.allowed) == (split == "test")


def test_error_of_a_folder_without_test_images_says_that_validation_needs_them_too(root: Path) -> None:
    shutil.rmtree(root / "test")
    with pytest.raises(
        UserError, match=r"needed to test on, beside dataset\.validation too: move some images"
    ):
        ImageFolder(root=str(root), validation=2).read()


def test_class_of_test_that_train_does_not_have_is_named(root: Path) -> None:
    _write(root / "test/cat/c.png", _pixels(0))
    with pytest.raises(UserError, match="class cat of test is none of train"):
        _source(root).read()


def _text(path: Path) -> None:
    path.write_text("this is text")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _header_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:45])


def _wrong_chunk(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"I\x00AT"))


@pytest.mark.parametrize("damage", [_text, _empty, _half, _header_only, _wrong_chunk])
@pytest.mark.parametrize("name", ["train/ant/a.png", "train/bee/1.png"])
def test_file_that_cannot_be_decoded_is_named(root: Path, damage: Callable[[Path], None], name: str) -> None:
    _write(root / name, _pixels(0))
    damage(root / name)
    with pytest.raises(UserError, match=r"(a|1)\.png cannot be read as an image"):
        _source(root).read()


def test_image_folder_read_again_takes_the_decoded_pixels_from_the_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _source(root).read()
    monkeypatch.setattr(Decoder, "decode", None)
    for one, other in zip(first, _source(root).read(), strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.labels, other.labels)


class _Pickled:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("unpickled",))


def _signed(cache: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Keep tensors under a digest that is right."""
    save_file(tensors, cache, {"digest": digest_of(tensors, cache, _source(cache.parents[1]).read)})


def _of_other_files(cache: Path, other: Path) -> None:
    """What was kept, whole, of other files with the same labels."""
    for name, seed in FILES.items():
        _write(other / name, _pixels(seed + 10))
    _source(other).read()
    (kept,) = (path for path in _caches(other) if path.name.startswith("train"))
    shutil.copy(kept, cache)


def _array_of_objects(cache: Path, _: Path) -> None:
    with cache.open("wb") as file:
        np.save(file, np.array([_Pickled()], dtype=object), allow_pickle=True)


def _changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


_IMAGES = {"pixels": torch.zeros(4, 6, 6, 3, dtype=torch.uint8), "labels": torch.tensor([0, 0, 1, 1])}

CACHES: dict[str, Callable[[Path, Path], object]] = {
    "other pixels": lambda cache, _: save_file(_IMAGES, cache),
    "pixels alone": lambda cache, _: save_file({"pixels": _IMAGES["pixels"]}, cache),
    "one bit": lambda cache, _: cache.write_bytes(_changed(cache.read_bytes(), -40)),
    "of other files": _of_other_files,
    "more images": lambda cache, _: _signed(cache, {**_IMAGES, "pixels": torch.zeros(5, 6, 6, 3).byte()}),
    "fewer images": lambda cache, _: _signed(cache, {name: each[:3] for name, each in _IMAGES.items()}),
    "another shape": lambda cache, _: _signed(cache, {**_IMAGES, "pixels": torch.zeros(4, 3, 6, 6).byte()}),
    "another type": lambda cache, _: _signed(cache, {**_IMAGES, "pixels": torch.zeros(4, 6, 6, 3)}),
    "other labels": lambda cache, _: _signed(cache, {**_IMAGES, "labels": torch.tensor([0, 1, 1, 1])}),
    "labels of another type": lambda cache, _: _signed(cache, {**_IMAGES, "labels": _IMAGES["labels"].int()}),
    "no labels": lambda cache, _: _signed(cache, {"pixels": _IMAGES["pixels"]}),
    "more tensors": lambda cache, _: _signed(cache, {**_IMAGES, "x": torch.zeros(1)}),
    "no tensors": lambda cache, _: _signed(cache, {}),
    "arrays of objects": _array_of_objects,
    "a pickle": lambda cache, _: cache.write_bytes(pickle.dumps(_Pickled())),
    "a header of another length": lambda cache, _: cache.write_bytes(b"\xff" * 8 + cache.read_bytes()[8:]),
    "a header that is no JSON": lambda cache, _: cache.write_bytes(_changed(cache.read_bytes(), 8)),
    "a folder": lambda cache, _: (cache.unlink(), cache.mkdir()),
    "a link to nothing": lambda cache, other: (cache.unlink(), cache.symlink_to(other / "none")),
    "a link": lambda cache, other: cache.symlink_to(shutil.move(cache, other / "kept")),
}


@pytest.mark.parametrize("name", CACHES)
def test_cache_that_is_not_what_was_written_is_made_anew(root: Path, tmp_path: Path, name: str) -> None:
    first, _ = _source(root).read()
    (cache,) = (path for path in _caches(root) if path.name.startswith("train"))
    intact = cache.read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    CACHES[name](cache, other)
    for _ in range(2):
        again, _ = _source(root).read()
        assert torch.equal(again.pixels, first.pixels)
        assert torch.equal(again.labels, first.labels)
    if name != "a folder":  # which nothing is written over
        assert cache.read_bytes() == intact
        assert not cache.is_symlink()


def _overwrite(root: Path) -> None:
    path = root / "train/ant/a.png"
    stamp = path.stat().st_mtime_ns + 1
    _write(path, _pixels(50))
    os.utime(path, ns=(stamp, stamp))


def _add(root: Path) -> None:
    _write(root / "train/bee/0.png", _pixels(50))


def _remove(root: Path) -> None:
    (root / "train/bee/1.png").unlink()


def _rename(root: Path) -> None:
    (root / "train/ant/a.png").rename(root / "train/ant/z.png")


def _move_to_other_class(root: Path) -> None:
    (root / "train/ant/b.png").rename(root / "train/bee/b.png")


@pytest.mark.parametrize("edit", [_overwrite, _add, _remove, _rename, _move_to_other_class])
def test_image_folder_edited_after_a_read_is_decoded_anew(root: Path, edit: Callable[[Path], None]) -> None:
    _source(root).read()
    edit(root)
    train, _ = _source(root).read()
    files = sorted(p for p in (root / "train").glob("*/*") if p.suffix.lower() == ".png")
    expected = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    np.testing.assert_array_equal(train.pixels, np.stack(expected))
    assert train.labels.tolist() == [int(path.parent.name == "bee") for path in files]


def test_reads_with_other_settings_do_not_share_a_cache(root: Path) -> None:
    _source(root).read()
    assert _source(root, image_size=3).read()[0].pixels.shape == (4, 3, 3, 3)
    assert _source(root, grayscale=True).read()[0].pixels.shape == (4, 6, 6, 1)
    assert _source(root).read()[0].pixels.shape == (4, 6, 6, 3)


@pytest.mark.parametrize("damage", [_text, _empty, _half])
def test_damaged_cache_is_written_again(root: Path, damage: Callable[[Path], None]) -> None:
    first, _ = _source(root).read()
    intact = [path.read_bytes() for path in _caches(root)]
    for cache in _caches(root):
        damage(cache)
    again, _ = _source(root).read()
    assert torch.equal(again.pixels, first.pixels)
    assert [path.read_bytes() for path in _caches(root)] == intact


def test_read_leaves_only_complete_cache_files_behind(root: Path) -> None:
    _source(root).read()
    assert [path.name.partition("-")[0] for path in _caches(root)] == ["test", "train"]
    assert {path.suffix for path in _caches(root)} == {".safetensors"}


def test_image_folder_whose_cache_cannot_be_written_is_decoded_each_time(root: Path) -> None:
    (root / ".fedsplit-cache").write_text("a file stands where the folder should be")
    for _ in range(2):
        np.testing.assert_array_equal(_source(root).read()[0].pixels[0], _pixels(1))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
@pytest.mark.parametrize("cached", [False, True])
def test_read_only_image_folder_is_decoded_each_time(root: Path, cached: bool) -> None:
    if cached:
        _source(root, image_size=3).read()  # of other settings: of no use here
        (root / ".fedsplit-cache").chmod(0o500)
    root.chmod(0o500)
    try:
        np.testing.assert_array_equal(_source(root).read()[0].pixels[0], _pixels(1))
    finally:
        root.chmod(0o700)
        (root / ".fedsplit-cache").exists() and (root / ".fedsplit-cache").chmod(0o700)


_DEEP = {
    "I;16.png": np.arange(36, dtype=np.uint16).reshape(6, 6) * 1000,
    "I;16.tif": np.arange(36, dtype=np.uint16).reshape(6, 6) * 1000,
    "I.pgm": np.arange(36, dtype=np.uint16).reshape(6, 6) * 1000,
    "I.tif": np.arange(36, dtype=np.int32).reshape(6, 6) * 1000,
    "F.tif": np.arange(36, dtype=np.float32).reshape(6, 6) / 36,
}


@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("image_size", [None, 4])
@pytest.mark.parametrize("kind", sorted(_DEEP))
@pytest.mark.parametrize("place", ["train/ant/0", "train/bee/0", "test/bee/0"])
def test_image_of_more_than_8_bits_a_channel_is_refused(
    root: Path, place: str, kind: str, image_size: int | None, grayscale: bool
) -> None:
    mode, _, suffix = kind.rpartition(".")
    path = root / f"{place}.{suffix}"
    Image.fromarray(_DEEP[kind]).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    with pytest.raises(UserError, match=rf"0\.{suffix} has more than 8 bits a channel") as caught:
        _source(root, image_size, grayscale).read()
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(root))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ppm", b"P6\n6 6\n2\xf35\n" + bytes(108)),  # PIL: ValueError, no whole number
        ("a.ppm", b"P6\n6 6\n255\n" + bytes(50)),
        ("a.ppm", b"P3\n6 6\n255\n1 2 x"),
        ("a.pgm", b"P2\n2 2\n255\n1 2 999 4\n"),
        ("a.gif", b"GIF89a"),
    ],
)
@pytest.mark.parametrize("where", ["train/ant", "test/bee"])
def test_damaged_file_of_any_format_is_named(root: Path, where: str, name: str, content: bytes) -> None:
    (root / where / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} cannot be read as an image") as caught:
        _source(root, image_size=6).read()
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(root))


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".git"])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("filled", [False, True])
def test_hidden_folders_are_not_read_as_classes(root: Path, split: str, name: str, filled: bool) -> None:
    before = _source(root).read()
    hidden = root / split / name
    hidden.mkdir()
    if filled:
        _write(hidden / "a.png", _pixels(9))
    for found, expected in zip(_source(root).read(), before, strict=True):
        assert torch.equal(found.labels, expected.labels)
        assert torch.equal(found.pixels, expected.pixels)


def test_crop_padding_beyond_the_images_is_refused(root: Path) -> None:
    assert ImageFolder(root=str(root), crop_padding=6).load().train.augmentation.crop_padding == 6
    with pytest.raises(UserError, match="must be at most 6, the side of the images in pixels") as caught:
        ImageFolder(root=str(root), crop_padding=7).load()
    assert (caught.value.key, caught.value.value) == ("dataset.crop_padding", 7)
    with pytest.raises(UserError, match="must be at most 4, the side of the images in pixels"):
        ImageFolder(root=str(root), image_size=4, crop_padding=6).load()


def test_png_with_a_broken_chunk_is_refused(root: Path) -> None:
    file = next((root / "train").glob("*/*.png"))
    content = bytearray(file.read_bytes())
    place = content.index(b"IDAT")
    content[place : place + 4] = b"\x00\x01\x02\x03"
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match="cannot be read as an image"):
        _source(root).read()


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _circular(path: Path) -> None:
    path.symlink_to(path.name)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # the name of a socket may not be long


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_dangling, "0.png is a link that leads nowhere"),
        (_circular, "0.png is a link that leads nowhere"),
        (os.mkfifo, "0.png is named as an image and is a pipe"),
        (Path.mkdir, "0.png is named as an image and is a folder"),
        (_socket, "0.png is named as an image and is a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "0.png is named as an image and is a device"),
    ],
)
@pytest.mark.parametrize("where", ["train/ant", "test/bee"])
def test_what_is_named_as_an_image_and_is_no_file_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, where: str, make: Callable[[Path], None], told: str
) -> None:
    monkeypatch.chdir(root)
    make(root / where / "0.png")
    with pytest.raises(UserError, match=told) as caught:
        _source(root).read()
    assert caught.value.key == "dataset.root"


@pytest.mark.parametrize("make", [_dangling, _circular])
@pytest.mark.parametrize("split", ["train", "test"])
def test_class_that_is_a_link_to_nowhere_is_refused(
    root: Path, split: str, make: Callable[[Path], None]
) -> None:
    make(root / split / "cat")
    with pytest.raises(UserError, match="cat is a link that leads nowhere"):
        _source(root).read()


def test_links_to_files_and_folders_are_followed(root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (root / split / "bee").rename(root / f"bees-{split}")
        (root / split / "bee").symlink_to(root / f"bees-{split}")
    (root / "train/ant/c.png").symlink_to("a.png")
    train, _ = _source(root).read()
    np.testing.assert_array_equal(train.pixels, np.stack([_pixels(seed) for seed in (1, 0, 1, 2, 3)]))


@pytest.mark.parametrize("workers", [None, 2])
def test_names_that_are_no_text_are_read_as_any_other(root: Path, workers: int | None) -> None:
    name = os.fsdecode(b"\xff\xe9.png")
    (root / "train/ant/b.png").rename(root / "train/ant" / name)
    (root / "train/bee").rename(root / "train" / os.fsdecode(b"b\xff"))
    (root / "test/bee").rename(root / "test" / os.fsdecode(b"b\xff"))
    for _ in range(2):
        data = ImageFolder(root=str(root), workers=workers).load()
        assert data.class_names == ("ant", "b\udcff")
        expected = np.stack([_pixels(seed) for seed in (1, 0, 2, 3)])
        np.testing.assert_array_equal(data.train.pixels[:], expected)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), EOFError(), IndexError("a\nb")])
def test_whatever_reading_an_image_raises_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=r"a.png cannot be read as an image \((Perm|EOFError|a\))"):
        _source(root).read()


def test_folder_that_cannot_be_read_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        _source(root).read()


def test_pillow_warns_of_nothing_beside_what_a_run_says(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    palette = Image.fromarray(_pixels(1)).convert("P")
    palette.save(root / "train/ant/a.png", transparency=b"\0\x80")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # images of 36 are warned of, and of 60 refused
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        ignore_pillows_warnings()
        assert len(_source(root).read()[0]) == 4
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        (root / "train/ant/a.png").touch()
        with pytest.raises(UserError, match=r"a.png cannot be read as an image \(.*decompression bomb"):
            _source(root, image_size=3).read()
    assert warned == []


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("train/ant/x.jfif", "1 image is left out, as train/ant/x.jfif"),
        ("train/ant/x", "1 image is left out, as train/ant/x"),
        ("test/bee/deep/deeper/x.png", "1 image is left out, as test/bee/deep/deeper/x.png"),
        ("train/x.png", "1 image is left out, as train/x.png"),
        ("train/ant/notes.md", None),
        ("train/ant/.x.jfif", None),
        ("train/ant/.deep/x.png", None),
        ("train/.x.png", None),
        ("other/ant/x.png", None),
    ],
)
def test_images_that_are_left_out_are_counted_in_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], place: str, told: str | None
) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"text" if path.suffix == ".md" else (root / "train/ant/a.png").read_bytes())
    assert len(_source(root).read()[0]) == 4
    ends = ": taken are <class>/* that end in .bmp, "
    shown = capsys.readouterr().err
    assert shown == "" if told is None else shown.startswith(f"note: dataset.root={root}: {told}{ends}")
    assert shown.count("\n") == (told is not None)


def test_how_many_images_are_left_out_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, number in (("train", 3), ("test", 2)):
        for i in range(number):
            (root / split / "ant" / f"{i}.jpe").write_bytes(b"\xff\xd8\xff\xe0")
    _source(root).read()
    assert ": 5 images are left out, as train/ant/0.jpe: " in capsys.readouterr().err


COMPOSED, DECOMPOSED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"


@pytest.mark.parametrize(
    ("first", "second"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), ("a b", "a\N{NO-BREAK SPACE}b")]
)
def test_classes_that_look_the_same_are_refused(root: Path, first: str, second: str) -> None:
    _write(root / "train" / first / "a.png", _pixels(0))
    _write(root / "test" / second / "a.png", _pixels(0))
    with pytest.raises(UserError, match=r"of test is none of train, whose .* looks the same"):
        _source(root).read()
    with pytest.raises(UserError, match=r"of train is none of dataset.classes, whose .* looks the same"):
        ImageFolder(root=str(root), classes=["ant", "bee", second]).read()
    _write(root / "train" / second / "a.png", _pixels(0))
    with pytest.raises(UserError, match=r"classes 'a.*' and '.*' look the same|classes '.*\\u") as caught:
        _source(root).read()
    assert caught.value.key == "dataset.root"


def test_pixels_are_those_stored_whatever_way_up_exif_says(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show it
    for image, stored in ((_pixels(1), "a.png"), (_pixels(0), "b.png")):
        Image.fromarray(image).save(root / "train/ant" / stored, exif=exif)
    np.testing.assert_array_equal(_source(root).read()[0].pixels[0], _pixels(1))


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_is_dropped_and_colours_stay(root: Path, alpha: int) -> None:
    image = Image.fromarray(_pixels(1))
    image.putalpha(alpha)
    image.save(root / "train/ant/a.png")
    np.testing.assert_array_equal(_source(root).read()[0].pixels[0], _pixels(1))


def _png_of_16_bits(colour: int, channels: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    rows = (b"\0" + bytes(range(2 * channels)) * 6) * 6
    header = struct.pack(">IIBBBBB", 6, 6, 16, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("0.png", _png_of_16_bits(2, 3)),
        ("0.png", _png_of_16_bits(6, 4)),
        ("0.png", _png_of_16_bits(4, 2)),
        ("0.ppm", b"P6\n6 6\n65535\n" + bytes(216)),
        ("0.ppm", b"P6\n6 6\n1000\n" + bytes(216)),
        ("0.ppm", b"P3 6 6 65535 " + b"0 " * 108),
    ],
)
@pytest.mark.parametrize("grayscale", [False, True])
def test_colours_of_more_than_8_bits_are_refused(
    root: Path, name: str, content: bytes, grayscale: bool
) -> None:
    (root / "train/ant" / name).write_bytes(content)
    with pytest.raises(UserError, match="has more than 8 bits a channel"):
        _source(root, grayscale=grayscale).read()
