"""Language of docstrings: each can be understood alone, as `help()` shows it."""

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import fedsplit

FRAGMENTS = {"Of", "By", "At", "What", "Whether"}
"""First words of docstrings that need what stands before them."""
SHORTEST = 5
"""Fewest words of a docstring."""
REPOSITORY = Path(__file__).parents[1]


def texts_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings of a module, its classes and functions, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            text := ast.get_docstring(node)
        ):
            yield node.body[0].lineno, text


def notes_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Texts below assignments, which say what a constant or field is, with their lines."""
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        for above, below in pairwise(body if isinstance(body, list) else []):
            match above, below:
                case ast.Assign() | ast.AnnAssign(), ast.Expr(ast.Constant(str(text))):
                    yield below.lineno, text.strip()


def is_fragment(text: str) -> bool:
    """True if a text needs its neighbours to be understood."""
    words = text.split()
    return len(words) < SHORTEST or words[0].rstrip(",") in FRAGMENTS


def test_every_docstring_is_a_phrase_that_stands_alone() -> None:
    house = Path(fedsplit.__file__).parent
    fragments = [
        f"{path.relative_to(house)}:{line}: {text.splitlines()[0]}"
        for path in sorted(house.rglob("*.py"))
        if not path.name.startswith("federation_pb2")
        for line, text in texts_of(ast.parse(path.read_text("utf-8")))
        if is_fragment(text)
    ]
    assert fragments == []


def test_every_note_below_a_constant_or_field_is_a_phrase_that_stands_alone() -> None:
    fragments = [
        f"{path.relative_to(REPOSITORY)}:{line}: {text.splitlines()[0]}"
        for folder in ("src", "benchmarks", "docs", "examples", "tests")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for line, text in notes_of(ast.parse(path.read_text("utf-8")))
        if is_fragment(text)
    ]
    assert fragments == []
