"""Interface of tokenizers between texts and tokens."""

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Tokenizer(ABC):
    """Turns texts into token ids and back. A text never gives a special id, whatever it holds."""

    size: int
    """Ids are from 0 to below it."""
    end: int
    """Id of the token behind a text."""
    separator: int
    """Id of the token between a context and its completion; where there is none of its own, `end`."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special ones."""

    def encode_for_classifier(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text with those around it that a classifier expects, as `[CLS]` and `[SEP]` of BERT."""
        return self.encode(texts)

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ones give nothing, and bytes that are no UTF-8 the character U+FFFD."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256, in hexadecimal digits, of all that ids depend on."""
