"""Language models of transformers, as small as they can be."""

from typing import Any

import torch
from torch import Tensor, nn

from fedsplit.models.adapters.lora import Lora
from fedsplit.models.zoo.causal_lm import causal_lm
from fedsplit.models.zoo.sequence_classifier import sequence_classifier

VOCABULARY, CONTEXT = 40, 12
_LLAMA: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
_NEOX = {key: _LLAMA[key] for key in _LLAMA if key != "num_key_value_heads"}
_BERT = _NEOX
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 3, "n_embd": 16, "n_head": 2},
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
    "mistral": _LLAMA,
    "gemma2": {**_LLAMA, "head_dim": 8},
    "gpt_neox": _NEOX,
    "opt": {
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
    },
}
ENCODERS: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 16, "hidden_dim": 24, "n_layers": 3, "n_heads": 2},
    "bert": _BERT,
    "roberta": _BERT,
}
TARGETS = {"distilbert": ["q_lin", "v_lin"], "bert": None, "roberta": None}
"""Modules that LoRA adapts, for families of which PEFT has no table."""


def decoder(family: str, *, tied: bool = False, **sizes: object) -> nn.Module:
    """An untrained decoder from seed 0; its embedding and head are one tensor if `tied`."""
    torch.manual_seed(0)
    return causal_lm(
        vocabulary=VOCABULARY,
        context=CONTEXT,
        architecture=family,
        sizes={**DECODERS[family], "tie_word_embeddings": tied, **sizes},
        attention="eager" if family == "gemma2" else "sdpa",
    )


def encoder(family: str) -> nn.Module:
    """An untrained classifier of three classes from seed 0."""
    torch.manual_seed(0)
    return sequence_classifier(
        vocabulary=VOCABULARY,
        context=CONTEXT,
        num_classes=3,
        architecture=family,
        sizes=dict(ENCODERS[family]),
    )


def adapted(model: nn.Module, *, dropout: float = 0.1, **keys: Any) -> nn.Module:
    """A model with LoRA, whose second factors are no longer zero."""
    Lora(**{"rank": 2, "alpha": 4, "dropout": dropout, "targets": None, "freeze_a": False, **keys}).inject(
        model
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def tokens(samples: int, length: int, *, lengths: tuple[int, ...] = ()) -> Tensor:
    """Token ids, padded behind the given lengths."""
    x = torch.randint(0, VOCABULARY, (samples, length), generator=torch.Generator().manual_seed(samples))
    for row, end in zip(x, lengths, strict=False):
        row[end:] = -1
    return x
