"""Language of docstrings: each can be understood alone, as `help()` shows it."""

import ast
import re
from collections.abc import Iterator, Set
from itertools import pairwise
from pathlib import Path

import pytest

import fedsplit

REPOSITORY = Path(__file__).parents[1]
SHORTEST = 5
"""Fewest words of a docstring."""
FRAGMENTS = {"Of", "By", "At", "What", "Whether"}
"""First words of docstrings that need what stands before them."""
CLAUSES = {
    *("That", "Which", "Who", "Whose", "Where", "When", "While", "Until", "How", "Why", "If", "As", "So"),
    *("For", "From", "In", "On", "Over", "Per", "To", "With", "Once", "After", "Before", "Its", "Those"),
}
"""First words of clauses, which may be titles of modules, but do not name what a class or function is."""

SECTIONS = ("Args:", "Attributes:", "Returns:")
"""Headings of the parts of a docstring that say what arguments and values are."""
CLAUSES_OF_ARGUMENTS = FRAGMENTS | {"How", "That", "Where", "Which", "Who", "Whom", "Whose", "When"}
"""First words of what is said of an argument that leave out the noun that it is."""
ENTRY = re.compile(r"\*{0,2}\w+(?:, \*{0,2}\w+)*: (.*)")
"""Name of an argument, or of several, and what is said of it."""


def is_fragment(text: str, fragments: Set[str] = FRAGMENTS) -> bool:
    """True if a text needs its neighbours to be understood."""
    words = text.split()
    return len(words) < SHORTEST or words[0].rstrip(",") in fragments


def fragments_of_docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings of a module, its classes and functions that do not stand alone, with their lines."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        fragments = FRAGMENTS if isinstance(node, ast.Module) else FRAGMENTS | CLAUSES
        if (text := ast.get_docstring(node)) and is_fragment(text, fragments):
            yield node.body[0].lineno, text


def fragments_of_notes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Texts below assignments, which say what a constant or field is, that do not stand alone."""
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        for above, below in pairwise(body if isinstance(body, list) else []):
            match above, below:
                case ast.Assign() | ast.AnnAssign(), ast.Expr(ast.Constant(str(text))) if is_fragment(text):
                    yield below.lineno, text.strip()


def fragments_of_arguments(text: str) -> Iterator[str]:
    """Lines in the sections of a docstring that begin without the noun that they are about."""
    section, indent = "", 0
    for line in text.splitlines():
        content, depth = line.strip(), len(line) - len(line.lstrip())
        if content in SECTIONS:
            section, indent = content, depth + 4
        elif content and depth < indent:
            section = ""
        elif content and section and depth == indent:
            entry = ENTRY.fullmatch(content)
            words = (entry.group(1) if entry and section != "Returns:" else content).split()
            if words[0].rstrip(",:;").capitalize() in CLAUSES_OF_ARGUMENTS:
                yield content


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings of a module, its classes and functions, with their lines."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if text := ast.get_docstring(node):
            yield node.body[0].lineno, text


def test_every_docstring_is_a_phrase_that_stands_alone() -> None:
    house = Path(fedsplit.__file__).parent
    assert [
        f"{path.relative_to(house)}:{line}: {text.splitlines()[0]}"
        for path in sorted(house.rglob("*.py"))
        if not path.name.startswith("federation_pb2")
        for line, text in fragments_of_docstrings(ast.parse(path.read_text("utf-8")))
    ] == []


def test_every_note_below_a_constant_or_field_is_a_phrase_that_stands_alone() -> None:
    assert [
        f"{path.relative_to(REPOSITORY)}:{line}: {text.splitlines()[0]}"
        for folder in ("src", "benchmarks", "docs", "examples", "tests")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for line, text in fragments_of_notes(ast.parse(path.read_text("utf-8")))
    ] == []


def test_every_argument_and_attribute_is_said_to_be_a_noun() -> None:
    house = Path(fedsplit.__file__).parent
    assert [
        f"{path.relative_to(house)}:{line}: {entry}"
        for path in sorted(house.rglob("*.py"))
        for line, text in docstrings(ast.parse(path.read_text("utf-8")))
        for entry in fragments_of_arguments(text)
    ] == []


def test_no_docstring_begins_by_sending_the_reader_elsewhere() -> None:
    """`@override` marks what fulfils an interface; what is special of it is a sentence of its own."""
    house = Path(fedsplit.__file__).parent
    assert [
        f"{path.relative_to(house)}:{line}: {text.splitlines()[0]}"
        for path in sorted(house.rglob("*.py"))
        for line, text in docstrings(ast.parse(path.read_text("utf-8")))
        if text.startswith("See ")
    ] == []


@pytest.mark.parametrize(
    "line",
    [
        "lr: of the optimizer.",
        "device: where models are.",
        "apart: whether clients are apart.",
        "a, *b: by name.",
    ],
)
def test_line_without_the_noun_is_found(line: str) -> None:
    arguments = f"    rounds: number of rounds.\n    {line}\n        of its second line no noun is asked."
    text = f"Train.\n\nArgs:\n{arguments}\n"
    assert list(fragments_of_arguments(text)) == [line]
