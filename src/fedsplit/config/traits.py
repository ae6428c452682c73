"""Traits of tasks and algorithms, known before anything heavy is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from math import inf

from fedsplit.config.choices import canonical, names_of, target_of
from fedsplit.config.signature import class_literals

_TASK = "fedsplit.tasks.task.Task"


@dataclass(frozen=True)
class TaskTraits:
    """The class attributes of `fedsplit.tasks.task.Task`, which says what each means."""

    beside: tuple[str, ...] | None
    models_of_run: str
    swept: bool
    gathered: str | None
    joins: bool
    deploys: bool
    counts_rounds: bool
    announces: str


def task_traits(config: Mapping[str, object]) -> TaskTraits:
    """Traits of the task of a configuration; the default ones where its source cannot be found."""
    task = config.get("task")
    target = task.get("_target_") if isinstance(task, Mapping) else None
    return traits_of(target if isinstance(target, str) else _TASK)


def traits_of_choice(task: str) -> TaskTraits:
    """Traits of a choice of the `task` group."""
    return traits_of(target_of("task", task) or _TASK)


@lru_cache
def traits_of(target: str) -> TaskTraits:
    """Traits of the task at a dotted path."""
    known = class_literals(_TASK) | class_literals(target)
    return TaskTraits(**{field.name: known[field.name] for field in fields(TaskTraits)})


@dataclass(frozen=True)
class AlgorithmTraits:
    """Class attributes of `fedsplit.algorithms.algorithm.Algorithm`, which says what each means."""

    label: str | None
    place: int | None


def algorithm_traits() -> dict[str, AlgorithmTraits]:
    """Traits of all algorithms that can be chosen, by name, in the order of places and names.

    Other names of an algorithm are left out. Of several choices of one class, only that with the name of its
    module has what the class says.
    """
    found = {}
    for name in names_of("algorithm"):
        if canonical("algorithm", name) != name:
            continue
        target = target_of("algorithm", name) or ""
        own = class_literals(target, inherited=False) if target.split(".")[-2:-1] == [name] else {}
        found[name] = AlgorithmTraits(own.get("label"), own.get("place"))
    places = {name: inf if each.place is None else each.place for name, each in found.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: (places[name], name))}
