"""The source as a house: rooms in an order, with imports that go down only, and nothing loose at the top."""

import ast
from collections.abc import Iterator
from pathlib import Path

import fedsplit

HOUSE = Path(fedsplit.__file__).parent
ROOMS = (
    *(
        "cli",
        "sweeps",
        "tasks",
        "training",
        "reports",
        "trackers",
        "inference",
        "deployment",
        "generation",
        "building",
    ),
    *(
        "transport",
        "cluster",
        "algorithms",
        "network",
        "parties",
        "estimators",
        "recording",
        "privacy",
        "data",
        "models",
    ),
    *("objectives", "computing", "quant", "optim", "config", "processes", "files", "machine", "state"),
    *("randomness", "errors"),
)
"""Rooms from top to bottom: each imports from those after it."""
LOOSE = {"__init__.py", "__main__.py", "randomness.py", "errors.py"}
GENERATED = ("federation_pb2.py", "federation_pb2_grpc.py")


def modules() -> list[Path]:
    return [path for path in sorted(HOUSE.rglob("*.py")) if path.name not in GENERATED]


def imported(path: Path) -> Iterator[str]:
    """Rooms that a module imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [each.name for each in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        yield from (name.split(".")[1] for name in names if name.startswith("fedsplit."))


def test_rooms_are_the_folders_and_nothing_is_loose_beside_them() -> None:
    folders = {path.name for path in HOUSE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders == {room for room in ROOMS if room not in ("randomness", "errors")}
    assert len(folders) <= 29
    assert {path.name for path in HOUSE.glob("*.py")} <= LOOSE


def test_rooms_import_from_rooms_below_alone() -> None:
    up = [
        f"{path.relative_to(HOUSE)} imports {room}"
        for path in modules()
        if (own := path.relative_to(HOUSE).parts[0].removesuffix(".py")) in ROOMS
        for room in imported(path)
        if ROOMS.index(room) < ROOMS.index(own)
    ]
    assert up == []


def test_modules_are_named_in_strings_of_the_configuration_alone() -> None:
    known = {".".join(path.relative_to(HOUSE.parent).with_suffix("").parts) for path in modules()}
    named = [
        f"{path.relative_to(HOUSE)}:{node.lineno} names {node.value}"
        for path in modules()
        if path.relative_to(HOUSE).parts[0] != "config"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value in known or node.value.rpartition(".")[0] in known
    ]
    assert named == []


def test_no_module_is_longer_than_350_lines_and_half_are_no_longer_than_80() -> None:
    lengths = {path.relative_to(HOUSE): len(path.read_text().splitlines()) for path in modules()}
    assert {path: length for path, length in lengths.items() if length > 350} == {}
    assert sorted(lengths.values())[len(lengths) // 2] <= 80
