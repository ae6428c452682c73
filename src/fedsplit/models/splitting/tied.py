"""Parameters that go by several names, such as weights that an embedding and a last layer share."""

from itertools import chain

from torch import nn

from fedsplit.computing.hooks import copy_hooks, copy_with_hooks


def tied_groups(module: nn.Module) -> list[list[str]]:
    """Names of parameters and buffers that are one and the same, each group in the order of the module.

    Parameters that do not learn may be one: they never change, and are not sent.
    """
    names: dict[int, list[str]] = {}
    every = (module.named_parameters, module.named_buffers)
    for name, tensor in chain.from_iterable(each(remove_duplicate=False) for each in every):
        if tensor.requires_grad or not isinstance(tensor, nn.Parameter):
            names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def copy_without_ties(module: nn.Module) -> nn.Module:
    """Copy a module so that each name has a tensor of its own; all start from the same values."""
    module = copy_with_hooks(module)
    seen: set[int] = set()
    for name, part in list(module.named_modules(remove_duplicate=False)):
        if id(part) in seen and part.state_dict():
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, copy_with_hooks(part))
        seen.add(id(part))
    for name in chain.from_iterable(group[1:] for group in tied_groups(module)):
        owner, _, attribute = name.rpartition(".")
        holder = module.get_submodule(owner)
        original = getattr(holder, attribute)
        own = original.detach().clone()
        if isinstance(original, nn.Parameter):
            own = nn.Parameter(own, requires_grad=original.requires_grad)
            copy_hooks(original, own)
        setattr(holder, attribute, own)
    return module
