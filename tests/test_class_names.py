"""A public class has a name of its own: whoever reads it need not ask which room is meant."""

import ast
from collections import defaultdict
from pathlib import Path


def test_public_classes_of_the_package_have_different_names(root: Path) -> None:
    places = defaultdict(list)
    for file in sorted((root / "src/fedsplit").rglob("*.py")):
        if "_pb2" not in file.name:  # generated
            for node in ast.parse(file.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(str(file.relative_to(root)))
    assert len(places) > 200
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
