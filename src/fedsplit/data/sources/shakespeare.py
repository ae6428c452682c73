"""Lines of Shakespeare's roles, a character at a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from fedsplit.data.language_source import LanguageSource
from fedsplit.data.text_files import json_file, reading
from fedsplit.data.text_source import Passage
from fedsplit.files.bounded import Damage

_LAYOUT = (
    "shakespeare/train/*.json and shakespeare/test/*.json, as preprocess.sh of "
    "https://github.com/TalwalkarLab/leaf makes them"
)


@dataclass(frozen=True, kw_only=True)
class Shakespeare(LanguageSource):
    """80 characters `x` and the next one `y` of each sample in LEAF's JSON files, which say whose they are.

    Owners are roles: `distribution=natural` keeps them together, and `validation` does not divide them.

    Source: S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018; B. McMahan et al., 2017.
    """

    marked: ClassVar[bool] = False

    @override
    def read(self) -> tuple[list[Passage], list[Passage]]:
        with reading(self.root, _LAYOUT) as folder:
            train, test = (_passages(folder / "shakespeare" / split) for split in ("train", "test"))
        return train, test


def _passages(folder: Path) -> list[Passage]:
    files = sorted(each for each in folder.iterdir() if each.suffix == ".json")
    return [passage for file in files for passage in _in(file)]


def _in(file: Path) -> list[Passage]:
    found = json_file(file)
    try:
        samples = [
            (role, x, y)
            for role in found["users"]
            for x, y in zip(*(found["user_data"][role][key] for key in "xy"), strict=True)
        ]
        if not all(isinstance(text, str) and text for sample in samples for text in sample):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        message = "must be JSON of LEAF: users, and user_data with x and y, texts"
        raise Damage(f"{file.name} {message}") from error
    return [Passage(context=x, text=y, group=role, stratum=role, owner=role) for role, x, y in samples]
