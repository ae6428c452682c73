import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, current_thread

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsplit.data import image_files
from fedsplit.data.augmentation import Augmentation
from fedsplit.data.batches import ClientBatches, StackedBatches
from fedsplit.data.decoding import Decoder
from fedsplit.data.file_pixels import DecodingAhead, FilePixels
from fedsplit.data.images import ImageDataset, Images, Normalisation
from fedsplit.data.sources.imagenet import ImageNet
from fedsplit.errors import UserError
from tests.conftest import Build
from tests.data.published import imagenet, noise, write_image

SIDE, FILES = 6, 40


@pytest.fixture
def pixels() -> Tensor:
    return torch.from_numpy(noise(3, FILES, SIDE))


@pytest.fixture
def stored(tmp_path: Path, pixels: Tensor) -> Callable[..., FilePixels]:
    """The same pixels in files."""
    files = [write_image(tmp_path / f"{i:02d}.png", each) for i, each in enumerate(pixels.numpy())]

    def make(workers: int = 3, kept: int = FILES) -> FilePixels:
        decoder = Decoder(str(tmp_path), resize=False, grayscale=False)
        ahead = DecodingAhead(decoder, SIDE, workers, kept_bytes=kept * SIDE * SIDE * 3)
        return FilePixels(np.array([bytes(file) for file in files]), ahead)

    return make


@pytest.mark.parametrize("kept", [1, 4, FILES])
@pytest.mark.parametrize("workers", [1, 5])
def test_file_pixels_indexed_in_any_way_are_those_of_a_tensor(
    stored: Callable[..., FilePixels], pixels: Tensor, workers: int, kept: int
) -> None:
    files = stored(workers, kept)
    assert files.shape == pixels.shape
    assert len(files) == FILES
    for index in (
        slice(0, 2),
        slice(35, 60),
        torch.tensor([7, 3, 3, 39]),
        pixels[:, 0, 0, 0] > 100,
        torch.arange(0),
    ):
        files.prefetch(index)
        assert torch.equal(files[index], pixels[index])


def test_file_pixels_in_another_process_are_the_same(
    stored: Callable[..., FilePixels], pixels: Tensor
) -> None:
    found = stored()
    there = pickle.loads(pickle.dumps(found))  # as a cluster of one's own sends them to its workers
    assert torch.equal(there[torch.arange(len(pixels))], pixels)
    assert there.decoding.capacity == found.decoding.capacity


def test_file_pixels_chosen_from_others_are_those_of_the_chosen_files(
    stored: Callable[..., FilePixels], pixels: Tensor
) -> None:
    kept = torch.tensor([4, 30, 2, 9])
    some = stored().select(kept)
    assert some.shape == (4, SIDE, SIDE, 3)
    assert torch.equal(some[torch.tensor([3, 1])], pixels[torch.tensor([9, 30])])
    assert torch.equal(
        some.select(torch.tensor([True, False, True, False]))[:2], pixels[torch.tensor([4, 2])]
    )


def _record_decoded_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded, as they are."""
    seen: list[str] = []
    decode = Decoder.decode

    def decoded(self: Decoder, file: Path, side: int) -> np.ndarray:
        assert current_thread().name.startswith("decode")
        seen.append(file.stem)
        return decode(self, file, side)

    monkeypatch.setattr(Decoder, "decode", decoded)
    return seen


def test_decoded_images_are_kept_until_others_need_their_memory(
    stored: Callable[..., FilePixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, files = _record_decoded_files(monkeypatch), stored(1, kept=4)
    files[0:4]
    files[0:4]
    assert seen == ["00", "01", "02", "03"]
    files[4:6]  # pushes out the two that were used longest ago
    files[2:4]
    assert seen[4:] == ["04", "05"]
    files[0:1]
    assert seen[6:] == ["00"]


def test_prefetch_decodes_no_more_images_than_are_kept(
    stored: Callable[..., FilePixels], monkeypatch: pytest.MonkeyPatch, pixels: Tensor
) -> None:
    seen, files = _record_decoded_files(monkeypatch), stored(1, kept=5)
    files.prefetch(slice(0, 20))
    assert torch.equal(files[0:5], pixels[0:5])
    assert seen == [f"{i:02d}" for i in range(5)]


def test_next_batch_is_decoded_while_the_current_batch_is_computed(
    stored: Callable[..., FilePixels], pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the last image of the next batch, not asked for here, would be waited for in vain."""
    decode, last, reached = Decoder.decode, [""], Event()

    def decoded(self: Decoder, file: Path, side: int) -> np.ndarray:
        if file.stem == last[0]:
            reached.set()
        return decode(self, file, side)

    monkeypatch.setattr(Decoder, "decode", decoded)
    labels = torch.zeros(FILES, dtype=torch.int64)
    batches = _batches(Images(stored(), labels), torch.arange(FILES), statistics=Images(pixels, labels))
    order = batches.indices[batches.permutations(0)[0]]
    last[0] = f"{order[15]:02d}"  # of the second batch of eight
    batches.batch(0, 0)
    assert reached.wait(30)


def _batches(
    images: Images, indices: Tensor, client: int = 0, statistics: Images | None = None
) -> ClientBatches:
    return ClientBatches(
        replace(
            images,
            augmentation=Augmentation(flip=True, crop_padding=2),
            normalise=Normalisation.of(statistics or images),
        ),
        indices,
        batch_size=8,
        local_epochs=2,
        client=client,
        seed=1,
    )


