"""The tokenizer that a dataset's keys ask for."""

from collections.abc import Sequence
from pathlib import Path

from fedsplit.data.tokenizers.characters import Characters
from fedsplit.data.tokenizers.tokenizer import Tokenizer
from fedsplit.data.tokenizers.utf8_bytes import Utf8Bytes
from fedsplit.errors import UserError
from fedsplit.files.bounded import Damaged
from fedsplit.files.paths import user_path
from fedsplit.machine.extras import extra

_ALLOWED = "bytes, characters, bpe, gpt2, or a folder that holds tokenizer.json, or vocab.json and merges.txt"


def build_tokenizer(name: str, folder: str, vocabulary: int, texts: Sequence[str]) -> Tokenizer:
    """A tokenizer by name.

    Args:
        name: `bytes`, `characters`, `bpe`, `gpt2`, or the folder of a model.
        folder: with `vocab.json` and `merges.txt`, for `gpt2`.
        vocabulary: tokens of `bpe`.
        texts: the training split, for `characters` and `bpe`.

    Raises:
        UserError: there is none by that name, or its files are not there or damaged.
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
            told = f"at least {least} with tokenizer=bpe: the bytes, two special tokens, and a pair"
            raise UserError("dataset.vocabulary", vocabulary, told)
        return subwords.learned_byte_pairs(texts, vocabulary)
    key, given = ("dataset.tokenizer_files", folder) if name == "gpt2" else ("dataset.tokenizer", name)
    path = user_path(given, key)
    if not Path(path).is_dir():
        wanted = "a folder that holds vocab.json and merges.txt of GPT-2" if name == "gpt2" else _ALLOWED
        raise UserError(key, given, wanted)
    try:
        return files.gpt2_tokenizer(path) if name == "gpt2" else files.tokenizer_of(path)
    except OSError as error:
        raise UserError(key, given, f"cannot be read ({error.strerror}): {error.filename}") from error
    except Damaged as error:
        raise UserError(key, given, str(error)) from error
