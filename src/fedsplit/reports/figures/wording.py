"""Labels of runs in the words of figures: `FSL-SAGE, learning rate 0.01` for `fsl_sage, lr=0.01`."""

import re
from collections.abc import Mapping, Sequence
from functools import cache

from fedsplit.config.traits import algorithm_traits

_WORDS: Mapping[str, str] = {
    "qat=true": "QAT",
    "compile=true": "compiled",
    "align_when=interval": "aligned at an interval",
    "align_when=error": "aligned by their error",
    "align_when=geometric": "aligned at growing intervals",
}


@cache
def _words() -> Mapping[str, str]:
    return {**_WORDS, **{name: each.label for name, each in algorithm_traits().items() if each.label}}


_PHRASES: Mapping[str, str | tuple[str, str]] = {
    "align_error": "aligned beyond an error of {}",
    "align_interval": ("aligned every round", "aligned every {} rounds"),
    "align_tolerance": "alignment tolerance {}",
    "alpha": "\N{GREEK SMALL LETTER ALPHA} = {}",
    "auxiliary": "auxiliary model {}",
    "batch_size": "batches of {}",
    "classes_per_client": ("1 class per client", "{} classes per client"),
    "cohort_size": ("1 client a round", "{} clients a round"),
    "device_rounds": ("1 device round", "{} device rounds"),
    "engine": "{} engine",
    "local_epochs": ("1 local epoch", "{} local epochs"),
    "lr": "learning rate {}",
    "max_test": ("1 test image", "{} test images"),
    "max_train": ("1 training image", "{} training images"),
    "num_clients": ("1 client", "{} clients"),
    "quant": "{} messages",
    "rounds": ("1 round", "{} rounds"),
    "run": "from {}",
    "server_lr": "server rate {}",
    "server_update_interval": ("uploads every step", "uploads every {} steps"),
    "shards_per_client": ("1 shard per client", "{} shards per client"),
    "threads": ("1 thread", "{} threads"),
    "transport": "over {}",
    "weight_bits": "{}-bit weights",
}
"""Wording of a setting, by the last part of its key; two phrases are of 1 and of other values.

Other settings are the key's words and the value.
"""
_OFF = ("null", "none", "false", "quant=none", "transport=local")
_PIECES = re.compile(r", (?![^\[]*\])")


def pieces(label: str) -> list[str]:
    """A label in its pieces; the commas of a list part none."""
    return _PIECES.split(label) if label else []


def telling(label: str) -> list[str]:
    """The pieces that neither say that something is off, as `quant=none`, nor name an engine."""
    return [piece for piece in pieces(label) if not _is_off(piece) and not _is_of_an_engine(piece)]


def legend_texts(labels: Sequence[str]) -> list[str]:
    """Labels of a figure in words, without the pieces that are off, where that leaves no two alike.

    Where it does, what is off is said too; an engine only where nothing else tells labels apart.
    """
    attempts = [
        [telling(label) for label in labels],
        [[piece for piece in pieces(label) if not _is_off(piece)] for label in labels],
        [pieces(label) for label in labels],
    ]
    for attempt in attempts:
        texts = [", ".join(map(in_words, each)) for each in attempt]
        if len(set(texts)) == len(set(labels)):
            return texts
    return list(labels)


def in_words(piece: str) -> str:
    """A piece of a label in words."""
    if words := _words().get(piece):
        return words
    key, equals, value = piece.partition("=")
    if not equals:
        return piece.replace("_", " ")
    *places, name = key.split(".")
    if name == "_target_":
        return value.rpartition(".")[2]
    words = " ".join([*places, name]).replace("_", " ")
    if value == "true":
        return words
    if value in ("false", "null", "none"):
        return f"no {words}"
    if name == "run":
        value = value.rstrip("/").rpartition("/")[2]
    phrase = _PHRASES.get(name, "")
    if isinstance(phrase, tuple):
        phrase = phrase[value != "1"]
    return phrase.format(value) if phrase and not places else f"{words} {value}"


def _is_off(piece: str) -> bool:
    return piece in _OFF or piece.partition("=")[2] in ("null", "none", "false")


def _is_of_an_engine(piece: str) -> bool:
    return piece.partition("=")[0].partition(".")[0] in ("engine", "stack_mb")
