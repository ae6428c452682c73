"""A tiny language model and texts of many lengths, as choices of one's own."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fedsplit.data.dataset import Dataset, Source
from fedsplit.data.texts import TextDataset, Texts

VOCABULARY, CONTEXT, FEATURES = 300, 11, 6


class RandomTexts(Source):
    """Texts of 2 to 12 tokens, of which up to half are context."""

    def load(self) -> Dataset:
        train, test = (_texts(count, seed) for seed, count in enumerate((50, 12)))
        return TextDataset.of(train, test, vocabulary=VOCABULARY, context=CONTEXT, tokenizer="random")


def _texts(count: int, seed: int) -> Texts:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, CONTEXT + 2, (count,), generator=draw).tolist()
    every = [torch.randint(VOCABULARY, (length,), generator=draw).tolist() for length in lengths]
    return Texts.of([(tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :]) for tokens in every])


class RunningSum(nn.Module):
    """Sums of features over all positions so far."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


class Embedding(nn.Embedding):
    """An embedding that has a value for padding too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp_min(0))


class TinyCausal(nn.Sequential):
    """A causal model: a position sees those before it."""

    def __init__(self, *, vocabulary: int, context: int) -> None:
        super().__init__(
            Embedding(vocabulary, FEATURES),
            RunningSum(),
            nn.Linear(FEATURES, FEATURES),
            nn.Dropout(0.2),
            RunningSum(),
            nn.Tanh(),
            nn.Linear(FEATURES, vocabulary),
        )


class TinyHead(nn.Sequential):
    """An auxiliary model."""

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(nn.Tanh(), nn.Linear(smashed_shape[-1], num_classes))


def choices(folder: Path) -> Path:
    """A folder of choices: `dataset=random_texts model=tiny_causal auxiliary=tiny_head`."""
    files = {
        "dataset/random_texts.yaml": f"_target_: {__name__}.RandomTexts\n",
        "model/tiny_causal.yaml": f'_target_: {__name__}.TinyCausal\ncut: "3"\nstages: null\nuntie: false\n'
        f"norm: null\nauxiliary: {__name__}.TinyHead\n",
        "auxiliary/tiny_head.yaml": f"_target_: {__name__}.TinyHead\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
