"""Hooks of modules and of parameters: code of the user's that runs in the passes of a model."""

import copy

from torch import Tensor, nn

from fedsplit.errors import UserError, first_line


def has_hooks(module: nn.Module) -> bool:
    """True if the module has hooks of its own that run before, in or after its passes."""
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )


def describe_hook(module: nn.Module) -> str | None:
    """Describe the first hook of a module, its parts and its parameters; None where there are none."""
    for name, part in module.named_modules():
        if has_hooks(part):
            return f"{name or 'the module itself'} has hooks"
    for name, parameter in module.named_parameters():
        if parameter._backward_hooks and parameter.requires_grad:
            return f"{name} has hooks"
    return None


def refuse_lost_hooks_and_parts(module: nn.Module) -> None:
    """Refuse a model with something that neither its halves nor what parties hold of them can have.

    Raises:
        UserError: names it.
    """
    whose = type(module).__name__
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError("model", whose, "nothing in it learns: no parameter has requires_grad=True")
    if has_hooks(module):
        message = "hooks of the whole model would be lost when it is cut; register them on its parts"
        raise UserError("model", whose, message)
    for name, kept in module.state_dict().items():
        if not isinstance(kept, Tensor):
            raise UserError("model", whose, f"its state dict holds {name}, which is no tensor")
    refuse_lost_hooks("model", whose, module)


def refuse_lost_hooks(key: str, value: str, module: nn.Module) -> None:
    """Refuse parameters with hooks that run after a gradient was added to `grad`, which is never done here.

    Args:
        key: key of the configuration that names the module.
        value: value of that key.

    Raises:
        UserError: names the first such parameter.
    """
    for name, parameter in module.named_parameters():
        if parameter._post_accumulate_grad_hooks:
            message = f"{name} has a hook on its accumulated gradient, which would not run; use register_hook"
            raise UserError(key, value, message)


def copy_hooks(parameter: Tensor, to: Tensor) -> None:
    """Let the hooks of a parameter run on another one's gradient too, where that one learns."""
    if to.requires_grad:
        for hook in (parameter._backward_hooks or {}).values():
            to.register_hook(hook)  # type: ignore[no-untyped-call]


def copy_with_hooks(module: nn.Module) -> nn.Module:
    """Copy a module deeply, with the hooks of its parameters, which Python's own copy loses.

    Raises:
        UserError: it cannot be copied; says why.
    """
    try:
        made = copy.deepcopy(module)
    except Exception as error:  # whatever something that a user's module holds raises
        message = f"cannot be deep-copied ({type(error).__name__}: {first_line(error)})"
        raise UserError("model", type(module).__name__, message) from error
    copies = dict(made.named_parameters())
    for name, parameter in module.named_parameters():
        copy_hooks(parameter, copies[name])
    return made
