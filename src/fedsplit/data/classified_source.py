"""Where texts come from that a model is to tell the class of."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import override

from fedsplit.data.image_source import class_balanced_prefix
from fedsplit.data.text_source import Ids, Passage, TextSource
from fedsplit.data.texts import TextDataset, Texts
from fedsplit.data.tokenizers.tokenizer import Tokenizer
from fedsplit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ClassifiedSource(TextSource):
    """Texts whose class, which is their stratum, is to be told.

    Of longer texts a model sees the first `context` tokens. What `max_train`, `max_test` and `validation`
    keep is class-balanced; `validation` takes the last of each class.
    """

    classifies: ClassVar[bool] = True

    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, in the order of their numbers."""

    @override
    def stratum_numbers(self, passages: Iterable[Passage]) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.class_names())}

    @override
    def prefix(self, passages: Sequence[Passage], size: int, key: str) -> list[Passage]:
        return [passages[i] for i in self._balance(passages, size, key)]

    @override
    def held_out(self, train: Sequence[Passage], size: int) -> set[int]:
        backwards = self._balance(train[::-1], size, "dataset.validation")
        kept = {len(train) - 1 - i for i in backwards}
        left = {each.stratum for number, each in enumerate(train) if number not in kept}
        if missing := [name for name in self.class_names() if name not in left]:
            raise UserError(
                "dataset.validation", size, f"must be smaller: no training text of {missing[0]} is left"
            )
        return kept

    @override
    def pieces(self, passages: Sequence[Passage], tokenizer: Tokenizer) -> list[list[tuple[Ids, Ids]]]:
        return [
            [([], _shorten(ids, self.context, tokenizer) or [tokenizer.end])]
            for ids in tokenizer.encode_for_classifier([each.text for each in passages])
        ]

    @override
    def dataset(self, train: Texts, test: Texts, tokenizer: Tokenizer) -> TextDataset:
        return TextDataset.of(
            train,
            test,
            vocabulary=tokenizer.size,
            context=self.context,
            tokenizer=tokenizer.digest,
            num_classes=len(self.class_names()),
            class_names=self.class_names(),
            local_test_fraction=self.local_test_fraction,
        )

    def _balance(self, passages: Sequence[Passage], size: int, key: str) -> list[int]:
        numbers = self.stratum_numbers(passages)
        labels = torch.tensor([numbers[each.stratum] for each in passages])
        kept: list[int] = class_balanced_prefix(labels, size, len(numbers), key).tolist()
        return kept


def _shorten(ids: Ids, most: int, tokenizer: Tokenizer) -> Ids:
    """The first ids, and the one that a classifier expects last."""
    last = ids[-1:] if ids and ids[-1] in (tokenizer.end, tokenizer.separator) else []
    return ids if len(ids) <= most else ids[: most - len(last)] + last
