"""Runs whose labels are no classes of images: tokens, and numbers."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedsplit.data.dataset import Dataset
from fedsplit.data.image_source import ImageSource
from fedsplit.data.images import Images
from fedsplit.data.sources.digits import Digits
from fedsplit.data.texts import TextDataset, Texts
from fedsplit.errors import UserError
from fedsplit.files.bounded import csv_table
from fedsplit.objectives.mean_squared_error import MeanSquaredError
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from tests.conftest import ALGORITHMS, Build

HERE = "tests.training.test_other_objectives"
VOCABULARY, CONTEXT = 6, 9


@dataclass(frozen=True, kw_only=True)
class Counting(ImageSource):
    """Texts of different lengths that count upwards, modulo the vocabulary; the first token is context."""

    def read(self) -> tuple[Images, Images]:
        raise AssertionError("there are no images")

    def load(self) -> Dataset:
        return TextDataset.of(
            self._texts(60), self._texts(20), vocabulary=VOCABULARY, context=CONTEXT, tokenizer="numbers"
        )

    @staticmethod
    def _texts(count: int) -> Texts:
        texts = [[(n + i) % VOCABULARY for i in range(3 + n % (CONTEXT - 2))] for n in range(count)]
        return Texts.of([(text[:1], text[1:]) for text in texts])


class Bigram(nn.Module):
    """Embedding, hidden layer and logits of each token by itself."""

    def __init__(self, *, vocabulary: int, context: int) -> None:
        super().__init__()
        self.embed, self.hidden = nn.Embedding(vocabulary, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(self.embed(tokens.clamp_min(0))).relu())
        return logits


class OfEachToken(nn.Module):
    """One linear layer from each position to logits."""

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(smashed_shape[-1], num_classes)

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.fc(z)
        return logits


TEXT = (
    f"dataset._target_={HERE}.Counting",
    f"model._target_={HERE}.Bigram",
    "model.cut=embed",
    f"auxiliary._target_={HERE}.OfEachToken",
    "batch_size=6",
    "optimizer.lr=0.05",
)


@dataclass(frozen=True)
class Measured(Images):
    """Images whose labels are numbers."""

    @property
    def strata(self) -> Tensor:
        return torch.zeros(len(self.labels), dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class Brightness(Digits):
    """The digits, of which the mean of all pixels is to be found."""

    def load(self) -> Dataset:
        dataset = super().load()
        train, test = (
            Measured(images.pixels, images.pixels[:].float().mean((1, 2, 3)) / 4 - 1)
            for images in (dataset.train, dataset.test)
        )
        sizes = replace(dataset.sizes, outputs=1, arguments={**dataset.sizes.arguments, "num_classes": 1})
        return replace(dataset, train=train, test=test, sizes=sizes, objective=MeanSquaredError())


def _trained(run: Experiment, rounds: int) -> list[float]:
    losses = [run.run_round(t).test_loss for t in range(rounds)]
    return [loss for loss in losses if loss is not None]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_learns_to_count_and_measures_perplexity(tiny: Build, algorithm: str) -> None:
    run = tiny(*TEXT, f"algorithm={algorithm}", "engine=sequential")
    first, last = (run.run_round(t) for t in range(2))
    assert first.test_loss is not None
    assert last.test_loss is not None
    assert last.test_accuracy is not None
    assert last.test_loss < first.test_loss < 1.2 * math.log(VOCABULARY)
    assert last.test_perplexity == pytest.approx(math.exp(last.test_loss))
    assert last.row()["test_perplexity"] == last.test_perplexity


def test_test_loss_is_the_mean_over_target_tokens_and_accuracy_their_share_that_is_right(tiny: Build) -> None:
    run = tiny(*TEXT, "algorithm=fed_avg", "eval_batch_size=7")
    record, full = run.run_round(0), run.algorithm.full_weights()
    halves, test = run.parts.models.halves, run.parts.data.dataset.test
    losses, hits = [], []
    for half in (halves.client, halves.server):
        half.load_state_dict({name: full[name] for name in half.state_dict()})
    for n in range(len(test)):  # one text at a time, without padding
        one = slice(n, n + 1)
        logits = halves.server(halves.client(test.inputs_at(one)))[0].log_softmax(1)
        for shares, token in zip(logits, test.labels_at(one)[0].tolist(), strict=True):
            if token >= 0:
                losses.append(-float(shares[token].detach()))
                hits.append(int(shares.argmax()) == token)
    assert record.test_loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert record.test_accuracy == sum(hits) / len(hits)


def test_splitfed_v1_is_fed_avg_and_stacked_clients_those_one_after_the_other(tiny: Build) -> None:
    runs = [
        tiny(*TEXT, f"algorithm={algorithm}", f"engine={engine}", "scheduler=warmup_linear",
             "scheduler.warmup=3", "scheduler.total=20")
        for algorithm, engine in (
            ("fed_avg", "sequential"), ("splitfed_v1", "sequential"), ("splitfed_v1", "vectorized")
        )
    ]  # fmt: skip
    records = [run.run_round(0) for run in runs]
    alone, split, stacked = (run.algorithm.full_weights() for run in runs)
    for name, tensor in alone.items():
        torch.testing.assert_close(split[name], tensor, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stacked[name], split[name], rtol=1e-4, atol=1e-5)
    assert records[0].train_loss == pytest.approx(records[1].train_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("auxiliary=linear",), r"is for classification alone"),
        (("estimator=linear_regression",), "LinearRegression is for classification alone"),
        (("estimator=mlp_regression",), "MlpRegression is for classification alone"),
    ],
)
def test_what_is_for_classes_alone_is_refused_in_one_line(
    tiny: Build, overrides: tuple[str, ...], told: str
) -> None:
    text = [each for each in TEXT if not (overrides[0].startswith("auxiliary") and each.startswith("aux"))]
    with pytest.raises(UserError, match=told):
        tiny(*text, "algorithm=fsl_sage", *overrides)


def test_run_of_a_language_model_leaves_no_classes_and_stops_at_a_perplexity(
    tiny: Build, tmp_path: Path
) -> None:
    run = tiny(*TEXT, "algorithm=splitfed_v2", "rounds=9", "target_perplexity=5.5")
    run.run(RunDirectory(tmp_path / "run"))
    assert run.stopped_by() == "target_perplexity"
    assert not (tmp_path / "run" / "confusion.csv").exists()
    rows = [row for _, row in csv_table(tmp_path / "run" / "metrics.csv")[1]]
    assert float(rows[-1]["test_perplexity"]) <= 5.5


@pytest.mark.parametrize("algorithm", ["fed_avg", "splitfed_v1", "fsl_sage"])
def test_regression_of_images_learns_and_has_no_accuracy(tiny: Build, algorithm: str) -> None:
    run = tiny(
        f"dataset._target_={HERE}.Brightness",
        "dataset.max_train=null",
        "dataset.max_test=null",
        f"algorithm={algorithm}",
        "auxiliary=mlp",
        "distribution=iid",
    )
    losses = _trained(run, 2)
    assert losses[-1] < losses[0]
    record = run.run_round(2)
    assert (record.test_accuracy, record.test_perplexity) == (None, None)
    if algorithm == "splitfed_v1":
        uploaded = run.config.training.local_epochs * sum(run.parts.sample_counts)
        assert record.bytes["up"]["labels"] == 4 * uploaded
