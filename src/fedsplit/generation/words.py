"""Texts as words, for scores that count them."""

from collections.abc import Sequence

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a


def words_of(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text in small letters, and its punctuation, split as NIST's `mteval-v13a` does."""
    tokenize = Tokenizer13a()  # type: ignore[no-untyped-call]
    return [tokenize(text).lower().split() for text in texts]
