"""Language of docstrings: each can be understood alone, as `help()` shows it."""

import ast
from pathlib import Path

import fedsplit

FRAGMENTS = {"Of", "By", "At", "What", "Whether"}
"""First words of docstrings that need what stands before them."""
SHORTEST = 5
"""Words of a docstring."""


def test_every_docstring_is_a_phrase_that_stands_alone() -> None:
    house = Path(fedsplit.__file__).parent
    fragments = [
        f"{path.relative_to(house)}:{node.body[0].lineno}: {text.splitlines()[0]}"
        for path in sorted(house.rglob("*.py"))
        if not path.name.startswith("federation_pb2")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node))
        if len(text.split()) < SHORTEST or text.split()[0].rstrip(",") in FRAGMENTS
    ]
    assert fragments == []
