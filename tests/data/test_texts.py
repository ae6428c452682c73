"""Texts of different lengths give what each of them gives alone, and padding."""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsplit.building.data import build_batches, build_data
from fedsplit.config.run_config import RunConfig
from fedsplit.config.values import PositiveInt
from fedsplit.data.batches import ClientBatches, StackedBatches
from fedsplit.data.dataset import Dataset, Source
from fedsplit.data.images import ImageDataset, Images, Normalisation
from fedsplit.data.samples import PAD_INPUT
from fedsplit.data.texts import TextDataset, Texts
from fedsplit.errors import UserError
from fedsplit.objectives.next_token import IGNORED, PADDING, NextToken
from fedsplit.objectives.sequence_classification import SequenceClassification
from fedsplit.randomness import generator
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.plan import preparation, tell_of_data
from tests.conftest import Configure

VOCABULARY = 11
PAIRS = [([1, 2], [3, 4, 5]), ([], [6, 7]), ([8], [9]), ([10, 0, 3, 3], [1, 2, 2]), ([], [5, 5, 5, 5])]
TEXTS = Texts.of(PAIRS, strata=torch.tensor([0, 1, 0, 1, 2]), owners=torch.tensor([3, 3, 4, 4, 4]))
CLASSIFIED = Texts.of(PAIRS, classes=torch.tensor([2, 0, 1, 1, 0]))
ORDER = torch.tensor([3, 1, 0, 4, 2])


