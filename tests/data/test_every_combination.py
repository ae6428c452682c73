"""Every dataset with every distribution: composed, built, and trained for two rounds of few samples."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import yaml

from fedsplit.config.choices import CONFIGS
from fedsplit.config.run_config import RunConfig
from fedsplit.data.image_source import ImageSource
from fedsplit.data.images import ImageDataset
from fedsplit.errors import UserError
from fedsplit.training.experiment import Experiment
from tests.conftest import Configure
from tests.data.published import MAKERS

DATASETS = sorted(path.stem for path in CONFIGS.glob("dataset/*.yaml"))
DISTRIBUTIONS = sorted(path.stem for path in CONFIGS.glob("distribution/*.yaml"))
AT_CLIENTS = ["own"]
"""Needs a client's own files on a machine of its own: trained in the tests of `transport=grpc`."""
OWNERS_KNOWN = ["femnist"]
SMALL = (
    "num_clients=2",
    "batch_size=16",
    "rounds=2",
    "auxiliary.align_epochs=2",
    "auxiliary.max_dataset_size=16",
    "dataset.image_size=8",
    "dataset.crop_padding=1",
)
FITTING = {
    "shards": "distribution.classes_per_client={half}",
    "extreme": "distribution.min_samples=2",
}
"""What a distribution needs for as little as two clients share here."""
Files = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """What to set to read a dataset's files, which are made when first asked for."""
    made: dict[str, list[str]] = {}
    with pytest.MonkeyPatch.context() as patch:

        def of(dataset: str) -> list[str]:
            if dataset not in made:
                make_files = MAKERS.get(dataset, lambda folder, patch: [])  # some need none
                made[dataset] = make_files(tmp_path_factory.mktemp(dataset), patch)
            return made[dataset]

        yield of


def test_every_dataset_that_reads_files_is_given_small_ones() -> None:
    files = {each: (CONFIGS / "dataset" / f"{each}.yaml").read_text("utf-8") for each in DATASETS}
    reading = {each for each, text in files.items() if "root" in yaml.safe_load(text)}
    assert MAKERS.keys() <= set(DATASETS)
    assert not (missing := reading - MAKERS.keys()), f"tests/data/published.py makes no files of {missing}"


def _possible(dataset: str, distribution: str) -> bool:
    """Only some datasets know whose their samples are."""
    return distribution != "natural" or dataset in OWNERS_KNOWN


PAIRS = [
    (dataset, distribution)
    for dataset in DATASETS
    for distribution in DISTRIBUTIONS
    if distribution not in AT_CLIENTS
]


def _overrides(dataset: str, distribution: str, files: Files, configured: Configure) -> list[str]:
    overrides = [f"dataset={dataset}", f"distribution={distribution}", *SMALL, *files(dataset)]
    if distribution in FITTING:
        classes = _loaded(configured(*overrides)).num_classes
        overrides.append(FITTING[distribution].format(half=-(-classes // 2)))
    return overrides


def _loaded(config: RunConfig) -> ImageDataset:
    return config.dataset.build(ImageSource).load()


@pytest.mark.parametrize("dataset", [each for each in DATASETS if not _possible(each, "natural")])
def test_dataset_without_owners_refuses_the_natural_distribution(
    dataset: str, files: Files, configured: Configure
) -> None:
    config = configured(*_overrides(dataset, "natural", files, configured))
    if _loaded(config).train.owners is not None:
        pytest.skip("it has owners")
    with pytest.raises(UserError, match=r"^distribution=natural: this dataset does not say whose"):
        Experiment(config)


@pytest.mark.cover(1)
@pytest.mark.parametrize(("dataset", "distribution"), [pair for pair in PAIRS if _possible(*pair)])
def test_dataset_with_distribution_trains_two_rounds(
    dataset: str, distribution: str, files: Files, configured: Configure
) -> None:
    config = configured(*_overrides(dataset, distribution, files, configured))
    run = Experiment(config)
    parts = run.parts
    assert parts.data.dataset.image_size == 8
    held = torch.cat(parts.data.shards[:]).sort().values
    assert torch.equal(held, torch.arange(len(parts.data.dataset.train)))
    before = run.algorithm.full_weights()
    for t in range(2):
        record = run.run_round(t)
        assert math.isfinite(record.train_loss)
        assert record.test_accuracy is not None
    assert not any(torch.equal(each, before[name]) for name, each in run.algorithm.full_weights().items())
