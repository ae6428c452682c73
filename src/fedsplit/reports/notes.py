"""What is left out of figures or missing, told in a few lines, with all of it in a file."""

from typing import Literal, TypeAlias

NOTES = "notes-on-figures.txt"
_MOST_LINES = 3
_LONGEST_LINE = 300

Kind: TypeAlias = Literal[
    "damaged", "format", "foreign", "repeated", "unfit", "unfinished", "crowded", "empty", "missing"
]
_COUNTED: dict[Kind, str] = {
    "damaged": "damaged",
    "format": "of another format",
    "foreign": "not of runs",
    "repeated": "repeated",
    "unfit": "without what is drawn",
    "unfinished": "not at their end",
    "crowded": "series left out of figures that hold too many",
    "empty": "places and experiments without a run",
    "missing": "commands for runs that are expected",
}
_OF_RUNS: tuple[Kind, ...] = ("damaged", "format", "foreign", "repeated", "unfit", "unfinished")


class Notes:
    """Notes, each once, in the order in which they were added."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def add(self, kind: Kind, text: str) -> None:
        """Take down a note, once however often it is added."""
        self._kinds.setdefault(text, kind)

    @property
    def texts(self) -> list[str]:
        """All of them."""
        return list(self._kinds)

    @property
    def few(self) -> bool:
        """Whether all of them are few and short enough for standard error."""
        short = all(len(text) <= _LONGEST_LINE for text in self._kinds)
        return len(self._kinds) <= _MOST_LINES and short

    def lines(self, file: str | None) -> list[str]:
        """At most three lines: the notes themselves where they are few and short, or how many of what kind.

        Args:
            file: where all of them are written; None: nowhere.
        """
        if self.few:
            return self.texts
        counts = [(kind, sum(each == kind for each in self._kinds.values())) for kind in _COUNTED]
        of_runs = [f"{count} {_COUNTED[kind]}" for kind, count in counts if count and kind in _OF_RUNS]
        others = [f"{count} {_COUNTED[kind]}" for kind, count in counts if count and kind not in _OF_RUNS]
        lines = [f"directories left out or not complete: {', '.join(of_runs)}"] if of_runs else []
        lines += [", ".join(others)] if others else []
        return [*lines, f"each is told in {file}"] if file is not None else lines

    def content(self) -> bytes:
        """All of them as a text file, a line each."""
        return "".join(f"{text}\n" for text in self._kinds).encode("utf-8", "backslashreplace")
