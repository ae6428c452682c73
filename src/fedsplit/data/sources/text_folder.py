"""Text files in folders named after their classes."""

from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from fedsplit.data.classified_source import ClassifiedSource
from fedsplit.data.text_files import reading, whole_text
from fedsplit.data.text_source import Passage
from fedsplit.files.bounded import Damage

_LAYOUT = "train/<class>/*.txt and test/<class>/*.txt"


@dataclass(frozen=True, kw_only=True)
class TextFolder(ClassifiedSource):
    """`root/train/<class>/*.txt` and `root/test/<class>/*.txt`, a text each; classes are sorted by name.

    Classes are those of `train`. Hidden files and folders are left out.
    """

    @override
    def class_names(self) -> tuple[str, ...]:
        with reading(self.root, _LAYOUT) as folder:
            return tuple(_folders_in(folder / "train"))

    @override
    def read(self) -> tuple[list[Passage], list[Passage]]:
        with reading(self.root, _LAYOUT) as folder:
            train, test = (_passages(folder / split) for split in ("train", "test"))
            if surplus := {each.stratum for each in test} - {each.stratum for each in train}:
                raise Damage(f"train/{min(surplus)} holds no text, and test/{min(surplus)} does")
        return train, test


def _passages(folder: Path) -> list[Passage]:
    return [
        Passage(text=whole_text(file), stratum=name)
        for name in _folders_in(folder)
        for file in sorted((folder / name).glob("*.txt"))
        if file.is_file() and not file.name.startswith(".")
    ]


def _folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are none."""
    return sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
