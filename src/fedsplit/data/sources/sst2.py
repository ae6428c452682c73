"""Sentences of film reviews, against or for the film."""

from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from fedsplit.data.classified_source import ClassifiedSource
from fedsplit.data.text_files import columns, reading
from fedsplit.data.text_source import Passage
from fedsplit.files.bounded import Damage

_CLASSES = ("negative", "positive")
_LAYOUT = (
    "train.tsv and dev.tsv, with columns sentence and label (0 or 1), of "
    "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip"
)


@dataclass(frozen=True, kw_only=True)
class Sst2(ClassifiedSource):
    """67,349 training sentences, and the 872 of `dev.tsv` to test on: those of `test.tsv` have no labels.

    Source: R. Socher et al., "Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank",
    2013; A. Wang et al., "GLUE", 2018.
    """

    @override
    def class_names(self) -> tuple[str, ...]:
        return _CLASSES

    @override
    def read(self) -> tuple[list[Passage], list[Passage]]:
        with reading(self.root, _LAYOUT) as folder:
            return _passages(folder / "train.tsv"), _passages(folder / "dev.tsv")


def _passages(path: Path) -> list[Passage]:
    found = columns(path, ("sentence", "label"), tabs=True)
    for number, (_, label) in enumerate(found, 2):
        if label not in ("0", "1"):
            raise Damage(f"row {number} of {path.name} must have label 0 or 1")
    return [Passage(text=sentence, stratum=_CLASSES[int(label)]) for sentence, label in found]
