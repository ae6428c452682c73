"""Where texts come from that a model is to continue."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from typing_extensions import override

from fedsplit.config.values import BelowOne
from fedsplit.data.text_source import Ids, Passage, TextSource
from fedsplit.data.texts import TextDataset, Texts
from fedsplit.data.tokenizers.tokenizer import Tokenizer
from fedsplit.errors import UserError
from fedsplit.machine.terminal import note
from fedsplit.randomness import numpy_generator


@dataclass(frozen=True)
class Prompts:
    """Contexts to continue, each once, and what was written for them.

    Args:
        ids: token ids of each context and the separator behind it; the end of a context longer than models
            see.
        contexts: their texts.
        references: all texts of each, at least one.
        tokenizer: makes texts of ids.
        context: the most tokens that a model sees of a text.
    """

    ids: tuple[Ids, ...]
    contexts: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    tokenizer: Tokenizer
    context: int

    def select_spaced(self, size: int | None) -> Self:
        """Select so many prompts, evenly spaced; all where there are no more, or with None."""
        if size is None or size >= len(self.ids):
            return self
        kept = [number * len(self.ids) // size for number in range(size)]
        chosen: dict[str, Any] = {
            name: tuple(getattr(self, name)[i] for i in kept) for name in ("ids", "contexts", "references")
        }
        return replace(self, **chosen)


@dataclass(frozen=True, kw_only=True)
class LanguageSource(TextSource):
    """Texts whose next token is to be predicted.

    A context, a separator, what follows and an end are one text. A text without a context is cut into pieces
    of `context` tokens and the one behind. Of one with a context that is longer the beginning of the context
    is left out, then the end of what follows. `max_train` and `max_test` keep passages evenly spaced;
    `validation` takes whole groups, in an order drawn for good, until it has as many passages.

    Args:
        loss_on: `targets`, which follow a context, or `all` tokens.
        label_smoothing: see `fedsplit.objectives.next_token`.
    """

    marked: ClassVar[bool] = True
    """True if a separator token follows each context, and an end token each text."""

    loss_on: Literal["targets", "all"] = "targets"
    label_smoothing: BelowOne = 0.0

    @override
    def prefix(self, passages: Sequence[Passage], size: int, key: str) -> list[Passage]:
        if size > len(passages):
            raise UserError(key, size, f"must be at most {len(passages)}, the number of texts")
        return [passages[number * len(passages) // size] for number in range(size)]

    @override
    def held_out(self, train: Sequence[Passage], size: int) -> set[int]:
        members: dict[str, list[int]] = {}
        for number, each in enumerate(train):
            members.setdefault(each.group, []).append(number)
        kept: set[int] = set()
        groups = list(members.values())
        for drawn in numpy_generator(0, "validation groups").permutation(len(groups)):
            if len(kept) >= size:
                break
            kept.update(groups[drawn])
        return kept

    @override
    def pieces(self, passages: Sequence[Passage], tokenizer: Tokenizer) -> list[list[tuple[Ids, Ids]]]:
        separator, end = ([tokenizer.separator], [tokenizer.end]) if self.marked else ([], [])
        contexts = tokenizer.encode([each.context for each in passages])
        texts = tokenizer.encode([each.text for each in passages])
        made, cut = [], 0
        for context, text in zip(contexts, texts, strict=True):
            if context:
                cut += len(context) + len(separator) + len(text) + len(end) > self.context + 1
                made.append([self._pair(context + separator, text + end)])
            else:
                made.append(self._cut_up(text + end))
        if cut:
            message = f"{cut} of {len(passages)} texts with a context are longer, and were cut"
            note(f"dataset.context={self.context}: {message}")
        return made

    @override
    def dataset(self, train: Texts, test: Texts, tokenizer: Tokenizer) -> TextDataset:
        return TextDataset.of(
            train,
            test,
            vocabulary=tokenizer.size,
            context=self.context,
            tokenizer=tokenizer.digest,
            label_smoothing=self.label_smoothing,
            local_test_fraction=self.local_test_fraction,
        )

    def prompts(self) -> Prompts:
        """The contexts of the passages that are evaluated on, with all their texts there.

        Raises:
            UserError: they have no contexts, or none that a separator ends.
        """
        train, test = self.splits()
        tokenizer = self.built_tokenizer(train)
        references: dict[str, list[str]] = {}
        for each in test if self.marked else ():
            if each.context:
                references.setdefault(each.context, []).append(each.text)
        if not references:
            raise UserError("dataset.root", self.root, "holds no contexts whose continuation can be scored")
        return Prompts(
            tuple([*ids, tokenizer.separator][-self.context :] for ids in tokenizer.encode(list(references))),
            tuple(references),
            tuple(map(tuple, references.values())),
            tokenizer,
            self.context,
        )

    def _pair(self, context: Ids, text: Ids) -> tuple[Ids, Ids]:
        """A context and what follows, no longer than a model sees and one more token."""
        text = text[: self.context]
        context = context[-(self.context + 1 - len(text)) :]
        return (context, text) if self.loss_on == "targets" else ([], context + text)

    def _cut_up(self, text: Ids) -> list[tuple[Ids, Ids]]:
        """Pieces of which each begins with the last token of the one before; none of a single token."""
        return [([], text[i : i + self.context + 1]) for i in range(0, len(text) - 1, self.context)]
