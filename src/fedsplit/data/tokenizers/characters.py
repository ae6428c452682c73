"""Tokenizer with a token for each character."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from typing_extensions import override

from fedsplit.data.tokenizers.tokenizer import Tokenizer


class Characters(Tokenizer):
    """The characters of the training split, sorted; an id for all others, and two special ids.

    Args:
        texts: the training split.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._known = sorted(set().union(*texts))
        self._ids = {character: number for number, character in enumerate(self._known)}
        self.unknown = len(self._known)
        """Id of a character that the training split does not have."""
        self.end, self.separator, self.size = self.unknown + 1, self.unknown + 2, self.unknown + 3

    @override
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self._ids.get(character, self.unknown) for character in text] for text in texts]

    @override
    def decode(self, ids: Sequence[int]) -> str:
        shown = [*self._known, "\N{REPLACEMENT CHARACTER}"]
        return "".join(shown[each] for each in ids if each <= self.unknown)

    @property
    @override
    def digest(self) -> str:
        return sha256("".join(self._known).encode()).hexdigest()
