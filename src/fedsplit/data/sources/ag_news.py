"""Dataset of news in four topics."""

from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from fedsplit.data.classified_source import ClassifiedSource
from fedsplit.data.text_files import reading, rows
from fedsplit.data.text_source import Passage
from fedsplit.files.bounded import Damage

_TOPICS = ("World", "Sports", "Business", "Sci/Tech")
_LAYOUT = (
    "train.csv and test.csv, with class (1 to 4), title and description a row, of ag_news_csv.tar.gz, "
    "https://s3.amazonaws.com/fast-ai-nlp/ag_news_csv.tgz"
)


@dataclass(frozen=True, kw_only=True)
class AgNews(ClassifiedSource):
    """120,000 training and 7,600 test articles, title and description, of 4 topics.

    Source: X. Zhang, J. Zhao and Y. LeCun, "Character-level Convolutional Networks for Text Classification",
    2015.
    """

    @override
    def class_names(self) -> tuple[str, ...]:
        return _TOPICS

    @override
    def read(self) -> tuple[list[Passage], list[Passage]]:
        with reading(self.root, _LAYOUT) as folder:
            return _passages(folder / "train.csv"), _passages(folder / "test.csv")


def _passages(path: Path) -> list[Passage]:
    found = []
    for number, row in enumerate(rows(path), 1):
        if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
            raise Damage(f"row {number} of {path.name} must be class, title and description")
        found.append(Passage(text=f"{row[1]} {row[2]}", stratum=_TOPICS[int(row[0]) - 1]))
    return found
