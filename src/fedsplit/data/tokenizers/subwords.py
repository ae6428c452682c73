"""Parts of words, by the package `tokenizers`: learned from the training split."""

import os
from collections.abc import Iterable, Sequence
from hashlib import sha256

from typing_extensions import override

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not outlive a fork

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from fedsplit.data.tokenizers.tokenizer import Tokenizer

END, SEPARATOR = "<|endoftext|>", "<|separator|>"
ALPHABET = 256
"""Tokens that every vocabulary of byte pairs begins with: all bytes."""


class Subwords(Tokenizer):
    """A tokenizer of the package `tokenizers`.

    Args:
        inner: arguments of the inner tokenizer.
        end: a token of its vocabulary.
        separator: another, or the same.
    """

    def __init__(self, inner: tokenizers.Tokenizer, end: str, separator: str) -> None:
        self._inner = inner
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # texts are texts, also those that spell a special token
        vocabulary = inner.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values()) + 1
        self.end, self.separator = vocabulary[end], vocabulary[separator]

    @override
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self._inner.encode_batch(list(texts), add_special_tokens=False)]

    @override
    def encode_for_classifier(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self._inner.encode_batch(list(texts), add_special_tokens=True)]

    @override
    def decode(self, ids: Sequence[int]) -> str:
        return self._inner.decode(list(ids), skip_special_tokens=True)

    @property
    @override
    def digest(self) -> str:
        return sha256(f"{self._inner.to_str()} {self.end} {self.separator}".encode()).hexdigest()


def byte_pairs(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """Byte-level byte-pair encoding as GPT-2 has it.

    Source: A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.2.

    Args:
        vocabulary: ids by token, whose bytes are written as printable characters.
        merges: pairs of tokens, in the order in which they are merged.
    """
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return inner


def learned_byte_pairs(texts: Iterable[str], vocabulary: int) -> Subwords:
    """Byte pairs of the training split, the same for the same texts in any order.

    Args:
        texts: the training split.
        vocabulary: tokens, two of them special; fewer where the texts have no more pairs.
    """
    inner = byte_pairs({}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, SEPARATOR],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return Subwords(inner, END, SEPARATOR)
