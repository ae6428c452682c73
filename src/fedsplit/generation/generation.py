"""Which texts a run generates while it trains."""

from typing_extensions import override

from fedsplit.config.component import Component
from fedsplit.config.values import PositiveInt
from fedsplit.generation.writer import Writer, build_prompts


class Generation:
    """Generation of texts while a model is trained: none."""

    def is_due(self, evaluations: int) -> bool:
        """True if texts are generated at an evaluation, which is counted from 1."""
        return False

    def writer(self, dataset: Component, batch_size: int) -> Writer | None:
        """Writer of the texts, `batch_size` at a time; None where none are written.

        Raises:
            UserError: the dataset has no contexts to continue, or a package is missing.
        """
        return None


class GreedyGeneration(Generation):
    """Texts of which each token is the likeliest, for contexts of the test split, through the split model.

    Args:
        interval: evaluations from one generation to the next; the final model always writes.
        max_tokens: most tokens of a text.
        samples: contexts, evenly spaced; None takes all.
    """

    def __init__(
        self, *, interval: PositiveInt, max_tokens: PositiveInt, samples: PositiveInt | None
    ) -> None:
        self.interval, self.max_tokens, self.samples = interval, max_tokens, samples

    @override
    def is_due(self, evaluations: int) -> bool:
        return evaluations % self.interval == 0

    @override
    def writer(self, dataset: Component, batch_size: int) -> Writer | None:
        prompts = build_prompts(dataset, self.samples, key="generation", value="greedy")
        return Writer(prompts=prompts, max_tokens=self.max_tokens, batch_size=batch_size)
