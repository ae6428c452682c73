"""State as a checkpoint holds it: a tree of tensors and plain values."""

from typing import Any, TypeAlias

from torch import Tensor

from fedsplit.state.settled import SettledTensors

State: TypeAlias = dict[str, Any]
"""Nested by text keys without "/"; leaves are tensors, numbers, texts, booleans, None or lists of these.

A dictionary may be `Settled` or `ByClient`.
"""


def copy_state(state: State) -> State:
    """Copy a tree, with tensors of its own, which nobody moves; settled ones are shared."""

    def copy(value: object) -> object:
        if isinstance(value, SettledTensors):
            return value
        if isinstance(value, dict):
            return {key: copy(each) for key, each in value.items()}
        return value.detach().clone() if isinstance(value, Tensor) else value

    return {key: copy(value) for key, value in state.items()}
