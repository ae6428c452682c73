"""Adapters whose layers share state."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fedsplit.models.adapters.adapter import Adapter
from fedsplit.models.zoo.language_models import transformers
from fedsplit.state.weights import Weights


class OfPeft(Adapter):
    """One of PEFT's, by the name of its configuration."""

    def __init__(self, *, name: str, keys: dict[str, Any]) -> None:
        self.name, self.keys = name, keys

    def inject(self, model: nn.Module) -> None:
        transformers()
        import peft  # noqa: PLC0415  (after torchvision was repaired)

        config = getattr(peft, self.name)(target_modules=["c_attn"], **self.keys)
        peft.inject_adapter_in_model(config, model, "default")

    def files(self, model: nn.Module, weights: Weights) -> Mapping[str, bytes]:
        return {}


class Added(nn.Module):
    """A layer and what is added to it."""

    def __init__(self, base_layer: nn.Module, added: nn.Module) -> None:
        super().__init__()
        self.base_layer, self.added = base_layer, added

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.base_layer(x) + self.added(x)
        return found


class OneForAll(Adapter):
    """One linear layer beside the attention of every block."""

    def inject(self, model: nn.Module) -> None:
        model.requires_grad_(False)
        added = nn.Linear(16, 48)
        for block in model.transformer.h:  # type: ignore[union-attr, operator]
            block.attn.c_attn = Added(block.attn.c_attn, added)

    def files(self, model: nn.Module, weights: Weights) -> Mapping[str, bytes]:
        return {}
