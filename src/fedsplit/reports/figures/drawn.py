"""A figure that is drawn, with all that a page needs to show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsplit.reports.runs import Run


@dataclass(frozen=True)
class Drawn:
    """A figure of an experiment, whole in memory.

    Args:
        name: of its files, without the ending.
        description: what is to be seen, in a sentence or two; may be empty.
        images: the content of its files, by format (`png`, `pdf`, `svg`).
        runs: that are drawn, and those of `left_out`.
        left_out: labels of what would be more than a reader can tell apart.
    """

    name: str
    title: str
    description: str
    images: Mapping[str, bytes]
    runs: Sequence[Run]
    left_out: Sequence[str] = ()
