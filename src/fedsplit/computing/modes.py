"""Training and evaluation: which parts of a module are in which, as its own `train` decides."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from torch import nn

from fedsplit.errors import UserError

Modes: TypeAlias = Mapping[bool, Mapping[str, bool]]
"""Parts of a module that are in another mode than itself while it trains (True) or is evaluated (False), by
name, with the mode that they are in. Empty for modules whose `train` is PyTorch's."""


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Train or evaluate a module for a while; every part's mode is then as before."""
    before = [(each, each.training) for each in module.modules()]
    try:
        if training:
            module.train()
        else:
            module.eval()
        yield
    finally:
        for each, mode in before:
            each.training = mode


def modes_of(module: nn.Module) -> Modes:
    """Training modes that the module's own `train` gives to its parts.

    Raises:
        UserError: it does more: what the module holds, or which parameters learn, is not the same in both.
    """
    modes: dict[bool, dict[str, bool]] = {}
    held: list[dict[str, object]] = []
    for mode in (True, False):
        with in_mode(module, mode):
            parts = dict(module.named_modules())
            modes[mode] = {name: part.training for name, part in parts.items() if part.training != mode}
            learns = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
            held.append({**dict.fromkeys(parts), **dict.fromkeys(module.state_dict()), **learns})
    if held[0] != held[1]:
        names = sorted(name for name in held[0] | held[1] if held[0].get(name, "") != held[1].get(name, ""))
        message = f"its train() changes more than modes ({', '.join(names[:3])}): that would be lost"
        raise UserError("model", type(module).__name__, message)
    return modes
