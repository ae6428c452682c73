"""How many samples of each class every client has: written by a run, read back for figures."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from fedsplit.errors import UserError
from fedsplit.files.bounded import MIB, MOST_CLASSES, MOST_CLIENTS, csv_table, parse_whole_number, reading
from fedsplit.files.whole import appearing, csv_file, csv_line

if TYPE_CHECKING:  # figures are drawn without torch
    from torch import Tensor

    from fedsplit.data.shards import ClientShards

CLASS_COUNTS = "class_counts.csv"
_COLUMNS = ("client", "label", "class", "samples")
_AT_A_TIME, _WRITTEN_AT_A_TIME = 1 << 20, 1 << 16
"""Counts of a client and a class that are in memory at a time, and rows that are text at a time."""
_MOST_BYTES = 256 * MIB


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """The division of a training set.

    Args:
        table: client, label and samples, int64 `(rows, 3)`, by client, then label; labels that a client has
            none of are left out.
        names: names of the classes by label, where they have any.
    """

    table: np.ndarray
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, shards: "ClientShards", labels: "Tensor", names: Sequence[str]) -> "ClassCounts":
        """Count.

        Args:
            shards: indices of each client's samples.
            labels: labels of all samples, `(n,)`.
            names: names of the classes; empty where they have none.
        """
        known, numbers = np.unique(labels.cpu().numpy(), return_inverse=True)
        tables = [np.empty((0, 3), dtype=np.int64)]
        for block in shards.partition.blocks(max(1, _AT_A_TIME // max(1, len(known)))):
            cells = block.clients * len(known) + numbers[block.indices]
            counts = np.bincount(cells, minlength=len(block.sizes) * len(known))
            found = np.flatnonzero(counts)
            clients, places = block.first + found // len(known), found % len(known)
            tables.append(np.stack([clients, known[places], counts[found]], axis=1))
        return cls(np.concatenate(tables), tuple(names))

    @override
    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ClassCounts)
            and self.names == other.names
            and np.array_equal(self.table, other.table)
        )

    @override
    def __hash__(self) -> int:
        return hash((self.table.tobytes(), self.names))

    @property
    def clients(self) -> int:
        """Number of clients that are counted."""
        return int(self.table[:, 0].max()) + 1

    @property
    def samples(self) -> int:
        """Samples of all clients, those of several clients counted at each."""
        return int(self.table[:, 2].sum())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes, in the order of their labels; where they have none, their numbers."""
        return self.names or tuple(map(str, range(int(self.table[:, 1].max()) + 1)))

    def sample(self, most: int) -> "ClassCounts":
        """Counts of at most so many clients, evenly spaced among all and numbered anew from 0."""
        count = self.clients
        if count <= most:
            return self
        chosen = np.arange(most) * count // most
        place = np.searchsorted(chosen, self.table[:, 0]).clip(max=most - 1)
        kept = chosen[place] == self.table[:, 0]
        return ClassCounts(np.column_stack([place[kept], self.table[kept, 1:]]), self.names)

    def write(self, path: Path) -> None:
        """Write as CSV: `client, label, class, samples`; `class` is empty where classes have no names."""
        with appearing(path) as partial, csv_file(partial) as file:
            file.write(csv_line(_COLUMNS))
            of_label = {  # quoted once, and not in each of millions of lines
                label: csv_line(("", label, self.names[label] if self.names else "", "")).rstrip()
                for label in np.unique(self.table[:, 1]).tolist()
            }
            for start in range(0, len(self.table), _WRITTEN_AT_A_TIME):
                columns = (column.tolist() for column in self.table[start : start + _WRITTEN_AT_A_TIME].T)
                rows = zip(*columns, strict=True)
                file.write("".join([f"{client}{of_label[label]}{n}\r\n" for client, label, n in rows]))


def read_class_counts(run: Path) -> ClassCounts:
    """Class counts of a run's `class_counts.csv`; classes beyond the last that a client has any of are lost.

    Bytes of a class's name that are no text are read as escapes, as they can be drawn.

    Raises:
        UserError: it left none, or the file is damaged.
    """
    with reading(run, CLASS_COUNTS, "runs with distribution=own do not"):
        cells, named = array("q"), dict[int, str]()
        for _, line in csv_table(run / CLASS_COUNTS, _MOST_BYTES)[1]:
            label = parse_whole_number(line["label"], MOST_CLASSES - 1)
            cells.extend(
                (
                    parse_whole_number(line["client"], MOST_CLIENTS - 1),
                    label,
                    parse_whole_number(line["samples"]),
                )
            )
            if line["class"]:
                named[label] = line["class"]
    if not cells:
        raise UserError("run", run, f"{CLASS_COUNTS} must not be damaged")
    table = np.frombuffer(cells, dtype=np.int64).reshape(-1, 3)
    last = int(table[:, 1].max())
    names = tuple(named.get(label, str(label)) for label in range(last + 1)) if named else ()
    return ClassCounts(table, names)
