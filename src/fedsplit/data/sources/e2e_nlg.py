"""Descriptions of restaurants, to be written from their attributes."""

from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from fedsplit.data.language_source import LanguageSource
from fedsplit.data.text_files import columns, reading
from fedsplit.data.text_source import Passage

_LAYOUT = (
    "trainset.csv or devset.csv, and testset_w_refs.csv, with columns mr and ref, of "
    "https://github.com/tuetschek/e2e-dataset"
)


@dataclass(frozen=True, kw_only=True)
class E2eNlg(LanguageSource):
    """Meaning representations, as `name[Aromi], area[riverside]`, and 8 texts of each: the E2E NLG challenge.

    42,061 training texts where `trainset.csv` is there, else the 4,672 of `devset.csv`; the 4,693 test texts
    of `testset_w_refs.csv`. `validation` divides no meaning representation.

    Source: J. Novikova, O. Dušek and V. Rieser, "The E2E Dataset: New Challenges For End-to-End Generation",
    SIGDIAL 2017.

    Args:
        strata: strata that divisions go by: the `name` of the restaurant, or all of it, `mr`.
    """

    strata: Literal["name", "mr"] = "name"

    @override
    def read(self) -> tuple[list[Passage], list[Passage]]:
        with reading(self.root, _LAYOUT) as folder:
            train = folder / "trainset.csv"
            files = (train if train.exists() else folder / "devset.csv", folder / "testset_w_refs.csv")
            train_rows, test_rows = (columns(file, ("mr", "ref")) for file in files)
        return self._passages(train_rows), self._passages(test_rows)

    def _passages(self, rows: list[list[str]]) -> list[Passage]:
        return [
            Passage(context=mr, text=ref, group=mr, stratum=mr if self.strata == "mr" else _name(mr))
            for mr, ref in rows
        ]


def _name(mr: str) -> str:
    """The restaurant's name; empty where there is none."""
    return mr.partition("name[")[2].partition("]")[0]
