"""Every dataset with every distribution: composed, built, and trained for two rounds of few samples."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import yaml

from fedsplit.config.choices import CONFIGS
from fedsplit.config.run_config import RunConfig
from fedsplit.data.dataset import Dataset, Source
from fedsplit.errors import UserError
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.conftest import Configure
from tests.data.published import MAKERS
from tests.data.text_makers import TEXT_MAKERS

DATASETS = sorted(path.stem for path in CONFIGS.glob("dataset/*.yaml"))
TEXTS = sorted(TEXT_MAKERS)
IMAGES = [each for each in DATASETS if each not in TEXTS]
DISTRIBUTIONS = sorted(path.stem for path in CONFIGS.glob("distribution/*.yaml"))
AT_CLIENTS = ["own"]
"""Distributions of clients' own files, which the tests of `transport=grpc` train."""
OWNERS_KNOWN = ["femnist", "jsonl", "shakespeare"]
SMALL = (
    "num_clients=2",
    "batch_size=16",
    "rounds=2",
    "auxiliary.align_epochs=2",
    "auxiliary.max_dataset_size=16",
    "dataset.image_size=8",
    "dataset.crop_padding=1",
)
SMALL_TEXTS = (*SMALL[:-2], "dataset.context=80", "dataset.vocabulary=280")
MODELS = {
    True: ("model=tiny_gpt2", "model.sizes={n_layer:2,n_embd:8,n_head:2}"),
    False: (
        "model=sequence_classifier",
        "model.architecture=distilbert",
        "model.sizes={dim:8,n_layers:2,n_heads:2,hidden_dim:8}",
    ),
}
"""Overrides of a tiny language model; True predicts the next token, False classifies texts."""
FITTING = {
    "shards": "distribution.classes_per_client={half}",
    "extreme": "distribution.min_samples=2",
}
"""Overrides that a distribution needs for samples as few as those of the two clients here."""
Files = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """What to set to read a dataset's files, which are made when first asked for."""
    made: dict[str, list[str]] = {}
    with pytest.MonkeyPatch.context() as patch:

        def of(dataset: str) -> list[str]:
            if dataset not in made:
                make_files = (MAKERS | TEXT_MAKERS).get(dataset, lambda folder, patch: [])  # some need none
                made[dataset] = make_files(tmp_path_factory.mktemp(dataset), patch)
            return made[dataset]

        yield of


def test_every_dataset_that_reads_files_is_given_small_ones() -> None:
    files = {each: (CONFIGS / "dataset" / f"{each}.yaml").read_text("utf-8") for each in DATASETS}
    reading = {each for each, text in files.items() if "root" in yaml.safe_load(text)}
    made = MAKERS | TEXT_MAKERS
    assert made.keys() <= set(DATASETS)
    assert not (missing := reading - made.keys()), f"tests/data/published.py makes no files of {missing}"


def _possible(dataset: str, distribution: str) -> bool:
    """Only some datasets know whose their samples are, and only those of images have features to shift."""
    if distribution == "feature_shift":
        return dataset in IMAGES
    return distribution != "natural" or dataset in OWNERS_KNOWN


PAIRS = [
    (dataset, distribution)
    for dataset in DATASETS
    for distribution in DISTRIBUTIONS
    if distribution not in AT_CLIENTS and _possible(dataset, distribution)
]


def _overrides(dataset: str, distribution: str, files: Files, configured: Configure) -> list[str]:
    small = SMALL
    if dataset in TEXTS:
        keys = yaml.safe_load((CONFIGS / "dataset" / f"{dataset}.yaml").read_text("utf-8"))
        small = (*SMALL_TEXTS, *MODELS["loss_on" in keys])
    overrides = [f"dataset={dataset}", f"distribution={distribution}", *small, *files(dataset)]
    if distribution in FITTING:
        classes = len(_loaded(configured(*overrides)).train.strata.unique())
        overrides.append(FITTING[distribution].format(half=-(-classes // 2)))
    return overrides


def _loaded(config: RunConfig) -> Dataset:
    return config.dataset.build(Source).load()


@pytest.mark.parametrize(
    "dataset",
    long_but(
        ["digits", "cifar10", "image_folder", "jsonl"],
        [each for each in DATASETS if each not in OWNERS_KNOWN],
    ),
)
def test_dataset_without_owners_refuses_the_natural_distribution(
    dataset: str, files: Files, configured: Configure
) -> None:
    config = configured(*_overrides(dataset, "natural", files, configured))
    if _loaded(config).train.owners is not None:
        pytest.skip("it has owners")
    with pytest.raises(UserError, match=r"^distribution=natural: needs a dataset that names the owner"):
        Experiment(config)


@pytest.mark.cover(1)
@pytest.mark.parametrize(("dataset", "distribution"), PAIRS)
def test_dataset_with_distribution_trains_two_rounds(
    dataset: str, distribution: str, files: Files, configured: Configure
) -> None:
    config = configured(*_overrides(dataset, distribution, files, configured))
    run = Experiment(config)
    parts = run.parts
    assert parts.data.dataset.sizes.shape in ((3, 8, 8), (1, 8, 8), (80,))
    if not parts.data.distribution.shares_samples:
        held = torch.cat(parts.data.shards[:]).sort().values
        assert torch.equal(held, torch.arange(len(parts.data.dataset.train)))
    before = run.algorithm.full_weights()
    for t in range(2):
        record = run.run_round(t)
        assert math.isfinite(record.train_loss)
        assert record.test_accuracy is not None
    assert not any(torch.equal(each, before[name]) for name, each in run.algorithm.full_weights().items())
