import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from fedsplit.config.signature import signature, unknown_target
from fedsplit.config.values import VOCABULARY, PositiveFloat, PositiveInt

CONFIGS = Path(__file__).resolve().parents[2] / "hydra_config"


def _targets_in(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("_target_", "auxiliary") and isinstance(value, str) and value.startswith("fedsplit."):
                yield value
            yield from _targets_in(value)


WITHOUT_ARGUMENTS_TO_CHECK = {"deployment", "experiment", "hydra"}
"""No part of a run's configuration, or made of other choices."""
BY_GROUP = {
    folder.name: {
        target
        for path in folder.glob("*.yaml")
        for target in _targets_in(yaml.safe_load(path.read_text("utf-8")))
    }
    for folder in CONFIGS.iterdir()
    if folder.is_dir() and folder.name not in WITHOUT_ARGUMENTS_TO_CHECK
}
TARGETS = sorted(set().union(*BY_GROUP.values()))


def _resolved(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def test_targets_are_found_in_every_group_that_names_classes() -> None:
    made_of_others = {"quant", "client_optimizer", "server_optimizer"}
    assert {group for group, targets in BY_GROUP.items() if not targets} == made_of_others


def test_signature_read_from_source_names_the_arguments_of_the_imported_object() -> None:
    for target in TARGETS:
        read = signature(target)
        assert read is not None, target
        assert set(read.annotations) == set(inspect.signature(_resolved(target)).parameters), target
        assert not read.open, target


def test_annotations_of_plain_types_read_from_source_are_those_python_evaluates() -> None:
    for target in TARGETS:
        _check_annotations(target)


def _check_annotations(target: str) -> None:
    found = _resolved(target)
    hints: dict[str, Any] = {}
    for each in reversed(found.__mro__) if isinstance(found, type) else [found]:
        function = each.__dict__.get("__init__") if isinstance(each, type) else each
        if function is not None and hasattr(function, "__annotations__"):
            hints |= get_type_hints(function, include_extras=True)
    read = signature(target)
    assert read is not None, target
    for name, annotation in read.annotations.items():
        if annotation is not None and name in hints:
            assert annotation == hints[name], (target, name)


def test_ranges_in_annotations_are_read_from_source() -> None:
    cosine, dirichlet = (
        signature("fedsplit.optim.schedules.Cosine"),
        signature("fedsplit.data.distributions.dirichlet.Dirichlet"),
    )
    assert cosine is not None
    assert dirichlet is not None
    assert cosine.annotations["period"] == PositiveInt == VOCABULARY["PositiveInt"]
    assert dirichlet.annotations["alpha"] == PositiveFloat


@pytest.mark.parametrize(
    ("target", "unknown"),
    [
        ("fedsplit.optim.schedules.Cosine", False),
        ("fedsplit.optim.schedules.Cosinus", True),
        ("fedsplit.no_such_module.Thing", True),
        ("fedsplit.optim.schedules.no_module.Thing", True),
        ("fedsplit", True),
        ("", False),
        ("somewhere.else.Thing", False),
    ],
)
def test_unknown_target_is_reported_only_inside_the_package(target: str, unknown: bool) -> None:
    assert unknown_target(target) is unknown
    if unknown or not target.startswith("fedsplit."):
        assert signature(target) is None


def test_signature_of_an_imported_name_is_that_of_its_definition() -> None:
    imported = signature("fedsplit.config.settings.Range")
    assert imported is not None
    assert imported == signature("fedsplit.config.values.Range")
    assert set(imported.annotations) == {"words", "accepts"}
