"""What algorithms say of themselves, known before anything heavy is imported."""

from dataclasses import dataclass
from math import inf

from fedsplit.config.choices import canonical, names_of, target_of
from fedsplit.config.signature import class_literals


@dataclass(frozen=True)
class AlgorithmTraits:
    """Class attributes of `fedsplit.algorithms.algorithm.Algorithm`, which says what each means."""

    label: str | None
    place: int | None


def algorithm_traits() -> dict[str, AlgorithmTraits]:
    """Of all algorithms that can be chosen, by name: in the order of their places, then of their names.

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
