"""What a `_target_` makes is known before it is called, wherever it stands."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from fedsplit.config.component import check_kind, is_class
from fedsplit.config.values import PositiveFloat, PositiveInt
from fedsplit.errors import UserError

HERE = __name__
called: list[object] = []


class Net(nn.Module):
    def __init__(
        self,
        norm: nn.Module | None = None,
        layer: Callable[..., nn.Module] | None = None,
        layers: list[nn.Module] | None = None,
        anything: Any = None,
        unsaid=None,  # type: ignore[no-untyped-def]
    ) -> None:
        super().__init__()
        called.append(self)


class Wide(nn.Module):
    def __init__(self, *, width: PositiveInt, rates: list[PositiveFloat] | None = None) -> None:
        super().__init__()
        called.append(width)


def net() -> Net:
    called.append("net")
    return Net()


def either(other: bool) -> nn.Linear | nn.Conv2d:
    called.append(other)
    return nn.Linear(1, 1)


def unsaid():  # type: ignore[no-untyped-def]
    called.append("unsaid")


def anything() -> Any:
    called.append("anything")


def maybe_text() -> nn.Module | str:
    called.append("text")
    return ""


def node(target: str, **arguments: object) -> dict[str, object]:
    return {"_target_": target, **arguments}


@pytest.mark.parametrize(
    "target",
    [f"{HERE}.Net", f"{HERE}.net", f"{HERE}.either", "torchvision.models.resnet18", "torch.nn.Identity"],
)
def test_class_of_the_kind_and_a_function_that_returns_one_are_taken_uncalled(target: str) -> None:
    called.clear()
    check_kind("model", node(target), nn.Module)
    assert not called


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "os.getcwd",
        "shutil.rmtree",
        "builtins.exec",
        "builtins.dict",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "torch.jit.load",
        "torch.utils.collect_env.run",
        "torch.utils.cpp_extension.load_inline",
        "numpy.load",
        "pickle.loads",
        "runpy.run_path",
        "os.path",
        "nowhere.Net",
        "os.",
        "",
        *(f"{HERE}.{name}" for name in ("unsaid", "anything", "maybe_text", "called", "missing")),
    ],
)
def test_what_makes_something_else_or_does_not_say_so_is_refused_uncalled(target: str) -> None:
    called.clear()
    with pytest.raises(UserError) as caught:
        check_kind("model", node(target), nn.Module)
    assert caught.value.key == "model._target_"
    assert "\n" not in str(caught.value)
    assert not called


@pytest.mark.parametrize(
    "arguments",
    [
        {"norm": node("torch.nn.Identity")},
        {"norm": node(f"{HERE}.Net", norm=node("torch.nn.Identity"))},
        {"layer": node("torch.nn.Identity", _partial_=True)},
        {"layers": [node("torch.nn.Identity"), node("torch.nn.ReLU")]},
        {"anything": {"plain": [1, 2]}},
        {"anything": node("os.system"), "_recursive_": False},
    ],
    ids=str,
)
def test_what_an_argument_takes_by_its_annotation_may_be_made_for_it(arguments: dict[str, object]) -> None:
    check_kind("model", node(f"{HERE}.Net", **arguments), nn.Module)


@pytest.mark.parametrize(
    "arguments",
    [
        {"norm": node("os.system", command="true")},
        {"norm": node(f"{HERE}.Net", norm=node("os.getcwd"))},
        {"norm": node("torch.nn.Identity", _partial_=True)},
        {"layer": node("torch.nn.Identity")},
        {"layer": node("os.getcwd", _partial_=True)},
        {"layers": [node("torch.nn.Identity"), node("os.getcwd")]},
        {"anything": node("torch.nn.Identity")},
        {"unsaid": node("torch.nn.Identity")},
        {"anything": {"deep": [{"deeper": node("os.getcwd")}]}},
        {"_args_": [node("os.getcwd")]},
        {"norm": node(3)},  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_what_an_argument_does_not_ask_for_is_refused_uncalled(arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"model\.\w+.*_target_"):
        check_kind("model", node(f"{HERE}.Net", **arguments), nn.Module)


def test_value_that_the_annotation_of_a_class_of_the_users_does_not_allow_is_refused_uncalled() -> None:
    check_kind("model", node(f"{HERE}.Wide", width=8, rates=[1, 0.5]), nn.Module)
    check_kind("model", node(f"{HERE}.Wide", width=8, rates=None), nn.Module)
    with pytest.raises(UserError, match=r"^model\.width=-1: must be a whole number greater than 0$"):
        check_kind("model", node(f"{HERE}.Wide", width=-1), nn.Module)
    with pytest.raises(
        UserError, match=r"^model\.rates=\[1, 0\]: must be a list, each a number greater than 0"
    ):
        check_kind("model", node(f"{HERE}.Wide", width=8, rates=[1, 0]), nn.Module)
    assert not called


def test_whether_a_path_names_a_class_is_told_also_of_what_is_none() -> None:
    assert is_class("k", f"{HERE}.Net", nn.Module)
    assert not is_class("k", f"{HERE}.net", nn.Module)
    assert not is_class("k", "os.system", nn.Module)
