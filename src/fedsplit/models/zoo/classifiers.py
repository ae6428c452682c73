"""torchvision's classifiers, by their names."""

from difflib import get_close_matches

from torch import nn

from fedsplit.errors import UserError
from fedsplit.machine.torchvision_operators import torchvision

_WITHOUT_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def classifier(*, name: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """An untrained classifier of `torchvision.models`; logits. `image_size` is free, if not too small for it.

    With other than three channels, the first convolution takes as many, and begins as its like would.

    Args:
        name: name as `torchvision.models.list_models` has it.

    Raises:
        UserError: there is no such classifier.
    """
    models = torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        close = ", ".join(get_close_matches(name, known, 3, 0.5) or sorted(known))
        raise UserError("model.name", name, f"must be a classifier of torchvision; similar names are {close}")
    extra: dict[str, object] = {}
    if name in _WITHOUT_AUXILIARY_HEADS:
        extra = {"aux_logits": False, "init_weights": True}
    if name.startswith(("vit_", "maxvit")):
        extra = {"image_size": image_size} if name.startswith("vit_") else {"input_size": (image_size,) * 2}
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **extra)
    if channels != 3:
        _take_channels(network, channels)
    return network


def _take_channels(network: nn.Module, channels: int) -> None:
    """Let the first convolution take so many channels, its weights drawn as they were."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    replaced = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    if not first.weight.is_meta:  # a model that is only counted has no weights
        deviation = float(first.weight.detach().std()) * (first.in_channels / channels) ** 0.5
        nn.init.normal_(replaced.weight, std=deviation)
    if replaced.bias is not None:
        nn.init.zeros_(replaced.bias)
    owner, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(owner), attribute, replaced)
