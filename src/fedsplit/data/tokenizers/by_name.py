"""The tokenizer that a dataset's keys ask for."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from fedsplit.data.tokenizers.characters import Characters
from fedsplit.data.tokenizers.tokenizer import Tokenizer
from fedsplit.data.tokenizers.utf8_bytes import Utf8Bytes
from fedsplit.errors import UserError
from fedsplit.files.bounded import Damage
from fedsplit.files.paths import user_path
from fedsplit.machine.extras import extra

TokenizerName: TypeAlias = Literal["bpe", "characters", "bytes", "gpt2", "files"]
_WANTED = {
    "gpt2": "a folder that holds vocab.json and merges.txt of GPT-2",
    "files": "a GGUF file, or a folder that holds tokenizer.json, or vocab.json and merges.txt",
}


def build_tokenizer(
    name: TokenizerName, place: str | None, vocabulary: int, texts: Sequence[str]
) -> Tokenizer:
    """A tokenizer by name.

    Args:
        name: source of the tokenizer: the training split (`bpe`, `characters`), nothing (`bytes`), or files.
        place: folder with the files, for `gpt2` and `files`; or for the latter a GGUF file.
        vocabulary: tokens of `bpe`.
        texts: the training split, for `characters` and `bpe`.

    Raises:
        UserError: its files are not there or damaged, or the vocabulary is too small.
    """
    if name == "bytes":
        return Utf8Bytes()
    if name == "characters":
        return Characters(texts)
    with extra("dataset.tokenizer", name):
        from fedsplit.data.tokenizers import files, subwords  # noqa: PLC0415  (an extra)
    if name == "bpe":
        least = subwords.ALPHABET + 3
        if vocabulary < least:
            message = (
                f"must be at least {least} with tokenizer=bpe: the bytes, two special tokens, and a pair"
            )
            raise UserError("dataset.vocabulary", vocabulary, message)
        return subwords.learned_byte_pairs(texts, vocabulary)
    key = "dataset.tokenizer_files"
    path = None if place is None else user_path(place, key)
    if path is None or not (path.is_dir() or (name == "files" and path.is_file())):
        raise UserError(key, place, _WANTED[name])
    try:
        if path.is_file():
            from fedsplit.data.tokenizers import gguf_file  # noqa: PLC0415  (an extra)

            return gguf_file.gguf_tokenizer(path)
        return files.gpt2_tokenizer(path) if name == "gpt2" else files.tokenizer_of(path)
    except OSError as error:
        raise UserError(key, place, f"cannot be read ({error.strerror}): {error.filename}") from error
    except Damage as error:
        raise UserError(key, place, str(error)) from error
