"""The tokenizer that a GGUF file of a model holds."""

from pathlib import Path
from typing import Any

from gguf import GGUFReader, TokenType
from tokenizers import pre_tokenizers

from fedsplit.data.tokenizers.files import check_ids
from fedsplit.data.tokenizers.subwords import Subwords, byte_pairs
from fedsplit.errors import first_line
from fedsplit.files.bounded import Damage

_SPLIT_DIGITS = {"smollm": True, "gpt-2": False, "default": False}
"""Supported values of `tokenizer.ggml.pre`; True where each digit is a token of its own."""


def gguf_tokenizer(path: Path) -> Subwords:
    """The byte pairs in a GGUF file.

    Raises:
        OSError: it cannot be read.
        Damaged: it holds none, or of another kind.
    """
    try:
        reader = GGUFReader(path)
    except OSError:
        raise
    except Exception as error:  # whatever the package stumbles on in damaged files
        raise Damage(f"{path.name} is no GGUF file ({first_line(error)})") from error

    def read_field(name: str, otherwise: Any = None) -> Any:
        field = reader.get_field(f"tokenizer.ggml.{name}")
        return otherwise if field is None else field.contents()

    kind, way = read_field("model"), read_field("pre", "default")
    if kind != "gpt2" or way not in _SPLIT_DIGITS:
        raise Damage(f"{path.name} has a tokenizer of kind {kind}, {way}, which is not read here")
    try:
        tokens, end = read_field("tokens"), read_field("eos_token_id")
        vocabulary = {token: number for number, token in enumerate(tokens)}
        check_ids(path.name, vocabulary)
        merges = [(first, second) for first, second in (pair.split(" ") for pair in read_field("merges"))]
        inner = byte_pairs(vocabulary, merges)
        types = zip(tokens, read_field("token_type"), strict=True)
        inner.add_special_tokens([token for token, each in types if each == TokenType.CONTROL])
        if _SPLIT_DIGITS[way]:
            digits = pre_tokenizers.Digits(individual_digits=True)
            inner.pre_tokenizer = pre_tokenizers.Sequence([digits, inner.pre_tokenizer])
        return Subwords(inner, tokens[end], tokens[end])
    except Damage:
        raise
    except Exception as error:  # whatever the package stumbles on, or what is not there
        raise Damage(f"{path.name} has a damaged tokenizer ({first_line(error)})") from error
