from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch

from fedsplit.files.form import Misfit, check_form, check_like


@dataclass(frozen=True)
class _Inner:
    a: float


@dataclass(frozen=True)
class _Outer:
    number: int
    sizes: dict[Literal["up", "down"], dict[str, int]]
    inner: _Inner | None
    names: list[str]


def _state() -> dict[str, Any]:
    return {"number": 1, "sizes": {"up": {}, "down": {"a": 2}}, "inner": {"a": 1}, "names": ["x"]}


def test_form_that_is_right_down_to_its_leaves_is_taken() -> None:
    check_form(_state(), _Outer, "it")
    check_form(_state() | {"inner": None, "names": []}, _Outer, "it")
    check_form(float("nan"), float | None, "it")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"number": 1.0}, "it.number must be a whole number"),
        ({"number": True}, "it.number must be a whole number"),
        ({"number": None}, "it.number must be a whole number"),
        ({"sizes": {"up": {}}}, "it.sizes must have down"),
        ({"sizes": {"up": {}, "down": {}, "left": {}}}, "it.sizes must not have left"),
        ({"sizes": {"up": {}, "down": {"a": "2"}}}, "it.sizes.down.a must be a whole number"),
        ({"sizes": []}, "it.sizes must hold keys and values"),
        ({"inner": {}}, "it.inner must have a"),
        ({"inner": {"a": "1"}}, "it.inner.a must be a number"),
        ({"inner": {"a": 1, "b": 2}}, "it.inner must not have b"),
        ({"names": "x"}, "it.names must be a list"),
        ({"names": ["x", 1]}, "it.names.1 must be a text"),
        ({"more": 1}, "it must not have more"),
    ],
)
def test_form_that_is_wrong_is_told_by_its_place(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Misfit) as caught:
        check_form(_state() | change, _Outer, "it")
    assert (str(caught.value), caught.value.in_tensors) == (told, False)


LIKE = {"w": {"a": torch.zeros(2, 3)}, "slots": {}, "last": None, "seconds": 0.0, "rounds": [1]}


def _like() -> dict[str, Any]:
    return {"w": {"a": torch.ones(2, 3)}, "slots": {"x": 1}, "last": 3, "seconds": 1, "rounds": []}


def test_state_like_another_is_taken_whatever_its_values() -> None:
    check_like(_like(), LIKE, "it")


@pytest.mark.parametrize(
    ("change", "told", "in_tensors"),
    [
        ({"w": {"a": torch.ones(3, 2)}}, "it.w.a must be a tensor of shape (2, 3) and type float32", True),
        (
            {"w": {"a": torch.ones(2, 3).double()}},
            "it.w.a must be a tensor of shape (2, 3) and type float32",
            True,
        ),
        ({"w": {"a": 3}}, "it.w.a must be a tensor of shape (2, 3) and type float32", True),
        ({"w": {}}, "it.w must have a", True),
        ({"w": {"a": torch.ones(2, 3), "b": torch.ones(1)}}, "it.w must not have b", True),
        ({"w": None}, "it.w must hold keys and values", True),
        ({"slots": 3}, "it.slots must hold keys and values", False),
        ({"seconds": "1"}, "it.seconds must be a number", False),
        ({"rounds": 3}, "it.rounds must be a list", False),
        ({"more": 3}, "it must not have more", False),
    ],
)
def test_state_of_another_form_is_told_by_its_place(
    change: dict[str, Any], told: str, in_tensors: bool
) -> None:
    with pytest.raises(Misfit) as caught:
        check_like(_like() | change, LIKE, "it")
    assert (str(caught.value), caught.value.in_tensors) == (told, in_tensors)
