from fedsplit.reports.notes import Notes


def test_few_notes_are_said_as_they_are_and_once() -> None:
    notes = Notes()
    for text in ("one", "two", "one"):
        notes.add("damaged", text)
    assert notes.few
    assert notes.lines("notes-on-figures.txt") == notes.texts == ["one", "two"]


def test_many_or_long_notes_are_counted_in_three_lines_and_all_in_a_file() -> None:
    notes = Notes()
    for i in range(20):
        notes.add("repeated" if i % 2 else "unfinished", f"run {i}")
        notes.add("missing", f"command {i}")
    notes.add("empty", "no run")
    assert notes.lines("notes-on-figures.txt") == [
        "directories left out or not complete: 10 repeated, 10 not at their end",
        "1 places and experiments without a run, 20 commands for runs that are expected",
        "each is told in notes-on-figures.txt",
    ]
    assert len(notes.lines(None)) == 2
    assert notes.content().decode().splitlines() == notes.texts
    long = Notes()
    long.add("crowded", "x" * 301)
    assert not long.few
