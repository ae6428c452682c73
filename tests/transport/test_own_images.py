from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedsplit.building.run import run_of_member
from fedsplit.config.run_config import RunConfig
from fedsplit.data.distributions.distribution import Distribution
from fedsplit.data.image_source import ImageSource
from fedsplit.data.images import Images, Normalisation
from fedsplit.data.sources.image_folder import ImageFolder
from fedsplit.errors import UserError
from fedsplit.training.experiment import Experiment
from fedsplit.transport.grpc.client.client import TrainingClient
from tests.conftest import Build, Configure
from tests.transport.test_strangers import listening

CLASSES = ["apple", "bear", "cat"]
HELD = {0: {"apple": 5, "bear": 4}, 1: {"bear": 3, "cat": 7}}
"""Images that each client has of some classes, which are not the same ones."""
SETTINGS = (
    *("distribution=own", "num_clients=2", "batch_size=4", "rounds=2", "progress=false"),
    *("algorithm=fsl_sage", "algorithm.server_update_interval=1", "auxiliary.align_epochs=3"),
)


def write(folder: Path, split: str, numbers: dict[str, int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    for name, number in numbers.items():
        place = folder / split / name
        place.mkdir(parents=True)
        for index in range(number):
            Image.fromarray(draw.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(place / f"{index}.png")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """`server` with all classes, and `0` and `1` of the clients."""
    write(tmp_path / "server", "train", dict.fromkeys(CLASSES, 2), 10)
    write(tmp_path / "server", "test", dict.fromkeys(CLASSES, 3), 11)
    for client, numbers in HELD.items():
        write(tmp_path / str(client), "train", numbers, client)
    return tmp_path


@dataclass(frozen=True, kw_only=True)
class Together(ImageSource):
    """The clients' training images one behind the other, and the server's test images."""

    root: str

    def read(self) -> tuple[Images, Images]:
        parts = [ImageFolder(root=f"{self.root}/{client}", classes=CLASSES).load().train for client in HELD]
        pixels, labels = (torch.cat([getattr(part, of) for part in parts]) for of in ("pixels", "labels"))
        return Images(pixels, labels), ImageFolder(root=f"{self.root}/server").load().test


class AsHeld(Distribution):
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> list[np.ndarray]:
        ends = np.cumsum([sum(numbers.values()) for numbers in HELD.values()])
        return np.split(np.arange(len(labels)), ends[:-1])


def own(configured: Configure, folders: Path, *overrides: str) -> Experiment:
    settings = [*SETTINGS, "dataset=image_folder", f"dataset.root={folders / 'server'}", "transport=grpc"]
    return Experiment(configured(*settings, "transport.spawn=false", *overrides))


def test_clients_with_images_of_their_own_train_as_if_they_were_divided(
    configured: Configure, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = own(configured, folders, "network=lte")
    with listening(run, tmp_path / "run", monkeypatch) as running:
        for client in HELD:
            given = {"dataset.root": str(folders / str(client))}
            made = TrainingClient(
                server=f"127.0.0.1:{running.port}",
                client=client,
                tls=None,
                folder=tmp_path / f"state-{client}",
                own=given,
                build=run_of_member,
            )
            running.start(made.attend)
            running.until(lambda client=client: run.records or running._connected() > client)

    together = ["distribution=iid", "engine=sequential", "dataset=image_folder", "network=lte"]
    config = configured(*SETTINGS, *together).plain()
    config["dataset"] = {
        **{key: config["dataset"][key] for key in ("max_train", "max_test", "validation", "flip")},
        **{"_target_": "tests.transport.test_own_images.Together", "root": str(folders)},
        "crop_padding": config["dataset"]["crop_padding"],
    }
    config["distribution"] = {"_target_": "tests.transport.test_own_images.AsHeld"}
    theirs = Normalisation.of(ImageFolder(root=str(folders / "server")).load().train)
    monkeypatch.setattr(Normalisation, "of", lambda images, dtype: theirs)
    straight = Experiment(RunConfig.parse(config))
    records = [straight.run_round(t) for t in range(2)]
    ours, expected = run.algorithm.full_weights(), straight.algorithm.full_weights()
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)
    assert [each.test_loss for each in run.records] == [each.test_loss for each in records]
    assert [each.bytes for each in run.records] == [each.bytes for each in records]
    assert run.records[0].simulated_seconds == records[0].simulated_seconds


def test_own_distribution_without_a_network_is_refused(tiny: Build) -> None:
    with pytest.raises(UserError, match="distribution=own: needs transport=grpc"):
        tiny("distribution=own")


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["apple"], "class bear of train is none of dataset.classes"),
        ([*CLASSES, "dog"], None),
    ],
)
def test_image_folder_of_a_client_may_lack_classes_but_not_have_others(
    folders: Path, classes: Sequence[str], told: str | None
) -> None:
    source = ImageFolder(root=str(folders / "0"), classes=list(classes))
    if told is not None:
        with pytest.raises(UserError, match=told):
            source.load()
        return
    loaded = source.load()
    assert loaded.num_classes == len(classes)
    assert torch.bincount(loaded.train.labels, minlength=4).tolist() == [5, 4, 0, 0]
    assert len(loaded.test) == 0
