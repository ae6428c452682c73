"""Adapters of PEFT whose layers share state."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fedsplit.models.adapters.adapter import Adapter
from fedsplit.models.zoo.language_models import transformers
from fedsplit.state.weights import Weights


class Sharing(Adapter):
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
