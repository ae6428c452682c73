"""Group normalisation in the place of batch normalisation, for samples that must not depend on each other."""

from torch import nn

_MOST_GROUPS, _FEWEST_CHANNELS = 32, 4
"""Most groups of a layer, and fewest channels of a group: one channel with one value would become zero."""


def replace_batch_norms(module: nn.Module) -> nn.Module:
    """The model with a group normalisation, newly initialised, in each place of a batch normalisation.

    Names stay. A layer has as many groups as divide its channels, up to 32, of four channels or more.

    Source: Y. Wu and K. He, "Group Normalization", 2018 (arXiv 1803.08494).

    Raises:
        ValueError: it has none.
    """
    found = {
        name: each
        for name, each in module.named_modules()
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    }
    if not found:
        raise ValueError("has no batch normalisation")
    for name, each in found.items():
        most = max(1, min(_MOST_GROUPS, each.num_features // _FEWEST_CHANNELS))
        groups = next(n for n in range(most, 0, -1) if each.num_features % n == 0)
        new = nn.GroupNorm(groups, each.num_features, eps=each.eps, affine=each.affine)
        if name == "":
            return new
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, new)
    return module
