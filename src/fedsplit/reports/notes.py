"""Notes on runs that are left out of figures or missing: a few lines, with all of them in a file."""

from collections import Counter
from collections.abc import Mapping

NOTES = "notes-on-figures.txt"
_MOST_LINES = 3
_LONGEST_LINE = 300

_OF_RUNS = {
    "damaged": "damaged",
    "format": "of another format",
    "foreign": "not of runs",
    "repeated": "repeated",
    "unfit": "without what is drawn",
    "unfinished": "not at their end",
}
_OTHERS = {
    "crowded": "series left out of figures that hold too many",
    "empty": "places and experiments without a run",
    "missing": "commands for runs that are expected",
}
"""Kinds of notes, and how they are counted in words."""


class Notes:
    """Notes, each once, in the order in which they were added."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def add(self, kind: str, text: str) -> None:
        """Take down a note, once however often it is added."""
        assert kind in _OF_RUNS | _OTHERS
        self._kinds.setdefault(text, kind)

    @property
    def texts(self) -> list[str]:
        """Texts of all notes in order."""
        return list(self._kinds)

    @property
    def few(self) -> bool:
        """True if all notes are few and short enough for standard error."""
        short = all(len(text) <= _LONGEST_LINE for text in self._kinds)
        return len(self._kinds) <= _MOST_LINES and short

    def lines(self, file: str | None) -> list[str]:
        """Three lines at most: the notes where they are few and short, else how many of each kind.

        Args:
            file: file that gets all of them; None: nowhere.
        """
        if self.few:
            return self.texts
        of_runs, others = self._count(_OF_RUNS), self._count(_OTHERS)
        message = f"directories left out or not complete: {of_runs}" if of_runs else ""
        return list(filter(None, (message, others, f"each is told in {file}" if file is not None else "")))

    def _count(self, words: Mapping[str, str]) -> str:
        counts = Counter(self._kinds.values())
        return ", ".join(f"{counts[kind]} {noun}" for kind, noun in words.items() if counts[kind])

    def content(self) -> bytes:
        """All of them as a text file, a line each."""
        return "".join(f"{text}\n" for text in self._kinds).encode("utf-8", "backslashreplace")