def test_batches_from_files_are_those_from_memory(stored: Callable[..., FilePixels], pixels: Tensor) -> None:
    labels = torch.arange(FILES) % 4
    shards = [torch.arange(0, 23), torch.arange(23, FILES)]
    for images in (Images(stored(), labels), Images(stored(kept=1), labels)):
        ours = [_batches(images, shard, client) for client, shard in enumerate(shards)]
        theirs = [_batches(Images(pixels, labels), shard, client) for client, shard in enumerate(shards)]
        for one, other in zip(ours, theirs, strict=True):
            for (step, x, y), (again, u, v) in zip(one.round(3), other.round(3), strict=True):
                assert step == again
                assert torch.equal(x, u)
                assert torch.equal(y, v)
        stacks = StackedBatches(ours), StackedBatches(theirs)
        for step in range(stacks[0].steps):
            for rows in stacks[0].groups(step, [0, 1]):
                (x, y), (u, v) = (each.batch(2, step, rows) for each in stacks)
                assert torch.equal(x, u)
                assert torch.equal(y, v)


def test_client_views_of_images_apply_to_file_pixels_too(
    stored: Callable[..., FilePixels], pixels: Tensor
) -> None:
    def view(client: int, some: Tensor) -> Tensor:
        return some // (client + 2)

    shards = [np.arange(0, 10), np.arange(10, 25)]
    images = Images(stored(), torch.zeros(FILES, dtype=torch.int64)).seen_by(shards, view)
    index = torch.tensor([30, 3, 12, 9, 24])
    expected = [pixels[30], pixels[3] // 2, pixels[12] // 3, pixels[9] // 2, pixels[24] // 3]
    assert torch.equal(images.pixels[index], torch.stack(expected))
    kept = images.select(torch.tensor([12, 3]))
    assert torch.equal(kept.pixels[0:2], torch.stack([pixels[12] // 3, pixels[3] // 2]))


def test_normalisation_statistics_are_of_all_of_few_images_and_of_a_fixed_sample_of_many(
    stored: Callable[..., FilePixels], pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = torch.zeros(FILES, dtype=torch.int64)
    few, exact = Normalisation.of(Images(stored(), labels)), Normalisation.of(Images(pixels, labels))
    assert torch.equal(few.scale, exact.scale)
    assert torch.equal(few.shift, exact.shift)
    monkeypatch.setattr("fedsplit.data.images._SAMPLED", 4)
    sampled = Normalisation.of(Images(stored(), labels))
    chosen = pixels[torch.tensor([0, 13, 26, 39])].double()
    torch.testing.assert_close(
        sampled.scale.double(), 1 / chosen.std((0, 1, 2), correction=0), rtol=1e-6, atol=0
    )


def test_damaged_file_is_named_when_its_pixels_are_read(tmp_path: Path) -> None:
    imagenet(tmp_path, pytest.MonkeyPatch())
    next((tmp_path / "train").glob("*/*_3.JPEG")).write_bytes(b"no image")
    data = ImageNet(root=str(tmp_path), image_size=8, workers=2).load()
    data.train.prefetch(slice(0, 18))
    with pytest.raises(UserError, match=r"_3\.JPEG cannot be read as an image") as caught:
        data.train.pixels[0:18]
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(tmp_path))


def test_imagenet_with_workers_is_decoded_only_when_read_and_cut_to_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagenet(tmp_path, monkeypatch)
    seen = _record_decoded_files(monkeypatch)
    lazy = ImageNet(root=str(tmp_path), image_size=8, workers=2, max_train=9, validation=6).load()
    assert seen == []
    at_once = ImageNet(root=str(tmp_path), image_size=8, max_train=9, validation=6)
    monkeypatch.undo()
    held = at_once.load()
    for ours, theirs in ((lazy.train, held.train), (lazy.test, held.test)):
        assert isinstance(ours.pixels, FilePixels)
        assert torch.equal(ours.pixels[0 : len(ours)], theirs.pixels)
        assert torch.equal(ours.labels, theirs.labels)


@pytest.mark.cover(1)
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("distribution", ["iid", "feature_shift"])
def test_run_on_files_is_bit_for_bit_the_run_on_memory(
    tmp_path: Path, tiny: Build, engine: str, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagenet(tmp_path, monkeypatch)
    monkeypatch.setattr(image_files, "_KEPT_BYTES", 5 * 8 * 8 * 3)
    weights = []
    for workers in ("null", "1", "3"):
        run = tiny(
            *(
                "dataset=imagenet",
                f"dataset.root={tmp_path}",
                "dataset.image_size=8",
                f"dataset.workers={workers}",
            ),
            *(
                "dataset.max_train=null",
                "dataset.max_test=null",
                "dataset.crop_padding=2",
                f"engine={engine}",
            ),
            *(f"distribution={distribution}", "batch_size=4", "eval_batch_size=4"),
        )
        assert isinstance(_data(run).train.pixels, FilePixels) == (workers != "null")
        records = [run.run_round(t) for t in range(2)]
        weights.append((run.algorithm.full_weights(), [(r.test_loss, r.train_loss) for r in records]))
    for full, losses in weights[1:]:
        assert losses == weights[0][1]
        assert all(torch.equal(full[name], tensor) for name, tensor in weights[0][0].items())


def _data(run: object) -> ImageDataset:
    return run.parts.data.dataset  # type: ignore[attr-defined, no-any-return]
