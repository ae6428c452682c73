"""Small texts to train on: sequences in which each token says what the next one is."""

from dataclasses import dataclass

import torch

from fedsplit.config.component import component_of
from fedsplit.config.run_config import RunConfig
from fedsplit.data.dataset import Dataset, Source
from fedsplit.data.texts import TextDataset, Texts

VOCABULARY, CONTEXT = 40, 12


@dataclass(frozen=True, kw_only=True)
class Chains(Source):
    """Tokens that go up by three, of texts of 4 to 12 tokens; the class is the parity of the first.

    Args:
        context: so many tokens are given, and the others to be predicted.
    """

    samples: int = 40
    classified: bool = False
    vocabulary: int = VOCABULARY
    context: int = 1

    def load(self) -> Dataset:
        """Training texts, and as many test texts as a quarter of them."""
        return TextDataset.of(
            self._drawn(0, self.samples),
            self._drawn(1, self.samples // 4),
            vocabulary=self.vocabulary,
            context=CONTEXT,
            tokenizer="none",
            num_classes=2 if self.classified else None,
        )

    def _drawn(self, seed: int, count: int) -> Texts:
        draw = torch.Generator().manual_seed(seed)
        firsts = torch.randint(VOCABULARY, (count,), generator=draw).tolist()
        lengths = torch.randint(4, CONTEXT + 1, (count,), generator=draw).tolist()
        texts = [
            [(first + 3 * place) % VOCABULARY for place in range(length)]
            for first, length in zip(firsts, lengths, strict=True)
        ]
        classes = torch.tensor(firsts) % 2 if self.classified else None
        return Texts.of([(text[: self.context], text[self.context :]) for text in texts], classes=classes)


def of_texts(config: RunConfig, **arguments: object) -> RunConfig:
    """A configuration with texts in the place of its dataset."""
    from dataclasses import replace  # noqa: PLC0415

    return replace(config, dataset=component_of("dataset", Chains, **arguments))
