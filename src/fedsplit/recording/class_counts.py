"""How many samples of each class every client has: written by a run, read back for figures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsplit.errors import UserError
from fedsplit.files.bounded import MOST_CLASSES, MOST_CLIENTS, csv_table, reading, whole
from fedsplit.files.whole import write_csv

if TYPE_CHECKING:  # figures are drawn without torch
    from torch import Tensor

CLASS_COUNTS = "class_counts.csv"
_COLUMNS = ("client", "label", "class", "samples")


@dataclass(frozen=True)
class ClassCounts:
    """The division of a training set.

    Args:
        rows: client, label and samples, by client, then label; labels that a client has none of are left out.
        names: of the classes by label, where they have any.
    """

    rows: tuple[tuple[int, int, int], ...]
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, shards: Iterable["Tensor"], labels: "Tensor", names: Sequence[str]) -> "ClassCounts":
        """Count.

        Args:
            shards: indices of each client's samples.
            labels: of all samples, `(n,)`.
            names: of the classes; empty where they have none.
        """
        labels = labels.cpu()
        rows = []
        for client, shard in enumerate(shards):
            found, counts = labels[shard].unique(return_counts=True)  # type: ignore[no-untyped-call]
            rows += [(client, *pair) for pair in zip(found.tolist(), counts.tolist(), strict=True)]
        return cls(tuple(rows), tuple(names))

    @property
    def clients(self) -> int:
        """Their number."""
        return max(client for client, _, _ in self.rows) + 1

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes, in the order of their labels; where they have none, their numbers."""
        return self.names or tuple(map(str, range(max(label for _, label, _ in self.rows) + 1)))

    def write(self, path: Path) -> None:
        """Write as CSV: `client, label, class, samples`; `class` is empty where classes have no names."""
        named = ((c, label, self.names[label] if self.names else "", n) for c, label, n in self.rows)
        write_csv(path, _COLUMNS, named)


def read_class_counts(run: Path) -> ClassCounts:
    """What a run left in `class_counts.csv`; classes beyond the last that a client has any of are lost.

    Bytes of a class's name that are no text are read as escapes, as they can be drawn.

    Raises:
        UserError: it left none, or the file is damaged.
    """
    with reading(run, CLASS_COUNTS, "runs with distribution=own do not"):
        lines = [row for _, row in csv_table(run / CLASS_COUNTS)[1]]
        labels = [whole(line["label"], MOST_CLASSES - 1) for line in lines]
        rows = tuple(
            (whole(line["client"], MOST_CLIENTS - 1), label, whole(line["samples"]))
            for label, line in zip(labels, lines, strict=True)
        )
        named = {label: line["class"] for label, line in zip(labels, lines, strict=True) if line["class"]}
    if not rows:
        raise UserError("run", run, f"{CLASS_COUNTS} must not be damaged")
    last = max(label for _, label, _ in rows)
    names = tuple(named.get(label, str(label)) for label in range(last + 1)) if named else ()
    return ClassCounts(rows, names)
