"""Tokenizer with a token for each byte."""

from collections.abc import Sequence
from hashlib import sha256

from typing_extensions import override

from fedsplit.data.tokenizers.tokenizer import Tokenizer


class Utf8Bytes(Tokenizer):
    """The 256 bytes of UTF-8, and two special ids."""

    size, end, separator = 258, 256, 257

    @override
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    @override
    def decode(self, ids: Sequence[int]) -> str:
        return bytes(each for each in ids if each < 256).decode(errors="replace")

    @property
    @override
    def digest(self) -> str:
        return sha256(b"bytes").hexdigest()
