"""Texts as token ids, one behind the other, and what models are given of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.data.dataset import Dataset, Sizes
from fedsplit.data.fingerprint import Fingerprint, digest
from fedsplit.data.samples import PAD_INPUT, Samples
from fedsplit.objectives.next_token import IGNORED, PADDING, NextToken
from fedsplit.objectives.objective import Objective
from fedsplit.objectives.sequence_classification import SequenceClassification


@dataclass(frozen=True)
class Texts(Samples):
    """One split of texts, each a context and its completion.

    To predict tokens, a text of l tokens gives its first l - 1 as inputs and its last l - 1 as labels, of
    which those of the context are `IGNORED`. To be classified, it gives all l as inputs, and l labels: the
    class, then `IGNORED`. Behind the end, inputs are `PAD_INPUT` and labels `PADDING`.

    Args:
        tokens: tokens of all texts, int32 `(tokens,)`, on the device of batches; all else is on the host.
        starts: place in `tokens` where each text begins, int64 `(n,)`.
        lengths: number of tokens of each, int64 `(n,)`.
        contexts: number of tokens of each text that are its context, int64 `(n,)`.
        groups: the strata, int64 `(n,)`.
        owners: int64 `(n,)`, if known.
        classes: int64 `(n,)`, where texts are classified.
    """

    tokens: Tensor
    starts: Tensor
    lengths: Tensor
    contexts: Tensor
    groups: Tensor
    owners: Tensor | None = None
    classes: Tensor | None = None

    @classmethod
    def of(
        cls,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        strata: Tensor | None = None,
        owners: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> Self:
        """Texts from the token ids of their contexts and completions.

        Args:
            pairs: a context, which may be empty, and a completion.
            strata: see `Samples`; None: the classes, or one for all.
            owners: see `Samples`.
            classes: classes of each text, where texts are classified.

        Raises:
            ValueError: a text has no token to predict, or none to predict it from.
        """
        contexts = torch.tensor([len(context) for context, _ in pairs], dtype=torch.int64)
        lengths = contexts + torch.tensor([len(completion) for _, completion in pairs], dtype=torch.int64)
        short = lengths < 1 if classes is not None else (lengths < 2) | (lengths == contexts)
        if short.any():
            raise ValueError(f"text {int(short.nonzero()[0])} has too few tokens")
        tokens = torch.tensor(list(chain.from_iterable(chain.from_iterable(pairs))), dtype=torch.int32)
        if strata is None:
            strata = torch.zeros(len(pairs), dtype=torch.int64) if classes is None else classes
        return cls(tokens, lengths.cumsum(0) - lengths, lengths, contexts, strata, owners, classes)

    @override
    def __len__(self) -> int:
        return len(self.lengths)

    @property
    @override
    def strata(self) -> Tensor:
        return self.groups

    @property
    @override
    def index_device(self) -> torch.device:
        """The host, where lengths are: they decide the shape of a batch."""
        return self.lengths.device

    @override
    def to(self, device: torch.device) -> Self:
        return replace(self, tokens=self.tokens.to(device))

    @override
    def select(self, kept: Tensor) -> Self:
        return replace(
            self,
            starts=self.starts[kept],
            lengths=self.lengths[kept],
            contexts=self.contexts[kept],
            groups=self.groups[kept],
            owners=None if self.owners is None else self.owners[kept],
            classes=None if self.classes is None else self.classes[kept],
        )

    @override
    def inputs_at(self, index: Tensor | slice, draws: Tensor | None = None) -> Tensor:
        return self._tokens_at(index, 0, behind=PAD_INPUT)

    @override
    def labels_at(self, index: Tensor | slice) -> Tensor:
        positions = self._positions(index)
        if self.classes is not None:
            labels = torch.full_like(positions, IGNORED).masked_fill_(positions < 0, PADDING)
            labels[:, 0] = self.classes[index]
            return labels.to(self.tokens.device)
        labels = self._tokens_at(index, 1, behind=PADDING)
        in_context = (positions >= 0) & (positions + 1 < self.contexts[index][:, None])
        return labels.masked_fill_(in_context.to(labels.device), IGNORED)

    @override
    def fingerprint(self) -> Fingerprint:
        """Number of texts, and digests of their tokens, lengths, contexts, classes, strata and owners."""
        offsets = self.starts - (self.lengths.cumsum(0) - self.lengths)
        where = torch.arange(int(self.lengths.sum())) + offsets.repeat_interleave(self.lengths)
        return {
            "texts": len(self),
            "tokens": digest(self.tokens[where.to(self.tokens.device)]),
            "lengths": digest(self.lengths),
            "contexts": digest(self.contexts),
            "classes": None if self.classes is None else digest(self.classes),
            "strata": digest(self.groups),
            "owners": None if self.owners is None else digest(self.owners),
        }

    def _positions(self, index: Tensor | slice) -> Tensor:
        """Number of each position in its text, `(b, t)` up to the longest; -1 behind the end."""
        lengths = self.lengths[index][:, None] - int(self.classes is None)
        positions = torch.arange(int(lengths.max()) if len(lengths) else 0).expand(len(lengths), -1)
        return positions.masked_fill(positions >= lengths, -1)

    def _tokens_at(self, index: Tensor | slice, shift: int, *, behind: int) -> Tensor:
        """Tokens `shift` positions after each position, int64 `(b, t)`."""
        positions = self._positions(index)
        where = self.starts[index][:, None] + (positions + shift).clamp_min_(0)
        tokens = self.tokens[where.to(self.tokens.device)].to(torch.int64)
        return tokens.masked_fill_((positions < 0).to(tokens.device), behind)


@dataclass(frozen=True)
class TextDataset(Dataset):
    """Texts to train and test on.

    Args:
        tokenizer: digest of what made tokens of them.
    """

    train: Texts
    test: Texts
    tokenizer: str = ""

    @classmethod
    def of(
        cls,
        train: Texts,
        test: Texts,
        *,
        vocabulary: int,
        context: int,
        tokenizer: str,
        num_classes: int | None = None,
        label_smoothing: float = 0.0,
        class_names: tuple[str, ...] = (),
        local_test_fraction: float = 0.0,
    ) -> Self:
        """Texts whose tokens are to be predicted, or which are to be classified.

        Args:
            vocabulary: token ids are from 0 to below this.
            context: the most positions of a batch.
            tokenizer: see `TextDataset`.
            num_classes: number of classes of the texts; None where tokens are predicted.
            label_smoothing: see `NextToken`.
            class_names: see `Dataset`.
            local_test_fraction: see `Dataset`.
        """
        arguments = {"vocabulary": vocabulary, "context": context}
        objective: Objective = NextToken(vocabulary, context, label_smoothing)
        if num_classes is not None:
            arguments["num_classes"] = num_classes
            objective = SequenceClassification(num_classes, context)
        return cls(
            train,
            test,
            Sizes(arguments, (context,), num_classes or vocabulary, tokens=True),
            objective,
            class_names,
            local_test_fraction,
            tokenizer,
        )
