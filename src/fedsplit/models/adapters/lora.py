"""LoRA: products of two thin matrices beside frozen linear layers."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save
from torch import nn
from typing_extensions import override

from fedsplit.config.values import BelowOne, PositiveInt
from fedsplit.errors import UserError, first_line
from fedsplit.machine.extras import extra
from fedsplit.machine.torchvision_operators import torchvision
from fedsplit.models.adapters.adapter import Adapter
from fedsplit.state.weights import Weights

_NAME = "default"
"""Name of the adapter in PEFT, which is part of its parameters' names in memory, but not in files."""


class Lora(Adapter):
    """Low-rank adapters by PEFT, of which only those learn, and parts that are new to the task.

    Source: E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021; with `freeze_a`:
    Y. Sun et al., "Improving LoRA in Privacy-preserving Federated Learning", 2024.

    Args:
        rank: rank of the products.
        alpha: their scale is `alpha / rank`.
        dropout: probability of dropout before them.
        targets: ends of the names of the layers; None takes PEFT's own table for the architecture.
        freeze_a: True to train only the second factors.
    """

    def __init__(
        self,
        *,
        rank: PositiveInt,
        alpha: PositiveInt,
        dropout: BelowOne,
        targets: list[str] | None,
        freeze_a: bool,
    ) -> None:
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        self.targets, self.freeze_a = targets, freeze_a

    @override
    def inject(self, model: nn.Module) -> None:
        torchvision()
        with extra("adapter", "lora"):
            import peft  # noqa: PLC0415
        config = peft.LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=self.targets
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # GPT-2's weights are transposed, as PEFT sees
                peft.inject_adapter_in_model(config, model, _NAME)
        except ValueError as error:
            message = (
                "PEFT has no table of this architecture: give ends of its linear layers' names, as [q, v]"
            )
            message = message if self.targets is None else first_line(error)
            raise UserError("adapter.targets", self.targets, message) from error
        beside = getattr(model, "learns_beside_adapters", ())
        for name, parameter in model.named_parameters():
            frozen = self.freeze_a and ".lora_A." in name
            learns = "lora_" in name or name.partition(".")[0] in beside
            parameter.requires_grad_(learns and not frozen)

    @override
    def files(self, model: nn.Module, weights: Weights) -> Mapping[str, bytes]:
        config: Any = model.peft_config[_NAME]  # type: ignore[index]
        beside = [name for name in getattr(model, "learns_beside_adapters", ()) if hasattr(model, name)]
        plain = {**config.to_dict(), "inference_mode": True, "modules_to_save": beside or None}
        plain = {key: sorted(each) if isinstance(each, set) else each for key, each in plain.items()}
        learned = {
            f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": tensor.detach().cpu().contiguous()
            for name, tensor in weights.items()
            if "lora_" in name or name.partition(".")[0] in beside
        }
        text = json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n"
        return {
            "adapter_model.safetensors": save(learned, {"format": "pt"}),
            "adapter_config.json": text.encode(),
        }
