"""Tokenizers as models come with them: a folder with `tokenizer.json`, or `vocab.json` and `merges.txt`.

Files may be anybody's: they are bounded in size, and what the package `tokenizers` would fail on with more
than an error is refused before it sees it.
"""

from collections.abc import Iterator
from pathlib import Path

import tokenizers

from fedsplit.data.tokenizers.subwords import END, Subwords, byte_pairs
from fedsplit.errors import first_line
from fedsplit.files.bounded import MIB, Damage, json_in, text

_LARGEST_FILE = 64 * MIB
"""Most bytes of a tokenizer's file; Gemma's, with 256,000 tokens, has 33 MiB."""
_MOST_TOKENS = 2**20
_ENDS = (END, "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "[SEP]")
"""Tokens that end a text, where a folder does not say which does."""
_SEPARATORS = ("<|separator|>", "[SEP]")
_FAILING = "Precompiled"
"""A part that ends the calling thread where its bytes are damaged."""


def tokenizer_of(folder: Path) -> Subwords:
    """The tokenizer in the folder of a model.

    Raises:
        OSError: a file cannot be read.
        Damaged: a file is not as it must be, or there is none.
    """
    if (folder / "tokenizer.json").is_file():
        return _build(folder)
    return gpt2_tokenizer(folder)


def gpt2_tokenizer(folder: Path) -> Subwords:
    """The tokenizer in a folder with `vocab.json` and `merges.txt` as GPT-2 has them; see `tokenizer_of`."""
    vocabulary = json_in(folder / "vocab.json", _LARGEST_FILE)
    check_ids("vocab.json", vocabulary)
    pairs = [tuple(line.split(" ")) for line in text(folder / "merges.txt", _LARGEST_FILE).splitlines()]
    if pairs and pairs[0][0] == "#version:":
        del pairs[0]
    if END not in vocabulary or any(len(pair) != 2 for pair in pairs):
        raise Damage(f"vocab.json must have {END}, and merges.txt two tokens a line")
    try:
        inner = byte_pairs(vocabulary, [(first, second) for first, second in pairs])
    except Exception as error:  # the package raises no other
        raise Damage(f"vocab.json and merges.txt do not go together ({first_line(error)})") from error
    inner.add_special_tokens([END])
    return Subwords(inner, END, END)


def _build(folder: Path) -> Subwords:
    """Tokenizer of `tokenizer.json`; `tokenizer_config.json`, where it is, names the token of an end."""
    path = folder / "tokenizer.json"
    described = json_in(path, _LARGEST_FILE)
    if _FAILING in _types(described):
        raise Damage(f"{path.name} has a part of type {_FAILING}, which is not read here")
    try:
        inner = tokenizers.Tokenizer.from_str(text(path, _LARGEST_FILE))
        vocabulary = inner.get_vocab(with_added_tokens=True)
    except Exception as error:  # the package raises no other
        raise Damage(f"{path.name} is no tokenizer ({first_line(error)})") from error
    check_ids(path.name, vocabulary)
    ends = [each for each in (_end_in(folder / "tokenizer_config.json"), *_ENDS) if each in vocabulary]
    if not ends:
        raise Damage(f"{path.name} has no token that ends a text, and tokenizer_config.json no eos_token")
    separators = [each for each in _SEPARATORS if each in vocabulary]
    return Subwords(inner, ends[0], (separators or ends)[0])


def _end_in(path: Path) -> str | None:
    """The `eos_token` of a `tokenizer_config.json`, if it says one."""
    said = json_in(path, _LARGEST_FILE) if path.is_file() else None
    token = said.get("eos_token") if isinstance(said, dict) else None
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _types(described: object) -> Iterator[object]:
    """Types that parts of a tokenizer say to be."""
    left = [described]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            yield part.get("type")
            left += part.values()
        elif isinstance(part, list):
            left += part


def check_ids(name: str, vocabulary: object) -> None:
    """Check that a vocabulary is one, and that its ids are no more than models have.

    Raises:
        Damaged: it is none.
    """
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise Damage(f"{name} must hold ids by token")
    for each in vocabulary.values():
        if not isinstance(each, int) or isinstance(each, bool) or not 0 <= each < _MOST_TOKENS:
            raise Damage(f"{name} must hold ids from 0 to below {_MOST_TOKENS}")
