"""Labels of runs: what tells them apart from those they are drawn with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fedsplit.config.dotted_keys import below

if TYPE_CHECKING:
    from fedsplit.reports.runs import Run

_NAMED_BY_CHOICE = {"algorithm", "model", "dataset", "distribution"}
"""Groups whose choices speak for themselves: `iid`, but `quant=none`."""


def label_runs(runs: Sequence["Run"], by: str = "algorithm", apart: Sequence[str] = ()) -> list["Run"]:
    """Label runs by what differs among them, beginning with the key `by`.

    A key is compared only among the runs that chose the option it belongs to: one Dirichlet distribution
    beside an IID one needs no alpha in its label. What differs at or below the keys `apart` is not told.
    """
    names: dict[tuple[object, ...], str] = {}  # options of a group with the same content are one
    chosen: list[dict[str, str]] = []
    for run in runs:
        chosen.append({p: names.setdefault((p, *run.inside(p).items()), c) for p, c in run.choices.items()})
    described = [{**run.settings, **choices} for run, choices in zip(runs, chosen, strict=True)]
    first = (by, by.rpartition(".")[0])  # a key, and the choice that it belongs to
    keys = sorted(
        {key for values in described for key in values if key not in first and not below(key, apart)}
    )
    pieces = [[first_piece(run, by)] for run in runs]
    for key in keys:
        scopes = [_scope(key, choices) for choices in chosen]
        found: dict[tuple[str, ...], set[str | None]] = {}
        for scope, values in zip(scopes, described, strict=True):
            found.setdefault(scope, set()).add(values.get(key))
        for scope, values, own in zip(scopes, described, pieces, strict=True):
            if key in values and len(found[scope]) > 1:
                own.append(_piece(key, values[key], keys))
    return [replace(run, label=", ".join(own)) for run, own in zip(runs, pieces, strict=True)]


def first_piece(run: "Run", by: str) -> str:
    """First piece of a run's label: the value of `by`, or the choice of its group."""
    group = by.partition(".")[0]
    for key in (by, group):
        if key in run.choices:
            return _piece(key, run.choices[key], (key,))
        if named := run.names_at(key):
            return _piece(key, named[-1], (key,))
    return f"no {by}"


def _piece(key: str, value: str, keys: Sequence[str]) -> str:
    return value if key in _NAMED_BY_CHOICE else f"{_short(key, keys)}={value}"


def _scope(key: str, choices: Mapping[str, str]) -> tuple[str, ...]:
    """The choices that two runs must share for `key` to mean the same in both."""
    if key.endswith("_target_"):  # may follow from another group: the auxiliary model from the model
        return tuple(choices.values())
    if key == "engine":  # follows from the algorithm and the model, where it is left to `auto`
        return tuple(choice for place, choice in choices.items() if place != key)
    places = [place for place in choices if key.startswith(f"{place}.")]
    return (choices[max(places, key=len)],) if places else ()


def _short(key: str, keys: Sequence[str]) -> str:
    """The shortest end of a dotted key that belongs to no other key."""
    parts = key.split(".")
    ends = [".".join(parts[i:]) for i in reversed(range(len(parts)))]
    return next((e for e in ends if sum(f".{k}".endswith(f".{e}") for k in keys) == 1), key)
