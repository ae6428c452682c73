"""What plug-ins say of themselves is read from their source as Python has it once they are imported."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.config.choices import names_of, target_of, user_choices
from fedsplit.config.traits import TaskTraits, algorithm_traits, task_traits, traits_of_choice
from fedsplit.deployment.precisions import Precision, readers
from fedsplit.errors import UserError
from fedsplit.tasks.task import Task
from tests.configurations import configuration

OWN_TASK = """
raise SystemExit("imported")
from fedsplit.tasks.task import Task

class Base(Task):
    swept = False
    beside = ("task", "seed")

class Mine(Base):
    models_of_run: str = "needed"
    announces = "{task} of mine"
"""


def class_of(group: str, choice: str) -> Any:
    module, _, name = str(target_of(group, choice)).rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("name", names_of("task"))
def test_traits_of_a_task_are_the_attributes_of_its_class(name: str) -> None:
    found = traits_of_choice(name)
    assert {each.name: getattr(found, each.name) for each in fields(TaskTraits)} == {
        each.name: getattr(class_of("task", name), each.name) for each in fields(TaskTraits)
    }


def test_traits_of_a_task_of_ones_own_are_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks_of_mine.py").write_text(OWN_TASK)
    monkeypatch.syspath_prepend(tmp_path)
    found = task_traits({"task": {"_target_": "tasks_of_mine.Mine"}})
    assert (found.swept, found.beside, found.models_of_run) == (False, ("task", "seed"), "needed")
    assert (found.announces, found.joins, found.deploys) == ("{task} of mine", Task.joins, Task.deploys)
    unknown = task_traits({"task": {"_target_": "nowhere.Mine"}})
    assert {each.name: getattr(unknown, each.name) for each in fields(TaskTraits)} == {
        each.name: getattr(Task, each.name) for each in fields(TaskTraits)
    }


def test_algorithms_stand_at_their_places_and_others_behind_them() -> None:
    found = algorithm_traits()
    placed = {name: each for name, each in found.items() if each.place is not None}
    assert list(found)[: len(placed)] == list(placed)
    places = [each.place for each in placed.values() if each.place is not None]
    assert places == sorted(set(places))  # each has one of its own
    for name, each in placed.items():
        algorithm = class_of("algorithm", name)
        assert issubclass(algorithm, Algorithm)
        assert (algorithm.label, algorithm.place) == (each.label, each.place)
    classes = [class_of("algorithm", name) for name in names_of("algorithm")]
    assert {class_of("algorithm", name) for name in found} == set(classes)


def test_choice_of_another_algorithms_class_has_neither_its_label_nor_its_place(tmp_path: Path) -> None:
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "a_fed_avg.yaml").write_text("_target_: fedsplit.algorithms.fed_avg.FedAvg\n")
    with user_choices(str(tmp_path)):
        found = algorithm_traits()
    assert (found["a_fed_avg"].label, found["a_fed_avg"].place) == (None, None)
    assert (found["fed_avg"].label, found["fed_avg"].place) == ("FedAvg", 0)


def test_precision_of_ones_own_is_allowed_and_read_where_its_file_is(tmp_path: Path) -> None:
    (tmp_path / "deployment").mkdir()
    file = tmp_path / "deployment" / "mine.yaml"
    backend = "{_target_: fedsplit.deployment.backends.floats.FloatBackend, dtype: float16}"
    file.write_text(f"runtime: mine\nformat: my_form\nreader: my_package.Mine\nbackend: {backend}\n")
    with pytest.raises(UserError, match="precision=mine: must be one of bf16, "):
        configuration("task=infer", "precision=[mine]")
    with user_choices(str(tmp_path)):
        assert readers()["my_form"] == "my_package.Mine"
        made = Precision.by_name("mine").make_backend("precision", "mine")
        assert type(made).__name__ == "FloatBackend"
        file.with_name("damaged.yaml").write_text("runtime: mine\n")
        with pytest.raises(UserError, match="deployment=damaged: its file must hold"):
            Precision.by_name("damaged")
    assert "my_form" not in readers()
