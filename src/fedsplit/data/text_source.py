"""Where texts come from: read, divided into splits, and made tokens of."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import PositiveInt
from fedsplit.data.dataset import Source
from fedsplit.data.texts import TextDataset, Texts
from fedsplit.data.tokenizers.by_name import TokenizerName, build_tokenizer
from fedsplit.data.tokenizers.tokenizer import Tokenizer
from fedsplit.errors import UserError

Ids: TypeAlias = list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A text as it is in files.

    Args:
        text: the whole of it, or what follows the context.
        context: context that comes before.
        stratum: stratum that divisions go by, such as its class.
        group: group of passages that a validation split does not divide.
        owner: name of its owner, where that is known.
    """

    text: str
    context: str = ""
    stratum: str = ""
    group: str = ""
    owner: str | None = None


@dataclass(frozen=True, kw_only=True)
class TextSource(Source):
    """Source of texts. `load` makes tokens of both splits, which `read` of a subclass gives.

    Args:
        root: folder that holds the files.
        tokenizer: `bpe` or `characters`, which learn from the training split; `bytes`; `gpt2`, or `files` of
            any model.
        vocabulary: tokens, with `bpe`.
        tokenizer_files: folder that holds `vocab.json` and `merges.txt`, with `gpt2`, or that of a model,
            or a GGUF file.
        context: the most tokens that a model sees of a text.
    """

    classifies: ClassVar[bool] = False
    """True if texts are labelled with classes, which are the strata; otherwise tokens are the labels."""

    root: str
    tokenizer: TokenizerName = "bpe"
    vocabulary: PositiveInt = 1000
    tokenizer_files: str | None = None
    context: PositiveInt = 128

    @abstractmethod
    def read(self) -> tuple[Sequence[Passage], Sequence[Passage]]:
        """Training and test passages, all of them.

        Raises:
            UserError: the files are not there, or damaged.
        """

    @abstractmethod
    def prefix(self, passages: Sequence[Passage], size: int, key: str) -> list[Passage]:
        """Select so many passages, always the same ones.

        Raises:
            UserError: there are fewer; `key` asked for them.
        """

    @abstractmethod
    def held_out(self, train: Sequence[Passage], size: int) -> set[int]:
        """Numbers of the training passages that `validation` evaluates on."""

    @abstractmethod
    def pieces(self, passages: Sequence[Passage], tokenizer: Tokenizer) -> list[list[tuple[Ids, Ids]]]:
        """The texts that each passage gives, as token ids of a context and of what follows it."""

    @abstractmethod
    def dataset(self, train: Texts, test: Texts, tokenizer: Tokenizer) -> TextDataset:
        """The data of both splits, with their objective."""

    def stratum_numbers(self, passages: Iterable[Passage]) -> Mapping[str, int]:
        """Numbers of all strata of passages."""
        return _numbers(each.stratum for each in passages)

    @override
    def load(self) -> TextDataset:
        train, test = self.splits()
        tokenizer = self.built_tokenizer(train)
        strata = self.stratum_numbers((*train, *test))
        owners = _numbers(each.owner for each in train if each.owner is not None)
        return self.dataset(
            self._texts(train, tokenizer, strata, owners),
            self._texts(test, tokenizer, strata, {}),
            tokenizer,
        )

    def splits(self) -> tuple[Sequence[Passage], Sequence[Passage]]:
        """Passages to train and to evaluate on, cut to `max_train` and `max_test`."""
        train, test = self.read()
        for split, found in (("training", train), ("test", test)):
            if not found:
                raise UserError("dataset.root", self.root, f"holds no {split} text")
        if self.validation is not None:
            kept = self.held_out(train, self.validation)
            test = [each for number, each in enumerate(train) if number in kept]
            train = [each for number, each in enumerate(train) if number not in kept]
            if not train:
                raise UserError(
                    "dataset.validation", self.validation, "must be smaller: no training text is left"
                )
        elif self.max_test is not None:
            test = self.prefix(test, self.max_test, "dataset.max_test")
        if self.max_train is not None:
            train = self.prefix(train, self.max_train, "dataset.max_train")
        return train, test

    def built_tokenizer(self, train: Sequence[Passage]) -> Tokenizer:
        """The tokenizer that the keys ask for, of the training passages where it learns."""
        texts = [text for each in train for text in (each.context, each.text)]
        return build_tokenizer(self.tokenizer, self.tokenizer_files, self.vocabulary, texts)

    def _texts(
        self,
        passages: Sequence[Passage],
        tokenizer: Tokenizer,
        strata: Mapping[str, int],
        owners: Mapping[str, int],
    ) -> Texts:
        made = self.pieces(passages, tokenizer)
        if not any(made):
            raise UserError("dataset.root", self.root, "holds empty texts alone")
        counts = torch.tensor([len(each) for each in made])

        def of_each_text(values: list[int]) -> Tensor:
            return torch.tensor(values).repeat_interleave(counts)

        of_strata = of_each_text([strata[each.stratum] for each in passages])
        return Texts.of(
            list(chain.from_iterable(made)),
            strata=of_strata,
            owners=of_each_text([owners[each.owner or ""] for each in passages]) if owners else None,
            classes=of_strata if self.classifies else None,
        )


def _numbers(names: Iterable[str]) -> dict[str, int]:
    """A number for each name, in the order in which they come."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