@dataclass(frozen=True, kw_only=True)
class Numbered(Source):
    """Texts of 2 to 6 tokens, each with an owner."""

    samples: PositiveInt = 24

    def load(self) -> Dataset:
        draw = generator(0, "numbered texts")
        pairs = []
        for length in torch.randint(2, 7, (self.samples,), generator=draw).tolist():
            tokens = torch.randint(VOCABULARY, (length,), generator=draw).tolist()
            pairs.append((tokens[: length // 2], tokens[length // 2 :]))
        numbers = torch.arange(self.samples)
        texts = Texts.of(pairs, strata=numbers % 3, owners=numbers % 6)
        return TextDataset.of(texts, texts, vocabulary=VOCABULARY, context=5, tokenizer="abc")


@pytest.mark.parametrize("texts", [TEXTS, CLASSIFIED], ids=["next token", "classes"])
def test_batch_of_texts_is_each_text_alone_and_padding_behind_it(texts: Texts) -> None:
    for split, padding in ((texts.inputs_at, PAD_INPUT), (texts.labels_at, PADDING)):
        batch = split(ORDER)
        assert batch.dtype == torch.int64
        alone = [split(slice(i, i + 1))[0] for i in ORDER.tolist()]
        assert batch.shape[1] == max(map(len, alone))
        for row, one in zip(batch, alone, strict=True):
            assert torch.equal(row[: len(one)], one)
            assert (row[len(one) :] == padding).all()
            assert (one != padding).all()


def test_labels_are_the_next_tokens_and_ignored_where_these_are_in_the_context() -> None:
    for i, (context, completion) in enumerate(PAIRS):
        tokens = context + completion
        expected = [
            (now, following if place >= len(context) else IGNORED)
            for place, (now, following) in enumerate(pairwise(tokens), 1)
        ]
        one = slice(i, i + 1)
        found = zip(TEXTS.inputs_at(one)[0].tolist(), TEXTS.labels_at(one)[0].tolist(), strict=True)
        assert list(found) == expected


def test_labels_of_classified_texts_hold_the_class_and_the_length() -> None:
    labels, objective = CLASSIFIED.labels_at(ORDER), SequenceClassification(3, 7)
    assert CLASSIFIED.classes is not None
    classes = CLASSIFIED.classes[ORDER]
    assert torch.equal(labels[:, 0], classes)
    assert ((labels[:, 1:] == IGNORED) | (labels[:, 1:] == PADDING)).all()
    assert objective.lengths(labels).tolist() == [sum(map(len, PAIRS[i])) for i in ORDER.tolist()]
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(objective.total(logits, labels), F.cross_entropy(logits, classes, reduction="sum"))
    assert objective.terms(labels) == 5
    hits = objective.measure(logits, labels).hits
    assert hits is not None
    assert int(hits) == int((logits.argmax(1) == classes).sum())
    assert torch.equal(CLASSIFIED.strata, CLASSIFIED.classes)


def test_padding_changes_no_loss() -> None:
    draw, objective = torch.Generator().manual_seed(0), NextToken(VOCABULARY, 7)
    table = torch.randn(VOCABULARY, VOCABULARY, dtype=torch.float64, generator=draw)

    def loss(index: Tensor | slice) -> Tensor:
        return objective.total(table[TEXTS.inputs_at(index).clamp_min(0)], TEXTS.labels_at(index))

    alone = torch.stack([loss(slice(i, i + 1)) for i in range(len(PAIRS))])
    torch.testing.assert_close(loss(ORDER), alone.sum())
    assert objective.terms(TEXTS.labels_at(ORDER)) == 3 + 1 + 1 + 3 + 3
    assert objective.lengths(TEXTS.labels_at(ORDER)).tolist() == [6, 1, 4, 3, 1]


def test_chosen_texts_are_those_and_fingerprints_tell_texts_apart() -> None:
    some = TEXTS.select(ORDER[:3])
    again = Texts.of([PAIRS[i] for i in ORDER[:3]], strata=some.strata, owners=some.owners)
    assert len(some) == 3
    assert torch.equal(some.inputs_at(slice(None)), TEXTS.inputs_at(ORDER[:3]))
    assert torch.equal(some.labels_at(slice(None)), TEXTS.labels_at(ORDER[:3]))
    assert some.fingerprint() == again.fingerprint()
    assert TEXTS.select(TEXTS.strata == 0).fingerprint() == TEXTS.select(torch.tensor([0, 2])).fingerprint()
    others = [
        replace(TEXTS, tokens=TEXTS.tokens.clone().index_fill_(0, torch.tensor([4]), 0)),
        replace(TEXTS, contexts=TEXTS.contexts.clone().index_fill_(0, torch.tensor([0]), 1)),
        replace(TEXTS, groups=TEXTS.groups.flip(0)),
        replace(TEXTS, owners=None),
        TEXTS.select(ORDER),
    ]
    found = [str(texts.fingerprint()) for texts in (TEXTS, *others)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("pair", [([], [1]), ([1, 2], []), ([], [])])
def test_text_without_a_token_to_predict_is_no_sample(pair: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match="text 1 has too few tokens"):
        Texts.of([([1], [2]), pair])


def test_stacked_batches_of_texts_are_those_of_each_client_and_padding() -> None:
    shards = torch.tensor([0, 2, 4]), torch.tensor([3, 1, 2])
    batches = [
        ClientBatches(TEXTS, shard, batch_size=2, local_epochs=2, client=client, seed=0)
        for client, shard in enumerate(shards)
    ]
    stacked = StackedBatches(batches)
    for step in range(stacked.steps):
        x, y = stacked.batch(3, step, [0, 1])
        for client, each in enumerate(batches):
            own_x, own_y = each.batch(3, step)
            length = own_x.shape[1]
            assert torch.equal(x[client, :, :length], own_x)
            assert torch.equal(y[client, :, :length], own_y)
            assert (x[client, :, length:] == PAD_INPUT).all()


def _configuration(configured: Configure, *overrides: str) -> RunConfig:
    """With texts in place of its images."""
    config = configured(*overrides).plain()
    config["dataset"] = {"_target_": "tests.data.test_texts.Numbered"}
    return RunConfig.parse(config)


@pytest.mark.parametrize("distribution", ["iid", "dirichlet", "shards", "natural"])
def test_texts_are_divided_by_strata_or_owners_into_batches(configured: Configure, distribution: str) -> None:
    settings = [f"distribution={distribution}", "num_clients=3", "batch_size=4"]
    config = _configuration(configured, *settings)
    data = build_data(config, torch.device("cpu"))
    assert sorted(torch.cat(list(data.shards)).tolist()) == list(range(24))
    if distribution == "natural":
        owned = [set(data.dataset.train.owners[shard].tolist()) for shard in data.shards]  # type: ignore[index]
        assert sum(map(len, owned)) == 6
    assert data.sizes == {"vocabulary": VOCABULARY, "context": 5}
    steps = list(build_batches(config, data, 1).round(0))
    assert sum(len(x) for _, x, _ in steps) == data.shards.sizes[1] * config.training.local_epochs
    x, y = data.batch(2)
    assert x.shape == y.shape
    assert data.fingerprint["train"]["texts"] == 24


def test_distribution_that_changes_pixels_refuses_texts(configured: Configure) -> None:
    config = _configuration(configured, "distribution=feature_shift")
    with pytest.raises(UserError, match=r"^distribution=feature_shift: must be another distribution"):
        build_data(config, torch.device("cpu"))


def test_plan_tells_of_texts_and_a_client_with_others_is_refused() -> None:
    dataset, plan = Numbered().load(), pb.Plan()
    tell_of_data(plan, dataset)
    prepare = preparation(pb.Plan.FromString(plan.SerializeToString()))
    assert isinstance(dataset, TextDataset)
    assert prepare(dataset) is dataset
    pixels = torch.zeros(2, 4, 4, 1, dtype=torch.uint8)
    images = Images(pixels, torch.tensor([0, 1]))
    images = replace(images, normalise=Normalisation.of(images))
    longer = {"vocabulary": VOCABULARY, "context": 6, "tokenizer": "abc"}
    for other, told in (
        (replace(dataset, tokenizer="abd"), r"dataset\.tokenizer=abd"),
        (TextDataset.of(dataset.train, dataset.test, **longer), "'context': 5"),  # type: ignore[arg-type]
        (ImageDataset.of(images, images, 2), "images: the run is about texts"),
    ):
        with pytest.raises(UserError, match=told):
            prepare(other)
    of_images = pb.Plan()
    tell_of_data(of_images, ImageDataset.of(images, images, 2))
    with pytest.raises(UserError, match=r"texts: the run is about images \(4, 4, 1\)"):
        preparation(of_images)(dataset)
